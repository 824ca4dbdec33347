"""What the benchmark that holds our load generator against another makes of their runs."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

import bench_against
from stack import CannotMeasureError

from freehold.bench.analysis.load import Load

LOAD = Load(kind="concurrency", value=4.0)
TASK = bench_against.Task(
    host="h", port=1, model="m", load=LOAD, requests=10, warm_up=4, prompt_tokens=128, answer_tokens=32, seed=1, cores={0},
    overhead=30.0,
)  # fmt: skip


def runs(*tokens_per_s: float, cpu_s: float = 1.0, **more: float) -> list[dict[str, float]]:
    usual = dict.fromkeys(bench_against.FIGURES, 100.0) | {"requests": 100.0, "cpu_s": cpu_s, **more}
    return [usual | {"tokens_per_s": each} for each in tokens_per_s]


def test_a_difference_counts_beyond_the_runs_spread_and_beyond_what_is_allowed() -> None:
    within = bench_against.Compared(load=LOAD, ours=runs(90, 100, 130), theirs=runs(120, 125, 128))
    assert [bar.holds for bar in within.bars()] == [True] * 5
    small = bench_against.Compared(load=LOAD, ours=runs(100, 101, 102), theirs=runs(104, 105, 106))
    assert all(bar.holds for bar in small.bars())
    apart = bench_against.Compared(load=LOAD, ours=runs(100, 101, 102), theirs=runs(120, 121, 122))
    assert [bar.holds for bar in apart.bars()] == [False, True, True, True, True]


def test_what_is_known_of_the_fake_engine_is_a_bar_for_us() -> None:
    true = {"itl_p50_ms": 20.5, "ttft_p50_ms": 101.0}
    good = bench_against.Compared(load=LOAD, ours=runs(178, **true), theirs=runs(178, **true))
    assert [bar.holds for bar in bench_against.truths(good, 32)] == [True] * 3
    late = bench_against.Compared(
        load=LOAD, ours=runs(178, itl_p50_ms=20, ttft_p50_ms=120), theirs=good.theirs
    )
    assert [bar.holds for bar in bench_against.truths(late, 32)] == [True, False, True]


def test_cpu_is_told_with_a_start_and_without() -> None:
    short = {"ours": {"cpu_s": 0.5, "requests": 10.0}, "theirs": {"cpu_s": 8.0, "requests": 10.0}}
    compared = [bench_against.Compared(load=LOAD, ours=runs(1, cpu_s=1.4), theirs=runs(1, cpu_s=8.45))]
    whole, work = bench_against.cpu_bars(short, compared)
    assert whole.value == pytest.approx(1.4 / 8.45)
    assert work.value == pytest.approx(0.9 / 0.45)
    assert (whole.holds, work.holds) == (True, False)


def test_the_other_is_asked_for_the_same() -> None:
    tool = bench_against.Tool(program=Path("aiperf"), tokenizer=Path("t"))
    words = " ".join(tool.command(TASK, Path("out")))
    assert "--concurrency 4 " in words
    assert "--synthetic-input-tokens-mean 98 " in words  # the template's 30 come on top
    assert "--output-tokens-mean 32 " in words
    assert "ignore_eos:true" in words
    assert bench_against.msgspec.json.decode(TASK.words()[1], type=bench_against.Task) == TASK


def test_fewer_requests_than_asked_for_are_no_measurement(tmp_path: Path) -> None:
    names = ("output_token_throughput", "time_to_first_token", "inter_token_latency", "input_sequence_length")
    told = {name: {"avg": 1.0, "p50": 2.0, "p95": 3.0} for name in names} | {"request_count": {"avg": 10}}
    path = tmp_path / "profile_export_aiperf.json"
    path.write_text(json.dumps(told))
    assert bench_against.theirs(tmp_path, TASK)["ttft_p95_ms"] == 3.0
    path.write_text(json.dumps(told | {"request_count": {"avg": 9}}))
    with pytest.raises(CannotMeasureError, match="9 requests of 10"):
        bench_against.theirs(tmp_path, TASK)
