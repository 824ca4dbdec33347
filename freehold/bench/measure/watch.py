"""What an engine's processes and the machine use while a load is on: CPU seconds, memory, energy.

It reads /proc once a second and counters at both ends of the window. What cannot be read is None, never zero. CPU is that
of the engine's own process group; energy of GPUs is that of those which the engine was given, or of all where it is not known
which there are; energy of CPU packages is the machine's, whoever used it.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from freehold.bench.analysis.results import Resources
from freehold.core.clock import monotonic_s
from freehold.core.events import GpuId
from freehold.fleet.processes.proc_files import group_members
from freehold.health.collectors.nvml import NvmlReader
from freehold.health.model.view import Gpu, Gpus, State

EVERY_S = 1.0
"""Between two looks. Source: our own choice: a look costs some milliseconds."""
RAPL = Path("/sys/class/powercap")
"""Where Linux shows the energy counters of CPU packages. Source: kernel documentation, power/powercap."""
_PROC = Path("/proc")
Watts = Callable[[], Awaitable[float | None]]
_UTIME, _CSTIME = 11, 14
"""Fields of /proc/PID/stat after the name: user, system, and of ended children both. Source: proc(5), fields 14 to 17."""


@dataclass(slots=True)
class Watching:
    """What was seen so far; `resources` says it once the block of `watched` has ended."""

    watched_s: float = 0.0
    cpu_s: float | None = None
    memory_peak_bytes: int | None = None
    gpu_watts: list[float] = field(default_factory=list)
    package_j: float | None = None

    @property
    def resources(self) -> Resources:
        """Return all of it; nothing is known of a load that ended before the first look was followed by another."""
        known = self.watched_s > 0
        return Resources(
            cpu_cores=self.cpu_s / self.watched_s if known and self.cpu_s is not None else None,
            memory_peak_bytes=self.memory_peak_bytes,
            gpu_watts=sum(self.gpu_watts) / len(self.gpu_watts) if self.gpu_watts else None,
            package_watts=self.package_j / self.watched_s if known and self.package_j is not None else None,
        )


class GpuMeter:
    """GPU power by NVML, in its child process; asked no more once there is none."""

    def __init__(self) -> None:
        self._reader: NvmlReader | None = NvmlReader()
        self.last = Gpus(state=State.UNKNOWN)

    async def watts(self, gpus: Sequence[GpuId] | None = None) -> float | None:
        """Return what these GPUs draw together, or all of them for None; None: one of them, or the driver, does not report it.

        Without a GPU nothing is reported, nor of an instance of a divided one: the driver knows what the whole of it draws.
        """
        if self._reader is None:
            return None
        self.last = await self._reader.read()
        if self.last.state is not State.OK or not self.last.gpus:
            await self.close()
            return None
        there = [gpu for gpu in self.last.gpus if gpus is None or _among(gpu, gpus)]
        if not there or (gpus is not None and len(there) < len(gpus)):
            return None
        found = [reading(gpu.readings.get("power_w")) for gpu in there]
        return None if None in found else sum(value for value in found if value is not None)

    async def close(self) -> None:
        """End the child."""
        if self._reader is not None:
            await self._reader.close()
        self._reader = None


def _among(gpu: Gpu, gpus: Sequence[GpuId]) -> bool:
    """Return whether a GPU that NVML knows is one of these: by UUID, else by number, which both take from the PCI address."""
    return any(gpu.uuid == each.uuid if gpu.uuid and each.uuid else gpu.index == each.index for each in gpus)


def reading(found: object) -> float | None:
    """Return a reading's number; None: it has none."""
    value = getattr(found, "value", None)
    good = getattr(found, "state", None) is State.OK and isinstance(value, int | float)
    return float(value) if good and isinstance(value, int | float) else None


