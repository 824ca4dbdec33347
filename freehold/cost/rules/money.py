"""Rules of thumb on money: when to rent, when to buy, what machines, space and energy cost.

What guides say of nodes is worked out for the node that they mean, eight H100, the same in every plan; what they say of
renting and buying for the plan's own options, by the middle of their draws, as the options show it. Rules on the machines themselves stand in machines.py, not here.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from freehold.core.spread import Spread
from freehold.cost.model.capex import capex_of
from freehold.cost.model.closed_form import (
    break_even_api_usd_per_m,
    break_even_utilisation,
    energy_usd_per_month,
    rental_for_utilisation,
)
from freehold.cost.model.draw import HeldDraws, Middle, Vector
from freehold.cost.model.percentiles import range_of, share
from freehold.cost.model.result import Rule
from freehold.cost.model.rounding import amount
from freehold.cost.pricing.price import Priced, price
from freehold.cost.pricing.ranking import Ranked, Ranking
from freehold.cost.rules.judged import Judged, Judgement, graded, judged, unknown
from freehold.sizing.fleet.traffic import HOURS_PER_MONTH

RENT_BELOW_TOKENS = 200e6
"""Source: guides to owning inference ("rent below 200M tokens a month")."""
BUY_ABOVE = 0.65
"""Source: the same ("buy above 65 % utilisation")."""
NEAR = 0.1
"""How far a computed utilisation may be from the rule's for it to hold. Our own choice: the ranges are wider than that."""
GUIDE_YEARS = 3
"""Source: guides write off over three years."""
LONG_LIFE_MONTHS = 60.0
"""What three years are compared with. Source: clouds write servers off over five to six years."""
MOVES = 0.05
"""From which part of the cost on a choice matters. Our own choice: below it other inputs drown it."""
# What the guides' power rules say: kW, USD per kWh and USD a month.
GUIDE_KW = (12.0, 15.0)
GUIDE_USD_PER_KWH = 0.12
GUIDE_ENERGY_USD = (1300.0, 1600.0)
GUIDE_COLO_USD = 2500.0
GUIDE_NODE_USD = 200_000.0
GUIDE_H100_USD = (25_000.0, 30_000.0)
GUIDE_ADDED = (0.4, 0.6)
NO_NODE = "The catalog has no H100 to work it out for."


@judged
def rent_below(ranking: Ranking) -> Judged:
    """Judge "rent below 200M tokens a month": true of renting against buying, while an API may beat both there."""
    api, tokens = ranking.yardstick, ranking.setting.traffic.tokens_per_month
    rentals = _rentals(ranking)
    if api is None or not rentals or tokens <= 0:
        return unknown("An API or a rental to compare is missing.")
    scale = RENT_BELOW_TOKENS / tokens
    api_usd = _at(ranking, api, scale)
    rent_usd, rented = min(
        ((_at(ranking, each, scale), each) for each in rentals), key=lambda found: found[0]
    )
    bar = break_even_api_usd_per_m(rent_usd, RENT_BELOW_TOKENS)
    return "holds" if rent_usd < api_usd else "does not hold", (
        f"At 200M tokens a month {api.offer.model} of {api.offer.provider} costs {api_usd:,.0f} USD and the "
        f"cheapest rental, of {rented.offer.gpu}, {rent_usd:,.0f}: renting wins there only against an API "
        f"above {bar:,.2f} USD per million tokens."
    )


def _rentals(ranking: Ranking) -> list[Ranked]:
    """Return the cheapest rental of each fleet: at another traffic another fleet may be the cheapest."""
    found: dict[int, Ranked] = {}
    for each in ranking.options:
        if each.offer.kind == "rent" and each.may_win:
            found.setdefault(id(each.offer.fleet), each)
    return list(found.values())


def _at(ranking: Ranking, ranked: Ranked, scale: float) -> float:
    """Return the middle of the draws of a month's cost at so many times the traffic."""
    priced = price(ranked.offer, ranking.setting, draws=ranking.draws, tokens_scale=scale, fleet_scale=scale)
    return range_of(priced.total).p50


