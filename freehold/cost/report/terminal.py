"""A plan in a terminal: the verdict and the command to run next, then what the verdict rests on, in some 60 lines.

It fits 80 columns and a pipe: what is long is wrapped inside its column, never cut through a number. Texts are
printed as they are and never read as markup. The rules of thumb come only if they are asked for. The whole plan is
not here: that is in the HTML and the JSON.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from freehold.cost.model.result import PlanOption, PlanResult
from freehold.cost.model.rounding import DASH, TIMES
from freehold.cost.report import outline
from freehold.cost.report.clean import clean, cut

_ASCII = str.maketrans({DASH: "-", TIMES: "x", "…": ".", "•": "-", "─": "-"})
# All of these are our own choice: the whole stays within some 60 lines of 80 columns, and what is left out is counted.
# The first two rules, those on when to rent and to buy, are shown at length.
_RULES_MOST = 18
_NOTES_MOST = 1
_RULES_FIRST = 2
_FIRST_MOST = 200
_COMPUTED_MOST = 104
_CLAIM_MOST = 56
_WEAK_MOST = 1
_TWO_LINES = 192
_CHANGES_MOST = 2
_CHANGE_MOST = 120
_TORNADO_MOST = 3
_OPTIONS_MOST = 2  # of each kind: API, rented, bought
_BREAK_EVENS_MOST = 1
_NAME_MOST = 120
_NAME_LEAST = 24
"""Columns that an option's name needs beside its numbers; with less, each option is a block of lines."""
_OPTION_HEADS = ("option", "USD a month", "USD per M tokens", "used")
_WORD_STYLES = {"holds": "green", "does not hold": "red", "depends": "yellow", "unknown": "dim"}


class _Tidy:
    """Renders as its content does, without blanks at the ends of lines, and in ASCII where the output takes no more."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in Segment.split_lines(console.render(self.inner, options)):
            kept = list(line)
            while kept and not kept[-1].text.strip():
                kept.pop()
            if kept:
                kept[-1] = Segment(kept[-1].text.rstrip(), kept[-1].style)
            for segment in kept:
                yield Segment(_ascii(segment.text), segment.style) if options.ascii_only else segment
            yield Segment.line()


def _ascii(text: str) -> str:
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def show(result: PlanResult, console: Console | None = None, *, rules: bool = False) -> None:
    """Print a plan to a console (standard output), with the `rules` of thumb if asked. Needs 60 columns or more to read well."""
    console = console or Console()
    print_parts([_verdict(result)], console)
    print_command(result.verdict.next_command, console)
    for section in (*_SECTIONS, *[_rules] * rules):
        found = section(result, console)
        if found is not None:
            print_parts([Text(), found], console)


def print_parts(parts: Iterable[RenderableType], console: Console) -> None:
    """Print what was made, in ASCII where the output cannot take more."""
    console.print(_Tidy(Group(*parts)), end="")


def print_command(command: str, console: Console) -> None:
    """Print a command to copy, on one line whatever the width; nothing if it is empty."""
    if command:
        text = f"  next: {clean(command)}"
        console.print(Text(_ascii(text) if console.options.ascii_only else text), soft_wrap=True)


Row = tuple[str, str]
"""A label and its text."""


def heading(text: str, note: str = "") -> Text:
    """Return a section's title with a dim remark behind it."""
    return Text.assemble((text, "bold"), ("  " + note if note else "", "dim"))


def pairs(rows: Iterable[Row]) -> Table:
    """Return labels and texts in two columns; texts wrap beside their label."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(Text(cut(label, 22)), Text(text))
    return table


def points(texts: Iterable[str], mark: str = "•") -> Table:
    """Return sentences with a hanging mark."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for text in texts:
        table.add_row(Text(mark), Text(text))
    return table


