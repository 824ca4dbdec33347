"""Reads one watched volume without ever hanging itself: a child reads the disk, the kernel's counts are read here.

A read that has not ended within the deadline counts with the time that it has waited. Its child is killed; one that does not
die (state D) is abandoned, its pid kept, and one replacement is started; while both are stuck no third is. Nothing here
waits, touches the volume, or judges.
"""

import os
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from freehold.core import clock
from freehold.health.collectors.block_device import (
    Device,
    Mount,
    Ticks,
    device_of,
    is_network,
    is_user_space,
    limits_of,
    mount_of,
    read_ticks_s,
    ticks_of,
    waited_s,
)
from freehold.health.collectors.child_process import ChildSlot
from freehold.health.collectors.disk_process import DiskProcess, DiskReport, Space
from freehold.health.collectors.pressure import grown, pressure_s
from freehold.health.collectors.smart import SmartReaders
from freehold.health.model.view import Reading, State, Volume

PROBE_FILE = ".freehold-disk-probe"
WRITE_FILE = ".freehold-disk-write"
SIZE_BYTES = 64 << 20
"""64 MiB: large against what a disk's own cache keeps of one file; our own choice, at the low end."""
STUCK_MOST = 2
"""A child that hangs and one replacement. Source: docs/decisions/0012-health.md."""
RESTART_S = 10.0
"""Before a child that ended by itself is started again, doubled each time; our own choice: a start costs 50 ms of CPU."""
RESTART_MOST_S = 320.0
"""Where the doubling ends. Our own choice."""
REFUSED_S = 600.0
"""How old a child that may not read (no right, no room) grows before a new one tries: that changes by hand. Our own choice."""
MAKING_S = 120.0
"""How long writing the probe file may take: 64 MiB at half a MiB per second, our own choice."""
SILENT_S = 15.0
"""A child that cannot read speaks every 10 s (`disk_child.SPACE_EVERY_S`), half as much again is late. Our own choice."""
LIMITS_EVERY_S = 10.0
"""How often the cgroup's limits are looked at: they change by hand. Our own choice."""
MINUTE_READS = 60
"""Reads whose median is one sample of what is usual: a minute's at one per second."""
FIRST_READS = 30
"""Reads that make the first sample; fewer say nothing of a median (our own choice)."""
DAY_SAMPLES = 1440
"""Minutes of a day: what was usual yesterday is forgotten. Our own choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskOptions:
    """How to read one volume."""

    deadline_s: float = 5.0
    """A disk that answers later than this hangs: 5 s is a sixth of the kernel's own NVMe and SCSI timeout (30 s), above a
    cloud disk's hiccup."""
    interval_s: float = 1.0
    """Between two reads: 0.02 % of a core (measured: benchmarks/health_disk.py)."""
    size_bytes: int = SIZE_BYTES
    file: str = PROBE_FILE
    write_interval_s: float = 10.0
    """Between two writes of 4 KiB with fsync; 0: never. Our own choice: six a minute make a median.
    Measured on ext4: each is 15 kB with its journal, 0.13 GB a day, of a disk made for a thousand times that."""
    write_file: str = WRITE_FILE
    root: Path = Path("/")
    """Where /proc and /sys hang; a test brings its own."""
    smart: bool = True
    """Ask smartctl, where it is installed, once an hour."""
    kill: Callable[[int, int], None] = os.kill
    """A test of a process that does not die gives one that does nothing."""


class UsualReadTime:
    """What a read usually takes, learned; forgets after a day, and is not raised by a disk that becomes slow."""

    def __init__(self) -> None:
        self._reads: list[float] = []
        self._medians: deque[float] = deque(maxlen=DAY_SAMPLES)

    def add(self, reads_s: list[float]) -> None:
        """Take in reads that ended."""
        for took_s in reads_s:
            self._reads.append(took_s)
            if len(self._reads) >= (MINUTE_READS if self._medians else FIRST_READS):
                self._medians.append(statistics.median(self._reads))
                self._reads.clear()

    def reading(self) -> Reading:
        """Return the lowest median; TRANSIENT before there is one."""
        if not self._medians:
            return Reading(state=State.TRANSIENT, detail=f"{len(self._reads)} of {FIRST_READS} reads")
        return Reading(value=min(self._medians))


@dataclass(slots=True, kw_only=True)
class _Before:
    """What the look before saw."""

    at_s: float = 0.0
    ticks: Ticks | None = None
    pressure: dict[str, Reading] = field(default_factory=dict)
    waited: Reading | None = None


@dataclass(slots=True, kw_only=True)
class _Writes:
    """What became of the probe writes, across children."""

    error: str = ""
    wrote: bool = False
    read_only: str = ""

    def take(self, report: DiskReport, mount: Callable[[], Mount | None]) -> None:
        """Take in a child's report; why the volume is read-only is looked up when it first reports EROFS."""
        if report.write_error is None:
            return
        self.wrote |= bool(report.writes_s)
        if report.write_error != "EROFS":
            self.read_only = ""
        elif self.error != "EROFS":
            found = mount()
            self.read_only = found.read_only if found else ""
        self.error = report.write_error