@judged
def buy_above(ranking: Ranking) -> Judged:
    """Judge "buy above 65 % utilisation": a rental price in disguise."""
    bought, rented = ranking.same_gpu
    if bought is None or rented is None or rented.offer.rental_usd_per_gpu_hour is None:
        return unknown("A purchase and a rental of the same GPU with all their prices are missing.")
    own: Vector = bought.priced.total / bought.priced.case.counts.gpus / HOURS_PER_MONTH
    hourly = rented.offer.rental_usd_per_gpu_hour.mid
    middle = range_of(own)
    needed = break_even_utilisation(middle.p50, hourly)
    rate = rented.priced.case.draws.take(rented.offer.price_name, rented.offer.rental_usd_per_gpu_hour)
    wins = share(np.asarray(own < BUY_ABOVE * rate))
    return graded(holds=abs(needed - BUY_ABOVE) <= NEAR, depends=needed <= 1), (
        f"Owning {bought.offer.gpu} costs {middle.p50:,.2f} USD per GPU-hour ({middle.p10:,.2f}-{middle.p90:,.2f}), renting {hourly:,.2f}"
        f"{_reserved(rented)}: buying needs {_utilisation(needed)}. 65% is right at a rental of "
        f"{rental_for_utilisation(middle.p50, BUY_ABOVE):,.2f}; at 65% buying is cheaper in {wins:.0%} of the draws."
    )


def _reserved(rented: Ranked) -> str:
    return (
        " (reserved: paid for idle or not, so compare the rates themselves)" if rented.offer.reserved else ""
    )


def _utilisation(needed: float) -> str:
    if needed > 1:
        return f"{needed:.0%} utilisation, so never at this rental price"
    return f"{needed:.0%} utilisation"


@judged
def gpu_price(ranking: Ranking) -> Judged:
    """Judge "an H100 costs 25,000 to 30,000 USD"."""
    spread = _h100(ranking)
    if spread is None:
        return unknown("No price of an H100 is known here.")
    low, high = GUIDE_H100_USD
    touches = spread.low <= high and spread.high >= low
    return graded(
        holds=low <= spread.mid <= high, depends=touches
    ), f"It is {spread.low:,.0f} to {spread.high:,.0f} USD here, {spread.mid:,.0f} in the middle."


def _h100(ranking: Ranking) -> Spread | None:
    gpus = {fleet.sized.ask.gpu.id: fleet.sized.ask.gpu for fleet in ranking.inputs.fleets}
    known = gpus.get("h100-sxm") or ranking.inputs.catalog.gpus.get("h100-sxm")
    return known.price_new_usd if known else None


@judged
def infrastructure(ranking: Ranking) -> Judged:
    """Judge "infrastructure adds 40 to 60 % to the GPUs"."""
    node = ranking.node
    if node is None or node.offer.gpu_usd is None:
        return unknown(NO_NODE)
    case = node.case
    gpus_usd = case.counts.gpus * case.draws.take(node.offer.price_name, node.offer.gpu_usd)
    added = range_of(capex_of(case).total / gpus_usd - 1)
    low, high = GUIDE_ADDED
    return (
        _band(added.p50, (low, high), wide=(added.p10, added.p90)),
        f"For eight {node.offer.gpu} everything but the GPUs adds {added.p50:.0%} ({added.p10:.0%}-{added.p90:.0%}).",
    )


def _band(value: float, band: tuple[float, float], *, wide: tuple[float, float]) -> Judgement:
    return graded(holds=band[0] <= value <= band[1], depends=wide[0] <= band[1] and wide[1] >= band[0])


@judged
def node_price(ranking: Ranking) -> Judged:
    """Judge "an eight-GPU node costs more than 200,000 USD"."""
    node = ranking.node
    if node is None or not node.offer.complete:
        return unknown(NO_NODE)
    quoted, bought = node.case.setting.node_usd is not None, capex_of(node.case)
    usd = range_of(bought.hardware if quoted else bought.total)
    what = (
        f"Your quote for eight {node.offer.gpu} is"
        if quoted
        else f"Eight {node.offer.gpu} with all that is around them come to"
    )
    return graded(
        holds=usd.p50 > GUIDE_NODE_USD, depends=usd.p90 > GUIDE_NODE_USD
    ), f"{what} {amount(usd.p50)} USD ({amount(usd.p10)}-{amount(usd.p90)})."


@judged
def energy(ranking: Ranking) -> Judged:
    """Judge "12 to 15 kW at 0.12 USD per kWh are 1,300 to 1,600 USD a month": they are 1,051 to 1,314."""
    low, high = (energy_usd_per_month(kw, GUIDE_USD_PER_KWH) for kw in GUIDE_KW)
    arithmetic = f"12-15 kW at 0.12 USD per kWh are {low:,.0f}-{high:,.0f} USD"
    node = ranking.node
    line = node.lines.get("electricity") if node else None
    if node is None or line is None:
        why = "the rent of the space includes it" if node else "the catalog has no H100"
        return unknown(f"{arithmetic}; of this plan no energy is known: {why}.")
    usd = range_of(line)
    return (
        _band(usd.p50, GUIDE_ENERGY_USD, wide=(usd.p10, usd.p90)),
        f"{arithmetic}. Eight {node.offer.gpu} come to {usd.p50:,.0f} USD a month here ({usd.p10:,.0f}-{usd.p90:,.0f}).",
    )


