"""A request that may be sent to other providers: asked there instead of being rejected, or for a share of all requests.

While it is away, its exchange has another model: one without replicas and without a queue. A provider that does not
answer, or answers with an error, changes nothing for the client: another provider is asked, then the original rejection
stands with its Retry-After, or, for a request that went by share, this stack answers as always. Once the first byte has
been passed on the request stays where it is: its stream is not continued elsewhere. A request that must not leave has no
detour, and a model without fallbacks pays one comparison.
"""

from collections.abc import Callable, Sequence

import msgspec

from freehold.core.events import ModelEntry
from freehold.engines.base import MEDIA_PATHS, Engine
from freehold.engines.external import ENGINE
from freehold.gateway.counters.request_metrics import ModelMetrics
from freehold.gateway.endpoints.model import ModelAdmission, ModelRequest, ServedModel
from freehold.gateway.exchange.exchange import Exchange
from freehold.gateway.exchange.provider import (
    Provider,
    Reason,
    ShareSampler,
    Stay,
    reason_for,
)
from freehold.gateway.queue.queue import QueueBounds
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.ports import Loop
from freehold.gateway.wire.request import Request


def may_leave(request: Request) -> bool:
    """Return whether a request may go to other providers: its client and key allow it, and they may know its path."""
    caller = request.caller
    return (
        not request.stays
        and not request.adapter
        and request.path in ENGINE.paths - MEDIA_PATHS  # their prices are not by the token
        and (caller is None or caller.may_leave)
    )


class _NoQueue(ModelAdmission):
    """The queue of a model elsewhere: no request waits in it, and what is learned there is not true here."""

    __slots__ = ()

    def end(self, request: ModelRequest, *, service_s: float | None) -> None:
        """Do nothing: nothing was counted in."""

    def learn(self, request: ModelRequest, prompt_tokens: int | None, answer_tokens: int | None) -> None:
        """Learn nothing of this stack's own model."""

    def pump(self) -> None:
        """Do nothing."""


def model_elsewhere(entry: ModelEntry, engine: Engine, *, metrics: ModelMetrics, loop: Loop) -> ServedModel:
    """Return a model as it is while one of its requests is away: its name and counters, no replicas and no queue."""
    # The limit on its engines' silence does not apply to another provider, and no stream is continued there.
    entry = msgspec.structs.replace(entry, engine=engine.name, stall_s=0.0, resume="off")
    return ServedModel(
        entry, engine, metrics=metrics, new_admission=lambda model: _NoQueue(model, QueueBounds(), loop)
    )


class ProviderRoute:
    """One provider as one model's requests see it."""

    __slots__ = ("_samplers", "copy_model", "model", "provider", "samples")

    def __init__(self, provider: Provider, *, model: ServedModel, copy_model: ServedModel) -> None:
        self.provider = provider
        self.model = model
        self.copy_model = copy_model
        share, shadow = provider.settings.share, provider.settings.shadow
        self._samplers: dict[Reason, ShareSampler] = {
            "share": ShareSampler(share),
            "shadow": ShareSampler(shadow),
        }
        self.samples = bool(share or shadow)
        """Some requests go there, or are copied, although this stack could answer."""

    def __repr__(self) -> str:
        return f"<ProviderRoute of {self.model.entry.name} to {self.provider.name}>"

    @property
    def covers_outage(self) -> bool:
        """Return whether it answers requests while no replica is ready."""
        return "no_replica" in self.provider.settings.when

    def enter(self, exchange: Exchange, reason: Reason) -> Stay | None:
        """Return a request's stay there, with its place and its reservation taken; None: it is not wanted or has no room.

        Call it once for each request and reason, since requests are sampled here.
        """
        sampler = self._samplers.get(reason)
        if not (reason in self.provider.settings.when if sampler is None else sampler.next()):
            return None
        name, now_s = self.model.entry.name, exchange.context.now_s()
        return self.provider.enter(
            exchange.request, name, reason=reason, cost_tokens=exchange.cost_tokens, now_s=now_s
        )


class Detour:
    """One request's way to other providers, in the order of `routes`, and back; `copy` sends copies of it where they are wanted."""

    __slots__ = ("_asked", "_copy", "_home", "_limit_lines", "_rejection", "_routes")

    def __init__(
        self, routes: Sequence[ProviderRoute], home: ServedModel, copy: Callable[[Exchange], object]
    ) -> None:
        self._routes = routes
        self._home = home
        self._copy = copy
        self._rejection: Rejection | None = None
        """The answer when no provider answers either; None: this stack would have answered."""
        self._limit_lines = b""
        self._asked: frozenset[str] = frozenset()
        """Names of providers that did not answer."""

    def __repr__(self) -> str:
        return f"<Detour of {self._home.entry.name}, {len(self._asked)} asked>"

    # What an exchange calls

    def start(self, exchange: Exchange) -> bool:
        """Send the request elsewhere if it is sampled for that; return whether it is dealt with."""
        if not self._home.targets:
            exchange.turn_away(errors.not_ready(self._home.entry.name))
            return True
        if not any(route.samples for route in self._routes):
            return False
        self._copy(exchange)
        found = self._find(exchange, "share")
        if found is not None:
            self._depart(exchange, *found)
        return found is not None

    def instead_of(self, exchange: Exchange, rejection: Rejection) -> bool:
        """Send the request elsewhere, or bring it back from there, instead of rejecting it; return whether that was done."""
        if exchange.answer_bytes or rejection.error.status == 504 or exchange.context.draining:
            return False
        if exchange.stay is not None:
            self.come_back(exchange)
            return True
        reason = reason_for(rejection)
        found = None if reason is None else self._find(exchange, reason)
        if found is None:
            return False
        self._rejection = rejection
        self._depart(exchange, *found)
        return True

    def come_back(self, exchange: Exchange) -> None:
        """Bring a request back without an answer: ask another provider, or this stack, or reject it as at first."""
        stay = exchange.stay
        assert stay is not None
        assert exchange.attempt is not None
        self._asked = self._asked | {stay.provider.name}
        exchange.request.limit_lines = self._limit_lines
        exchange.attempt.leave()
        found = None if self._rejection is None else self._find(exchange, stay.reason)
        if self._rejection is not None and found is None:
            exchange.reject_here(self._rejection)
            return
        # An attempt that may have cost something has a record of its own.
        if stay.free:
            stay.came_to_nothing()
        else:
            exchange.record_attempt(502)
        if found is not None:
            self._depart(exchange, *found)
            return
        exchange.stay = None
        exchange.start_over(self._home)
        if self._home.targets:
            exchange.start_here(exchange.context.now_s())
        else:
            exchange.turn_away(errors.not_ready(self._home.entry.name))

    # Leaving

    def _find(self, exchange: Exchange, reason: Reason) -> tuple[ProviderRoute, Stay] | None:
        """Return the first provider that wants this request and has room for it, with a place there taken, or None."""
        for route in self._routes:
            stay = None if route.provider.name in self._asked else route.enter(exchange, reason)
            if stay is not None:
                return route, stay
        return None

    def _depart(self, exchange: Exchange, route: ProviderRoute, stay: Stay) -> None:
        """Ask at a provider, where a place is taken."""
        request = exchange.request
        if exchange.attempt is not None:
            exchange.attempt.leave()
        if exchange.flow is not None:
            self._home.admission.end(exchange, service_s=None)
            exchange.flow = None
        exchange.model, exchange.stay = route.model, stay
        self._limit_lines = request.limit_lines
        request.limit_lines += b"x-freehold-fallback: %b\r\n" % route.provider.name.encode()
        exchange.try_again(stay.target)
