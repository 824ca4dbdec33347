"""Fallback providers, which take a model's requests at a price: may a request go there now, and what did it cost.

Each has a bound of requests at once and a budget per day. The most that a request can cost is reserved before it is sent and
replaced by its real cost. A cost that stays unknown stays charged as reserved, so that the budget is a real bound. It neither
sends requests nor picks them; `detour` does.
"""

from collections.abc import Callable
from math import inf
from typing import Literal

from freehold.core.events import Endpoint, ReplicaState
from freehold.engines import all_engines
from freehold.engines.external import ENGINE
from freehold.gateway.answers.price import Price
from freehold.gateway.callers.spend import Month
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.exchange.ledger_record import RequestEnd
from freehold.gateway.settings import FallbackSettings
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.headers import AnswerHead
from freehold.gateway.wire.request import Request
from freehold.gateway.wire.request_tokens import prompt_tokens, tokens_asked
from freehold.ledger.records.money import usd_text
from freehold.ledger.records.record import Outcome
from freehold.telemetry.logs import get_logger

Reason = Literal["queue_full", "no_replica", "share", "shadow"]
"""Why a request goes to a fallback."""
Skip = Literal["budget", "concurrency", "shut"]
"""Why a fallback that was to be asked was not."""

_SHUT_FIRST_S, HOPELESS_S = 1.0, 60.0
"""How long it gets no requests after a failure, doubling with each that follows. Source: our own choice, as RETRY_AFTER_S_MAX:
while a provider is down as well, a rejection must not wait for it."""
_SILENT_S = (
    1.0  # A shorter wait is no sign of a hung provider. Source: our own choice, as for a replica (`attempt`).
)

_HOPELESS = frozenset({401, 402, 403, 407})  # The key or the account: every request gets the same answer.
_NO_ROOM = frozenset({429, 502, 503, 504})
_REASONS: dict[str | None, Reason] = {
    "engine_overloaded": "queue_full",
    "engine_failed": "no_replica",
    "model_not_ready": "no_replica",
}
"""Why a request goes to a provider, by the code of the rejection that this avoids."""


def reason_for(rejection: Rejection) -> Reason | None:
    """Return why a rejected request may go to a provider; None: no provider could help."""
    return _REASONS.get(rejection.error.code) if rejection.error.status == 503 else None


class ShareSampler:
    """Picks a part of requests, evenly spread and not at random: after n of them, n times the part, to within one."""

    __slots__ = ("_owed", "part")

    def __init__(self, part: float) -> None:
        self.part = part
        self._owed = 0.0

    def __repr__(self) -> str:
        return f"<ShareSampler {self.part:g}>"

    def next(self) -> bool:
        """Return whether the next request is one of the part."""
        self._owed += self.part
        if self._owed < 1:
            return False
        self._owed -= 1
        return True


OnSettled = Callable[["Stay", Outcome, int | None], None]
"""Called at each stay's end with its outcome and its cost in pico-dollars; None: unknown."""


class Provider:
    """One provider as the data plane sees it."""

    __slots__ = (
        "_answered_s",
        "_budget_logged",
        "_failures",
        "day",
        "on_settled",
        "settings",
        "shadow_target",
        "shut_until_s",
        "skipped",
        "spent_total_picousd",
        "target",
    )

    def __init__(self, settings: FallbackSettings, on_settled: OnSettled) -> None:
        self.on_settled = on_settled
        self.settings = settings
        self.target = _target(settings, f"fallback/{settings.name}")
        self.shadow_target = _target(settings, f"shadow/{settings.name}")
        self.shadow_target.gate = self.target.gate
        self.day: Month = {}
        """What every fallback has cost today, pico-dollars by name, reservations included; shared by all of them."""
        self.skipped: dict[Skip, int] = {"budget": 0, "concurrency": 0, "shut": 0}
        self.spent_total_picousd = 0
        """All costs that became known since the start."""
        self.shut_until_s = 0.0
        """Until when it gets no requests, since it failed, on the loop's clock."""
        self._answered_s = -inf
        self._failures = 0
        self._budget_logged = False

    def __repr__(self) -> str:
        return f"<Provider {self.name} at {self.target!r}, {usd_text(self.spent_picousd)} USD today>"

    @property
    def name(self) -> str:
        """Return its name: a metric's label and a header's value."""
        return self.settings.name

    @property
    def spent_picousd(self) -> int:
        """Return what it has cost today, reservations included."""
        return self.day.get(self.name, 0)

    def enter(
        self, request: Request, model: str, *, reason: Reason, cost_tokens: int, now_s: float
    ) -> "Stay | None":
        """Return a request's stay here, with its place and its reservation taken; None: it has no room."""
        price, gate = self.settings.price, self.target.gate
        most_picousd = _most_picousd(price, request)
        skip: Skip | None = None
        if self.shut_until_s > now_s:
            skip = "shut"
        elif self.spent_picousd + most_picousd > self.settings.budget_picousd_per_day:
            skip = "budget"
        elif (reason == "shadow" and gate.in_flight * 2 >= gate.limit) or not gate.enter(cost_tokens):
            # Copies use at most half of the places: no client waits for their answers.
            skip = "concurrency"
        if skip is None:
            return Stay(self, model, reason=reason, reserved_picousd=most_picousd)
        self.skipped[skip] += 1
        if skip == "budget" and not self._budget_logged:
            self._budget_logged = True
            doing = "not asking it until tomorrow (UTC)"
            get_logger("gateway").error("fallback_budget_spent", fallback=self.name, doing=doing)
        return None

    def enter_day(self, day: Month) -> None:
        """Count for another day from now on; what is under way settles in the day that it began in."""
        if day is not self.day:
            self.day, self._budget_logged = day, False

    def failed(self, now_s: float, *, wait_s: float | None = None) -> None:
        """Send it nothing for a while: it did not answer, asked for `wait_s`, or would reject every request."""
        if wait_s is None and self.shut_until_s > now_s:
            return  # sent before that failure: nothing new
        self._failures += 1
        own_s = min(HOPELESS_S, _SHUT_FIRST_S * 2 ** min(self._failures - 1, 10))
        self.shut_until_s = now_s + (own_s if wait_s is None else min(HOPELESS_S, wait_s))

    def silent(self, *, since_s: float, now_s: float) -> None:
        """Count a request, sent at `since_s`, that was given up before its answer; if others got one since, it is only slow."""
        if now_s - since_s >= _SILENT_S and self._answered_s <= since_s:
            self.failed(now_s)

    def succeeded(self, now_s: float) -> None:
        """Forget what failed: an answer came."""
        self._failures, self.shut_until_s, self._answered_s = 0, 0.0, now_s


