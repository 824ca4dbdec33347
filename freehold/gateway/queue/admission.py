"""One model's queue as the event loop sees it: it asks `queue` which request may start, and starts or rejects requests. Pure.

Where a target has room and no request waits, a request passes here with a few dictionary operations. Else it waits
without a task of its own: each request that leaves a target starts the next one, and one timer, which runs only while
requests wait, rejects those whose time is over. A request that needs another replica after its first one failed waits
outside the queue and goes first, since it was started already. The timer is the loop's (`Loop`); nothing is imported for it.
"""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from freehold.core.events import ModelEntry
from freehold.gateway.counters.request_metrics import ModelMetrics
from freehold.gateway.queue.concurrency_limit import ConcurrencyLimit
from freehold.gateway.queue.fair_queue import Claim, Flow
from freehold.gateway.queue.queue import QueueBounds, Reason, RequestQueue, TurnedAway
from freehold.gateway.queue.token_estimate import TokenEstimate
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.ports import Loop, Timer
from freehold.gateway.wire.request import Request

_CHECK_EVERY_S = (
    0.02  # How late a rejection may be beyond its wait. Source: half of what the design allows at p99.
)

_MESSAGES: dict[Reason, str] = {
    "queue_full": "The queue for {name} is full.",
    "pushed_out": "The queue for {name} is full, and others have less in it.",
    "wait_too_long": "The queue for {name} is too long to wait in.",
    "waited_too_long": "The queue for {name} did not move fast enough.",
    "deadline_too_close": "{name} is too busy to answer within the timeout that the request asks for.",
    "deadline_passed": "{name} was too busy to answer within the timeout that the request asks for.",
    "no_replica": "No replica of {name} is ready any more.",
}
_AFTER_A_WAIT = frozenset({"pushed_out", "waited_too_long", "deadline_passed", "no_replica"})


class HasLimit(Protocol):
    """A target, as the queue sees it."""

    @property
    def gate(self) -> ConcurrencyLimit:
        """Return its limit of requests at once."""


T = TypeVar("T", bound=HasLimit)


class QueuedRequest(Generic[T]):
    """What the queue knows of a request; an exchange is one, so that a request which never waits costs no second object.

    Defaults stand on the class. The methods are called for a request that waits; the base does nothing.
    """

    request: Request
    deadline_s: float
    """When the whole answer must be there, on the loop's clock."""
    caller = ""
    """The caller's id, for fairness between callers; empty: no caller in particular."""
    weight = 1.0
    """The caller's share when callers compete, relative to the others'; above 0."""
    priority = 0
    """As nice(1): lower goes first."""
    cost_tokens = 0
    real_tokens: int | None = None
    """What the engine counted; None: not known yet."""
    flow: "Flow[QueuedRequest[T]] | None" = None
    claim: "Claim[QueuedRequest[T]] | None" = None
    """Its place in the queue, while it waits for its first start."""
    tried: frozenset[T] = frozenset()
    """Targets that failed this request; the next attempt goes to another one."""
    waited_s = 0.0
    """How long it waited for its first start, or until it was rejected."""
    prefix_key: int | None = None
    """Names its conversation, see `endpoints.prefix_key`; 0: none; None: not computed yet."""
    on_trial = False
    """It is the one request that shows whether an ejected target works again."""

    def proceed(self, target: T) -> None:
        """Start at `target`, where a place is taken."""

    def turn_away(self, rejection: Rejection) -> None:
        """End: the request waited in vain, or cannot wait."""

    def no_other_target(self) -> None:
        """End: the request failed, and no other target had room in time."""


class Targets(Protocol[T]):
    """A model, as its queue sees it; `endpoints.model.ServedModel` is one."""

    entry: ModelEntry
    metrics: ModelMetrics

    @property
    def targets(self) -> Sequence[T]:
        """Return the targets of the newest snapshot."""

    def take(self, request: QueuedRequest[T], now_s: float) -> T | None:
        """Return the best target with room, with a place there taken; None: no target has room."""

    def has_adapter(self, name: str) -> bool:
        """Return whether any target has an adapter; the empty name is the model itself."""

    def has_room(self, now_s: float, cost_tokens: int) -> bool:
        """Return whether `take` would find a target for a new request."""


