"""The one answer: stay, change the API, rent or buy, how sure that is, and what to do next.

Options are judged by way of serving, not by provider: that three rentals share the draws among them makes renting no
less sure. What is incomplete, a spot machine or a consumer card takes no part. The middle of the traffic's range is
taken as it is: a forecast's own error is not in the confidence.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from freehold.cost.case import Offer
from freehold.cost.changes import would_change
from freehold.cost.draw import Vector
from freehold.cost.inputs import PlanInputs
from freehold.cost.offers import ANOTHER_MODEL, QUOTED, RENTAL_QUOTE, asked_model, doubts_of, serves
from freehold.cost.percentiles import cheapest_shares
from freehold.cost.result import Change, Influence, Range, Verdict, Word
from freehold.cost.standing import Ranked, Standing, assumptions_of, told_names
from freehold.sizing.answer import Fleet

# How often the advised way must be the cheapest. Our own choice: 3 in 5 is a lean, 7 in 10 a view, 9 in 10 a finding.
UNDECIDED_BELOW = 0.6
MEDIUM_FROM = 0.7
HIGH_FROM = 0.9
WORDS = ("low", "medium", "high")
FLAGS = {
    RENTAL_QUOTE: "--rental-usd-per-gpu-hour",
    "staff_fte": "--staff-fte",
    "staff_usd_per_year": "--staff-usd-per-year",
    "power_usd_per_kwh": "--power-usd-per-kwh",
    "colo_usd_per_kw_month": "--colo-usd-per-kw-month",
    "pue_ratio": "--pue",
    "life_months": "--life-months",
    "gpu_usd": "--node-usd",
}
"""The flags of `freehold plan` for inputs; the others are told by `--set NAME=VALUE`."""
DOUBTED_INFLUENCES = 5
"""Of the most influential inputs: whose facts are doubted aloud. Our own choice: a list that is read to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way of serving: its word, its options cheapest first, and the share of draws in which it is the cheapest."""

    word: Word
    options: tuple[Ranked, ...]
    share: float

    @property
    def best(self) -> Ranked:
        """Return its cheapest option."""
        return self.options[0]


def verdict_of(standing: Standing, tornado: Sequence[Influence]) -> Verdict:
    """Return the verdict."""
    ways = ways_of(standing)
    asks = ask_first(standing, tornado)
    if not ways:
        return _nothing(standing, asks)
    lead, second = ways[0], ways[1] if len(ways) > 1 else None
    decided = lead.share >= UNDECIDED_BELOW
    prices = _price_doubts(lead, second)
    return Verdict(
        word=lead.word if decided else "undecided",
        option=lead.best.offer.id if decided else "",
        confidence=lead.share,
        confidence_word=_sureness(lead.share, doubted=bool(prices or standing.inputs.doubts)),  # type: ignore[arg-type]
        headline=_headline(lead, second, standing) if decided else _torn(lead, second),
        text=_text(lead, second, standing),
        would_change_it=would_change(standing, lead.best, lambda offer: word_of(offer, standing.inputs)),
        ask_first=asks,
        next_command=next_command(lead.best.offer if decided else None, standing),
        doubts=(*standing.inputs.doubts, *prices, *_assumed_doubts(standing, tornado)),
    )


def ways_of(standing: Standing) -> list[Way]:
    """Return the ways of serving of which an option may win, the one most often the cheapest first."""
    groups: dict[Word, list[Ranked]] = {}
    for each in standing.options:
        if each.may_win:
            groups.setdefault(word_of(each.offer, standing.inputs), []).append(each)
    shares = cheapest_shares([_least(group) for group in groups.values()])
    ways = [
        Way(word=word, options=tuple(group), share=share)
        for (word, group), share in zip(groups.items(), shares, strict=True)
    ]
    return sorted(ways, key=lambda way: -way.share)


def _least(group: Sequence[Ranked]) -> Vector:
    return reduce(lambda least, each: np.minimum(least, each.priced.total), group[1:], group[0].priced.total)


def word_of(offer: Offer, inputs: PlanInputs) -> Word:
    """Return the verdict's word for an option; where nobody said which API is in use, any API is staying with one."""
    if offer.kind == "api":
        return "stay" if offer.paid_today or not inputs.paid_today else "change-api"
    return offer.kind


def _sureness(share: float, *, doubted: bool) -> str:
    level = (share >= MEDIUM_FROM) + (share >= HIGH_FROM)
    return WORDS[max(0, level - doubted)]


