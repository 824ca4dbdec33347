"""Which deployments of a model are worth pricing: on each GPU those that no other one beats on GPUs, bits and efficiency.

Prices are not known here, so nothing is ranked: a fleet is dropped only where another on the same GPU has no more GPUs, no
fewer bits per weight and carries no less per GPU.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from freehold.catalog.facts import Catalog, GpuFacts
from freehold.sizing.fleet.advise import NO_WISH, Advice, Need, Wish, recommend
from freehold.sizing.fleet.fleet import FleetTarget, fleet
from freehold.sizing.fleet.traffic import Traffic
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.model.words import Engine, Quant
from freehold.sizing.replica.answer import MeasuredSpeed, SizeAsk, SizedFleet
from freehold.sizing.replica.memory import BITS, visible_bytes, weights_bytes
from freehold.sizing.replica.replica import size
from freehold.sizing.replica.split import why_not_at_all

REPLICA_GPUS = (1, 2, 4, 8, 16)
"""How many GPUs a replica is tried on: tensor parallel within a node, then two nodes. Source: engines' documentation."""
PER_GPU = 4
"""Deployments that are kept per GPU at most. Why: a plan of 17 GPUs stays readable and quick."""
HEADROOM = 1.02
"""Weights times this must be below what all GPUs see, or the size is not looked at any further. Why: a cheap first sieve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Among:
    """What is tried; empty: all GPUs, the usual quantisations of the GPU, the engine that is recommended."""

    gpus: Sequence[str] = ()
    quants: Sequence[Quant] = ()
    engines: Sequence[Engine] = ()
    wish: Wish = NO_WISH
    """What the team wants of an engine, for the one that is recommended."""


def candidates(
    shape: ModelShape, traffic: Traffic, *, plan: FleetTarget, catalog: Catalog, among: Among
) -> list[SizedFleet]:
    """Return fleets that carry the traffic within the SLO, several per GPU where they differ; fewest GPUs first per GPU.

    A GPU on which the model cannot run within the SLO is left out; GPU ids that the catalog lacks are ignored (the caller
    checks them).
    """
    ids = among.gpus or tuple(catalog.gpus)
    found: list[SizedFleet] = []
    for gpu in (catalog.gpus[name] for name in ids if name in catalog.gpus):
        fleets: list[SizedFleet] = []
        for quant in among.quants or usual_quants(shape, gpu):
            need = Need(shape=shape, gpu=gpu, quant=quant, wish=among.wish)
            advice = recommend(need, plan.measured, catalog.engine_ratios)
            counts = _counts(shape, gpu, quant, plan.measured)
            tries = product(counts, among.engines or (advice.engine,))
            asks = _asks(shape, traffic, gpu=gpu, quant=quant, tries=tries)
            fleets += [_with_advice(fleet(ask, traffic, plan=plan, catalog=catalog), advice) for ask in asks]
        found += _undominated(each for each in fleets if each.replicas)[:PER_GPU]
    return found


def why_none(
    shape: ModelShape, traffic: Traffic, *, plan: FleetTarget, catalog: Catalog, among: Among
) -> list[tuple[str, str]]:
    """Return per GPU why no deployment of the model carries the traffic within the SLO: of the one that comes closest.

    What fits comes first, the fastest before the slower; meant for when `candidates` finds nothing.
    """
    ids = among.gpus or tuple(catalog.gpus)
    found: list[tuple[float, str, str]] = []
    for gpu in (catalog.gpus[name] for name in ids if name in catalog.gpus):
        tried = [
            (_pace_ms(ask, catalog), gpu.id, fleet(ask, traffic, plan=plan, catalog=catalog).sized.why_not)
            for quant in among.quants or usual_quants(shape, gpu)
            for ask in _closest(shape, traffic, gpu=gpu, quant=quant, engines=among.engines)
        ]
        found.append(min(tried))
    return [(gpu_id, why) for _, gpu_id, why in sorted(found)]


def _pace_ms(ask: SizeAsk, catalog: Catalog) -> float:
    """Return the time between two tokens of a single sequence; infinite where it does not fit."""
    sized = size(ask, catalog.calibrations, catalog.corrections)
    return sized.itl_ms.mid if sized.fits else math.inf


def _closest(
    shape: ModelShape, traffic: Traffic, *, gpu: GpuFacts, quant: Quant, engines: Sequence[Engine]
) -> list[SizeAsk]:
    """Return the deployments to be explained: the largest that was tried, or the largest of all where none fits."""
    engine = engines or (recommend(Need(shape=shape, gpu=gpu, quant=quant)).engine,)
    tries = [(gpus, each) for gpus in _counts(shape, gpu, quant) for each in engine]
    tried = list(_asks(shape, traffic, gpu=gpu, quant=quant, tries=tries))
    return tried[-1:] or [_ask(shape, traffic, gpu=gpu, gpus=REPLICA_GPUS[-1], deployed=(engine[0], quant))]


def _with_advice(found: SizedFleet, advice: Advice) -> SizedFleet:
    if found.sized.ask.engine != advice.engine:
        return found
    return replace(found, reasons=(*advice.reasons, *advice.against, *found.reasons))


def _asks(
    shape: ModelShape, traffic: Traffic, *, gpu: GpuFacts, quant: Quant, tries: Iterable[tuple[int, Engine]]
) -> Iterator[SizeAsk]:
    for gpus, engine in tries:
        ask = _ask(shape, traffic, gpu=gpu, gpus=gpus, deployed=(engine, quant))
        if not why_not_at_all(ask):
            yield ask


def _ask(
    shape: ModelShape, traffic: Traffic, *, gpu: GpuFacts, gpus: int, deployed: tuple[Engine, Quant]
) -> SizeAsk:
    return SizeAsk(
        shape=shape,
        gpu=gpu,
        gpus=gpus,
        engine=deployed[0],
        quant=deployed[1],
        input_tokens=max(traffic.input_tokens_per_request, 1.0),
        output_tokens=max(traffic.output_tokens_per_request, 1.0),
        concurrency=1,
    )


def usual_quants(shape: ModelShape, gpu: GpuFacts) -> tuple[Quant, ...]:
    """Return how this model is usually loaded on this GPU: as stored where the file says so, else 16 bit and a smaller one."""
    if shape.quant == "gguf" or shape.weights_bytes is not None:
        return ("gguf",)
    if shape.quant in BITS:
        stored: Quant = shape.quant
        return (stored,)
    return ("bf16", "fp8") if gpu.fp8_dense_tflops else ("bf16", "int4")


def _counts(
    shape: ModelShape, gpu: GpuFacts, quant: Quant, measured: Sequence[MeasuredSpeed] = ()
) -> list[int]:
    """Return on how many GPUs weights leave any room at all, the least such number and the next two, and what was tested."""
    seen, weights = visible_bytes(gpu), weights_bytes(shape, quant)
    roomy = [count for count in REPLICA_GPUS if count * seen > weights * HEADROOM][:3]
    tested = {each.gpus for each in measured if (each.gpu, each.quant) == (gpu.id, quant)}
    return sorted({*roomy, *tested})


def _undominated(fleets: Iterable[SizedFleet]) -> list[SizedFleet]:
    listed = sorted(fleets, key=lambda each: (each.gpus, -each.capacity_tokens_per_s.mid))
    return [each for each in listed if not any(_beats(other, each) for other in listed if other is not each)]


def _beats(one: SizedFleet, other: SizedFleet) -> bool:
    """Return whether nothing speaks for the other."""
    mine, its = _merits(one), _merits(other)
    return all(a >= b for a, b in zip(mine, its, strict=True)) and mine != its


def _merits(each: SizedFleet) -> tuple[float, float, float]:
    ask = each.sized.ask
    per_gpu = each.capacity_tokens_per_s.mid / (each.replicas * ask.gpus)
    return (-each.gpus, BITS[ask.quant], per_gpu)
