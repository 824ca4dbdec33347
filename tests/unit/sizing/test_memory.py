"""Bytes: weights by quantisation, KV cache by kind of attention, and what an engine leaves for it."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from freehold.sizing.model.from_config import shape_from_config
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.replica.memory import (
    kv_bytes_of_sequence,
    kv_bytes_per_token,
    kv_share_per_gpu,
    room,
    visible_bytes,
    weights_bytes,
)
from freehold.sizing.replica.replica import size
from sizing_box import DEEPSEEK_V3, GPT_OSS_120B, ask, catalog, model


@pytest.mark.parametrize(
    ("name", "bits", "expected"),
    [
        ("llama-3.1-8b", 16, 131_072),
        ("llama-3.3-70b", 16, 327_680),
        ("qwen3-32b", 8, 131_072),
        ("deepseek-v3", 16, 70_272),
        ("gpt-oss-120b", 16, 73_728),
        ("qwen2.5-0.5b", 16, 12_288),
    ],
)
def test_kv_bytes_per_token_are_aiconfigurators(name: str, bits: int, expected: int):
    assert kv_bytes_per_token(model(name), bits) == expected


@pytest.mark.parametrize("name", sorted(catalog().models))
def test_kv_bytes_agree_with_what_the_catalog_says_of_each_model(name: str):
    assert kv_bytes_per_token(model(name), 16) == catalog().models[name].kv_bytes_per_token_bf16


@pytest.mark.parametrize(("config", "name"), [(GPT_OSS_120B, "gpt-oss-120b"), (DEEPSEEK_V3, "deepseek-v3")])
def test_catalog_and_config_give_the_same_shape(config: dict[str, object], name: str):
    counted = shape_from_config(config, name=name, where="w")
    assert isinstance(counted, ModelShape)
    said = model(name)
    assert counted.params_total == pytest.approx(said.params_total, rel=2e-3)
    assert counted.params_active == pytest.approx(said.params_active, rel=5e-3)
    assert counted.params_routed_experts == pytest.approx(said.params_routed_experts, rel=5e-3)
    for field in ("layers", "kv_heads", "windowed_layers", "sliding_window", "kv_lora_rank", "family"):
        assert getattr(counted, field) == getattr(said, field)


def test_heads_are_divided_down_to_one_each_and_a_latent_never():
    llama, deepseek = model("llama-3.3-70b"), model("deepseek-v3")
    assert [kv_share_per_gpu(llama, ranks, 1) for ranks in (1, 2, 8, 16)] == [1, 1 / 2, 1 / 8, 1 / 8]
    assert [kv_share_per_gpu(deepseek, ranks, 1) for ranks in (1, 8)] == [1, 1]
    assert kv_share_per_gpu(deepseek, 8, 2) == 1 / 2, "stages hold other layers"


def test_a_window_stops_growing_and_the_other_half_does_not():
    shape = model("gpt-oss-120b")
    at_window = float(kv_bytes_of_sequence(shape, 128, 16))
    assert at_window == 128 * 73_728
    far = float(kv_bytes_of_sequence(shape, 8192, 16))
    assert far == (8192 + 128) * 73_728 / 2


@pytest.mark.parametrize(
    ("name", "quant", "gigabytes"),
    [
        ("llama-3.1-8b", "bf16", 16.06),
        ("llama-3.3-70b", "fp8", 72.7),  # published: 72.7 GB on disk
        ("gpt-oss-120b", "mxfp4", 65.2),  # published
        ("deepseek-v3", "fp8", 672.9),
        ("llama-3.3-70b", "int4", 39.8),  # the AWQ checkpoint on Hugging Face
        ("qwen3-30b-a3b", "int4", 16.8),  # AWQ quantises attention too
        ("kimi-k2", "int4", 594.0),  # the experts only, a scale per 32 weights
    ],
)
def test_weights_as_published(name: str, quant: str, gigabytes: float):
    assert weights_bytes(model(name), quant) / 1e9 == pytest.approx(gigabytes, rel=0.005)  # type: ignore[arg-type]


def test_an_h100_holds_the_tokens_that_vllm_reported(h100: dict[str, float]):
    tokens = size(ask("llama-3.1-8b"), catalog().calibrations).kv_cache_tokens
    assert tokens == pytest.approx(h100["kv_cache_tokens_at_0.9_memory"], rel=0.03)


def test_each_term_of_that_is_what_was_seen_elsewhere():
    """The driver's part is a reading, activations lie in the range that others measured, weights are exact."""
    gpu = catalog().gpus["h100-sxm"]
    has = room(model("llama-3.1-8b"), gpu, quant="bf16", split=(1, 1), utilisation=0.9)
    assert visible_bytes(gpu) == pytest.approx(85_017_493_504, rel=1e-3)
    assert has.weights == pytest.approx(2 * 8.03e9)
    assert 1.7 < has.activations / 2**30 < 2.5
    assert has.graphs == 0, "they lie in the tenth that the engine leaves"
    tight = room(model("llama-3.1-8b"), gpu, quant="bf16", split=(1, 1), utilisation=0.999)
    assert tight.graphs > 0


def test_a_model_that_hardly_fits_is_given_a_smaller_batch():
    sized = size(ask("llama-3.3-70b", quant="fp8", kv_bits=8), catalog().calibrations)
    assert sized.fits
    assert 10_000 < sized.kv_cache_tokens < 30_000  # research: about 27k, with less for activations


@given(
    st.floats(4, 400),
    st.sampled_from(["llama-3.1-8b", "gpt-oss-20b", "deepseek-v3"]),
    st.sampled_from([1, 2, 8]),
)
def test_more_memory_never_holds_fewer_tokens(gigabytes: float, name: str, gpus: int):
    base = ask(name, gpus=gpus)
    smaller, larger = (
        size(replace(base, gpu=replace(base.gpu, memory_gb=amount)), catalog().calibrations).kv_cache_tokens
        for amount in (gigabytes, gigabytes * 1.1)
    )
    assert larger >= smaller


@pytest.fixture
def h100() -> dict[str, float]:
    path = Path(__file__).resolve().parents[3].parent / "shared" / "facts" / "h100_vllm_llama8b.yaml"
    if not path.exists():
        pytest.skip("the measured file is not on this machine")
    found: dict[str, float] = YAML(typ="safe").load(path.read_text())
    return found


def test_a_70b_of_4_bit_runs_on_two_rtx_4090():
    """It does (cloudrift, 2025-10); it was refused while each of 32 weights was thought to have a scale."""
    found = size(
        ask("llama-3.3-70b", gpu="rtx-4090", gpus=2, quant="int4", kv_bits=8), catalog().calibrations
    )
    assert found.fits
    assert found.concurrency_max >= 5


def test_llama_cpp_uses_what_is_free_and_no_share_of_it():
    asked = ask(
        "llama-3.3-70b", gpu="l40s", quant="gguf", engine="llama-cpp", input_tokens=16, output_tokens=1024
    )
    assert size(asked, catalog().calibrations).fits
