"""Doubts: what no accelerator, price list or power meter can show, whoever says it.

Public data is dirty: databases give a B200 90 GB, an H100 267 TFLOPS (not its tensor cores), an MI300X 10.3 TB/s, and
pages claim 130 tokens/s of a 70B model on one H100. Each check names the field and says what is wrong. What is
impossible is not used; what is only odd is, and named. Nothing here knows where a value was written, nor its age.
"""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from importlib.resources import files

import msgspec

from freehold.catalog.facts import (
    ApiPrice,
    Calibration,
    Colocation,
    Default,
    Fact,
    FailureRate,
    GpuFacts,
    Link,
    ModelFacts,
    PowerPrice,
    Pue,
    RentalPrice,
    Storage,
    Verified,
)
from freehold.core.spread import Spread

Bounds = tuple[float, float]
"""Least and most, both allowed."""


class PhysicsLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of physics.toml, which says where each comes from."""

    vendor_memory_gb: frozenset[float]
    stack_gb_s_per_gb: float
    hbm4_gb_s_per_gb: float
    small_gb_s_per_gb: float
    flops_per_byte: Bounds
    consumer_flops_per_byte: Bounds
    tflops_per_w: Bounds
    tdp_w: Bounds
    out_of_line: Bounds
    contradiction: float
    usd_per_kwh: Bounds
    pue_ratio: Bounds
    colo_usd_per_kw_month: Bounds
    api_usd_per_m: Bounds
    tokens_mfu_max: float
    precision_gain: dict[str, tuple[str, float]]
    defaults: dict[str, Bounds]


_LIMITS = msgspec.toml.decode((files(__package__) / "physics.toml").read_bytes(), type=PhysicsLimits)
_SPECS = ("memory_gb", "mem_bw_gb_s", "bf16_dense_tflops", "fp8_dense_tflops", "fp4_dense_tflops")


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd:
    """One thing that is wrong with a fact."""

    field: str
    message: str
    impossible: bool = False


_BOUNDED: Mapping[type[Fact], tuple[str, Bounds, str]] = {
    Storage: ("seq_read_gb_s", (0.01, 500.0), "GB/s of sequential reading"),
    PowerPrice: ("usd_per_kwh", _LIMITS.usd_per_kwh, "USD per kWh"),
    Colocation: ("usd_per_kw_month", _LIMITS.colo_usd_per_kw_month, "USD per kW and month"),
    FailureRate: ("rate_per_gpu_year", (0.0, 10.0), "failures per GPU and year"),
}
"""Kinds of which one field has bounds, and no more is known."""


@singledispatch
def oddities(fact: Fact) -> Iterator[Odd]:
    """Yield what is implausible about one fact by itself; nothing for kinds that nature does not limit."""
    if type(fact) in _BOUNDED:
        field, bounds, what = _BOUNDED[type(fact)]
        value = getattr(fact, field)
        yield from _outside(field, value.mid if isinstance(value, Spread) else value, bounds, what)


def _outside(field: str, value: float, bounds: Bounds, what: str) -> Iterator[Odd]:
    low, high = bounds
    if not low <= value <= high:
        yield Odd(field=field, message=f"{value:.3g} {what} is outside {low:g} to {high:g}")


@oddities.register
def _gpu(gpu: GpuFacts) -> Iterator[Odd]:
    for field in ("memory_gb", "mem_bw_gb_s", "bf16_dense_tflops", "tdp_w"):
        if getattr(gpu, field) <= 0:
            yield Odd(field=field, message="0 is not possible for an accelerator", impossible=True)
            return
    if gpu.memory_gb not in _LIMITS.vendor_memory_gb:
        yield Odd(field="memory_gb", message=f"no vendor sells {gpu.memory_gb:g} GB")
    yield from _bandwidth(gpu)
    yield from _precisions(gpu)
    ratio = gpu.bf16_dense_tflops * 1e3 / gpu.mem_bw_gb_s
    bounds = _LIMITS.consumer_flops_per_byte if gpu.consumer else _LIMITS.flops_per_byte
    yield from _outside("bf16_dense_tflops", ratio, bounds, "dense bf16 FLOPS per byte/s of memory")
    yield from _outside(
        "bf16_dense_tflops", gpu.bf16_dense_tflops / gpu.tdp_w, _LIMITS.tflops_per_w, "TFLOPS per watt"
    )
    yield from _outside("tdp_w", gpu.tdp_w, _LIMITS.tdp_w, "W")


def _bandwidth(gpu: GpuFacts) -> Iterator[Odd]:
    most = _LIMITS.stack_gb_s_per_gb if gpu.memory_gb < 280 else _LIMITS.hbm4_gb_s_per_gb
    if gpu.consumer or gpu.memory_gb <= 24:
        most = _LIMITS.small_gb_s_per_gb
    if gpu.mem_bw_gb_s > most * gpu.memory_gb:
        message = (
            f"{gpu.mem_bw_gb_s:g} GB/s is more than memory of {gpu.memory_gb:g} GB can give ({most:g} per GB)"
        )
        yield Odd(field="mem_bw_gb_s", message=message, impossible=True)


def _precisions(gpu: GpuFacts) -> Iterator[Odd]:
    for field, (wider, most) in _LIMITS.precision_gain.items():
        value, base = getattr(gpu, field), getattr(gpu, wider)
        if value is not None and base is not None and value > most * base:
            message = f"{value:g} is {value / base:.1f} times {wider}: is one of them with sparsity, or not of the tensor cores?"
            yield Odd(field=field, message=message)


@oddities.register
def _model(model: ModelFacts) -> Iterator[Odd]:
    if model.params_active_b > model.params_total_b:
        yield Odd(field="params_active_b", message="is more than params_total_b", impossible=True)
    expected = _kv_bytes(model)
    stated = model.kv_bytes_per_token_bf16
    if expected and abs(stated / expected - 1) > 0.01:
        message = (
            f"{stated} is {stated / expected:.2g} times the {expected:.0f} that its layers and heads give"
        )
        yield Odd(field="kv_bytes_per_token_bf16", message=message, impossible=True)


def _kv_bytes(model: ModelFacts) -> float:
    """Return KV bytes per token at 16 bit. Source: 2 x layers x KV heads x head size x 2 B; MLA: the latent and the rope part."""
    if model.attention == "mla":
        extra = model.extra
        return 2 * model.layers * (extra.get("kv_lora_rank", 0) + extra.get("qk_rope_head_dim", 0))
    return 4 * model.layers * model.kv_heads * model.head_dim


@oddities.register
def _link(link: Link) -> Iterator[Odd]:
    if link.effective_gb_s_per_dir * 8 > link.raw_gbit_s * 1.001:
        message = f"{link.effective_gb_s_per_dir:g} GB/s is more than {link.raw_gbit_s:g} Gbit/s carries"
        yield Odd(field="effective_gb_s_per_dir", message=message, impossible=True)


@oddities.register
def _rental(rental: RentalPrice) -> Iterator[Odd]:
    if rental.usd_per_gpu_hour == 0:
        yield Odd(field="usd_per_gpu_hour", message="a GPU is not rented for nothing", impossible=True)


@oddities.register
def _api(price: ApiPrice) -> Iterator[Odd]:
    cached = price.cached_input_usd_per_m
    if cached is not None and cached > price.input_usd_per_m:
        yield Odd(field="cached_input_usd_per_m", message="cached input is dearer than input")
    if price.output_usd_per_m < price.input_usd_per_m:
        yield Odd(field="output_usd_per_m", message="output is cheaper than input: are they swapped?")
    for field in ("input_usd_per_m", "output_usd_per_m"):
        value = getattr(price, field)
        if value:
            yield from _outside(field, value, _LIMITS.api_usd_per_m, "USD per million tokens")


@oddities.register
def _pue(pue: Pue) -> Iterator[Odd]:
    yield from _pue_odd("pue", pue.pue)


def _pue_odd(field: str, value: float) -> Iterator[Odd]:
    if value < 1:
        message = f"{value:g}: a facility cannot use less than what stands in it"
        yield Odd(field=field, message=message, impossible=True)
    else:
        yield from _outside(field, value, _LIMITS.pue_ratio, "PUE")


@oddities.register
def _calibration(vector: Calibration) -> Iterator[Odd]:
    for field in ("hbm_efficiency", "flops_efficiency"):
        if not 0 < getattr(vector, field) <= 1:
            yield Odd(
                field=field, message=f"{getattr(vector, field):g} is not a share of a peak", impossible=True
            )


@oddities.register
def _default(default: Default) -> Iterator[Odd]:
    if default.name == "pue_ratio":
        yield from _pue_odd("value", default.value.low)
    if "_fraction" in default.name and default.value.high > 1:
        yield Odd(field="value", message=f"{default.value.high:g} is more than the whole", impossible=True)
    if default.name in _LIMITS.defaults:
        yield from _outside("value", default.value.mid, _LIMITS.defaults[default.name], default.unit)


def contradictions(gpu: GpuFacts, shipped: GpuFacts) -> Iterator[Odd]:
    """Yield where a user's specification of a known GPU cannot be that GPU's; what was from memory or a user's may be corrected."""
    for field in () if shipped.verified in {Verified.MEMORY, Verified.USER} else _SPECS:
        stated, known = getattr(gpu, field), getattr(shipped, field)
        if stated and known and not 1 - _LIMITS.contradiction <= stated / known <= 1 + _LIMITS.contradiction:
            message = f"{stated:g} is not {gpu.id}'s, which has {known:g}; give another card an id of its own"
            yield Odd(field=field, message=message, impossible=True)


