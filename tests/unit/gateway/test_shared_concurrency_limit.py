"""Room over several workers: never over the limit but by those who looked at the same moment."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.counters.shared_counters import SharedCounters
from freehold.gateway.queue import shared_concurrency_limit
from freehold.gateway.queue.shared_concurrency_limit import SharedConcurrencyLimit
from freehold.gateway.queue.token_estimate import TokenEstimate
from freehold.gateway.server.descriptors import CONNECTIONS_MAX
from freehold.gateway.wire import body

WORKERS = 3


def gates(fd: int, *, slots: int, token_budget: int = 0) -> list[SharedConcurrencyLimit]:
    boards = [SharedCounters(fd, workers=WORKERS, index=index) for index in range(WORKERS)]
    return [SharedConcurrencyLimit(b.row("endpoint"), slots=slots, token_budget=token_budget) for b in boards]


@pytest.fixture
def fd() -> Iterator[int]:
    board = SharedCounters.create(WORKERS)
    yield board.fd
    os.close(board.fd)


def test_all_workers_fill_the_same_slots(fd: int):
    one, two, three = gates(fd, slots=4)
    assert [gate.enter(10) for gate in (one, two, three, one, two)] == [True] * 4 + [False]
    assert [gate.present() for gate in (one, two, three)] == [4] * 3
    three.leave(10, began=False)
    assert one.enter(10)
    assert not three.enter(10)


def test_tokens_are_counted_together_and_an_idle_target_takes_any(fd: int):
    one, two, _ = gates(fd, slots=4, token_budget=100)
    assert one.enter(150)
    assert not two.enter(1)
    one.leave(150, began=True)
    assert two.enter(60)
    assert not one.enter(60)
    assert one.enter(40)


def test_with_unknown_slots_one_more_may_come_when_nobody_anywhere_waits_for_a_first_byte(fd: int):
    one, two, _ = gates(fd, slots=0)
    while one.enter(1):
        pass
    assert not two.has_room(1)
    for _ in range(one.in_flight):
        one.first_byte(0.01)
    assert two.enter(1)
    assert not two.has_room(1)


def test_a_cost_beyond_all_bounds_takes_its_place_and_gives_it_back(fd: int):
    one, two, _ = gates(fd, slots=2)
    huge = 10**24
    assert one.enter(huge)
    assert one.present() == two.present() == 1
    one.leave(huge, began=False)
    assert one.present() == two.present() == 0
    assert [two.enter(1) for _ in range(3)] == [True, True, False]


def test_as_many_of_the_largest_requests_as_there_can_be_fit_the_board():
    largest = TokenEstimate().cost_tokens(2**30, body._TOKENS_MOST)
    assert largest < shared_concurrency_limit._COST_MOST
    workers_most = 64  # of `gateway.workers`
    assert shared_concurrency_limit._COST_MOST * CONNECTIONS_MAX * workers_most < 2**63


@given(st.lists(st.tuples(st.integers(0, WORKERS - 1), st.sampled_from(["look", "enter", "leave"]))))
def test_the_bound_when_looking_and_entering_are_apart(steps: list[tuple[int, str]]):
    board = SharedCounters.create(WORKERS)
    slots = 2
    found = gates(board.fd, slots=slots)
    saw_room = [False] * WORKERS
    for worker, what in steps:
        gate = found[worker]
        if what == "look":
            saw_room[worker] = gate.has_room(1)
        elif what == "enter" and saw_room[worker]:
            saw_room[worker] = False
            gate.in_flight += 1
            gate._publish(1, 1, awaited=1)
        elif what == "leave" and gate.in_flight:
            gate.leave(1, began=False)
        assert gate.present() <= slots + WORKERS - 1
    os.close(board.fd)
