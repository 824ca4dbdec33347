"""Which calibration vector holds for an engine and a model, and how wide the figures made with it must be.

It fits nothing (benchmarks/sizing.py does) and reads no file (the catalog does).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from freehold.catalog.facts import Calibration, Correction, GpuFacts
from freehold.core.spread import Spread
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.model.words import Engine, Quant
from freehold.sizing.replica.memory import BITS, Number

Corrections = Mapping[str, Correction]
NO_CORRECTIONS: Corrections = MappingProxyType({})

LEAST_PART: Mapping[str, float] = {"dense": 0.15, "moe": 0.30}
"""The narrowest range that is printed, as a part. Source: research: print 15 % dense, 30 % for mixtures of experts."""
ERRORS_WIDE = 2.4
"""Mean absolute errors that a 5 to 95 % range spans to each side. Source: benchmarks/sizing.py; a normal error would need 2.06
(1.645 sigma of 1.25 each), but errors of mixtures of experts have long tails: with 2, only 84 % of them were within."""
ELSEWHERE_FACTOR = 2.0
"""How much wider it gets where too few have measured. Why: the next one may be as far off on the other side."""
SOURCES_MIN = 3
"""Who must have measured in a region, each counted once, for its correction to hold. Our own choice: two may share a mistake."""
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
    correction: Correction | None = None
    """What measurements of others said of such replicas; the calibration has its ratio in it."""
    untested: str = ""
    """Why too few have measured such replicas; empty: enough have."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a correction may depend on."""

    engine: Engine
    shape: ModelShape
    gpu: GpuFacts
    quant: Quant

    @property
    def keys(self) -> tuple[tuple[str, str, str, int], ...]:
        """Return the regions that it lies in, narrowest first: engine, card, family, bits; empty and 0: all."""
        engine = "llama-cpp" if self.engine == "llama-cpp" else ""
        card, family = card_of(self.gpu), self.shape.family
        bits = 16 if BITS[self.quant] > 8 else 8 if BITS[self.quant] > 5 else 4
        return (engine, card, family, bits), (engine, card, family, 0), (engine, card, "", 0)


def card_of(gpu: GpuFacts) -> str:
    """Return the class of a card: consumer, or its vendor, and whether it is one of AMD's that multiply 4 bit."""
    if gpu.consumer:
        return "consumer"
    return "amd-fp4" if gpu.vendor == "amd" and gpu.fp4_dense_tflops else gpu.vendor


def choose_vector(
    calibrations: Mapping[str, Calibration], kind: Kind, *, corrections: Corrections = NO_CORRECTIONS
) -> Chosen:
    """Return the vector of this engine and family with the correction of the narrowest region that enough have measured.

    Where too few have, nothing is corrected, the range is doubled and a note says so; so it is where another engine's or
    family's vector stands in. Our mistake if `calibrations` is empty: the catalog ships some.
    """
    assert calibrations, "the catalog ships calibrations"
    engine, family = kind.engine, kind.shape.family
    found, notes = _nearest(tuple(calibrations.values()), engine, family)
    own = max(LEAST_PART[family], ERRORS_WIDE * found.error_mean_abs)
    correction, untested = _correction_of(kind, corrections)
    part = max(own * (ELSEWHERE_FACTOR if notes or untested else 1.0), correction.part if correction else 0.0)
    if untested:
        notes = (*notes, f"{untested}: the range is wide, and nothing that rests on it is sure")
    late, factor = FIRST_TOKEN[engine]
    if notes:
        factor = 1 + (factor - 1) * ELSEWHERE_FACTOR
    if correction and not untested:
        found = _corrected(found, correction.ratio)
    return Chosen(found, part, notes, late, factor, correction, untested)


def _correction_of(kind: Kind, corrections: Corrections) -> tuple[Correction | None, str]:
    """Return the narrowest correction that holds, else the widest there is, with why it does not hold.

    Where none is given at all, only NVIDIA's data-centre cards, which the vectors were fitted on, are not in doubt.
    """
    if not corrections and card_of(kind.gpu) == "nvidia":
        return None, ""
    by_key = {(each.engine, each.card, each.family, each.bits): each for each in corrections.values()}
    known = [by_key[key] for key in kind.keys if key in by_key]
    held = next((each for each in known if each.sources >= SOURCES_MIN), None)
    if held:
        return held, ""
    what = f"{'llama.cpp on ' if kind.engine == 'llama-cpp' else ''}{_CARDS.get(card_of(kind.gpu), kind.gpu.vendor)}"
    if not known:
        return None, f"no published measurement of {what}"
    sources = known[-1].sources
    return known[-1], f"published measurements of {what} come from {sources} source{'s' * (sources > 1)} only"


_CARDS: Mapping[str, str] = {
    "nvidia": "NVIDIA's data-centre cards",
    "consumer": "consumer cards",
    "amd": "AMD's cards of the MI300 series",
    "amd-fp4": "AMD's cards of the MI350 series",
}


def _corrected(vector: Calibration, ratio: float) -> Calibration:
    """Return it with all times divided by the ratio; nothing beats a peak."""
    return replace(
        vector,
        hbm_efficiency=min(1.0, vector.hbm_efficiency * ratio),
        flops_efficiency=min(1.0, vector.flops_efficiency * ratio),
        fixed_ms_per_step=vector.fixed_ms_per_step / ratio,
        allreduce_us=vector.allreduce_us / ratio,
        per_sequence_us=vector.per_sequence_us / ratio,
    )


def _nearest(
    calibrations: tuple[Calibration, ...], engine: Engine, family: str
) -> tuple[Calibration, tuple[str, ...]]:
    def far(row: Calibration) -> tuple[bool, bool, bool, str]:
        return row.engine != engine, row.family != family, row.engine != "vllm", row.id

    best = min(calibrations, key=far)
    if (best.engine, best.family) == (engine, family):
        return best, ()
    return best, (f"no vector for {engine} and {family} models: {best.id} stands in, with a wider range",)