def out_of_line(facts: Iterable[Fact]) -> Iterator[tuple[Fact, Odd]]:
    """Yield the prices that are far from the median of their kind: rentals by GPU, new GPUs by their memory bandwidth."""
    rentals: dict[str, list[RentalPrice]] = {}
    gpus: list[tuple[GpuFacts, Spread]] = []
    for fact in facts:
        if isinstance(fact, RentalPrice):
            rentals.setdefault(fact.gpu, []).append(fact)
        elif isinstance(fact, GpuFacts) and fact.price_new_usd is not None and fact.mem_bw_gb_s > 0:
            gpus.append((fact, fact.price_new_usd))
    for gpu, offers in rentals.items():
        prices = [(offer, offer.usd_per_gpu_hour) for offer in offers]
        yield from _far(prices, "usd_per_gpu_hour", f"rentals of {gpu}, USD per GPU-hour")
    per_bandwidth = [(gpu, price.mid / gpu.mem_bw_gb_s) for gpu, price in gpus]
    yield from _far(per_bandwidth, "price_new_usd", "new GPUs, USD per GB/s of memory")


def _far(priced: Sequence[tuple[Fact, float]], field: str, kind: str) -> Iterator[tuple[Fact, Odd]]:
    if len(priced) < 3:  # the median of two says nothing
        return
    median = statistics.median(value for _, value in priced)
    for fact, value in priced:
        if median and not _LIMITS.out_of_line[0] <= value / median <= _LIMITS.out_of_line[1]:
            message = f"is {value / median:.2g} times the median of {kind} ({median:.3g})"
            yield fact, Odd(field=field, message=message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """A claimed speed of a model on some GPUs."""

    gpu: GpuFacts
    gpus: int
    active_gb: float
    """What one decode step of one sequence reads of the weights, GB: active parameters (billions) times bytes each."""
    params_active_b: float
    bits: int = 16
    """Of the arithmetic: 16, 8 or 4."""
    concurrency: int = 1
    output_tokens_per_s: float = 0.0
    """Of all sequences together."""
    input_tokens_per_s: float = 0.0
    """Prefill, of tokens that no cache held."""


def implausible_tokens_per_s(speed: Speed) -> str:
    """Return why no GPU can do that, or "" where one could.

    Output: each step reads the active weights once, whatever the batch, so one sequence gets at most bandwidth over
    bytes, and `concurrency` of them at most that many times as much. Input: two FLOPS per parameter and token, at no
    more than `tokens_mfu_max` of the peak.
    """
    most = speed.concurrency * speed.gpus * speed.gpu.mem_bw_gb_s / speed.active_gb
    if speed.output_tokens_per_s > most:
        return (
            f"{speed.output_tokens_per_s:g} output tokens/s is more than the {most:.3g} that reading {speed.active_gb:g} GB "
            f"per step allows {speed.concurrency} at once on {speed.gpus} {speed.gpu.id}"
        )
    flops = _peak_tflops(speed.gpu, speed.bits) * 1e12 * speed.gpus * _LIMITS.tokens_mfu_max
    reached = 2e9 * speed.params_active_b * (speed.input_tokens_per_s + speed.output_tokens_per_s)
    if reached > flops:
        return f"{speed.input_tokens_per_s:g} input tokens/s needs {reached / flops * _LIMITS.tokens_mfu_max:.0%} of the peak: was the prompt cached?"
    return ""


def _peak_tflops(gpu: GpuFacts, bits: int) -> float:
    known = [gpu.bf16_dense_tflops]
    known += [gpu.fp8_dense_tflops] if bits <= 8 and gpu.fp8_dense_tflops else []
    known += [gpu.fp4_dense_tflops] if bits <= 4 and gpu.fp4_dense_tflops else []
    return known[-1]
