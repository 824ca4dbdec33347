"""What a team wants of an engine and its load tests, from flags and a file: all mistakes at once, each with its place."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from freehold.cli.choose.engine_flags import read_engine_flags
from freehold.cli.terminal.flag_options import flag_options
from freehold.core.problems import Problem
from freehold.cost.intake.flags import FlagReader, flags_in
from freehold.cost.intake.load_tests import read_load_tests
from freehold.sizing.fleet.advise import Wish
from freehold.sizing.replica.answer import MeasuredSpeed

GPUS = ("h100-sxm", "h200-sxm")
ROW: dict[str, Any] = {
    "engine": "vllm",
    "gpu": "h100-sxm",
    "gpus": 2,
    "quant": "fp8",
    "output_tokens_per_s": 4200,
    "concurrency": 64,
    "source": "bench of Monday",
}


def given(*words: str) -> tuple[Wish, tuple[MeasuredSpeed, ...], list[Problem]]:
    reader, seen = FlagReader(), {}

    @click.command()
    @flag_options(flags_in("engine").values())
    def command(**flags: Any) -> None:
        seen["found"] = read_engine_flags(flags, reader, gpus=GPUS)

    assert CliRunner().invoke(command, words, catch_exceptions=False).exit_code == 0
    return (*seen["found"], reader.problems)


def test_nobody_said_anything():
    assert given() == (Wish(), (), [])


def test_what_was_said(tmp_path: Path):
    file = tmp_path / "tests.json"
    file.write_text(json.dumps([ROW, {**ROW, "gpus": 1, "source": ""}]))
    wish, measured, problems = given(
        "--prefer", "throughput", "--team", "vllm, sglang", "--team", "tensorrt-llm", "--team", "vllm",
        "--model-churn", "low", "--measured", str(file),
    )  # fmt: skip
    assert problems == []
    assert wish == Wish(prefer="throughput", team=("vllm", "sglang", "tensorrt-llm"), model_churn="low")
    assert measured[0] == MeasuredSpeed(**{**ROW, "output_tokens_per_s": 4200.0})
    assert [each.gpus for each in measured] == [2, 1]


def test_every_wrong_word_is_told_at_once():
    found = given("--prefer", "fast", "--team", "vlm", "--model-churn", "")[2]
    assert [each.where for each in found] == ["--prefer", "--team", "--model-churn"]
    assert "vllm" in found[1].hint


@pytest.mark.parametrize(
    ("change", "places"),
    [
        ({"engine": "vlm"}, ["engine"]),
        ({"engine": ["vllm"]}, ["engine"]),
        ({"gpu": "h100", "quant": "fp9"}, ["gpu", "quant"]),
        ({"gpus": 0}, ["gpus"]),
        ({"gpus": 1.5, "concurrency": True}, ["gpus", "concurrency"]),
        ({"output_tokens_per_s": -1}, ["output_tokens_per_s"]),
        ({"output_tokens_per_s": 10**30}, ["output_tokens_per_s"]),
        ({"output_tokens_per_s": "fast"}, ["output_tokens_per_s"]),
        ({"source": 3}, ["source"]),
        ({"speed": 3}, ["speed"]),
    ],
)
def test_a_wrong_row_has_its_place(tmp_path: Path, change: dict[str, Any], places: list[str]):
    file = tmp_path / "m.json"
    file.write_text(json.dumps([ROW, {**ROW, **change}]))
    found = read_load_tests(file, gpus=GPUS)
    assert [each.where for each in found if isinstance(each, Problem)] == [
        f"{file}[1].{name}" for name in places
    ]
    assert len(found) == len(places), "no load test beside a problem"


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", "[{}]", "\x00", "[" * 100_000, '[{"gpus": 1e999}]'])
def test_what_is_no_list_of_load_tests(tmp_path: Path, text: str):
    file = tmp_path / "m.json"
    file.write_text(text)
    found = read_load_tests(file, gpus=GPUS)
    assert found
    assert all(isinstance(each, Problem) and str(file) in each.where for each in found)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path):
    assert "cannot be read" in str(read_load_tests(tmp_path / "none", gpus=GPUS)[0])
    (tmp_path / "b").write_bytes(b'["\xff"]')
    assert "not JSON" in str(read_load_tests(tmp_path / "b", gpus=GPUS)[0])
