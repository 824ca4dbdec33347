"""From which traffic on, at which utilisation and from which month on one option is cheaper than another.

All draw by draw, in closed form. Against an API: a fleet of k replicas costs A + B k and carries what k replicas carry
at the traffic's peaks; the break-even is the least traffic at which the fewest replicas that carry it cost less than
the API. Against a rental: the part of the hours from which owning beats a rental that is off the rest of the time; a
reservation is paid for idle or not, so there it says nothing. Payback compares sums of money, undiscounted, without
what the machines fetch at the end. Falling prices are not foreseen.
"""

import math
from dataclasses import dataclass

import numpy as np

from freehold.cost.model.capex import capex_of
from freehold.cost.model.closed_form import SECONDS_PER_MONTH
from freehold.cost.model.draw import Vector
from freehold.cost.model.fleet_counts import ROUNDING
from freehold.cost.model.percentiles import range_of, share
from freehold.cost.model.result import BreakEven, Percentiles
from freehold.cost.pricing.price import Priced, price
from freehold.sizing.fleet.fleet import round_gpus
from freehold.sizing.replica.answer import SizedFleet


def break_even(mine: Priced, other: Priced, *, growth_per_month: float = 0.0) -> BreakEven:
    """Return where a rented or bought option becomes cheaper than another one, both priced under the same draws."""
    tokens, utilisation, gpus = _where(mine, other)
    month = payback(mine, other, growth_per_month=growth_per_month) if mine.case.kind == "buy" else None
    return BreakEven(
        option=mine.offer.id,
        against=other.offer.id,
        tokens_per_month=tokens,
        utilisation=utilisation,
        gpus=gpus if utilisation else None,
        payback_month=_known(month),
        chance_cheaper=share(np.asarray(mine.total < other.total)),
    )


def _where(mine: Priced, other: Priced) -> tuple[Percentiles | None, Percentiles | None, int | None]:
    """Return tokens a month and utilisation of the break-even, and the GPUs that it is the utilisation of."""
    if other.offer.reserved:
        return None, None, None
    if other.case.kind == "api":
        found = against_api(mine, other)
        return _known(found.tokens), _possible(_known(found.utilisation)), _gpus_at(mine, found)
    tokens = utilisation_against_rental(mine, other) * capacity_tokens(other)
    utilisation = _possible(_known(tokens / capacity_tokens(mine)))
    return (range_of(tokens) if utilisation else None), utilisation, mine.case.fleet.gpus


def _possible(utilisation: Percentiles | None) -> Percentiles | None:
    """Return it, or None where the middle draw would have to serve more than there is: that is never."""
    return utilisation if utilisation and utilisation.p50 <= 1 else None


def _gpus_at(mine: Priced, found: "Crossing") -> int:
    """Return the GPUs that would stand there at the break-even, by the middle draw: as they can be rented or bought."""
    middle, ask = range_of(found.replicas).p50, mine.case.fleet.sized.ask
    if not math.isfinite(middle):
        return mine.case.fleet.gpus
    needed = max(1, round(middle)) * ask.gpus
    return round_gpus(needed, gpu=ask.gpu, per_node=ask.gpus_per_node, bought=mine.case.kind == "buy")[0]


def capacity_tokens(mine: Priced) -> Vector:
    """Return the tokens a month that the option's machines carry within the SLO, at full use."""
    return _each_tokens(mine) * mine.case.counts.replicas


