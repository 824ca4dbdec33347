"""Which calibration vector holds for an engine and a model, and how wide the figures made with it must be.

It fits nothing (benchmarks/sizing.py does) and reads no file (the catalog does).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from freehold.catalog.facts import Calibration, Gpu
from freehold.core.spread import Spread
from freehold.sizing.answer import Engine
from freehold.sizing.shape import ModelShape

LEAST_PART: Mapping[str, float] = {"dense": 0.15, "moe": 0.30}
"""The narrowest range that is printed, as a part. Source: research: print 15 % dense, 30 % for mixtures of experts."""
ERRORS_WIDE = 2.0
"""Mean absolute errors that a 5 to 95 % range spans to each side: 1.645 sigma, and sigma is 1.25 of them for a normal error."""
ELSEWHERE_FACTOR = 2.0
"""How much wider it gets on a card of a kind that no vector was fitted on (AMD, consumer). Why: nothing was measured there."""
TTFT_FACTOR = 2.0
"""Time to first token is right within a factor of two. Source: research: errors of 23 to 52 % per group, one of 92 %."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A vector, how far its figures may be off (a part), and what to say about it."""

    calibration: Calibration
    part: float
    notes: tuple[str, ...]

    def around(self, value: float) -> Spread:
        """Return a figure made with this vector as a range."""
        return Spread.within(value, self.part)


def choose_vector(
    calibrations: Mapping[str, Calibration], engine: Engine, *, shape: ModelShape, gpu: Gpu
) -> Chosen:
    """Return the vector of this engine and family, else the nearest one with its range doubled and a note.

    Our mistake if `calibrations` is empty: the catalog ships some.
    """
    assert calibrations, "the catalog ships calibrations"
    found, notes = _nearest(tuple(calibrations.values()), engine, shape.family)
    part = max(LEAST_PART[shape.family], ERRORS_WIDE * found.error_mean_abs)
    if notes:
        part *= ELSEWHERE_FACTOR
    if gpu.vendor != "nvidia" or gpu.consumer:
        kind = "consumer cards" if gpu.consumer else f"{gpu.vendor} cards"
        part *= ELSEWHERE_FACTOR
        notes = (*notes, f"no measured rows on {kind}: the range is {ELSEWHERE_FACTOR:g} times as wide")
    return Chosen(found, part, notes)


def _nearest(
    calibrations: tuple[Calibration, ...], engine: Engine, family: str
) -> tuple[Calibration, tuple[str, ...]]:
    def far(row: Calibration) -> tuple[bool, bool, bool, str]:
        return row.engine != engine, row.family != family, row.engine != "vllm", row.id

    best = min(calibrations, key=far)
    if (best.engine, best.family) == (engine, family):
        return best, ()
    return best, (f"no vector for {engine} and {family} models: {best.id} stands in, with a wider range",)
