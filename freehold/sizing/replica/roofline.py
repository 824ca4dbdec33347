"""How long a decode step and a prompt take: bytes over bandwidth, operations over rate, and what engines add to that.

    decode step  t(c) = max(bytes / BW, operations / F) + all-reduces + boundaries + fixed + per sequence x c
    prompt       p    = operations / F + activations / BW + all-reduces
    steady state      each of c sequences makes its answer of o tokens while the others' prompts pass:  o t(c) + c p

A batch that starts at once takes the same wall time: all prompts, then all steps. Five numbers per engine and family are
fitted on measured rows (freehold/catalog/data/calibrations.yaml); they are not separately identifiable, so they are data,
never physics. Every function takes floats or numpy arrays of concurrency and lengths alike. No queue is here: see `pace`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from freehold.catalog.facts import Calibration, GpuFacts
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.model.words import Quant
from freehold.sizing.replica.memory import (
    BOARD_GB_S,
    Number,
    head_bytes,
    kv_bytes_of_sequence,
    kv_share_per_gpu,
    plain_weights_bytes,
    routed_bytes,
    weights_bytes,
)

PRECISION_YIELD: Mapping[str, float] = {"bf16": 1.0, "fp8": 0.75, "fp4": 0.5}
"""How much of the peak a precision reaches, relative to bf16's share: what is not matrix product (norms, attention,
quantising) does not get faster with fewer bits. Source: of 0.65 to 0.85 and 0.4 to 0.6, the pair with the least error on
rows of aiconfigurator-core 0.12.0's silicon_sample.csv that the fit had not seen, leaving one group out at a time."""
REFERENCE_LAYERS = 80
"""Layers of the model that a calibration's fixed and per-sequence times are for (Llama 70B); they grow with layers, as each
layer starts its own kernels. Source: leaving one group of vLLM's rows out at a time, 7.7 % so and 9.6 % without any scaling;
whether the per-sequence time is scaled too makes no difference there, and on the H100 file it is 12 % against 20 %."""
ACTIVATION_BYTES = 20
"""Read and written per layer, hidden width and token besides matrix products: ten passes at 16 bit (norms, residuals,
rotary, activation). Not divided by tensor parallel. Source: count of a transformer layer's unfused operations."""
LINK_YIELD = 0.8
"""Of a scale-up link's raw rate, what a collective reaches. Source: links catalog (NVLink 4: 360 of 450 GB/s)."""
SLOT_LATENCY_S = 35e-6
"""What each all-reduce over PCIe takes besides. Source: iog rows of measurements.yaml, 70B FP8 on two H100 PCIe."""
HOST_LATENCY_S = 75e-6
"""The same with consumer cards, whose driver has no peer-to-peer, so that data pass through the host's memory. Source: iog rows of
measurements.yaml, 8B on two and four RTX 4090."""
HOST_LINK_YIELD = 0.15
"""Of the link's raw rate, through the host's memory. Source: the same rows."""
ACTIVATION_WIDTH_BYTES = 2
"""What crosses a link per element: 16 bit."""
NETWORK_LATENCY_S = 10e-6
"""Of a message between nodes where no link is named. Source: links catalog, 100GbE RoCE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflineSetting:
    """A model in an engine on the GPUs of one replica: everything but the load."""

    shape: ModelShape
    gpu: GpuFacts
    quant: Quant
    kv_bits: int
    tensor_parallel: int
    pipeline_parallel: int
    calibration: Calibration
    pipelined: bool = True
    """Whether stages work on different sequences at once; llama.cpp's do so for prompts only."""
    network_b_s: float = 11.5e9
    """Between pipeline stages, one way. Default: 100GbE RoCE of the links catalog; a stage boundary is small anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One decode step, seconds, by what it waits for."""

    memory_s: Number
    compute_s: Number
    link_s: Number
    overhead_s: Number

    @property
    def total_s(self) -> Number:
        """Return the whole step: reading and calculating overlap, the rest does not."""
        return np.maximum(self.memory_s, self.compute_s) + self.link_s + self.overhead_s


