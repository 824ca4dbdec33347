"""The people who run it, on-call included: engineers x loaded salary. Not those who build what uses it.

What the user gives is for the whole fleet. The default is for one node, and each further node adds a part of that.
An API needs people as well, but none that the other ways would not need too.
"""

import numpy as np

from freehold.cost.model.capex import MONTHS_PER_YEAR
from freehold.cost.model.case import CostCase
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Vector
from freehold.cost.model.offers import is_given

NODE_MORE = 0.25
"""Of the first node's people, what each further node adds. Our own choice: rollouts, on-call and watching are the same work
for one node and for ten, hardware is not; the default of 0.05 to 0.3 becomes 0.16 to 1.0 engineers for ten nodes."""


def people_scale(case: CostCase) -> Vector:
    """Return what a default of people is multiplied by for the case's fleet: 1 for one node, and for what was said."""
    people = (case.setting.own if case.kind == "buy" else case.setting.rent).staff_fte
    if people.asked or is_given(people.fact):
        return np.ones(1, dtype=np.float32)
    return 1 + NODE_MORE * (np.maximum(case.counts.nodes, 1) - 1)


def price(case: CostCase) -> Vector:
    """Return USD per month."""
    people = case.setting.own if case.kind == "buy" else case.setting.rent
    values = case.draws.keep(
        ("staff", people.staff_fte.name, people.staff_fte.value, people.staff_usd_per_year.value),
        lambda: case.take(people.staff_fte) * case.take(people.staff_usd_per_year) / MONTHS_PER_YEAR,
    )
    return values * people_scale(case)


LINE = CostLine(
    kinds=frozenset({"rent", "buy"}),
    price=price,
    source="full-time equivalents x loaded salary / 12; a default of one node grows by a quarter of it with each further node",
)