class Stay:
    """One request's stay at a fallback: why it is there, and what it may cost."""

    __slots__ = ("_day", "free", "is_copy", "model", "provider", "reason", "reserved_picousd")

    def __init__(self, provider: Provider, model: str, *, reason: Reason, reserved_picousd: int) -> None:
        self.provider = provider
        self.model = model
        self.reason: Reason = reason
        self.is_copy = reason == "shadow"
        self.free = False
        """It is certain that nothing was made there that could be charged."""
        self.reserved_picousd = reserved_picousd
        """What it may cost, by its size and the longest answer that it asks for."""
        self._day = provider.day
        self._day[provider.name] = self._day.get(provider.name, 0) + reserved_picousd

    def __repr__(self) -> str:
        return f"<Stay at {self.provider.name} for {self.reason}>"

    @property
    def target(self) -> UpstreamTarget:
        """Return where it is asked."""
        return self.provider.shadow_target if self.is_copy else self.provider.target

    def answered(self, now_s: float) -> None:
        """Count an answer."""
        if not self.free:
            self.provider.succeeded(now_s)

    def failed(self, reason: str, now_s: float) -> None:
        """Count a provider that gave no answer."""
        self.free = reason == "connect"
        self.provider.failed(now_s)

    def rejected(self, head: AnswerHead, now_s: float) -> None:
        """Count an error answer: the provider may have no room, or reject every request."""
        self.free = True
        if head.status in _HOPELESS:
            self.provider.failed(now_s, wait_s=HOPELESS_S)
        elif head.status in _NO_ROOM:
            self.provider.target.gate.busy()
            self.provider.failed(now_s, wait_s=head.retry_after_s)
        get_logger("gateway").warning("fallback_refused", fallback=self.provider.name, status=head.status)

    def settle(self, end: RequestEnd) -> None:
        """Replace the reservation by the real cost, and note it for the ledger; if it is unknown, the reservation stays."""
        price, tokens = self.provider.settings.price, end.tokens
        self._settle(end.outcome, price.cost_picousd(tokens.usage))
        tokens.cost_usd = price.cost_usd(tokens.usage, nothing=self.free)

    def came_to_nothing(self) -> None:
        """Settle a request that was not answered there, at no cost."""
        self.free = True
        self._settle(Outcome.FAILED, None)

    def _settle(self, outcome: Outcome, cost_picousd: int | None) -> None:
        if cost_picousd is None and self.free:
            cost_picousd = 0
        if cost_picousd is not None:
            self._day[self.provider.name] += cost_picousd - self.reserved_picousd
            self.provider.spent_total_picousd += cost_picousd
        self.provider.on_settled(self, outcome, cost_picousd)


def _most_picousd(price: Price, request: Request) -> int:
    """Return what a request may cost, by its size and the longest answer that it asks for."""
    body_bytes = len(request.body)
    prompt = prompt_tokens(body_bytes)
    return price.of(prompt, tokens_asked(body_bytes, request.path, request.max_tokens) - prompt)


def _target(settings: FallbackSettings, target_id: str) -> UpstreamTarget:
    endpoint = Endpoint(
        id=target_id,
        model="",
        url=settings.url,
        engine=ENGINE.name,
        state=ReplicaState.READY,
        slots=settings.max_concurrency,
        upstream_model=settings.upstream_model,
        api_key=settings.api_key,
    )
    return UpstreamTarget(endpoint, all_engines()[ENGINE.name])
