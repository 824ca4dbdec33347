"""Percentiles of draws: what of a vector goes into an answer, and which share of draws holds something.

Vectors of one length are compared draw by draw. It does not round, and it does not know what the numbers are.
"""

import numpy as np

from freehold.cost.draw import Vector
from freehold.cost.result import Range


def range_of(values: Vector) -> Range:
    """Return the 10th, 50th and 90th percentile; of a value that is known, three times the same."""
    if values.size == 1:
        return Range(p10=float(values[0]), p50=float(values[0]), p90=float(values[0]))
    ordered = np.sort(values)  # in single precision faster than three partitions
    low, middle, high = (float(ordered[round(part * (values.size - 1))]) for part in (0.1, 0.5, 0.9))
    return Range(p10=low, p50=middle, p90=high)


def scaled(values: Range, factor: float) -> Range:
    """Return the range of the values times a known factor of at least 0."""
    return Range(p10=values.p10 * factor, p50=values.p50 * factor, p90=values.p90 * factor)


def share(holds: Vector) -> float:
    """Return the share of draws in which it holds, 0 to 1."""
    return float(np.mean(holds))


def cheapest_shares(totals: list[Vector]) -> list[float]:
    """Return for each of the totals the share of draws in which it is the least; a tie goes to the first.

    The shares add up to 1; of no totals there are none.
    """
    if not totals:
        return []
    size = max(total.size for total in totals)
    least, winner = np.broadcast_to(totals[0], (size,)), np.zeros(size, dtype=np.int16)
    for index, total in enumerate(totals[1:], start=1):
        winner = np.where(total < least, np.int16(index), winner)
        least = np.minimum(total, least)
    counts = np.bincount(winner, minlength=len(totals))
    return [float(count) / size for count in counts]
