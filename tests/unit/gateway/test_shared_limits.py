"""A key's limits over several workers: held by the sum, faded as one, forgotten by none but the dead."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.callers.grant import KeyState
from freehold.gateway.callers.keys import KeyLimits, KeyRecord
from freehold.gateway.callers.shared_limits import SharedAllowance, SharedKeys
from freehold.gateway.counters.shared_counters import SharedCounters
from freehold.ledger.records.money import PICOUSD_PER_USD

WORKERS = 3
TICK_MS = 500


def crew(fd: int) -> list[SharedKeys]:
    return [SharedKeys(SharedCounters(fd, workers=WORKERS, index=index)) for index in range(WORKERS)]


def allowances(fd: int, **limits: Any) -> tuple[list[SharedKeys], list[SharedAllowance]]:
    keys = crew(fd)
    rows = [each._counters.row("key k") for each in keys]
    made = [
        SharedAllowance(each, row, limits=KeyLimits(**limits), now_ms=0)
        for each, row in zip(keys, rows, strict=True)
    ]
    return keys, made


@pytest.fixture
def fd() -> Iterator[int]:
    board = SharedCounters.create(WORKERS)
    yield board.fd
    os.close(board.fd)


def test_requests_are_counted_together(fd: int):
    keys, (one, two, three) = allowances(fd, requests_per_minute=5)
    assert [each.ask(0, 0) for each in (one, two, three, one, two)] == [None] * 5
    over = three.ask(0, 0)
    assert over is not None
    assert (over.limit, over.wait_ms) == ("requests", 12_000)
    assert b"x-ratelimit-remaining-requests: 0\r\n" in three.lines()
    for each in keys:
        each.tick({}, 12_000)
    assert three.ask(0, 12_000) is None
    assert one.ask(0, 12_000) is not None


def test_what_is_given_back_is_given_back_to_all(fd: int):
    _, (one, two, _) = allowances(fd, tokens_per_minute=100)
    assert one.ask(90, 0) is None
    assert two.ask(50, 0) is not None
    one.charge(-60)
    assert two.ask(50, 0) is None


def test_concurrency_is_counted_together_and_a_refusal_takes_nothing(fd: int):
    _, (one, two, three) = allowances(fd, concurrency=2, requests_per_minute=100)
    assert one.ask(0, 0) is None
    assert two.ask(0, 0) is None
    over = three.ask(0, 0)
    assert over is not None
    assert over.limit == "concurrency"
    assert three.in_flight == 0
    one.in_flight -= 1
    assert three.ask(0, 0) is None
    assert b"remaining-requests: 97" in three.lines()


def test_one_that_was_just_started_knows_what_the_others_used(fd: int):
    _, (one, _, _) = allowances(fd, requests_per_minute=5)
    assert [one.ask(0, 0) for _ in range(5)] == [None] * 5
    late = crew(fd)[2]
    newcomer = SharedAllowance(
        late, late._counters.row("key k"), limits=KeyLimits(requests_per_minute=5), now_ms=0
    )
    assert newcomer.ask(0, 100) is not None


@given(st.lists(st.tuples(st.integers(0, WORKERS - 1), st.integers(0, 700)), min_size=50, max_size=300))
def test_the_rate_is_the_limit_and_a_minutes_worth_at_most(asks: list[tuple[int, int]]):
    board = SharedCounters.create(WORKERS)
    keys, made = allowances(board.fd, requests_per_minute=60)
    now_ms = taken = 0
    next_tick_ms = TICK_MS
    for worker, pause_ms in asks:
        now_ms += pause_ms
        while next_tick_ms <= now_ms:
            for each in keys:
                each.tick({}, next_tick_ms)
            next_tick_ms += TICK_MS
        taken += made[worker].ask(0, now_ms) is None
        assert taken <= 60 + now_ms / 1000 + 1
    os.close(board.fd)


def test_work_at_the_limit_goes_on_at_the_limit(fd: int):
    keys, made = allowances(fd, requests_per_minute=600)
    taken = 0
    for now_ms in range(0, 120_000, 20):  # five times the limit, at all workers in turn
        if now_ms % TICK_MS == 0:
            for each in keys:
                each.tick({}, now_ms)
        taken += made[now_ms // 20 % WORKERS].ask(0, now_ms) is None
    assert taken == pytest.approx(600 + 1200, rel=0.02)


def test_a_key_that_is_not_used_any_more_costs_nothing(fd: int):
    (one, *_), (allowance, *_) = allowances(fd, requests_per_minute=60)
    assert allowance.ask(0, 0) is None
    allowance.in_flight -= 1
    assert allowance in one.active
    one.tick({}, 5_000)
    assert not one.active


def callers(keys: list[SharedKeys], months: list[dict[str, int]], **limits: int) -> list[KeyState]:
    record = KeyRecord(id="k", name="k", hash="00" * 32, created_s=0, limits=KeyLimits(**limits))
    made = [KeyState(record, 0) for _ in keys]
    for each, caller, month in zip(keys, made, months, strict=True):
        each.take_over(caller, month, 0)
    return made


def test_budgets_are_held_by_their_sum(fd: int):
    keys = one, two, _ = crew(fd)
    first, second, _ = callers(keys, [{"k": 60}, {}, {}], monthly_tokens=100)
    assert two.spent(second, {"k": 30}) == (90, 0)
    first.reserved = 5
    one.tick({"k": 70}, 500)
    assert two.spent(second, {"k": 30}) == (100, 5)


def test_budgets_in_dollars_are_held_by_their_sum_which_is_rounded_up(fd: int):
    keys = one, two, three = crew(fd)
    months = [{"usd:k": 80 * PICOUSD_PER_USD}, {}, {"usd:k": 1}]
    first, second, third = callers(keys, months, monthly_microusd=100 * 10**6)
    assert two.spent_picousd(second, {"usd:k": 7}) == (80 * PICOUSD_PER_USD + 10**6 + 7, 0)
    first.reserved_picousd = 10**6 + 1
    one.tick(months[0], 500)
    assert three.spent_picousd(third, months[2]) == (80 * PICOUSD_PER_USD + 1, 10**6)
    one.tick({}, 1000)  # another month
    assert three.spent_picousd(third, {})[0] == 0


def test_a_sum_that_is_too_large_is_spent_all_the_same(fd: int):
    keys = one, two, _ = crew(fd)
    _, second, _ = callers(
        keys, [{"k": 10**24, "usd:k": 10**40}, {}, {}], monthly_tokens=1, monthly_microusd=1
    )
    assert two.spent(second, {})[0] > 10**18
    assert two.spent_picousd(second, {})[0] > 10**24
    one.tick({}, 500)
    assert two.spent(second, {}) == two.spent_picousd(second, {}) == (0, 0)


def test_a_key_that_is_gone_leaves_nothing_on_the_board(fd: int):
    keys = one, two, _ = crew(fd)
    first, second, _ = callers(keys, [{"k": 5, "usd:k": 10**6}, {}, {}], monthly_tokens=9, monthly_microusd=9)
    one.forget(first)
    assert two.spent(second, {}) == two.spent_picousd(second, {}) == (0, 0)
    one._counters.look()
    assert not one._counters._rows
