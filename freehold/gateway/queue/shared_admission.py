"""One model's queue when several workers serve the model: as `admission`, with room and turns over all of them. Pure.

The queue's bounds are divided between the workers, so that their sum is the configured bound. A worker that frees a
place wakes the worker whose turn it is (`worker_fairness`), with a byte and no waiting. A worker that does not use its turn
within PATIENCE_S loses it, so a place is never idle for longer while a request waits at any worker.
"""

from collections.abc import Callable

from freehold.gateway.counters.shared_counters import SharedCounters
from freehold.gateway.queue.admission import Admission, QueuedRequest, T, Targets
from freehold.gateway.queue.queue import QueueBounds
from freehold.gateway.queue.worker_fairness import WorkerTurn
from freehold.gateway.wire.ports import Loop

PATIENCE_S = 0.02
"""How long a place is kept for the worker whose turn it is. Source: our own choice, as often as a queue is checked: a
busy loop turns in a few milliseconds."""


class SharedAdmission(Admission[T]):
    """The queue in front of one model's targets at one of several workers; `wake` wakes another worker by its index."""

    __slots__ = ("_denied_s", "_wake_worker", "turn")

    def __init__(
        self,
        model: Targets[T],
        bounds: QueueBounds,
        *,
        loop: Loop,
        counters: SharedCounters,
        wake: Callable[[int], object],
    ) -> None:
        super().__init__(model, bounds, loop)
        self.turn = WorkerTurn(counters, model.entry.name)
        self._wake_worker = wake
        self._denied_s: float | None = None

    def enter(self, request: QueuedRequest[T], now_s: float) -> T | None:
        """Return the target to ask now; None: the request waits, has started, or was rejected."""
        if not self.turn.others_wait():
            target = super().enter(request, now_s)
            self._publish()
            return target
        # Requests wait for the same room at other workers: this one waits in line with them.
        asked = request.request
        request.cost_tokens = self.estimate.cost_tokens(len(asked.body), asked.max_tokens)
        request.flow = flow = self.line.turns.flow(request.caller, request.weight, request.priority)
        self._wait(request, flow, now_s)
        self.turn.weigh(self.line.turns)
        self.pump()
        return None

    def end(self, request: QueuedRequest[T], *, service_s: float | None) -> None:
        """Count a request out, waiting or started, and start the next one, here or at another worker."""
        super().end(request, service_s=service_s)
        self._publish()
        if not self.line.waiting and self.turn.others_wait():
            self._wake(self.turn.next_other())

    def totals(self) -> tuple[int, int, int]:
        """Return the requests under way, those that wait and the tokens that wait, of all workers together."""
        return self.turn.totals()

    def pump(self) -> None:
        """Start as many requests as there is room for and as are next among all workers."""
        super().pump()
        self._publish()

    def _start_next(self) -> bool:
        claim = self.line.next()
        if claim is None:
            self._denied_s = None
            return False
        now_s = self._loop.time()
        self._publish()
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
        """Return whether the place was kept for another worker long enough."""
        if self._denied_s is None:
            self._denied_s = now_s
        return now_s - self._denied_s >= PATIENCE_S

    def _check(self) -> None:
        self.turn.weigh(self.line.turns)
        self._count_places()
        super()._check()
        self.turn.weigh(self.line.turns)

    def _count_places(self) -> None:
        super()._count_places()
        self.line.places = max(1, round(self.line.places * self.turn.part()))

    def _publish(self) -> None:
        line = self.line
        if line.waiting and not self.turn.waits:
            claim = line.next()
            assert claim is not None
            self.turn.next_is(claim.flow.priority)
        self.turn.publish(line.waiting, line.under_way, line.tokens)

    def _wake(self, worker: int) -> None:
        if worker >= 0:
            self._wake_worker(worker)
