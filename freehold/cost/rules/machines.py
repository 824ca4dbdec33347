"""Rules of thumb on machines: what they draw, which engine, which network and disk, how fast they come back, how they fail.

Judged from the fleet that the plan would run and from the catalog; money is in money.py, and nothing is measured here.
"""

from collections.abc import Callable

from freehold.cost.lines.colocation import contracted_kw
from freehold.cost.lines.electricity import it_kw
from freehold.cost.model.capex import HOURS_PER_YEAR
from freehold.cost.model.closed_form import load_s, node_loss_probability
from freehold.cost.model.percentiles import range_of
from freehold.cost.model.result import Rule
from freehold.cost.pricing.ranking import Ranking
from freehold.cost.pricing.reference_node import NODE_GPUS
from freehold.cost.rules.judged import Judged, graded, judged, unknown
from freehold.cost.rules.money import GUIDE_KW, NO_NODE
from freehold.sizing.fleet.links import SLOWER_PART, balancer_mbit_s, tensor_crossing
from freehold.sizing.fleet.staging import load_over_s

TRT_LEAST = 1.3
"""Source: guides ("TensorRT-LLM is 30 to 50 % faster")."""
NODE_POWER = "dgx-h100-power"
TRT_RATIO = "trtllm-over-vllm"
# What the guides' NAS and NVMe read. Source: their difference of 200 ms is a 182 MB file at these two rates.
NAS_GB_S = 0.8
NVME_GB_S = 6.5
SAVED_S = 0.2
HOUR_S = 3600.0
"""Source: guides ("rebuild in under an hour")."""
TEN_GBE, ONE_GBE = "10gbe", "1gbe"
PUBLISHED_FAILURES = 419
"""Source: Llama 3 paper (arXiv 2407.21783), table 5: unexpected interruptions of 16,384 GPUs in 54 days."""
PAPER = "Llama 3 paper (arXiv 2407.21783), table 5; training, so an upper bound for inference"


@judged
def node_power(ranking: Ranking) -> Judged:
    """Judge "an eight-GPU node draws 12 to 15 kW": that is a facility's figure at the nameplate."""
    node = ranking.node
    if node is None:
        return unknown(NO_NODE)
    case = node.case
    mean, rated = range_of(it_kw(case)), range_of(contracted_kw(case)).p50
    label = ranking.inputs.catalog.nodes.get(NODE_POWER)
    most = (label.nameplate_kw if label else None) or rated
    pue = case.setting.own.pue_ratio.value
    low, high = GUIDE_KW
    at_meter = most * pue.low <= high and most * pue.high >= low
    return graded(holds=low <= mean.p50 <= high, depends=at_meter), (
        f"Eight {node.offer.gpu} serving draw {mean.p50:,.1f} kW ({mean.p10:,.1f}-{mean.p90:,.1f}), at most {most:,.1f} by the "
        f"nameplate; with a PUE of {pue.low:g}-{pue.high:g} the facility is asked for up to {most * pue.low:,.1f}-{most * pue.high:,.1f}."
    )


@judged
def trt_speed(ranking: Ranking) -> Judged:
    """Judge "TensorRT-LLM is 30 to 50 % faster than vLLM" by matched measured pairs."""
    ratio = ranking.inputs.catalog.engine_ratios.get(TRT_RATIO)
    if ratio is None:
        return unknown("The catalog has no measured pairs of the two.")
    low, high = ratio.iqr
    often = f", {ratio.share_ge_1_3:.1%} of pairs reach 30%" if ratio.share_ge_1_3 is not None else ""
    return (
        graded(holds=ratio.median >= TRT_LEAST, depends=high >= TRT_LEAST),
        (
            f"In {ratio.matched_pairs} matched measured pairs it is {ratio.median - 1:+.1%} in the middle "
            f"({low - 1:+.0%} to {high - 1:+.0%}){often}."
        ),
        f"{ratio.source} ({ratio.as_of.isoformat()})",
    )


@judged
def trt_fragile(ranking: Ranking) -> Judged:
    """Judge "TensorRT-LLM's builds are locked to one GPU and fragile"."""
    engines = sorted({fleet.sized.ask.engine for fleet in ranking.inputs.fleets})
    used = "tensorrt-llm" in engines
    return "depends", (
        f"{'It is among the engines of this plan' if used else 'It is not in this plan'} ({', '.join(engines) or 'none'}). "
        "Versions up to 0.x compile an engine per model, GPU and version; 1.x runs models on PyTorch without a build. "
        "Pin the version either way."
    )


