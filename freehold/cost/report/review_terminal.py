"""A measured month in a terminal: what was paid, by what, since when, and last whether owning is still worth it.

It fits 80 columns and a pipe, as a plan does. Nothing that was not measured is shown as measured.
"""

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.rule import Rule as Line
from rich.text import Text

from freehold.cost.report import review_outline as outline
from freehold.cost.report.clean import clean
from freehold.cost.report.terminal import grid, heading, pairs, points, print_command, print_parts
from freehold.cost.review.answer import Word
from freehold.cost.review.review import ReviewResult

_STYLES: dict[Word, str] = {
    "keep": "bold green",
    "run-out": "bold yellow",
    "go-back": "bold red",
    "unclear": "bold yellow",
}


def show(result: ReviewResult, console: Console | None = None) -> None:
    """Print a review to a console (standard output): some 30 to 50 lines."""
    console = console or Console()
    parts: list[RenderableType] = [heading("Review", result.today), pairs(outline.figures(result)), Text()]
    parts += [
        heading("What it is made of", "USD a month; middle (10th-90th percentile)"),
        grid(("line", "USD a month"), outline.line_rows(result.lines)),
        Text(),
    ]
    if result.trend.periods:
        parts += [
            heading("Period by period", "at the middle cost"),
            grid(outline.PERIOD_HEADS, outline.period_rows(result)),
            Text(),
        ]
    for title, texts in (("Not measured", result.estimated), ("Without a price", result.incomplete)):
        if texts:
            parts += [heading(title), points(map(clean, texts)), Text()]
    print_parts([*parts, *_verdict(result)], console)
    print_command(result.next_command, console)


def _verdict(result: ReviewResult) -> list[RenderableType]:
    answer = Text(outline.ANSWERS[result.word].upper(), style=_STYLES[result.word])
    said = [Text(clean(result.headline), style="bold"), Text(clean(result.text))]
    sure = outline.confidence_text(result)
    said += [Text(f"confidence  {sure}")] if sure else []
    return [Line(characters="─", style="dim"), answer, *(Padding(text, (0, 0, 0, 2)) for text in said)]
