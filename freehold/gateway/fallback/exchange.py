"""A request that may leave the house: asked at somebody else's endpoint instead of being refused, or by share.

It is an exchange with another model under it while it is away: one without replicas of its own and without a queue. A
fallback that does not answer, or answers with an error, changes nothing for the caller: another one is asked, then the
original refusal stands with its Retry-After, or, for a request that went by share, this stack answers as always. Once
the first byte has been passed on it stays where it is: a stream is not continued elsewhere. A request that may not
leave is a plain exchange, and a model without fallbacks pays one comparison.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from freehold.core.events import ModelEntry
from freehold.engines.base import Engine
from freehold.gateway.answers.usage import Usage
from freehold.gateway.counters.request_metrics import ModelMetrics
from freehold.gateway.endpoints.outlier_detection import Failure
from freehold.gateway.endpoints.pool import ServedModel, UpstreamTarget
from freehold.gateway.exchange.exchange import Exchange
from freehold.gateway.exchange.upstream import UpstreamConnection
from freehold.gateway.fallback.provider import (
    HOPELESS_S,
    Provider,
    ProviderRequest,
    Reason,
    Sampler,
    Stay,
    reason_for,
    serves,
)
from freehold.gateway.queue.admission import Admission
from freehold.gateway.settings import Settings
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.headers import AnswerHead
from freehold.gateway.wire.request import Request
from freehold.telemetry.logs import get_logger

if TYPE_CHECKING:
    from freehold.gateway.server.client_connection import ClientConnection
    from freehold.gateway.server.gateway import Gateway

_HOPELESS = frozenset({401, 402, 403, 407})  # The key or the account: the next request would hear the same.
_NO_ROOM = frozenset({429, 502, 503, 504})


def may_leave(request: Request) -> bool:
    """Return whether its caller lets a request go to an endpoint of others that may know its path; no adapter is there."""
    caller = request.caller
    return (
        not request.stays
        and not request.adapter
        and serves(request.path)
        and (caller is None or caller.record.limits.fallback)
    )


class _NoQueue(Admission):
    """The queue of a model that is elsewhere: nobody waits in it, and what is learnt there is not true here."""

    __slots__ = ()

    def end(self, exchange: Exchange, *, service_s: float | None) -> None:
        """Do nothing: nothing was counted in."""

    def learn(self, exchange: Exchange, usage: Usage | None) -> None:
        """Note what was used, and learn nothing of this stack's own model from it."""

    def pump(self) -> None:
        """Do nothing."""


class AwayModel(ServedModel):
    """A model as it is while one of its requests is away: its name and counters, no replicas and no queue."""

    __slots__ = ()

    def __init__(
        self, entry: ModelEntry, engine: Engine, *, meters: ModelMetrics, settings: Settings
    ) -> None:
        # How long its engines may be silent says nothing of somebody else's.
        elsewhere = msgspec.structs.replace(entry, engine=engine.name, stall_s=0.0)
        super().__init__(elsewhere, engine, meters=meters, settings=settings)
        self.admission = _NoQueue(self, settings)
        self.price = None
        self.continues = None  # a stream is not continued by another house's engine, nor by ours


class Way:
    """One fallback as one model's requests see it."""

    __slots__ = ("_shadow_due", "_share_due", "fallback", "model", "shadow_model")

    def __init__(self, fallback: Provider, *, model: AwayModel, shadow_model: AwayModel) -> None:
        self.fallback = fallback
        self.model = model
        self.shadow_model = shadow_model
        self._share_due = Sampler(fallback.settings.share)
        self._shadow_due = Sampler(fallback.settings.shadow)

    def __repr__(self) -> str:
        return f"<Way of {self.model.entry.name} to {self.fallback.name}>"

    def wants(self, reason: Reason) -> bool:
        """Return whether it takes this model's next request for this reason; asked once for each request."""
        if reason == "share":
            return self._share_due.next()
        if reason == "shadow":
            return self._shadow_due.next()
        return reason in self.fallback.settings.when

    def enter(self, exchange: Exchange, reason: Reason, now_s: float) -> Stay | None:
        """Return a request's stay there, with its place and its reservation taken; None: there is no room for it."""
        asked = ProviderRequest(exchange.request, self.model.entry.name, exchange.cost_tokens)
        away = self.fallback.enter(asked, reason, now_s)
        if isinstance(away, Stay):
            return away
        if away == "budget" and self.fallback.first_without_budget():
            get_logger("gateway").error(
                "fallback_budget_spent",
                fallback=self.fallback.name,
                doing="not asking it until tomorrow (UTC)",
            )
        return None


