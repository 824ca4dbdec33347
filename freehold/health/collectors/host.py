"""Reads memory, clock, blocked processes and the memory controllers' error counts: text of /proc and /sys, and adjtimex.

None of it touches a disk or a driver, so none of it can hang. Processes are looked at seldom, because that costs the
most; of their threads only the first is seen. Nothing here judges, and nothing is set.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from freehold.core import clock
from freehold.health.collectors.cgroup_limits import memory_limit
from freehold.health.collectors.kernel_files import text_of
from freehold.health.collectors.pressure import pressure_s
from freehold.health.model.view import Host, Reading, State

BLOCKED_EVERY_S = 20.0
"""Between two looks at all processes: one costs some 15 us per process, and only those that stay blocked matter. Our own choice."""
BLOCKED_MOST = 50
"""Blocked processes that a view names; when a disk hangs there may be thousands. Our own bound."""
OURS = "freehold-"
"""Freehold's own reading children: they hang in a disk's or driver's place, and other checks judge them."""
STA_UNSYNC = 0x0040
"""adjtimex(2), linux/timex.h: the clock is not synchronised."""
_KIB = 1024  # /proc/meminfo counts in KiB and calls them kB (proc_meminfo(5))


class _Timex(ctypes.Structure):
    """struct timex of linux/timex.h as glibc has it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "seconds")),
        *((name, ctypes.c_long) for name in ("microseconds", "tick", "ppsfreq", "jitter")),
        ("shift", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Synchronised:
    """What the kernel knows of its own clock."""

    synchronised: int
    """1 or 0."""
    estimated_error_s: float
    maximum_error_s: float


def ask_kernel_clock() -> Synchronised | None:
    """Return what adjtimex says, asked without setting anything; None: this system has no such call."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    timex = _Timex(modes=0)
    if adjtimex(ctypes.byref(timex)) < 0:
        return None
    return Synchronised(
        synchronised=int(not timex.status & STA_UNSYNC),
        estimated_error_s=timex.esterror / 1e6,
        maximum_error_s=timex.maxerror / 1e6,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """Where and how to read."""

    root: Path = Path("/")
    """Where /proc and /sys hang; a test brings its own."""
    time: clock.Clock = clock.SYSTEM_CLOCK
    slept_s: Callable[[], float] = clock.slept_s
    ask_clock: Callable[[], Synchronised | None] = ask_kernel_clock
    blocked_every_s: float = BLOCKED_EVERY_S


class HostReader:
    """Gives the view's `Host`."""

    def __init__(self, options: HostOptions | None = None) -> None:
        self._options = options or HostOptions()
        self._blocked: dict[str, str] = {}
        self._due_s = float("-inf")

    def read(self) -> Host:
        """Return what is so now; blocked processes are as old as the last look at them."""
        root = self._options.root
        now_s = self._options.time.monotonic_s()
        if now_s >= self._due_s:
            self._due_s = now_s + self._options.blocked_every_s
            self._blocked = blocked_processes(root)
        return Host(memory=_memory(root), clock=self._clock(), blocked=self._blocked, edac=_edac(root))

    def _clock(self) -> dict[str, Reading]:
        time = self._options.time
        # A machine that slept and woke has a wall clock that went on: no jump.
        offset_s = time.wall_s() - time.monotonic_s() - self._options.slept_s()
        readings = {"wall_minus_monotonic_s": Reading(value=offset_s)}
        kernel = self._options.ask_clock()
        if kernel is None:
            missing = Reading(state=State.UNSUPPORTED, detail="no adjtimex here")
            return readings | dict.fromkeys(("synchronised", "estimated_error_s", "maximum_error_s"), missing)
        return readings | {name: Reading(value=value) for name, value in asdict(kernel).items()}


def _memory(root: Path) -> dict[str, Reading]:
    sizes = dict(_numbers(root / "proc/meminfo", ":"))
    pressure = pressure_s("memory", root)
    unread = Reading(state=State.UNKNOWN, detail="not in /proc/meminfo")

    def size(name: str) -> Reading:
        return Reading(value=sizes[name] * _KIB) if name in sizes else unread

    swap = unread
    if {"SwapTotal", "SwapFree"} <= sizes.keys():
        swap = Reading(value=(sizes["SwapTotal"] - sizes["SwapFree"]) * _KIB)
    kills = next((count for name, count in _numbers(root / "proc/vmstat", " ") if name == "oom_kill"), None)
    return {
        "total_bytes": size("MemTotal"),
        "available_bytes": size("MemAvailable"),
        "swap_used_bytes": swap,
        "pressure_some_s": pressure["some"],
        "pressure_full_s": pressure["full"],
        "oom_kills": Reading(state=State.UNSUPPORTED) if kills is None else Reading(value=kills),
        **memory_limit(root),
    }


def _numbers(path: Path, mark: str) -> Iterator[tuple[str, int]]:
    """Yield name and number of each line `NAME<mark> NUMBER …`."""
    for line in text_of(path).splitlines():
        name, _, rest = line.partition(mark)
        words = rest.split()
        if words and words[0].isdigit():
            yield name, int(words[0])


def _edac(root: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    try:
        controllers = sorted((root / "sys/devices/system/edac/mc").iterdir())
    except OSError:
        return found
    for folder in controllers:
        for name in ("ce_count", "ue_count"):
            text = text_of(folder / name)
            if text.isdigit():
                found[name] = found.get(name, 0) + int(text)
    return found


def blocked_processes(root: Path) -> dict[str, str]:
    """Return the processes in state D, `pid name` → where in the kernel they wait, as far as it may be read.

    Threads other than a process's first are not looked at. Our own readers are left out, and processes of other users without
    privileges: such a user can give a process any name, a driver's too, and hold it in state D (vfork(2)).
    """
    found: dict[str, str] = {}
    try:
        pids = [name for name in os.listdir(root / "proc") if name.isdigit()]  # noqa: PTH208 -- names, not paths
    except OSError:
        return found
    for pid in pids:
        name = _blocked_name(root, pid)
        if name and len(found) < BLOCKED_MOST and not _is_foreign(root / "proc" / pid):
            found[f"{pid} {name}"] = text_of(root / "proc" / pid / "wchan") or "?"
    return found


def _is_foreign(process: Path) -> bool:
    try:
        return process.stat().st_uid not in {0, os.geteuid()}
    except OSError:  # it has ended
        return True


def _blocked_name(root: Path, pid: str) -> str:
    """Return a process's name where it is in state D and not ours; empty otherwise."""
    # `pid (name) state …`: a name may hold spaces and brackets (proc_pid_stat(5)).
    head, _, rest = text_of(root / "proc" / pid / "stat").rpartition(")")
    name = head.partition("(")[2]
    return name if rest.startswith(" D") and not name.startswith(OURS) else ""
