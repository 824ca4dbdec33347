"""Routing: the least tokens by limit, ties in turn; homes on the ring within the load bound; retries within a budget."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.endpoints.balance import LOAD_MAX, Ring, choose, choose_by_key
from freehold.gateway.exchange.retry_budget import RetryBudget


@dataclass
class Room:
    limit: int = 4
    tokens: int = 0


@dataclass
class Spot:
    id: str
    gate: Room = field(default_factory=Room)


SPOTS = st.lists(st.tuples(st.integers(1, 16), st.integers(0, 5000)), min_size=1, max_size=8).map(
    lambda rows: [Spot(f"m-{i}", Room(*row)) for i, row in enumerate(rows)]
)
KEYS = st.integers(1, 2**32 - 1)
MANY_KEYS = [number * 2654435761 % 2**32 for number in range(1, 4001)]


def spots(*limits: int) -> list[Spot]:
    return [Spot(f"m-{i}", Room(limit)) for i, limit in enumerate(limits)]


def ring_of(candidates: list[Spot]) -> Ring:
    return Ring({spot.id: spot.gate.limit for spot in candidates})


@given(SPOTS, st.integers(0, 100))
def test_the_choice_has_the_least_tokens_for_its_limit(candidates: list[Spot], turn: int) -> None:
    chosen = choose(candidates, turn=turn)
    assert chosen is not None
    assert chosen.gate.tokens / chosen.gate.limit == min(s.gate.tokens / s.gate.limit for s in candidates)


def test_without_candidates_there_is_no_choice() -> None:
    assert choose([], turn=3) is None


def test_twice_the_slots_take_twice_the_tokens() -> None:
    small, big = both = spots(4, 8)
    for turn in range(1200):
        spot = choose(both, turn=turn)
        assert spot is not None
        spot.gate.tokens += 100
    assert abs(big.gate.tokens - 80_000) <= 200
    assert small.gate.tokens + big.gate.tokens == 120_000


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_ties_go_round(count: int) -> None:
    candidates = spots(*[4] * count)
    chosen = Counter(choose(candidates, turn=turn).id for turn in range(count * 10))  # type: ignore[union-attr]
    assert set(chosen.values()) == {10}


# The ring


@given(SPOTS, KEYS, st.integers(1, 3000))
def test_never_over_the_load_bound_and_always_somebody(candidates: list[Spot], key: int, cost: int) -> None:
    found = choose_by_key(candidates, ring_of(candidates), key=key, cost_tokens=cost)
    assert found is not None
    chosen, at_home = found
    assert at_home == (chosen.id == ring_of(candidates).home(key))
    total = sum(spot.gate.tokens for spot in candidates) + cost
    share = chosen.gate.limit / sum(spot.gate.limit for spot in candidates)
    assert chosen.gate.tokens < LOAD_MAX * total * share


@given(SPOTS, KEYS, st.integers(1, 3000))
def test_the_first_on_the_ring_within_the_bound_is_chosen(
    candidates: list[Spot], key: int, cost: int
) -> None:
    ring = ring_of(candidates)
    found = choose_by_key(candidates, ring, key=key, cost_tokens=cost)
    assert found is not None
    chosen, at_home = found
    assert at_home == (chosen.id == ring.home(key))
    bound = LOAD_MAX * (sum(s.gate.tokens for s in candidates) + cost) / sum(s.gate.limit for s in candidates)
    order = list(ring.walk(key))
    assert order[0] == ring.home(key)
    assert sorted(order) == sorted(spot.id for spot in candidates)
    before = {spot.id: spot for spot in candidates if spot.id in order[: order.index(chosen.id)]}
    assert all(spot.gate.tokens >= bound * spot.gate.limit for spot in before.values())


@given(SPOTS, KEYS, st.integers(1, 3000), st.integers(0, 3000))
def test_only_the_home_may_carry_more_and_only_the_prompt(
    candidates: list[Spot], key: int, cost: int, prompt: int
) -> None:
    ring = ring_of(candidates)
    found = choose_by_key(candidates, ring, key=key, cost_tokens=cost, prompt_tokens=prompt)
    assert found is not None
    chosen, at_home = found
    assert at_home == (chosen.id == ring.home(key))
    total = sum(spot.gate.tokens for spot in candidates) + cost
    bound = LOAD_MAX * total * chosen.gate.limit / sum(spot.gate.limit for spot in candidates)
    assert chosen.gate.tokens < bound + (prompt if chosen.id == ring.home(key) else 0)


@given(st.integers(2, 8), KEYS)
def test_an_idle_home_takes_its_conversation_and_the_next_does_where_the_home_is_not_there(
    count: int, key: int
) -> None:
    candidates = spots(*[4] * count)
    ring = ring_of(candidates)
    order = list(ring.walk(key))
    for gone in range(count):
        left = [spot for spot in candidates if spot.id not in order[:gone]]
        found = choose_by_key(left, ring, key=key, cost_tokens=7)
        assert found is not None
        chosen, at_home = found
        assert at_home == (chosen.id == ring.home(key))
        assert chosen.id == order[gone]


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_who_joins_or_leaves_moves_only_his_share(count: int) -> None:
    slots = {f"m-{i}": 4 for i in range(count)}
    small, big = Ring(slots), Ring(slots | {f"m-{count}": 4})
    moved = [key for key in MANY_KEYS if small.home(key) != big.home(key)]
    assert {big.home(key) for key in moved} == {f"m-{count}"}
    assert 0.6 / (count + 1) < len(moved) / len(MANY_KEYS) < 1.5 / (count + 1)


@pytest.mark.parametrize("slots", [(4, 4), (4, 4, 4, 4), (4, 8), (0, 4), (0, 0), (1, 8)])
def test_every_endpoint_is_home_to_its_share(slots: tuple[int, ...]) -> None:
    ring = Ring({f"m-{i}": count for i, count in enumerate(slots)})
    homes = Counter(ring.home(key) for key in MANY_KEYS)
    known = [count or max(slots) or 1 for count in slots]
    for i, count in enumerate(known):
        share = count / sum(known)
        assert 0.6 * share < homes[f"m-{i}"] / len(MANY_KEYS) < 1.5 * share


def test_the_ring_is_the_same_in_every_process() -> None:
    ring = Ring({"m-0": 4, "m-1": 4, "m-2": 4})
    assert [ring.home(key) for key in (1, 10**9, 2 * 10**9, 3 * 10**9, 4 * 10**9)] == [
        "m-1",
        "m-2",
        "m-1",
        "m-1",
        "m-0",
    ]


# The budget


STEPS = st.lists(
    st.one_of(st.just("earn"), st.just("spend"), st.floats(0, 30).map(lambda s: round(s, 3))), max_size=300
)


@given(STEPS)
def test_retries_stay_within_the_budget_on_any_course_of_events(steps: list[str | float]) -> None:
    now_s, requests, retries = 5.0, 0, 0
    budget = RetryBudget(now_s)
    for step in steps:
        if step == "earn":
            budget.requests += 1
            requests += 1
        elif step == "spend":
            retries += budget.spend(now_s)
        else:
            now_s += float(step)
    assert retries <= 100 + 0.2 * requests + 10 * (now_s - 5.0) + 1e-6


def test_a_storm_of_failures_is_retried_a_fifth_as_often_as_it_asks_and_ten_times_a_second() -> None:
    budget, retries = RetryBudget(0.0), 0
    for number in range(10_000):  # 1000 requests a second for ten seconds, every one failing
        budget.requests += 1
        retries += budget.spend(number / 1000)
    assert 2100 <= retries <= 2201


def test_the_budget_keeps_no_more_than_its_bound_and_recovers() -> None:
    budget = RetryBudget(0.0)
    assert sum(budget.spend(1000.0) for _ in range(1000)) == 100
    assert not budget.spend(1000.0)
    assert budget.spend(1000.25)
    assert "1.5 left" in repr(budget)
