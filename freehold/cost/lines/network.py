"""NICs, cables and the share of a switch of the serving nodes, written off like the hardware. Not traffic: see egress."""

from freehold.cost.model.capex import capex_of, serving, straight_line
from freehold.cost.model.case import CostCase
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Vector


def price(case: CostCase) -> Vector:
    """Return USD per month."""
    return serving(case, straight_line(case, capex_of(case).network))


LINE = CostLine(
    kinds=frozenset({"buy"}),
    price=price,
    source="USD per node, straight line",
)
