"""What a bench prints, word for word: the table, the gateway's price, the yardstick, the choice."""

from collections.abc import Callable

import msgspec

from bench_samples import MADE, bench, result
from freehold.bench.analysis.choose import choose
from freehold.bench.report.table import (
    choice_lines,
    compared_lines,
    lines_of,
    overhead_lines,
    yardstick_lines,
)


def test_table(golden: Callable[[str, str], None]) -> None:
    made = bench(
        *(result("llama-cpp", run, 100 + 10 * run) for run in (0, 1)),
        *(result("llama-cpp", run, 99 + 10 * run, "gateway", 0.102) for run in (0, 1)),
        *(result("transformers", run, 20 + run, ttft_s=3.0) for run in (0, 1)),
        names=("llama-cpp", "transformers", "vllm"),
    )
    failed = msgspec.structs.replace(made.candidates[2], failed="run 1: vllm did not start: no such program")
    made = msgspec.structs.replace(made, candidates=(*made.candidates[:2], failed))
    said = [
        *lines_of(made),
        *overhead_lines(made),
        *yardstick_lines(made),
        "",
        *choice_lines(choose(made)),
        "",
        *compared_lines(MADE, made),
    ]
    golden("bench_table.txt", "\n".join(said) + "\n")