@judged
def colocation(ranking: Ranking) -> Judged:
    """Judge "colocation of a node costs 2,500 USD a month"."""
    node = ranking.node
    space = node.lines.get("colocation") if node else None
    if node is None or space is None:
        return unknown("The plan has no machines in a colocation.")
    usd = range_of(space + node.lines.get("electricity", np.zeros(1, dtype=np.float32)))
    near = (GUIDE_COLO_USD * 0.8, GUIDE_COLO_USD * 1.2)
    return (
        _band(usd.p50, near, wide=(usd.p10, usd.p90)),
        f"Space and energy of eight {node.offer.gpu} come to {usd.p50:,.0f} USD a month ({usd.p10:,.0f}-{usd.p90:,.0f}).",
    )


@judged
def power_over_hardware(ranking: Ranking) -> Judged:
    """Judge "power costs more than half of the hardware over three years"."""
    node = ranking.node
    line = node.lines.get("electricity") if node else None
    if node is None or line is None or not node.offer.complete:
        return unknown("No energy of bought machines is known here.")
    part = range_of(line * GUIDE_YEARS * 12 / capex_of(node.case).total)
    total = range_of(line / node.total)
    return graded(holds=part.p50 > 0.5, depends=part.p90 > 0.5), (
        f"Three years of energy are {part.p50:.0%} of the price of eight {node.offer.gpu} ({part.p10:.0%}-{part.p90:.0%}), "
        f"and {total.p50:.0%} of what owning costs."
    )


@judged
def straight_line(ranking: Ranking) -> Judged:
    """Judge "write off over three years": a convention, so what another one would change is shown."""
    bought = ranking.best("buy")
    if bought is None:
        return unknown("No purchase with all its prices is in the plan.")
    life = ranking.setting.own.life_months
    three, five = (
        range_of(
            price(bought.offer, ranking.setting, draws=HeldDraws(ranking.draws, {life.name: months})).total
        ).p50
        for months in (GUIDE_YEARS * 12.0, LONG_LIFE_MONTHS)
    )
    return "depends" if abs(1 - five / three) > MOVES else "holds", (
        f"Over 36 months {bought.priced.case.fleet.gpus} x {bought.offer.gpu} as bought cost {amount(three)} USD a month, over 60 "
        f"months {amount(five)}: {five / three - 1:+.0%}. {_as_shown(bought, life.value)}"
    )


def _as_shown(bought: Ranked, months: Spread) -> str:
    span = f"{months.mid:g}" if months.low == months.high else f"{months.low:g} to {months.high:g}"
    return f"The options show {amount(bought.usd_per_month.p50)}, over {span} months."


@judged
def spare(ranking: Ranking) -> Judged:
    """Judge "keep a cold spare node": it depends on how many nodes share it, and on who answers meanwhile."""
    bought, api = ranking.best("buy"), ranking.yardstick
    if bought is None or api is None or api.offer.api is None:
        return unknown("A purchase, or an API to fall back on, is missing.")
    covered = _with_fallback(ranking, bought, spare_node=False)
    spared = _with_fallback(ranking, bought, spare_node=True)
    missed = float(covered.lines["failures"][0])
    extra = float(spared.total[0] - covered.total[0] + covered.lines["failures"][0])
    return "holds" if extra < missed else "does not hold", (
        f"A spare node for {bought.priced.case.fleet.nodes} of {bought.offer.gpu} would cost {extra:,.0f} USD a month; answers of "
        f"{api.offer.model} while a node is down cost {missed:,.0f}."
    )


def _with_fallback(ranking: Ranking, bought: Ranked, *, spare_node: bool) -> Priced:
    assert ranking.yardstick is not None
    fallback = None if spare_node else ranking.yardstick.offer.api
    setting = replace(ranking.setting, fallback=fallback, spare_node=spare_node)
    return price(bought.offer, setting, draws=Middle())


MONEY_RULES: tuple[Callable[[Ranking], Rule], ...] = (
    rent_below,
    buy_above,
    gpu_price,
    infrastructure,
    node_price,
    energy,
    colocation,
    power_over_hardware,
    straight_line,
    spare,
)
