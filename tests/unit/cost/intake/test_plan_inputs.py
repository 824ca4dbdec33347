"""What flags say of people holds for rented machines too."""

from datetime import date

import pytest

from freehold.catalog.load import load_catalog
from freehold.core.spread import Spread
from freehold.cost.intake.flags import FlagReader
from freehold.cost.intake.plan_flags import PlanAsk
from freehold.cost.intake.plan_inputs import assumptions


def people(**said: float) -> tuple[tuple[str, float, bool], tuple[str, float, bool]]:
    catalog = load_catalog(today=date(2026, 11, 27), overlays=()).catalog
    assert catalog is not None
    ask = PlanAsk(assumptions={name: Spread.exactly(value) for name, value in said.items()})
    own, rent = assumptions(ask, catalog, FlagReader())
    assert own
    assert rent
    one, other = ((each.name, each.value.mid, each.asked) for each in (own.staff_fte, rent.staff_fte))
    return one, other


def test_people_that_were_said_are_those_of_the_fleet_rented_or_bought():
    assert people(staff_fte=0.7) == (("staff_fte", 0.7, True), ("staff_fte", 0.7, True))


def test_people_of_a_rental_can_be_said_by_themselves():
    assert people(staff_fte=0.7, rent_staff_fte=0.2)[1] == ("rent_staff_fte", 0.2, True)
    assert people(rent_staff_fte=0.2)[0] == ("staff_fte", pytest.approx(0.25), False)


def test_nobody_said_it():
    own, rent = people()
    assert (own[0], rent[0]) == ("staff_fte", "rent_staff_fte")
    assert not own[2]
    assert not rent[2]
