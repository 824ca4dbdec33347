"""All fallback providers of one gateway process: their budgets on disk, their metrics, their copies under way.

Their costs are saved by a background thread, as the keys' budgets are, so that a gateway that is killed and started again
does not get a new budget each time. Another gateway process counts for itself.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from freehold.core.clock import wall_s
from freehold.gateway.callers.spend import Daily
from freehold.gateway.counters.request_metrics import GatewayMetrics, read_at_scrape
from freehold.gateway.endpoints.model import ServedModel
from freehold.gateway.exchange.exchange import Exchange
from freehold.gateway.exchange.provider import Provider, Stay
from freehold.gateway.fallback.detour import Detour, ProviderRoute, may_leave, model_elsewhere
from freehold.gateway.fallback.mirror import Mirror
from freehold.gateway.settings import Settings
from freehold.gateway.storage.budget_file import BudgetFile, part_path
from freehold.gateway.wire.ports import Loop
from freehold.gateway.wire.request import Request
from freehold.ledger.records.money import PICOUSD_PER_USD, usd
from freehold.ledger.records.record import Outcome
from freehold.telemetry.logs import get_logger
from freehold.telemetry.metrics import Reading, Values


class Fallbacks:
    """The fallbacks of one gateway process."""

    def __init__(self, settings: Settings, metrics: GatewayMetrics, loop: Loop) -> None:
        self._metrics = metrics
        self._loop = loop
        self._copies_metrics = GatewayMetrics()
        """Where copies are counted as requests: on no page, since no client waits for them."""
        self._routes: dict[str, tuple[ProviderRoute, ...]] = {}
        self.all = tuple(Provider(each, self._settled) for each in settings.fallbacks)
        self.copies: set[Mirror] = set()
        path = settings.fallback_spent_path
        self._file = (
            BudgetFile(part_path(Path(path), settings.worker), get_logger("gateway.fallbacks"), kind=Daily)
            if path
            else None
        )
        self._spending = Daily() if self._file is None else self._file.spending
        self.tick(0.0)
        self._watch(metrics)

    def __repr__(self) -> str:
        return f"<Fallbacks {self.all}, {len(self.copies)} copies>"

    def start(self) -> None:
        """Save what is spent from now on."""
        if self._file is not None:
            self._file.start()

    def end_copies(self) -> None:
        """End the copies under way: no client waits for their answers."""
        for each in list(self.copies):
            each.end()

    def stop(self) -> None:
        """Save once more; waits a second for that and no longer."""
        if self._file is not None:
            self._file.stop()

    def tick(self, now_s: float) -> None:
        """Enforce the copies' time limits, and note a new day."""
        self._spending.enter(wall_s())
        for fallback in self.all:
            fallback.enter_day(self._spending.month)
        for each in list(self.copies):
            if each.exchange is not None:
                each.exchange.check(now_s)

    # For models and their requests

    def of(self, model: ServedModel) -> tuple[ProviderRoute, ...]:
        """Return the routes to a model's providers, in the order in which they are asked; empty: it has none."""
        name = model.entry.name
        if name not in self._routes:
            there = [each for each in self.all if not each.settings.models or name in each.settings.models]
            self._routes[name] = tuple(self._route(each, model) for each in there)
        return self._routes[name]

    def _route(self, provider: Provider, model: ServedModel) -> ProviderRoute:
        entry, engine = model.entry, provider.target.engine
        copies = self._copies_metrics.for_model(entry.name)
        return ProviderRoute(
            provider,
            model=model_elsewhere(entry, engine, metrics=model.metrics, loop=self._loop),
            copy_model=model_elsewhere(entry, engine, metrics=copies, loop=self._loop),
        )

    def detour(self, model: ServedModel, request: Request) -> Detour | None:
        """Return a request's way to other providers; None: it has none, or must not leave."""
        routes = self.of(model)
        return Detour(routes, model, self._send_copies) if routes and may_leave(request) else None

    def _send_copies(self, exchange: Exchange) -> None:
        """Send copies of a request to the providers that want one."""
        for route in self.of(exchange.model):
            stay = route.enter(exchange, "shadow")
            if stay is not None:
                Mirror(exchange.context, exchange.request, self.copies).start(route, stay)

    # For operators

    def health(self, *, spent: bool) -> dict[str, Any]:
        """Return what `/health` shows of each: never an address or a key; `spent`: its costs too."""
        return {
            each.name: {"in_flight": each.target.in_flight}
            | (
                {
                    "spent_usd": str(usd(each.spent_picousd)),
                    "budget_usd": str(usd(each.settings.budget_picousd_per_day)),
                }
                if spent
                else {}
            )
            for each in self.all
        } | ({"trouble": self._file.trouble} if self._file is not None and self._file.trouble else {})

    def _settled(self, away: Stay, outcome: Outcome, cost_picousd: int | None) -> None:
        metrics, name = self._metrics.metrics, away.provider.name
        metrics.counter("freehold_gateway_fallback_total").add(away.model, name, away.reason, outcome.value)
        if cost_picousd is None:
            metrics.counter("freehold_gateway_fallback_unknown_cost_total").add(name)

    def _watch(self, metrics: GatewayMetrics) -> None:
        readings: dict[str, Reading] = {
            "freehold_gateway_fallback_spent_usd": lambda: self._each(lambda f: f.spent_picousd),
            "freehold_gateway_fallback_budget_usd": lambda: self._each(
                lambda f: f.settings.budget_picousd_per_day
            ),
            "freehold_gateway_fallback_in_flight": lambda: {(f.name,): f.target.in_flight for f in self.all},
            "freehold_gateway_fallback_cost_usd_total": lambda: self._each(lambda f: f.spent_total_picousd),
            "freehold_gateway_fallback_skipped_total": lambda: {
                (f.name, why): count for f in self.all for why, count in f.skipped.items()
            },
        }
        read_at_scrape(metrics.metrics, readings)

    def _each(self, amount_picousd: Callable[[Provider], int]) -> dict[Values, float]:
        return {(each.name,): amount_picousd(each) / PICOUSD_PER_USD for each in self.all}
