"""Insurance of bought machines, a part of their price per year. Not of lost business."""

from freehold.cost.capex import MONTHS_PER_YEAR, capex_of
from freehold.cost.case import Case
from freehold.cost.draw import Vector
from freehold.cost.line import Line


def price(case: Case) -> Vector:
    """Return USD per month."""
    yearly = case.take(case.setting.own.insurance_fraction_per_year)
    return capex_of(case).total * (yearly / MONTHS_PER_YEAR)


LINE = Line(
    name="insurance",
    kinds=frozenset({"buy"}),
    price=price,
    source="a part of the price a year",
)
