"""Which inputs to give first: those that were not given and that can change the verdict, found by deciding again at their ends.

The rental quote and the people come before all others where they, alone or together, can change it. What cannot change the
verdict is not asked for, however wide it is.
"""

from collections.abc import Iterator, Mapping, Sequence

from freehold.core.spread import Spread
from freehold.cost.lines.staff import people_scale
from freehold.cost.model.offers import RENTAL_QUOTE
from freehold.cost.model.percentiles import range_of
from freehold.cost.model.result import Influence, Word
from freehold.cost.model.rounding import amount
from freehold.cost.pricing.influence import inputs_of
from freehold.cost.pricing.ranking import Ranking, assumptions_of, given_names
from freehold.cost.verdict.decide_again import PEOPLE, Again, Alternative
from freehold.sizing.replica.answer import SizedFleet

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
"""The flags of `freehold plan` for inputs; the others are set with `--set NAME=VALUE`."""
ASKED_MOST = 2
"""Inputs that are asked for. Our own choice: two answers are given, ten are not."""
TRIED_MOST = 6
"""Of the inputs besides rental and people, how many are tried, by what they move. Our own choice: later ones move nothing."""
MOVES_LEAST = 0.02
"""Of the leader's cost, what an input must move to be asked for. Our own choice: less is within the fleet's rounding."""
QUOTE_BELOW = 0.7
"""Of the market's least price, what a quote may come to. Source: negotiated terms of a year are some 30 % below lists."""


def ask_first(ranking: Ranking, tornado: Sequence[Influence], ways: Sequence[Alternative]) -> tuple[str, ...]:
    """Return at most two inputs; empty: no input that was not given can change the verdict."""
    found = [] if ranking.best("api") else ["an API to compare with: --api PROVIDER/MODEL"]
    again = Again(ranking)
    found += _machines(ranking, again)
    if len(found) < ASKED_MOST and ways:
        found += _others(again, tornado, ways)
    return tuple(found[:ASKED_MOST])


def flag_of(name: str) -> str:
    """Return the flag of `freehold plan` for an input."""
    return FLAGS.get(name, f"--set {name}")


def meant(ranking: Ranking) -> SizedFleet | None:
    """Return the fleet of the cheapest machines, or the first one that could win if it had its prices."""
    best = ranking.machines
    if best:
        return best.offer.fleet
    lacking = (each.offer for each in ranking.options if each.offer.kind == "rent" and each.offer.eligible)
    return next((each.fleet for each in lacking if each.fleet and each.fleet.replicas), None)


def _machines(ranking: Ranking, again: Again) -> list[str]:
    """Return the questions on rental and people, where their ends, alone or together, change the verdict."""
    rented, given = ranking.best("rent"), given_names(ranking.inputs)
    fleet = rented.offer.fleet if rented else meant(ranking)
    if fleet is None:
        return []
    gpu = fleet.sized.ask.gpu.id
    quote = f"a rental quote for {fleet.gpus} x {gpu}: --gpu {gpu} {flag_of(RENTAL_QUOTE)}"
    people = f"how many engineers would run it, on-call included, rented or bought: {flag_of('staff_fte')}"
    rental = {} if RENTAL_QUOTE in given else _rental(ranking)
    staff = {} if any(name.endswith("staff_fte") for name in given) else _staff(ranking)
    if ranking.machines is None:
        return [quote] if RENTAL_QUOTE not in given else []
    said = Again(ranking, people_said=True)
    each = [quote] if rental and _flips(again, rental) else []
    each += [people] if staff and _flips(said, staff, again.word()) else []
    if each or not (rental and staff):
        return each
    return [quote, people] if _flips(said, rental | staff, again.word()) else []


def _flips(again: Again, spans: Mapping[str, Spread], now: Word | None = None) -> bool:
    """Return whether the verdict is another one than now with all of these at their low, or all at their high."""
    now = now or again.word()
    lows, highs = ({name: getattr(span, end) for name, span in spans.items()} for end in ("low", "high"))
    return any(again.word(values) != now for values in (lows, highs))


def _rental(ranking: Ranking) -> dict[str, Spread]:
    rented = ranking.best("rent")
    market = ranking.market(rented.offer.gpu) if rented else None
    if rented is None or market is None or rented.offer.rental_usd_per_gpu_hour is None:
        return {}
    own = rented.offer.rental_usd_per_gpu_hour
    low, high = min(market.low, own.low) * QUOTE_BELOW, max(market.high, own.high)
    return {rented.offer.price_name: Spread(low, own.mid, high)}


def _staff(ranking: Ranking) -> dict[str, Spread]:
    """Return what might be said of people: from the least that is thought of any machines to the most."""
    spans = []
    for kind, people in (("rent", ranking.setting.rent), ("buy", ranking.setting.own)):
        best = ranking.best("rent" if kind == "rent" else "buy")
        if best:
            spans.append(people.staff_fte.value.times(range_of(people_scale(best.priced.case)).p50))
    return {PEOPLE: _around(spans)} if spans else {}


def _around(spans: Sequence[Spread]) -> Spread:
    low, high = min(each.low for each in spans), max(each.high for each in spans)
    return Spread(low, spans[0].mid, high)


def _others(again: Again, tornado: Sequence[Influence], ways: Sequence[Alternative]) -> Iterator[str]:
    """Yield the other inputs that change the verdict at an end of their range, the most influential first."""
    ranking = again.ranking
    least = MOVES_LEAST * ways[0].best.usd_per_month.p50
    spans = inputs_of(ranking.setting, *(way.best.offer for way in ways[:2]))
    can_be_said = {each.name for each in assumptions_of(ranking.inputs)} | {"gpu_usd"}
    tried = [
        each
        for each in tornado
        if not each.asked
        and each.name in can_be_said
        and not each.name.endswith("staff_fte")
        and abs(each.usd_per_month_at_high - each.usd_per_month_at_low) >= least
    ]
    for each in tried[:TRIED_MOST]:
        name = next((name for name in spans if name.rsplit(":", maxsplit=1)[-1] == each.name), None)
        if name and _flips(again, {name: spans[name]}):
            now = f"now {amount(each.low_value)} to {amount(each.high_value)}"
            yield f"{each.name.replace('_', ' ')} ({now}): {flag_of(each.name)}"
