"""The plots of a report as SVG to put into a page: small, the same bytes for the same plan, colours from the page.

Colours are written as CSS variables with a fallback, so that the page's light and dark themes and its print style hold
for the plots too. Texts stay texts. Names are cut, never drawn over each other. Only who makes plots imports this module
(matplotlib takes half a second); nothing here writes a file, and what cannot be plotted is no plot.
"""

import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from freehold.cost.model.result import Curve, Influence, PlanOption, PlanResult
from freehold.cost.model.rounding import amount, tokens
from freehold.cost.report import outline
from freehold.cost.report.clean import clean, cut
from freehold.cost.report.svg import inlined

# All of these are our own choice. A plot is 331 points wide, so that it is not shrunk on a phone of 390 px; its letters
# are then those of the page. What is counted is what can still be distinguished: of cost lines the rest is `other`.
_WIDTH_IN = 4.6
_HEIGHT_IN = 2.4
_LEGEND_ROW_IN = 0.2
_SMALL = 9.0
_TORNADO_MOST = 8
_CURVES_MOST = 5
_LINES_MOST = 7
_NAME_MOST = 40
_INK, _MUTED, _GRID, _PAPER = "#010203", "#010204", "#010205", "#010206"
"""Stand-ins that are replaced by the page's colours: nothing else writes these."""
_SERIES = tuple(f"#0103{index:02x}" for index in range(8))
_FALLBACKS = ("#0072b2", "#b34700", "#00785a", "#a3417f", "#8a6d00", "#2a86b8", "#5b5b5b", "#7a4fb5")
"""Series colours of the light theme. Source: Okabe and Ito 2008, darkened to a contrast of 3:1 or more on white."""
_VARIABLES: Mapping[str, str] = {
    _INK: "var(--ink, #1b1f24)",
    _MUTED: "var(--muted, #57606a)",
    _GRID: "var(--line, #d0d7de)",
    _PAPER: "var(--paper, #ffffff)",
    **{stand_in: f"var(--s{index}, {_FALLBACKS[index]})" for index, stand_in in enumerate(_SERIES)},
}
_NOW: Mapping[str, Any] = {"color": _INK, "linewidth": 1.4, "linestyle": ":"}
"""How what is paid or used today is drawn."""
_BACKED = {"facecolor": _PAPER, "edgecolor": "none", "pad": 0.5}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_STYLE = Path(__file__).with_name("plan.mplstyle")
_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The figures behind a plot, rounded as in the text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPlot:
    """One figure: its drawing, what it shows in words, and the same as a table."""

    name: str
    """Unique in a report; part of the ids inside the SVG."""
    title: str
    alt: str
    """What one sees, for whoever does not."""
    table: Table
    svg: str = ""


def plots(result: PlanResult) -> tuple[ReportPlot, ...]:
    """Return the plots that the plan has data for: break-even, cost stack, tornado, one per varied input."""
    made = (_break_even(result), _stack(result), _tornado(result), *_sensitivities(result))
    return tuple(plot for plot in made if plot is not None)


def _break_even(result: PlanResult) -> ReportPlot | None:
    curves = [curve for curve in _usable(result.curves) if all(x > 0 and y > 0 for x, y in _points(curve))]
    if not curves:  # what is 0 has no place on a logarithmic axis
        return None
    names = outline.names_by_id(result)
    now = result.summary.get("tokens_per_month")

    def draw(axes: Axes) -> None:
        _draw_curves(axes, curves, result)
        axes.set_xscale("log")
        axes.set_yscale("log")
        if isinstance(now, int | float) and now > 0:
            axes.axvline(float(now), label=f"now: {tokens(float(now))}", **_NOW)
        axes.xaxis.set_major_formatter(lambda value, _: tokens(value))
        axes.yaxis.set_major_formatter(_money)
        axes.minorticks_off()
        _dress(axes, x="tokens a month", y="USD a month")

    plot = ReportPlot(
        name="break-even",
        title="Cost over traffic",
        alt=f"Monthly cost of {len(curves)} options over tokens a month, both axes logarithmic, at middle values. "
        + " ".join(_ends(curve, names, tokens) for curve in curves),
        table=_curve_table(curves, names, first="tokens a month", write=tokens),
    )
    return _drawn(plot, draw)


def _sensitivities(result: PlanResult) -> list[ReportPlot | None]:
    usable = _usable(result.sensitivity, most=20)
    over = dict.fromkeys(curve.over for curve in usable)
    return [
        _sensitivity(result, name, [curve for curve in usable if curve.over == name][:_CURVES_MOST])
        for name in over
    ]


