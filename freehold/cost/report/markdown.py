"""A plan as GitHub Markdown: the same content as in the terminal, for a ticket or a wiki. The verdict is on top.

Every text from outside is escaped, so that it can neither end a cell, nor start a link, nor be HTML. Plots are not here.
"""

import re
from collections.abc import Iterable, Sequence

from freehold.cost.model.result import BreakEven, Influence, Option, PlanResult
from freehold.cost.model.rounding import bound, chance
from freehold.cost.report import outline
from freehold.cost.report.clean import clean

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$@]|(?<=[a-z]):(?=//)|(?<=www)\.)")
"""What starts markup, a link, a mention or a formula somewhere in GitHub Markdown."""
_START = re.compile(r"^(\d*)([.)](?=\s|$)|(?<!\d)[-+=](?=[\s=-]|$))")
"""What makes a list or a heading of a line that begins with it."""


def to_markdown(result: PlanResult) -> str:
    """Return the plan as Markdown that ends with a line break."""
    sections = (_verdict, _head, _options, _break_evens, _rules, _tornado, _assumptions, _sources)
    return "\n\n".join(text for section in sections if (text := section(result))) + "\n"


def escaped(text: str) -> str:
    """Return one line of text in which nothing is markup: for a paragraph, a list item or a cell of a table."""
    return _START.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", clean(text)))


def code(text: str) -> str:
    """Return a text as inline code, which may hold backticks itself; never for a cell of a table."""
    cleaned = clean(text)
    longest = max(map(len, re.findall(r"`+", cleaned)), default=0)
    fence, gap = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{gap}{cleaned}{gap}{fence}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> str:
    """Return a table; the last `numbers` columns are aligned to the right. Cells are escaped here."""
    rule = ["---"] * (len(heads) - numbers) + ["---:"] * numbers
    lines = [heads, rule, *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def points(texts: Iterable[str]) -> str:
    """Return a list of escaped texts; empty if there are none."""
    return "\n".join(f"- {escaped(text)}" for text in texts)


def _verdict(result: PlanResult) -> str:
    verdict = result.verdict
    changes = points(outline.change_text(change, verdict) for change in verdict.would_change_it)
    asked = points(verdict.ask_first[:2])
    parts = (
        f"# {escaped(outline.verdict_answer(verdict))}",
        f"**{escaped(verdict.headline)}**",
        escaped(verdict.text),
        f"Confidence: {escaped(outline.confidence_text(verdict))}. Plan of {escaped(result.today)}.",
        f"What would change it:\n\n{changes}" if changes else "",
        f"Not given yet, and it matters most:\n\n{asked}" if asked else "",
        f"Next: {code(verdict.next_command)}" if verdict.next_command else "",
    )
    return "\n\n".join(filter(None, parts))


def _head(result: PlanResult) -> str:
    lines = points(f"{line.label}: {line.text}" for line in outline.head(result))
    return "\n\n".join(filter(None, ("## What was asked", lines, points(result.notes))))


def _options(result: PlanResult) -> str:
    shown = outline.shortlist(result)
    notes = outline.footnotes(shown)
    rows = [_option_row(option, result, notes) for option in shown]
    rest = [f"[{number}] {text}" for number, text in enumerate(notes, start=1)]
    rest += [outline.left_out(result), outline.incomplete_text(result), *outline.no_options_of(result)]
    heads = ("option", "USD a month", "USD per million tokens", "capacity used")
    parts = (
        "## Options",
        "Middle, and in brackets the 10th to 90th percentile over the draws.",
        table(heads, rows, numbers=3),
    )
    return "\n\n".join((*(parts if rows else parts[:1]), *(escaped(text) for text in rest if text)))


def _option_row(option: Option, result: PlanResult, notes: Sequence[str]) -> tuple[str, ...]:
    marks = [
        word
        for word, holds in (
            ("paid today", option.paid_today),
            ("advised", option.id == result.verdict.option),
        )
        if holds
    ]
    name = (
        outline.option_name(option)
        + (f" ({', '.join(marks)})" if marks else "")
        + outline.why_listed(option)
        + outline.marks(option, notes)
    )
    return (name, outline.month_cost(option), outline.million_cost(option), outline.use(option))


def _break_evens(result: PlanResult) -> str:
    names = outline.names_by_id(result)

    def row(each: BreakEven) -> tuple[str, ...]:
        who = (names.get(each.option, each.option), names.get(each.against, each.against))
        where = (outline.break_even_tokens(each), outline.break_even_use(each), outline.payback(each))
        return (*who, *where, chance(each.chance_cheaper))

    rows = [row(each) for each in outline.chosen_break_evens(result)]
    heads = (
        "option",
        "against",
        "cheaper, tokens a month",
        "used then",
        "pays back in month",
        "cheaper today, share of draws",
    )
    parts = ("## Break-even", table(heads, rows), outline.more_break_evens(result))
    return "\n\n".join(filter(None, parts)) if rows else ""


def _rules(result: PlanResult) -> str:
    rows = [(rule.claim, rule.verdict, rule.computed) for rule in result.rules]
    title = "## Rules of thumb beside your numbers"
    return f"{title}\n\n{table(('claim', 'verdict', 'your numbers'), rows)}" if rows else ""


def _tornado(result: PlanResult) -> str:
    def row(each: Influence) -> tuple[str, ...]:
        ends = (bound(each.usd_per_month_at_low), bound(each.usd_per_month_at_high))
        return (
            outline.topic(each.name),
            outline.influence_values(each),
            "you" if each.asked else "catalog or default",
            *ends,
        )

    heads = ("input", "from low to high", "said by", "USD a month at low", "at high")
    note = escaped(f"USD a month: {outline.tornado_of(result)}.")
    rows = [row(each) for each in result.tornado[:8]]
    return f"## What moves the answer most\n\n{note}\n\n{table(heads, rows, numbers=2)}" if rows else ""


def _assumptions(result: PlanResult) -> str:
    rows = [outline.assumption(row) for row in result.assumptions]
    cells = [(row.name, row.value, row.who, row.source) for row in rows]
    return (
        f"## Assumptions\n\n{table(('input', 'low / middle / high', 'said by', 'source'), cells)}"
        if rows
        else ""
    )


def _sources(result: PlanResult) -> str:
    weak, more = outline.weak_sources(result)
    texts = [f"{each.text}: {each.why}" for each in weak] + ([f"and {more} more"] if more else [])
    return f"## Check before you rely on it\n\n{points(texts)}" if texts else ""
