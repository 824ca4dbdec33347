"""The one answer: stay, change the API, rent or buy, how sure that is, and what to do next.

Options are judged by way of serving, not by provider: that three rentals share the draws among them makes renting no
less sure. What is incomplete, a spot machine or a consumer card takes no part. The middle of the traffic's range is
taken as it is: a forecast's own error is not in the confidence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from freehold.cost.model.case import Offer
from freehold.cost.model.offers import (
    ANOTHER_MODEL,
    QUOTED,
    SLO_DOUBTS,
    asked_model,
    doubts_of,
    paid_utilisation,
    serves,
)
from freehold.cost.model.result import Influence, Percentiles, PlanVerdict, TurningPoint, Word
from freehold.cost.model.rounding import amount, bound, chance
from freehold.cost.pricing.influence import inputs_of
from freehold.cost.pricing.ranking import Ranking, assumptions_of
from freehold.cost.verdict.decide_again import UNDECIDED_BELOW, Alternative, alternatives_of, ways_by_engine
from freehold.cost.verdict.next_command import bench_of, next_command
from freehold.cost.verdict.questions import ask_first
from freehold.cost.verdict.thresholds import would_change
from freehold.sizing.replica.answer import SizedFleet

Level = Literal["low", "medium", "high"]
# How often the advised way must be the cheapest. Our own choice: 3 in 5 is a lean, 7 in 10 a view, 9 in 10 a finding.
MEDIUM_FROM = 0.7
HIGH_FROM = 0.9
WORDS: tuple[Level, ...] = ("low", "medium", "high")
DOUBTED_INFLUENCES = 5
"""Of the most influential inputs: whose facts are doubted aloud. Our own choice: a list that is read to its end."""


def verdict_of(ranking: Ranking, tornado: Sequence[Influence]) -> PlanVerdict:
    """Return the verdict."""
    ways = alternatives_of(ranking)
    asks = ask_first(ranking, tornado, ways)
    if not ways:
        return _nothing(ranking, asks)
    lead, second = ways[0], ways[1] if len(ways) > 1 else None
    decided = lead.share >= UNDECIDED_BELOW
    word: Word = lead.word if decided else "undecided"
    doubts = _doubts(lead, second, ranking, tornado)
    level, reason = sureness(lead.share, doubts=doubts, compared=bool(ranking.best("api")))
    found = PlanVerdict(
        word=word,
        option=lead.best.offer.id if decided else "",
        confidence=lead.share,
        confidence_word=level,
        confidence_reason=reason,
        headline=_headline(lead, second, ranking) if decided else _torn(lead, second),
        text=_text(lead, second, ranking, asked=bool(asks)),
        would_change_it=would_change(ranking, lead.best, lead.word),
        ask_first=asks,
        next_command=next_command(word, lead.best.offer if decided else None, ranking),
        doubts=doubts.all,
    )
    return _unless_engines_differ(found, lead.word, ranking)


def _unless_engines_differ(found: PlanVerdict, word: Word, ranking: Ranking) -> PlanVerdict:
    """Return the verdict, undecided if some engine that was not measured leaves its way below three draws in five.

    All engines count, the one of `--engine` no more than the others: so that flag alone never changes the word.
    """
    leads = ways_by_engine(ranking)
    if all(each.shares.get(word, 0.0) >= UNDECIDED_BELOW for each in leads.values()):
        return found
    said = "; ".join(
        f"with {engine} {_way(each.offer)} {named(each.offer)} in {each.shares[each.word]:.0%} of the draws"
        for engine, each in leads.items()
    )
    bench = bench_of(leads, ranking.inputs)
    weak = [engine for engine, each in leads.items() if each.shares.get(word, 0.0) < UNDECIDED_BELOW]
    why = "the cheapest way depends on the engine"
    if all(each.word == word for each in leads.values()):
        why = f"{_way(leads[weak[0]].offer)} is the cheapest way in fewer than {UNDECIDED_BELOW:.0%} of the draws with {' and '.join(weak)}"
    return replace(
        found,
        word="undecided",
        option="",
        confidence=min(found.confidence, *(each.shares.get(word, 0.0) for each in leads.values())),
        confidence_word="low",
        confidence_reason=f"since {why}, and no engine was measured",
        headline=f"Undecided, since {why}: {said}.",
        text=f"A load test on such machines settles it (plan --measured). {found.text}",
        would_change_it=(
            *(
                TurningPoint(what=f"a load test that gives what is estimated of {engine}", to=each.word)
                for engine, each in leads.items()
            ),
            *found.would_change_it,
        ),
        next_command=bench,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """What the verdict rests on without its being sure, by what it does to the confidence."""

    model: tuple[str, ...] = ()
    """On whether another API's model will do: then the word is medium at most."""
    asked: tuple[str, ...] = ()
    """On what was asked: a model that was not chosen, a usage file of which much is missing, an SLO that the advised API
    is not known to keep. They lower the word by one."""
    speed: tuple[str, ...] = ()
    """On how fast the machines are, where too few have measured such ones: then the word is low."""
    prices: tuple[str, ...] = ()
    """On the prices of the advised way and the runner-up: they lower the word by one."""
    assumed: tuple[str, ...] = ()
    """On assumptions that were not given: their ranges are in the draws already."""

    @property
    def all(self) -> tuple[str, ...]:
        """Return all of them, those that count most first."""
        return (*self.model, *self.speed, *self.asked, *self.prices, *self.assumed)


