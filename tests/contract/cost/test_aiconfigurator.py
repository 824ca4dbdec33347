"""The installed AIConfigurator and what we rely on: our question gives its known figures, offline, silently, or a sentence."""

import logging
import socket
from dataclasses import replace
from importlib import metadata
from typing import Any

import pytest

from freehold.cost.intake.aiconfigurator import _MODELS, PACKAGE, TESTED, second_opinion
from freehold.sizing.replica.answer import SecondOpinion, Sized
from freehold.sizing.replica.replica import size
from sizing_box import ask, catalog

INSTALLED = next((each.version for each in metadata.distributions(name=PACKAGE)), None)
pytestmark = pytest.mark.skipif(
    INSTALLED != TESTED, reason=f"needs {PACKAGE} {TESTED}: pip install -r requirements/aic.txt"
)
ENGINES = ("tensorrt-llm", "vllm", "sglang")
# Output tokens/s per GPU of Llama 3.1 70B, FP8 weights, tensor parallel 4, 1,024 in and 512 out, asked of the library
# itself without Freehold; by GPU and sequences at once, in the order of ENGINES.
LLAMA_70B = {
    ("h100-sxm", 1): (19.2, 22.1, 24.4),
    ("h100-sxm", 32): (427, 457, 511),
    ("h100-sxm", 128): (902, 919, 992),
    ("h200-sxm", 1): (22.4, 26.5, 28.8),
    ("h200-sxm", 32): (487, 491, 593),
    ("h200-sxm", 128): (1004, 1034, 1129),
}
# The same of Llama 3.1 8B in bf16 on one H100, 1,024 in and 256 out, 64 at once.
LLAMA_8B = (4222, 4172, 4287)
QUANTS = ("bf16", "fp8", "int8", "int4", "fp4", "mxfp4")


def sized(name: str, gpu: str = "h100-sxm", **changes: Any) -> Sized:
    return size(ask(name, gpu, **{"input_tokens": 1024, **changes}), catalog().calibrations)


def opinion(name: str, gpu: str = "h100-sxm", **changes: Any) -> SecondOpinion:
    found = second_opinion(sized(name, gpu, **changes))
    assert isinstance(found, SecondOpinion), found
    return found


@pytest.mark.parametrize(("gpu", "concurrency"), LLAMA_70B)
@pytest.mark.parametrize("engine", ENGINES)
def test_its_figures_for_llama_70b(gpu: str, concurrency: int, engine: str):
    found = opinion(
        "llama-3.3-70b",
        gpu,
        engine=engine,
        quant="fp8",
        gpus=4,
        output_tokens=512,
        concurrency=concurrency,
    )
    known = LLAMA_70B[gpu, concurrency][ENGINES.index(engine)]
    assert found.output_tokens_per_s / 4 == pytest.approx(known, rel=0.003)
    assert found.note == "as meta-llama/Meta-Llama-3.1-70B"


@pytest.mark.parametrize("engine", ENGINES)
def test_its_figures_for_llama_8b(engine: str):
    found = opinion("llama-3.1-8b", engine=engine, output_tokens=256, concurrency=64)
    assert found.output_tokens_per_s == pytest.approx(LLAMA_8B[ENGINES.index(engine)], rel=0.001)
    length_ms = found.ttft_ms + 255 * found.itl_ms
    assert found.output_tokens_per_s == pytest.approx(64 * 256 / (length_ms / 1e3), rel=0.1)  # in ms, indeed
    assert found.version.startswith("aiconfigurator-core 0.12.0, ")


def test_a_cached_prefix_and_a_smaller_cache_entry_reach_it():
    plain = opinion("llama-3.1-8b", concurrency=64).output_tokens_per_s
    assert opinion("llama-3.1-8b", concurrency=64, cached_share=0.5).output_tokens_per_s > 1.1 * plain
    whole = opinion("llama-3.1-8b", concurrency=64, cached_share=1.0).output_tokens_per_s
    assert whole > 1.3 * plain
    on_trt = {"engine": "tensorrt-llm", "concurrency": 128}
    wide = opinion("llama-3.1-8b", **on_trt).output_tokens_per_s
    assert opinion("llama-3.1-8b", **on_trt, kv_bits=8).output_tokens_per_s > 1.03 * wide


def test_it_asks_nobody_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    def refuse(*_: object) -> None:
        pytest.fail("it asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in sorted(_MODELS):
        second_opinion(size(ask(name, "b200-sxm", gpus=8), catalog().calibrations))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []  # without a handler a warning goes to the terminal
    assert logging.root.manager.disable == 0


@pytest.mark.parametrize("name", sorted(_MODELS))
def test_each_model_is_the_one_that_it_ships_and_has_a_figure_or_a_reason(name: str):
    """Of other dimensions none is; and some quantisation of each is known."""
    answers = [second_opinion(sized(name, "b200-sxm", gpus=8, quant=quant)) for quant in QUANTS]
    reasons = [answer for answer in answers if isinstance(answer, str)]
    assert not [reason for reason in reasons if "dimensions" in reason]
    assert len(reasons) < len(QUANTS), reasons
    figures = [answer.output_tokens_per_s for answer in answers if isinstance(answer, SecondOpinion)]
    assert all(1 < figure < 5000 for figure in figures), figures


def test_what_its_tables_lack_is_told_in_our_words():
    assert second_opinion(sized("llama-3.1-8b", quant="int4")) == (
        "AIConfigurator has no measurements for llama-3.1-8b with int4 weights and a 16-bit KV cache on h100-sxm with vllm"
    )


def test_what_it_refuses_is_told_in_its_words():
    found = second_opinion(sized("minimax-m2.5", "h200-sxm", gpus=8, quant="fp8"))
    assert str(found).startswith("AIConfigurator gave no figure: Invalid quantized MoE configuration")
    assert "gave no figure" in str(second_opinion(sized("llama-3.1-8b", "a100-sxm-80", quant="fp8")))


def test_another_shape_under_a_known_name_is_not_asked():
    found = sized("llama-3.1-8b")
    other = replace(found, ask=replace(found.ask, shape=replace(found.ask.shape, layers=40)))
    assert "other dimensions than meta-llama/Meta-Llama-3.1-8B" in str(second_opinion(other))


def test_it_says_so_where_by_its_count_the_memory_is_full():
    found = second_opinion(replace(sized("llama-3.1-8b"), concurrency=2000))
    assert isinstance(found, SecondOpinion)
    assert "does not hold that many sequences" in found.note
