"""Support contracts and parts for bought machines, a part of their price per year. Not people: see staff."""

from freehold.cost.model.capex import MONTHS_PER_YEAR, capex_of
from freehold.cost.model.case import CostCase
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Vector


def price(case: CostCase) -> Vector:
    """Return USD per month."""
    yearly = case.take(case.setting.own.maintenance_fraction_per_year)
    return capex_of(case).total * (yearly / MONTHS_PER_YEAR)


LINE = CostLine(
    kinds=frozenset({"buy"}),
    price=price,
    source="2 to 8 % of the price a year, as support contracts ask",
)
