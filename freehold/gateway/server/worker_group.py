"""The workers that share one gateway's address, as one of them sees the others: through the shared counters alone.

A worker that is asked for metrics or health answers for all: each worker publishes its numbers twice a second, and when
it is asked. A worker that is started again continues with the counters of the one that died. Nothing here waits for another
worker, so one that hangs delays no other.
"""

import asyncio
import os
from collections.abc import Callable

from freehold.gateway.counters.shared_counters import SharedCounters
from freehold.gateway.settings import Settings
from freehold.telemetry.logs import get_logger
from freehold.telemetry.metrics import Metrics
from freehold.telemetry.pooled import continue_from, dump, pool


class WorkerGroup:
    """This worker's place among the others."""

    def __init__(self, settings: Settings) -> None:
        self._wake_fd = settings.wake_fds[settings.worker]
        self._wake_fds = settings.wake_fds
        self._logged_full = False
        self._log = get_logger("gateway")
        self.counters = SharedCounters(settings.board_fd, workers=settings.workers, index=settings.worker)

    def __repr__(self) -> str:
        return f"<WorkerGroup {self.counters!r}>"

    def join(self, metrics: Metrics, on_wake: Callable[[], object]) -> None:
        """Take part: continue with a predecessor's counters, be seen, and be woken when it is this worker's turn."""
        continue_from(metrics, self.counters.published(self.counters.index))
        self.counters.join()
        asyncio.get_running_loop().add_reader(self._wake_fd, self._woken, on_wake)

    def wake_others(self) -> None:
        """Let all other workers look at the shared counters."""
        for fd in self._wake_fds:
            if fd != self._wake_fd:
                os.eventfd_write(fd, 1)

    def _woken(self, on_wake: Callable[[], object]) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:  # read already
            return
        on_wake()

    def tick(self, metrics: Metrics, connections: int) -> None:
        """Look for workers that died, and publish this worker's numbers; called twice a second."""
        self.counters.look()
        self.counters.publish_connections(connections)
        self._publish(metrics)
        if self.counters.overflows and not self._logged_full:
            self._logged_full = True
            self._log.error("board_full", doing="what found no place is bounded in each worker alone")

    def _publish(self, metrics: Metrics) -> None:
        if not self.counters.publish(dump(metrics)):
            self._log.warning("metrics_not_shared", why="there are too many of them")

    def metrics(self, own: Metrics) -> Metrics:
        """Return what all workers count together: this one's numbers as they are, the others' half a second old at most."""
        self._publish(own)
        living = self.counters.pids()
        published = (
            (self.counters.published(index), index in living) for index in range(self.counters.workers)
        )
        return pool(published, list(living.values()))