class DiskReader:
    """Gives the view's `Volume` for one path; `read` takes well under a millisecond and never blocks on the disk."""

    def __init__(self, path: str, options: DiskOptions | None = None) -> None:
        self._path = path
        self._options = options or DiskOptions()
        self._children = ChildSlot[DiskProcess]()
        self._given_up_s: float | None = None
        self._unanswered_s: float | None = None
        self._start_s = 0.0
        self._pause_s = RESTART_S
        self._born_s = 0.0
        self._heard_s = 0.0
        self._reads = False
        self._why = ""
        self._place: tuple[int, int, str] | None = None
        self._space: Space | None = None
        self._mount: Mount | None = None
        self._device: Device | None = None
        self._limits: tuple[str, ...] = ()
        self._limits_s = 0.0
        self._before = _Before()
        self._writes = _Writes()
        self._usual = UsualReadTime()
        self._smart = SmartReaders() if self._options.smart else None

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the child processes that are alive, those abandoned included."""
        return self._children.pids

    def read(self) -> Volume:
        """Return what was seen since the call before; the first call starts the child and sees little."""
        now_s = clock.monotonic_s()
        self._children.reap()
        self._start(now_s)
        volume = self._counted(now_s, self._from_child(now_s))
        if self._smart is None or self._device is None:
            return volume
        smart = self._smart.read((self._device.name, *self._device.disks))
        return msgspec.structs.replace(volume, smart=smart)

    def close(self) -> None:
        """End the child; one that is stuck is left behind."""
        self._children.abandon()
        if self._smart is not None:
            self._smart.close()
        self._children.reap()

    def _start(self, now_s: float) -> None:
        if self._children.now is not None or len(self._children.stuck) >= STUCK_MOST or now_s < self._start_s:
            return
        options = self._options
        mount = mount_of(os.path.normpath(self._path), self._mountinfo())
        size_bytes = 0 if mount and mount.in_memory else options.size_bytes
        probe = f"{self._path}/{options.file}"
        arguments = [self._path, probe, str(size_bytes), str(options.interval_s)]
        arguments += [f"{self._path}/{options.write_file}", str(options.write_interval_s)]
        self._children.now = DiskProcess(arguments, kill=options.kill)
        self._heard_s, self._born_s, self._reads = now_s, now_s, False

    def _from_child(self, now_s: float) -> Volume:
        """Return the part that the child reports, and give it up where it is over its deadline."""
        reads_s: list[float] = []
        errors: list[str] = []
        writes_s: list[float] = []
        waits_s = 0.0
        child = self._children.now
        if child is not None:
            alive = child.listen()
            report = child.report
            reads_s, errors, writes_s = report.reads_s[:], report.errors[:], report.writes_s[:]
            waits_s = now_s - report.write_began_s if report.write_began_s is not None else 0.0
            self._writes.take(report, lambda: mount_of(os.path.normpath(self._path), self._mountinfo()))
            self._take(child, spoke=bool(reads_s or errors), now_s=now_s)
            self._give_up(child, alive=alive, now_s=now_s)
        self._usual.add(reads_s)
        late_s = self._late(now_s, ended=bool(reads_s or errors))
        state, detail = self._state(now_s)
        return Volume(
            path=self._path,
            reads_s=(*reads_s, *late_s),
            timeouts=len(late_s),
            errors=tuple(errors),
            state=state,
            detail=detail,
            writing=bool(self._options.write_interval_s),
            writes_s=tuple(writes_s),
            write_waits_s=max(0.0, waits_s),
            write_error=self._writes.error,
            wrote=self._writes.wrote,
            read_only=self._writes.read_only,
        )

    def _take(self, child: DiskProcess, *, spoke: bool, now_s: float) -> None:
        report = child.report
        report.reads_s.clear()
        report.errors.clear()
        report.writes_s.clear()
        if spoke or report.space is not self._space:
            self._heard_s = now_s
        if spoke:
            self._reads, self._pause_s = True, RESTART_S
        self._space = report.space or self._space
        self._why = report.refused
        if report.place is not None and report.place != self._place:
            self._place = report.place
            major, minor, path = report.place
            self._mount = mount_of(path, self._mountinfo())
            source = self._mount.source if self._mount else ""
            self._device = device_of(f"{major}:{minor}", source, self._options.root)

    def _mountinfo(self) -> str:
        try:
            return (self._options.root / "proc/self/mountinfo").read_text(errors="surrogateescape")
        except OSError:
            return ""

    def _give_up(self, child: DiskProcess, *, alive: bool, now_s: float) -> None:
        report, deadline_s = child.report, self._options.deadline_s
        if not alive:
            self._why = self._why or f"the disk reading process ended (code {child.code})"
            child.abandon()
            self._children.now, self._start_s = None, now_s + self._pause_s
            self._pause_s = min(2 * self._pause_s, RESTART_MOST_S)
            return
        limit_s = MAKING_S if report.making else deadline_s
        quiet_s = self._options.interval_s if self._reads else SILENT_S
        since_s = report.began_s if report.began_s is not None else self._heard_s + quiet_s
        if now_s - since_s >= limit_s:
            self._given_up_s = since_s
        elif not (report.refused and now_s - self._born_s >= REFUSED_S):
            return
        self._children.abandon()
        self._start_s = now_s

    def _late(self, now_s: float, *, ended: bool) -> tuple[float, ...]:
        """Return the read that was given up just now with what it has waited; until a read ends nothing is well again."""
        fresh = self._given_up_s is not None
        if fresh:
            self._unanswered_s = (
                self._given_up_s if self._unanswered_s is None or ended else self._unanswered_s
            )
        elif ended:
            self._unanswered_s = None
        waited_s = (now_s - self._given_up_s,) if self._given_up_s is not None else ()
        self._given_up_s = None
        return waited_s

    def _state(self, now_s: float) -> tuple[State, str]:
        if self._unanswered_s is not None:
            stuck = ", ".join(str(child.pid) for child in self._children.stuck)
            of = f" (process {stuck} cannot be ended)" if stuck else ""
            return State.HUNG, f"no answer for {now_s - self._unanswered_s:.1f} s{of}"
        if self._why:
            return _REFUSED.get(self._why.split(" ")[0], State.UNKNOWN), self._why
        if self._mount is not None and self._mount.in_memory:
            return State.UNSUPPORTED, f"{self._mount.file_system} is memory, not a disk"
        return (State.OK, "") if self._place else (State.TRANSIENT, "starting")

    def _counted(self, now_s: float, volume: Volume) -> Volume:
        """Return it with what the kernel counted."""
        root, before, device = self._options.root, self._before, self._device
        ticks = ticks_of(device.numbers, root) if device else None
        pressure = pressure_s("io", root)
        waited = self._waited()
        file_system = self._mount.file_system if self._mount else ""
        replaced = msgspec.structs.replace(
            volume,
            device=device.name if device else "",
            disks=device.disks if device else (),
            file_system=file_system,
            user_space=is_user_space(file_system),
            network=is_network(file_system),
            source=self._mount.source if self._mount else "",
            rotational=device.rotational if device else None,
            device_ticks_s=read_ticks_s(before.ticks, ticks),
            device_queue=_queue(before.ticks, ticks, now_s - before.at_s),
            device_in_flight=Reading(value=ticks.in_flight) if ticks else _NO_DEVICE,
            pressure_some_s=grown(before.pressure.get("some"), pressure["some"]),
            pressure_full_s=grown(before.pressure.get("full"), pressure["full"]),
            throttled_s=grown(before.waited, waited),
            limits=self._limits_now(now_s),
            usual_read_s=self._usual.reading(),
            **_space_readings(self._space, volume.state),
        )
        self._before = _Before(at_s=now_s, ticks=ticks, pressure=pressure, waited=waited)
        return replaced

    def _devices(self) -> tuple[str, ...]:
        return (self._device.numbers, *self._device.below) if self._device else ()

    def _waited(self) -> Reading:
        found = None
        if self._children.now is not None and self._devices():
            found = waited_s(self._children.now.pid, self._devices(), self._options.root)
        if found is None:
            return Reading(state=State.UNSUPPORTED, detail="the kernel counts no wait for a blkio limit")
        return Reading(value=found)

    def _limits_now(self, now_s: float) -> tuple[str, ...]:
        if self._children.now is not None and self._devices() and now_s >= self._limits_s:
            self._limits = limits_of(self._children.now.pid, self._devices(), self._options.root)
            self._limits_s = now_s + LIMITS_EVERY_S
        return self._limits


_NO_DEVICE = Reading(state=State.UNSUPPORTED, detail="this volume has no block device of its own")
_REFUSED = {
    "EINVAL": State.UNSUPPORTED,  # no O_DIRECT here
    "EOPNOTSUPP": State.UNSUPPORTED,
    "EACCES": State.DENIED,
    "EPERM": State.DENIED,
    "EROFS": State.DENIED,
    "ENOSPC": State.DENIED,
    "ENOENT": State.ABSENT,
    "ENOTDIR": State.ABSENT,
}


def _queue(before: Ticks | None, now: Ticks | None, elapsed_s: float) -> Reading:
    if now is None:
        return _NO_DEVICE
    if before is None or elapsed_s <= 0:
        return Reading(state=State.TRANSIENT, detail="first look")
    return Reading(value=max(0.0, now.queue_s - before.queue_s) / elapsed_s)


def _space_readings(space: Space | None, state: State) -> dict[str, Reading]:
    names = ("total_bytes", "free_bytes", "total_inodes", "free_inodes")
    if space is None:
        return dict.fromkeys(names, Reading(state=state if state is not State.OK else State.TRANSIENT))
    readings = {name: Reading(value=getattr(space, name)) for name in names}
    if not space.total_inodes:
        none = Reading(state=State.UNSUPPORTED, detail="this file system does not count inodes")
        readings |= {"total_inodes": none, "free_inodes": none}
    return readings
