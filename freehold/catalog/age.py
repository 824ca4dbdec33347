"""How much a fact's age and its source widen it: prices wander, physics does not.

Up to 90 days a price stands as it was read. Past that its range grows with the root of the time, as a random walk's
does: nine times in ten it is now within a factor of `exp(volatility x sqrt(years past 90 days))` of what it was. Nothing
here says which way a price went.
"""

import math
from datetime import date

from freehold.catalog import facts
from freehold.catalog.facts import Default, Fact, Verified
from freehold.core.spread import Spread

FRESH_DAYS = 90
"""How long a price stands. Our own choice: a quarter, the rhythm of price lists; RunPod's H100 moved 21 % in 12 weeks."""
DAYS_PER_YEAR = 365.25  # the Julian year, of astronomy
# How far prices wander in a year, as the natural logarithm of the factor that holds nine times in ten.
RENTAL_PER_YEAR = 0.50
"""Source: RunPod Secure H100 SXM 3.29 to 3.99 in 12 weeks of 2026 (exp(0.50 x sqrt(0.23)) = 1.27 covers 1.21); one-year
reserved H100 1.70 to 2.35 from 2025-10 to 2026-03 (exp(0.50 x sqrt(0.42)) = 1.38 is that)."""
HARDWARE_PER_YEAR = 0.25
"""Source: servers of 8 H100 270,000 USD (2023-05), 313,500 (2024-08), about 350,000 (2026): 8 to 13 % per root year for one
model; twice that, since a single card moves more (RTX 5090: 1,999 to 3,500-5,000 in a year)."""
MEMORY_PER_YEAR = 1.4
"""Host memory. Source: DDR5 went from about 4 USD per GB in 2024 to 27-37 in 2026-06, a factor of 8 in two years."""
API_PER_YEAR = 0.20
"""One model's list price. Source: most stay until the model is replaced; Llama-3.3-70B at Together 0.88 or 1.04 by database,
DeepSeek changed its list twice in 2026-08 and 09. Judged, not fitted."""
UTILITY_PER_YEAR = 0.12
"""Electricity and space. Source: CBRE's wholesale colocation 163 (2023) to 184 (2025-06), 10 % per root year."""

UNCERTAIN = {
    Verified.RAN: 0.0,
    Verified.READ: 0.0,
    Verified.USER: 0.0,
    Verified.SECONDARY: 0.15,
    Verified.MEMORY: 0.30,
}
"""The least width of a price by how it was verified, as such a logarithm. Source: of two databases of API prices 139 of 151
rows agree; second-hand ones that did not were 18 % (Together) to 60 % (a Lambda H100 at 2.49, its page 3.99) off."""
DISAGREEING = 0.17
"""The least width of an API price on which two databases disagree. Source: ln(1.04 / 0.88), Llama-3.3-70B at Together."""

_MEMORY_NAMES = ("host_ram_usd_per_gb", "ddr5-rdimm")
_PER_YEAR: dict[type[Fact], float] = {
    facts.RentalPrice: RENTAL_PER_YEAR,
    facts.ApiPrice: API_PER_YEAR,
    facts.PowerPrice: UTILITY_PER_YEAR,
    facts.Colocation: UTILITY_PER_YEAR,
    facts.PublishedTco: HARDWARE_PER_YEAR,
    Fact: HARDWARE_PER_YEAR,
}
"""By kind; what is not here is not a price and does not age. The plain `Fact` of a GPU's price counts as hardware."""
_UTILITY_NAMES = ("power_usd_per_kwh", "colo_usd_per_kw_month")


def volatility_per_year(fact: Fact) -> float:
    """Return how far a fact of this kind wanders in a year; 0 for physics, rates and what is not money."""
    if isinstance(fact, Default):
        return _of_default(fact)
    if isinstance(fact, facts.Node):
        return MEMORY_PER_YEAR if fact.id in _MEMORY_NAMES else HARDWARE_PER_YEAR
    return _PER_YEAR.get(type(fact), 0.0)


def _of_default(default: Default) -> float:
    if default.name in _MEMORY_NAMES:
        return MEMORY_PER_YEAR
    if default.name in _UTILITY_NAMES:
        return UTILITY_PER_YEAR
    return HARDWARE_PER_YEAR if "usd" in default.name else 0.0


def age_days(as_of: date, today: date) -> int:
    """Return whole days since `as_of`; 0 where it lies ahead."""
    return max((today - as_of).days, 0)


def age_factor(as_of: date, today: date, *, per_year: float = HARDWARE_PER_YEAR) -> float:
    """Return by what a price of that day may be divided and multiplied: 1.0 up to 90 days, then more with the root of time."""
    return math.exp(_wandered(age_days(as_of, today), per_year))


def _wandered(days: int, per_year: float) -> float:
    return per_year * math.sqrt(max(days - FRESH_DAYS, 0) / DAYS_PER_YEAR)


def priced(fact: Fact, value: float | Spread, today: date) -> Spread:
    """Return a price of `fact` as it may be today: at least as wide as its verification asks for, and wider with age.

    The middle stays. A range that is already wider than a second-hand source's stays as it is until it ages, and so
    does a `Default`, whose range says all that is not known. A price of 0 stays 0, and so does a bound of 0.
    """
    spread = value if isinstance(value, Spread) else Spread.exactly(value)
    least = _least(fact)
    wandered = _wandered(age_days(fact.as_of, today), volatility_per_year(fact))
    if spread.mid <= 0 or least == wandered == 0:
        return spread
    below = _width(spread.mid / spread.low, least, wandered) if spread.low > 0 else math.inf
    above = _width(spread.high / spread.mid, least, wandered)
    return Spread(
        min(spread.low, spread.mid * math.exp(-below)),
        spread.mid,
        max(spread.high, spread.mid * math.exp(above)),
    )


def _least(fact: Fact) -> float:
    if isinstance(fact, Default):
        return 0.0
    return max(UNCERTAIN[fact.verified], DISAGREEING if _disputed(fact) else 0.0)


def _disputed(fact: Fact) -> bool:
    return (
        isinstance(fact, facts.ApiPrice)
        and fact.two_sources_agree is False
        and fact.verified is not Verified.USER
    )


def _width(ratio: float, least: float, wandered: float) -> float:
    """Return the logarithm by which a bound is away from the middle: independent causes add as squares."""
    claimed = max(math.log(ratio), least)
    return math.hypot(claimed, wandered) if wandered else claimed


def doubtful(fact: Fact, today: date) -> str:
    """Return why a fact should be checked before it is relied on, or "": `as of 2026-05-18, 193 days old, quoted second-hand`."""
    days = age_days(fact.as_of, today)
    stale = days > FRESH_DAYS and volatility_per_year(fact) > 0
    doubt = "two databases disagree" if _disputed(fact) else _SECOND_HAND.get(fact.verified, "")
    if not stale and not doubt:
        return ""
    return ", ".join(filter(None, (f"as of {fact.as_of}", f"{days} days old" if stale else "", doubt)))


_SECOND_HAND = {Verified.SECONDARY: "quoted second-hand", Verified.MEMORY: "from memory, not looked up"}
