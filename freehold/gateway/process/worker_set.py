"""All gateway processes of one stack as their parent sees them: one link each, one socket, shared counters, one report.

With one worker this is that worker's link and nothing more: no shared memory. With several, the counts of a worker
that has ended are cleared before it is restarted.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from freehold.core.events import AgentMetrics, EndpointLoad, GatewayStats, Snapshot
from freehold.gateway.counters.shared_counters import SharedCounters
from freehold.gateway.process.worker_process import SILENT_S, WorkerProcess
from freehold.gateway.settings import Settings
from freehold.gateway.storage.budget_file import gather, part_path, spread


def name_of(index: int) -> str:
    """Return what a worker is called in logs and records: the first is the gateway, as if it were alone."""
    return f"gateway-{index}" if index else "gateway"


class WorkerSet:
    """Every worker of one gateway; `on_start` gets the name and pid of each one that is started."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        *,
        log_dir: Path,
        on_start: Callable[[str, int], object] = lambda _name, _pid: None,
        silent_s: float = SILENT_S,
    ) -> None:
        """Make the links, and the memory that several workers share; raises Permanent where there is none."""
        self._counters = SharedCounters.create(settings.workers) if settings.workers > 1 else None
        self._wake_fds = _wake_fds(settings.workers) if self._counters is not None else ()
        self._log_dir = log_dir
        if settings.budgets_path:
            gather(Path(settings.budgets_path))
        if settings.fallback_spent_path:
            spread(Path(settings.fallback_spent_path), settings.workers)
        self._links = [
            WorkerProcess(
                self._settings(settings, index),
                listener,
                stderr_path=log_dir / f"{name_of(index)}.stderr.log",
                on_start=partial(on_start, name_of(index)),
                silent_s=silent_s,
            )
            for index in range(settings.workers)
        ]
        if self._counters is not None:
            for index, link in enumerate(self._links):
                link.on_end = partial(self._counters.clear, index)

    def __repr__(self) -> str:
        return f"<WorkerSet {self._links}>"

    def _settings(self, settings: Settings, index: int) -> Settings:
        """Return one worker's settings: files of its own, and what it shares with the others."""
        log_path = str(self._log_dir / f"{name_of(index)}.log") if settings.log_path else ""
        access = settings.access_log
        if access.path:
            access = msgspec.structs.replace(access, path=str(part_path(Path(access.path), index)))
        budgets = settings.budgets_path
        board_fd = -1 if self._counters is None else self._counters.fd
        return msgspec.structs.replace(
            settings,
            worker=index,
            log_path=log_path,
            access_log=access,
            budgets_path=str(part_path(Path(budgets), index)) if budgets else "",
            board_fd=board_fd,
            wake_fds=self._wake_fds,
        )

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the process ids of the workers that run."""
        return tuple(link.pid for link in self._links if link.pid is not None)

    @property
    def workers(self) -> int:
        """Return how many there should be."""
        return len(self._links)

    @property
    def names(self) -> tuple[str, ...]:
        """Return what the workers are called."""
        return tuple(map(name_of, range(self.workers)))

    @property
    def restarts(self) -> int:
        """Return how often a worker was started again."""
        return sum(link.restarts for link in self._links)

    @property
    def stats(self) -> GatewayStats | None:
        """Return what the running workers do, all together; None: none of them has reported yet."""
        reports = [link.stats for link in self._links if link.pid is not None and link.stats is not None]
        return _together(reports) if reports else None

    @property
    def finished_all(self) -> bool | None:
        """Return, after a drain, whether every stream was finished within the grace; None: not known."""
        found = [link.finished_all for link in self._links]
        return None if None in found else all(found)

    def retune(self, settings: Settings) -> None:
        """Give all workers other settings, also those that are started again later."""
        for index, link in enumerate(self._links):
            link.retune(self._settings(settings, index))

    def send(self, news: Snapshot | AgentMetrics) -> None:
        """Give all workers a newer snapshot, or what the node's agent counts, now or as soon as they can take it.

        Whichever worker is scraped shows what the agent counts, so it is on the page once.
        """
        for link in self._links:
            link.send(news)

    async def run(self) -> None:
        """Keep all workers running until `stop` was called and all have ended."""
        try:
            await asyncio.gather(*(link.run() for link in self._links))
        finally:
            if self._counters is not None:
                for fd in (self._counters.fd, *self._wake_fds):
                    os.close(fd)

    def stop(self) -> None:
        """Let all drain and end; `run` returns when they have. New connections are refused from now on."""
        for link in self._links:
            link.stop()

    def kill(self) -> None:
        """End all in a moment, after they have reported to their clients that answers are not complete."""
        for link in self._links:
            link.kill()


def _wake_fds(workers: int) -> tuple[int, ...]:
    return tuple(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(workers))


def _together(reports: list[GatewayStats]) -> GatewayStats:
    return GatewayStats(
        listening=reports[0].listening,
        in_flight=sum(stats.in_flight for stats in reports),
        requests_total=sum(stats.requests_total for stats in reports),
        errors_total=sum(stats.errors_total for stats in reports),
        snapshot_generation=min(stats.snapshot_generation for stats in reports),
        draining=any(stats.draining for stats in reports),
        log_dropped_total=sum(stats.log_dropped_total for stats in reports),
        settings_generation=min(stats.settings_generation for stats in reports),
        loads=_loads(reports),
        ejected=tuple(dict.fromkeys(name for stats in reports for name in stats.ejected)),
    )


def _loads(reports: list[GatewayStats]) -> dict[str, EndpointLoad]:
    found: dict[str, EndpointLoad] = {}
    for stats in reports:
        for name, load in stats.loads.items():
            before = found.get(name, EndpointLoad(0, 0))
            found[name] = EndpointLoad(before.requests + load.requests, before.bytes + load.bytes)
    return found
