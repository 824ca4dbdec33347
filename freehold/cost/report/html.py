"""A plan as one HTML file that needs nothing else: no script, no font, no picture and no request to anywhere.

The verdict is on top. Every text from outside is escaped by the template; only the plots' SVG, in which matplotlib has
escaped the texts, goes in as it is. How it looks stands in plan.css, what is where in plan.html.j2; nothing is computed.
"""

import re
from collections.abc import Mapping
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from freehold.cost.model.result import BreakEven, Option, PlanResult
from freehold.cost.model.rounding import chance
from freehold.cost.report import outline
from freehold.cost.report.clean import clean
from freehold.cost.report.plots import plots

_URL = re.compile(r"https?://[^\s<>\"')\]]+")


def to_html(result: PlanResult) -> str:
    """Return the page: UTF-8 text of some 100 to 200 kB. Takes about a second, most of it for the plots."""
    home = files(__package__)
    page = _environment().from_string((home / "plan.html.j2").read_text(encoding="utf-8"))
    style = (home / "plan.css").read_text(encoding="utf-8")
    return page.render(style=Markup(style), **_content(result))  # noqa: S704  our own file


def _environment() -> Environment:
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["linked"] = linked
    made.filters["clean"] = clean
    return made


def linked(text: str) -> Markup:
    """Return a text as HTML in which web addresses are links; everything is escaped, and no other scheme is a link."""
    parts = Markup()
    rest = 0
    for found in _URL.finditer(text):
        url = escape(found[0])
        parts += escape(text[rest : found.start()]) + Markup('<a href="{}" rel="noreferrer">{}</a>').format(
            url, url
        )
        rest = found.end()
    return parts + escape(text[rest:])


def _content(result: PlanResult) -> Mapping[str, object]:
    verdict = result.verdict
    weak, more_weak = outline.weak_sources(result, most=100)
    return {
        "verdict": verdict,
        "answer": outline.verdict_answer(verdict),
        "confidence": outline.confidence_text(verdict),
        "changes": [outline.change_text(change, verdict) for change in verdict.would_change_it],
        "today": result.today,
        "head": outline.head(result),
        "notes": result.notes,
        "short": [_option(option, result) for option in outline.shortlist(result)],
        "every": [_option(option, result) for option in result.options],
        "gaps": [text for text in (outline.incomplete_text(result), *outline.no_options_of(result)) if text],
        "left_out": outline.left_out(result),
        "break_evens": _break_evens(result),
        "more_break_evens": outline.more_break_evens(result),
        "plots": [(plot, Markup(plot.svg)) for plot in plots(result)],  # noqa: S704  escaped by matplotlib
        "rules": result.rules,
        "assumptions": [outline.assumption(row) for row in result.assumptions],
        "weak": weak,
        "more_weak": more_weak,
        "sources": outline.all_sources(result),
    }


def _option(option: Option, result: PlanResult) -> Mapping[str, object]:
    return {
        "name": outline.option_name(option),
        "runs": outline.runs(option),
        "month": outline.month_cost(option),
        "million": outline.million_cost(option),
        "use": outline.use(option),
        "today": option.paid_today,
        "advised": option.id == result.verdict.option,
        "listed": not option.can_win and not option.incomplete,
        "lacks": ", ".join(map(clean, option.incomplete)),
        "warnings": [clean(text) for text in option.warnings],
    }


def _break_evens(result: PlanResult) -> list[Mapping[str, str]]:
    names = outline.names_by_id(result)
    return [_break_even(each, names) for each in outline.chosen_break_evens(result)]


def _break_even(each: BreakEven, names: Mapping[str, str]) -> Mapping[str, str]:
    return {
        "option": names.get(each.option, clean(each.option)),
        "against": names.get(each.against, clean(each.against)),
        "tokens": outline.break_even_tokens(each),
        "used": outline.break_even_use(each),
        "month": outline.payback(each),
        "chance": chance(each.chance_cheaper),
    }