def sureness(share: float, *, doubts: Doubts, compared: bool) -> tuple[Level, str]:
    """Return the word for the confidence and why it is that: the share of draws, doubts, and what was not compared."""
    level = (share >= MEDIUM_FROM) + (share >= HIGH_FROM)
    bounds = {0: f"below {MEDIUM_FROM:.0%}", 1: f"from {MEDIUM_FROM:.0%}", 2: f"from {HIGH_FROM:.0%}"}
    shown = chance(share) if share > 0.99 else f"{math.floor(share * 100)}%"  # 69.8 % is below 70 %
    reasons = [f"cheapest in {shown} of the draws, and {bounds[level]} is {WORDS[level]}"]
    lowering = [doubt.partition(":")[0] for doubt in (*doubts.asked[:1], *doubts.prices[:1])]
    if lowering and level:
        level -= 1
        reasons.append(f"one lower, in doubt: {'; '.join(lowering)}")
    if doubts.model and level > 1:
        level = 1
        reasons.append("at most medium until the model's answers are tested")
    if doubts.speed and level:
        level = 0
        reasons.append(f"low until it is measured: {doubts.speed[0]}")
    if not compared and level:
        level = 0
        reasons.append("low since no API was compared")
    return WORDS[level], "; ".join(reasons)


def _doubts(
    lead: Alternative, second: Alternative | None, ranking: Ranking, tornado: Sequence[Influence]
) -> Doubts:
    """Return the doubts on what the advised way and the runner-up rest on, and on nothing else."""
    offers = [way.best.offer for way in (lead, second) if way]
    stands = _stands_for(lead.best.offer, ranking)
    return Doubts(
        model=(stands,) if stands else (),
        speed=_untested(offers),
        asked=(
            *ranking.inputs.doubts,
            *(text for text in lead.best.offer.warnings if text.startswith(SLO_DOUBTS)),
        ),
        prices=tuple(dict.fromkeys(doubt for offer in offers for doubt in offer.doubts)),
        assumed=_assumed_doubts(ranking, tornado, offers),
    )


def _untested(offers: Sequence[Offer]) -> tuple[str, ...]:
    """Return why the speed of these offers' machines is unsure."""
    said = (offer.fleet.sized.untested for offer in offers if offer.fleet)
    return tuple(dict.fromkeys(why for why in said if why))


def _stands_for(offer: Offer, ranking: Ranking) -> str:
    """Return the doubt on another API's model than the one that is paid today, whoever named it; empty: it is the same."""
    paid = ranking.in_use.offer if ranking.in_use else None
    if offer.kind != "api" or paid is None or offer.paid_today or paid.api is None or offer.api is None:
        return ""
    same = {paid.model.lower(), paid.api.fact.same_as.lower()} & {
        offer.model.lower(),
        offer.api.fact.same_as.lower(),
    }
    if same - {""}:
        return ""
    return f"whether {offer.model} can stand for {paid.model} must be tested on your prompts"


def _assumed_doubts(
    ranking: Ranking, tornado: Sequence[Influence], offers: Sequence[Offer]
) -> tuple[str, ...]:
    """Return the doubts on the assumptions of these options that move the answer most and that the user did not say."""
    used = inputs_of(ranking.setting, *offers)
    facts = {each.name: each for each in assumptions_of(ranking.inputs) if not each.asked}
    moving = [facts[each.name] for each in tornado if each.name in facts and each.name in used]
    return tuple(
        doubt
        for each in moving[:DOUBTED_INFLUENCES]
        for doubt in doubts_of(each.name, [each.fact], ranking.inputs.today)
    )


def usd(value: float) -> str:
    """Return an amount as texts have it: four digits."""
    return f"{amount(value)} USD"