def _price_doubts(lead: Way, second: Way | None) -> tuple[str, ...]:
    """Return the doubts on the prices that the verdict rests on: its own and the runner-up's."""
    offers = [way.best.offer for way in (lead, second) if way]
    return tuple(dict.fromkeys(doubt for offer in offers for doubt in offer.doubts))


def _assumed_doubts(standing: Standing, tornado: Sequence[Influence]) -> tuple[str, ...]:
    """Return the doubts on the assumptions that move the answer most and that the user did not say."""
    facts = {each.name: each for each in assumptions_of(standing.inputs) if not each.asked}
    moving = [facts[each.name] for each in tornado[:DOUBTED_INFLUENCES] if each.name in facts]
    return tuple(
        doubt for each in moving for doubt in doubts_of(each.name, [each.fact], standing.inputs.today)
    )


def usd(value: float) -> str:
    """Return an amount as texts have it: whole dollars, below ten with cents."""
    return f"{value:,.0f} USD" if value >= 10 else f"{value:,.2f} USD"


def usd_range(values: Range) -> str:
    """Return a middle amount with its range in brackets, where it has one."""
    if values.p10 == values.p90:
        return usd(values.p50)
    return f"{usd(values.p50)} ({values.p10:,.0f}-{values.p90:,.0f})"


def named(offer: Offer) -> str:
    """Return an option as texts call it."""
    if offer.kind == "api":
        return f"{offer.model} of {offer.provider}"
    assert offer.fleet is not None
    many = f"{offer.fleet.gpus} x {offer.gpu}"
    if offer.kind == "buy":
        return f"{many}, {offer.provider}"
    return f"{many} at your quote" if offer.provider == QUOTED else f"{many} from {offer.provider}"


def _headline(lead: Way, second: Way | None, standing: Standing) -> str:
    offer, cost = lead.best.offer, usd(lead.best.usd_per_month.p50)
    verb = {"stay": "Stay on", "change-api": "Change to", "rent": "Rent", "buy": "Buy", "undecided": ""}[
        lead.word
    ]
    verb = "Use" if lead.word == "stay" and not standing.inputs.paid_today else verb
    text = f"{verb} {named(offer)}: {cost} a month"
    paid = standing.in_use
    rival = paid if paid and paid.offer.id != offer.id else second.best if second else None
    if rival:
        against = "" if rival is paid else f"{_way(rival.offer)} "
        text += f" instead of {usd(rival.usd_per_month.p50)} for {against}{named(rival.offer)}"
    return f"{text}.{_other_model(offer, standing)}"


def _way(offer: Offer) -> str:
    return {"api": "calling", "rent": "renting", "buy": "buying"}[offer.kind]


def _other_model(offer: Offer, standing: Standing) -> str:
    model = asked_model(standing.inputs)
    if offer.kind != "api" or offer.paid_today or not model or serves(offer, model):
        return ""
    return f" It is another model than {model}."


def _torn(lead: Way, second: Way | None) -> str:
    assert second is not None, "one way alone is always the cheapest"
    first, other = (f"{_way(w.best.offer)} {named(w.best.offer)}" for w in (lead, second))
    return f"Undecided: {first} and {other} are within each other's range."


def _text(lead: Way, second: Way | None, standing: Standing) -> str:
    """Return what the headline does not say: how often, how far apart, how full, what else is to be known."""
    parts = [
        f"It is the cheapest way in {lead.share:.0%} of the draws; it costs {usd_range(lead.best.usd_per_month)}."
    ]
    if second:
        each = second.best
        parts.append(
            f"Next is {_way(each.offer)} {named(each.offer)} at {usd_range(each.usd_per_month)}, "
            f"cheapest in {second.share:.0%}."
        )
    else:
        parts.append("No other way of serving has all its prices.")
    if lead.best.offer.fleet:
        parts.append(f"Its machines would be {lead.best.offer.fleet.utilisation:.0%} used over the clock.")
    lacking = sum(not each.offer.complete for each in standing.options)
    if lacking:
        parts.append(f"{lacking} options lack a price and could not win.")
    if _other_model(lead.best.offer, standing):
        parts.append("Test its answers before anything else.")
    warnings = (each for each in lead.best.offer.warnings if not each.startswith(ANOTHER_MODEL))
    parts += [f"{warning[0].upper()}{warning[1:]}." for warning in warnings]
    return " ".join(parts)


