"""Which calibration vector holds for an engine and a model, and how wide the figures made with it must be.

It fits nothing (benchmarks/sizing.py does) and reads no file (the catalog does).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from freehold.catalog.facts import Calibration, GpuFacts
from freehold.core.spread import Spread
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.model.words import Engine
from freehold.sizing.replica.memory import Number

LEAST_PART: Mapping[str, float] = {"dense": 0.15, "moe": 0.30}
"""The narrowest range that is printed, as a part. Source: research: print 15 % dense, 30 % for mixtures of experts."""
ERRORS_WIDE = 2.4
"""Mean absolute errors that a 5 to 95 % range spans to each side. Source: benchmarks/sizing.py; a normal error would need 2.06
(1.645 sigma of 1.25 each), but errors of mixtures of experts have long tails: with 2, only 84 % of them were within."""
ELSEWHERE_FACTOR = 2.0
"""How much wider it gets on a card of a kind that no vector was fitted on (AMD, consumer). Why: nothing was measured there."""
FIRST_TOKEN: Mapping[str, tuple[float, float]] = {
    "vllm": (1.0, 2.0),
    "tensorrt-llm": (1.0, 3.0),
    "sglang": (1.5, 5.0),
    "llama-cpp": (1.0, 3.0),
}
"""By engine: how much later the first token is than the queue says, and within which factor that is right. Source: measured over
said on silicon_sample.csv, so wide that benchmarks/sizing.py finds at least 85 % of each family's held-out rows inside; none
of llama.cpp, which gets the middle one's. SGLang's medians per group are 0.8 to 5: its range is hardly a statement."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A vector, how far its figures may be off (a part), and what to say about it."""

    calibration: Calibration
    part: float
    notes: tuple[str, ...]
    late: float = 1.0
    """How much later a first token is than the queue says."""
    late_factor: float = 2.0
    """Within which factor that is right."""

    def around(self, value: float) -> Spread:
        """Return a figure made with this vector as a range."""
        return Spread.within(value, self.part)

    def first_token(self, mean: Number, p95: Number) -> tuple[Number, Number, Number]:
        """Return low, middle and high of a request's time to first token, in the arguments' unit, from `pace`'s mean and p95.

        The high is the later of both: how wrong the mean may be, and what five requests in a hundred wait for longer.
        """
        mid = np.asarray(mean) * self.late
        high = np.maximum(mid * self.late_factor, np.asarray(p95) * self.late)
        return mid / self.late_factor, mid, high

    def late_first_token(self, p95: Number) -> tuple[Number, Number, Number]:
        """Return low, middle and high of the 95th percentile of first tokens: how late it is, and how far that may be off."""
        mid = np.asarray(p95) * self.late
        return mid / self.late_factor, mid, mid * self.late_factor


def choose_vector(
    calibrations: Mapping[str, Calibration], engine: Engine, *, shape: ModelShape, gpu: GpuFacts
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
    late, factor = FIRST_TOKEN[engine]
    if notes:
        factor = 1 + (factor - 1) * ELSEWHERE_FACTOR
    return Chosen(found, part, notes, late, factor)


def _nearest(
    calibrations: tuple[Calibration, ...], engine: Engine, family: str
) -> tuple[Calibration, tuple[str, ...]]:
    def far(row: Calibration) -> tuple[bool, bool, bool, str]:
        return row.engine != engine, row.family != family, row.engine != "vllm", row.id

    best = min(calibrations, key=far)
    if (best.engine, best.family) == (engine, family):
        return best, ()
    return best, (f"no vector for {engine} and {family} models: {best.id} stands in, with a wider range",)
