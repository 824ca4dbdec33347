"""Facts about processes from /proc: is this still the process that was started, which others belong to it.

A pid alone proves nothing, it may have been reused: a process is named by its pid, its start time and the boot it
lived in. Reads /proc and sends signals; starts nothing. Where there is no /proc only process groups are found.
"""

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

_PROC = Path("/proc")
_STATE, _PARENT, _GROUP, _TERMINAL, _USER_TICKS, _SYSTEM_TICKS, _STARTED = 0, 1, 2, 4, 11, 12, 19
# Fields of /proc/PID/stat after the name in brackets: state, ppid, pgrp, tty_nr, utime, stime, starttime. Source: proc(5).
_PTS_FIRST, _PTS_LAST = 136, 143  # Major numbers of pseudo-terminals. Source: Linux, admin-guide/devices.txt.


class ProcessMark(msgspec.Struct, frozen=True):
    """A process, identified beyond its pid, which another one may get later."""

    pid: int
    start_ticks: int
    """Start time, clock ticks since boot; 0: not known."""
    boot_id: str


def mark(pid: int) -> ProcessMark | None:
    """Return the mark of a living process; None: there is none of that pid."""
    fields = _stat(pid)
    if not fields or fields[_STATE] == "Z":
        return None
    return ProcessMark(pid, int(fields[_STARTED]), boot_id())


def is_alive(process: ProcessMark) -> bool:
    """Return whether exactly this process still lives; a zombie does not."""
    return mark(process.pid) == process


def end(process: ProcessMark, signal_number: int) -> None:
    """Signal exactly this process, and its group if it leads one; do nothing when it has ended."""
    fields = _stat(process.pid)
    if not is_alive(process):
        return
    with contextlib.suppress(OSError):
        if int(fields[_GROUP]) == process.pid:
            os.killpg(process.pid, signal_number)
        else:
            os.kill(process.pid, signal_number)


def user(pid: int) -> int | None:
    """Return the user id that a process was started with (its real one); None: it has ended."""
    with contextlib.suppress(OSError):
        lines = (_PROC / str(pid) / "status").read_text(errors="replace").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("Uid:")), None)
    return None


def terminal(pid: int) -> str:
    """Return a process's terminal, such as `pts/3`; empty: it has none, or has ended."""
    fields = _stat(pid)
    device = int(fields[_TERMINAL]) if fields else 0
    major, minor = os.major(device), os.minor(device)
    if _PTS_FIRST <= major <= _PTS_LAST:
        return f"pts/{minor + (major - _PTS_FIRST) * 256}"
    return f"tty {major}:{minor}" if device else ""


def boot_id() -> str:
    """Return the kernel's id of this boot; empty where it has none."""
    with contextlib.suppress(OSError):
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return ""


def kill_group(pid: int, start_ticks: int, signal_number: int = signal.SIGKILL) -> bool:
    """Signal the process group that the engine `pid` led, unless another process has that number now.

    Returns whether the group still had members. While a group has members its number is not given to a new
    process, so a leader of that number with another start time means that our group is gone.
    """
    fields = _stat(pid)
    if fields and start_ticks and int(fields[_STARTED]) != start_ticks:
        return False
    try:
        os.killpg(pid, signal_number)
    except OSError:
        return False
    return bool(group_members(pid))


def group_members(group: int) -> list[int]:
    """Return the pids in a process group, zombies left out."""
    return [pid for pid, fields in _all_stats() if int(fields[_GROUP]) == group and fields[_STATE] != "Z"]


def family(pid: int) -> list[int]:
    """Return a process and all its descendants, zombies left out; empty: it has ended."""
    parents = {each: int(fields[_PARENT]) for each, fields in _all_stats() if fields[_STATE] != "Z"}
    found = [pid] if pid in parents else []
    for parent in found:  # grows during the loop
        found += [child for child, its in parents.items() if its == parent]
    return found


class ProcessUsage(msgspec.Struct, frozen=True):
    """The resources that processes have used since they were started, added up."""

    cpu_s: float
    read_bytes: int
    """Bytes of read calls, and bytes read from disks."""


def usage(pids: Iterable[int]) -> ProcessUsage:
    """Return what processes have used; ended processes and those of other users count as 0."""
    ticks = read_bytes = 0
    for pid in pids:
        fields = _stat(pid)
        ticks += int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS]) if fields else 0
        read_bytes += _read_bytes(pid)
    return ProcessUsage(ticks / os.sysconf("SC_CLK_TCK"), read_bytes)


def _read_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        rows = (line.split(": ") for line in (_PROC / str(pid) / "io").read_text().splitlines())
        return sum(int(value) for name, value in rows if name in ("rchar", "read_bytes"))
    return 0


def ancestors(pid: int) -> Iterator[int]:
    """Yield a process's parent, that process's parent and so on, as far as they are visible."""
    while (fields := _stat(pid)) and (pid := int(fields[_PARENT])) > 1:
        yield pid


def carriers(variable: str, value: str) -> list[int]:
    """Return the pids whose environment at their start had `variable=value`: all processes of one launch.

    Not found: processes of other users, and those that cleared their environment.
    """
    wanted = f"{variable}={value}".encode()
    return [pid for pid, fields in _all_stats() if fields[_STATE] != "Z" and wanted in _environ(pid)]


def kill_carriers(variable: str, value: str) -> bool:
    """SIGKILL every process that has the variable; return whether there was one."""
    found = carriers(variable, value)
    for pid in found:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


_LISTEN = "0A"
_LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F")
"""127.0.0.1 as proc(5) writes it on a little-endian machine, in `tcp` and in `tcp6`."""
_ANY = ("0" * 8, "0" * 32)


def listeners(port: int) -> set[str]:
    """Return the inodes of the sockets that connections to a port of 127.0.0.1 reach.

    Those that listen on every address count only if none listens on 127.0.0.1 itself, as for the kernel.
    """
    found: dict[str, set[str]] = {}
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                address, _, number = fields[1].partition(":")
                if fields[3] == _LISTEN and int(number, 16) == port:
                    found.setdefault(address, set()).add(fields[9])
    exact, anywhere = (set().union(*(found.get(each, ()) for each in group)) for group in (_LOOPBACK, _ANY))
    return exact or anywhere


def sockets(pids: Iterable[int]) -> set[str]:
    """Return the inodes of the sockets that processes have open; none of those of other users."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in (_PROC / str(pid) / "fd").iterdir():
                with contextlib.suppress(OSError):
                    found.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def _environ(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    return []


def _all_stats() -> Iterator[tuple[int, list[str]]]:
    names = [entry.name for entry in _PROC.iterdir()] if _PROC.is_dir() else []
    for pid in [int(name) for name in names if name.isdigit()]:
        fields = _stat(pid)
        if fields:
            yield pid, fields


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat that follow the name; empty: no such process."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return []
