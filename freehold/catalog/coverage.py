"""Which prices are old, second-hand or missing, and where to look for newer ones. Nothing is fetched.

A price is old as `age` counts it, by our date of it. A GPU is covered where its rentals say what the market asks:
several on-demand prices and one for a commitment.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from freehold.catalog.age import FRESH_DAYS, age_days, doubtful, volatility_per_year
from freehold.catalog.facts import ApiPrice, Catalog, Fact, Node, RentalKind, RentalPrice, Verified
from freehold.catalog.sections import SECTIONS

ON_DEMAND_MIN = 3
"""Providers whose price without a commitment is known, marketplaces among them. Our own bar: two prices show no middle."""
LOOK = {
    "rentals": "gpurentalprices.com/data, github.com/ewyluda/gpu-price-index, github.com/skypilot-org/skypilot-catalog",
    "gpus": "a reseller's list or your own quote (--node-usd, or --prices with price_new_usd)",
    "apis": "the provider's price page, PyPI genai-prices",
    "speeds": "artificialanalysis.ai/leaderboards, openrouter.ai",
    "electricity": "eia.gov/electricity/monthly table 5.6.A, ec.europa.eu/eurostat nrg_pc_205",
}
"""Where newer prices stand, by section; for the rest the row's own source is the place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StalePrice:
    """A price that should be looked up anew."""

    section: str
    name: str
    why: str
    """`as of 2026-05-18, 193 days old, quoted second-hand`."""
    old: bool
    """Past `age.FRESH_DAYS`; else only from memory, second-hand or disputed."""
    look: str
    """Where to look: the source of the row, and lists of such prices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPrices:
    """How many prices of a GPU are known."""

    gpu: str
    on_demand: int
    marketplace: int
    reserved: int
    spot: int
    newest: str
    """Day of the newest rental price; empty: none is known."""
    purchase: str
    """Day and kind of the purchase price, or `no price known`."""

    @property
    def lacks(self) -> str:
        """Return what is missing, or ""."""
        open_prices = self.on_demand + self.marketplace
        parts = [f"{open_prices} of {ON_DEMAND_MIN} on-demand prices"] * (open_prices < ON_DEMAND_MIN)
        return ", ".join([*parts, *["no reserved price"] * (not self.reserved)])


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceCheck:
    """What `freehold prices check` found."""

    today: str
    stale: tuple[StalePrice, ...]
    gpus: tuple[GpuPrices, ...]

    @property
    def old(self) -> int:
        """Return how many prices are past `age.FRESH_DAYS`."""
        return sum(each.old for each in self.stale)


def check_prices(catalog: Catalog) -> PriceCheck:
    """Return the prices to look up anew, oldest first, and how well each GPU is covered."""
    stale = sorted(_stale(catalog), key=lambda pair: pair[0])
    return PriceCheck(
        today=catalog.today.isoformat(),
        stale=tuple(each for _, each in stale),
        gpus=tuple(_counted(catalog, gpu) for gpu in sorted(catalog.gpus)),
    )


def _stale(catalog: Catalog) -> Iterator[tuple[str, StalePrice]]:
    for section, name, fact in _prices(catalog):
        if doubtful(fact, catalog.today) and fact.verified is not Verified.USER:
            yield fact.as_of.isoformat(), _stale_price(section, name, fact, today=catalog.today)
        measured = fact.speed_as_of if isinstance(fact, ApiPrice) else None
        days = age_days(measured, catalog.today) if measured else 0
        if days > FRESH_DAYS:
            assert isinstance(fact, ApiPrice)
            text = f"as of {measured}, {days} days old"
            look = f"{fact.speed_source}; {LOOK['speeds']}"
            yield (
                str(measured),
                StalePrice(section="speeds", name=f"speed of {name}", why=text, old=True, look=look),
            )


def _stale_price(section: str, name: str, fact: Fact, *, today: date) -> StalePrice:
    look = "; ".join(filter(None, (fact.source, LOOK.get(section, ""))))
    old = age_days(fact.as_of, today) > FRESH_DAYS
    return StalePrice(section=section, name=name, why=doubtful(fact, today), old=old, look=look)


def _prices(catalog: Catalog) -> Iterator[tuple[str, str, Fact]]:
    """Yield every fact that is money: its section, what it is called and the fact that dates it."""
    for gpu in catalog.gpus.values():
        if gpu.price is not None:
            yield "gpus", f"{gpu.id} as bought", gpu.price
    for section, of in SECTIONS.items():
        rows = getattr(catalog, section)
        for fact in rows.values() if isinstance(rows, dict) else rows:
            if volatility_per_year(fact) > 0 and not _without_money(fact):
                words = (section * (section == "published_tco"), *(getattr(fact, key) for key in of.key))
                yield section, " ".join(str(word) for word in words if word), fact


def _without_money(fact: Fact) -> bool:
    return isinstance(fact, Node) and fact.price_usd is None and fact.usd_per_gb is None


def _counted(catalog: Catalog, gpu: str) -> GpuPrices:
    offers: list[RentalPrice] = [each for each in catalog.rentals if each.gpu == gpu]
    kinds = {kind: len({o.provider for o in offers if o.kind is kind}) for kind in RentalKind}
    price = catalog.gpus[gpu].price
    return GpuPrices(
        gpu=gpu,
        on_demand=kinds[RentalKind.ON_DEMAND],
        marketplace=kinds[RentalKind.MARKETPLACE],
        reserved=kinds[RentalKind.RESERVED],
        spot=kinds[RentalKind.SPOT],
        newest=max((o.as_of.isoformat() for o in offers), default=""),
        purchase=f"{price.as_of} ({price.verified})" if price else "no price known",
    )
