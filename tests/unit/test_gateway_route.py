"""Routing: the least loaded by slots, ties in turn, suspects last but never out; retries within a budget."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.route import RetryBudget, choose, suspicion_s

NOW_S = 1000.0


@dataclass
class Spot:
    id: str
    in_flight: int = 0
    slots: int = 0
    suspect_until_s: float = 0.0


SPOTS = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 4), st.sampled_from([0.0, NOW_S, NOW_S + 1, NOW_S + 5])), max_size=6
).map(lambda rows: [Spot(f"m-{i}", *row) for i, row in enumerate(rows)])  # fmt: skip


@given(SPOTS, st.integers(0, 100), st.sets(st.integers(0, 5)))
def test_the_choice_is_the_best_of_those_not_tried(spots: list[Spot], turn: int, tried: set[int]) -> None:
    ids = {f"m-{i}" for i in tried}
    left = [spot for spot in spots if spot.id not in ids]
    chosen = choose(spots, NOW_S, turn=turn, tried=ids)
    if not left:
        assert chosen is None
        return
    assert chosen in left
    trusted = [spot for spot in left if spot.suspect_until_s <= NOW_S]
    if trusted:
        assert chosen in trusted
        assert chosen.in_flight / (chosen.slots or 1) == min(s.in_flight / (s.slots or 1) for s in trusted)
    else:
        assert chosen.suspect_until_s == min(spot.suspect_until_s for spot in left)


def test_twice_the_slots_take_twice_the_requests() -> None:
    spots = [Spot("small", slots=4), Spot("big", slots=8)]
    for turn in range(1200):
        spot = choose(spots, NOW_S, turn=turn)
        assert spot is not None
        spot.in_flight += 1
    assert abs(spots[1].in_flight - 800) <= 2


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_ties_go_round(count: int) -> None:
    spots = [Spot(f"m-{i}", slots=4) for i in range(count)]
    chosen = Counter(choose(spots, NOW_S, turn=turn).id for turn in range(count * 10))  # type: ignore[union-attr]
    assert set(chosen.values()) == {10}


def test_a_suspect_comes_last_and_is_still_tried_when_it_is_all_there_is() -> None:
    busy, suspect = Spot("busy", in_flight=99), Spot("idle but suspect", suspect_until_s=NOW_S + 1)
    assert choose([suspect, busy], NOW_S, turn=0) is busy
    assert choose([suspect, busy], NOW_S, turn=0, tried={"busy"}) is suspect
    assert choose([suspect, busy], NOW_S + 1, turn=0) is suspect


def test_suspicion_doubles_to_a_bound() -> None:
    assert [suspicion_s(n) for n in (1, 2, 3, 4, 5, 1000)] == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


STEPS = st.lists(
    st.one_of(st.just("earn"), st.just("spend"), st.floats(0, 30).map(lambda s: round(s, 3))), max_size=300
)


@given(STEPS)
def test_retries_stay_within_the_budget_on_any_course_of_events(steps: list[str | float]) -> None:
    now_s, requests, retries = 5.0, 0, 0
    budget = RetryBudget(now_s)
    for step in steps:
        if step == "earn":
            budget.earn()
            requests += 1
        elif step == "spend":
            retries += budget.spend(now_s)
        else:
            now_s += float(step)
    assert retries <= 100 + 0.2 * requests + 10 * (now_s - 5.0) + 1e-6


def test_a_storm_of_failures_is_retried_a_fifth_as_often_as_it_asks_and_ten_times_a_second() -> None:
    budget, retries = RetryBudget(0.0), 0
    for number in range(10_000):  # 1000 requests a second for ten seconds, every one failing
        budget.earn()
        retries += budget.spend(number / 1000)
    assert 2100 <= retries <= 2201


def test_the_budget_keeps_no_more_than_its_bound_and_recovers() -> None:
    budget = RetryBudget(0.0)
    assert sum(budget.spend(1000.0) for _ in range(1000)) == 100
    assert not budget.spend(1000.0)
    assert budget.spend(1000.25)
    assert "1.5 left" in repr(budget)
