"""What /proc shows of an engine's processes: the whole group's state and CPU time.

The minder starts each engine in a session of its own, so that a process belongs to the engine when its session or its
group has the engine's pid. The members are looked up anew now and then, since going through all of /proc costs
milliseconds; the rest is a few small files. It sends no signal and judges nothing.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from freehold.core.clock import SYSTEM_CLOCK, Clock

MEMBERS_EVERY_S = 30.0
"""Between two looks at which processes belong to the group. Source: our own choice: engines start their workers when they load."""
_STATE, _GROUP, _SESSION, _USER, _SYSTEM = 0, 2, 3, 11, 12
"""Fields of /proc/PID/stat after the name in brackets: state, pgrp, session, utime, stime. Source: proc(5)."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
THREADS_MOST = 512
"""Threads whose state is looked at. Source: our own bound; vLLM on eight GPUs has some hundreds."""
_RANK = "SDRTtZX"
"""States of a group from least to most: one running thread makes it run, one stopped process holds it up."""


class ProcessGroup:
    """One engine's processes."""

    def __init__(self, pid: int, *, root: Path = Path("/"), clock: Clock = SYSTEM_CLOCK) -> None:
        self.pid = pid
        self._proc = root / "proc"
        self._clock = clock
        self.members: tuple[int, ...] = (pid,)
        """Pids as of the last look for them."""
        self._due_s = clock.monotonic_s()

    def read(self, *, threads: bool = False) -> tuple[str, float | None]:
        """Return the group's state (see `view.EngineView.process_state`) and its CPU seconds so far; None: not readable.

        With `threads` each thread is looked at, so that R and D are seen also where the main thread sleeps.
        """
        self._find()
        leader = stat_fields(self._proc / str(self.pid))
        if not leader or leader[_STATE] in "ZX":
            return (leader[_STATE] if leader else "X"), None
        stats = [fields for pid in self.members if (fields := stat_fields(self._proc / str(pid)))]
        states = {fields[_STATE] for fields in stats}
        if threads:
            states |= set(self._thread_states())
        cpu_ticks = sum(int(fields[_USER]) + int(fields[_SYSTEM]) for fields in stats)
        return _state_of(states), cpu_ticks / _TICKS_PER_S

    def _find(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s < self._due_s:
            return
        self._due_s = now_s + MEMBERS_EVERY_S
        self.members = (self.pid, *self._others())

    def _others(self) -> Iterator[int]:
        mine = str(self.pid)
        for name in os.listdir(self._proc):  # noqa: PTH208 (thousands of names, no objects needed)
            if name.isdigit() and name != mine:
                fields = stat_fields(self._proc / name)
                if fields and mine in (fields[_GROUP], fields[_SESSION]):
                    yield int(name)

    def _thread_states(self) -> Iterator[str]:
        left = THREADS_MOST
        for pid in self.members:
            try:
                names = os.listdir(self._proc / str(pid) / "task")  # noqa: PTH208 (as above)
            except OSError:  # it has ended
                continue
            for name in names[:left]:
                fields = stat_fields(self._proc / str(pid) / "task" / name)
                if fields:
                    yield fields[_STATE]
            left = max(0, left - len(names))


def _state_of(states: set[str]) -> str:
    """Return the state that counts for the whole; I (idle, a kernel's thread) and others count as sleeping."""
    known = [state for state in states if state in _RANK and state not in "ZX"]
    return max(known, key=_RANK.index, default="S")


def stat_fields(folder: Path) -> list[str]:
    """Return the fields of a `stat` file that follow the name; empty: there is no such process or thread."""
    try:
        return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
