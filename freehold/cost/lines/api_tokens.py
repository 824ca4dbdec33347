"""What a cloud API asks for the month's tokens. Falling prices are not foreseen: it is today's list price."""

from freehold.cost.model.api_price import monthly_usd
from freehold.cost.model.case import CostCase
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Vector


def price(case: CostCase) -> Vector:
    """Return USD per month."""
    assert case.offer.api is not None
    return monthly_usd(case.offer.api, case.setting.traffic, case.draws) * case.tokens_scale


LINE = CostLine(
    kinds=frozenset({"api"}),
    price=price,
    source="providers' price lists: input, cached input and output tokens; half price for what can wait a day",
    of_offer=True,
)
