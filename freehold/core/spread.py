"""A quantity that is not known exactly: low, middle and high, as everything that is bought or predicted is.

`low` and `high` hold the value nine times in ten (5th and 95th percentile), `mid` is as likely too small as too large.
`quantile` reads one off values that were measured. Nothing here draws numbers or adds spreads: sums of spreads are drawn in
freehold/cost, since lows rarely come together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Low (5 %), middle (50 %) and high (95 %) of one quantity, in the unit of the field that holds it."""

    low: float
    mid: float
    high: float

    def __post_init__(self) -> None:
        assert self.low <= self.mid <= self.high, self
        assert math.isfinite(self.low), self

    @classmethod
    def exactly(cls, value: float) -> "Spread":
        """Return a value that is known: no width."""
        return cls(value, value, value)

    @classmethod
    def between(cls, low: float, high: float) -> "Spread":
        """Return the spread of two bounds; the middle is geometric where both are positive, as prices and speeds vary."""
        return cls(low, math.sqrt(low * high) if low > 0 else (low + high) / 2, high)

    @classmethod
    def within(cls, mid: float, part: float) -> "Spread":
        """Return `mid` give or take a part of it: divided and multiplied by 1 + `part`."""
        return cls(mid / (1 + part), mid, mid * (1 + part))

    def or_between(self, low: float, high: float) -> "Spread":
        """Return it as wide as it is and as `low` to `high` around its middle together, as independent errors of a ratio add up.

        All are positive, and the middle lies between the two.
        """
        down = math.hypot(math.log(self.mid / self.low), math.log(self.mid / low))
        up = math.hypot(math.log(self.high / self.mid), math.log(high / self.mid))
        return Spread(self.mid / math.exp(down), self.mid, self.mid * math.exp(up))

    def times(self, factor: float) -> "Spread":
        """Return it scaled by a known factor of at least 0."""
        return Spread(self.low * factor, self.mid * factor, self.high * factor)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value that this share of ascending values is at most, linear between neighbours; not of nothing."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
