"""One disk reading child as its parent sees it: started, listened to, killed and given up, never waited for.

A process in state D does not die of SIGKILL; so nothing here waits for an exit, and whether it is gone is asked without
blocking. What the times mean is none of this module's business.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import freehold
from freehold.core import clock

CHILD = "freehold.health.collectors.disk_child"
START = f"from {CHILD} import main; main()"
PACKAGE_ROOT = Path(freehold.__file__).resolve().parents[1]
READ_BYTES = 65_536
"""Per look at the child's lines: a pipe's capacity on Linux (pipe(7))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What statvfs said."""

    total_bytes: int
    free_bytes: int
    total_inodes: int
    """0: this file system does not count them."""
    free_inodes: int


@dataclass(slots=True, kw_only=True)
class Heard:
    """What the child has said since it was last asked, and what it said last of what stays."""

    reads_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    place: tuple[int, int, str] | None = None
    """Device number, and the volume's real path."""
    space: Space | None = None
    refused: str = ""
    """Why it cannot read without the page cache."""
    making: bool = False
    began_s: float | None = None
    """Monotonic; of the read that has not ended, or of the child's start until its first word."""
    writes_s: list[float] = field(default_factory=list)
    write_error: str | None = None
    """errno name of the newest write that ended, empty where it succeeded; None: none has ended."""
    write_began_s: float | None = None
    """Monotonic; of the write that has not ended."""


class DiskProcess:
    """A running child."""

    def __init__(self, arguments: list[str], *, kill: Callable[[int, int], None] = os.kill) -> None:
        """Start it. `kill` is os.kill, but for a test that needs a process which does not die."""
        self.heard = Heard(began_s=clock.monotonic_s())
        self._kill = kill
        self._rest = b""
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-P", "-c", START, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": str(PACKAGE_ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,  # a Ctrl-C for the agent must not end it in the middle of a read
        )
        assert self._process.stdout is not None
        self._out = self._process.stdout.fileno()
        os.set_blocking(self._out, False)

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    def listen(self) -> bool:
        """Take in what it has said; return False when it ended."""
        while True:
            try:
                data = os.read(self._out, READ_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                take(self.heard, line.decode(errors="replace"))

    def gone(self) -> bool:
        """Return whether it has ended; never waits."""
        return self._process.poll() is not None

    @property
    def code(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def abandon(self) -> None:
        """Kill it and close the pipes; do not wait: it may be in a read that nothing ends."""
        with contextlib.suppress(ProcessLookupError):
            self._kill(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


def take(heard: Heard, line: str) -> None:
    """Put one line of the child into `heard`; a line that is none of its kinds is passed over."""
    kind, _, rest = line.partition(" ")
    with contextlib.suppress(ValueError):
        _TAKE.get(kind, _pass_over)(heard, rest)


def _pass_over(heard: Heard, rest: str) -> None:
    """A newer child may say more than we know."""


def _at(heard: Heard, rest: str) -> None:
    major, minor, path = rest.split(" ", 2)
    heard.place = (int(major), int(minor), path)


def _make(heard: Heard, _rest: str) -> None:
    heard.making, heard.began_s = True, clock.monotonic_s()


def _no(heard: Heard, rest: str) -> None:
    heard.refused, heard.making, heard.began_s = rest, False, None


def _space(heard: Heard, rest: str) -> None:
    total, free, inodes, free_inodes = map(int, rest.split(" "))
    heard.space = Space(total_bytes=total, free_bytes=free, total_inodes=inodes, free_inodes=free_inodes)


def _started(heard: Heard, rest: str) -> None:
    heard.making, heard.began_s = False, float(rest)


def _read(heard: Heard, rest: str) -> None:
    heard.reads_s.append(float(rest))
    heard.began_s = None


def _failed(heard: Heard, rest: str) -> None:
    heard.errors.append(rest.partition(" ")[0])
    heard.began_s = None


def _write_started(heard: Heard, rest: str) -> None:
    heard.write_began_s = float(rest)


def _wrote(heard: Heard, rest: str) -> None:
    heard.writes_s.append(float(rest))
    heard.write_error, heard.write_began_s = "", None


def _write_failed(heard: Heard, rest: str) -> None:
    name, _, took_s = rest.partition(" ")
    float(took_s)  # else it is none of its lines
    heard.write_error, heard.write_began_s = name, None


_TAKE: dict[str, Callable[[Heard, str], None]] = {
    "at": _at,
    "make": _make,
    "no": _no,
    "space": _space,
    "s": _started,
    "r": _read,
    "e": _failed,
    "S": _write_started,
    "w": _wrote,
    "x": _write_failed,
}
