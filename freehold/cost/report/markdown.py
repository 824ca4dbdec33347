"""A plan and a review as GitHub Markdown: the same content as in the terminal, for a ticket or a wiki. The verdict is on top.

Every text from outside is escaped, so that it can neither end a cell, nor start a link, nor be HTML. Plots are not here.
"""

from freehold.cost.model.result import PlanResult
from freehold.cost.report import review_outline
from freehold.cost.report.content import content
from freehold.cost.report.templates import render
from freehold.cost.review.review import ReviewResult

WEAK_MOST = 8
"""Sources to check that are named. Our own choice: the verdict rests on the first ones."""


def to_markdown(result: PlanResult) -> str:
    """Return the plan as Markdown that ends with a line break."""
    return render(__package__, "plan.md.j2", content(result, weak_most=WEAK_MOST))


def review_to_markdown(result: ReviewResult) -> str:
    """Return the review as Markdown that ends with a line break."""
    shown = {
        "result": result,
        "answer": review_outline.ANSWERS[result.word],
        "confidence": review_outline.confidence_text(result),
        "figures": review_outline.figures(result),
        "lines": review_outline.line_rows(result.lines),
        "period_heads": review_outline.PERIOD_HEADS,
        "periods": review_outline.period_rows(result),
    }
    return render(__package__, "review.md.j2", shown)
