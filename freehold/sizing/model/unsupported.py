"""Which configs cannot be counted as a decoder of alike layers: hybrids, state spaces, encoders, and absurd dimensions.

It says which key shows it. What it does not know by key or model type is counted as a transformer: see `from_config`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from freehold.core.problems import Problem

Config = Mapping[str, Any]

# Keys of layers that differ among themselves, or are no attention: counting them as alike would be wrong.
# Source: transformers' configuration files of the models that have them.
_KEYS: Mapping[str, str] = {
    "global_head_dim": "global layers of another head size",
    "swa_num_key_value_heads": "windowed layers with other heads",
    "linear_num_key_heads": "linear-attention layers",
    "linear_attn_config": "linear-attention layers",
    "block_configs": "layers of different sizes",
    "compress_ratios": "attention to compressed tokens",
    "attention_other_setting": "layers of different heads",
    "is_encoder_decoder": "an encoder",
    "lru_width": "recurrent layers",
    "block_types": "layers of different kinds",
    "attn_layer_period": "state-space layers between those of attention",
    "attn_layer_indices": "state-space layers between those of attention",
    "full_attn_idxs": "convolution layers between those of attention",
    "conv_L_cache": "convolution layers",
    **dict.fromkeys(
        (
            *("hybrid_override_pattern", "hybrid_layer_ids", "num_mem_blocks", "ssm_cfg", "ssm_state_size"),
            *(
                "mamba_num_heads",
                "mamba_n_heads",
                "mamba_d_state",
                "mamba_d_ssm",
                "mamba_expand",
                "state_size",
            ),
        ),
        "state-space layers",
    ),
}
_ATTENTION = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
# By the beginning of model_type. Source: transformers' model list.
_TYPES: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *(
                "mamba",
                "falcon_mamba",
                "falcon_h1",
                "jamba",
                "zamba",
                "bamba",
                "nemotron_h",
                "granitemoehybrid",
            ),
            *("plamo2", "xlstm"),
        ),
        "state-space layers",
    ),
    **dict.fromkeys(("rwkv", "retnet"), "recurrent layers instead of attention"),
    **dict.fromkeys(("recurrent_gemma", "recurrentgemma"), "recurrent layers"),
    **dict.fromkeys(("qwen3_next", "kimi_linear", "minimax_text"), "linear-attention layers"),
    **dict.fromkeys(("lfm2",), "convolution layers"),
    **dict.fromkeys(
        (
            *("bert", "roberta", "xlm-roberta", "xlm_roberta", "distilbert", "albert", "electra", "deberta"),
            *("modernbert", "nomic_bert", "camembert", "mpnet", "longformer", "big_bird", "xlnet", "esm"),
            *("t5", "mt5", "umt5", "longt5", "bart", "mbart", "pegasus", "marian", "m2m_100", "whisper"),
            *("vit", "clip", "siglip", "eurobert"),
        ),
        "an encoder",
    ),
}
_ENCODER_ENDINGS = (
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
# The most that is believed, two to eight times the largest published model's. Source: our own choice, from the catalog's models
# and transformers' configs (largest: 126 layers, hidden 18,432, 128 heads, 262,144 tokens of vocabulary, 512 experts).
_MOST: Mapping[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "max_window_layers"), 1_000),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), 131_072),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 1_024),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_head_kv", "index_n_heads"), 1_024),
    "vocab_size": 2_097_152,
    **dict.fromkeys(
        ("head_dim", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "index_head_dim"), 4_096
    ),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 65_536),
    **dict.fromkeys(
        ("intermediate_size", "intermediate_size_mlp", "n_inner", "ffn_hidden_size", "ffn_dim"), 1_048_576
    ),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 1_048_576
    ),
    **dict.fromkeys(("n_routed_experts", "num_local_experts", "num_experts"), 16_384),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "num_experts_per_tok"), 1_024),
    **dict.fromkeys(("experts_per_token", "num_experts_per_token", "top_k_experts"), 1_024),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"), 1_000_000_000
    ),
    **dict.fromkeys(("sliding_window", "attention_chunk_size"), 1_000_000_000),
    **dict.fromkeys(("first_k_dense_replace", "decoder_sparse_step", "interleave_moe_layer_step"), 1_000),
    **dict.fromkeys(("sliding_window_pattern", "moe_layer_freq"), 1_000),
}


def refused(text: Config, where: str) -> tuple[Problem, ...]:
    """Return a Problem for every key that shows layers which cannot be counted, and for every absurd dimension."""
    told = [f"cannot be sized from its config: {words}" for words in sorted({*_shown(text)})]
    return (
        *(Problem(where=where, message=message, hint="measure it instead") for message in told),
        *(
            Problem(where=where, message=f"{name} is {_short(text[name])}; no model has more than {most:,}")
            for name, most in _MOST.items()
            if isinstance(text.get(name), int) and text[name] > most
        ),
    )


def _short(value: int) -> str:
    """Return a number in as few characters as a message has room for; Python refuses to print the longest."""
    return f"{value:,}" if value < 10**12 else f"a number of {value.bit_length()} bits"


def _shown(text: Config) -> Iterator[str]:
    yield from (f"{key} shows {what}" for key, what in _KEYS.items() if text.get(key))
    for key, plain in (("layer_types", _ATTENTION), ("layers_block_type", frozenset({"attention"}))):
        yield from (
            f"{key} has layers of the kind {kind}" for kind in sorted({*_words(text.get(key))} - plain)
        )
    if "0" in _words(text.get("attn_type_list")):  # MiniMax: 0 is lightning attention, M2 has 1 throughout
        yield "attn_type_list shows linear-attention layers"
    model_type = str(text.get("model_type", "")).lower()
    yield from (
        f"model_type {model_type} has {what}" for begin, what in _TYPES.items() if _begins(model_type, begin)
    )
    yield from (
        f"architectures has {name}, an encoder"
        for name in _words(text.get("architectures"))
        if name.endswith(_ENCODER_ENDINGS)
    )


def _begins(word: str, begin: str) -> bool:
    """Return whether a model type is of this kind: rwkv5 and zamba2 are, bertsomething is not bert."""
    rest = word.removeprefix(begin)
    return word.startswith(begin) and (not rest or not rest[0].isalpha())


def _words(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else []
