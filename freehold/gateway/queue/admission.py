"""One model's queue as the event loop sees it: it asks `admit` who may start, and starts or refuses exchanges.

Where a target has room and nobody waits, a request passes here with a few dictionary operations. Else its exchange
waits without a task of its own: whoever leaves a target starts who is next, and one timer, which runs only while
somebody waits, turns away those whose time is over. A request that has to go to another replica after its first one
failed waits beside the queue and before it, since it was started already.
"""

import asyncio
from typing import TYPE_CHECKING

from freehold.gateway.answers.usage import Usage
from freehold.gateway.callers.grant import KeyState
from freehold.gateway.queue.fair_queue import Claim, Flow
from freehold.gateway.queue.queue import QueueBounds, Reason, RequestQueue, TurnedAway
from freehold.gateway.queue.token_estimate import TokenEstimate
from freehold.gateway.settings import Settings
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection

if TYPE_CHECKING:
    from freehold.gateway.endpoints.pool import ServedModel, UpstreamTarget
    from freehold.gateway.exchange.exchange import Exchange
    from freehold.gateway.fallback.provider import Stay
    from freehold.gateway.wire.request import Request

_LOOK_EVERY_S = (
    0.02  # How late a refusal may be beyond its wait. Source: half of what the design allows at p99.
)

_WORDS: dict[Reason, str] = {
    "queue_full": "The queue for {name} is full.",
    "pushed_out": "The queue for {name} is full, and others have less in it.",
    "wait_too_long": "The queue for {name} is too long to wait in.",
    "waited_too_long": "The queue for {name} did not move fast enough.",
    "deadline_too_close": "{name} is too busy to answer within the timeout that the request asks for.",
    "deadline_passed": "{name} was too busy to answer within the timeout that the request asks for.",
    "no_replica": "No replica of {name} is ready any more.",
}
_AFTER_A_WAIT = frozenset({"pushed_out", "waited_too_long", "deadline_passed", "no_replica"})


def _bounds(settings: Settings) -> QueueBounds:
    return QueueBounds(
        max_requests=settings.queue_max_requests,
        max_tokens=settings.queue_max_tokens,
        max_wait_s=settings.queue_max_wait_s,
        overload_wait_s=settings.queue_overload_wait_s,
    )


class QueuedRequest:
    """What the queue keeps of an exchange. Defaults stand on the class, since most requests never wait."""

    caller = ""
    """Who asks, for fairness between callers; empty: nobody in particular."""
    weight = 1.0
    """The caller's share when callers compete, relative to the others'; above 0."""
    priority = 0
    """As nice(1): lower goes first."""
    cost_tokens = 0
    real_tokens: int | None = None
    """What the engine counted, once that is known."""
    flow: "Flow[Exchange] | None" = None
    claim: "Claim[Exchange] | None" = None
    """Its place in the queue, while it waits for its first start."""
    tried: "frozenset[UpstreamTarget]" = frozenset()
    """Targets that failed this request; one that is started again is another."""
    away: "Stay | None" = None
    """Its stay at somebody else's endpoint; None: it is here."""
    waited_s = 0.0
    """How long it waited for its first start, or in vain."""
    code = ""
    """Why it failed, once it has: an error's code."""
    prefix_key: int | None = None
    """Names its conversation, see `prefix`; 0: none; None: nobody has asked yet."""
    on_trial = False
    """It is the one request that shows whether an ejected target is well again."""
    request: "Request"

    def belongs_to(self, caller: KeyState) -> None:
        """Wait in this caller's turn from now on."""
        limits = caller.record.limits
        self.caller, self.weight, self.priority = caller.id, limits.weight, limits.priority


