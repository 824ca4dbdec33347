"""What a fact is: a value with its source, its date and how it was verified. One type per kind of fact.

Decimal units throughout: GB = 1e9 bytes, GB/s, dense TFLOPS, W, USD. A value that is not known is None, never 0.
Nothing here reads files or doubts a value: see `load` and `physics`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

from freehold.core.spread import Spread


class Verified(StrEnum):
    """How a fact was checked, best first."""

    RAN = "ran"  # produced by running a tool
    READ = "read"  # read in the named source
    SECONDARY = "secondary"  # read in a page that quotes the source
    MEMORY = "memory"  # from memory: check before it is relied on
    USER = "user"  # given by the user: an overlay file or a flag


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What every fact carries."""

    source: str
    as_of: date
    verified: Verified
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts(Fact):
    """One accelerator model. Rates are the vendor's peaks, dense."""

    id: str
    vendor: str
    memory_gb: float
    mem_bw_gb_s: float
    bf16_dense_tflops: float
    fp8_dense_tflops: float | None
    fp4_dense_tflops: float | None
    tdp_w: float
    scale_up_gb_s_per_dir: float
    """To another GPU of the same node, one direction: NVLink, xGMI, or PCIe."""
    idle_w: float | None = None
    consumer: bool = False
    """A consumer card: the driver's licence restricts data-centre use, no ECC on HBM, no NVLink."""
    sold_in: int = 1
    """GPUs of the board or rack that it is sold as: fewer cannot be bought. Clouds rent parts of one."""
    price_new_usd: Spread | None = None
    price: Fact | None = None
    """Where and when the price comes from."""


