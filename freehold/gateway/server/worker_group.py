"""The workers that share one gateway's address, as one of them sees the others: through the board alone.

Who is asked for metrics or health answers for all: each worker publishes its numbers twice a second, and when it is
asked. A worker that is started again goes on with the counters of the one that died. Nothing here waits for another
worker, so one that hangs holds up nobody.
"""

import asyncio
import os
from typing import TYPE_CHECKING

from freehold.gateway.counters.shared_counters import Board
from freehold.gateway.settings import Settings
from freehold.telemetry.metrics import Metrics
from freehold.telemetry.pooled import continue_from, dump, pool

if TYPE_CHECKING:
    from freehold.gateway.server.gateway import Gateway


class Crew:
    """This worker's place among the others."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._told_full = False
        self.index = settings.worker
        self.board = Board(settings.board_fd, workers=settings.workers, index=settings.worker)

    def __repr__(self) -> str:
        return f"<Crew {self.board!r}>"

    @property
    def living(self) -> int:
        """Return how many workers live, this one included."""
        return self.board.living

    def join(self, gateway: "Gateway") -> None:
        """Take part: go on with a predecessor's counters, be seen, and be woken when it is this worker's turn."""
        continue_from(gateway.meters.metrics, self.board.published(self.index))
        self.board.join()
        fd = self._settings.wake_fds[self.index]
        asyncio.get_running_loop().add_reader(fd, self._woken, gateway, fd)

    def _woken(self, gateway: "Gateway", fd: int) -> None:
        try:
            os.eventfd_read(fd)
        except BlockingIOError:  # read already
            return
        for model in gateway.directory.models.values():
            model.admission.pump()

    def tick(self, gateway: "Gateway") -> None:
        """Do what is to be done now and then: see who died, and say how things are."""
        self.board.look()
        self.board.tell_connections(len(gateway.connections))
        self._publish(gateway)
        if self.board.overflows and not self._told_full:
            self._told_full = True
            gateway.log.error("board_full", doing="what found no place is bounded in each worker alone")

    def _publish(self, gateway: "Gateway") -> None:
        if not self.board.publish(dump(gateway.meters.metrics)):
            gateway.log.warning("metrics_not_shared", why="there are too many of them")

    def metrics(self, gateway: "Gateway") -> Metrics:
        """Return what all workers count together: this one's numbers as they are, the others' half a second old at most."""
        self._publish(gateway)
        living = self.board.pids()
        told = ((self.board.published(index), index in living) for index in range(self.board.workers))
        return pool(told, list(living.values()))
