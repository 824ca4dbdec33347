"""What would change the verdict, with the numbers at which it would: found by solving, at middle values.

Each candidate moves one input until the leading option and its rival cost the same. What lies too far from today to be
reasonable is not offered as a change; it is told as tried. Inputs that move together are not moved together here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from freehold.cost.break_even import against_api
from freehold.cost.case import Offer
from freehold.cost.draw import Middle
from freehold.cost.price import middle_usd, price
from freehold.cost.result import Change
from freehold.cost.standing import Ranked, Standing

LEAST_PART = 0.3
"""Of a price of today: a fall below it is not reasonable. Source: catalogs hold less than 0.3 x the median for implausible."""
MOST_TIMES = 10.0
"""Of a price of today: a rise above it is not reasonable. Source: no price of the catalog is that far from its like."""
MOST_TRAFFIC = 1000.0
"""Of today's traffic. Source: from a pilot to a product is a factor of a thousand."""

WordOf = Callable[[Offer], str]
"""Gives the verdict's word for an option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One input of one option that is moved until the option meets another one."""

    offer: Offer
    name: str
    now: float
    what: str
    """Of which the sentence is made: `a rental price of h100-sxm`."""
    unit: str
    shown: float = 1.0
    """What the input's value is multiplied by to be shown in its unit."""
    least: float = LEAST_PART
    """Part of today's value below which it is not reasonable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of one try: the change, or nothing where it takes too much."""

    tried: str
    change: Change | None = None


def would_change(standing: Standing, leader: Ranked, word_of: WordOf) -> tuple[Change, ...]:
    """Return what would make another option the cheapest; never empty: without any it says what was tried."""
    found = [
        *(_solved(move, standing, leader, word_of) for move in _moves(standing, leader)),
        *_traffic(standing, leader, word_of),
    ]
    changes = tuple(each.change for each in found if each.change)
    if changes:
        return changes
    tried = "; ".join(each.tried for each in found) or "there is no other complete option"
    return (Change(what=f"nothing reasonable that was tried: {tried}", to=word_of(leader.offer)),)


def meeting_point(cost: Callable[[float], float], fixed: float, *, now: float) -> float | None:
    """Return where a cost that is a straight line in one input equals a fixed one; None where it does not depend on it."""
    at_nothing, at_now = cost(0.0), cost(now)
    if at_nothing == at_now:
        return None
    return (fixed - at_nothing) / (at_now - at_nothing) * now


def _moves(standing: Standing, leader: Ranked) -> Iterator[Move]:
    rented, bought, api = standing.best("rent"), standing.best("buy"), _api(standing, leader)
    if rented and rented.offer.rental_usd_per_gpu_hour:
        now = rented.offer.rental_usd_per_gpu_hour.mid
        what = f"a rental price of {rented.offer.gpu}"
        yield Move(
            offer=rented.offer, name=rented.offer.price_name, now=now, what=what, unit="USD per GPU-hour"
        )
    machines = leader if leader.offer.kind != "api" else standing.machines
    if machines:
        yield from _staff(standing, machines.offer)
    if bought and bought.offer.gpu_usd and standing.setting.node_usd is None:
        now, gpu = bought.offer.gpu_usd.mid, bought.offer.gpu
        what = f"a price of {gpu} as bought"
        yield Move(offer=bought.offer, name=bought.offer.price_name, now=now, what=what, unit="USD per GPU")
    if api and standing.setting.traffic.tokens_per_month > 0:
        yield _api_price(standing, api)


def _api(standing: Standing, leader: Ranked) -> Ranked | None:
    return leader if leader.offer.kind == "api" else standing.best("api")


def _staff(standing: Standing, offer: Offer) -> Iterator[Move]:
    people = standing.setting.own if offer.kind == "buy" else standing.setting.rent
    now = people.staff_fte.value.mid
    if now > 0:
        what = f"staffing for the {'bought' if offer.kind == 'buy' else 'rented'} machines"
        yield Move(
            offer=offer, name=people.staff_fte.name, now=now, what=what, unit="full-time engineers", least=0.0
        )


def _api_price(standing: Standing, api: Ranked) -> Move:
    assert api.offer.api is not None
    blended = middle_usd(api.offer, standing.setting) / standing.setting.traffic.tokens_per_month * 1e6
    return Move(
        offer=api.offer,
        name=api.offer.price_name,
        now=1.0,
        what=f"an API price of {api.offer.model}",
        unit="USD per million tokens, blended",
        shown=blended,
    )


def _solved(move: Move, standing: Standing, leader: Ranked, word_of: WordOf) -> Found:
    """Return the change that the move brings, or what was tried in vain."""
    leads = move.offer.id == leader.offer.id
    other = _rival(standing, leader) if leads else leader
    if other is None:
        return Found(tried=f"{move.what}: nothing else is complete")
    point = meeting_point(
        lambda value: middle_usd(move.offer, standing.setting, held=Middle(values={move.name: value})),
        middle_usd(other.offer, standing.setting),
        now=move.now,
    )
    bound = move.now * (MOST_TIMES if leads else move.least)
    side = "above" if leads else "below"
    reached = point is not None and (move.now < point <= bound if leads else bound <= point < move.now)
    if not reached:
        return Found(tried=f"{move.what} {'up' if leads else 'down'} to {_shown(move, bound)}")
    assert point is not None
    text = f"{move.what} {side} {_shown(move, point)} (now {move.now * move.shown:,.2f})"
    return Found(tried=text, change=Change(what=text, to=word_of(other.offer if leads else move.offer)))


def _shown(move: Move, value: float) -> str:
    digits = 0 if move.now * move.shown >= 1000 else 2
    return f"{value * move.shown:,.{digits}f} {move.unit}"


def _rival(standing: Standing, leader: Ranked) -> Ranked | None:
    """Return the cheapest option that may win and serves in another way."""
    others = (each for each in standing.options if each.may_win and each.offer.kind != leader.offer.kind)
    return next(others, None)


def _traffic(standing: Standing, leader: Ranked, word_of: WordOf) -> Iterator[Found]:
    """Yield the traffic at which machines and API change places, for the machines that do so first."""
    api, today = _api(standing, leader), standing.setting.traffic.tokens_per_month
    leads = leader.offer.kind == "api"
    machines = [standing.best("rent"), standing.best("buy")] if leads else [leader]
    if api is None or not any(machines) or today <= 0:
        return
    found = [(tokens_to_beat(standing, each.offer, api.offer), each) for each in machines if each]
    tokens, each = min(found, key=lambda pair: pair[0])
    bound = today * MOST_TRAFFIC if leads else today / MOST_TRAFFIC
    side, way = ("above", "up") if leads else ("below", "down")
    reached = today < tokens <= bound if leads else bound <= tokens < today
    if not reached:
        yield Found(tried=f"traffic {way} to {bound:,.0f} tokens a month")
        return
    text = f"traffic {side} {tokens:,.0f} tokens a month (now {today:,.0f})"
    yield Found(tried=text, change=Change(what=text, to=word_of(each.offer if leads else api.offer)))


def tokens_to_beat(standing: Standing, machines: Offer, api: Offer) -> float:
    """Return the least traffic, tokens a month, at which machines cost less than an API; inf: at none. Middle values."""
    both = [price(each, standing.setting, draws=Middle()) for each in (machines, api)]
    return float(np.min(against_api(*both).tokens))