def usd_range(values: Percentiles) -> str:
    """Return a middle amount with its range in brackets, where it has one."""
    if values.p10 == values.p90:
        return usd(values.p50)
    return f"{usd(values.p50)} ({bound(values.p10)}-{bound(values.p90)})"


def named(offer: Offer) -> str:
    """Return an option as texts call it."""
    if offer.kind == "api":
        return f"{offer.model} of {offer.provider}"
    assert offer.fleet is not None
    many = f"{offer.fleet.gpus} x {offer.gpu}"
    if offer.kind == "buy":
        return f"{many}, {offer.provider}"
    return f"{many} at your quote" if offer.provider == QUOTED else f"{many} from {offer.provider}"


def _headline(lead: Alternative, second: Alternative | None, ranking: Ranking) -> str:
    offer, cost = lead.best.offer, usd(lead.best.usd_per_month.p50)
    verb = {"stay": "Stay on", "change-api": "Change to", "rent": "Rent", "buy": "Buy", "undecided": ""}[
        lead.word
    ]
    verb = "An API is cheapest:" if lead.word == "stay" and not ranking.inputs.paid_today else verb
    text = f"{verb} {named(offer)}{', ' if verb.endswith(':') else ': '}{cost} a month"
    paid = ranking.in_use
    rival = paid if paid and paid.offer.id != offer.id else second.best if second else None
    if rival:
        against = "" if rival is paid else f"{_way(rival.offer)} "
        text += f" instead of {usd(rival.usd_per_month.p50)} for {against}{named(rival.offer)}"
    compared = "" if ranking.best("api") else " No API was compared."
    return f"{text}.{compared}{_other_model(offer, ranking)}"


def _way(offer: Offer) -> str:
    return {"api": "calling", "rent": "renting", "buy": "buying"}[offer.kind]


def _other_model(offer: Offer, ranking: Ranking) -> str:
    model = asked_model(ranking.inputs)
    if offer.kind != "api" or offer.paid_today or not model or serves(offer, model):
        return ""
    return f" It is another model than {model}."


def _torn(lead: Alternative, second: Alternative | None) -> str:
    assert second is not None, "one way alone is always the cheapest"
    first, other = (f"{_way(w.best.offer)} {named(w.best.offer)}" for w in (lead, second))
    return f"Undecided: {first} and {other} are within each other's range."


def _text(lead: Alternative, second: Alternative | None, ranking: Ranking, *, asked: bool) -> str:
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
        parts.append(_used(lead.best.offer.fleet))
    if not ranking.best("api"):
        parts.append(
            "No API takes part, so whether one is cheaper is not known: name it with --api or --compare."
        )
    lacking = sum(not each.offer.complete for each in ranking.options)
    if lacking:
        parts.append(f"{lacking} options lack a price and could not win.")
    if _other_model(lead.best.offer, ranking) or _stands_for(lead.best.offer, ranking):
        parts.append("Test that model on your prompts before anything else.")
    warnings = (each for each in lead.best.offer.warnings if not each.startswith(ANOTHER_MODEL))
    parts += [f"{warning[0].upper()}{warning[1:]}." for warning in warnings]
    if not asked:
        parts.append("No remaining assumption changes the verdict.")
    return " ".join(parts)


def _used(fleet: SizedFleet) -> str:
    """Return how full the machines are, of all that is paid for, and how many GPUs do nothing."""
    text = f"All that is paid for would be {paid_utilisation(fleet):.0%} used over the clock"
    idle = fleet.gpus - fleet.replicas * fleet.sized.ask.gpus
    if idle <= 0:
        return f"{text}."
    spare = min(idle, fleet.spare_replicas * fleet.sized.ask.gpus)
    kinds = [f"{spare} are spare"] * (spare > 0) + [
        f"{idle - spare} are idle, since they come in such numbers"
    ] * (idle > spare)
    return f"{text}: of {fleet.gpus} GPUs {' and '.join(kinds)}."


def _nothing(ranking: Ranking, asks: tuple[str, ...]) -> PlanVerdict:
    lacking = sorted({what for each in ranking.options for what in each.offer.incomplete})
    missing = ", ".join(lacking)
    what = f"prices are missing: {missing}" if lacking else "only options that are listed are known"
    none = f"No option is complete and may win; {what}."
    turn = f"any price of these: {missing}" if lacking else "an API, a rental or a purchase to compare"
    return PlanVerdict(
        word="undecided",
        option="",
        confidence=0.0,
        confidence_word="low",
        confidence_reason="no option can be advised",
        headline="Undecided: no option can be advised.",
        text=none if ranking.options else "There is no option to compare.",
        would_change_it=(TurningPoint(what=turn, to="a verdict"),),
        ask_first=asks,
        next_command=next_command("undecided", None, ranking),
    )
