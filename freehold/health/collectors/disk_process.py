"""One disk reading child as its parent sees it: started, read, killed and given up, never waited for.

A process in state D does not die of SIGKILL; so nothing here waits for an exit, and whether it is gone is asked without
blocking. What the times mean is not judged here.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import freehold
from freehold.core import clock
from freehold.health.collectors.child_process import ChildProcess

CHILD = "freehold.health.collectors.disk_child"
START = f"from {CHILD} import main; main()"
PACKAGE_ROOT = Path(freehold.__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The numbers of statvfs."""

    total_bytes: int
    free_bytes: int
    total_inodes: int
    """0: this file system does not count them."""
    free_inodes: int


@dataclass(slots=True, kw_only=True)
class DiskReport:
    """What the child has reported since it was last read, and the last report of what stays."""

    reads_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    place: tuple[int, int, str] | None = None
    """Device number, and the volume's real path."""
    space: Space | None = None
    refused: str = ""
    """Why it cannot read without the page cache."""
    making: bool = False
    began_s: float | None = None
    """Monotonic; of the read that has not ended, or of the child's start until its first line."""
    writes_s: list[float] = field(default_factory=list)
    write_error: str | None = None
    """errno name of the newest write that ended, empty where it succeeded; None: none has ended."""
    write_began_s: float | None = None
    """Monotonic; of the write that has not ended."""


class DiskProcess(ChildProcess):
    """A running child."""

    def __init__(self, arguments: list[str], *, kill: Callable[[int, int], None] = os.kill) -> None:
        """Start it. `kill` is os.kill, but for a test that needs a process which does not die."""
        self.report = DiskReport(began_s=clock.monotonic_s())
        self._rest = b""
        super().__init__(
            [sys.executable, "-S", "-P", "-c", START, *arguments],
            env={"PYTHONPATH": str(PACKAGE_ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            kill=kill,
        )

    def listen(self) -> bool:
        """Add what it has written to the report; return False when it ended."""
        while (data := self.read()) is not None:
            if not data:
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                take(self.report, line.decode(errors="replace"))
        return True


def take(report: DiskReport, line: str) -> None:
    """Add one line of the child to the report; a line that is none of its kinds is skipped."""
    kind, _, rest = line.partition(" ")
    with contextlib.suppress(ValueError):
        match kind:
            case "s":
                report.making, report.began_s = False, float(rest)
            case "r":
                report.reads_s.append(float(rest))
                report.began_s = None
            case "e":
                report.errors.append(rest.partition(" ")[0])
                report.began_s = None
            case "S":
                report.write_began_s = float(rest)
            case "w":
                report.writes_s.append(float(rest))
                report.write_error, report.write_began_s = "", None
            case "x":
                name, _took_s = rest.split(" ", 1)
                report.write_error, report.write_began_s = name, None
            case _:
                _take_state(report, kind, rest)


def _take_state(report: DiskReport, kind: str, rest: str) -> None:
    match kind:
        case "at":
            major, minor, path = rest.split(" ", 2)
            report.place = (int(major), int(minor), path)
        case "make":
            report.making, report.began_s = True, clock.monotonic_s()
        case "no":
            report.refused, report.making, report.began_s = rest, False, None
        case "space":
            total, free, inodes, free_inodes = map(int, rest.split(" "))
            report.space = Space(
                total_bytes=total, free_bytes=free, total_inodes=inodes, free_inodes=free_inodes
            )
