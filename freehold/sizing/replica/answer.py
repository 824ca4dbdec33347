"""What sizing is asked and what it answers: plain values with units in their names. No formula is here."""

from dataclasses import dataclass

from freehold.catalog.facts import Correction, GpuFacts
from freehold.core.spread import Spread
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.model.words import Engine, Quant


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeAsk:
    """One deployment to size: a replica of a model on some GPUs at a load."""

    shape: ModelShape
    gpu: GpuFacts
    gpus: int
    """Of one replica: tensor parallel inside a node times pipeline parallel across nodes."""
    engine: Engine
    quant: Quant
    kv_bits: int = 16
    input_tokens: float
    output_tokens: float
    cached_share: float = 0.0
    concurrency: int
    """Sequences under way at once in the replica."""
    memory_utilisation: float = 0.9
    """Of the GPU's memory, what the engine may use. Source: vLLM's default gpu_memory_utilization."""
    gpus_per_node: int = 8
    network_gb_s: float = 11.5
    """Between nodes, one way, where a replica spans them. Source: 100GbE RoCE in the links catalog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepParts:
    """What the mean time between two tokens of a sequence is made of, ms. Reading and calculating overlap: the longer counts."""

    reading: float
    """Weights, KV cache and activations, over the bandwidth that is reached."""
    calculating: float
    links: float
    """All-reduces and stage boundaries."""
    overhead: float
    """The engine's own: fixed per step and per sequence."""
    prompts: float
    """Of the other sequences' prompts in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """What one replica holds and does at the asked load. Times in ms, rates of the whole replica."""

    ask: SizeAsk
    fits: bool
    why_not: str
    """Why it does not fit or cannot run, in a sentence; empty where it can."""
    tensor_parallel: int
    pipeline_parallel: int
    weights_bytes: int
    """Of the whole model as loaded."""
    weights_bytes_per_gpu: int
    kv_bytes_per_token: int
    """Per sequence, the whole model, before sharding."""
    kv_cache_tokens: int
    """Tokens that the KV cache of the replica holds; 0 where it does not fit."""
    concurrency_max: int
    """Sequences of the asked length that fit at once."""
    concurrency: int
    """What the figures below are for: the asked one, or what fits if that is less; 0: nothing runs, or not within the SLO."""
    output_tokens_per_s: Spread
    ttft_ms: Spread
    """Of a request: the mean, and within what a request's may lie."""
    ttft_p95_ms: Spread
    """95th percentile of requests, and how far that may be off. An SLO is held against its middle."""
    itl_ms: Spread
    bound_by: str
    """memory bandwidth, compute, KV cache or overhead: what limits it here."""
    calibration: str
    """Which calibration vector was used."""
    correction: Correction | None = None
    """What measurements of others said of such replicas, if any: its ratio is in the figures unless `untested`."""
    untested: str = ""
    """Why too few have measured such replicas for a verdict to be sure; empty: enough have, or a load test replaced the figure."""
    parts: StepParts | None = None
    """Of `itl_ms`; None where there is no speed."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondOpinion:
    """What another program says of the same replica at the same load. It has no ranges."""

    output_tokens_per_s: float
    """Of the whole replica."""
    ttft_ms: float
    itl_ms: float
    version: str
    """Which program, and which engine's tables it used."""
    note: str = ""
    """What it took the question to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """What must hold for tokens to count."""

    ttft_s: float
    """Time to first token, 95th percentile, seconds."""
    itl_s: float
    """Inter-token latency, mean over an answer, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why an engine, a link or a disk is advised: the claim and what it rests on."""

    text: str
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSpeed:
    """What a load test of this deployment gave: it replaces the model's figure where engine, GPUs and quantisation agree."""

    engine: Engine
    gpu: str
    """Catalog id."""
    gpus: int
    """Of the replica."""
    quant: Quant
    output_tokens_per_s: float
    """Of the replica, within the SLO."""
    concurrency: int
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """So many requests that start together and end together, without a server in front: an offline job."""

    requests: int
    prefill_s: float
    itl_ms: float
    """Of the decode alone, the prompts being done."""
    wall_s: float
    output_tokens_per_s: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedFleet:
    """How many replicas of one deployment carry a traffic within an SLO."""

    sized: Sized
    """At the concurrency where the SLO just holds."""
    replicas: int
    """Serving, at the peak."""
    spare_replicas: int
    gpus: int
    """Of all replicas, spares included, rounded up to what one can buy or rent."""
    nodes: int
    capacity_tokens_per_s: Spread
    """Input and output tokens/s that all serving replicas carry within the SLO, at the traffic's mix."""
    peak_tokens_per_s: float
    utilisation: float
    """Served over capacity at SLO, over the clock (mean hour): 0 to 1."""
    load_time_s: Spread
    """Weights from the advised storage into the GPUs."""
    storage: str
    """Catalog id of the least storage that loads in time."""
    network: str
    """Catalog id of the least link that is enough, and the notes say for what."""
    host_ram_gb: float
    """Of each node."""
    reasons: tuple[Reason, ...] = ()
