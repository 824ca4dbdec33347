"""Percentiles of draws: what of a vector goes into an answer, and which share of draws holds something.

Vectors of one length are compared draw by draw. It does not round, and it does not know what the numbers are.
"""

import numpy as np

from freehold.cost.model.draw import Vector
from freehold.cost.model.result import Percentiles

BINS = 2048
"""Bins for order. Source: measured; 50 draws of 100,000 in one are sorted in no time, and counting stays in the cache."""
FEW = 5000
"""Draws below which sorting is faster. Source: measured."""


def range_of(values: Vector) -> Percentiles:
    """Return the 10th, 50th and 90th percentile; of a value that is known, three times the same."""
    if values.size == 1:
        return Percentiles(p10=float(values[0]), p50=float(values[0]), p90=float(values[0]))
    low, middle, high = _at_ranks(values, [round(part * (values.size - 1)) for part in (0.1, 0.5, 0.9)])
    return Percentiles(p10=low, p50=middle, p90=high)


def _at_ranks(values: Vector, ranks: list[int]) -> list[float]:
    """Return what stands at these ranks of the ordered values: exact, and five times as fast as putting all in order.

    Values are counted into narrow bins; only the bins of the ranks are put in order.
    """
    least, most = values.min(), values.max()
    if values.size < FEW or not (np.isfinite(least) and np.isfinite(most)):
        return [float(each) for each in np.sort(values)[ranks]]
    if least == most:
        return [float(least)] * len(ranks)
    bins = ((values - least) * ((BINS - 1) / (most - least))).astype(np.intp)
    ends = np.cumsum(np.bincount(bins, minlength=BINS))
    return [_in_bin(values, bins, ends, rank) for rank in ranks]


def _in_bin(values: Vector, bins: Vector, ends: Vector, rank: int) -> float:
    index = int(np.searchsorted(ends, rank, side="right"))
    before = int(ends[index - 1]) if index else 0
    return float(np.sort(values[bins == index])[rank - before])


def scaled(values: Percentiles, factor: float) -> Percentiles:
    """Return the range of the values times a known factor of at least 0."""
    return Percentiles(p10=values.p10 * factor, p50=values.p50 * factor, p90=values.p90 * factor)


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
