"""How long a step and a prompt take: floors that physics sets, and which way everything moves."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.catalog.facts import Calibration
from freehold.sizing.replica.pace import SERVER_S, ReplicaLoad, pace
from freehold.sizing.replica.roofline import (
    RooflineSetting,
    decode_step,
    experts_read,
    flops_per_s,
    inter_token_s,
    output_per_s,
    prefill_s,
    streamed_bytes,
)
from sizing_box import catalog, model

PERFECT = replace(
    catalog().calibrations["vllm-dense"],
    hbm_efficiency=1.0,
    flops_efficiency=1.0,
    fixed_ms_per_step=0.0,
    allreduce_us=0.0,
    per_sequence_us=0.0,
)


def setting(
    name: str = "llama-3.1-8b", calibration: Calibration | None = None, **changes: Any
) -> RooflineSetting:
    said: dict[str, Any] = {
        "quant": "bf16",
        "kv_bits": 16,
        "tensor_parallel": 1,
        "pipeline_parallel": 1,
        **changes,
    }
    gpu = catalog().gpus[said.pop("gpu", "h100-sxm")]
    return RooflineSetting(
        shape=model(name), gpu=gpu, calibration=calibration or catalog().calibrations["vllm-dense"], **said
    )


def test_a_70b_in_fp8_on_one_h100_gives_one_user_47_tokens_a_second_at_best():
    alone = setting("llama-3.3-70b", PERFECT, quant="fp8")
    floor_s = float(streamed_bytes(alone.shape, "fp8", 1.0)) / 3.35e12
    assert floor_s * 1e3 == pytest.approx(21.1, abs=0.1)
    assert float(decode_step(alone, 1.0, length=1.0).total_s) >= floor_s
    assert float(output_per_s(alone, 1.0, input_tokens=1.0, output_tokens=1000.0)) <= 47.6


@given(
    st.sampled_from(sorted(catalog().models)),
    st.floats(1, 500),
    st.sampled_from(["bf16", "fp8", "int4", "fp4"]),
)
def test_no_vector_beats_the_memory(name: str, concurrency: float, quant: str):
    for calibration in catalog().calibrations.values():
        real = setting(name, calibration, quant=quant)
        least = float(streamed_bytes(real.shape, quant, concurrency)) / (real.gpu.mem_bw_gb_s * 1e9)  # type: ignore[arg-type]
        assert float(decode_step(real, concurrency, length=100.0).total_s) >= least


def test_every_shipped_vector_is_physically_possible():
    for calibration in catalog().calibrations.values():
        assert 0.3 < calibration.hbm_efficiency < 1, calibration
        assert 0.05 < calibration.flops_efficiency < 0.75, calibration
        assert calibration.fixed_ms_per_step > 0
        assert calibration.error_mean_abs > 0


def test_experts_are_read_as_tokens_choose_them():
    shape = model("gpt-oss-120b")
    assert float(experts_read(shape, 1.0)) == pytest.approx(4 / 128)
    assert float(experts_read(shape, 10_000.0)) == pytest.approx(1)
    one, many = (float(streamed_bytes(shape, "mxfp4", tokens)) for tokens in (1.0, 256.0))
    assert many / one > 5
    dense = model("llama-3.1-8b")
    assert float(streamed_bytes(dense, "bf16", 1.0)) == float(streamed_bytes(dense, "bf16", 256.0))


def test_a_format_without_units_is_calculated_at_16_bit():
    a100, h100, b200 = (catalog().gpus[name] for name in ("a100-sxm-80", "h100-sxm", "b200-sxm"))
    assert flops_per_s(a100, "fp8") == flops_per_s(a100, "bf16")
    assert flops_per_s(h100, "fp4") == flops_per_s(h100, "bf16")
    assert flops_per_s(b200, "fp4") > flops_per_s(b200, "fp8") > flops_per_s(b200, "bf16")


def test_a_cached_prompt_costs_only_what_is_new():
    whole = float(prefill_s(setting(), 4000.0, context=4000.0))
    tail = float(prefill_s(setting(), 400.0, context=4000.0))
    assert whole / 12 < tail < whole / 7


def test_tensor_parallel_pays_for_its_all_reduces_and_pipelines_for_reading_weights_again():
    one, two = (
        decode_step(setting("llama-3.3-70b", quant="fp8", tensor_parallel=ranks), 8.0, length=500.0)
        for ranks in (1, 2)
    )
    assert float(one.link_s) == 0 < float(two.link_s)
    assert float(two.memory_s) < 0.6 * float(one.memory_s)
    staged = decode_step(setting("llama-3.3-70b", quant="fp8", pipeline_parallel=2), 8.0, length=500.0)
    assert float(staged.memory_s) > 0.9 * float(one.memory_s)
    slow = setting("llama-3.3-70b", quant="fp8", pipeline_parallel=2, network_b_s=0.117e9)
    assert float(decode_step(slow, 8.0, length=500.0).link_s) > float(staged.link_s)


def test_stages_that_are_not_pipelined_read_every_sequence_in_turn():
    piped = setting("llama-3.3-70b", pipeline_parallel=4)
    in_turn = replace(piped, pipelined=False)
    steps = [decode_step(each, 64.0, length=2000.0) for each in (piped, in_turn)]
    cache = 64 * 2000 * 327_680
    reads = cache * 3 / 4 / (3.35e12 * piped.calibration.hbm_efficiency)
    assert float(steps[1].memory_s) - float(steps[0].memory_s) == pytest.approx(reads, rel=0.02)


LOADS = st.tuples(st.floats(1, 20_000), st.floats(1, 4_000))
MODELS = st.sampled_from(["llama-3.1-8b", "llama-3.3-70b", "gpt-oss-120b", "deepseek-v3", "qwen2.5-0.5b"])
RANKS = st.sampled_from([1, 2, 4, 8])


@given(MODELS, LOADS, RANKS, st.floats(1, 300))
def test_more_bandwidth_is_never_slower(name: str, load: tuple[float, float], ranks: int, concurrency: float):
    slow = setting(name, tensor_parallel=ranks)
    fast = replace(slow, gpu=replace(slow.gpu, mem_bw_gb_s=slow.gpu.mem_bw_gb_s * 1.5))
    rates = [
        output_per_s(each, concurrency, input_tokens=load[0], output_tokens=load[1]) for each in (slow, fast)
    ]
    assert rates[1] >= rates[0]


@given(MODELS, LOADS, RANKS)
def test_more_sequences_never_give_less_in_all_nor_more_to_each(
    name: str, load: tuple[float, float], ranks: int
):
    counts = np.arange(1.0, 200.0)
    itl = np.asarray(
        inter_token_s(
            setting(name, tensor_parallel=ranks), counts, input_tokens=load[0], output_tokens=load[1]
        )
    )
    assert (np.diff(itl) >= 0).all()
    assert (np.diff(counts / itl) >= -1e-9 * (counts / itl)[1:]).all()


@given(MODELS, st.floats(1, 50_000), st.floats(1, 200))
def test_a_longer_prompt_waits_longer(name: str, tokens: float, concurrency: float):
    shorter, longer = (
        pace(setting(name), concurrency, load=ReplicaLoad(input_tokens=tokens * factor, output_tokens=200.0))
        for factor in (1, 1.3)
    )
    assert shorter.ttft_s < longer.ttft_s
    assert shorter.ttft_p95_s < longer.ttft_p95_s
    assert shorter.ttft_s <= shorter.ttft_p95_s * 1.2


def test_waiting_grows_with_load_and_never_beyond_everybody_elses_prompts():
    load = ReplicaLoad(input_tokens=8000.0, output_tokens=50.0)
    busy = pace(setting(), np.array([1.0, 10.0, 100.0]), load=load)
    waits = np.asarray(busy.ttft_p95_s)
    assert waits[0] < waits[1] < waits[2]
    assert waits[2] < 100 * float(busy.prompt_s) + 1
    alone = pace(setting(), 1.0, load=load)
    own = float(alone.prompt_s) + 1.5 * float(alone.step.total_s) + SERVER_S
    assert float(alone.ttft_s) == float(alone.ttft_p95_s) == pytest.approx(own), (
        "nobody else is there to wait for"
    )


def test_a_prompt_also_moves_its_activations():
    """Ten passes at 16 bit over each layer's width: for an 8B 2.6 MB a token, 0.78 us on an H100."""
    slow = replace(PERFECT, flops_efficiency=0.999)
    busy = setting(calibration=slow)
    idle = replace(busy, gpu=replace(busy.gpu, mem_bw_gb_s=1e9))
    extra = float(prefill_s(busy, 1000.0, context=1000.0)) - float(prefill_s(idle, 1000.0, context=1000.0))
    assert extra == pytest.approx(1000 * 20 * 32 * 4096 / 3.35e12, rel=0.01)


def test_prompts_take_the_time_that_an_h100_took():
    """Measured: 131,072 prompt tokens of an 8B in bf16 in 3.032 s."""
    assert 256 * float(prefill_s(setting(), 512.0, context=512.0)) == pytest.approx(3.032, rel=0.1)
