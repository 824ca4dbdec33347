"""What a config's attention holds: parameters of a layer, and which layers see only a window.

Biases and the norms of queries and keys are below a tenth of a per mille and are not counted.
"""

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

GEMMA3_PATTERN = 6
"""Every sixth layer sees everything. Source: transformers' Gemma3TextConfig, default of sliding_window_pattern."""
GEMMA2_PATTERN = 2
"""Every second layer sees everything. Source: transformers' Gemma2 modeling file."""
LLAMA4_PATTERN = 4
"""Every fourth layer sees everything, the others chunks of attention_chunk_size. Source: transformers' Llama4TextConfig."""


def attention_params(text: Config, hidden: int, heads: int) -> float:
    """Return the parameters of one layer's attention."""
    if text.get("kv_lora_rank"):
        return _latent_params(text, hidden, heads)
    head_dim = text.get("head_dim") or hidden // heads
    kv_heads = (
        text.get("num_key_value_heads")
        or text.get("num_kv_heads")
        or (1 if text.get("multi_query") else heads)
    )
    return float(hidden * (heads + 2 * kv_heads) * head_dim + heads * head_dim * hidden)


def _latent_params(text: Config, hidden: int, heads: int) -> float:
    """Return them for multi-head latent attention. Source: arXiv 2405.04434, section 2.1 and its appendix C."""
    latent, rope = text["kv_lora_rank"], text.get("qk_rope_head_dim") or 64
    plain, value = text.get("qk_nope_head_dim") or 128, text.get("v_head_dim") or 128
    query_rank = text.get("q_lora_rank") or 0
    query_width = heads * (plain + rope)
    query = hidden * query_rank + query_rank * query_width if query_rank else hidden * query_width
    keys = hidden * (latent + rope) + latent * heads * (plain + value)
    return float(query + keys + heads * value * hidden + _indexer_params(text, hidden))


def _indexer_params(text: Config, hidden: int) -> int:
    """Return those that choose the tokens to look at, in sparse attention (DeepSeek V3.2, GLM 5)."""
    width, count = text.get("index_head_dim") or 0, text.get("index_n_heads") or 0
    return (text.get("q_lora_rank") or hidden) * width * count + hidden * (width + count)


def count_windowed(text: Config, layers: int) -> tuple[int, int]:
    """Return how many layers see only a window, and its length in tokens; (0, 0) where all see everything."""
    kinds = text.get("layer_types")
    chunk = text.get("attention_chunk_size")
    model_type = str(text.get("model_type", ""))
    if model_type.startswith("llama4") and chunk:
        return layers - layers // LLAMA4_PATTERN, int(chunk)
    window = text.get("sliding_window")
    if not isinstance(window, int) or window <= 0 or text.get("use_sliding_window") is False:
        return 0, 0
    if isinstance(kinds, list):
        count = sum(1 for kind in kinds[:layers] if kind == "sliding_attention")
        return (count, window) if count else (0, 0)
    return _by_pattern(text, layers, model_type=model_type), window


def _by_pattern(text: Config, layers: int, *, model_type: str) -> int:
    if model_type == "gemma2":
        return layers - layers // GEMMA2_PATTERN
    if model_type.startswith("gemma3") or text.get("sliding_window_pattern"):
        return layers - layers // int(text.get("sliding_window_pattern") or GEMMA3_PATTERN)
    if text.get("use_sliding_window"):  # Qwen: the first max_window_layers see everything
        return max(0, layers - int(text.get("max_window_layers") or 0))
    return layers
