"""Grants: what a request was given, corrected when its usage is known, whatever order things end in."""

import re

import pytest

from freehold.gateway.callers.grant import Grant, KeyState
from freehold.gateway.callers.keys import KeyLimits, KeyRecord
from freehold.gateway.callers.rate_limits import Over


def caller(**limits: int) -> KeyState:
    return KeyState(KeyRecord(id="k", name="n", hash="0" * 64, created_s=0, limits=KeyLimits(**limits)), 0)


def granted(one: KeyState, tokens: int, month: dict[str, int] | None = None) -> Grant:
    assert one.allowance.ask(tokens, 0) is None
    return one.grant(tokens, month)


def left(one: KeyState) -> int:
    found = re.search(rb"remaining-tokens: (\d+)", one.allowance.lines())
    assert found
    return int(found[1])


def test_settling_replaces_what_was_reserved():
    one, month = caller(tokens_per_minute=1000), {"k": 5}
    grant = granted(one, 600, month)
    assert (month["k"], one.reserved) == (605, 600)
    grant.settle(100)
    assert (month["k"], one.reserved, left(one)) == (105, 0, 900)
    grant.settle(150)  # a better count
    grant.end(200, 1000, asked=True)
    assert (month["k"], left(one), one.allowance.in_flight) == (155, 850, 0)


def test_settling_after_the_end_is_as_good():
    one, month = caller(tokens_per_minute=1000), {}
    grant = granted(one, 600, month)
    grant.end(200, 1000, asked=True)
    assert (month["k"], one.reserved, one.allowance.in_flight) == (600, 0, 0)
    grant.settle(900)
    assert (month["k"], left(one)) == (900, 100)


@pytest.mark.parametrize(
    ("status", "answer_bytes", "charged"),
    [
        (200, 10, 300),
        (200, 0, 300),
        (400, 0, 0),
        (503, 0, 0),
        (504, 0, 0),
        (499, 0, 300),
        (499, 9, 300),
        (502, 9, 300),
    ],
)
def test_an_answer_that_never_came_costs_no_tokens(status: int, answer_bytes: int, charged: int):
    one, month = caller(tokens_per_minute=1000, concurrency=1), {}
    granted(one, 300, month).end(status, answer_bytes, asked=True)
    assert (month["k"], left(one), one.allowance.in_flight, one.reserved) == (charged, 1000 - charged, 0, 0)


@pytest.mark.parametrize("status", [499, 503, 504])
def test_a_request_that_no_engine_saw_costs_nothing_at_all(status: int):
    one, month = caller(requests_per_minute=2, tokens_per_minute=1000), {}
    for _ in range(5):
        granted(one, 300, month).end(status, 0, asked=False)
    assert (month["k"], left(one), one.allowance.in_flight, one.reserved) == (0, 1000, 0, 0)
    assert b"remaining-requests: 2\r\n" in one.allowance.lines()


def test_what_the_meter_said_stands_also_when_the_answer_failed():
    one, month = caller(tokens_per_minute=1000), {}
    grant = granted(one, 300, month)
    grant.settle(40)
    grant.end(502, 0, asked=True)
    assert month["k"] == 40


@pytest.mark.parametrize(("answer_tokens", "charged"), [(0, 10), (7, 17), (290, 300), (5000, 300)])
def test_an_estimate_never_charges_more_than_was_reserved(answer_tokens: int, charged: int):
    one, month = caller(tokens_per_minute=1000), {}
    grant = granted(one, 300, month)
    grant.learn(None, answer_tokens, 40)
    assert (month["k"], left(one)) == (charged, 1000 - charged)


def test_a_request_settles_in_the_month_that_it_began_in():
    one, november, december = caller(monthly_tokens=1000), {"k": 0}, {"k": 7}
    grant = granted(one, 300, november)
    grant.settle(10)
    assert (november, december) == ({"k": 10}, {"k": 7})


def test_a_changed_record_keeps_what_is_under_way():
    one = caller(concurrency=1)
    grant = granted(one, 0)
    one.change(KeyRecord(id="k", name="n", hash="0" * 64, created_s=0, limits=KeyLimits(concurrency=2)), 0)
    assert one.allowance.in_flight == 1
    second = granted(one, 0)
    assert one.allowance.ask(0, 0) == Over("concurrency")
    grant.end(200, 1, asked=True)
    second.end(200, 1, asked=True)
    assert one.allowance.in_flight == 0


def test_what_a_caller_may_use():
    record = KeyRecord(id="k", name="n", hash="0" * 64, created_s=0, limits=KeyLimits(models=("a", "b")))
    one = KeyState(record, 0)
    assert [one.may_use(name) for name in ("a", "b", "c")] == [True, True, False]
    assert not one.limited
    assert caller().may_use("anything")
    assert [caller(**{name: 1}).limited for name in KeyLimits.__struct_fields__[:4]] == [True] * 4
