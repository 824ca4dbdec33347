"""The people who run it, on-call included: engineers x loaded salary. Not those who build what uses it.

An API needs people as well, but none that the other ways would not need too.
"""

from freehold.cost.capex import MONTHS_PER_YEAR
from freehold.cost.case import Case
from freehold.cost.draw import Vector
from freehold.cost.line import Line


def price(case: Case) -> Vector:
    """Return USD per month."""
    people = case.setting.own if case.kind == "buy" else case.setting.rent
    return case.draws.keep(
        ("staff", people.staff_fte.name, people.staff_fte.value, people.staff_usd_per_year.value),
        lambda: case.take(people.staff_fte) * case.take(people.staff_usd_per_year) / MONTHS_PER_YEAR,
    )


LINE = Line(
    name="staff",
    kinds=frozenset({"rent", "buy"}),
    price=price,
    source="full-time equivalents x loaded salary / 12",
)
