"""API prices of 47 providers from the database that the genai-prices package carries: offline, dated by its version.

Its traps are met here. A price is asked for ONE request, since long prompts cost more per token and a million tokens
in one call would be priced as one long prompt. The time is always given, since some prices depend on the day and the
hour. The package keeps no date per price: the day on which its version was published stands for all. It is imported
when first asked (0.6 s), never with this module. What it does not know is None; nothing is guessed or fetched.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from freehold.catalog.entries import build, read_rows
from freehold.catalog.facts import ApiPrice, PriceDatabase, Verified
from freehold.catalog.rows import shipped

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation

PACKAGE = "genai-prices"
"""The distribution that is asked."""
SAMPLES_PER_DAY = 48
"""Times of day that a price is averaged over: half-hours, as some windows of 2025 began at 16:30 UTC (DeepSeek)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSize:
    """The size of one request, tokens; cached ones are among the input."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0

    def __post_init__(self) -> None:
        assert 0 <= self.cached_tokens <= self.input_tokens, self
        assert self.output_tokens >= 0, self


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedRequest:
    """What one request costs, USD, and what says so."""

    provider: str
    model: str
    """As the database calls it."""
    input_usd: Decimal
    """Cached tokens included."""
    output_usd: Decimal
    source: str
    as_of: date

    @property
    def usd(self) -> Decimal:
        """Return what it costs altogether."""
        return self.input_usd + self.output_usd


def price_usd(provider: str, model: str, *, request: RequestSize, at: datetime) -> PricedRequest | None:
    """Return what one request at that moment (with its time zone) costs; None for what the database does not know.

    An empty provider is the one whose models are called so: `gpt-…` is OpenAI's, not Azure's.
    """
    assert at.tzinfo is not None, "a price needs a moment, not a wall clock"
    found = _calculate(provider, model, request, at)
    if found is None:
        return None
    source, as_of = stamp()
    return PricedRequest(
        provider=found.provider.id,
        model=found.model.id,
        input_usd=found.input_price,
        output_usd=found.output_price,
        source=source,
        as_of=as_of,
    )


def api_price(provider: str, model: str, *, request: RequestSize, today: date) -> ApiPrice | None:
    """Return USD per million tokens as requests of that size pay them, averaged over the day; None if unknown.

    The database also takes longer names for a model's (dates, some suffixes): then the note says which was taken.
    All prices are those of `request`'s tier; a distribution of sizes around it is for the caller to split. Batch and
    priority tiers are not asked. `as_of` is never after `today`.
    """
    uncached = RequestSize(
        input_tokens=max(request.input_tokens, 1), output_tokens=max(request.output_tokens, 1)
    )
    cached = replace(uncached, cached_tokens=uncached.input_tokens)
    plain = list(_over_the_day(provider, model, uncached, today))
    if not plain:
        return None
    held = list(_over_the_day(provider, model, cached, today))
    source, as_of = stamp()
    prices = {each.input_price for each in plain}
    return ApiPrice(
        provider=plain[0].provider.id,
        model=plain[0].model.id,
        input_usd_per_m=_per_million([each.input_price for each in plain], uncached.input_tokens),
        output_usd_per_m=_per_million([each.output_price for each in plain], uncached.output_tokens),
        cached_input_usd_per_m=_per_million([each.input_price for each in held], uncached.input_tokens)
        if plain[0].model_price.cache_read_mtok is not None
        else None,
        open_weights=None,
        by_hour=len(prices) > 1,
        source=source,
        as_of=min(as_of, today),
        verified=Verified.RAN,
        note=_note(model, plain[0].model.id, uncached, by_hour=len(prices) > 1),
    )


def _note(asked: str, found: str, request: RequestSize, *, by_hour: bool) -> str:
    parts = [f"at {request.input_tokens} input tokens a request"]
    parts += ["the mean over the hours of a day"] if by_hour else []
    parts += [f"{asked!r} was taken for {found!r}"] if asked.lower() != found.lower() else []
    return ", ".join(parts)


def _over_the_day(
    provider: str, model: str, request: RequestSize, today: date
) -> Iterator["PriceCalculation"]:
    """Yield the request's price through the day; nothing where it is unknown."""
    step = timedelta(days=1) / SAMPLES_PER_DAY
    midnight = datetime.combine(today, time(0, tzinfo=UTC))
    for index in range(SAMPLES_PER_DAY):
        found = _calculate(provider, model, request, midnight + step * index + step / 2)
        if found is None:
            return
        yield found


def _per_million(prices: list[Decimal], tokens: int) -> float:
    return float(sum(prices, Decimal(0)) / len(prices) / tokens * 1_000_000)


def _calculate(provider: str, model: str, request: RequestSize, at: datetime) -> "PriceCalculation | None":
    from genai_prices import Usage, calc_price  # noqa: PLC0415 - takes 0.6 s, and most commands ask for no price

    usage = Usage(
        input_tokens=request.input_tokens,
        cache_read_tokens=request.cached_tokens,
        output_tokens=request.output_tokens,
    )
    try:
        return calc_price(usage, model, provider_id=provider or None, genai_request_timestamp=at)
    except LookupError:
        return None


def known_names() -> tuple[str, ...]:
    """Return `provider/model` of everything that the database holds."""
    from genai_prices.data import providers  # noqa: PLC0415 - as above

    return tuple(f"{provider.id}/{model.id}" for provider in providers for model in provider.models)


@cache
def stamp() -> tuple[str, date]:
    """Return what the installed database is called as a source, and the day that its prices are known to be of.

    Another version than the one whose day is in our data counts as of that day: too old rather than too new.
    """
    rows, _ = shipped()
    entries, _ = read_rows([row for row in rows if row.section == "price_databases"], user_day=None)
    known = next(
        fact for entry in entries if isinstance(fact := build(entry), PriceDatabase) and fact.id == PACKAGE
    )
    installed = version(PACKAGE)
    if installed == known.version:
        return f"{PACKAGE} {installed}", known.as_of
    return f"{PACKAGE} {installed} (its day is not known: counted from that of {known.version})", known.as_of
