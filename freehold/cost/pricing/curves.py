"""Curves for plots, at middle values: cost over traffic, over the rental price and over the number of people.

Along the traffic the fleets grow by whole replicas, so the curves have steps. They carry no ranges.
"""

from collections.abc import Iterator

import numpy as np

from freehold.core.spread import Spread
from freehold.cost.model.case import Offer
from freehold.cost.model.draw import Middle
from freehold.cost.model.offers import RENTAL_QUOTE
from freehold.cost.model.result import Curve
from freehold.cost.pricing.price import middle_usd
from freehold.cost.pricing.ranking import Ranked, Ranking

POINTS = 25
"""Of a curve. Source: four per factor of ten over six of them, which a plot of 600 px resolves."""
DECADES = 3
"""To both sides of today's traffic. Source: from a pilot to a product is a factor of a thousand."""
VARIED_POINTS = 13
"""Of a straight line over one input: two would do, some more make its table readable. Our own choice."""
MOST_FTE = 2.0
"""Where the curve over staffing ends. Source: more people than that run many fleets, not one."""


def traffic_curves(ranking: Ranking) -> tuple[Curve, ...]:
    """Return cost over traffic of the APIs in use, of the same model and cheapest, and of the best rental and purchase.

    The advised option is always among them.
    """
    shown = (ranking.in_use, ranking.same_model, ranking.best("api"), *_machines(ranking))
    offers = {each.offer.id: each.offer for each in shown if each}
    scales = np.logspace(-DECADES, DECADES, POINTS)
    return tuple(
        _over_traffic(offer, ranking, [float(scale) for scale in scales]) for offer in offers.values()
    )


def sensitivity(ranking: Ranking) -> tuple[Curve, ...]:
    """Return the cost of the best rental and purchase over the rental price and over staffing."""
    return tuple(
        curve
        for ranked in _machines(ranking)
        for curve in (*_over_rental(ranked, ranking), _over_staff(ranked, ranking))
    )


def _machines(ranking: Ranking) -> list[Ranked]:
    return [each for each in (ranking.best("rent"), ranking.best("buy")) if each]


def _over_traffic(offer: Offer, ranking: Ranking, scales: list[float]) -> Curve:
    tokens = ranking.setting.traffic.tokens_per_month
    return Curve(
        option=offer.id,
        x=tuple(tokens * scale for scale in scales),
        usd_per_month=tuple(
            middle_usd(offer, ranking.setting, tokens_scale=scale, fleet_scale=scale) for scale in scales
        ),
    )


def _over_rental(ranked: Ranked, ranking: Ranking) -> Iterator[Curve]:
    rented = ranking.best("rent")
    market = ranking.market(rented.offer.gpu) if rented else None
    if market:
        name = ranked.offer.price_name if ranked.offer.kind == "rent" else ""
        span = Spread(market.low / 2, market.mid, market.high)
        yield _varied(ranked, ranking, over=RENTAL_QUOTE, span=span, name=name)


def _over_staff(ranked: Ranked, ranking: Ranking) -> Curve:
    people = ranking.setting.own if ranked.offer.kind == "buy" else ranking.setting.rent
    most = max(MOST_FTE, people.staff_fte.value.high)
    return _varied(
        ranked, ranking, over="staff_fte", span=Spread(0.0, most / 2, most), name=people.staff_fte.name
    )


def _varied(ranked: Ranked, ranking: Ranking, *, over: str, span: Spread, name: str) -> Curve:
    values = [float(value) for value in np.linspace(span.low, span.high, VARIED_POINTS)]
    return Curve(
        option=ranked.offer.id,
        x=tuple(values),
        usd_per_month=tuple(
            middle_usd(ranked.offer, ranking.setting, held=Middle(values={name: value})) for value in values
        ),
        over=over,
    )
