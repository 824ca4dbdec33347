"""Bounds and deadlines of one queue, to the token and to the moment (under load: tests/simulation)."""

from math import inf

import pytest

from freehold.gateway.queue.fair_queue import Claim
from freehold.gateway.queue.queue import QueueBounds, RequestQueue, TurnedAway


def offer(
    line: RequestQueue[str], caller: str, *, cost_tokens: int = 10, now_s: float = 0.0, by_s: float = inf
) -> list[tuple[str, str]]:
    """Let a request wait, and return who is turned away and why."""
    flow = line.turns.flow(caller, 1.0, 0)
    claim = Claim(caller, flow, cost_tokens=cost_tokens, arrived_s=now_s, deadline_s=by_s)
    return told(line.offer(claim, now_s))


def told(gone: list[TurnedAway[str]]) -> list[tuple[str, str]]:
    return [(each.claim.owner, each.reason) for each in gone]


def test_tokens_that_wait_beside_the_largest_claim_are_bounded_exactly() -> None:
    line: RequestQueue[str] = RequestQueue(QueueBounds(max_tokens=100))
    assert [offer(line, "a", cost_tokens=cost) for cost in (70, 50, 50)] == [[], [], []]
    assert offer(line, "a", cost_tokens=1) == [("a", "queue_full")]
    assert line.tokens == 170
    assert offer(line, "a", cost_tokens=71) == [("a", "queue_full")]


def test_a_giant_that_waits_takes_nobody_elses_place() -> None:
    line: RequestQueue[str] = RequestQueue(QueueBounds())
    line.begin(line.turns.flow("greedy", 1.0, 0), 500)
    assert offer(line, "greedy", cost_tokens=1_000_000) == []
    assert offer(line, "modest", cost_tokens=8) == []
    assert offer(line, "greedy", cost_tokens=1_000_000) == [("greedy", "queue_full")]
    assert offer(line, "modest", cost_tokens=8) == []


def test_as_many_give_way_as_it_takes_and_none_where_all_were_too_few() -> None:
    line: RequestQueue[str] = RequestQueue(QueueBounds(max_tokens=100))
    assert [offer(line, "greedy", cost_tokens=cost) for cost in (500, 60, 20, 20)] == [[]] * 4
    assert offer(line, "modest", cost_tokens=30) == [("greedy", "pushed_out")] * 2
    assert [claim.cost_tokens for claim in line.turns.flow("greedy", 1.0, 0).newest_first()] == [60, 500]
    assert offer(line, "third", cost_tokens=400) == [("third", "queue_full")]
    assert line.waiting == 3


def test_requests_that_wait_are_bounded_exactly_and_those_under_way_take_no_place() -> None:
    line: RequestQueue[str] = RequestQueue(QueueBounds(max_requests=2))
    for _ in range(5):
        line.begin(line.turns.flow("a", 1.0, 0), 10)
    assert [offer(line, "a") for _ in range(3)] == [[], [], [("a", "queue_full")]]


@pytest.mark.parametrize("without", ["requests", "tokens"])
def test_only_who_has_less_in_a_full_queue_is_given_a_place(without: str) -> None:
    bounds = QueueBounds(max_requests=5) if without == "requests" else QueueBounds(max_tokens=40)
    line: RequestQueue[str] = RequestQueue(bounds)
    assert [offer(line, caller) for caller in "aaabb"] == [[]] * 5
    assert offer(line, "b") == [("b", "queue_full")]  # with it he would have more than the other one without
    assert offer(line, "c") == [("a", "pushed_out")]


def test_a_wait_ends_when_no_time_is_left_for_the_answer() -> None:
    line: RequestQueue[str] = RequestQueue(QueueBounds(max_wait_s=60.0))
    flow = line.turns.flow("a", 1.0, 0)
    for _ in range(4):  # so that it is known how long they take
        line.begin(flow, 10)
        line.end(flow, 10, service_s=2.0, really_tokens=None)
    assert offer(line, "a", by_s=10.0) == []
    assert line.expire(7.9) == []
    assert told(line.expire(8.0)) == [("a", "deadline_passed")]
    assert line.waiting == 0