class Overflow:
    """The ways out of one model, in the order in which they are asked."""

    __slots__ = ("samples", "ways")

    def __init__(self, ways: Sequence[Way]) -> None:
        self.ways = tuple(ways)
        settings = [way.fallback.settings for way in ways]
        self.samples = any(each.share or each.shadow for each in settings)
        """Some requests go there, or are copied, although this stack could answer."""

    def __repr__(self) -> str:
        return f"<Overflow {self.ways}>"

    @property
    def spares_an_outage(self) -> bool:
        """Return whether requests are answered although no replica is ready."""
        return any("no_replica" in way.fallback.settings.when for way in self.ways)

    def enter(self, exchange: "OutwardExchange", reason: Reason, now_s: float) -> tuple[Way, Stay] | None:
        """Return the first way that wants this request and has room for it, with a place there taken; None: none has."""
        for way in self.ways:
            if way.fallback.name in exchange.asked or not way.wants(reason):
                continue
            away = way.enter(exchange, reason, now_s)
            if away is not None:
                return way, away
        return None


class AwayExchange(Exchange):
    """One request under way that may be at a fallback, and what its fate says of that fallback."""

    def _answered(self, target: UpstreamTarget) -> None:
        if self.away is not None and not self.away.free:
            self.away.fallback.succeeded(self.gateway.now_s())
        super()._answered(target)

    def _engine_gone(self, message: str, *, code: str) -> None:
        if code == "timeout":
            self._given_up()
        super()._engine_gone(message, code=code)

    def _given_up(self) -> None:
        if self.away is not None and self._head is None:
            self.away.fallback.silent(since_s=self._heard_s, now_s=self.gateway.now_s())


