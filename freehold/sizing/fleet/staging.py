"""How long weights take from a disk or a link into the GPUs, which disk is needed for a restart in time, how much host RAM.

It stages nothing and knows no prices.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from freehold.catalog.facts import Link, Storage
from freehold.core.spread import Spread

RESTART_TARGET_S = 60.0
"""Within which weights should be back in the GPUs after an engine died. Why: a caller's retry outlasts a minute, hardly more."""
REBUILD_TARGET_S = 1800.0
"""Within which weights should be on a new machine: half of the hour that a rebuild may take (research, section 4)."""
LOADER_GB_S = (1.12, 2.13)
"""What one GPU's loader reaches with many threads, GB/s, low and high; the stock loader with one thread 0.33. Source: the
storage catalog's rows of the Run:ai/NVIDIA streamer benchmark (2025-09)."""
DISK_YIELD = 0.8
"""Of a disk's sequential rate, what a loader may get instead. Why: weights are several files, read by several threads."""
PCIE_GB_S = 25.0
"""Into one GPU, GB/s. Source: links catalog, PCIe 4 x16, the slower of what the cards have."""
HOST_BASE_GB = 32.0
"""Operating system, gateway, engine's own processes. Why: an engine's resident set without weights is 5 to 20 GB."""
HOST_GB_PER_GPU = 16.0
"""Pinned buffers and a worker process per GPU. Why: as above, per rank."""
PAGE_CACHE_COPIES = 1.0
"""Copies of the weights that the page cache should hold, so that a second start does not read the disk."""
# Rows of the storage catalog that are a loader or memory, not a disk that one could choose.
_NO_DISK = ("loader", "streamer", "page-cache")


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """The advised disk, and how long loading takes from it, seconds."""

    storage: str
    """Catalog id; empty: the catalog has no disk."""
    load_time_s: Spread
    in_time: bool
    """Whether the low end of it is within the target for a restart."""


def stage(storage: Mapping[str, Storage], weights_bytes: float, *, gpus: int) -> Staging:
    """Return the slowest disk that loads a replica's weights in time, else the fastest."""
    disks = sorted(
        (row for row in storage.values() if not any(word in row.id for word in _NO_DISK)),
        key=lambda row: row.seq_read_gb_s,
    )
    if not disks:
        return Staging(storage="", load_time_s=_load_s(weights_bytes, gpus, LOADER_GB_S[0]), in_time=False)
    times = [(disk, _load_s(weights_bytes, gpus, disk.seq_read_gb_s)) for disk in disks]
    chosen, time_s = next(((disk, time) for disk, time in times if time.low <= RESTART_TARGET_S), times[-1])
    return Staging(storage=chosen.id, load_time_s=time_s, in_time=time_s.low <= RESTART_TARGET_S)


def _load_s(weights_bytes: float, gpus: int, storage_gb_s: float) -> Spread:
    """Return bytes over the least of disk, bus and loader, the loader being what is least known."""
    gigabytes = weights_bytes / 1e9
    slow_loader, fast_loader = (gpus * loader for loader in LOADER_GB_S)
    fast = min(storage_gb_s, gpus * PCIE_GB_S, fast_loader)
    slow = min(storage_gb_s * DISK_YIELD, gpus * PCIE_GB_S, slow_loader)
    return Spread.between(gigabytes / fast, gigabytes / slow)


def load_over_s(weights_bytes: float, link: Link) -> float:
    """Return the seconds that weights take over a network link."""
    return weights_bytes / (link.effective_gb_s_per_dir * 1e9)


def least_for_rebuild(links: list[Link], weights_bytes: float) -> Link | None:
    """Return the first of these links (slowest first) that brings the weights to a new machine in time; None: none does."""
    return next((link for link in links if load_over_s(weights_bytes, link) <= REBUILD_TARGET_S), None)


def host_ram_gb(weights_bytes: float, *, gpus: int) -> float:
    """Return a node's RAM: base, a part per GPU, and the page cache's copy of the weights."""
    return HOST_BASE_GB + HOST_GB_PER_GPU * gpus + PAGE_CACHE_COPIES * weights_bytes / 1e9
