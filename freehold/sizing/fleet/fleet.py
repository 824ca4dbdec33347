"""How many replicas carry a traffic within an SLO, and what they stand on: GPUs, nodes, disk, network, host RAM.

Replicas are counted at the peak hour and at the SLO, not at saturation. It buys nothing: prices are in freehold/cost.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from freehold.catalog.facts import Catalog, GpuFacts, Link
from freehold.core.spread import Spread
from freehold.sizing.fleet.links import (
    PREFILL_TOKENS,
    Judgement,
    LinkCrossing,
    balancer_mbit_s,
    judge,
    networks,
    pipeline_crossing,
    tensor_crossing,
)
from freehold.sizing.fleet.staging import (
    RESTART_TARGET_S,
    Staging,
    host_ram_gb,
    least_for_rebuild,
    load_over_s,
    stage,
)
from freehold.sizing.fleet.traffic import HOURS_PER_MONTH, Traffic
from freehold.sizing.replica.answer import MeasuredSpeed, Reason, SizeAsk, Sized, SizedFleet, Slo
from freehold.sizing.replica.memory import BOARD_GB_S
from freehold.sizing.replica.replica import at_slo

SECONDS_PER_MONTH = HOURS_PER_MONTH * 3600
"""Source: traffic's 730 hours."""
NODE_COUNTS = (1, 2, 4, 8)
"""GPUs that a server or a rented machine comes with. Source: rental catalog's terms and vendors' servers."""
MEASURED_PART = 0.05
"""How far a measured figure may be off. Why: runs of the same load differ by a few per cent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetTarget:
    """What is asked besides the deployment and its traffic."""

    slo: Slo
    spares: int = 0
    measured: Sequence[MeasuredSpeed] = ()
    """Load tests of this model; one of the same deployment replaces the model's figure."""


def fleet(ask: SizeAsk, traffic: Traffic, *, plan: FleetTarget, catalog: Catalog) -> SizedFleet:
    """Return the fleet of this deployment for the traffic; lengths and cached share are the traffic's, not the ask's.

    Where the replica does not fit or misses the SLO even alone, `replicas` is 0 and `sized.why_not` says why.
    """
    asked = replace(
        ask,
        input_tokens=max(traffic.input_tokens_per_request, 1.0),
        output_tokens=max(traffic.output_tokens_per_request, 1.0),
        cached_share=traffic.cached_share,
    )
    sized = _measured(
        at_slo(asked, plan.slo, calibrations=catalog.calibrations, corrections=catalog.corrections),
        plan.measured,
    )
    peak = peak_tokens_per_s(traffic)
    each = capacity(sized)
    replicas = max(1, math.ceil(peak / each.mid)) if each.mid > 0 else 0
    return _stand(sized, traffic, replicas=replicas, spares=plan.spares if replicas else 0, catalog=catalog)


def _measured(sized: Sized, measured: Sequence[MeasuredSpeed]) -> Sized:
    """Return it with the figure of a load test of the same deployment in place of the model's."""
    ask = sized.ask
    same = (ask.engine, ask.gpu.id, ask.gpus, ask.quant)
    found = next((each for each in measured if (each.engine, each.gpu, each.gpus, each.quant) == same), None)
    if found is None:
        return sized
    was = sized.output_tokens_per_s.mid
    note = f"measured {found.output_tokens_per_s:,.0f} tokens/s ({found.source or 'load test'}); the model estimated {was:,.0f}"
    return replace(
        sized,
        fits=True,
        why_not="",
        concurrency=found.concurrency,
        output_tokens_per_s=Spread.within(found.output_tokens_per_s, MEASURED_PART),
        calibration="measured",
        correction=None,
        untested="",
        notes=(*sized.notes, note),
    )


def capacity(sized: Sized) -> Spread:
    """Return input and output tokens/s of one replica at the asked mix, from its output tokens/s."""
    ask = sized.ask
    return sized.output_tokens_per_s.times((ask.input_tokens + ask.output_tokens) / ask.output_tokens)


def peak_tokens_per_s(traffic: Traffic) -> float:
    """Return what must be carried in the busiest hour: what cannot wait at its peak, or everything at its mean.

    What can wait a day is moved out of the peak.
    """
    mean = traffic.tokens_per_month / SECONDS_PER_MONTH
    return max(mean * (1 - traffic.batch_share) * traffic.peak_over_mean, mean)


def _stand(sized: Sized, traffic: Traffic, *, replicas: int, spares: int, catalog: Catalog) -> SizedFleet:
    ask = sized.ask
    gpus, nodes = round_gpus(max(replicas + spares, 1) * ask.gpus, gpu=ask.gpu, per_node=ask.gpus_per_node)
    mean = traffic.tokens_per_month / SECONDS_PER_MONTH
    total = capacity(sized).times(replicas)
    staging = stage(catalog.storage, sized.weights_bytes, gpus=ask.gpus)
    link, reasons = _network(sized, replicas, nodes, catalog)
    return SizedFleet(
        sized=sized,
        replicas=replicas,
        spare_replicas=spares,
        gpus=gpus,
        nodes=nodes,
        capacity_tokens_per_s=total,
        peak_tokens_per_s=peak_tokens_per_s(traffic),
        utilisation=min(1.0, mean / total.mid) if total.mid > 0 else 0.0,
        load_time_s=staging.load_time_s,
        storage=staging.storage,
        network=link.id if link else "",
        host_ram_gb=host_ram_gb(sized.weights_bytes, gpus=min(gpus, ask.gpus_per_node)),
        reasons=(*reasons, _on_disk(staging), *_on_rest(sized, (replicas + spares) * ask.gpus, gpus)),
    )


