"""NICs, cables and the share of a switch of the serving nodes, written off like the hardware. Not traffic: see egress."""

from freehold.cost.capex import capex_of, serving, straight_line
from freehold.cost.case import Case
from freehold.cost.draw import Vector
from freehold.cost.line import Line


def price(case: Case) -> Vector:
    """Return USD per month."""
    return serving(case, straight_line(case, capex_of(case).network))


LINE = Line(
    name="network",
    kinds=frozenset({"buy"}),
    price=price,
    source="USD per node, straight line",
)