def compute_format(gpu: GpuFacts, quant: str) -> str:
    """Return in which format this GPU multiplies such weights: what it has no units for, it unpacks to 16 bit."""
    if quant in {"fp4", "mxfp4"} and gpu.fp4_dense_tflops:
        return "fp4"
    return "fp8" if quant == "fp8" and gpu.fp8_dense_tflops else "bf16"


def flops_per_s(gpu: GpuFacts, quant: str) -> float:
    """Return what one GPU reaches on matrix products before the engine's own efficiency, operations/s."""
    kind = compute_format(gpu, quant)
    peak = {"bf16": gpu.bf16_dense_tflops, "fp8": gpu.fp8_dense_tflops, "fp4": gpu.fp4_dense_tflops}[kind]
    return (peak or gpu.bf16_dense_tflops) * 1e12 * PRECISION_YIELD[kind]


def experts_read(shape: ModelShape, tokens: Number) -> Number:
    """Return the share of the routed experts that a step of so many tokens reads: 1 - (1 - k / E)^c."""
    if not shape.experts:
        return 0.0 * np.asarray(tokens, dtype=float)
    return 1.0 - (1.0 - shape.experts_per_token / shape.experts) ** np.asarray(tokens, dtype=float)


def streamed_bytes(shape: ModelShape, quant: Quant, tokens: Number) -> Number:
    """Return the weights that one step reads for so many tokens: all but input embeddings and unchosen experts."""
    if quant == "gguf" and shape.weights_bytes is not None:
        one = weights_bytes(shape, quant) * (1 - shape.params_routed_experts / shape.params_total)
        return one + weights_bytes(
            shape, quant
        ) * shape.params_routed_experts / shape.params_total * experts_read(shape, tokens)
    fixed = plain_weights_bytes(shape, quant) + head_bytes(shape, quant)
    return fixed + routed_bytes(shape, quant) * experts_read(shape, tokens)


def decode_step(setting: RooflineSetting, concurrency: Number, *, length: Number) -> Step:
    """Return one decode step of `concurrency` sequences that are `length` tokens long on average.

    With pipeline stages, the sequences go through in as many groups: each stage reads its weights once per group, so
    weights are read in full, and cache and products are spread.
    """
    shape, calibration, tensor = setting.shape, setting.calibration, setting.tensor_parallel
    group = concurrency / (setting.pipeline_parallel if setting.pipelined else 1)
    bandwidth = setting.gpu.mem_bw_gb_s * 1e9 * calibration.hbm_efficiency
    flops = flops_per_s(setting.gpu, setting.quant) * calibration.flops_efficiency
    share = kv_share_per_gpu(shape, tensor, 1)
    kv = group * kv_bytes_of_sequence(shape, length, setting.kv_bits) * share
    weights = streamed_bytes(shape, setting.quant, np.maximum(group, 1.0)) / tensor
    activations = ACTIVATION_BYTES * shape.layers * shape.hidden * group
    scale = shape.layers / REFERENCE_LAYERS
    return Step(
        memory_s=(weights + kv + activations) / bandwidth,
        compute_s=2 * _products(shape) * group / (tensor * flops),
        link_s=_all_reduces_s(setting, group, latency=True) + _boundaries_s(setting, group),
        overhead_s=scale
        * (calibration.fixed_ms_per_step * 1e-3 + calibration.per_sequence_us * 1e-6 * concurrency),
    )


def _products(shape: ModelShape) -> float:
    """Return the parameters that a token is multiplied with: active ones and the head, not the row of the embeddings."""
    head = min(shape.params_embedding, float(shape.vocab * shape.hidden))
    return max(shape.params_active - shape.params_embedding + head, 1.0)