def round_gpus(needed: int, *, gpu: GpuFacts, per_node: int, bought: bool = False) -> tuple[int, int]:
    """Return how many GPUs one can have that are at least so many, and in how many nodes.

    Up to a node 1, 2, 4 or 8; beyond, whole boards of eight where GPUs come on boards, else pairs of cards. What is
    `bought` comes in whole boards or racks of `gpu.sold_in`, however few of it are needed.
    """
    if needed <= per_node and not (bought and gpu.sold_in > 1):
        return next((count for count in NODE_COUNTS if needed <= count <= per_node), per_node), 1
    step = gpu_step(gpu, per_node, bought=bought)
    gpus = math.ceil(needed / step) * step
    return gpus, math.ceil(gpus / per_node)


def gpu_step(gpu: GpuFacts, per_node: int, *, bought: bool = False) -> int:
    """Return the GPUs that come together beyond one node, or at all where whole boards are bought."""
    if bought and gpu.sold_in > 1:
        return gpu.sold_in
    return per_node if gpu.scale_up_gb_s_per_dir >= BOARD_GB_S else min(2, per_node)


def _network(
    sized: Sized, replicas: int, nodes: int, catalog: Catalog
) -> tuple[Link | None, tuple[Reason, ...]]:
    """Return the least link that is enough for pipeline stages, answers and weights, and the reasons."""
    links = networks(catalog.links)
    if not links:
        return None, ()
    traffic_mbit = balancer_mbit_s(sized.output_tokens_per_s.high * replicas)
    carries = [link for link in links if link.effective_gb_s_per_dir * 8000 >= 2 * traffic_mbit] or links[-1:]
    answers = Reason(
        text=f"answers of {replicas} replica{'s' * (replicas != 1)} are {traffic_mbit:.3g} Mbit/s: {carries[0].id} carries them"
    )
    rebuild = least_for_rebuild(links, sized.weights_bytes) or links[-1]
    minutes = load_over_s(sized.weights_bytes, rebuild) / 60
    weights = Reason(
        text=f"weights reach a new machine over {rebuild.id} in {minutes:.3g} min", source=rebuild.source
    )
    crossing = crossing_links(sized, links) if nodes > 1 and sized.pipeline_parallel > 1 else ([], ())
    least = max((carries[0], rebuild, *crossing[0][:1]), key=links.index)
    return least, (answers, weights, *crossing[1])


def crossing_links(sized: Sized, links: Sequence[Link]) -> tuple[list[Link], tuple[Reason, ...]]:
    """Return the links that carry this replica's pipeline stages, slowest first, and why tensor parallel would not do.

    The reasons name the fastest link that is not enough for tensor parallel, and the slowest that is for the pipeline.
    """
    ask = sized.ask
    step, stages = max(sized.itl_ms.mid, 1e-3), max(sized.pipeline_parallel, 2)
    prompt = max(sized.ttft_ms.mid * PREFILL_TOKENS / ask.input_tokens, step)
    group = max(sized.concurrency / stages, 1.0)

    def judged(link: Link, crossing: LinkCrossing, use: str) -> Judgement:
        return judge(link, crossing, use=use, step_ms=step, prompt_ms=prompt)

    stage_by_stage = partial(pipeline_crossing, ask.shape, stages=stages, sequences=group)
    ranks = partial(tensor_crossing, ask.shape, ranks=ask.gpus, sequences=max(sized.concurrency, 1))
    piped = [(link, judged(link, stage_by_stage(link), "pipeline stages")) for link in links]
    across = [judged(link, ranks(link), "tensor parallel across nodes") for link in links]
    enough = [link for link, found in piped if found.enough]
    said = [found.reason for _, found in piped if found.enough][:1]
    return enough, (*said, *[found.reason for found in across if not found.enough][-1:])


def _on_disk(staging: Staging) -> Reason:
    time = staging.load_time_s
    if not staging.in_time:
        text = f"no disk of the catalog loads the weights in {RESTART_TARGET_S:g} s; {staging.storage} takes {time.low:.0f} to {time.high:.0f} s"
        return Reason(text=text)
    needed = "NVMe is needed" if "nvme" in staging.storage else "NVMe is not needed"
    return Reason(
        text=f"{needed} for a restart in {RESTART_TARGET_S:g} s: from {staging.storage} weights load in {time.low:.0f} to {time.high:.0f} s"
    )


def _on_rest(sized: Sized, needed: int, gpus: int) -> tuple[Reason, ...]:
    reasons = [Reason(text=note, source="") for note in sized.notes]
    if gpus > needed > 0:
        reasons.append(Reason(text=f"{gpus - needed} of {gpus} GPUs are idle: they come in such numbers"))
    return tuple(reasons)
