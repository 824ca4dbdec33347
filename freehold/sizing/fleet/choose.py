"""Which deployments of a model are worth pricing: on each GPU those that no other one beats on GPUs, bits and efficiency.

Prices are not known here, so nothing is ranked: a fleet is dropped only where another on the same GPU has no more GPUs, no
fewer bits per weight and carries no less per GPU.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from freehold.catalog.facts import Catalog, GpuFacts
from freehold.sizing.fleet.advise import (
    NO_WISH,
    SERVERS,
    Advice,
    Figure,
    Need,
    Wish,
    engines_for,
    recommend,
    weigh,
)
from freehold.sizing.fleet.fleet import FleetTarget, fleet
from freehold.sizing.fleet.traffic import Traffic
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.model.words import Engine, Quant
from freehold.sizing.replica.answer import MeasuredSpeed, SizeAsk, Sized, SizedFleet, Slo
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """The deployments that are worth pricing, and what each engine would give."""

    fleets: list[SizedFleet]
    """Of the engine that was asked for, else of the one that is advised for each GPU and quantisation."""
    by_engine: dict[Engine, list[SizedFleet]]
    """Per server, the fleets if it ran everywhere, but for what was load-tested or runs in one engine only."""


def candidates(
    shape: ModelShape, traffic: Traffic, *, plan: FleetTarget, catalog: Catalog, among: Among
) -> list[SizedFleet]:
    """Return fleets that carry the traffic within the SLO, several per GPU where they differ; fewest GPUs first per GPU.

    A GPU on which the model cannot run within the SLO is left out; GPU ids that the catalog lacks are ignored (the caller
    checks them).
    """
    return considered(shape, traffic, plan=plan, catalog=catalog, among=among).fleets


def considered(
    shape: ModelShape, traffic: Traffic, *, plan: FleetTarget, catalog: Catalog, among: Among
) -> Considered:
    """Return the candidates, and the same for each engine that could run instead."""
    ids = among.gpus or tuple(catalog.gpus)
    found = Considered(fleets=[], by_engine={engine: [] for engine in SERVERS})
    for gpu in (catalog.gpus[name] for name in ids if name in catalog.gpus):
        tried = [
            _tried(
                Need(shape=shape, gpu=gpu, quant=quant, wish=among.wish), traffic, plan, catalog, among=among
            )
            for quant in among.quants or usual_quants(shape, gpu)
        ]
        found.fleets.extend(_kept(each for fleets, _ in tried for each in fleets))
        for engine, fleets in found.by_engine.items():
            fleets.extend(_kept(each for _, by_engine in tried for each in by_engine.get(engine, ())))
    return found


def _kept(fleets: Iterable[SizedFleet]) -> list[SizedFleet]:
    return _undominated(each for each in fleets if each.replicas)[:PER_GPU]


def _tried(
    need: Need, traffic: Traffic, plan: FleetTarget, catalog: Catalog, *, among: Among
) -> tuple[list[SizedFleet], dict[Engine, list[SizedFleet]]]:
    """Return the fleets of the engine that is asked for or advised, and of each server; of one GPU and quantisation."""
    assert need.gpu is not None
    advice = recommend(need, plan.measured, catalog.engine_ratios)
    counts = _counts(need.shape, need.gpu, need.quant, plan.measured)
    engines = () if advice.settled else engines_for(need)
    each = {
        engine: [
            fleet(ask, traffic, plan=plan, catalog=catalog)
            for ask in _asks(
                need.shape, traffic, gpu=need.gpu, quant=need.quant, tries=product(counts, (engine,))
            )
        ]
        for engine in dict.fromkeys((*engines, *among.engines, advice.engine))
    }
    by_engine = {engine: each[advice.engine if advice.settled else engine] for engine in engines or SERVERS}
    if among.engines:
        return [found for engine in among.engines for found in each[engine]], by_engine
    figures = {engine: figure for engine in engines if (figure := _figure(each[engine]))}
    least = _least(found for engine in figures for found in each[engine])
    bench = bench_command(least.sized if least else None, figures, plan.slo)
    advice = weigh(advice, figures, wish=among.wish, bench=bench)
    return [_with_advice(found, advice) for found in each[advice.engine]], by_engine


def _least(fleets: Iterable[SizedFleet]) -> SizedFleet | None:
    """Return the fleet of the fewest GPUs that carries the traffic; None: none does."""
    carries = (each for each in fleets if each.replicas)
    return min(carries, key=lambda each: (each.gpus, -each.capacity_tokens_per_s.mid), default=None)


def _figure(fleets: Iterable[SizedFleet]) -> Figure | None:
    least = _least(fleets)
    if least is None:
        return None
    each = least.capacity_tokens_per_s.times(1 / (least.replicas * least.sized.ask.gpus))
    return Figure(needed=least.gpus, text=f"{least.gpus:,} GPUs", tokens_per_s=each)


def advised(
    ask: SizeAsk, sized_by: Callable[[SizeAsk], Sized], *, plan: FleetTarget, catalog: Catalog, wish: Wish
) -> Advice:
    """Return the engine to run this one deployment with; `sized_by` sizes it, at the SLO or at a load."""
    need = Need(shape=ask.shape, gpu=ask.gpu, quant=ask.quant, wish=wish)
    advice = recommend(need, plan.measured, catalog.engine_ratios)
    if advice.settled:
        return advice
    found = {engine: sized_by(replace(ask, engine=engine)) for engine in engines_for(need)}
    figures = {
        engine: Figure(
            needed=1 / each.output_tokens_per_s.mid,
            text=f"{each.output_tokens_per_s.mid:,.0f} tokens/s",
            tokens_per_s=each.output_tokens_per_s.times(1 / ask.gpus),
        )
        for engine, each in found.items()
        if each.concurrency
    }
    asked = max(found.values(), key=lambda each: each.concurrency)
    return weigh(advice, figures, wish=wish, bench=bench_command(asked, figures, plan.slo))


def bench_command(sized: Sized | None, engines: Iterable[str], slo: Slo) -> str:
    """Return the load test that settles which of these engines serves best, at the concurrency that was sized."""
    if sized is None:
        return f"freehold bench --engines {','.join(engines)}"
    ask = sized.ask
    shared = f" --shared-prefix {ask.input_tokens * ask.cached_share:.0f}" if ask.cached_share else ""
    return (
        f"freehold bench --engines {','.join(engines)} --prompt-tokens {ask.input_tokens:.0f}{shared} "
        f"--answer-tokens {ask.output_tokens:.0f} --concurrency {max(sized.concurrency, 1)} "
        f"--slo-ttft {slo.ttft_s * 1e3:g}ms --slo-itl {slo.itl_s * 1e3:g}ms"
    )


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
