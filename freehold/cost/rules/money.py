"""Rules of thumb on money: when to rent, when to buy, what machines, space and energy cost.

What guides say of nodes is worked out for the node that they mean, eight H100, the same in every plan; what they say of
renting and buying for the plan's own options, by the middle of their draws, as the options show it. Rules on the machines themselves stand in machines.py, not here.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

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
from freehold.sizing.fleet.traffic import HOURS_PER_MONTH

Judgement = Literal["holds", "does not hold", "depends", "unknown"]

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


def unknown(claim: str, why: str, source: str = "") -> Rule:
    """Return a rule that cannot be judged."""
    return Rule(claim=claim, verdict="unknown", computed=why, source=source)


def rent_below(ranking: Ranking) -> Rule:
    """Judge "rent below 200M tokens a month": true of renting against buying, while an API may beat both there."""
    claim = "Rent below 200M tokens a month"
    api, tokens = ranking.yardstick, ranking.setting.traffic.tokens_per_month
    rentals = _rentals(ranking)
    if api is None or not rentals or tokens <= 0:
        return unknown(claim, "An API or a rental to compare is missing.")
    scale = RENT_BELOW_TOKENS / tokens
    api_usd = _at(ranking, api, scale)
    rent_usd, rented = min(
        ((_at(ranking, each, scale), each) for each in rentals), key=lambda found: found[0]
    )
    bar = break_even_api_usd_per_m(rent_usd, RENT_BELOW_TOKENS)
    return Rule(
        claim=claim,
        verdict="holds" if rent_usd < api_usd else "does not hold",
        computed=(
            f"At 200M tokens a month {api.offer.model} of {api.offer.provider} costs {api_usd:,.0f} USD and the "
            f"cheapest rental, of {rented.offer.gpu}, {rent_usd:,.0f}: renting wins there only against an API "
            f"above {bar:,.2f} USD per million tokens."
        ),
        source="this plan's prices; 200M tokens a month are 76 tokens/s",
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


def buy_above(ranking: Ranking) -> Rule:
    """Judge "buy above 65 % utilisation": a rental price in disguise."""
    claim = "Buy above 65% utilisation"
    bought, rented = ranking.same_gpu
    if bought is None or rented is None or rented.offer.rental_usd_per_gpu_hour is None:
        return unknown(claim, "A purchase and a rental of the same GPU with all their prices are missing.")
    own, hourly = _own_per_gpu_hour(bought.priced), rented.offer.rental_usd_per_gpu_hour.mid
    middle = range_of(own)
    needed = break_even_utilisation(middle.p50, hourly)
    rate = rented.priced.case.draws.take(rented.offer.price_name, rented.offer.rental_usd_per_gpu_hour)
    wins = share(np.asarray(own < BUY_ABOVE * rate))
    return Rule(
        claim=claim,
        verdict=_near(needed),
        computed=(
            f"Owning {bought.offer.gpu} costs {middle.p50:,.2f} USD per GPU-hour ({middle.p10:,.2f}-{middle.p90:,.2f}), renting {hourly:,.2f}"
            f"{_reserved(rented)}: buying needs {_utilisation(needed)}. 65% is right at a rental of "
            f"{rental_for_utilisation(middle.p50, BUY_ABOVE):,.2f}; at 65% buying is cheaper in {wins:.0%} of the draws."
        ),
        source="own USD per GPU-hour over the rental's; it holds for rentals that are turned off when idle",
    )


def _near(needed: float) -> Judgement:
    return "holds" if abs(needed - BUY_ABOVE) <= NEAR else "depends" if needed <= 1 else "does not hold"


def _reserved(rented: Ranked) -> str:
    return (
        " (reserved: paid for idle or not, so compare the rates themselves)" if rented.offer.reserved else ""
    )


def _utilisation(needed: float) -> str:
    if needed > 1:
        return f"{needed:.0%} utilisation, so never at this rental price"
    return f"{needed:.0%} utilisation"


def _own_per_gpu_hour(bought: Priced) -> Vector:
    return np.asarray(bought.total / bought.case.counts.gpus / HOURS_PER_MONTH)


def gpu_price(ranking: Ranking) -> Rule:
    """Judge "an H100 costs 25,000 to 30,000 USD"."""
    claim = "An H100 costs 25,000 to 30,000 USD"
    spread = _h100(ranking)
    if spread is None:
        return unknown(claim, "No price of an H100 is known here.")
    low, high = GUIDE_H100_USD
    touches = spread.low <= high and spread.high >= low
    return Rule(
        claim=claim,
        verdict="holds" if low <= spread.mid <= high else "depends" if touches else "does not hold",
        computed=f"It is {spread.low:,.0f} to {spread.high:,.0f} USD here, {spread.mid:,.0f} in the middle.",
        source="the catalog's price of a new h100-sxm",
    )


def _h100(ranking: Ranking) -> Spread | None:
    gpus = {fleet.sized.ask.gpu.id: fleet.sized.ask.gpu for fleet in ranking.inputs.fleets}
    known = gpus.get("h100-sxm") or ranking.inputs.catalog.gpus.get("h100-sxm")
    return known.price_new_usd if known else None


def infrastructure(ranking: Ranking) -> Rule:
    """Judge "infrastructure adds 40 to 60 % to the GPUs"."""
    claim = "Infrastructure adds 40-60% to the price of the GPUs"
    node = ranking.node
    if node is None or node.offer.gpu_usd is None:
        return unknown(claim, NO_NODE)
    case = node.case
    gpus_usd = case.counts.gpus * case.draws.take(node.offer.price_name, node.offer.gpu_usd)
    added = range_of(capex_of(case).total / gpus_usd - 1)
    low, high = GUIDE_ADDED
    return Rule(
        claim=claim,
        verdict=_band(added.p50, (low, high), wide=(added.p10, added.p90)),
        computed=f"For eight {node.offer.gpu} everything but the GPUs adds {added.p50:.0%} ({added.p10:.0%}-{added.p90:.0%}).",
        source="chassis, host memory, disks and network over GPUs; quotes 2023-2026 came to +23% to +59%",
    )


def _band(value: float, band: tuple[float, float], *, wide: tuple[float, float]) -> Judgement:
    if band[0] <= value <= band[1]:
        return "holds"
    return "depends" if wide[0] <= band[1] and wide[1] >= band[0] else "does not hold"


def node_price(ranking: Ranking) -> Rule:
    """Judge "an eight-GPU node costs more than 200,000 USD"."""
    claim = "An 8-GPU node costs more than 200,000 USD"
    node = ranking.node
    if node is None or not node.offer.complete:
        return unknown(claim, NO_NODE)
    quoted, bought = node.case.setting.node_usd is not None, capex_of(node.case)
    usd = range_of(bought.hardware if quoted else bought.total)
    what = f"Your quote for eight {node.offer.gpu} is" if quoted else _all_around(node)
    return Rule(
        claim=claim,
        verdict="holds"
        if usd.p50 > GUIDE_NODE_USD
        else "depends"
        if usd.p90 > GUIDE_NODE_USD
        else "does not hold",
        computed=f"{what} {amount(usd.p50)} USD ({amount(usd.p10)}-{amount(usd.p90)}).",
        source="this plan's prices; 8 H100 at 25,000-30,000 with 40-60% more are 280,000-384,000",
    )


def _all_around(node: Priced) -> str:
    return f"Eight {node.offer.gpu} with all that is around them come to"


def energy(ranking: Ranking) -> Rule:
    """Judge "12 to 15 kW at 0.12 USD per kWh are 1,300 to 1,600 USD a month": they are 1,051 to 1,314."""
    claim = "12-15 kW at 0.12 USD per kWh cost 1,300-1,600 USD a month"
    low, high = (energy_usd_per_month(kw, GUIDE_USD_PER_KWH) for kw in GUIDE_KW)
    arithmetic = f"12-15 kW at 0.12 USD per kWh are {low:,.0f}-{high:,.0f} USD"
    node = ranking.node
    line = node.lines.get("electricity") if node else None
    if node is None or line is None:
        why = "the rent of the space includes it" if node else "the catalog has no H100"
        return unknown(claim, f"{arithmetic}; of this plan no energy is known: {why}.")
    usd = range_of(line)
    return Rule(
        claim=claim,
        verdict=_band(usd.p50, GUIDE_ENERGY_USD, wide=(usd.p10, usd.p90)),
        computed=f"{arithmetic}. Eight {node.offer.gpu} come to {usd.p50:,.0f} USD a month here ({usd.p10:,.0f}-{usd.p90:,.0f}).",
        source="kW x 730 h x USD per kWh; PUE counted once",
    )


def colocation(ranking: Ranking) -> Rule:
    """Judge "colocation of a node costs 2,500 USD a month"."""
    claim = "Colocation of a node costs 2,500 USD a month"
    node = ranking.node
    space = node.lines.get("colocation") if node else None
    if node is None or space is None:
        return unknown(claim, "The plan has no machines in a colocation.")
    usd = range_of(space + node.lines.get("electricity", np.zeros(1, dtype=np.float32)))
    near = (GUIDE_COLO_USD * 0.8, GUIDE_COLO_USD * 1.2)
    return Rule(
        claim=claim,
        verdict=_band(usd.p50, near, wide=(usd.p10, usd.p90)),
        computed=f"Space and energy of eight {node.offer.gpu} come to {usd.p50:,.0f} USD a month ({usd.p10:,.0f}-{usd.p90:,.0f}).",
        source="contracted kW x USD per kW, and energy where it is not included; within 20% counts as holding",
    )


def power_over_hardware(ranking: Ranking) -> Rule:
    """Judge "power costs more than half of the hardware over three years"."""
    claim = "Power costs more than half of the hardware over 3 years"
    node = ranking.node
    line = node.lines.get("electricity") if node else None
    if node is None or line is None or not node.offer.complete:
        return unknown(claim, "No energy of bought machines is known here.")
    part = range_of(line * GUIDE_YEARS * 12 / capex_of(node.case).total)
    total = range_of(line / node.total)
    return Rule(
        claim=claim,
        verdict="holds" if part.p50 > 0.5 else "depends" if part.p90 > 0.5 else "does not hold",
        computed=(
            f"Three years of energy are {part.p50:.0%} of the price of eight {node.offer.gpu} ({part.p10:.0%}-{part.p90:.0%}), "
            f"and {total.p50:.0%} of what owning costs."
        ),
        source="this plan's draws",
    )


def straight_line(ranking: Ranking) -> Rule:
    """Judge "write off over three years": a convention, so what another one would change is shown."""
    claim = "Hardware is written off over 3 years in a straight line"
    bought = ranking.best("buy")
    if bought is None:
        return unknown(claim, "No purchase with all its prices is in the plan.")
    life = ranking.setting.own.life_months
    three, five = (
        range_of(
            price(bought.offer, ranking.setting, draws=HeldDraws(ranking.draws, {life.name: months})).total
        ).p50
        for months in (GUIDE_YEARS * 12.0, LONG_LIFE_MONTHS)
    )
    return Rule(
        claim=claim,
        verdict="depends" if abs(1 - five / three) > MOVES else "holds",
        computed=(
            f"Over 36 months {bought.priced.case.fleet.gpus} x {bought.offer.gpu} as bought cost {amount(three)} USD a month, over 60 "
            f"months {amount(five)}: {five / three - 1:+.0%}. {_as_shown(bought, life.value)}"
        ),
        source="a convention; SemiAnalysis writes off over four years, clouds over five to six",
    )


def _as_shown(bought: Ranked, months: Spread) -> str:
    span = f"{months.mid:g}" if months.low == months.high else f"{months.low:g} to {months.high:g}"
    return f"The options show {amount(bought.usd_per_month.p50)}, over {span} months."


def spare(ranking: Ranking) -> Rule:
    """Judge "keep a cold spare node": it depends on how many nodes share it, and on who answers meanwhile."""
    claim = "Keep a cold spare node"
    bought, api = ranking.best("buy"), ranking.yardstick
    if bought is None or api is None or api.offer.api is None:
        return unknown(claim, "A purchase, or an API to fall back on, is missing.")
    covered = _with_fallback(ranking, bought, spare_node=False)
    spared = _with_fallback(ranking, bought, spare_node=True)
    missed = float(covered.lines["failures"][0])
    extra = float(spared.total[0] - covered.total[0] + covered.lines["failures"][0])
    return Rule(
        claim=claim,
        verdict="holds" if extra < missed else "does not hold",
        computed=(
            f"A spare node for {bought.priced.case.fleet.nodes} of {bought.offer.gpu} would cost {extra:,.0f} USD a month; answers of "
            f"{api.offer.model} while a node is down cost {missed:,.0f}."
        ),
        source="failures per GPU-year x days to repair; a spare shared by N nodes costs each 1/N",
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