class StoredAs(StrEnum):
    """How a checkpoint's weights are stored, in the words of `--quant`."""

    BF16 = "bf16"
    FP8 = "fp8"
    INT8 = "int8"
    INT4 = "int4"
    FP4 = "fp4"
    MXFP4 = "mxfp4"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts(Fact):
    """A model's architecture, as far as memory and speed depend on it."""

    id: str
    hf: str
    attention: str
    """mha, gqa, mla or gqa+swa."""
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    params_total_b: float
    params_active_b: float
    kv_bytes_per_token_bf16: int
    """Per sequence, the whole model, before sharding."""
    native_quant: StoredAs | None = None
    """How its own checkpoint is stored, as `quantization_config` of its config.json says; None: at 16 bit."""
    extra: Mapping[str, float] = field(default_factory=dict)
    """What only some have: experts, experts_per_token, shared_experts, kv_lora_rank, qk_rope_head_dim, sliding_window, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link(Fact):
    """An interconnect: what it carries one way, and how long a message takes."""

    id: str
    kind: str
    """network, pcie, nvlink or xgmi."""
    raw_gbit_s: float
    effective_gb_s_per_dir: float
    latency_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage(Fact):
    """A class of storage, by sequential read."""

    id: str
    seq_read_gb_s: float


class RentalKind(StrEnum):
    """How a GPU is rented."""

    ON_DEMAND = "on-demand"
    RESERVED = "reserved"
    MARKETPLACE = "marketplace"
    SPOT = "spot"


@dataclass(frozen=True, slots=True, kw_only=True)
class RentalPrice(Fact):
    """What a provider asks for one GPU for one hour."""

    provider: str
    gpu: str
    usd_per_gpu_hour: float
    kind: RentalKind
    term_months: int = 0
    """Reserved: for how long; else 0."""
    terms: str = ""
    """The kind in the source's own words (`on-demand 8x`, `marketplace median`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiPrice(Fact):
    """A cloud API's list price, USD per million tokens, standard tier."""

    provider: str
    model: str
    input_usd_per_m: float
    output_usd_per_m: float
    cached_input_usd_per_m: float | None
    open_weights: bool | None
    """Whether the model's weights can be had, so that the same model could be owned."""
    same_as: str = ""
    """The catalog id of the open model behind it, where it is known."""
    two_sources_agree: bool | None = None
    ask_as: str = ""
    """What the database of prices calls the model, where that differs."""
    flat_to_input_tokens: int | None = None
    """The price holds for one request of up to so many input tokens, and is higher above; None: for any."""
    by_hour: bool = False
    """The price depends on the hour of the day; this is the dearest."""
    ttft_p95_s: float | None = None
    """Time to the first token of the answer that 95 of 100 requests kept, without reasoning where it can be turned off, s."""
    tokens_per_s: float | None = None
    """Of one answer once it has begun, median."""
    speed_source: str = ""
    """Who measured these two."""
    speed_as_of: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerPrice(Fact):
    """Electricity in a region."""

    region: str
    usd_per_kwh: float
    kind: str = ""
    """commercial, industrial, … in the source's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pue(Fact):
    """Facility power over IT power, for a kind of facility."""

    id: str
    pue: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Colocation(Fact):
    """Space in a rented data centre, per contracted kW and month."""

    id: str
    usd_per_kw_month: Spread
    power_included: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRate(Fact):
    """How often a cause ends work, per GPU and year."""

    cause: str
    group: str
    rate_per_gpu_year: float
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node(Fact):
    """A published figure on a whole server; which ones are set depends on the row."""

    id: str
    gpus: int | None = None
    price_usd: Spread | None = None
    nameplate_kw: float | None = None
    max_measured_kw: float | None = None
    usd_per_gb: Spread | None = None
    watts: Spread | None = None
    """Of one GPU while it serves."""
    fraction: Spread | None = None
    """Of TDP, or of the price: the id says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTco(Fact):
    """What others say owning or renting one GPU for an hour costs: anchors to compare with."""

    gpu: str
    own_hyperscaler_usd_h: float | None = None
    own_neocloud_usd_h: float | None = None
    rent_usd_h: float | None = None
    rent_3yr_usd_h: float | None = None
    all_in_it_kw_per_gpu: float | None = None
    all_in_utility_kw_per_gpu: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration(Fact):
    """The roofline's constants for one engine and family: a fitted vector, not physics (they are not separately identifiable)."""

    id: str
    engine: str
    family: str
    """dense or moe."""
    hbm_efficiency: float
    flops_efficiency: float
    fixed_ms_per_step: float
    allreduce_us: float
    per_sequence_us: float
    error_mean_abs: float
    """Mean absolute relative error of output tokens/s on rows that the fit did not see."""
    fit_rows: int = 0
    heldout_rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(Fact):
    """What somebody else measured of one replica, in the words of `freehold size`."""

    id: str
    measured_by: str
    """Who: rows of one of them are never both fitted and tested."""
    model: str
    gpu: str
    gpus: int
    engine: str
    quant: str
    input_tokens: float
    output_tokens: float
    concurrency: int
    output_tokens_per_s: float
    """Of the whole replica."""
    kv_bits: int = 16
    itl_ms: float | None = None
    constant: str = ""
    """Which constant of the roofline was set with it; then it tests nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction(Fact):
    """How far the roofline is off in a region, from measurements that others published."""

    id: str
    card: str
    """nvidia, consumer, amd, or amd-fp4: AMD's cards that multiply 4 bit."""
    ratio: float
    """Measured over calculated output tokens/s; 1 where those who measured do not agree on which side it is."""
    part: float
    """So far off, as a part, that nine in ten are inside."""
    rows: int
    sources: int
    """Who measured, each counted once."""
    engine: str = ""
    """llama-cpp; empty: the servers that batch (vLLM, SGLang, TensorRT-LLM)."""
    family: str = ""
    """dense or moe; empty: both."""
    bits: int = 0
    """Of the weights: 16, 8 or 4; 0: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRatio(Fact):
    """How two engines compare on matched measured pairs: throughput of the first over the second."""

    id: str
    median: float
    iqr: tuple[float, float]
    matched_pairs: int
    share_ge_1_3: float | None = None
    by_group: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Default(Fact):
    """What the cost model assumes where nothing is given: a range, mostly a judgement."""

    name: str
    """As in freehold/cost/model/inputs; what is only for renting begins with `rent_`."""
    value: Spread
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure(Fact):
    """A single figure that is quoted or compared with."""

    id: str
    value: Spread
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceDatabase(Fact):
    """A package of API prices that can be asked: `as_of` is the day on which that version was published."""

    id: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A fact that is physically implausible or out of line with its kind: named, and used or left out.

    Age is no doubt of a row by itself: `age.doubtful` says it of those facts that an answer rests on.
    """

    where: str
    """File:line:column of the value."""
    message: str
    dropped: bool
    """True: not used at all; where it was to replace a fact, that fact is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All the facts, by id where they have one. Every row has a source and a date."""

    today: date
    """What ages are counted from."""
    gpus: Mapping[str, GpuFacts]
    models: Mapping[str, ModelFacts]
    links: Mapping[str, Link]
    storage: Mapping[str, Storage]
    rentals: tuple[RentalPrice, ...]
    apis: tuple[ApiPrice, ...]
    electricity: tuple[PowerPrice, ...]
    pue: Mapping[str, Pue]
    colocation: Mapping[str, Colocation]
    failures: tuple[FailureRate, ...]
    nodes: Mapping[str, Node]
    published_tco: tuple[PublishedTco, ...]
    calibrations: Mapping[str, Calibration]
    engine_ratios: Mapping[str, EngineRatio]
    defaults: Mapping[str, Default] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    price_databases: Mapping[str, PriceDatabase] = field(default_factory=dict)
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    doubts: tuple[Doubt, ...] = ()