def _sensitivity(result: PlanResult, over: str, curves: Sequence[Curve]) -> ReportPlot:
    names, axis = outline.names_by_id(result), outline.named(over)

    def draw(axes: Axes) -> None:
        _draw_curves(axes, curves, result)
        for index, option in enumerate(each for each in result.options if each.paid_today):
            label = f"{cut(outline.option_name(option), _NAME_MOST)} (today's)"
            axes.axhline(option.usd_per_month.p50, label=label if not index else "", **_NOW)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(_money)
        _dress(axes, x=axis, y="USD a month")

    slug = re.sub(r"[^a-z0-9]+", "-", over.lower())
    plot = ReportPlot(
        name=f"over-{slug}",
        title=f"Cost over {axis}",
        alt=f"Monthly cost over {axis}. " + " ".join(_ends(curve, names, amount) for curve in curves),
        table=_curve_table(curves, names, first=axis, write=amount),
    )
    return _drawn(plot, draw)


def _money(value: float, _: float) -> str:
    """Return an amount for an axis, short enough to stand beside others: `5,000`, `10k`, `1.5M`, `0.1`."""
    if abs(value) >= 1e4:
        return tokens(value)
    return f"{value:,.0f}" if abs(value) >= 10 or not value else f"{value:.4g}"


def _usable(curves: Iterable[Curve], most: int = _CURVES_MOST) -> list[Curve]:
    """Return the curves that have two finite points or more, at most `most`."""
    return [curve for curve in curves if len(_points(curve)) > 1][:most]


def _points(curve: Curve) -> list[tuple[float, float]]:
    both = zip(curve.x, curve.usd_per_month, strict=False)
    return [(x, y) for x, y in both if math.isfinite(x) and math.isfinite(y)]


def _colours(result: PlanResult) -> Mapping[str, int]:
    """Return a colour per option, the same in every plot."""
    ids = dict.fromkeys(curve.option for curve in (*result.curves, *result.sensitivity))
    return {option: index % len(_SERIES) for index, option in enumerate(ids)}


def _draw_curves(axes: Axes, curves: Sequence[Curve], result: PlanResult) -> None:
    names, colours = outline.names_by_id(result), _colours(result)
    for curve in curves:
        index, label = colours[curve.option], cut(_name(curve, names), _NAME_MOST)
        xs, ys = zip(*_points(curve), strict=True)
        axes.plot(xs, ys, color=_SERIES[index], linestyle=_STYLES[index % len(_STYLES)], label=label)


def _name(curve: Curve, names: Mapping[str, str]) -> str:
    return names.get(curve.option, clean(curve.option))


def _ends(curve: Curve, names: Mapping[str, str], write: Callable[[float], str]) -> str:
    (x0, y0), (x1, y1) = _points(curve)[0], _points(curve)[-1]
    return f"{_name(curve, names)}: {amount(y0)} USD at {write(x0)}, {amount(y1)} USD at {write(x1)}."


def _curve_table(
    curves: Sequence[Curve], names: Mapping[str, str], *, first: str, write: Callable[[float], str]
) -> Table:
    """Return every fifth point or so as a table, a column per curve."""
    heads = (first, *(f"{_name(curve, names)}, USD a month" for curve in curves))
    known = [dict(_points(curve)) for curve in curves]
    xs = sorted({x for points in known for x in points})
    step = max(1, math.ceil(len(xs) / 9))
    rows = [(write(x), *(amount(points[x]) if x in points else "" for points in known)) for x in xs[::step]]
    return Table(head=heads, rows=tuple(rows))


def _stack(result: PlanResult) -> ReportPlot | None:
    options = [option for option in outline.shortlist(result, 1) if option.lines][
        :5
    ]  # what a decision is between
    if not options:
        return None
    lines = _lines(options)
    names = [cut(outline.option_name(option), _NAME_MOST) for option in options]
    parts = [[_part(option, line, lines) for line in lines] for option in options]
    named_parts = list(zip(names, parts, strict=True))

    def draw(axes: Axes) -> None:
        left = [0.0] * len(options)
        for index, line in enumerate(lines):
            widths = [row[index] for row in parts]
            axes.barh(
                range(len(options)),
                widths,
                left=left,
                height=0.55,
                color=_SERIES[index],
                edgecolor=_PAPER,
                linewidth=0.8,
                label=cut(outline.words_of(line), 24),
            )
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for row, name in enumerate(names):
            cost = amount(options[row].usd_per_month.p50)
            axes.text(left[row], row, f" {cost}", fontsize=_SMALL, va="center")
            axes.text(0, row - 0.36, name, fontsize=_SMALL, va="bottom", ha="left")
        axes.set_xlim(right=1.2 * max(left) or 1)
        _rows(axes, len(options), top=-0.85)
        _dress(axes, x="USD a month: middle of each line, and of the sum", y="", legend_columns=3)

    plot = ReportPlot(
        name="stack",
        title="What the cost is made of",
        alt="Cost lines of the best option of each kind, stacked. "
        + " ".join(f"{name}: {_most(dict(zip(lines, row, strict=True)))}." for name, row in named_parts),
        table=Table(
            head=("option", *(outline.words_of(line) for line in lines)),
            rows=tuple((name, *(amount(part) if part else "" for part in row)) for name, row in named_parts),
        ),
    )
    return _drawn(plot, draw)


