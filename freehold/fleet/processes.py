"""Facts about processes that we did not wait for: is this still the one we started, what else carries its mark.

A pid alone proves nothing, it may have been reused: a process is named by its pid, its start time and the boot it
lived in. Reads /proc and sends signals; starts nothing. Where there is no /proc only process groups are found.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec

_PROC = Path("/proc")
_STATE, _GROUP, _STARTED = 0, 2, 19
# Fields of /proc/PID/stat after the name in brackets: state, pgrp, starttime. Source: proc(5).


class ProcessMark(msgspec.Struct, frozen=True):
    """A process that cannot be mistaken for another one with the same pid."""

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
    """Signal exactly this process, and its group where it leads one; nothing happens when it is gone."""
    fields = _stat(process.pid)
    if not is_alive(process):
        return
    with contextlib.suppress(OSError):
        if int(fields[_GROUP]) == process.pid:
            os.killpg(process.pid, signal_number)
        else:
            os.kill(process.pid, signal_number)


def boot_id() -> str:
    """Return the kernel's name for this boot; empty where it has none."""
    with contextlib.suppress(OSError):
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return ""


def kill_group(pid: int, start_ticks: int, signal_number: int = signal.SIGKILL) -> bool:
    """Signal the process group that the engine `pid` led, unless the number is another process's by now.

    Returns whether there was somebody to signal. While a group has members its number is not given to a new
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


def carriers(variable: str, value: str) -> list[int]:
    """Return the pids whose environment at their start had `variable=value`: what a launch left, wherever it hid.

    Not found: processes of other users, and those that cleared their environment.
    """
    wanted = f"{variable}={value}".encode()
    return [pid for pid, fields in _all_stats() if fields[_STATE] != "Z" and wanted in _environ(pid)]


def kill_carriers(variable: str, value: str) -> bool:
    """SIGKILL every process that carries the variable; return whether there was one."""
    found = carriers(variable, value)
    for pid in found:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


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
