"""A bench as one HTML page that needs nothing else: the choice, the conditions, three plots, the table, the engines.

Plots are plain SVG: a line per candidate through the medians, a bar from the least to the greatest run. Every text from
outside is escaped. It computes nothing but places on paper.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from freehold.bench.analysis.choose import Choice, results_at
from freehold.bench.analysis.compare import Runs, runs
from freehold.bench.analysis.results import BenchFile, Result, Through
from freehold.bench.report.table import aligned, choice_lines, lines_of, overhead_lines, yardstick_lines

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 290, 64, 190, 28, 44
"""The paper of a plot and its margins, pixels. Source: our own choice: three of them stand on a laptop's screen; the unit has the top
margin to itself."""
_COLOURS = ("#0b6e4f", "#b3541e", "#3d5a98", "#8a3a6b", "#7a6a00", "#4a4a4a")
"""Lines' colours in turn. Source: our own choice, which the colour-blind distinguish by their order in the legend."""
_TICKS = 4  # Of an axis: our own choice, few enough to read.
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c;"
    "background:#fff}pre{overflow-x:auto;font-size:13px}svg{max-width:100%;height:auto}h1{font-size:1.4rem}"
    "@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}svg{filter:invert(.88) hue-rotate(180deg)}}"
)


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
    plots = "\n".join(f"<h2>{escape(plot.title)}</h2>\n{drawn(bench, plot, through)}" for plot in PLOTS)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Freehold bench</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>Which engine serves best here</h1>\n"
        f"<pre>{_text(choice_lines(choice))}</pre>\n<ul>{''.join(f'<li>{escape(fact)}</li>' for fact in facts)}</ul>\n"
        f"{plots}\n<h2>All figures</h2>\n<p>Times in ms; medians of the runs, with their ends where engines are compared by them.</p>\n"
        f"<pre>{_text([*lines_of(bench), *overhead_lines(bench), *yardstick_lines(bench)])}</pre>\n<h2>Engines</h2>\n"
        f"<pre>{_text(engine_lines(bench))}</pre>\n</body></html>\n"
    )


def machine_text(bench: BenchFile) -> str:
    """Return where and when it was measured, in a line."""
    machine = bench.machine
    gpus = ", ".join(gpu.name for gpu in machine.gpus) or "no GPU"
    cpu = machine.cpu or "unknown CPU"
    return f"{cpu}, {machine.cores} cores, {gpus}, kernel {machine.kernel}; {bench.made_at}"


def _text(lines: Sequence[str]) -> str:
    return escape("\n".join(lines))


def engine_lines(bench: BenchFile) -> list[str]:
    """Return how each engine was started, which version it is and what it loaded."""
    rows = [["engine", "versions", "weights", "ready in s", "command"]]
    for each in bench.candidates:
        versions = ", ".join(f"{name} {version}" for name, version in each.versions.items()) or "unknown"
        ready = ", ".join(f"{value:.1f}" for value in each.ready_s) or "-"
        weights = f"{each.weights} {each.weights_sha256[:12]}".strip() or "unknown"
        rows.append([each.id, versions, weights, ready, " ".join(each.argv) or "-"])
    return aligned(rows, left=len(rows[0]))


def drawn(bench: BenchFile, plot: Plot, through: Through) -> str:
    """Return a plot as an SVG element; loads stand side by side in their order."""
    loads = bench.conditions.loads
    lines = [
        [
            runs(plot.get(each) for each in results_at(bench, candidate.id, load=load, through=through))
            for load in loads
        ]
        for candidate in bench.candidates
    ]
    most = max((found.high for line in lines for found in line if found is not None), default=0.0)
    top = nice_above(most)
    parts = [*_axes(top, [load.words() for load in loads], plot.unit)]
    for place, (candidate, line) in enumerate(zip(bench.candidates, lines, strict=True)):
        parts += _line(line, top, _COLOURS[place % len(_COLOURS)])
        y = _TOP + 14 + 18 * place
        x = _WIDTH - _RIGHT + 14
        colour = _COLOURS[place % len(_COLOURS)]
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 16}" y="{y}">{escape(candidate.id[:24])}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        f'aria-label="{escape(plot.title)}" font-family="system-ui,sans-serif" font-size="12">{"".join(parts)}</svg>'
    )


def nice_above(value: float) -> float:
    """Return the least of 1, 2, 2.5, 5 times a power of ten that is at least `value`; 1 for zero."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))


def _x(place: int, count: int) -> float:
    return _LEFT + (place + 0.5) * (_WIDTH - _LEFT - _RIGHT) / max(1, count)


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)


def _axes(top: float, names: Sequence[str], unit: str) -> list[str]:
    parts = []
    for tick in range(_TICKS + 1):
        value = top * tick / _TICKS
        y = _y(value, top)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ccc"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for place, name in enumerate(names):
        x = _x(place, len(names))
        parts.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{escape(name)}</text>'
        )
    parts.append(f'<text x="6" y="{_TOP - 14}">{escape(unit)}</text>')
    return parts


def _line(line: Sequence[Runs | None], top: float, colour: str) -> list[str]:
    points = [(_x(place, len(line)), found) for place, found in enumerate(line) if found is not None]
    path = " ".join(f"{x:.1f},{_y(found.median, top):.1f}" for x, found in points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for x, found in points:
        low, high = _y(found.low, top), _y(found.high, top)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}"/>'
            f'<circle cx="{x:.1f}" cy="{_y(found.median, top):.1f}" r="3" fill="{colour}"/>'
        )
    return parts
