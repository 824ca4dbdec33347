"""What the tests of sizing share: the shipped catalog, a SizeAsk by names, configs of known models cut to what counts."""

from datetime import date
from functools import cache
from typing import Any

from freehold.catalog.facts import Catalog
from freehold.catalog.load import load_catalog
from freehold.sizing.fleet.traffic import Traffic
from freehold.sizing.model.from_catalog import shape_of
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.replica.answer import SizeAsk

TODAY = date(2026, 11, 27)

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
GPT_OSS_120B: dict[str, Any] = {
    "model_type": "gpt_oss",
    "num_hidden_layers": 36,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 201088,
    "num_local_experts": 128,
    "num_experts_per_tok": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 18,
    "sliding_window": 128,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "mxfp4"},
}
DEEPSEEK_V3: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 61,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "vocab_size": 129280,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "max_position_embeddings": 163840,
    "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "fp8"},
}


@cache
def catalog() -> Catalog:
    """Return the shipped catalog."""
    loaded = load_catalog(today=TODAY).catalog
    assert loaded is not None
    return loaded


def model(name: str) -> ModelShape:
    """Return a model of the catalog."""
    return shape_of(catalog().models[name])


def ask(name: str, gpu: str = "h100-sxm", **changes: Any) -> SizeAsk:
    """Return a deployment of a catalog model: vLLM, bf16, one GPU, 512 in, 256 out, one sequence, unless said otherwise."""
    said: dict[str, Any] = {
        "gpus": 1,
        "engine": "vllm",
        "quant": "bf16",
        "input_tokens": 512,
        "output_tokens": 256,
        "concurrency": 1,
    }
    return SizeAsk(shape=model(name), gpu=catalog().gpus[gpu], **{**said, **changes})


def traffic(tokens_per_month: float = 9e9, **changes: Any) -> Traffic:
    """Return a traffic of 1500 in and 500 out per request, no cache, peak 2.5 times the mean, unless said otherwise."""
    said: dict[str, Any] = {
        "input_tokens_per_month": tokens_per_month * 0.75,
        "output_tokens_per_month": tokens_per_month * 0.25,
        "cached_share": 0.0,
        "input_tokens_per_request": 1500,
        "output_tokens_per_request": 500,
        "peak_over_mean": 2.5,
    }
    return Traffic(**{**said, **changes})