class Admission:
    """The queue in front of one model's targets."""

    __slots__ = ("_again", "_looking", "_pumping", "estimate", "line", "model")

    def __init__(self, model: "ServedModel", settings: Settings) -> None:
        self.model = model
        self.line: RequestQueue[Exchange] = RequestQueue(_bounds(settings))
        self.estimate = TokenEstimate(context_tokens=model.entry.max_context_tokens)
        self._again: dict[Exchange, float] = {}
        """Exchanges that look for another target, with the time until which they may."""
        self._pumping = False
        self._looking: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Admission {self.model.entry.name} {self.line!r}>"

    def retune(self, settings: Settings) -> None:
        """Go on by other bounds; who waits already is not turned away by them before its time."""
        self.line.bounds = _bounds(settings)

    # What an exchange calls

    def enter(self, exchange: "Exchange", now_s: float) -> "UpstreamTarget | None":
        """Return the target to ask now; None: the exchange waits, or was told that it cannot."""
        line, request = self.line, exchange.request
        exchange.cost_tokens = cost = self.estimate.cost_tokens(len(request.body), request.max_tokens)
        exchange.flow = flow = line.turns.flow(exchange.caller, exchange.weight, exchange.priority)
        if not line.waiting:
            target = self.model.take(exchange, now_s)
            if target is not None:
                line.begin(flow, cost)
                return target
        self._wait(exchange, now_s)
        return None

    def _wait(self, exchange: "Exchange", now_s: float) -> None:
        assert exchange.flow is not None
        claim: Claim[Exchange] = Claim(
            exchange,
            exchange.flow,
            cost_tokens=exchange.cost_tokens,
            arrived_s=now_s,
            deadline_s=exchange.deadline_s,
        )
        self._count_places()
        exchange.claim = claim
        self._turn_away(self.line.offer(claim, now_s))
        self._look_soon()

    def enter_again(self, exchange: "Exchange", now_s: float) -> "UpstreamTarget | None":
        """Return another target than those tried; None: the exchange waits for one."""
        target = self.model.take(exchange, now_s)
        if target is None:
            self._again[exchange] = now_s + self.line.bounds.max_wait_s
            self._look_soon()
        return target

    def end(self, exchange: "Exchange", *, service_s: float | None) -> None:
        """Count an exchange out, wherever it was, and start who is next."""
        line, flow = self.line, exchange.flow
        if exchange.claim is not None:
            line.remove(exchange.claim)
            exchange.claim = None
            return
        assert flow is not None
        line.end(flow, exchange.cost_tokens, service_s=service_s, really_tokens=exchange.real_tokens)
        if line.waiting or self._again:
            self._again.pop(exchange, None)
            self.pump()

    def learn(self, exchange: "Exchange", usage: Usage | None) -> None:
        """Take the real usage of an exchange that is not over yet, where its engine told it."""
        if usage is None or usage.prompt_tokens is None:
            return
        answer_tokens = usage.completion_tokens or 0
        exchange.real_tokens = usage.prompt_tokens + answer_tokens
        self.estimate.learn(
            len(exchange.request.body), prompt_tokens=usage.prompt_tokens, answer_tokens=answer_tokens
        )

    def totals(self) -> tuple[int, int, int]:
        """Return the requests under way, those that wait and the tokens that wait, of all workers together."""
        return self.line.under_way, self.line.waiting, self.line.tokens

    # Starting and refusing

    def pump(self) -> None:
        """Start as many as there is room for."""
        if self._pumping or not (self.line.waiting or self._again):
            return
        self._pumping = True
        try:
            while self._start_again() or self._start_next():
                pass
        finally:
            self._pumping = False

    def _start_again(self) -> bool:
        now_s = self._now_s()
        for exchange in self._again:
            target = self.model.take(exchange, now_s)
            if target is not None:
                del self._again[exchange]
                exchange.proceed(target)
                return True
        return False

    def _start_next(self) -> bool:
        claim = self.line.next()
        now_s = self._now_s()
        if claim is None:
            return False
        target = self.model.take(claim.owner, now_s)
        if target is None:
            return False
        self.line.take(claim, now_s)
        claim.owner.waited_s = waited_s = now_s - claim.arrived_s
        self.model.meters.waited(waited_s)
        claim.owner.claim = None
        claim.owner.proceed(target)
        return True

    def targets_changed(self) -> None:
        """Take notice of a new snapshot: start whom new targets have room for; without any, nobody has to wait."""
        self.estimate.context_tokens = self.model.entry.max_context_tokens
        self._count_places()
        if not self.model.targets:
            self._turn_away(self.line.clear())
        else:  # who waits for what nobody has any more would keep all behind it from starting
            has = self.model.has_adapter
            self._turn_away(self.line.clear(lambda exchange: not has(exchange.request.adapter)))
        self.pump()

    def _count_places(self) -> None:
        self.line.places = sum(target.gate.limit for target in self.model.targets)

    def _look_soon(self) -> None:
        if self._looking is None and (self.line.waiting or self._again):
            self._looking = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        self._looking = None
        now_s = self._now_s()
        self._turn_away(self.line.expire(now_s))
        for exchange in [each for each, until_s in self._again.items() if until_s <= now_s]:
            if exchange in self._again:  # the end of one may have started another
                del self._again[exchange]
                exchange.no_other_target()
        self.pump()
        self._look_soon()

    def _turn_away(self, turned: list[TurnedAway["Exchange"]]) -> None:
        for each in turned:
            exchange = each.claim.owner
            exchange.claim = None
            self.model.meters.turned_away(each.reason)
            exchange.turn_away(self._refusal(each))

    def _refusal(self, turned: TurnedAway["Exchange"]) -> Rejection:
        turned.claim.owner.waited_s = waited_s = self._now_s() - turned.claim.arrived_s
        message = _WORDS[turned.reason].format(
            name=turned.claim.owner.request.adapter or self.model.entry.name
        )
        if turned.reason in _AFTER_A_WAIT:
            message = f"{message} It waited {waited_s:.3f} s."
        if turned.reason == "deadline_passed":
            return errors.timeout(message)
        code = "model_not_ready" if turned.reason == "no_replica" else "engine_overloaded"
        return errors.unavailable(message, code=code, retry_after_s=turned.retry_after_s)

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()
