"""A model's shape: what memory and speed depend on, from whichever source it was read. Bytes are worked out elsewhere.

It does not say how fast anything is.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder-only transformer's dimensions."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    """Longest sequence, tokens."""
    params_total: float
    params_active: float
    """Parameters that one token touches; equal to the total for a dense model."""
    params_embedding: float
    """Of the total: input embeddings and output head, which stay at 16 bit when the rest is quantised."""
    attention: str = "gqa"
    """mha, gqa, mla or gqa+swa."""
    kv_lora_rank: int = 0
    rope_head_dim: int = 0
    sliding_window: int = 0
    """Tokens; 0: none."""
    windowed_layers: int = 0
    """Layers whose attention sees only the window."""
    experts: int = 0
    experts_per_token: int = 0
    params_routed_experts: float = 0.0
    """Of the total: in routed experts, of which a step reads only those that its tokens chose."""
    weights_bytes: int | None = None
    """As stored, where a file says it (GGUF); None: from parameters and quantisation."""
    bits_per_weight: float | None = None
    """Mean over the stored file, where it says it."""
    family: str = "dense"
    """dense or moe: which calibration holds."""
    quant: str = ""
    """How the checkpoint is stored, where it says so (fp8, fp4, mxfp4, int8, int4, gguf); empty: 16 bit."""
    source: str = ""
    """The catalog row, file or URL that this was read from."""
