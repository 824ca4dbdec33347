"""A model's shape from its Hugging Face `config.json`: parameters are counted matrix by matrix, nothing is looked up.

Counted totals agree with the published ones to the last digit that is published (tests). Not counted: multi-token-
prediction layers, vision and audio towers, quantisation scales. A config that shows layers
which differ (state space, linear attention, per-layer sizes), an encoder or absurd sizes is a Problem (`from_config_refused`). It reads no file: give it the parsed JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from freehold.core.problems import Problem
from freehold.sizing.model.attention import attention_params, count_windowed
from freehold.sizing.model.quantisation import read_quant
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.model.unsupported import refused

Config = Mapping[str, Any]

# What each number is called: Hugging Face's present name first, then those of GPT-2, Falcon and DBRX configs.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "vocab": ("vocab_size",),
}
# Whole numbers of 0 or more wherever they stand; anything else in one of these is a mistake.
_WHOLE = (
    *(
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "vocab_size",
        "head_dim",
        "num_key_value_heads",
    ),
    *(
        "intermediate_size",
        "intermediate_size_mlp",
        "moe_intermediate_size",
        "shared_expert_intermediate_size",
    ),
    *("n_routed_experts", "num_local_experts", "num_experts", "n_shared_experts", "num_experts_per_tok"),
    *("first_k_dense_replace", "decoder_sparse_step", "interleave_moe_layer_step", "max_position_embeddings"),
    *("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "index_head_dim"),
    *(
        "index_n_heads",
        "sliding_window",
        "sliding_window_pattern",
        "max_window_layers",
        "attention_chunk_size",
    ),
)
# Feed-forward of two matrices (up, down); every other known type has a gate as third. Source: transformers' modeling files.
_UNGATED = frozenset(
    {"gpt2", "gpt_neox", "opt", "bloom", "falcon", "mpt", "phi", "starcoder2", "gpt_bigcode", "gptj"}
)


def shape_from_config(config: Config, *, name: str, where: str) -> ModelShape | tuple[Problem, ...]:
    """Return the shape that a parsed `config.json` describes, or every problem with it.

    `where` is what problems point at (the file's name). A nested `text_config` is the language model of a multimodal
    one and is what is counted.
    """
    text = _language_model(config)
    problems = (*_missing(text, where), *refused({**config, **text}, where))
    quant = read_quant(config.get("quantization_config") or text.get("quantization_config"), where)
    if isinstance(quant, Problem):
        problems = (*problems, quant)
    if problems or isinstance(quant, Problem):
        return problems
    return _shape(text, name=name, quant=quant, source=where)


def _language_model(config: Config) -> Config:
    nested = config.get("text_config") or config.get("llm_config")
    if not isinstance(nested, Mapping):
        return config
    outer = {key: config[key] for key in ("tie_word_embeddings",) if key in config}
    return {**outer, **nested}


def _number(text: Config, *names: str) -> int:
    """Return the first of these that is a whole number above 0, else 0."""
    for name in names:
        value = text.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0


def _missing(text: Config, where: str) -> tuple[Problem, ...]:
    hint = "this must be a model's config.json from Hugging Face"
    problems = [
        Problem(where=where, message=_absent(text, names), hint=hint)
        for names in _NAMES.values()
        if not _number(text, *names) and not _is_wrong(text.get(names[0]))
    ]
    for name in _WHOLE:
        if _is_wrong(text.get(name)):
            message = f"{name} must be a whole number of at least 0, not {text[name]!r}"
            problems.append(Problem(where=where, message=message, hint=hint))
    heads, hidden = _number(text, *_NAMES["heads"]), _number(text, *_NAMES["hidden"])
    if heads and hidden % heads and not _number(text, "head_dim") and not text.get("kv_lora_rank"):
        message = (
            f"hidden_size {hidden} is not a multiple of num_attention_heads {heads} and head_dim is missing"
        )
        problems.append(Problem(where=where, message=message))
    experts = _experts(text)
    if experts > 1 and not 0 < _experts_per_token(text) <= experts:
        message = f"{experts} experts, but how many a token uses is missing or more than that"
        problems.append(Problem(where=where, message=message, hint="num_experts_per_tok gives it"))
    return tuple(problems)


def _absent(text: Config, names: Sequence[str]) -> str:
    zero = next((name for name in names if text.get(name) == 0), "")
    return f"{zero} is 0, and a model has at least one" if zero else f"{names[0]} is missing"


def _is_wrong(value: object) -> bool:
    return value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0)


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else []


def _experts(text: Config) -> int:
    return _number(text, "n_routed_experts", "num_local_experts", "num_experts")


def _experts_per_token(text: Config) -> int:
    return _number(text, "num_experts_per_tok", "experts_per_token", "num_experts_per_token", "top_k_experts")


@dataclass(frozen=True, slots=True, kw_only=True)
class _FeedForward:
    """Parameters of all layers' feed-forward parts."""

    dense: float
    """Of dense layers, shared experts and routers."""
    routed: float
    experts: int
    experts_per_token: int


def _shape(text: Config, *, name: str, quant: str, source: str) -> ModelShape:
    layers, hidden = _number(text, *_NAMES["layers"]), _number(text, *_NAMES["hidden"])
    heads, vocab = _number(text, *_NAMES["heads"]), _number(text, *_NAMES["vocab"])
    ffn = _feed_forward(text, layers, hidden)
    embedding = float(vocab * hidden * (1 if _tied(text) else 2))
    norms = hidden * (2 * layers + 1)
    total = layers * attention_params(text, hidden, heads) + ffn.dense + ffn.routed + embedding + norms
    share = ffn.experts_per_token / ffn.experts if ffn.experts else 1.0
    windowed, window = count_windowed(text, layers)
    kv_heads = _kv_heads(text, heads)
    return ModelShape(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_number(text, "head_dim") or hidden // heads,
        vocab=vocab,
        context=_number(text, "max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
        or 2048,
        params_total=float(total),
        params_active=float(total - ffn.routed * (1 - share)),
        params_embedding=embedding,
        attention=_attention(text, heads, kv_heads=kv_heads, windowed=windowed),
        kv_lora_rank=_number(text, "kv_lora_rank"),
        rope_head_dim=_number(text, "qk_rope_head_dim") if text.get("kv_lora_rank") else 0,
        sliding_window=window,
        windowed_layers=windowed,
        experts=ffn.experts,
        experts_per_token=ffn.experts_per_token,
        params_routed_experts=ffn.routed,
        family="moe" if ffn.experts else "dense",
        quant=quant,
        source=source,
    )


def _kv_heads(text: Config, heads: int) -> int:
    if text.get("multi_query") and not text.get("new_decoder_architecture"):
        return 1
    return _number(text, "num_key_value_heads", "num_kv_heads", "n_head_kv") or heads


def _attention(text: Config, heads: int, *, kv_heads: int, windowed: int) -> str:
    if text.get("kv_lora_rank"):
        return "mla"
    if windowed:
        return "gqa+swa"
    return "mha" if kv_heads == heads else "gqa"


def _tied(text: Config) -> bool:
    """Return whether head and embeddings are one matrix; Gemma's and GPT-2's configs leave it out because they always are."""
    model_type = str(text.get("model_type", ""))
    return bool(
        text.get(
            "tie_word_embeddings", model_type.startswith("gemma") or model_type in {"gpt2", "bloom", "falcon"}
        )
    )


def _feed_forward(text: Config, layers: int, hidden: int) -> _FeedForward:
    matrices = 2 if text.get("model_type") in _UNGATED else 3
    experts = _experts(text)
    width = _number(text, "intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim") or 4 * hidden
    if experts <= 1:
        return _FeedForward(
            dense=float(layers * matrices * hidden * width), routed=0.0, experts=0, experts_per_token=0
        )
    sparse = _sparse_layers(text, layers)
    each = _number(text, "moe_intermediate_size") or width
    dense_width = _number(text, "intermediate_size_mlp") or width
    shared = sparse * (3 * hidden * _shared_width(text, each) + hidden * experts)
    return _FeedForward(
        dense=float((layers - sparse) * 3 * hidden * dense_width + shared),
        routed=float(sparse * experts * 3 * hidden * each),
        experts=experts,
        experts_per_token=_experts_per_token(text),
    )


def _shared_width(text: Config, each: int) -> int:
    """Return the width of what every token passes besides its experts; Llama 4 has one expert of it and no key that says so."""
    if str(text.get("model_type", "")).startswith("llama4"):
        return each
    said = _number(text, "shared_expert_intermediate_size", "shared_intermediate_size")
    return said or _number(text, "n_shared_experts", "num_shared_experts") * each


def _sparse_layers(text: Config, layers: int) -> int:
    frequency = text.get("moe_layer_freq")
    if isinstance(frequency, Sequence) and not isinstance(frequency, str):
        return sum(1 for layer in frequency if layer)
    step = _number(text, "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq") or 1
    only_dense = len(_strings(text.get("mlp_only_layers"))) + _number(text, "first_k_dense_replace")
    return max(0, layers // step - only_dense)
