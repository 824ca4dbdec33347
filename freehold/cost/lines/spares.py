"""Machines that wait for others to fail, written off like the hardware. Their capital is in the line `capital`.

There are as many as the fleet says, and none is added: a spare that was not asked for is not charged.
"""

from freehold.cost.model.capex import capex_of, straight_line
from freehold.cost.model.case import CostCase
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Vector


def price(case: CostCase) -> Vector:
    """Return USD per month; 0 without spares."""
    return straight_line(case, capex_of(case).total) * case.counts.spare_part


LINE = CostLine(
    kinds=frozenset({"buy"}),
    price=price,
    source="straight line over the spare GPUs' part; with N nodes one spare costs 1/N of the fleet",
)
