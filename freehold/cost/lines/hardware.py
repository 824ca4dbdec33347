"""GPUs and chassis that serve, written off in a straight line to what they fetch at the end. Not spares, not capital."""

from freehold.cost.model.capex import capex_of, serving, straight_line
from freehold.cost.model.case import Case
from freehold.cost.model.cost_line import Line
from freehold.cost.model.draw import Vector


def price(case: Case) -> Vector:
    """Return USD per month."""
    return serving(case, straight_line(case, capex_of(case).hardware))


LINE = Line(
    name="hardware",
    kinds=frozenset({"buy"}),
    price=price,
    source="straight-line depreciation: (price - residual value) / life",
)
