"""All endpoints of others of one gateway process: their budgets on disk, their metrics, their copies under way.

What they have cost is kept beside the loop as the keys' budgets are, so that a gateway that is killed and started again
and again does not get a new budget each time. Another gateway process counts for itself.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from freehold.core.clock import wall_s
from freehold.gateway.callers.spend import Daily
from freehold.gateway.counters.request_metrics import GatewayMetrics
from freehold.gateway.endpoints.pool import ServedModel
from freehold.gateway.fallback.exchange import AwayModel, OutwardExchange, Overflow, Way
from freehold.gateway.fallback.mirror import Shadow
from freehold.gateway.fallback.provider import Provider, Stay
from freehold.gateway.settings import Settings
from freehold.gateway.storage.budget_file import BudgetFile, part_path
from freehold.ledger.money import PICOUSD_PER_USD, usd
from freehold.ledger.record import Outcome
from freehold.telemetry.logs import get_logger
from freehold.telemetry.metrics import Reading, Values


class Fallbacks:
    """The fallbacks of one gateway process."""

    def __init__(self, settings: Settings, meters: GatewayMetrics) -> None:
        self._meters = meters
        self._copies_meters = GatewayMetrics()
        """Where copies are counted as requests: nowhere that anybody looks, since no caller waits for them."""
        self.all = tuple(Provider(each, self._settled) for each in settings.fallbacks)
        self.copies: set[Shadow] = set()
        path = settings.fallback_spent_path
        self._file = (
            BudgetFile(part_path(Path(path), settings.worker), get_logger("gateway.fallbacks"), kind=Daily)
            if path
            else None
        )
        self._spending = Daily() if self._file is None else self._file.spending
        self.tick(0.0)
        self._watch(meters)

    def __repr__(self) -> str:
        return f"<Fallbacks {self.all}, {len(self.copies)} copies>"

    def start(self) -> None:
        """Save what is spent from now on."""
        if self._file is not None:
            self._file.start()

    def end_copies(self) -> None:
        """End the copies under way: nobody waits for their answers."""
        for each in list(self.copies):
            each.client_left()

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
            each.check(now_s)

    # For models and their requests

    def attach(self, models: Iterable[ServedModel], settings: Settings) -> None:
        """Give every model its ways out, after each snapshot; one that has them keeps them."""
        for model in models:
            fallbacks = [each for each in self.all if each.takes(model.entry.name)]
            if fallbacks and model.overflow is None:
                ways = (self._way(each, model, settings) for each in fallbacks)
                model.overflow = Overflow(tuple(ways))

    def _way(self, fallback: Provider, model: ServedModel, settings: Settings) -> Way:
        entry, engine = model.entry, fallback.target.engine
        copies = self._copies_meters.for_model(entry.name)
        return Way(
            fallback,
            model=AwayModel(entry, engine, meters=model.meters, settings=settings),
            shadow_model=AwayModel(entry, engine, meters=copies, settings=settings),
        )

    def send_copies(self, exchange: OutwardExchange) -> None:
        """Send a request to those fallbacks as well that want a copy of it."""
        overflow, gateway = exchange.home.overflow, exchange.gateway
        for way in () if overflow is None else overflow.ways:
            if not way.wants("shadow"):
                continue
            away = way.enter(exchange, "shadow", gateway.now_s())
            if away is not None:
                copy = Shadow(gateway, exchange.request, way=way, away=away)
                self.copies.add(copy)
                copy.start()

    # For people

    def health(self, *, spent: bool) -> dict[str, Any]:
        """Return what `/health` says of each: never an address or a key; and what it has `spent`, if that may be told."""
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
        metrics, name = self._meters.metrics, away.fallback.name
        metrics.counter("freehold_gateway_fallback_total").add(away.model, name, away.reason, outcome.value)
        if cost_picousd is None:
            metrics.counter("freehold_gateway_fallback_unknown_cost_total").add(name)

    def _watch(self, meters: GatewayMetrics) -> None:
        gauges: dict[str, Reading] = {
            "freehold_gateway_fallback_spent_usd": lambda: self._each(lambda f: f.spent_picousd),
            "freehold_gateway_fallback_budget_usd": lambda: self._each(
                lambda f: f.settings.budget_picousd_per_day
            ),
            "freehold_gateway_fallback_in_flight": lambda: {(f.name,): f.target.in_flight for f in self.all},
        }
        counters: dict[str, Reading] = {
            "freehold_gateway_fallback_cost_usd_total": lambda: self._each(lambda f: f.spent_total_picousd),
            "freehold_gateway_fallback_skipped_total": lambda: {
                (f.name, why): count for f in self.all for why, count in f.skipped.items()
            },
        }
        for name, reading in gauges.items():
            meters.metrics.gauge(name).read_from(reading)
        for name, reading in counters.items():
            meters.metrics.counter(name).read_from(reading)

    def _each(self, amount_picousd: Callable[[Provider], int]) -> dict[Values, float]:
        return {(each.name,): amount_picousd(each) / PICOUSD_PER_USD for each in self.all}