class Admission(Generic[T]):
    """The queue in front of one model's targets."""

    __slots__ = ("_again", "_loop", "_pumping", "_timer", "estimate", "line", "model")

    def __init__(self, model: Targets[T], bounds: QueueBounds, loop: Loop) -> None:
        self.model = model
        self.line: RequestQueue[QueuedRequest[T]] = RequestQueue(bounds)
        self.estimate = TokenEstimate(context_tokens=model.entry.max_context_tokens)
        self._loop = loop
        self._again: dict[QueuedRequest[T], float] = {}
        """Requests that look for another target, with the time until which they may."""
        self._pumping = False
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Admission {self.model.entry.name} {self.line!r}>"

    def retune(self, bounds: QueueBounds) -> None:
        """Use other bounds from now on; what waits already is not rejected by them before its time."""
        self.line.bounds = bounds

    # What an exchange calls

    def enter(self, request: QueuedRequest[T], now_s: float) -> T | None:
        """Return the target to ask now; None: the request waits, or was rejected."""
        line, asked = self.line, request.request
        request.cost_tokens = cost = self.estimate.cost_tokens(len(asked.body), asked.max_tokens)
        request.flow = flow = line.turns.flow(request.caller, request.weight, request.priority)
        if not line.waiting:
            target = self.model.take(request, now_s)
            if target is not None:
                line.begin(flow, cost)
                return target
        self._wait(request, flow, now_s)
        return None

    def _wait(self, request: QueuedRequest[T], flow: Flow[QueuedRequest[T]], now_s: float) -> None:
        claim = Claim(
            request, flow, cost_tokens=request.cost_tokens, arrived_s=now_s, deadline_s=request.deadline_s
        )
        self._count_places()
        request.claim = claim
        self._turn_away(self.line.offer(claim, now_s))
        self._check_soon()

    def enter_again(self, request: QueuedRequest[T], now_s: float) -> T | None:
        """Return another target than those tried; None: the request waits for one."""
        target = self.model.take(request, now_s)
        if target is None:
            self._again[request] = now_s + self.line.bounds.max_wait_s
            self._check_soon()
        return target

    def end(self, request: QueuedRequest[T], *, service_s: float | None) -> None:
        """Count a request out, waiting or started, and start the next one."""
        line, flow = self.line, request.flow
        if request.claim is not None:
            line.remove(request.claim)
            request.claim = None
            return
        assert flow is not None
        line.end(flow, request.cost_tokens, service_s=service_s, really_tokens=request.real_tokens)
        if line.waiting or self._again:
            self._again.pop(request, None)
            self.pump()

    def learn(self, request: QueuedRequest[T], prompt_tokens: int | None, answer_tokens: int | None) -> None:
        """Take the usage that an engine reported for a request that is not over yet."""
        if prompt_tokens is None:
            return
        answer = answer_tokens or 0
        request.real_tokens = prompt_tokens + answer
        self.estimate.learn(len(request.request.body), prompt_tokens, answer)

    def totals(self) -> tuple[int, int, int]:
        """Return the requests under way, those that wait and the tokens that wait, of all workers together."""
        return self.line.under_way, self.line.waiting, self.line.tokens

    # Starting and rejecting

    def pump(self) -> None:
        """Start as many requests as there is room for."""
        if self._pumping or not (self.line.waiting or self._again):
            return
        self._pumping = True
        try:
            while self._start_again() or self._start_next():
                pass
        finally:
            self._pumping = False

    def _start_again(self) -> bool:
        now_s = self._loop.time()
        for request in self._again:
            target = self.model.take(request, now_s)
            if target is not None:
                del self._again[request]
                request.proceed(target)
                return True
        return False

    def _start_next(self) -> bool:
        claim = self.line.next()
        now_s = self._loop.time()
        if claim is None:
            return False
        request = claim.owner
        target = self.model.take(request, now_s)
        if target is None:
            return False
        self.line.take(claim, now_s)
        request.waited_s = waited_s = now_s - claim.arrived_s
        self.model.metrics.waited(waited_s)
        request.claim = None
        request.proceed(target)
        return True

    def targets_changed(self) -> None:
        """Use a new snapshot: start what new targets have room for; reject what no target can serve any more."""
        self.estimate.context_tokens = self.model.entry.max_context_tokens
        self._count_places()
        if not self.model.targets:
            self._turn_away(self.line.clear())
        else:  # a request for an adapter that was removed would block the queue
            has = self.model.has_adapter
            self._turn_away(self.line.clear(lambda request: not has(request.request.adapter)))
        self.pump()

    def _count_places(self) -> None:
        self.line.places = sum(target.gate.limit for target in self.model.targets)

    def _check_soon(self) -> None:
        if self._timer is None and (self.line.waiting or self._again):
            self._timer = self._loop.call_later(_CHECK_EVERY_S, self._check)

    def _check(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        self._turn_away(self.line.expire(now_s))
        for request in [each for each, until_s in self._again.items() if until_s <= now_s]:
            if request in self._again:  # the end of one may have started another
                del self._again[request]
                request.no_other_target()
        self.pump()
        self._check_soon()

    def _turn_away(self, turned: list[TurnedAway[QueuedRequest[T]]]) -> None:
        for each in turned:
            request = each.claim.owner
            request.claim = None
            self.model.metrics.turned_away(each.reason)
            request.turn_away(self._rejection(each))

    def _rejection(self, turned: TurnedAway[QueuedRequest[T]]) -> Rejection:
        request = turned.claim.owner
        request.waited_s = waited_s = self._loop.time() - turned.claim.arrived_s
        message = _MESSAGES[turned.reason].format(name=request.request.adapter or self.model.entry.name)
        if turned.reason in _AFTER_A_WAIT:
            message = f"{message} It waited {waited_s:.3f} s."
        if turned.reason == "deadline_passed":
            return errors.timeout(message)
        code = "model_not_ready" if turned.reason == "no_replica" else "engine_overloaded"
        return errors.unavailable(message, code=code, retry_after_s=turned.retry_after_s)