@judged
def slow_network(ranking: Ranking) -> Judged:
    """Judge "1 or 10 GbE is not enough, 100 or 200G is needed": of tensor parallel across nodes it is true."""
    link = ranking.inputs.catalog.links.get(TEN_GBE)
    if not ranking.inputs.fleets or link is None:
        return unknown("The plan has no fleet, or the catalog no 10 GbE.")
    fleet = ranking.inputs.fleets[0]
    sized = fleet.sized
    extra = tensor_crossing(sized.ask.shape, link, ranks=2, sequences=sized.concurrency).decode_ms
    inside = sized.ask.gpus <= sized.ask.gpus_per_node
    slows = extra > SLOWER_PART * sized.itl_ms.mid
    return (
        "does not hold" if inside else "holds" if slows else "depends",
        (
            f"{'A replica stays inside a node' if inside else 'A replica crosses nodes'}; the answers of all are "
            f"{balancer_mbit_s(sized.output_tokens_per_s.mid * fleet.replicas):,.1f} Mbit/s. Tensor parallel over two nodes on "
            f"10 GbE would add {extra:,.1f} ms to a step of {sized.itl_ms.mid:,.1f} ms."
        ),
        f"two all-reduces a layer over a ring; {link.source}",
    )


@judged
def nvme(ranking: Ranking) -> Judged:
    """Judge "moving weights from a NAS to NVMe saves 200 ms of latency": of a swap or a start, not of serving."""
    if not ranking.inputs.fleets:
        return unknown("The plan has no fleet.")
    weights = ranking.inputs.fleets[0].sized.weights_bytes
    slow, fast = load_s(weights, NAS_GB_S), load_s(weights, NVME_GB_S)
    return "does not hold", (
        f"Weights are read once, then stay in the GPUs. 200 ms is the swap of a {swap_bytes(SAVED_S) / 1e6:,.0f} MB adapter; "
        f"a start with these weights takes {slow:,.1f} s at {NAS_GB_S} GB/s and {fast:,.1f} s at {NVME_GB_S}."
    )


def swap_bytes(saved_s: float) -> float:
    """Return how large a file is that is read so much faster from NVMe than from a NAS."""
    return saved_s / (1 / (NAS_GB_S * 1e9) - 1 / (NVME_GB_S * 1e9))


@judged
def rebuild(ranking: Ranking) -> Judged:
    """Judge "a node is rebuilt in under an hour", as far as loading the weights decides it."""
    if not ranking.inputs.fleets:
        return unknown("The plan has no fleet.")
    fleet, link = ranking.inputs.fleets[0], ranking.inputs.catalog.links.get(ONE_GBE)
    if link is None:
        return unknown("The catalog has no 1 GbE.")
    remote = load_over_s(fleet.sized.weights_bytes, link)
    worst = max(fleet.load_time_s.high, remote)
    return graded(holds=worst < HOUR_S, depends=fleet.load_time_s.high < HOUR_S), (
        f"Loading takes {fleet.load_time_s.mid:,.0f} s from {fleet.storage or 'local disks'} and {remote / 60:,.1f} min over 1 GbE. "
        "Installing the machine comes on top: let a drill measure it."
    )


@judged
def failures(ranking: Ranking) -> Judged:
    """Judge "Llama-3-style failure data can be used": it can, as a bound, with its sums corrected."""
    rows = [row for row in ranking.inputs.catalog.failures if row.count]
    total = sum(row.count or 0 for row in rows)
    if not total:
        return "unknown", "The catalog has no counts of failures.", PAPER
    yearly = sum(row.rate_per_gpu_year for row in rows)
    gpu = sum(row.count or 0 for row in rows if row.group == "gpu")
    worst = max(rows, key=lambda row: row.count or 0)
    afr = ranking.setting.own.gpu_failures_per_gpu_year.value.mid
    return "holds" if total == PUBLISHED_FAILURES else "depends", (
        f"Counts sum to {total}: {worst.cause.replace('_', ' ')} {(worst.count or 0) / total:.1%}, GPUs {gpu / total:.1%}. That is "
        f"{yearly:.1%} a GPU-year from all causes, {yearly * NODE_GPUS:.2f} interruptions a year of an 8-GPU node. The plan counts "
        f"{afr:.1%} lost GPUs a year: {node_loss_probability(afr, NODE_GPUS):.0%} of nodes lose one, {_down_hours(ranking):,.0f} h down."
    )


def _down_hours(ranking: Ranking) -> float:
    """Return the hours in a year in which an eight-GPU node without a spare is out."""
    own = ranking.setting.own
    hours = NODE_GPUS * own.gpu_failures_per_gpu_year.value.mid * own.repair_days.value.mid * 24
    return min(hours, HOURS_PER_YEAR)


MACHINE_RULES: tuple[Callable[[Ranking], Rule], ...] = (
    node_power,
    slow_network,
    nvme,
    rebuild,
    trt_speed,
    trt_fragile,
    failures,
)
