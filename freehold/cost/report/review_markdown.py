"""A measured month as GitHub Markdown: the same content as in the terminal, the verdict on top. It computes nothing."""

from freehold.cost.report import review_outline as outline
from freehold.cost.report.markdown import code, escaped, points, table
from freehold.cost.review.review import ReviewResult


def to_markdown(result: ReviewResult) -> str:
    """Return the review as Markdown that ends with a line break."""
    parts = (
        f"# {escaped(outline.ANSWERS[result.word])}",
        f"**{escaped(result.headline)}**",
        escaped(result.text),
        *([f"Confidence: {escaped(sure)}."] if (sure := outline.confidence_text(result)) else []),
        f"Next: {code(result.next_command)}" if result.next_command else "",
        "## The month",
        table(("figure", "value"), outline.figures(result)),
        "## What it is made of",
        table(("line", "USD a month"), outline.line_rows(result.lines), numbers=1) if result.lines else "",
        *_listed("## Period by period", _periods(result)),
        *_listed("## Not measured", points(result.estimated)),
        *_listed("## Without a price", points(result.incomplete)),
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def _periods(result: ReviewResult) -> str:
    rows = outline.period_rows(result)
    return table(outline.PERIOD_HEADS, rows, numbers=4) if rows else ""


def _listed(title: str, text: str) -> tuple[str, ...]:
    return (title, text) if text else ()
