"""The serving nodes' memory, written off like the hardware. Rented machines come with theirs, and it is not here."""

from freehold.cost.model.capex import capex_of, serving, straight_line
from freehold.cost.model.case import CostCase
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Vector


def price(case: CostCase) -> Vector:
    """Return USD per month; 0 where a quote for whole servers includes it."""
    return serving(case, straight_line(case, capex_of(case).host_ram))


LINE = CostLine(
    kinds=frozenset({"buy"}),
    price=price,
    source="GB x USD per GB, straight line; in 2026 18 to 25 % of a server's price (Counterpoint/TrendForce spot range)",
)
