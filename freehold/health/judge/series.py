"""How readings move over the views of a window: pure steps that several checks share.

A reading that is not OK is left out: it is not a number, and never 0. Nothing here judges.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from freehold.health.model.view import Reading, State

_NOTHING_HIDDEN = (State.OK, State.UNSUPPORTED, State.ABSENT)


def number(reading: Reading | None) -> float | None:
    """Return the finite number in a reading; None: there is none."""
    value = reading.value if reading is not None else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def named(readings: Mapping[str, Reading], name: str) -> float | None:
    """Return the number of that name; None: there is none."""
    return number(readings.get(name))


def failed(readings: Mapping[str, Reading], names: Iterable[str]) -> list[str]:
    """Return those names whose value may be there and bad, and could not be read; what does not exist hides nothing."""
    return [name for name in names if name in readings and readings[name].state not in _NOTHING_HIDDEN]


def growth(points: Iterable[tuple[float, float | None]]) -> tuple[float, float] | None:
    """Return by how much a count grew and in how many seconds, of `(seconds, count)` oldest first; None: fewer than two.

    A count that goes back was started anew (reset, driver loaded again): what it shows since then counts as growth.
    """
    seen = [(at_s, count) for at_s, count in points if count is not None]
    if len(seen) < 2 or seen[-1][0] <= seen[0][0]:
        return None
    counts = [count for _, count in seen]
    steps = (later - earlier if later >= earlier else later for earlier, later in pairwise(counts))
    return sum(steps), seen[-1][0] - seen[0][0]


def mean(values: Sequence[float]) -> float | None:
    """Return the mean; None: of nothing."""
    return sum(values) / len(values) if values else None
