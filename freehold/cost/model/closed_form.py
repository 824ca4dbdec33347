"""The few formulas that can be done on paper: break-evens, what a rate of tokens costs, what energy costs.

Draws are checked against them, and rules of thumb are worked out with them. They know no options and no ranges.
"""

from freehold.sizing.fleet.traffic import HOURS_PER_MONTH

SECONDS_PER_HOUR = 3600
"""The clock's."""
SECONDS_PER_MONTH = SECONDS_PER_HOUR * HOURS_PER_MONTH
"""Of a month of 730 h."""


def break_even_tokens(fixed_usd: float, *, api_usd_per_m: float, own_usd_per_m: float = 0.0) -> float:
    """Return the tokens a month from which a fixed cost is worth it against a price per million; inf: never."""
    saved = api_usd_per_m - own_usd_per_m
    return fixed_usd / saved * 1e6 if saved > 0 else float("inf")


def break_even_api_usd_per_m(fixed_usd: float, tokens: float) -> float:
    """Return the price per million above which a fixed monthly cost wins at so many tokens a month."""
    return fixed_usd / tokens * 1e6


def break_even_utilisation(own_usd_per_gpu_hour: float, rent_usd_per_gpu_hour: float) -> float:
    """Return U*, the part of the hours in use from which owning beats a rental that is turned off when idle.

    Above 1: never at this rental price; inf where renting costs nothing. It says nothing about a reservation, which is
    paid for idle or not.
    """
    return own_usd_per_gpu_hour / rent_usd_per_gpu_hour if rent_usd_per_gpu_hour > 0 else float("inf")


def rental_for_utilisation(own_usd_per_gpu_hour: float, utilisation: float) -> float:
    """Return the rental price, USD per GPU-hour, at which that utilisation is the break-even."""
    return own_usd_per_gpu_hour / utilisation


def energy_usd_per_month(kw: float, usd_per_kwh: float, *, pue: float = 1.0) -> float:
    """Return a month's energy at a mean draw."""
    return kw * pue * HOURS_PER_MONTH * usd_per_kwh


def node_loss_probability(afr: float, gpus: int) -> float:
    """Return the chance of at least one permanent GPU failure of a node in a year, at a rate per GPU and year."""
    return 1 - (1 - afr) ** gpus


def load_s(weights_bytes: float, gb_s: float) -> float:
    """Return the seconds in which so much is read at a rate."""
    return weights_bytes / (gb_s * 1e9)
