"""What a report shows of a plan, in which order and words: the choice that terminal, Markdown and HTML share.

It chooses and words; it computes nothing, and escapes nothing: that is each writer's own. What is left out is counted.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files

import msgspec

from freehold.cost.model import rounding
from freehold.cost.model.result import (
    BreakEven,
    Influence,
    Kind,
    PlanOption,
    PlanResult,
    PlanVerdict,
    TurningPoint,
)
from freehold.cost.model.rounding import DASH, TIMES
from freehold.cost.report.clean import clean, cut

BREAK_EVENS = 4
"""Break-evens that are shown. Our own choice: rent and buy, against the API in use and the cheapest of the same model."""
PER_KIND = 3
"""Options of each kind in a short table. Source: our own choice; the fourth best decides nothing."""
NOBODY = "nobody"
"""The provider where no rental has a price. Source: cost.offers."""
QUOTED = "quote"
"""The provider of what the user was quoted. Source: cost.offers.QUOTED."""
STALE_DAYS = 90
"""Age past which a fact is named. Source: docs/decisions/0010-decide.md."""
HOW_FAR_OFF = "How far off speeds are, on others' measurements: docs/how-far-off.md"
"""The line that every plan ends its sources with."""
_DATED = re.compile(r"\((\d{4}-\d\d-\d\d)[,)](?:\s*([a-z]+)\))?")
_WEAK = {"secondary": "quoted second-hand", "memory": "from memory"}
_KINDS: tuple[Kind, ...] = ("api", "rent", "buy")
KIND_WORDS: Mapping[Kind, str] = {"api": "API", "rent": "rent", "buy": "buy"}


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The words of outline.toml, which says what each table is."""

    answers: dict[str, str]
    units: dict[str, str]
    unit_words: frozenset[str]
    none_wins: dict[str, str]
    none_listed: dict[str, str]
    head: dict[str, dict[str, str]]


