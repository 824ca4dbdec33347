"""How much memory weights, KV cache and the engine itself take on each GPU of a replica.

Formulas and their sources: docs/decisions/0010 and the docstrings. It does not say how fast anything is, and it knows no
engine's flags: an engine that is set to use less has less.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from freehold.catalog.facts import GpuFacts
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.model.words import Quant

Number = float | NDArray[np.float64]

GIB = 1024**3
"""Bytes. GPU memory is sold in powers of two under the name of GB: an H100 of "80 GB" has 80 GiB."""
DRIVER_SHARE = 0.0104
"""Of that, what the driver keeps. Source: own reading on an H100, 85,017,493,504 B free of 80 GiB with nothing running."""
# GDDR6 cards keep ECC bits in the memory itself. Source: nvidia-smi shows 46,068 MiB on an L40S and 23,034 MiB on an L4.
_INLINE_ECC_SHARE = 1 / 16
_INLINE_ECC = frozenset({"l40s", "l4"})

EMBEDDING_BITS = 16
"""Embeddings and head stay at 16 bit in every common quantisation recipe (research: published checkpoints)."""
BITS: dict[Quant, float] = {
    "bf16": 16,
    "fp8": 8,
    "int8": 8,
    "int4": 4.16,
    "fp4": 4.5,
    "mxfp4": 4.25,
    "gguf": 4.85,
}
"""Per quantised weight, scales included: int4 a 16-bit scale and a 4-bit zero per 128 weights, which is what AWQ and GPTQ
checkpoints have (Llama-3.3-70B-Instruct-AWQ-INT4: 39.8 GB), NVFP4 an 8-bit scale per 16, MXFP4 8 bits per 32 (OCP MX
specification 1.0); gguf is what Q4_K_M comes to (llama.cpp's quantize table), where no file says it."""
LATENT_INT4_BITS = 4.5
"""Of mixtures with latent attention: a 16-bit scale per 32 weights. Source: Kimi-K2.5's config (group_size 32)."""
_EXPERTS_ONLY = frozenset({"mxfp4", "fp4", "int4"})
# Which 4-bit checkpoints quantise only the experts: gpt-oss (MXFP4), and those with latent attention (DeepSeek-R1-NVFP4, Kimi-K2.5).
# AWQ, GPTQ and NVFP4 of other mixtures quantise attention too. Source: modules_to_not_convert of Qwen3-30B-A3B's checkpoints.

NON_TORCH_BYTES = 0.27 * GIB
"""CUDA context and libraries within the engine's budget at one GPU. Source: llm-d-planner's vLLM 0.19 calibration on H100."""
NON_TORCH_BYTES_TP = 2.1 * GIB
"""The same with tensor parallel over NVLink: NCCL's and custom all-reduce's buffers. Source: the same."""
NON_TORCH_BYTES_SLOTS = 0.6 * GIB
"""The same with tensor parallel over PCIe, where NCCL has a few channels and there is no custom all-reduce. Stages have only what
one GPU has: 70B AWQ on two RTX 4090 held some 19 sequences of 1500 tokens at 8 bit, 2.4 GB on each (cloudrift, 2025-10)."""
BOARD_GB_S = 200.0
"""Links from here on are NVLink, NVSwitch or xGMI; below, PCIe slots. Source: GPU catalog."""
BIG_GPU_BYTES = 70 * GIB
"""From here vLLM takes larger batches of tokens. Source: vLLM, arg_utils.py, the default batch by device memory."""
# The larger defaults of vLLM's two entry points (offline; the server's are 8192 and 2048): room is better left than missing.
BATCHED_TOKENS_BIG = 16384
BATCHED_TOKENS_SMALL = 8192
BATCHED_TOKENS_LEAST = 2048
"""What an engine is set to where a model hardly fits. Source: vLLM's smallest default; prompts still pass in chunks of it."""
ACTIVATION_PART_MAX = 0.25
"""Of what weights leave, for activations, where the usual batch would take more. Why: so far prompts hardly get slower."""
ACTIVATION_WIDTHS_HIDDEN = 4
"""Activations alive at the peak of a layer besides its feed-forward part, in hidden widths: residual, normed input, output
and the copy that torch makes. Together with gate, up and their product this gives 1.9 GB for 8B at 16,384 tokens, within the
1.9 to 2.5 GiB that llm-d-planner measured for Llama and Qwen."""
LOGITS_SEQUENCES = 256
"""Sequences whose logits an engine computes in its dry run. Source: vLLM's default max_num_seqs on most GPUs."""
GRAPH_BYTES = 0.6 * GIB
"""CUDA graphs of a decode, captured after the cache is laid out, so outside the engine's share where that leaves room.
Source: order of magnitude of vLLM's own log line on an 8B model (memory)."""


def visible_bytes(gpu: GpuFacts) -> float:
    """Return the bytes that a process sees on this GPU."""
    inline = _INLINE_ECC_SHARE if gpu.id in _INLINE_ECC else 0.0
    return gpu.memory_gb * GIB * (1 - inline) * (1 - DRIVER_SHARE)


def weights_bytes(shape: ModelShape, quant: Quant) -> float:
    """Return the bytes of the whole model as loaded: what a file says, else parameters times bits."""
    if quant == "gguf" and shape.weights_bytes is not None:
        return float(shape.weights_bytes)
    return plain_weights_bytes(shape, quant) + routed_bytes(shape, quant) + embedding_bytes(shape, quant)


def plain_weights_bytes(shape: ModelShape, quant: Quant) -> float:
    """Return the bytes that every token's step reads: all but routed experts and embeddings."""
    plain = shape.params_total - shape.params_embedding - shape.params_routed_experts
    return max(0.0, plain) * (16 if _only_experts(shape, quant) else _bits(shape, quant)) / 8


def _only_experts(shape: ModelShape, quant: Quant) -> bool:
    if quant not in _EXPERTS_ONLY or shape.params_routed_experts <= 0:
        return False
    return quant == "mxfp4" or shape.attention == "mla"


def routed_bytes(shape: ModelShape, quant: Quant) -> float:
    """Return the bytes of all routed experts."""
    return shape.params_routed_experts * _bits(shape, quant) / 8


def embedding_bytes(shape: ModelShape, quant: Quant) -> float:
    """Return the bytes of embeddings and head together."""
    bits = _bits(shape, quant) if quant == "gguf" else EMBEDDING_BITS
    return shape.params_embedding * bits / 8


def head_bytes(shape: ModelShape, quant: Quant) -> float:
    """Return the bytes of the output head, which a step reads whole; of the embeddings it reads a row per token."""
    one = min(shape.params_embedding, float(shape.vocab * shape.hidden))
    bits = _bits(shape, quant) if quant == "gguf" else EMBEDDING_BITS
    return one * bits / 8


def _bits(shape: ModelShape, quant: Quant) -> float:
    if quant == "int4" and shape.params_routed_experts > 0 and shape.attention == "mla":
        return LATENT_INT4_BITS
    return shape.bits_per_weight if quant == "gguf" and shape.bits_per_weight else BITS[quant]


def kv_bytes_per_token(shape: ModelShape, bits: int) -> int:
    """Return the KV cache of one token in all layers, before any sharding and any window.

    MLA keeps a latent and the rotary part, `L (r + rope)`; everything else `2 L K h`. Source: arXiv 2405.04434, table 1.
    """
    return shape.layers * _layer_kv_bits(shape, bits) // 8


def _layer_kv_bits(shape: ModelShape, bits: int) -> int:
    if shape.attention == "mla" and shape.kv_lora_rank:
        return (shape.kv_lora_rank + shape.rope_head_dim) * bits
    return 2 * shape.kv_heads * shape.head_dim * bits


def kv_bytes_of_sequence(shape: ModelShape, tokens: Number, bits: int) -> Number:
    """Return the KV cache of one sequence of this length: windowed layers stop growing at their window."""
    layer = _layer_kv_bits(shape, bits) / 8
    full = shape.layers - shape.windowed_layers
    if not shape.sliding_window:
        return layer * shape.layers * tokens
    return layer * (full * tokens + shape.windowed_layers * np.minimum(tokens, shape.sliding_window))


def kv_share_per_gpu(shape: ModelShape, tensor_parallel: int, pipeline_parallel: int) -> float:
    """Return the part of a sequence's KV cache that each GPU holds.

    KV heads are divided over tensor parallel ranks down to one each, then repeated; MLA's latent is repeated on every
    rank. Layers are divided over pipeline stages. Source: vLLM and aiconfigurator-core agree (research 3.2).
    """
    ranks = 1 if shape.attention == "mla" else min(tensor_parallel, shape.kv_heads)
    return 1 / (ranks * pipeline_parallel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What one GPU of a replica has, bytes."""

    budget: float
    """What the engine may use."""
    weights: float
    activations: float
    non_torch: float
    graphs: float
    """Beyond what lies outside the budget."""

    @property
    def kv(self) -> float:
        """Return what is left for the KV cache; negative where not even the weights fit."""
        return self.budget - self.weights - self.activations - self.non_torch - self.graphs


def room(
    shape: ModelShape, gpu: GpuFacts, *, quant: Quant, split: tuple[int, int], utilisation: float
) -> Room:
    """Return how one GPU's memory is used; `split` is (tensor parallel, pipeline parallel), `utilisation` 0 to 1.

    Where weights leave little, the engine is assumed to be set to a smaller batch of tokens: a quarter of what is left, but
    never less than the least.
    """
    tensor, pipeline = split
    seen = visible_bytes(gpu)
    budget, weights = seen * utilisation, weights_bytes(shape, quant) / (tensor * pipeline)
    non_torch = _non_torch_bytes(gpu, tensor)
    graphs = max(0.0, GRAPH_BYTES - seen * (1 - utilisation))
    usual = activation_bytes(shape, batched_tokens(seen), tensor_parallel=tensor)
    least = activation_bytes(shape, BATCHED_TOKENS_LEAST, tensor_parallel=tensor)
    part = (budget - weights - non_torch - graphs) * ACTIVATION_PART_MAX
    return Room(
        budget=budget,
        weights=weights,
        activations=min(usual, max(least, part)),
        non_torch=non_torch,
        graphs=graphs,
    )


def _non_torch_bytes(gpu: GpuFacts, tensor: int) -> float:
    if tensor == 1:
        return NON_TORCH_BYTES
    return NON_TORCH_BYTES_TP if gpu.scale_up_gb_s_per_dir >= BOARD_GB_S else NON_TORCH_BYTES_SLOTS


def batched_tokens(seen_bytes: float) -> int:
    """Return how many tokens an engine calculates at once at most on a GPU of this size."""
    return BATCHED_TOKENS_BIG if seen_bytes >= BIG_GPU_BYTES else BATCHED_TOKENS_SMALL


def activation_bytes(shape: ModelShape, tokens: int, *, tensor_parallel: int) -> float:
    """Return the peak of activations in an engine's dry run: a batch of tokens in one layer, or the logits."""
    widths = 3 * feed_forward_width(shape) / tensor_parallel + ACTIVATION_WIDTHS_HIDDEN * shape.hidden
    logits = (
        LOGITS_SEQUENCES * shape.vocab * (2 + 4 + 4)
    )  # bf16, then float32 and one copy of it for sampling
    return max(tokens * widths * 2, float(logits))


def feed_forward_width(shape: ModelShape) -> float:
    """Return how wide one token's feed-forward part is (all its experts together), from the parameters that it touches."""
    attention = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    if shape.attention == "mla":
        attention = (
            2 * shape.hidden * shape.heads * shape.head_dim
        )  # near enough: the latent matrices are small
    rest = (shape.params_active - shape.params_embedding) / shape.layers - attention
    return max(rest / (3 * shape.hidden), float(shape.hidden))
