"""Numbers as people read them: rounded to what a forecast can know, with a range where there is one.

The middle of an amount keeps four digits and its bounds three, so that `1,964 (1,720-2,310)` does not pretend. Nothing
here changes a value: JSON has its own rounding, and no unit is written that the caller did not ask for.
"""

import math
from collections.abc import Callable

from freehold.core.spread import Spread
from freehold.cost.model.result import Percentiles

UNKNOWN = "unknown"
NEVER = "never"
DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
_MID_DIGITS = 4
"""Digits of a middle value. Source: our own choice; the ranges are some 10 % wide, so a fifth digit is noise."""
_BOUND_DIGITS = 3
"""Digits of a bound: a percentile of a percentile's inputs; our own choice as well."""
_SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_BYTE_SCALES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def significant(value: float, digits: int) -> float:
    """Return a finite value rounded to `digits` significant digits."""
    return float(f"{value:.{digits}g}") + 0.0


def amount(value: float, digits: int = _MID_DIGITS) -> str:
    """Return a number for a table: `1,964`, `15.25`, `2.18`, `0.209`; never in powers of ten, `unknown` if not finite.

    From 100 on it is whole, below it has two decimals or more.
    """
    if not math.isfinite(value):
        return UNKNOWN
    size = abs(value)
    if size >= 100:
        return f"{significant(round(value), digits):,.0f}"
    decimals = max(0, digits - 2) if size >= 10 else 2
    if 0 < size < 1:
        decimals = max(2, min(9, 1 - math.floor(math.log10(size)) + (digits > _BOUND_DIGITS)))
        return _shortened(f"{value:.{decimals}f}")
    return f"{value + 0.0:.{decimals}f}"


def _shortened(text: str) -> str:
    """Return decimals without trailing zeros beyond the second."""
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals[:2]}{decimals[2:].rstrip('0')}"


def bound(value: float) -> str:
    """Return a bound of an amount, with one digit less than its middle."""
    return amount(value, _BOUND_DIGITS)


def tokens(value: float) -> str:
    """Return a count of tokens: `900M`, `9.8B`, `1.23T`, `512`; `never` if infinite, `unknown` if no number."""
    if not math.isfinite(value):
        return UNKNOWN if math.isnan(value) else NEVER
    return _scaled(value, _SCALES, "")


def bytes_text(value: float) -> str:
    """Return a size in decimal units to three digits: `141 GB`, `131 kB`."""
    return _scaled(value, _BYTE_SCALES, " ") if value >= 1000 else f"{value:.0f} B"


def _scaled(value: float, scales: tuple[tuple[float, str], ...], gap: str) -> str:
    rounded = significant(value, 3)
    for size, unit in scales:
        if abs(rounded) >= size:
            return f"{rounded / size:.4g}{gap}{unit}"
    return f"{rounded:.4g}"


def percent(part: float) -> str:
    """Return a share in percent: `31%`, `0.3%`, `0.02%`, `120%`; `unknown` if not finite."""
    if not math.isfinite(part):
        return UNKNOWN
    value = part * 100
    if abs(value) >= 1 or value == 0:
        return f"{value + 0.0:.0f}%"
    return f"{value:.1g}%" if abs(value) >= 0.001 else "under 0.001%"


def chance(part: float) -> str:
    """Return a share of draws: `37%`, and never a certainty: `under 1%`, `over 99%`."""
    if not math.isfinite(part):
        return UNKNOWN
    if part < 0.01:
        return "under 1%"
    return "over 99%" if part > 0.99 else f"{part * 100:.0f}%"


def usd_range(found: Percentiles) -> str:
    """Return an amount with its bounds: `1,964 (1,720-2,310)`; only the middle where all three read the same."""
    return _range(found, amount, bound)


def tokens_range(found: Percentiles) -> str:
    """Return tokens with their bounds: `2.2B (1.9B-2.6B)`."""
    return _range(found, tokens, tokens)


def percent_range(found: Percentiles) -> str:
    """Return a share with its bounds: `34% (29%-41%)`; above 1 is above 100%."""
    return _range(found, percent, percent)


def month_range(found: Percentiles) -> str:
    """Return a month number with its bounds: `14 (11-19)`; a month that does not come is `never`."""
    return _range(found, _month, _month)


def _month(value: float) -> str:
    if not math.isfinite(value):
        return UNKNOWN if math.isnan(value) else NEVER
    return f"{math.ceil(value):d}"


def spread(found: Spread) -> str:
    """Return a spread (5th to 95th percentile) as an amount with bounds."""
    return usd_range(Percentiles(p10=found.low, p50=found.mid, p90=found.high))


def _range(found: Percentiles, mid: Callable[[float], str], end: Callable[[float], str]) -> str:
    low, high = end(found.p10), end(found.p90)
    if low == high == end(found.p50):
        return mid(found.p50)
    return f"{mid(found.p50)} ({low}{DASH}{high})"


def seconds(value: float) -> str:
    """Return a duration: `500 ms`, `2 s`, `1.5 s`, `22 s`, `20 min`; `unknown` if not finite."""
    if not math.isfinite(value):
        return UNKNOWN
    if value < 1:
        return f"{significant(value * 1000, 3):.4g} ms"
    if value < 120:
        return f"{significant(value, 3):.4g} s"
    return (
        f"{significant(value / 60, 3):.4g} min" if value < 7200 else f"{significant(value / 3600, 3):.4g} h"
    )


def plain_number(value: float) -> str:
    """Return an input's value to three digits without padding: `0.25`, `1,500`, `36`, `300,000`."""
    if not math.isfinite(value):
        return UNKNOWN
    rounded = significant(value, 3)
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:.4g}"
