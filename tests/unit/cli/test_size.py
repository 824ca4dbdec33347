"""`freehold size`: its JSON contract, what does not fit, and its mistakes all at once."""

import json
from pathlib import Path
from typing import Any

import pytest

from freehold.cli.main import main

CONTRACT = {
    "fits",
    "weights_bytes",
    "kv_bytes_per_token",
    "kv_cache_tokens",
    "output_tokens_per_s",
    "ttft_ms",
    "itl_ms",
}
H100 = ("size", "--model", "llama-3.1-8b", "--gpu", "h100-sxm", "--count", "1", "--engine", "vllm", "--quant", "bf16",
        "--input-tokens", "512", "--output-tokens", "256", "--json")  # fmt: skip
QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}


def said(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> Any:
    assert main(list(argv)) == code
    return json.loads(capsys.readouterr().out)


def test_the_contract(capsys: pytest.CaptureFixture[str]):
    found = said(capsys, *H100, "--concurrency", "64")
    assert found.keys() >= CONTRACT
    assert found["fits"] is True
    assert found["kv_bytes_per_token"] == 131072
    assert abs(found["weights_bytes"] / 16.06e9 - 1) < 0.01
    for name in ("output_tokens_per_s", "ttft_ms", "ttft_p95_ms", "itl_ms"):
        assert 0 < found[name]["low"] < found[name]["mid"] < found[name]["high"]


def test_more_sequences_are_more_tokens_until_the_cache_is_full(capsys: pytest.CaptureFixture[str]):
    few = said(capsys, *H100, "--concurrency", "8")["output_tokens_per_s"]["mid"]
    many = said(capsys, *H100, "--concurrency", "128")["output_tokens_per_s"]["mid"]
    assert many > 4 * few
    cut = said(capsys, *H100, "--concurrency", "100000")
    assert cut["concurrency"] == cut["concurrency_max"] < 1000


def test_what_does_not_fit_has_no_speed_and_says_what_would(capsys: pytest.CaptureFixture[str]):
    found = said(capsys, "size", "--model", "llama-3.3-70b", "--gpu", "l4", "--json", code=3)
    assert found["fits"] is False
    assert found["output_tokens_per_s"] is None
    assert "would fit" in found["why_not"]


def test_what_misses_the_slo_alone_is_a_failed_check(capsys: pytest.CaptureFixture[str]):
    found = said(capsys, *H100, "--slo-itl", "1ms", code=3)
    assert found["fits"]
    assert found["concurrency"] == 0


def test_a_model_is_sized_as_its_checkpoint_is_stored(capsys: pytest.CaptureFixture[str]):
    found = said(
        capsys, "size", "--model", "deepseek-v3", "--gpu", "h200-sxm", "--count", "8", "--json"
    )  # fmt: skip
    assert (found["quant"], found["fits"]) == ("fp8", True)


def test_more_stages_than_layers_do_not_fit(capsys: pytest.CaptureFixture[str]):
    found = said(
        capsys, "size", "--model", "llama-3.1-8b", "--gpu", "l4", "--count", "100000", "--json", code=3
    )
    assert found["fits"] is False
    assert "12,500 pipeline stages" in found["why_not"]
    assert "at most 256 GPUs" in found["why_not"]
    assert said(capsys, "size", "--model", "llama-3.1-8b", "--gpu", "l4", "--count", "256", "--json")["fits"]


def test_a_gpu_is_found_in_any_case_and_several_are_named(capsys: pytest.CaptureFixture[str]):
    assert said(capsys, "size", "--model", "llama-3.1-8b", "--gpu", "H100-SXM", "--json")["gpu"] == "h100-sxm"
    (problem,) = said(capsys, "size", "--model", "llama-3.1-8b", "--gpu", "H100", "--json", code=2)[
        "problems"
    ]
    assert problem["hint"] == "did you mean 'h100-nvl' or 'h100-pcie' or 'h100-sxm'?"


def test_numbers_out_of_bounds(capsys: pytest.CaptureFixture[str]):
    flags = (
        "--count",
        "2M",
        "--peak",
        "0.2",
        "--spares",
        "1.5",
        "--tokens-per-month",
        "9000T",
        "--slo-itl",
        "2h",
    )
    found = said(capsys, "size", "--model", "llama-3.1-8b", "--gpu", "l4", *flags, "--json", code=2)
    assert sorted(problem["where"] for problem in found["problems"]) == sorted(flags[::2])


def test_a_traffic_gets_a_fleet(capsys: pytest.CaptureFixture[str]):
    one = said(capsys, *H100, "--tokens-per-month", "20B")["fleet"]
    four = said(capsys, *H100, "--tokens-per-month", "80B")["fleet"]
    assert 3 <= four["replicas"] / one["replicas"] <= 5
    assert 0 < one["utilisation"] < 1


def test_a_model_of_the_users_own(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(QWEN))
    found = said(capsys, "size", "--config", str(path), "--gpu", "l4", "--json")
    assert found["kv_bytes_per_token"] == 2 * 24 * 2 * 64 * 2
    assert abs(found["weights_bytes"] / 0.988e9 - 1) < 0.02  # 494 M parameters at 2 bytes


def test_every_mistake_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text('{"hidden_size": 12,\n oops}')
    found = said(
        capsys,
        "size",
        "--config",
        str(path),
        "--gpu",
        "h100",
        "--quant",
        "fp9",
        "--count",
        "x",
        "--json",
        code=2,
    )
    where = [problem["where"] for problem in found["problems"]]
    assert where == ["--quant", "--count", f"{path}:2:2", "--gpu"]


def test_nothing_said(capsys: pytest.CaptureFixture[str]):
    found = said(capsys, "size", "--json", code=2)
    assert [problem["where"] for problem in found["problems"]] == ["--model", "--gpu"]


def test_words_for_people(capsys: pytest.CaptureFixture[str]):
    assert main([*H100[:-1], "--tokens-per-month", "20B"]) == 0
    text = capsys.readouterr().out
    assert "tokens/s" in text
    assert "It fits" in text


def test_the_engine_follows_what_the_team_wants(capsys: pytest.CaptureFixture[str]):
    asked = (
        "size",
        "--model",
        "llama-3.3-70b",
        "--gpu",
        "h200-sxm",
        "--count",
        "2",
        "--quant",
        "fp8",
        "--json",
    )
    plain = said(capsys, *asked)
    assert plain["engine"] == "vllm"
    assert plain["notes"]
    wish = ("--prefer", "throughput", "--team", "tensorrt-llm", "--model-churn", "low")
    assert said(capsys, *asked, *wish)["engine"] == "tensorrt-llm"
    assert said(capsys, *asked, *wish, "--engine", "sglang")["engine"] == "sglang"
    wrong = said(capsys, *asked, "--prefer", "speed", "--team", "vlm", code=2)
    assert [problem["where"] for problem in wrong["problems"]] == ["--prefer", "--team"]


def test_a_load_test_of_ones_own_replaces_the_model(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "tests.json"
    test = {"engine": "vllm", "gpu": "h100-sxm", "gpus": 1, "quant": "bf16", "concurrency": 40}
    path.write_text(json.dumps([test | {"output_tokens_per_s": 1000.0}]))
    found = said(capsys, *H100, "--tokens-per-month", "20B", "--measured", str(path))
    sized = said(capsys, *H100, "--tokens-per-month", "20B")
    assert found["fleet"]["replicas"] > sized["fleet"]["replicas"]


def test_a_load_test_that_no_gpu_can_have_done_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "tests.json"
    test = {"engine": "vllm", "gpu": "h100-sxm", "gpus": 1, "quant": "fp8", "concurrency": 1}
    path.write_text(json.dumps([test | {"output_tokens_per_s": 130.0}]))  # 70.6 GB at 3.35 TB/s: 47.5 at most
    asked = (
        "size",
        "--model",
        "llama-3.3-70b",
        "--gpu",
        "h100-sxm",
        "--quant",
        "fp8",
        "--json",
        "--measured",
        str(path),
    )
    found = said(capsys, *asked, code=2)
    assert [problem["where"] for problem in found["problems"]] == ["--measured"]
    assert "130 output tokens/s is more than" in found["problems"][0]["message"]
    path.write_text(json.dumps([test | {"output_tokens_per_s": 40.0}]))
    said(capsys, *asked)


def test_explained_in_json(capsys: pytest.CaptureFixture[str]):
    found = said(capsys, *H100, "--concurrency", "64", "--explain")
    assert found["parts"]["reading"] > 0
    assert found["correction"]["sources"] >= 3
    assert len(found["rests_on"]) == found["correction"]["rows"]
    assert {"row", "said_tokens_per_s", "inside"} == found["rests_on"][0].keys()