def columns(heads: Sequence[tuple[str, bool]]) -> Table:
    """Return an empty table whose columns are (title, whether it holds numbers, which are never wrapped)."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for title, is_number in heads:
        table.add_column(
            Text(title, style="dim"),
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="fold",
        )
    return table


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]], styles: Iterable[str] = ()) -> Table:
    """Return a table of names and, behind them, numbers, with a style for each row."""
    table = columns([(title, index > 0) for index, title in enumerate(heads)])
    for row, style in itertools.zip_longest(rows, styles):
        table.add_row(*map(Text, row), style=style)
    return table


def _is_loss(note: str) -> bool:
    """Return whether it says that a part of what was given is not in the plan: such a note is always shown."""
    return note.startswith("WARNING") or "could not be used" in note


def _head(result: PlanResult, _: Console) -> RenderableType:
    rows = [(line.label, line.text) for line in outline.head(result)]
    told = list(filter(_is_loss, result.notes)) or result.notes[:_NOTES_MOST]
    notes = [cut(clean(note), _TWO_LINES) for note in told]
    more = len(result.notes) - len(notes)
    title = heading("What was asked", f"{more} more in --html and --json" if more else "")
    return Group(title, pairs(rows), *([points(notes)] if notes else []))


def _options(result: PlanResult, console: Console) -> RenderableType:
    shown = outline.shortlist(result, _OPTIONS_MOST)
    notes = outline.footnotes(shown)
    rows = [
        (_name(each, notes), outline.month_cost(each), outline.million_cost(each), outline.use(each))
        for each in shown
    ]
    styles = ["bold" if each.id == result.verdict.option else "" for each in shown]
    numbers = sum(max(map(len, column)) + 2 for column in list(zip(_OPTION_HEADS, *rows, strict=True))[1:])
    fits = console.width - numbers >= _NAME_LEAST
    rest = ["; ".join(f"[{number}] {text}" for number, text in enumerate(notes, start=1))]
    counts = outline.left_out(result, _OPTIONS_MOST), outline.incomplete_text(result, 0)
    rest += [" ".join(filter(None, (*counts, *outline.no_options_of(result))))]
    title = heading("Options", "middle (10th-90th percentile); used: of the capacity within the SLO")
    body = [grid(_OPTION_HEADS, rows, styles) if fits else _option_blocks(rows, styles)] if rows else []
    return Group(title, *body, *(Text(text, style="dim") for text in rest if text))


def _name(option: PlanOption, notes: Sequence[str]) -> str:
    today = " (today's)" if option.paid_today else ""
    name = cut(outline.option_name(option), _NAME_MOST) + today + outline.why_listed(option)
    return name + outline.marks(option, notes)


def _option_blocks(rows: Sequence[Sequence[str]], styles: Sequence[str]) -> RenderableType:
    """Return two lines or more per option, for a terminal too narrow for a table."""
    parts: list[RenderableType] = []
    for (name, *cells), style in zip(rows, styles, strict=True):
        figures = "; ".join(f"{title} {cell}" for title, cell in zip(_OPTION_HEADS[1:], cells, strict=True))
        parts += [Text(name, style=style), Padding(Text(figures), (0, 0, 0, 4))]
    return Group(*parts)


def _break_evens(result: PlanResult, _: Console) -> RenderableType | None:
    names = outline.names_by_id(result)
    chosen = outline.chosen_break_evens(result)
    texts = [outline.break_even_text(each, names) for each in chosen[:_BREAK_EVENS_MOST]]
    more = len(result.break_even) - len(texts)
    note = f"{more} more in --html and --json" if more else ""
    return Group(heading("Break-even", note), points(texts)) if texts else None


def _rules(result: PlanResult, _: Console) -> RenderableType | None:
    if not result.rules:
        return None
    table = columns((("claim", False), ("verdict", True), ("your numbers", False)))
    table.columns[0].ratio, table.columns[1].justify, table.columns[2].ratio = 4, "left", 7
    table.expand = True
    for index, rule in enumerate(result.rules[:_RULES_MOST]):
        word = Text(rule.verdict, style=_WORD_STYLES[rule.verdict])
        most = _FIRST_MOST if index < _RULES_FIRST else _COMPUTED_MOST
        table.add_row(Text(cut(clean(rule.claim), _CLAIM_MOST)), word, Text(cut(clean(rule.computed), most)))
    more = len(result.rules) - _RULES_MOST
    rest = Text(f"{more} more rules in --html and --json", style="dim")
    title = heading("Rules of thumb beside your numbers", "in full in --html and --markdown")
    return Group(title, table, *[rest] * (more > 0))


def _sources(result: PlanResult, _: Console) -> RenderableType:
    weak, more = outline.weak_sources(result, _WEAK_MOST)
    texts = [
        cut(f"{each.text}: {each.why}" if each.why != "in doubt" else each.text, _TWO_LINES) for each in weak
    ]
    note = f"{more} more in --html; " if more else ""
    title = heading("Check before you rely on it", f"{note}speeds: docs/how-far-off.md")
    return Group(title, points(texts))


def _ask_first(result: PlanResult, _: Console) -> RenderableType | None:
    asked = [clean(text) for text in result.verdict.ask_first[:2]]
    return Group(heading("Not given yet, and it matters most"), points(asked, "?")) if asked else None


def _verdict(result: PlanResult) -> RenderableType:
    verdict = result.verdict
    answer = Text(
        outline.verdict_answer(verdict).upper(),
        style="bold green" if verdict.word != "undecided" else "bold yellow",
    )
    rows = [("confidence", outline.confidence_text(verdict))]
    rows += [
        ("changes it", cut(outline.change_text(change, verdict), _CHANGE_MOST))
        for change in verdict.would_change_it[:_CHANGES_MOST]
    ]
    more = len(verdict.would_change_it) - _CHANGES_MOST
    if more > 0:
        rows.append(("", f"and {more} more in --html and --json"))
    moving = [f"{outline.topic(each.name)} {outline.influence_values(each)}" for each in result.tornado]
    if moving:
        rows.append(("moves it most", "; ".join(moving[:_TORNADO_MOST])))
    body: list[RenderableType] = [
        Text(clean(verdict.headline), style="bold"),
        Text(clean(verdict.text)),
        pairs(rows),
    ]
    return Group(heading("Plan", result.today), answer, Padding(Group(*body), (0, 0, 0, 2)))


_SECTIONS: tuple[Callable[[PlanResult, Console], RenderableType | None], ...] = (
    _ask_first,
    _head,
    _options,
    _break_evens,
    _sources,
)
