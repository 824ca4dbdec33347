"""Shapes from Hugging Face configs: counted totals equal the published ones, odd configs are problems, never wrong numbers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.problems import Problem
from freehold.sizing.model.from_config import shape_from_config
from freehold.sizing.model.shape import ModelShape
from sizing_box import DEEPSEEK_V3, GPT_OSS_120B, LLAMA_8B

QWEN3_32B: dict[str, Any] = {
    "model_type": "qwen3",
    "num_hidden_layers": 64,
    "hidden_size": 5120,
    "intermediate_size": 25600,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "sliding_window": None,
    "use_sliding_window": False,
    "max_window_layers": 64,
    "tie_word_embeddings": False,
}
QWEN3_30B = {
    **QWEN3_32B,
    "model_type": "qwen3_moe",
    "num_hidden_layers": 48,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
QWEN3_235B = {
    **QWEN3_30B,
    "num_hidden_layers": 94,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_attention_heads": 64,
}
LLAMA_70B = {
    **LLAMA_8B,
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
}
LLAMA_405B = {
    **LLAMA_8B,
    "num_hidden_layers": 126,
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_attention_heads": 128,
}
MIXTRAL = {
    **LLAMA_8B,
    "model_type": "mixtral",
    "vocab_size": 32000,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "sliding_window": None,
}
QWEN25_05B = {
    "model_type": "qwen2",
    "num_hidden_layers": 24,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
SCOUT = {
    "model_type": "llama4",
    "text_config": {
        "model_type": "llama4_text",
        "num_hidden_layers": 48,
        "hidden_size": 5120,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 202048,
        "num_local_experts": 16,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1,
        "attention_chunk_size": 8192,
    },
}
MAVERICK = {
    "model_type": "llama4",
    "text_config": {**SCOUT["text_config"], "num_local_experts": 128, "interleave_moe_layer_step": 2},
}
GEMMA3_27B = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 62,
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "vocab_size": 262208,
        "sliding_window": 1024,
    },
}
PHI3_MINI = {
    "model_type": "phi3",
    "num_hidden_layers": 32,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32064,
    "sliding_window": 2047,
    "tie_word_embeddings": False,
}


def shape(config: dict[str, Any]) -> ModelShape:
    found = shape_from_config(config, name="m", where="config.json")
    assert isinstance(found, ModelShape), found
    return found


def problems(config: dict[str, Any]) -> tuple[Problem, ...]:
    found = shape_from_config(config, name="m", where="config.json")
    assert isinstance(found, tuple), found
    return found


@pytest.mark.parametrize(
    ("config", "total_b", "active_b"),
    [
        (LLAMA_8B, 8.03, 8.03),
        (LLAMA_70B, 70.55, 70.55),
        (LLAMA_405B, 405.85, 405.85),
        (QWEN3_32B, 32.76, 32.76),
        (QWEN3_30B, 30.53, 3.34),
        (QWEN3_235B, 235.1, 22.1),
        (GPT_OSS_120B, 116.8, 5.7),
        (DEEPSEEK_V3, 671.0, 37.4),
        (MIXTRAL, 46.7, 12.9),
        (QWEN25_05B, 0.494, 0.494),
        (SCOUT, 107.8, 17.2),
        (MAVERICK, 400.7, 17.2),
        (GEMMA3_27B, 27.0, 27.0),
        (PHI3_MINI, 3.82, 3.82),
    ],
    ids=lambda value: value.get("model_type") if isinstance(value, dict) else str(value),
)
def test_counted_totals_are_the_published_ones(config: dict[str, Any], total_b: float, active_b: float):
    found = shape(config)
    assert found.params_total / 1e9 == pytest.approx(total_b, rel=0.002)
    assert found.params_active / 1e9 == pytest.approx(active_b, rel=0.005)


def test_a_tied_head_is_counted_once():
    untied = shape({**QWEN25_05B, "tie_word_embeddings": False})
    assert untied.params_total - shape(QWEN25_05B).params_total == 151936 * 896


def test_windows_are_read_from_each_way_of_saying_them():
    assert (shape(GPT_OSS_120B).windowed_layers, shape(GPT_OSS_120B).sliding_window) == (18, 128)
    assert (shape(GEMMA3_27B).windowed_layers, shape(GEMMA3_27B).sliding_window) == (52, 1024)
    assert shape({**GEMMA3_27B["text_config"], "model_type": "gemma2"}).windowed_layers == 31
    assert shape(PHI3_MINI).windowed_layers == 32
    assert (shape(SCOUT).windowed_layers, shape(SCOUT).sliding_window) == (36, 8192)
    assert shape({**QWEN3_32B, "sliding_window": 4096}).windowed_layers == 0, "switched off"
    on = {**QWEN3_32B, "sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 40}
    assert shape(on).windowed_layers == 24


@pytest.mark.parametrize(
    ("said", "quant"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"type": "float", "num_bits": 8}}},
            },
            "fp8",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"type": "int", "num_bits": 4}}},
            },
            "int4",
        ),
        (None, ""),
    ],
)
def test_how_weights_are_stored(said: Any, quant: str):
    assert shape({**LLAMA_8B, "quantization_config": said}).quant == quant


def test_every_problem_is_said_at_once():
    found = problems(
        {
            "num_hidden_layers": "many",
            "hidden_size": 100,
            "num_attention_heads": 7,
            "num_experts": 8,
            "quantization_config": {"quant_method": "magic"},
        }
    )
    text = "\n".join(map(str, found))
    for word in (
        "num_hidden_layers",
        "'many'",
        "vocab_size is missing",
        "not a multiple",
        "8 experts",
        "magic",
    ):
        assert word in text
    assert all(problem.where == "config.json" for problem in found)


@pytest.mark.parametrize(
    "key",
    [
        "hybrid_override_pattern",
        "linear_num_key_heads",
        "global_head_dim",
        "compress_ratios",
        "block_configs",
    ],
)
def test_what_cannot_be_counted_is_a_problem_and_not_a_number(key: str):
    assert "cannot be sized" in str(problems({**LLAMA_8B, key: 8})[0])
    assert "linear_attention" in str(problems({**LLAMA_8B, "layer_types": ["linear_attention"]})[0])


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "jamba"},
        {"attn_layer_period": 8},
        {"model_type": "zamba2"},
        {"layers_block_type": ["mamba", "hybrid"]},
        {"hybrid_layer_ids": [6, 12]},
        {"model_type": "rwkv5"},
        {"model_type": "recurrent_gemma"},
        {"block_types": ["recurrent", "recurrent", "attention"]},
        {"mamba_d_state": 16},
        {"attn_type_list": [0, 0, 1]},
        {"layer_types": ["full_attention", "linear_attention"]},
        {"model_type": "bert"},
        {"model_type": "xlm-roberta"},
        {"architectures": ["NewForMaskedLM"]},
        {"hidden_size": 10**30},
        {"num_hidden_layers": 10**9},
        {"vocab_size": 10**10},
        {"num_attention_heads": 65_536},
        {"head_dim": 10**6},
        {"intermediate_size": 10**5000},
        {"max_position_embeddings": 10**12},
    ],
    ids=lambda change: (
        f"{next(iter(change))}-{str(next(iter(change.values())))[:20]}"
        if next(iter(change)) != "intermediate_size"
        else "huge"
    ),
)
def test_other_architectures_and_absurd_sizes_are_refused_by_their_key(change: dict[str, Any]):
    for config in ({**LLAMA_8B, **change}, {"text_config": {**LLAMA_8B, **change}}):
        assert any(next(iter(change)) in str(problem) for problem in problems(config))


def test_what_only_looks_alike_is_counted():
    for change in (
        {"model_type": "bertie"},
        {"attn_layer_period": None},
        {"attn_type_list": [1, 1]},
        {"layers_block_type": ["attention"]},
    ):
        assert shape({**LLAMA_8B, **change}).params_total == shape(LLAMA_8B).params_total


def test_a_config_of_the_multimodal_kind_is_read_inside():
    assert shape({"text_config": LLAMA_8B, "vision_config": {"hidden_size": 1}}) == shape(LLAMA_8B)


KEYS = sorted({*LLAMA_8B, *GPT_OSS_120B, *DEEPSEEK_V3} - {"quantization_config", "layer_types"})
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 300), st.text(max_size=3), st.just([]), st.just({})
)


@given(st.dictionaries(st.sampled_from([*KEYS, "quantization_config", "layer_types", "text_config"]), JUNK))
def test_junk_gives_a_shape_or_problems(changes: dict[str, Any]):
    found = shape_from_config({**DEEPSEEK_V3, **changes}, name="m", where="w")
    assert isinstance(found, ModelShape) or found


@pytest.mark.parametrize("key", ["num_attention_heads", "num_hidden_layers", "vocab_size", "hidden_size"])
def test_a_nought_is_said_to_be_one(key: str):
    told = shape_from_config({**LLAMA_8B, key: 0}, name="x", where="config.json")
    assert not isinstance(told, ModelShape)
    assert [problem.message for problem in told] == [f"{key} is 0, and a model has at least one"]