def prefill_s(setting: RooflineSetting, new_tokens: Number, *, context: Number) -> Number:
    """Return the time that a prompt's `new_tokens` take beside a running batch, its whole length being `context`.

    Tokens that a prefix cache holds are part of the context but not new.
    """
    shape, calibration = setting.shape, setting.calibration
    flops = flops_per_s(setting.gpu, setting.quant) * calibration.flops_efficiency
    flops_16 = setting.gpu.bf16_dense_tflops * 1e12 * calibration.flops_efficiency
    bandwidth = setting.gpu.mem_bw_gb_s * 1e9 * calibration.hbm_efficiency
    products = 2 * (_products(shape) - shape.vocab * shape.hidden) * new_tokens / flops
    attention = attention_operations(shape, new_tokens, context=context) / flops_16
    activations = ACTIVATION_BYTES * shape.layers * shape.hidden * new_tokens / bandwidth
    gpus = setting.tensor_parallel * setting.pipeline_parallel
    moved = _all_reduces_s(setting, new_tokens, latency=False) / setting.pipeline_parallel
    return (products + attention) / gpus + activations / setting.pipeline_parallel + moved


def attention_operations(shape: ModelShape, new_tokens: Number, *, context: Number) -> Number:
    """Return the operations of attending: 4 H h per layer for each pair of a new token and one before it."""
    seen = np.asarray(context, dtype=float) - np.asarray(new_tokens, dtype=float) / 2
    near = np.minimum(seen, shape.sliding_window) if shape.sliding_window else seen
    layers = (shape.layers - shape.windowed_layers) * seen + shape.windowed_layers * near
    return 4 * shape.heads * shape.head_dim * new_tokens * layers


def _all_reduces_s(setting: RooflineSetting, tokens: Number, *, latency: bool) -> Number:
    """Return the time of two all-reduces per layer on a ring: 2 (n - 1) / n of the activations. Source: arXiv 1909.08053."""
    ranks = setting.tensor_parallel
    if ranks == 1:
        return 0.0
    slots = setting.gpu.scale_up_gb_s_per_dir < BOARD_GB_S
    host = slots and setting.gpu.consumer
    bandwidth = setting.gpu.scale_up_gb_s_per_dir * 1e9 * (HOST_LINK_YIELD if host else LINK_YIELD)
    wait = setting.calibration.allreduce_us * 1e-6
    wait += HOST_LATENCY_S if host else SLOT_LATENCY_S if slots else 0.0
    moved = 2 * (ranks - 1) / ranks * tokens * setting.shape.hidden * ACTIVATION_WIDTH_BYTES
    each = moved / bandwidth + (wait if latency else 0.0)
    return 2 * setting.shape.layers * each


def _boundaries_s(setting: RooflineSetting, tokens: Number) -> Number:
    """Return the time that activations take from stage to stage."""
    boundaries = setting.pipeline_parallel - 1
    moved = tokens * setting.shape.hidden * ACTIVATION_WIDTH_BYTES
    return boundaries * (moved / setting.network_b_s + NETWORK_LATENCY_S)


def inter_token_s(
    setting: RooflineSetting, concurrency: Number, *, input_tokens: Number, output_tokens: Number
) -> Number:
    """Return the mean time between tokens of an answer in steady state: a step and its share of others' prompts.

    `input_tokens` are new ones: what a prefix cache holds is not calculated.
    """
    length = input_tokens + output_tokens / 2
    step = decode_step(setting, concurrency, length=length).total_s
    return step + concurrency * prefill_s(setting, input_tokens, context=input_tokens) / output_tokens


def output_per_s(
    setting: RooflineSetting, concurrency: Number, *, input_tokens: Number, output_tokens: Number
) -> Number:
    """Return output tokens/s of the replica in steady state, which is also that of a batch that starts at once."""
    pace = inter_token_s(setting, concurrency, input_tokens=input_tokens, output_tokens=output_tokens)
    return concurrency / pace
