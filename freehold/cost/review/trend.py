"""How a measured history moves, week by week or day by day: tokens, utilisation, and what a million tokens cost.

Only whole weeks or days count: a cut one would look like a fall. It forecasts nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from freehold.sizing.fleet.traffic import HOURS_PER_MONTH, Hour

WEEK_H = 168
"""Seven days."""
DAY_H = 24
"""One day."""
WEEKS_FROM = 3
"""Whole weeks from which weeks are shown; below that, days. Our own choice: a trend takes three points."""
FLAT = 0.1
"""Of the first third's mean: changes below it are no trend. Our own choice: weeks of one product differ by that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """One week or day."""

    start_hour: int
    """Hours since the Unix epoch."""
    hours: int
    tokens: int
    utilisation: float
    """Served over capacity at SLO, at the capacity's middle."""
    usd_per_million_tokens: float | None
    """At the middle cost; None: no token was served."""
    api_cheaper: bool | None
    """Whether the API would have been cheaper in it; None: no API to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """The periods in order, and where the tokens go."""

    direction: Literal["rising", "falling", "flat", "unknown"]
    change: float | None
    """Tokens of the last third over those of the first, less 1; None: too few periods."""
    periods: tuple[Period, ...] = ()


def periods_of(
    hours: Sequence[Hour],
    *,
    usd_per_month: float,
    capacity_tokens_per_month: float,
    api_usd_per_m: float | None,
) -> list[Period]:
    """Return the whole weeks of a history, or its whole days where it has less than three weeks; hours without a row count 0."""
    if not hours:
        return []
    first, last = min(each.hour for each in hours), max(each.hour for each in hours)
    length = WEEK_H if last + 1 - first >= WEEKS_FROM * WEEK_H else DAY_H
    sums = [0] * ((last + 1 - first) // length)
    for each in hours:
        index = (each.hour - first) // length
        if index < len(sums):
            sums[index] += each.input_tokens + each.output_tokens
    cost, carried = (total * length / HOURS_PER_MONTH for total in (usd_per_month, capacity_tokens_per_month))
    return [
        Period(
            start_hour=first + index * length,
            hours=length,
            tokens=tokens,
            utilisation=tokens / carried if carried else 0.0,
            usd_per_million_tokens=cost / tokens * 1e6 if tokens else None,
            api_cheaper=None if api_usd_per_m is None else tokens * api_usd_per_m / 1e6 < cost,
        )
        for index, tokens in enumerate(sums)
    ]


def trend_of(periods: Sequence[Period]) -> Trend:
    """Return where the tokens go: the mean of the last third of the periods over that of the first."""
    third = len(periods) // 3
    if third == 0:
        return Trend(direction="unknown", change=None, periods=tuple(periods))
    early = sum(each.tokens for each in periods[:third])
    late = sum(each.tokens for each in periods[-third:])
    if early == 0:
        return Trend(direction="rising" if late else "flat", change=None, periods=tuple(periods))
    change = late / early - 1
    direction: Literal["rising", "falling", "flat"] = "flat"
    if abs(change) > FLAT:
        direction = "rising" if change > 0 else "falling"
    return Trend(direction=direction, change=change, periods=tuple(periods))
