"""One model's queue when several workers serve the model: as `admission`, with room and turns over all of them.

The queue's bounds are divided between the workers, so that their sum is what was asked for. Who frees a place wakes the
worker whose turn it is (`turn`), with a byte and no waiting; one that does not move within a look's time has its turn
taken, so a place is never idle for longer while somebody waits anywhere.
"""

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from freehold.gateway.queue.admission import Admission
from freehold.gateway.queue.queue import QueueBounds
from freehold.gateway.queue.worker_fairness import WorkerTurn
from freehold.gateway.settings import Settings

if TYPE_CHECKING:
    from freehold.gateway.counters.shared_counters import SharedCounters
    from freehold.gateway.endpoints.pool import ServedModel, UpstreamTarget
    from freehold.gateway.exchange.exchange import Exchange

PATIENCE_S = 0.02
"""How long a place is kept for the worker whose turn it is. Source: our own choice, as often as a queue is looked at: a
busy loop turns in a few milliseconds."""


def part_of(whole: int, *, index: int, workers: int) -> int:
    """Return a worker's part of a bound: all parts together are the whole, but each is at least 1."""
    return max(1, whole // workers + (index < whole % workers))


def _part_of_bounds(bounds: QueueBounds, settings: Settings) -> QueueBounds:
    return replace(
        bounds,
        max_requests=part_of(bounds.max_requests, index=settings.worker, workers=settings.workers),
        max_tokens=part_of(bounds.max_tokens, index=settings.worker, workers=settings.workers),
    )


class SharedAdmission(Admission):
    """The queue in front of one model's targets at one of several workers."""

    __slots__ = ("_denied_s", "_settings", "turn")

    def __init__(self, model: "ServedModel", settings: Settings, board: "SharedCounters") -> None:
        super().__init__(model, settings)
        self.line.bounds = _part_of_bounds(self.line.bounds, settings)
        self.turn = WorkerTurn(board, model.entry.name)
        self._settings = settings
        self._denied_s: float | None = None

    def retune(self, settings: Settings) -> None:
        """Go on by this worker's part of other bounds."""
        super().retune(settings)
        self.line.bounds = _part_of_bounds(self.line.bounds, settings)
        self._settings = settings

    def enter(self, exchange: "Exchange", now_s: float) -> "UpstreamTarget | None":
        """Return the target to ask now; None: the exchange waits, is on its way, or was told that it cannot."""
        if not self.turn.others_wait():
            target = super().enter(exchange, now_s)
            self._tell()
            return target
        # Others wait for the same room: who comes now stands in line with them.
        self._price(exchange)
        self._wait(exchange, now_s)
        self.turn.weigh(self.line.turns)
        self.pump()
        return None

    def _price(self, exchange: "Exchange") -> None:
        """Note what an exchange costs and whose it is, as `enter` does."""
        request = exchange.request
        exchange.cost_tokens = self.estimate.cost_tokens(len(request.body), request.max_tokens)
        exchange.flow = self.line.turns.flow(exchange.caller, exchange.weight, exchange.priority)

    def end(self, exchange: "Exchange", *, service_s: float | None) -> None:
        """Count an exchange out, wherever it was, and start who is next, here or elsewhere."""
        super().end(exchange, service_s=service_s)
        self._tell()
        if not self.line.waiting and self.turn.others_wait():
            self._wake(self.turn.next_other())

    def totals(self) -> tuple[int, int, int]:
        """Return the requests under way, those that wait and the tokens that wait, of all workers together."""
        return self.turn.totals()

    def pump(self) -> None:
        """Start as many as there is room for and as are next among all workers."""
        super().pump()
        self._tell()

    def _start_next(self) -> bool:
        claim = self.line.next()
        if claim is None:
            self._denied_s = None
            return False
        now_s = self._now_s()
        self._tell()
        self.turn.next_is(claim.flow.priority)
        holder = self.turn.holder()
        if holder >= 0 and self.model.has_room(now_s, claim.cost_tokens):
            if not self._waited_enough(now_s):
                self._wake(holder)
                return False
            self.turn.pass_over(holder)
        if not super()._start_next():
            return False
        self._denied_s = None
        self.turn.started(claim.cost_tokens)
        return True

    def _waited_enough(self, now_s: float) -> bool:
        """Return whether the place was kept for somebody else long enough."""
        if self._denied_s is None:
            self._denied_s = now_s
        return now_s - self._denied_s >= PATIENCE_S

    def _look(self) -> None:
        self.turn.weigh(self.line.turns)
        self._count_places()
        super()._look()
        self.turn.weigh(self.line.turns)

    def _count_places(self) -> None:
        super()._count_places()
        self.line.places = max(1, round(self.line.places * self.turn.part()))

    def _tell(self) -> None:
        line = self.line
        if line.waiting and not self.turn.waits:
            claim = line.next()
            assert claim is not None
            self.turn.next_is(claim.flow.priority)
        self.turn.tell(line.waiting, line.under_way, line.tokens)

    def _wake(self, worker: int) -> None:
        if worker >= 0:
            os.eventfd_write(self._settings.wake_fds[worker], 1)