def _nothing(standing: Standing, asks: tuple[str, ...]) -> Verdict:
    lacking = sorted({what for each in standing.options for what in each.offer.incomplete})
    what = (
        f"prices are missing: {', '.join(lacking)}" if lacking else "only options that are listed are known"
    )
    return Verdict(
        word="undecided",
        option="",
        confidence=0.0,
        confidence_word="low",
        headline="Undecided: no option can be advised.",
        text=f"No option is complete and may win; {what}."
        if standing.options
        else "There is no option to compare.",
        would_change_it=(
            Change(
                what=f"any price of these: {', '.join(lacking)}"
                if lacking
                else "an API, a rental or a purchase to compare",
                to="a verdict",
            ),
        ),
        ask_first=asks,
        next_command=next_command(None, standing),
    )


def ask_first(standing: Standing, tornado: Sequence[Influence]) -> tuple[str, ...]:
    """Return the two inputs that matter most and that nobody said: rental quote and staffing before all others."""
    told, found = told_names(standing.inputs), []
    fleet = _meant(standing)
    if fleet and RENTAL_QUOTE not in told:
        found.append(f"a rental quote for {fleet.gpus} x {fleet.sized.ask.gpu.id}: {flag_of(RENTAL_QUOTE)}")
    if fleet and not any(name.endswith("staff_fte") for name in told):
        found.append(f"how many engineers would run it, on-call included: {flag_of('staff_fte')}")
    named_already = ("staff_fte", RENTAL_QUOTE, "api_price_ratio", "tokens_per_s")
    others = [each for each in tornado if not each.asked and not each.name.endswith(named_already)]
    found += [f"{each.name.replace('_', ' ')}: {flag_of(each.name)}" for each in others]
    return tuple(found[:2])


def _meant(standing: Standing) -> Fleet | None:
    """Return the fleet of the cheapest machines, or the first one where none is complete."""
    best = standing.machines
    return best.offer.fleet if best else next(iter(standing.inputs.fleets), None)


def flag_of(name: str) -> str:
    """Return how `freehold plan` is told an input."""
    return FLAGS.get(name, f"--set {name}")


def next_command(offer: Offer | None, standing: Standing) -> str:
    """Return a line to paste: size what is to be rented or bought, else the plan again with what was not said."""
    if offer and offer.fleet:
        ask = offer.fleet.sized.ask
        words = {
            "--gpu": ask.gpu.id,
            "--count": f"{ask.gpus}",
            "--engine": ask.engine,
            "--quant": ask.quant,
            "--input-tokens": f"{ask.input_tokens:.0f}",
            "--output-tokens": f"{ask.output_tokens:.0f}",
            "--concurrency": f"{offer.fleet.sized.concurrency}",
        }
        model = _said_again(standing.inputs.said, "--model", "--config", "--prices")
        if "--model" not in model and "--config" not in model:
            model += ["--model", ask.shape.name]
        return shlex.join(["freehold", "size", *model, *(word for pair in words.items() for word in pair)])
    return _plan_again(standing)


def _said_again(said: Sequence[str], *flags: str) -> list[str]:
    """Return those of the said flags with their values: a model may be known by its file only."""
    pairs = zip(said[::2], said[1::2], strict=False)
    return [word for flag, value in pairs if flag in flags for word in (flag, value)]


def _plan_again(standing: Standing) -> str:
    """Return the plan's line with what was said, and what was not at its middle: to be replaced by what is true."""
    inputs, fleet = standing.inputs, _meant(standing)
    said = list(inputs.said) or ["--tokens-per-month", f"{inputs.traffic.tokens_per_month:.0f}"]
    missing = {"--api": inputs.paid_today}
    if fleet:
        ask = fleet.sized.ask
        quoted = inputs.quotes.get(f"{RENTAL_QUOTE}:{ask.gpu.id}", inputs.quotes.get(RENTAL_QUOTE))
        hourly = quoted or standing.market(ask.gpu.id)
        missing |= {
            "--model": "" if "--config" in said else ask.shape.name,
            "--gpu": ask.gpu.id,
            flag_of(RENTAL_QUOTE): f"{ask.gpu.id}={hourly.mid:.2f}" if hourly else "",
            flag_of("staff_fte"): f"{inputs.own.staff_fte.value.mid:g}",
        }
    words = ["freehold", "plan", *said]
    words += [word for flag, value in missing.items() if value and flag not in said for word in (flag, value)]
    return shlex.join([*words, "--html", "plan.html"])
