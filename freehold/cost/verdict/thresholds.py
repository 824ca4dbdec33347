"""What would change the verdict, with the numbers at which it would: found by deciding again, with one input moved.

An input is moved away from today's value until the verdict is another one, and there the decision is made once more on both
sides: what does not hold is not said. What lies too far from today to be reasonable is not offered; it is listed as tried.
Inputs that move together are not moved together here, and fleets are those of the plan, with more or fewer replicas.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from freehold.cost.lines.staff import people_scale
from freehold.cost.model.case import Offer
from freehold.cost.model.percentiles import range_of
from freehold.cost.model.result import TurningPoint, Word
from freehold.cost.model.rounding import tokens
from freehold.cost.pricing.price import middle_usd
from freehold.cost.pricing.ranking import Ranked, Ranking
from freehold.cost.verdict.decide_again import PEOPLE, Again, word_of

LEAST_PART = 0.3
"""Of a price of today: a fall below it is not reasonable. Source: catalogs hold less than 0.3 x the median for implausible."""
MOST_TIMES = 10.0
"""Of a price of today: a rise above it is not reasonable. Source: no price of the catalog is that far from its like."""
MOST_TRAFFIC = 1000.0
"""Of today's traffic. Source: from a pilot to a product is a factor of a thousand."""
STEPS = 14
"""Of a way from today's value to the farthest: in each a change is looked for. Our own choice: a factor of 1.6 of traffic."""
HALVINGS = 8
"""Of the step in which it is found. Source: a 256th of a step is less than the three digits that are shown."""
AROUND = 0.02
"""To both sides of a threshold the verdict must be what is said. Our own choice: more than its rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One input, or the traffic, moved from its value of today to the farthest that is reasonable."""

    names: tuple[str, ...]
    """As draws call it; empty: the traffic."""
    now: float
    to: float
    what: str
    """Of which the sentence is made: `a rental price of h100-sxm`."""
    unit: str
    shown: float = 1.0
    """What the input's value is multiplied by to be shown in its unit."""
    people: bool = False
    """Whether it is the people, who are said for machines rented or bought."""

    def at(self, part: float) -> float:
        """Return the value at a part of the way, 0 to 1: by factors, or in a straight line down to nothing."""
        if self.to <= 0:
            return self.now * (1 - part)
        return float(self.now * (self.to / self.now) ** part)

    def text(self, value: float) -> str:
        """Return a value as shown, with its unit."""
        if not self.names:
            return f"{tokens(value * self.shown)} {self.unit}"
        return f"{self._number(value)} {self.unit}"

    def _number(self, value: float) -> str:
        return f"{value * self.shown:,.{0 if self.now * self.shown >= 1000 else 2}f}"

    @property
    def today(self) -> str:
        """Return today's value as shown, without its unit."""
        return self._number(self.now) if self.names else tokens(self.now * self.shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of one try: the change, or nothing where it takes too much."""

    tried: str
    change: TurningPoint | None = None


def would_change(ranking: Ranking, leader: Ranked, word: Word) -> tuple[TurningPoint, ...]:
    """Return what would make the verdict another than `word`; never empty: without any it says what was tried."""
    again, said = Again(ranking), Again(ranking, people_said=True)
    found = [solved(move, said if move.people else again, word) for move in _moves(ranking, leader)]
    changes = tuple(each.change for each in found if each.change)
    if changes:
        return changes
    tried = "; ".join(each.tried for each in found) or "there is no other complete option"
    return (TurningPoint(what=f"nothing reasonable that was tried: {tried}", to=word),)


def solved(move: Move, again: Again, word: Word) -> Found:
    """Return the change that the move brings, or what was tried in vain."""
    part = _first_part(move, again, word)
    side, way = ("above", "up") if move.to > move.now else ("below", "down")
    tried = f"{move.what} {way} to {move.text(move.to)}"
    if part is None:
        return Found(tried=tried)
    value = move.at(part)
    to = word_at(move, again, value)
    beyond, before = (
        word_at(move, again, value * (1 + sign * AROUND * (1 if side == "above" else -1))) for sign in (1, -1)
    )
    if beyond != to or before == to or word_at(move, again, move.now) == to:
        return Found(tried=tried)
    text = f"{move.what} {side} {move.text(value)} (now {move.today}{_when(move, again, value)})"
    return Found(tried=text, change=TurningPoint(what=text, to=to))


def _when(move: Move, again: Again, value: float) -> str:
    """Return in which month the traffic is there if it grows as was said; empty: it does not, or not to there."""
    growth = again.ranking.inputs.growth_per_month
    if move.names or growth == 0 or (value > 1) != (growth > 0) or growth <= -1:
        return ""
    return f"; in month {math.ceil(math.log(value) / math.log(1 + growth))} at your growth"


def word_at(move: Move, again: Again, value: float) -> Word:
    """Return the verdict's word with the input at a value."""
    held: Mapping[str, float] = dict.fromkeys(move.names, value)
    return again.word(held) if move.names else again.word(scale=value)


def _first_part(move: Move, again: Again, word: Word) -> float | None:
    """Return the first part of the way at which the verdict is decided for another way, or None."""

    def other(part: float) -> bool:
        return word_at(move, again, move.at(part)) not in {word, "undecided"}

    step = next((index for index in range(1, STEPS + 1) if other(index / STEPS)), None)
    if step is None:
        return None
    low, high = (step - 1) / STEPS, step / STEPS
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if other(middle) else (middle, high)
    return high


def _moves(ranking: Ranking, leader: Ranked) -> Iterator[Move]:
    rented, bought = ranking.best("rent"), ranking.best("buy")
    api = leader if leader.offer.kind == "api" else ranking.best("api")
    if rented and rented.offer.rental_usd_per_gpu_hour:
        now = rented.offer.rental_usd_per_gpu_hour.mid
        what = f"a rental price of {rented.offer.gpu}"
        yield from _priced(rented.offer, now, what, "USD per GPU-hour", leads=leader.offer.kind == "rent")
    machines = leader if leader.offer.kind != "api" else ranking.machines
    if machines:
        yield from _staff(ranking, machines, leads=leader.offer.kind != "api")
    if bought and bought.offer.gpu_usd and ranking.setting.node_usd is None:
        now, what = bought.offer.gpu_usd.mid, f"a price of {bought.offer.gpu} as bought"
        yield from _priced(bought.offer, now, what, "USD per GPU", leads=leader.offer.kind == "buy")
    if ranking.setting.traffic.tokens_per_month > 0:
        if api:
            yield _api_price(ranking, api, leads=leader.offer.kind == "api")
        other = _next_api(ranking, leader)
        if other and other is not api:
            yield _api_price(ranking, other, leads=False)
        yield from _traffic(ranking)


def _next_api(ranking: Ranking, leader: Ranked) -> Ranked | None:
    """Return the cheapest API of another word than the leader's: staying with one and changing to one are two ways."""
    word = word_of(leader.offer, ranking.inputs)
    apis = (each for each in ranking.options if each.offer.kind == "api" and each.may_win)
    return next((each for each in apis if word_of(each.offer, ranking.inputs) != word), None)


def _priced(offer: Offer, now: float, what: str, unit: str, *, leads: bool) -> Iterator[Move]:
    if now > 0:
        to = now * (MOST_TIMES if leads else LEAST_PART)
        yield Move(names=(offer.price_name,), now=now, to=to, what=what, unit=unit)


def _staff(ranking: Ranking, machines: Ranked, *, leads: bool) -> Iterator[Move]:
    """Yield the people, as one says them: for the whole fleet, rented or bought."""
    people = ranking.setting.own if machines.offer.kind == "buy" else ranking.setting.rent
    now = people.staff_fte.value.mid * range_of(people_scale(machines.priced.case)).p50
    if now > 0:
        yield Move(
            names=(PEOPLE,),
            now=now,
            to=now * MOST_TIMES if leads else 0.0,
            what="staffing, rented or bought,",
            unit="full-time engineers",
            people=True,
        )


def _api_price(ranking: Ranking, api: Ranked, *, leads: bool) -> Move:
    now = api.offer.api.price_ratio.mid if api.offer.api else 1.0  # of the list: a bill may be below it
    blended = middle_usd(api.offer, ranking.setting) / ranking.setting.traffic.tokens_per_month * 1e6
    return Move(
        names=(api.offer.price_name,),
        now=now,
        to=now * (MOST_TIMES if leads else LEAST_PART),
        what=f"an API price of {api.offer.model}",
        unit="USD per million tokens, blended",
        shown=blended / now,
    )


def _traffic(ranking: Ranking) -> Iterator[Move]:
    today = ranking.setting.traffic.tokens_per_month
    for to in (MOST_TRAFFIC, 1 / MOST_TRAFFIC):
        yield Move(names=(), now=1.0, to=to, what="traffic", unit="tokens a month", shown=today)
