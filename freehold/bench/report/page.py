"""A bench as one HTML page that needs nothing else: the choice, the conditions, three plots, the table, the engines.

Plots are plain SVG: a line per candidate through the medians, a bar from the least to the greatest run. What is where
stands in page.html.j2, which escapes every text from outside. Here nothing is computed but places on paper.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from freehold.bench.analysis.choose import Choice, results_at
from freehold.bench.analysis.compare import Runs, runs
from freehold.bench.analysis.results import BenchFile, Result, Through
from freehold.bench.report.table import aligned, choice_lines, lines_of, overhead_lines, yardstick_lines
from freehold.cost.report.templates import render

_PAPER = {"width": 720, "height": 290, "left": 64, "right": 530, "top": 28, "bottom": 246}
"""The paper of a plot and where its axes lie, pixels. Source: our own choice: three of them stand on a laptop's screen; the unit has the top
margin to itself."""
_COLOURS = ("#0b6e4f", "#b3541e", "#3d5a98", "#8a3a6b", "#7a6a00", "#4a4a4a")
"""Lines' colours in turn. Source: our own choice, which the colour-blind distinguish by their order in the legend."""
_TICKS = 4  # Of an axis: our own choice, few enough to read.


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One figure over the loads."""

    title: str
    unit: str
    get: Callable[[Result], float | None]


PLOTS = (
    Plot(
        title="Goodput: output tokens/s within the SLO",
        unit="tokens/s",
        get=lambda each: each.figures.goodput_tokens_per_s,
    ),
    Plot(title="Output tokens/s", unit="tokens/s", get=lambda each: each.figures.output_tokens_per_s),
    Plot(
        title="Time to first token, 95th percentile",
        unit="s",
        get=lambda each: each.figures.ttft_s.p95 if each.figures.ttft_s else None,
    ),
)


def to_html(bench: BenchFile, choice: Choice) -> str:
    """Return the page, UTF-8 text."""
    through: Through = "direct" if any(each.through == "direct" for each in bench.results) else "gateway"
    conditions = bench.conditions
    facts = [
        f"{conditions.shape}; SLO: first token within {conditions.slo.ttft_s:g} s, {conditions.slo.itl_s * 1e3:g} ms between tokens",
        f"{conditions.runs} runs in turn, {conditions.warm_up_s:g} s warm-up and {conditions.duration_s:g} s measured each, seed {conditions.seed}",
        machine_text(bench),
    ]
    shown = {
        "choice": choice_lines(choice),
        "facts": facts,
        "paper": _PAPER,
        "plots": [drawn(bench, plot, through) for plot in PLOTS],
        "figures": [*lines_of(bench), *overhead_lines(bench), *yardstick_lines(bench)],
        "engines": engine_lines(bench),
    }
    return render(__package__, "page.html.j2", shown) + "\n"


def machine_text(bench: BenchFile) -> str:
    """Return where and when it was measured, in a line."""
    machine = bench.machine
    gpus = ", ".join(gpu.name for gpu in machine.gpus) or "no GPU"
    cpu = machine.cpu or "unknown CPU"
    return f"{cpu}, {machine.cores} cores, {gpus}, kernel {machine.kernel}; {bench.made_at}"


def engine_lines(bench: BenchFile) -> list[str]:
    """Return how each engine was started, which version it is and what it loaded."""
    rows = [["engine", "versions", "weights", "ready in s", "command"]]
    for each in bench.candidates:
        versions = ", ".join(f"{name} {version}" for name, version in each.versions.items()) or "unknown"
        ready = ", ".join(f"{value:.1f}" for value in each.ready_s) or "-"
        weights = f"{each.weights} {each.weights_sha256[:12]}".strip() or "unknown"
        rows.append([each.id, versions, weights, ready, " ".join(each.argv) or "-"])
    return aligned(rows, left=len(rows[0]))


def drawn(bench: BenchFile, plot: Plot, through: Through) -> Mapping[str, Any]:
    """Return what the template draws of a plot, with its places; loads stand side by side in their order."""
    loads = bench.conditions.loads
    lines = [
        [
            runs(plot.get(each) for each in results_at(bench, candidate.id, load=load, through=through))
            for load in loads
        ]
        for candidate in bench.candidates
    ]
    top = nice_above(max((found.high for line in lines for found in line if found is not None), default=0.0))
    ticks = [top * tick / _TICKS for tick in range(_TICKS + 1)]
    return {
        "title": plot.title,
        "unit": plot.unit,
        "ticks": [(value, _y(value, top)) for value in ticks],
        "loads": [(load.words(), _x(place, len(loads))) for place, load in enumerate(loads)],
        "lines": [
            (candidate.id, colour, _places(line, top))
            for candidate, line, colour in zip(
                bench.candidates, lines, itertools.cycle(_COLOURS), strict=False
            )
        ],
    }


def _places(line: Sequence[Runs | None], top: float) -> list[tuple[float, ...]]:
    """Return x, and y of the least, the median and the greatest run, of each load with results."""
    return [
        (_x(place, len(line)), *(_y(value, top) for value in (found.low, found.median, found.high)))
        for place, found in enumerate(line)
        if found is not None
    ]


def nice_above(value: float) -> float:
    """Return the least of 1, 2, 2.5, 5 times a power of ten that is at least `value`; 1 for zero."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))


def _x(place: int, count: int) -> float:
    return _PAPER["left"] + (place + 0.5) * (_PAPER["right"] - _PAPER["left"]) / max(1, count)


def _y(value: float, top: float) -> float:
    return _PAPER["bottom"] - value / top * (_PAPER["bottom"] - _PAPER["top"])
