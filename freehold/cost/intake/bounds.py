"""Between which values each number of `plan` and `review` makes sense: a slip of a unit must not become an answer.

The bounds are wide: they stop a watt that was meant as a kilowatt and a per cent that was meant as a share, not an
unusual team. Whether a value is likely is not asked here; the names are those of cost.inputs.
"""

from collections.abc import Callable, Mapping

from freehold.core.problems import Problem
from freehold.core.spread import Spread
from freehold.core.units import format_count, format_duration
from freehold.cost.intake.numbers import read_number, read_range, read_seconds

Bounds = tuple[float, float]
"""Least and most, both allowed."""

TOKENS_PER_MONTH_MAX = 1e15
"""Source: our own bound: some ten times what the largest public API served in a month of 2026; no fleet of it can be counted."""
REQUEST_TOKENS_MAX = 1e8
"""Of one request. Source: our own bound: ten times the longest context of any model that is sold."""
PEAK: Bounds = (1.0, 1_000.0)
"""Busiest hour over the mean: not below it, and a month has 730 hours."""
SPARES: Bounds = (0.0, 1_000.0)
"""Source: our own bound: beyond, no peak's need can be meant."""
TTFT_S_MAX = 3_600.0
"""Source: our own bound: who waits an hour for a first word asks for a batch."""
ITL_S_MAX = 60.0
"""Source: our own bound: a token a minute is nothing that streams."""
GPUS_MAX = 1_000_000.0
"""Source: our own bound: more than the largest clusters of 2026 have."""
CONCURRENCY_MAX = 1_000_000.0
"""Sequences at once in a replica. Source: our own bound: a thousand times what an engine schedules."""
RENTAL_USD_PER_GPU_HOUR: Bounds = (0.01, 200.0)
"""Source: the rental catalog spans 0.2 to 15; twenty times less or more is another unit (a node, a month, a cent)."""
NODE_USD: Bounds = (1_000.0, 20_000_000.0)
"""Source: from a used server with old cards to a rack of 72 GPUs (3 to 4 million) with room above."""
GPU_USD: Bounds = (50.0, 1_000_000.0)
"""Source: from an old card to twenty times the dearest of the GPU catalog."""
_ASSUMED: Mapping[str, Bounds] = {
    "power_usd_per_kwh": (0.005, 2.0),
    "pue_ratio": (1.0, 3.0),
    "host_kw": (0.0, 50.0),
    "colo_usd_per_kw_month": (1.0, 5_000.0),
    "capital_rate_per_year": (0.0, 1.0),
    "life_months": (6.0, 120.0),
    "staff_fte": (0.0, 1_000.0),
    "rent_staff_fte": (0.0, 1_000.0),
    "staff_usd_per_year": (1_000.0, 5_000_000.0),
    "rent_staff_usd_per_year": (1_000.0, 5_000_000.0),
    "gpu_failures_per_gpu_year": (0.0, 10.0),
    "repair_days": (0.0, 365.0),
}
"""Source: as catalog.physics bounds facts, and wider, since what a team says is its own: electricity from a cent for ten
kWh to diesel, PUE from 1 (no facility uses less than what stands in it), life from half a year to ten."""
_USD: Bounds = (0.0, 1_000_000.0)
"""Of prices per GPU, GB, TB or node. Source: our own bound."""


def assumption_bounds(name: str) -> Bounds:
    """Return between what an assumption must lie; what is a fraction by its name is between 0 and 1."""
    if name in _ASSUMED:
        return _ASSUMED[name]
    return (0.0, 1.0) if "_fraction" in name else _USD


def range_within(bounds: Bounds) -> Callable[[str, str], Spread | Problem]:
    """Return a reader of one number or a range within these bounds."""

    def read(flag: str, text: str) -> Spread | Problem:
        found = read_range(flag, text)
        if isinstance(found, Problem) or bounds[0] <= found.low <= found.high <= bounds[1]:
            return found
        return _outside(flag, text, bounds)

    return read


def number_within(bounds: Bounds) -> Callable[[str, str], float | Problem]:
    """Return a reader of one number within these bounds."""

    def read(flag: str, text: str) -> float | Problem:
        found = read_number(flag, text)
        if isinstance(found, Problem) or bounds[0] <= found <= bounds[1]:
            return found
        return _outside(flag, text, bounds)

    return read


def whole_number(flag: str, text: str) -> float | Problem:
    """Return a whole number of at least 0."""
    found = read_number(flag, text)
    if isinstance(found, Problem) or found == int(found):
        return found
    return Problem(where=flag, message=f"{text!r} must be a whole number")


def at_most(
    read: Callable[[str, str], float | Problem], most: float
) -> Callable[[str, str], float | Problem]:
    """Return the reader with a bound on what it reads, a count or seconds."""
    said = format_duration(most) if read is read_seconds else format_count(int(most))

    def bounded(flag: str, text: str) -> float | Problem:
        found = read(flag, text)
        if isinstance(found, Problem) or found <= most:
            return found
        return Problem(where=flag, message=f"{text!r} is too much to work out", hint=f"at most {said}")

    return bounded


def _outside(flag: str, text: str, bounds: Bounds) -> Problem:
    return Problem(
        where=flag,
        message=f"{text!r} is out of bounds",
        hint=f"from {_words(bounds[0])} to {_words(bounds[1])}; is it another unit?",
    )


def _words(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"
