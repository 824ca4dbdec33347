"""What a measured month says: keep the machines, use them up, go back to the API; how sure that is, and in which words.

A few hours say nothing of a month, so a short period has no answer, only figures. Money that is already in bought machines
does not come back, so they are used up while running them alone is cheaper. Nothing is priced here.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from freehold.cost.model.draw import Vector
from freehold.cost.model.percentiles import range_of, share
from freehold.cost.model.result import Percentiles
from freehold.cost.model.rounding import amount, chance, percent, plain_number, tokens
from freehold.cost.pricing.break_even import capacity_tokens
from freehold.cost.pricing.price import Priced, price

Word = Literal["keep", "run-out", "go-back", "unclear"]
Level = Literal["low", "medium", "high"]
LIKELY = 0.6
"""Share of draws from which one way is called cheaper. Our own choice, the same as a plan's verdict has."""
MEDIUM_FROM, HIGH_FROM = 0.7, 0.9
"""Shares of draws for the confidence's words. Our own choice, the same as a plan's verdict has."""
LEAST_DAYS = 7.0
"""Below it there is no answer. Our own choice: a week has every day and every hour of one once."""
SURE_DAYS = 28.0
"""Below it the confidence is medium at most. Our own choice: four weeks show whether weeks are alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredMonth:
    """The machines and the API, priced for the period, and how long that was."""

    mine: Priced
    api: Priced | None
    days: float
    incidents: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer in words."""

    word: Word
    confidence: float | None
    confidence_word: Level
    confidence_reason: str
    headline: str
    text: str


def answer_of(measured: MeasuredMonth) -> Answer:
    """Return the answer."""
    leaning, part = _leaning(measured)
    word: Word = leaning if measured.days >= LEAST_DAYS else "unclear"
    level, reason = _sureness(part, measured)
    return Answer(
        word=word,
        confidence=part,
        confidence_word=level,
        confidence_reason=reason,
        headline=_headline(word, measured),
        text=_text(measured),
    )


def _leaning(measured: MeasuredMonth) -> tuple[Word, float | None]:
    """Return what the figures come to, and the share of draws in which that holds."""
    mine, api = measured.mine, measured.api
    if api is None or not mine.offer.complete:
        return "unclear", None
    running = share(np.asarray(api.total < mine.running))
    if running >= LIKELY:
        return "go-back", running
    dearer = share(np.asarray(api.total < mine.total))
    if dearer >= LIKELY:
        return ("run-out" if mine.offer.kind == "buy" else "go-back"), dearer
    return ("keep" if dearer <= 1 - LIKELY else "unclear"), max(dearer, 1 - dearer)


def _sureness(part: float | None, measured: MeasuredMonth) -> tuple[Level, str]:
    """Return the confidence's word and why it is that."""
    if part is None:
        return "low", "there is nothing to compare with"
    level = (part >= MEDIUM_FROM) + (part >= HIGH_FROM)
    reasons = [f"it holds in {chance(part)} of the draws"]
    length = f"{plain_number(measured.days)} days were measured"
    if measured.days < LEAST_DAYS:
        level = 0
        reasons.append(f"only {length}, and a month is not known from less than {LEAST_DAYS:g}")
    elif measured.days < SURE_DAYS and level:
        level = min(level, 1)
        reasons.append(f"{length}, and below {SURE_DAYS:g} it is medium at most")
    words: tuple[Level, ...] = ("low", "medium", "high")
    return words[level], "; ".join(reasons)


def break_even_as_it_stands(mine: Priced, api: Priced) -> Vector:
    """Return the traffic at which these machines, none more and none less, cost what the API would; inf: at none."""
    tokens = mine.case.tokens_per_month
    idle = price(mine.offer, mine.case.setting, draws=mine.case.draws, tokens_scale=0).total
    if tokens <= 0:
        return np.full(1, np.inf)
    saved = np.asarray((api.total - (mine.total - idle)) / tokens)
    return np.asarray(np.where(saved > 0, idle / np.where(saved > 0, saved, 1), np.inf))


def finite(values: Vector | None) -> Percentiles | None:
    """Return the range, or None where the middle draw has no such point."""
    found = range_of(values) if values is not None else None
    return found if found and np.isfinite(found.p50) else None


def machines(mine: Priced) -> str:
    """Return the machines and what runs on them: `llama-3.1-8b on 8 x h100-sxm, rented`."""
    how = "bought" if mine.offer.kind == "buy" else "rented"
    return f"{mine.offer.model} on {mine.case.fleet.gpus} x {mine.offer.gpu}, {how}"


def _headline(word: Word, measured: MeasuredMonth) -> str:
    mine, api = measured.mine, measured.api
    month, ours = _usd(mine.total), machines(mine)
    if api is None:
        return f"{ours}, costs {month} a month; without an API's price nothing is compared."
    if not mine.offer.complete:
        return f"Without {', '.join(mine.offer.incomplete)} nothing can be compared: at least {month} a month for {ours}."
    back, other = f"{api.offer.model} of {api.offer.provider}", _usd(api.total)
    if measured.days < LEAST_DAYS:
        short = f"Too short to judge: {plain_number(measured.days)} days"
        return f"{short} come to {month} a month for {ours}, against {other} for {back}."
    return {
        "keep": f"Keep {ours}: {month} a month against {other} for {back}.",
        "go-back": f"Going back to {back} is cheaper: {other} a month against {_usd(mine.running)} for {ours}.",
        "run-out": (
            f"{back} is cheaper at {other} a month against {month} for {ours}, but running what is paid for costs "
            f"{_usd(mine.running)}: use it up, do not replace it."
        ),
        "unclear": f"Neither is clearly cheaper: {month} a month for {ours}, {other} for {back}.",
    }[word]


def _usd(values: Vector) -> str:
    return f"{amount(range_of(values).p50)} USD"


def _text(measured: MeasuredMonth) -> str:
    mine, api = measured.mine, measured.api
    served = mine.case.tokens_per_month
    used = range_of(served / capacity_tokens(mine))
    parts = [
        f"{tokens(served)} tokens a month were served, {percent(used.p50)} of what the machines carry within the SLO."
    ]
    if served <= 0:
        parts.append("A price per million tokens needs tokens.")
    if api:
        even = finite(break_even_as_it_stands(mine, api))
        where = f"at {tokens(even.p50)} tokens a month" if even else "at no traffic"
        parts.append(f"These machines cost what the API would {where}.")
    if measured.incidents is not None:
        parts.append(f"{measured.incidents} incidents were recorded in {plain_number(measured.days)} days.")
    return " ".join(parts)
