"""What the templates of a plan's HTML page and Markdown name: the plan, and how `outline` words it. It computes nothing."""

from typing import Any

from freehold.cost.model.result import PlanResult
from freehold.cost.report import outline

TORNADO_MOST = 8
"""Inputs in Markdown's table. Our own choice: what comes after moves nothing."""


def content(result: PlanResult, *, weak_most: int) -> dict[str, Any]:
    """Return what the templates name; at most so many weak sources, and how many more there are."""
    short = outline.shortlist(result)
    weak, more_weak = outline.weak_sources(result, most=weak_most)
    return {
        "outline": outline,
        "result": result,
        "verdict": result.verdict,
        "short": short,
        "footnotes": outline.footnotes(short),
        "names": outline.names_by_id(result),
        "gaps": [text for text in (outline.incomplete_text(result), *outline.no_options_of(result)) if text],
        "break_evens": outline.chosen_break_evens(result),
        "tornado_most": TORNADO_MOST,
        "weak": weak,
        "more_weak": more_weak,
        "how_far_off": outline.HOW_FAR_OFF,
    }
