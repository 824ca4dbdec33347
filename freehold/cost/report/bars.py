"""Where bars of characters begin and end on one common scale. Nothing is drawn here, and no colour is chosen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar in a row of `before + length + after` characters."""

    before: int
    length: int
    after: int
    zero: int | None
    """Character of the scale's zero; None: it is not on the scale."""


def bars(ends: Sequence[tuple[float, float]], width: int) -> tuple[Bar, ...]:
    """Return a bar per pair of ends, in either order; every bar has at least one character.

    Limits: `width` of at least 1. A pair that is not finite has an empty bar.
    """
    known = [value for pair in ends if _finite(pair) for value in pair]
    if not known:
        return tuple(Bar(before=0, length=0, after=width, zero=None) for _ in ends)
    low, high = min(known), max(known)
    step = (high - low) / width or 1.0
    zero = min(width - 1, int((0 - low) / step)) if low <= 0 <= high and low < high else None
    return tuple(_bar(pair, low, step=step, width=width, zero=zero) for pair in ends)


def _finite(pair: tuple[float, float]) -> bool:
    return all(map(math.isfinite, pair))


def _bar(pair: tuple[float, float], low: float, *, step: float, width: int, zero: int | None) -> Bar:
    if not _finite(pair):
        return Bar(before=0, length=0, after=width, zero=zero)
    first = min(width - 1, int((min(pair) - low) / step))
    last = max(first + 1, min(width, math.ceil((max(pair) - low) / step)))
    return Bar(before=first, length=last - first, after=width - last, zero=zero)
