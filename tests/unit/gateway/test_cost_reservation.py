"""Dollar budgets of keys: a reservation is no spending, a cost that stays unknown is, and the two are told apart."""

import pytest

from freehold.gateway.callers.grant import CostReservation, Grant, KeyState, over_usd
from freehold.gateway.callers.keys import KeyLimits, KeyRecord
from freehold.gateway.callers.rate_limits import Over

BUDGET = 1_000_000
"""Pico-dollars: one micro-dollar."""


def a_caller(name: str = "k") -> KeyState:
    limits = KeyLimits(monthly_microusd=1)
    return KeyState(KeyRecord(id=name, name="n", hash="0" * 64, created_s=0, limits=limits), 0)


def granted(caller: KeyState, month: dict[str, int], reserved_picousd: int) -> Grant:
    assert caller.allowance.ask(0, 0) is None
    grant = caller.grant(0, None)
    grant.cost = CostReservation(caller, month, reserved_picousd=reserved_picousd)
    return grant


def over(caller: KeyState, month: dict[str, int]) -> str | None:
    found = over_usd(month.get(f"usd:{caller.id}", 0), caller.reserved_picousd, budget_microusd=1)
    return None if found is None else found.limit


def test_a_bill_takes_its_reservation_back():
    caller, month = a_caller(), {"k": 7}
    bill = CostReservation(caller, month, reserved_picousd=BUDGET)
    assert over(caller, month) == "usd_reserved"
    bill.settle(BUDGET - 1)
    assert over(caller, month) is None
    bill.settle(BUDGET)  # a better count
    assert over(caller, month) == "usd"
    assert month == {"k": 7, "usd:k": BUDGET}
    assert over(a_caller("other"), month) is None


def test_what_is_only_reserved_is_not_spent():
    assert over_usd(9 * BUDGET, 8 * BUDGET, budget_microusd=1) == Over("usd")
    assert over_usd(9 * BUDGET, 8 * BUDGET + 1, budget_microusd=1) == Over("usd_reserved")
    assert over_usd(BUDGET - 1, BUDGET - 1, budget_microusd=1) is None


def test_a_cost_that_stays_unknown_is_spent_as_it_was_reserved():
    caller, month = a_caller(), {}
    grant = granted(caller, month, BUDGET)
    grant.end(200, 10, asked=True)
    assert (over(caller, month), caller.reserved_picousd, month) == ("usd", 0, {"usd:k": BUDGET})


@pytest.mark.parametrize("status", [499, 503, 504])
def test_a_request_that_no_engine_saw_costs_nothing(status: int):
    caller, month = a_caller(), {}
    granted(caller, month, BUDGET).end(status, 0, asked=False)
    assert (over(caller, month), caller.reserved_picousd, month) == (None, 0, {"usd:k": 0})
