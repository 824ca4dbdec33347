"""What the HTML page and the Markdown of a plan show, in which words: one content for both templates. It computes nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from freehold.cost.model.result import BreakEven, Influence, PlanOption, PlanResult
from freehold.cost.model.rounding import bound, chance
from freehold.cost.report import outline
from freehold.cost.report.clean import clean

TORNADO_MOST = 8
"""Inputs in Markdown's table. Our own choice: what comes after moves nothing."""


def content(result: PlanResult, *, weak_most: int) -> dict[str, Any]:
    """Return what the templates name; at most so many weak sources, and how many more there are."""
    verdict, shown = result.verdict, outline.shortlist(result)
    weak, more_weak = outline.weak_sources(result, most=weak_most)
    notes, names = outline.footnotes(shown), outline.names_by_id(result)
    return {
        "verdict": verdict,
        "answer": outline.verdict_answer(verdict),
        "confidence": outline.confidence_text(verdict),
        "changes": [outline.change_text(change, verdict) for change in verdict.would_change_it],
        "asked": verdict.ask_first[:2],
        "today": result.today,
        "head": outline.head(result),
        "notes": result.notes,
        "short": [_option(option, result, notes) for option in shown],
        "footnotes": notes,
        "gaps": [text for text in (outline.incomplete_text(result), *outline.no_options_of(result)) if text],
        "left_out": outline.left_out(result),
        "break_evens": [_break_even(each, names) for each in outline.chosen_break_evens(result)],
        "more_break_evens": outline.more_break_evens(result),
        "rules": result.rules,
        "tornado_of": outline.tornado_of(result),
        "tornado": [_influence(each) for each in result.tornado[:TORNADO_MOST]],
        "assumptions": [outline.assumption(row) for row in result.assumptions],
        "weak": weak,
        "more_weak": more_weak,
        "check": [f"{each.text}: {each.why}" for each in weak] + [f"and {more_weak} more"] * bool(more_weak),
    }


def every_option(result: PlanResult) -> list[Mapping[str, object]]:
    """Return a row for each option of the plan."""
    return [_option(option, result, ()) for option in result.options]


def _option(option: PlanOption, result: PlanResult, notes: Sequence[str]) -> Mapping[str, object]:
    name, advised = outline.option_name(option), option.id == result.verdict.option
    marks = [word for word, holds in (("paid today", option.paid_today), ("advised", advised)) if holds]
    said = f" ({', '.join(marks)})" if marks else ""
    return {
        "name": name,
        "label": name + said + outline.why_listed(option) + (outline.marks(option, notes) if notes else ""),
        "runs": outline.runs(option),
        "month": outline.month_cost(option),
        "million": outline.million_cost(option),
        "use": outline.use(option),
        "today": option.paid_today,
        "advised": advised,
        "listed": not option.can_win and not option.incomplete,
        "lacks": ", ".join(map(clean, option.incomplete)),
        "warnings": [clean(text) for text in option.warnings],
    }


def _break_even(each: BreakEven, names: Mapping[str, str]) -> Mapping[str, str]:
    return {
        "option": names.get(each.option, clean(each.option)),
        "against": names.get(each.against, clean(each.against)),
        "tokens": outline.break_even_tokens(each),
        "used": outline.break_even_use(each),
        "month": outline.payback(each),
        "chance": chance(each.chance_cheaper),
    }


def _influence(each: Influence) -> Mapping[str, str]:
    return {
        "input": outline.topic(each.name),
        "range": outline.influence_values(each),
        "who": "you" if each.asked else "catalog or default",
        "low": bound(each.usd_per_month_at_low),
        "high": bound(each.usd_per_month_at_high),
    }
