"""Bounds and deadlines of one queue, to the token and to the moment (under load: tests/simulation)."""

from math import inf

import pytest

from freehold.gateway.admit import Bounds, Line, Turned
from freehold.gateway.fair import Claim


def offer(
    line: Line[str], caller: str, *, cost_tokens: int = 10, now_s: float = 0.0, by_s: float = inf
) -> list[tuple[str, str]]:
    """Let a request wait, and return who is turned away and why."""
    flow = line.turns.flow(caller, 1.0, 0)
    claim = Claim(caller, flow, cost_tokens=cost_tokens, arrived_s=now_s, deadline_s=by_s)
    return told(line.offer(claim, now_s))


def told(gone: list[Turned[str]]) -> list[tuple[str, str]]:
    return [(each.claim.owner, each.reason) for each in gone]


def test_tokens_that_wait_are_bounded_exactly() -> None:
    line: Line[str] = Line(Bounds(max_tokens=100))
    assert [offer(line, "a", cost_tokens=cost) for cost in (50, 50)] == [[], []]
    assert offer(line, "a", cost_tokens=1) == [("a", "queue_full")]
    assert line.tokens == 100


def test_requests_are_bounded_exactly() -> None:
    line: Line[str] = Line(Bounds(max_requests=3))
    line.begin(line.turns.flow("a", 1.0, 0), 10)
    assert [offer(line, "a") for _ in range(3)] == [[], [], [("a", "queue_full")]]


@pytest.mark.parametrize("without", ["requests", "tokens"])
def test_only_who_has_less_in_a_full_queue_is_given_a_place(without: str) -> None:
    bounds = Bounds(max_requests=5) if without == "requests" else Bounds(max_tokens=50)
    line: Line[str] = Line(bounds)
    assert [offer(line, caller) for caller in "aaabb"] == [[]] * 5
    assert offer(line, "b") == [("b", "queue_full")]  # with it he would have more than the other one without
    assert offer(line, "c") == [("a", "pushed_out")]


def test_a_wait_ends_when_no_time_is_left_for_the_answer() -> None:
    line: Line[str] = Line(Bounds(max_wait_s=60.0))
    flow = line.turns.flow("a", 1.0, 0)
    for _ in range(4):  # so that it is known how long they take
        line.begin(flow, 10)
        line.end(flow, 10, service_s=2.0, really_tokens=None)
    assert offer(line, "a", by_s=10.0) == []
    assert line.expire(7.9) == []
    assert told(line.expire(8.0)) == [("a", "deadline_passed")]
    assert line.waiting == 0