@contextlib.asynccontextmanager
async def watched(
    group: int, meter: GpuMeter, *, gpus: Sequence[GpuId] | None = None, after_s: float
) -> AsyncIterator[Watching]:
    """Watch a process group from `after_s` seconds on until the block ends; the warm-up before that does not count.

    `gpus` are those that it was given; None: not known, so all count.
    """
    seen = Watching()
    task = asyncio.create_task(_watch(seen, group, partial(meter.watts, gpus), after_s))
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _watch(seen: Watching, group: int, watts: Watts, after_s: float) -> None:
    await asyncio.sleep(after_s)
    cpu, energy, began_s = cpu_seconds(group), package_joules(), monotonic_s()
    joules: float | None = 0.0
    while True:
        await _look(seen, group, watts)
        await asyncio.sleep(EVERY_S)
        seen.cpu_s = _since(cpu, cpu_seconds(group))
        energy, before = package_joules(), energy
        # From look to look: within a long load a counter turns over more than once (262 kJ: 22 minutes at 200 W).
        joules = _plus(joules, _joules_since(before, energy))
        seen.package_j = joules
        seen.watched_s = monotonic_s() - began_s


async def _look(seen: Watching, group: int, watts: Watts) -> None:
    memory = await asyncio.to_thread(memory_bytes, group)
    if memory is not None:
        seen.memory_peak_bytes = max(memory, seen.memory_peak_bytes or 0)
    drawn = await watts()
    if drawn is not None:
        seen.gpu_watts.append(drawn)


def _plus(sum_j: float | None, more_j: float | None) -> float | None:
    return None if sum_j is None or more_j is None else sum_j + more_j


def _since(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None else max(0.0, now - before)


def cpu_seconds(group: int) -> float | None:
    """Return the CPU time of a process group's members and their ended children; None: there is no such group."""
    ticks = os.sysconf("SC_CLK_TCK")
    found = [_ticks(pid) for pid in group_members(group)]
    return sum(found) / ticks if found else None


def _ticks(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return sum(int(each) for each in fields[_UTIME : _CSTIME + 1])
    return 0


def memory_bytes(group: int) -> int | None:
    """Return the proportional memory of a process group; None: no member reports it."""
    found = [size for pid in group_members(group) if (size := _pss(pid)) is not None]
    return sum(found) if found else None


def _pss(pid: int) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return None


def package_joules(root: Path = RAPL) -> tuple[tuple[float, float], ...]:
    """Return (joules, where the counter turns over) of each CPU package; empty: one of them, or all, cannot be read."""
    found = [_zone(zone) for _, zone in sorted(_packages(root).items())]
    known = tuple(each for each in found if each is not None)
    return known if len(known) == len(found) else ()


def _packages(root: Path) -> dict[str, Path]:
    """Return the zone of each package by its name.

    Beside packages (`intel-rapl:0`, AMD's are called the same) stand their parts (`intel-rapl:0:1`), the whole machine (`psys`), and the
    packages once more by another way (`intel-rapl-mmio:0`): to add these up would count the same joules twice.
    """
    found: dict[str, Path] = {}
    with contextlib.suppress(OSError):
        for zone in sorted(root.iterdir(), reverse=True):
            name = _name(zone) if zone.name.count(":") == 1 else ""
            if name.startswith("package"):
                found.setdefault(
                    name, zone
                )  # of two ways `intel-rapl:0`, which all have, before `intel-rapl-mmio:0`
    return found


def _name(zone: Path) -> str:
    with contextlib.suppress(OSError):
        return (zone / "name").read_text().strip()
    return ""


def _zone(zone: Path) -> tuple[float, float] | None:
    with contextlib.suppress(OSError, ValueError):
        energy = int((zone / "energy_uj").read_text())
        return energy / 1e6, int((zone / "max_energy_range_uj").read_text()) / 1e6
    return None


def _joules_since(
    before: tuple[tuple[float, float], ...], now: tuple[tuple[float, float], ...]
) -> float | None:
    if not before or len(before) != len(now):
        return None
    return sum(
        (later - earlier) % most if most else later - earlier
        for (earlier, most), (later, _) in zip(before, now, strict=True)
    )