class OutwardExchange(AwayExchange):
    """One request under way that may be answered elsewhere."""

    _refusal: Rejection | None = None
    """What its caller is told when nobody else answers either; None: this stack would have answered."""
    _home_lines = b""
    asked: frozenset[str] = frozenset()
    """Names of fallbacks that were asked in vain."""

    def __init__(
        self, gateway: "Gateway", client: "ClientConnection", *, model: ServedModel, request: Request
    ) -> None:
        super().__init__(gateway, client, model=model, request=request)
        self.home = model

    # What decides

    def start(self) -> None:
        """Begin: elsewhere, where it is this request's turn for that; else here, if there are replicas."""
        overflow = self.home.overflow
        if not self.home.targets:
            self.turn_away(errors.not_ready(self.home.entry.name))
        elif overflow is None or not overflow.samples or not self._sampled():
            super().start()

    def _sampled(self) -> bool:
        """Send copies where they are wanted, and return whether it is this request's turn to go itself."""
        assert self.gateway.fallbacks is not None
        self.gateway.fallbacks.send_copies(self)
        found = self._find("share")
        if found is not None:
            self._depart(*found)
        return found is not None

    def turn_away(self, refusal: Rejection) -> None:
        """Go elsewhere instead of being refused, which no engine had a part in."""
        self.flow = None  # it was never begun, or is out of the queue again
        if not self._go_instead(refusal):
            super().turn_away(refusal)

    def on_head(self, connection: UpstreamConnection, head: AnswerHead) -> None:
        """Pass an answer on; an error that came from elsewhere is none of this caller's business."""
        if self.away is None or head.status < 300:
            super().on_head(connection, head)
            return
        connection.abort()
        self._connection = None
        self.away.free = True
        note_error(self.away.fallback, head, self.gateway.now_s())
        self._return(self.away)

    def _attempt_failed(self, reason: Failure) -> None:
        if self.away is not None:
            self.away.free = reason == "connect"
            self.away.fallback.failed(self.gateway.now_s())
        super()._attempt_failed(reason)

    def _engine_too_slow(self) -> None:
        if self.away is not None:
            self.away.fallback.failed(self.gateway.now_s())
        super()._engine_too_slow()

    def client_left(self) -> None:
        """End the work for it: nobody listens any more."""
        if not self.done:
            self._given_up()
        super().client_left()

    def _suspect_silence(self) -> None:
        if self.away is None:
            super()._suspect_silence()

    def _refuse(self, refusal: Rejection) -> None:
        if self.answer_bytes or refusal.error.status == 504 or self.gateway.draining:
            super()._refuse(refusal)
        elif self.away is not None:
            self._return(self.away)
        elif not self._go_instead(refusal):
            super()._refuse(refusal)

    # Going and coming back

    def _go_instead(self, refusal: Rejection) -> bool:
        """Go elsewhere instead of being refused, and return whether it went."""
        reason = reason_for(refusal)
        if reason is None or self.gateway.draining:
            return False
        found = self._find(reason)
        if found is not None:
            self._refusal = refusal
            self._depart(*found)
        return found is not None

    def _find(self, reason: Reason) -> tuple[Way, Stay] | None:
        overflow = self.home.overflow
        return None if overflow is None else overflow.enter(self, reason, self.gateway.now_s())

    def _depart(self, way: Way, away: Stay) -> None:
        """Ask elsewhere, where a place is taken."""
        self._leave_target()
        if self.flow is not None:
            self.home.admission.end(self, service_s=None)
            self.flow = None
        self.model, self.away, self.wants_payload = way.model, away, False
        self._home_lines = self.request.limit_lines
        self.request.limit_lines += b"x-freehold-fallback: %b\r\n" % way.fallback.name.encode()
        self._attempt_again(away.target)

    def _return(self, away: Stay) -> None:
        """Come back without an answer: ask another fallback, or this stack, or say what was to be said at first."""
        self.asked = self.asked | {away.fallback.name}
        self.request.limit_lines = self._home_lines
        self._leave_target()
        found = None if self._refusal is None else self._find(away.reason)
        if self._refusal is not None and found is None:
            super()._refuse(self._refusal)
            return
        self._close_attempt(away)
        if found is not None:
            self._depart(*found)
        else:
            self._go_home()

    def _close_attempt(self, away: Stay) -> None:
        """Settle an attempt that the request goes on after; what may have cost something has a record of its own."""
        if away.free:
            away.came_to_nothing()
        else:
            self._note(502, complete=False)
            self._noted = False

    def _go_home(self) -> None:
        self.model, self.away, self.target, self.attempts = self.home, None, None, 0
        self._heard_s = self._begun_s = now_s = self.gateway.now_s()
        # Nothing that came from there belongs to the answer from here, as with any attempt after another.
        self._head = self.assembler = self.passing = self.first_s = None
        self._kept, self._pending, self._began, self.wants_payload = (), b"", False, False
        self.gateway.budget.earn()
        if not self.home.targets:
            self.turn_away(errors.not_ready(self.home.entry.name))
            return
        target = self.home.admission.enter(self, now_s)
        if target is not None:
            self._attempt(target)


def note_error(fallback: Provider, head: AnswerHead, now_s: float) -> None:
    """Take notice of a fallback's error answer: there may be no room, or nothing there may work."""
    if head.status in _HOPELESS:
        fallback.failed(now_s, wait_s=HOPELESS_S)
    elif head.status in _NO_ROOM:
        fallback.target.gate.busy()
        fallback.failed(now_s, wait_s=head.retry_after_s)
    get_logger("gateway").warning("fallback_refused", fallback=fallback.name, status=head.status)
