"""What the cgroups around this process leave it of the machine: memory and processor time, by the tightest limit.

In a container or a systemd service the machine's own figures say nothing: it may have 256 GB and this process 8 of them. Own cgroup
and all above it are read, version 1 and 2; without a limit there is no reading, never the machine's size. Text of /proc and
/sys alone, so nothing hangs. Nothing here judges.
"""

from collections.abc import Iterator
from pathlib import Path

from freehold.health.collectors.kernel_files import cgroup_folders, cgroup_paths, text_of
from freehold.health.model.view import Reading, State

_NO_LIMIT = Reading(state=State.UNSUPPORTED, detail="no cgroup here limits memory")
_UNLIMITED_BYTES = 1 << 60
"""Version 1 writes its largest number for no limit: 2^63 less a page (kernel Documentation/admin-guide/cgroup-v1/memory.rst)."""


def memory_limit(root: Path = Path("/")) -> dict[str, Reading]:
    """Return `limit_bytes` and `limit_available_bytes` of the cgroup that leaves least; UNSUPPORTED without any limit.

    Available is what the limit leaves beside memory that cannot be given back: page cache counts as free, as in MemAvailable.
    """
    found = [one for folder in _folders(root, "memory") if (one := _memory_of(folder)) is not None]
    if not found:
        return {"limit_bytes": _NO_LIMIT, "limit_available_bytes": _NO_LIMIT}
    limit, available = min(found, key=lambda one: one[1])
    return {"limit_bytes": Reading(value=limit), "limit_available_bytes": Reading(value=available)}


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return how many cores' time the tightest quota gives; None: there is no quota."""
    found = [one for folder in _folders(root, "cpu") if (one := _cores_of(folder)) is not None]
    return min(found, default=None)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroup for a controller, and of all above it."""
    for version, path in cgroup_paths(root, "self", controller):
        yield from cgroup_folders(root, path, version=version, controller=controller)


def _memory_of(folder: Path) -> tuple[int, int] | None:
    """Return limit and what is available below it, bytes; None: this cgroup has none."""
    limit = _first(folder, "memory.max", "memory.limit_in_bytes")
    used = _first(folder, "memory.current", "memory.usage_in_bytes")
    if limit is None or limit >= _UNLIMITED_BYTES or used is None:
        return None
    rows = dict(line.split(" ", 1) for line in text_of(folder / "memory.stat").splitlines() if " " in line)
    prefix = "total_" if "total_active_file" in rows else ""
    cache = sum(int(rows.get(f"{prefix}{name}_file", "0")) for name in ("active", "inactive"))
    return limit, max(0, limit - max(0, used - cache))


def _cores_of(folder: Path) -> float | None:
    quota, _, period = text_of(folder / "cpu.max").partition(" ")
    if not quota:
        quota, period = text_of(folder / "cpu.cfs_quota_us"), text_of(folder / "cpu.cfs_period_us")
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None  # `max`, -1, or no such controller
    return int(quota) / int(period)


def _first(folder: Path, *names: str) -> int | None:
    """Return the number in the first of the files that holds one: version 2's or version 1's."""
    return next((int(text) for name in names if (text := text_of(folder / name)).isdigit()), None)
