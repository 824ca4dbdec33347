"""How far engine starts are, and whether they progress: by their log lines, and by the work of their processes.

A large model loads for minutes without an open port. What its log lines mean is the engine file's
business (`Engine.phases`). A start that neither writes, nor computes, nor reads is reported as such and nothing else is done:
`ready_timeout` ends it. A process that spins without progress looks like one that works.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from freehold.core.clock import monotonic_s, wall_s
from freehold.core.events import ReplicaState, ReplicaStatus
from freehold.engines.base import Engine
from freehold.fleet.decisions.plan import log_path
from freehold.fleet.processes.proc_files import ProcessUsage, family, usage

LOOK_S = 2.0
"""Between two observations of a start. Source: our own choice; an observation costs some milliseconds."""
QUIET_S = 60.0
"""Without any activity for so long, a start is reported as inactive. Source: our own choice; engines that load, compile or wait
for their parts do something every few seconds."""
_BUSY_SHARE = 0.02
"""Of one core: below that a process only waits and polls. Source: our own choice; vLLM's idle server takes less."""
_READ_BYTES_PER_S = 1_000_000
"""Reads that count as loading. Source: our own choice; a slow disk gives a hundred times as much."""
_TAIL_BYTES = 64 * 1024
"""How far back the log is read. Source: our own choice; vLLM writes less between two phases."""
_FRESH_S = 5.0
"""Log lines younger than this are shown without their age. Source: our own choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartObservation:
    """One observation of a start."""

    at_s: float
    """Monotonic."""
    phase: str
    """By its log; empty: the log does not show one."""
    log_bytes: int
    log_age_s: float
    """Of the last line."""
    pids: frozenset[int]
    used: ProcessUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStart:
    """One start: its process, the last observation, and when it was last active."""

    pid: int
    sight: StartObservation
    sign_s: float

    def after(self, sight: StartObservation) -> "EngineStart":
        """Return this with a newer observation."""
        return EngineStart(
            pid=self.pid, sight=sight, sign_s=sight.at_s if moved(self.sight, sight) else self.sign_s
        )

    def words(self) -> str:
        """Return the phase of the start, and whether it progresses, as text."""
        phase, quiet_s = self.sight.phase or "loading", self.sight.at_s - self.sign_s
        if quiet_s >= QUIET_S:
            return f"{phase}; no activity for {quiet_s:.0f} s: no log line, no processor time, nothing read"
        if self.sight.log_age_s < _FRESH_S:
            return phase
        working = "busy" if quiet_s < 2 * LOOK_S else f"still for {quiet_s:.0f} s"
        return f"{phase} (last log line {self.sight.log_age_s:.0f} s ago, its processes are {working})"


def moved(before: StartObservation, now: StartObservation) -> bool:
    """Return whether two observations show that a start progresses, or at least works."""
    took_s = now.at_s - before.at_s
    return (
        now.log_bytes != before.log_bytes
        or now.pids != before.pids
        or now.used.cpu_s - before.used.cpu_s >= _BUSY_SHARE * took_s
        or now.used.read_bytes - before.used.read_bytes >= _READ_BYTES_PER_S * took_s
    )


def look(path: Path, pid: int, engine: Engine) -> StartObservation:
    """Return an observation of a start now; total. It reads a file and /proc, so it may wait for a disk."""
    size_bytes, age_s, lines = _tail(path, pid)
    pids = family(pid)
    return StartObservation(
        at_s=monotonic_s(),
        phase=engine.phase(lines),
        log_bytes=size_bytes,
        log_age_s=age_s,
        pids=frozenset(pids),
        used=usage(pids),
    )


def _tail(path: Path, pid: int) -> tuple[int, float, list[str]]:
    """Return the log's size, the age of its last line, and the last lines that this process wrote."""
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, 2)
            file.seek(max(0, size_bytes - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", "replace")
            age_s = max(0.0, wall_s() - path.stat().st_mtime)
    except OSError:
        return 0, 0.0, []
    own = text.rpartition(f"process {pid} started]")[2]  # earlier lines belong to an earlier start
    return size_bytes, age_s, own.replace("\r", "\n").splitlines()


class StartWatch:
    """Observes the replicas that start. All methods are for the event loop's own thread."""

    def __init__(self, log_dir: Path, engines: Mapping[str, Engine]) -> None:
        self._log_dir = log_dir
        self._engines = engines
        self._starts: dict[str, EngineStart] = {}

    async def run(self, statuses: Callable[[], Iterable[ReplicaStatus]]) -> None:
        """Observe every LOOK_S until cancelled; a thread waits for the disk."""
        while True:
            starting = [each for each in statuses() if _starts(each) and each.engine in self._engines]
            self._starts = {each.id: await self._seen(each) for each in starting}
            await asyncio.sleep(LOOK_S)

    async def _seen(self, replica: ReplicaStatus) -> EngineStart:
        pid = replica.pid or 0
        path = log_path(self._log_dir, replica.id)
        sight = await asyncio.to_thread(look, path, pid, self._engines[replica.engine])
        before = self._starts.get(replica.id)
        if before is not None and before.pid == pid:
            return before.after(sight)
        return EngineStart(pid=pid, sight=sight, sign_s=sight.at_s)

    def with_progress(self, replicas: Iterable[ReplicaStatus]) -> tuple[ReplicaStatus, ...]:
        """Return the replicas; the reason of one that starts is its progress."""
        return tuple(self._with_words(each) for each in replicas)

    def _with_words(self, replica: ReplicaStatus) -> ReplicaStatus:
        start = self._starts.get(replica.id)
        if start is None or start.pid != replica.pid or not _starts(replica):
            return replica
        return msgspec.structs.replace(replica, reason=start.words())


def _starts(replica: ReplicaStatus) -> bool:
    return replica.state is ReplicaState.STARTING and replica.pid is not None