def _each_tokens(mine: Priced) -> Vector:
    """Return the tokens a month that one replica carries within the SLO, at full use."""
    case = mine.case
    rate = case.draws.take(f"{mine.offer.gpu}:tokens_per_s", case.fleet.capacity_tokens_per_s)
    return rate * (SECONDS_PER_MONTH / case.fleet.replicas)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Where machines become cheaper than an API, per draw."""

    tokens: Vector
    """A month; inf: at no traffic."""
    utilisation: Vector
    """Of the capacity of the replicas that carry that traffic, or where there is none, what a replica would have to reach;
    inf: whatever it did."""
    replicas: Vector
    """That carry that traffic; inf: none do."""


def against_api(mine: Priced, api: Priced) -> Crossing:
    """Return the least traffic at which the fewest replicas that carry it cost less than the API.

    Replicas on the first board that has to be bought anyhow cost no more than one.
    """
    fixed, each_usd, marginal = cost_of_replicas(mine)
    saved = np.asarray(api.total / api.case.tokens_per_month - marginal)
    full = _each_tokens(mine)
    carried = full / peak_ratio(mine)
    gain = saved * carried - each_usd  # what one more replica brings when it is as full as the peaks allow
    count = np.maximum(np.ceil(_over(fixed, gain)), 1)
    tokens = _over(fixed + count * each_usd, np.where(gain > 0, saved, 0))
    flat = _over(fixed + each_usd, saved)
    first = flat <= first_board(mine) * carried
    count = np.where(first, np.maximum(np.ceil(flat / carried - ROUNDING), 1), count)
    tokens = np.where(first, flat, tokens)
    served = np.where(np.isfinite(tokens), tokens / np.where(np.isfinite(count), count, 1), np.inf)
    needed = np.where(np.isfinite(served), served, _over(each_usd, saved)) / full
    return Crossing(tokens=tokens, utilisation=needed, replicas=np.where(np.isfinite(tokens), count, np.inf))


def first_board(mine: Priced) -> int:
    """Return the replicas that stand on the least that can be had: 1 of what is rented, a board's of what is bought."""
    ask = mine.case.fleet.sized.ask
    return max(1, ask.gpu.sold_in // ask.gpus) if mine.case.kind == "buy" else 1


def peak_ratio(mine: Priced) -> float:
    """Return the peak that the fleet is sized for over the mean; at least 1."""
    case = mine.case
    mean = case.setting.traffic.tokens_per_month / SECONDS_PER_MONTH
    return max(1.0, case.fleet.peak_tokens_per_s / mean) if mean > 0 else 1.0


def cost_of_replicas(mine: Priced) -> tuple[Vector, Vector, Vector]:
    """Return A and B of A + B k for k idle replicas, USD per month, and USD per token.

    The line goes through the costs of one replica and of today's fleet, or of two boards where today's fills less; all
    people are in A where today's is one replica.
    """
    case, boards = mine.case, 2 * first_board(mine)
    small = boards > 2 and case.fleet.replicas < boards
    idle = _idle(mine, fleet_scale=case.fleet_scale)
    grown = _idle(mine, fleet_scale=_scale_to(case.fleet, boards)) if small else idle
    one, now = _idle(mine, fleet_scale=0).total, grown.case.counts.replicas
    alone = one - idle.lines.get("staff", np.zeros(1, dtype=np.float32))
    each = np.where(now > 1, (grown.total - one) / np.where(now > 1, now - 1, 1), alone)
    marginal = (mine.total - idle.total) / case.tokens_per_month
    return one - each, each, marginal


def _scale_to(fleet: SizedFleet, replicas: int) -> float:
    """Return how many times today's traffic so many replicas are planned for."""
    each = fleet.capacity_tokens_per_s.mid / fleet.replicas
    peak = fleet.peak_tokens_per_s
    return max(1.0, replicas * each / peak) if peak > 0 else replicas / fleet.replicas


def _idle(mine: Priced, *, fleet_scale: float) -> Priced:
    case = mine.case
    return price(mine.offer, case.setting, draws=case.draws, tokens_scale=0, fleet_scale=fleet_scale)


def _over(what: Vector, by: Vector) -> Vector:
    """Return the quotient; inf where there is nothing to divide by."""
    return np.asarray(np.where(by > 0, what / np.where(by > 0, by, 1), np.inf))


def utilisation_against_rental(mine: Priced, rent: Priced) -> Vector:
    """Return the part of the hours from which owning is cheaper than a rental that is off the rest of the time."""
    hourly = rent.lines["rental"]
    return _over(np.maximum(mine.total - (rent.total - hourly), 0), hourly)


def payback(mine: Priced, other: Priced, *, growth_per_month: float = 0.0) -> Vector:
    """Return the month in which a bought option's sum falls below the other's; inf: not within its life."""
    life = mine.case.take(mine.case.setting.own.life_months)
    paid = capex_of(mine.case).total
    if growth_per_month == 0:
        saved = np.asarray(other.total - mine.running)
        month = _over(paid, saved)
    else:
        month = _payback_growing(mine, other, growth_per_month)
    return np.where(month <= life, month, np.inf)


def _payback_growing(mine: Priced, other: Priced, growth: float) -> Vector:
    """Return the month of payback, month by month: both fleets grow by whole replicas, people stay as they are."""
    ours, theirs = _Growing(mine), _Growing(other)
    months = math.ceil(mine.case.setting.own.life_months.value.high)
    ahead = np.zeros(1) - ours.bought(1.0)
    found = np.full(1, np.inf)
    for month in range(1, months + 1):
        scale = (1 + growth) ** (month - 1)
        before = ahead
        ahead = ahead + theirs.monthly(scale) - ours.monthly(scale)
        if month > 1:
            ahead = ahead - (ours.bought(scale) - ours.bought((1 + growth) ** (month - 2)))
        part = np.where(ahead > before, -before / np.where(ahead > before, ahead - before, 1), 1)
        found = np.where((ahead >= 0) & np.isinf(found), month - 1 + part, found)
    return found


class _Growing:
    """How an option's cost follows a traffic that grows: tokens by the token, machines by the replica."""

    def __init__(self, priced: Priced) -> None:
        self.priced, case = priced, priced.case
        nothing = np.zeros(1, dtype=np.float32)
        self.machines = case.kind != "api"
        idle = _idle(priced, fleet_scale=case.fleet_scale).total if self.machines else nothing
        self.tokens_usd = priced.total - idle
        self.staff = priced.lines.get("staff", nothing)
        running = priced.running if case.kind == "buy" else priced.total
        self.fleet_usd = running - self.tokens_usd - self.staff if self.machines else nothing
        self.capital = capex_of(case).total if case.kind == "buy" else nothing

    def monthly(self, scale: float) -> Vector:
        """Return what a month costs, without what is bought."""
        return self.staff + self.tokens_usd * scale + self.fleet_usd * self._fleets(scale)

    def bought(self, scale: float) -> Vector:
        """Return what the machines that such a traffic takes cost."""
        return self.capital * self._fleets(scale)

    def _fleets(self, scale: float) -> Vector:
        """Return how many times the fleet of today that is."""
        if not self.machines or scale == 1:
            return np.ones(1, dtype=np.float32)
        fleet, now = self.priced.case.fleet, self.priced.case.counts.replicas
        each = self.priced.case.draws.take(
            f"{self.priced.offer.gpu}:tokens_per_s", fleet.capacity_tokens_per_s
        )
        needed = np.ceil(fleet.peak_tokens_per_s * scale / (each / fleet.replicas) - ROUNDING)
        return np.maximum(needed, now) / now


def _known(values: Vector | None) -> Percentiles | None:
    """Return the range, or None where the middle draw has no such point."""
    if values is None:
        return None
    found = range_of(values)
    return found if np.isfinite(found.p50) else None