_OTHER = "other"


def _lines(options: Sequence[PlanOption]) -> list[str]:
    sums: dict[str, float] = {}
    for option in options:
        for line, cost in option.lines.items():
            sums[line] = sums.get(line, 0.0) + (abs(cost.p50) if math.isfinite(cost.p50) else 0.0)
    ranked = sorted(sums, key=lambda line: -sums[line])
    return ranked if len(ranked) <= _LINES_MOST else [*ranked[:_LINES_MOST], _OTHER]


def _part(option: PlanOption, line: str, lines: Sequence[str]) -> float:
    if line == _OTHER and line not in option.lines:
        return sum(_finite(cost.p50) for name, cost in option.lines.items() if name not in lines)
    return _finite(option.lines[line].p50) if line in option.lines else 0.0


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _most(parts: Mapping[str, float]) -> str:
    ranked = sorted(parts, key=lambda line: -parts[line])[:3]
    return ", ".join(f"{outline.words_of(line)} {amount(parts[line])} USD" for line in ranked if parts[line])


def _tornado(result: PlanResult) -> ReportPlot | None:
    shown = [
        each
        for each in result.tornado
        if math.isfinite(each.usd_per_month_at_low + each.usd_per_month_at_high)
    ][:_TORNADO_MOST]
    if not shown:
        return None

    def draw(axes: Axes) -> None:
        for row, each in enumerate(shown):
            ends = (each.usd_per_month_at_low, each.usd_per_month_at_high)
            axes.barh(row, max(ends) - min(ends), left=min(ends), height=0.45, color=_SERIES[0])
        low, _ = axes.get_xlim()
        for row, each in enumerate(shown):
            label = cut(f"{outline.topic(each.name)}, {outline.influence_values(each)}", 52)
            axes.text(low, row - 0.27, label, fontsize=_SMALL, va="bottom", ha="left", bbox=_BACKED)
        axes.axvline(0, color=_INK, linewidth=1, zorder=1.5)
        _rows(axes, len(shown), top=-0.95)
        _dress(axes, x="USD a month, best owned or rented minus API", y="")

    plot = ReportPlot(
        name="tornado",
        title="What moves the answer most",
        alt="Difference in USD a month between the best owned or rented option and the API, as one input goes from its "
        "low to its high value. Below zero it is cheaper than the API. "
        + " ".join(_told(each) for each in shown[:4]),
        table=Table(
            head=("input", "from low to high", "USD a month at low", "USD a month at high", "given by you"),
            rows=tuple(_influence_row(each) for each in shown),
        ),
    )
    return _drawn(plot, draw, height_in=0.2 + 0.42 * len(shown))


def _rows(axes: Axes, count: int, *, top: float) -> None:
    """Make room for rows of bars over an axis of money, from the top down."""
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(_money)
    axes.set_ylim(count - 0.5, top)


def _told(each: Influence) -> str:
    ends = f"{amount(each.usd_per_month_at_low)} to {amount(each.usd_per_month_at_high)} USD"
    return f"{outline.topic(each.name)}, {outline.influence_values(each)}: {ends}."


def _dress(axes: Axes, *, x: str, y: str, legend_columns: int = 1) -> None:
    """Give a plot its axis names, grid and legend below."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, axis="both" if y else "x")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom" or bool(y and side == "left"))
    _make_room(axes, axis_named=bool(y), legend_columns=legend_columns)


def _make_room(axes: Axes, *, axis_named: bool, legend_columns: int) -> None:
    """Set margins in inches, so that all plots have the same letters, and add the legend."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    handles, labels = axes.get_legend_handles_labels()
    legend_in = _LEGEND_ROW_IN * math.ceil(len(handles) / legend_columns)
    inside_in = figure.get_figheight()
    height_in = inside_in + 0.62 + legend_in
    figure.set_figheight(height_in)
    left = (0.72 if axis_named else 0.22) / _WIDTH_IN
    figure.subplots_adjust(
        left=left, right=1 - 0.2 / _WIDTH_IN, top=1 - 0.1 / height_in, bottom=(0.52 + legend_in) / height_in
    )
    if handles:
        figure.legend(handles, labels, loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=legend_columns)


def _drawn(plot: ReportPlot, draw: Callable[[Axes], None], *, height_in: float = _HEIGHT_IN) -> ReportPlot:
    """Return the plot with what `draw` draws as an SVG element: the same bytes every time."""
    with mpl.rc_context(fname=_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, height_in))
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata=_NO_METADATA)
    label = f"{plot.title}. {plot.alt}"
    return replace(plot, svg=inlined(written.getvalue(), name=plot.name, alt=label, colours=_VARIABLES))


def _influence_row(each: Influence) -> tuple[str, ...]:
    ends = (amount(each.usd_per_month_at_low), amount(each.usd_per_month_at_high))
    return (outline.topic(each.name), outline.influence_values(each), *ends, "yes" if each.asked else "no")
