"""Several runs of one thing: median and ends, and whether two things differ by more than their runs do. Pure.

No normal distribution is assumed of three runs: two things differ when no run of one reaches any run of the other. One
run has no spread, so of two single runs nothing is claimed.
"""

import statistics
from collections.abc import Iterable
from enum import StrEnum

import msgspec


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """One figure in each run in which it is known."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the middle run, or the mean of the middle two."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """Return the least run."""
        return min(self.values)

    @property
    def high(self) -> float:
        """Return the greatest run."""
        return max(self.values)


class Differs(StrEnum):
    """How one thing's runs stand to another's."""

    MORE = "more"
    LESS = "less"
    SAME = "no difference"  # the spread is larger
    UNKNOWN = "unknown"  # a single run has no spread


RUNS_LEAST = 2
"""Runs of each side from which a spread is known."""


def runs(values: Iterable[float | None]) -> Runs | None:
    """Return the runs in which a figure is known; None: in none."""
    known = tuple(value for value in values if value is not None)
    return Runs(values=known) if known else None


def differs(one: Runs, other: Runs) -> Differs:
    """Return how `one` stands to `other`."""
    if min(len(one.values), len(other.values)) < RUNS_LEAST:
        return Differs.UNKNOWN
    if one.low > other.high:
        return Differs.MORE
    return Differs.LESS if one.high < other.low else Differs.SAME