_WORDS = msgspec.toml.decode((files(__package__) / "outline.toml").read_bytes(), type=Words)
ANSWERS: Mapping[str, str] = _WORDS.answers
"""The verdict's word, said."""
_USUAL = frozenset(("list price", "list prices"))
"""Terms of an API that go without saying."""
_BARE = frozenset(("ratio", "fraction"))
"""Units that say nothing beside a number."""
_ASSUMED_KEYS = frozenset(("name", "low", "mid", "high", "asked", "source"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLine:
    """One line of a report's head."""

    label: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weak:
    """A source to check before it is relied on, and why."""

    text: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumed:
    """One uncertain input as a row: what a plan's row does not say is empty."""

    name: str
    value: str
    """Low / middle / high, or one value."""
    who: str
    source: str


def words_of(name: str) -> str:
    """Return a name with underscores as words: `power_usd_per_kwh` is `power USD per kWh`."""
    return " ".join(_WORDS.units.get(word, word) for word in clean(name).replace("_", " ").split())


def topic(name: str) -> str:
    """Return what an input's name is about, without its unit: `power_usd_per_kwh` is `power`; for beside a unit."""
    return named(name).partition(", ")[0]


def named(name: str) -> str:
    """Return an input's name in words, its unit behind a comma: `power_usd_per_kwh` is `power, USD per kWh`."""
    words = clean(name).replace(",", " ").split("_")
    ends = [index for index, word in enumerate(words) if index and word in _WORDS.unit_words] or [len(words)]
    return ", ".join(
        filter(None, (words_of("_".join(words[: ends[0]])), words_of("_".join(words[ends[0] :]))))
    )


def option_name(option: PlanOption) -> str:
    """Return an option in words: `rent 2 x h100-sxm, runpod, on-demand` or `API openai gpt-5.4`."""
    who = clean(option.provider)
    if option.kind == "api":
        terms = "" if option.terms in _USUAL else clean(option.terms)
        return _joined(f"API {who} {clean(option.model)}".replace("  ", " "), terms)
    what = f"{KIND_WORDS[option.kind]} {option.count} {TIMES} {clean(option.gpu)}"
    who = "no price known" if option.provider == NOBODY else who
    return _joined(what, *who.split(", "), *clean(option.terms).split(", "))


def _joined(*parts: str) -> str:
    return ", ".join(dict.fromkeys(part for part in parts if part))


def names_by_id(result: PlanResult) -> Mapping[str, str]:
    """Return the options' names by id; an id without option is shown as itself by whoever asks."""
    return {option.id: option_name(option) for option in result.options}


def runs(option: PlanOption) -> str:
    """Return what runs on a rented or bought option: `llama-3.1-8b on vllm, fp8, 2 replicas`; empty for an API."""
    if option.kind == "api":
        return ""
    replicas = f"{option.replicas} replica{'' if option.replicas == 1 else 's'}"
    return _joined(f"{clean(option.model)} on {clean(option.engine)}", clean(option.quant), replicas)


def month_cost(option: PlanOption) -> str:
    """Return what it costs in a month; of an incomplete option, that it is a least figure."""
    return ("at least " if option.incomplete else "") + rounding.usd_range(option.usd_per_month)


def million_cost(option: PlanOption) -> str:
    """Return what a million tokens cost; of an incomplete option, that it is a least figure."""
    return ("at least " if option.incomplete else "") + rounding.usd_range(option.usd_per_million_tokens)


def use(option: PlanOption) -> str:
    """Return the part of its capacity that is used; `n/a` for an API."""
    return "n/a" if option.utilisation is None else rounding.percent(option.utilisation)


def contenders(result: PlanResult) -> tuple[PlanOption, ...]:
    """Return the options that can be the verdict: complete, and not only listed."""
    return tuple(option for option in result.options if option.can_win and not option.incomplete)


def shortlist(result: PlanResult, per_kind: int = PER_KIND) -> tuple[PlanOption, ...]:
    """Return the options worth a row, in the plan's order: the best of each kind that can win, today's, the advised.

    Of options that differ only in what runs on them, only the cheapest counts as one of the best. What was asked for by
    name, GPUs and quotes, has its row whatever it costs and though it cannot win.
    """
    first: dict[tuple[str, str], PlanOption] = {}
    for option in contenders(result):
        first.setdefault((option.kind, option_name(option)), option)
    kept = {o.id for kind in _KINDS for o in [o for o in first.values() if o.kind == kind][:per_kind]}
    always = {option.id for option in result.options if option.paid_today and not option.incomplete}
    always |= {result.verdict.option, *_asked_for(result)}
    return tuple(o for o in result.options if o.id in kept | always)


def _asked_for(result: PlanResult) -> Iterator[str]:
    """Yield the ids of the best rental and purchase of each GPU that was named, and of each quote."""
    named = str(result.summary.get("asked_gpus", "")).split(", ")
    for gpu in dict.fromkeys(option.gpu for option in result.options if option.gpu):
        for kind in ("rent", "buy"):
            found = [option for option in result.options if (option.gpu, option.kind) == (gpu, kind)]
            if gpu in named and found:
                yield max(found, key=lambda o: (o.can_win and not o.incomplete, not o.incomplete)).id
            yield from (option.id for option in [o for o in found if o.provider == QUOTED][:1])


def why_listed(option: PlanOption) -> str:
    """Return why an option with a row cannot win: ` (cannot win: no price of …)`; empty: it can."""
    if option.incomplete and option.provider != NOBODY:
        return f" (cannot win: no price of {cut(', '.join(map(clean, option.incomplete)), 60)})"
    listed = not option.can_win and not option.paid_today
    return " (cannot win)" if listed or option.incomplete else ""


def left_out(result: PlanResult, per_kind: int = PER_KIND) -> str:
    """Return a sentence on the complete options without a row in the `shortlist`; empty: there are none."""
    shown = {option.id for option in shortlist(result, per_kind)}
    rest = [option for option in result.options if not option.incomplete and option.id not in shown]
    listed = sum(not option.can_win for option in rest)
    dearer, best = len(rest) - listed, "cost more than the best of their kind"
    kinds = "such as spot machines and consumer cards"
    parts = [f"{dearer} more can win but {best}"] * (dearer > 0)
    parts += [f"{listed} are only listed and cannot win ({kinds})"] * (listed > 0)
    return f"{'; '.join(parts)}." if rest else ""


def footnotes(options: Sequence[PlanOption]) -> tuple[str, ...]:
    """Return the distinct warnings of these options, in order: a row refers to them by their number from 1."""
    return tuple(dict.fromkeys(clean(text) for option in options for text in option.warnings))


def marks(option: PlanOption, notes: Sequence[str]) -> str:
    """Return the numbers of an option's warnings in `notes`: ` [1][3]`; empty: it has none."""
    numbers = [notes.index(text) + 1 for text in dict.fromkeys(map(clean, option.warnings))]
    return " " + "".join(f"[{number}]" for number in numbers) if numbers else ""


def no_options_of(result: PlanResult) -> tuple[str, ...]:
    """Return a sentence for each kind of which no option can win."""
    have, listed = {option.kind for option in contenders(result)}, {option.kind for option in result.options}
    return tuple(
        (_WORDS.none_wins if kind in listed else _WORDS.none_listed)[kind]
        for kind in _KINDS
        if kind not in have
    )


def incomplete_text(result: PlanResult, most: int = 3) -> str:
    """Return one sentence on the options that lack a price; empty: none does."""
    lacking = [option for option in result.options if option.incomplete]
    if not lacking:
        return ""
    named = dict.fromkeys(
        f"{option_name(o)} (lacking: {cut(', '.join(map(clean, o.incomplete)), 80)})" for o in lacking
    )
    shown = list(named)[:most]
    more = f"; and {len(named) - most} more" if len(named) > most else ""
    named_ones = f": {'; '.join(shown)}{more}" if shown else ""
    return f"{len(lacking)} incomplete, so they cannot win{named_ones}."


def head(result: PlanResult) -> tuple[HeadLine, ...]:
    """Return the head: traffic, model, SLO, whatever else was asked, and what was assumed."""
    rest = {
        key: value
        for key, value in result.summary.items()
        if value not in ("", 0) or key == "tokens_per_month"
    }
    rest.pop("rows_total", None)  # the source says it
    lines = []
    for label, phrases in _WORDS.head.items():
        parts = [text.format(_value(key, rest.pop(key))) for key, text in phrases.items() if key in rest]
        lines += [HeadLine(label=label, text=", ".join(parts))] if parts else []
    lines += [HeadLine(label=words_of(key), text=_value(key, value)) for key, value in rest.items()]
    return (*lines, *_assumed(result))


def _value(key: str, value: str | float) -> str:
    if isinstance(value, str):
        return clean(value)
    if key.endswith(("_share", "_fraction", "growth_per_month")):
        return rounding.percent(value)
    if "tokens" in key:
        return rounding.tokens(value)
    if key.endswith("_total"):
        return f"{value:,}"
    return rounding.seconds(value) if key.endswith("_s") else rounding.plain_number(value)


def _assumed(result: PlanResult) -> list[HeadLine]:
    said = [named(str(row.get("name", ""))) for row in result.assumptions if row.get("asked")]
    total = len(result.assumptions)
    if not total:
        return []
    given = f"; you gave {'; '.join(said)}" if said else ""
    text = f"{total - len(said)} of {total} inputs are the catalog's or defaults{given}"
    return [HeadLine(label="assumed", text=text)]


def assumption(row: Mapping[str, str | float | bool]) -> Assumed:
    """Return an assumption in words; keys that this does not know are added to the source."""
    value = [_cell(row[key]) for key in ("low", "mid", "high") if key in row]
    rest = ", ".join(_cell(value) for key, value in row.items() if key not in _ASSUMED_KEYS and value != "")
    source = clean(str(row.get("source", "")))
    return Assumed(
        name=named(str(row.get("name", ""))),
        value=value[0] if len(set(value)) == 1 else " / ".join(value),
        who="you" if row.get("asked") else "catalog or default",
        source=" ".join(filter(None, (source, f"({rest})" if rest else ""))),
    )


def _cell(value: str | float) -> str:
    return clean(value) if isinstance(value, str) else rounding.plain_number(float(value))


def verdict_answer(verdict: PlanVerdict) -> str:
    """Return the verdict's word, said: `Stay on the API`."""
    return ANSWERS[verdict.word]


def confidence_text(verdict: PlanVerdict) -> str:
    """Return how sure the verdict is: `medium: cheapest in 71% of the draws`."""
    if verdict.confidence_reason:
        return f"{verdict.confidence_word}: {clean(verdict.confidence_reason).rstrip('.')}"
    doubts = ", but facts that it rests on are in doubt" if verdict.doubts else ""
    return (
        f"{verdict.confidence_word}: cheapest in {rounding.chance(verdict.confidence)} of the draws{doubts}"
    )


def change_text(change: TurningPoint, verdict: PlanVerdict) -> str:
    """Return what would change the verdict, and to what: `a rental below 1.70 USD per GPU-hour: then rent`."""
    if change.to == verdict.word:  # nothing that was tried does
        return clean(change.what)
    to = ANSWERS.get(change.to, clean(change.to))
    return f"{clean(change.what)}: then {to[:1].lower()}{to[1:]}"


def chosen_break_evens(result: PlanResult) -> tuple[BreakEven, ...]:
    """Return the break-evens that matter, the same in every report: of the best options, against today's API first."""
    shown = {option.id for option in shortlist(result, 1)}
    today = {option.id for option in result.options if option.paid_today}
    known = [each for each in result.break_even if each.option in shown] or list(result.break_even)
    return tuple(sorted(known, key=lambda each: each.against not in today)[:BREAK_EVENS])


def more_break_evens(result: PlanResult) -> str:
    """Return a sentence on the break-evens that are not shown; empty: all are."""
    more = len(result.break_even) - len(chosen_break_evens(result))
    return f"{more} more in --json." if more > 0 else ""


def break_even_text(each: BreakEven, names: Mapping[str, str]) -> str:
    """Return one break-even as sentences with its figures."""
    option, against = names.get(each.option, clean(each.option)), names.get(each.against, clean(each.against))
    month = f" Pays back in month {payback(each)}." if each.payback_month else ""
    return f"{option} against {against}: {_where(each)}{month} Cheaper today in {rounding.chance(each.chance_cheaper)} of the draws."


def _where(each: BreakEven) -> str:
    if each.tokens_per_month is None:
        need = f", which would be {break_even_use(each)}" if each.utilisation else ""
        return f"{break_even_tokens(each)}{need}."
    of = f", {break_even_use(each)}" if each.utilisation else ""
    return f"cheaper {break_even_tokens(each)} tokens a month{of}."


def break_even_tokens(each: BreakEven) -> str:
    """Return from which tokens a month on it is cheaper: `above 2.2B (1.9B-2.6B)`; or that there is no such traffic."""
    if each.tokens_per_month is None:
        return "no break-even at a traffic that it can carry"
    return f"above {rounding.tokens_range(each.tokens_per_month)}"


def break_even_use(each: BreakEven) -> str:
    """Return the utilisation at which it is cheaper, and of how many GPUs; `n/a` where there is none."""
    if not each.utilisation:
        return "n/a"
    of = f"{each.gpus:,} GPU{'' if each.gpus == 1 else 's'}" if each.gpus else "its capacity"
    return f"{rounding.percent_range(each.utilisation)} of {of}"


def payback(each: BreakEven) -> str:
    """Return the month in which a bought option has paid back; `n/a`: it does not, or nothing was bought."""
    return rounding.month_range(each.payback_month) if each.payback_month else "n/a"


def tornado_of(result: PlanResult) -> str:
    """Return what the tornado is of: `rent 1 x h100-sxm, … minus API …; below 0 it is cheaper than that API`."""
    names = names_by_id(result)
    mine = names.get(result.tornado_option, "the best owned or rented option")
    against = names.get(result.tornado_against, "" if result.tornado_option else "the API")
    return f"{mine} minus {against}; below 0 it is cheaper than that" if against else f"what {mine} costs"


def influence_values(each: Influence) -> str:
    """Return an input's range with its unit: `0.1-0.5 FTE`."""
    unit = "" if each.unit in _BARE else words_of(each.unit)
    return f"{rounding.plain_number(each.low_value)}{DASH}{rounding.plain_number(each.high_value)}{' ' if unit else ''}{unit}"


def weak_sources(result: PlanResult, most: int = 8) -> tuple[tuple[Weak, ...], int]:
    """Return the doubtful facts that the verdict and the short table rest on, at most `most`, and how many more."""
    doubts = [Weak(text=clean(text), why="in doubt") for text in result.verdict.doubts]
    doubted = {each.text.partition(": ")[0] for each in doubts}
    found = doubts + [
        Weak(text=text, why=why)
        for text in sources_of(shortlist(result))
        if (why := why_weak(text, result.today)) and text.partition(": ")[0] not in doubted
    ]
    return tuple(found[:most]), max(0, len(found) - most)


def sources_of(options: Iterable[PlanOption]) -> tuple[str, ...]:
    """Return every source of these options, once each, in order."""
    return tuple(dict.fromkeys(clean(text) for option in options for text in option.sources))


def why_weak(source: str, today: str) -> str:
    """Return why a `what: source (date, how verified)` needs a check: its age or how it was verified; empty: it does not."""
    dated = list(_DATED.finditer(source))
    if not dated:
        return ""
    found = dated[-1]  # the last one: a source's own text may hold brackets
    reasons = [_WEAK[found[2]]] if found[2] in _WEAK else []
    days = _days(found[1], today)
    return ", ".join([*reasons, *([f"{days} days old"] if days > STALE_DAYS else [])])


def _days(then: str, today: str) -> int:
    try:
        return (date.fromisoformat(today) - date.fromisoformat(then)).days
    except ValueError:  # such as 2026-02-31 in a user's overlay
        return 0
