"""Turns between workers: in proportion to who waits where, priorities first, nobody for ever."""

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from freehold.gateway.counters.shared_counters import SharedCounters
from freehold.gateway.queue.fair_queue import Claim, FairQueue
from freehold.gateway.queue.worker_fairness import WorkerTurn

COST = 100


class Worker:
    """A queue of one worker, as far as turns go."""

    def __init__(self, fd: int, index: int) -> None:
        self.turns: FairQueue[str] = FairQueue()
        self.turn = WorkerTurn(SharedCounters(fd, workers=2, index=index), "m")
        self.served: Counter[str] = Counter()

    def wait(self, caller: str, count: int, *, priority: int = 0) -> None:
        for _ in range(count):
            flow = self.turns.flow(caller, 1.0, priority)
            self.turns.put(Claim(caller, flow, cost_tokens=COST, arrived_s=0, deadline_s=9e9))
        self.tell()

    def tell(self) -> None:
        waiting = sum(flow.waiting for flow in self.turns.waiting())
        claim = self.turns.next()
        if claim is not None:
            self.turn.next_is(claim.flow.priority)
        self.turn.publish(waiting, 0, waiting * COST)
        self.turn.weigh(self.turns)

    def start(self) -> bool:
        claim = self.turns.next()
        if claim is None:
            return False
        self.turn.next_is(claim.flow.priority)
        if self.turn.holder() >= 0:
            return False
        self.turns.take(claim)
        self.served[claim.owner] += 1
        self.turn.started(COST)
        self.wait(claim.owner, 1, priority=claim.flow.priority)  # who was served asks again
        return True


@pytest.fixture
def pair() -> Iterator[tuple[Worker, Worker]]:
    board = SharedCounters.create(2)
    yield Worker(board.fd, 0), Worker(board.fd, 1)
    os.close(board.fd)


def run(pair: tuple[Worker, Worker], starts: int) -> Counter[str]:
    for _ in range(starts):
        assert any(worker.start() for worker in pair), "somebody's turn it must be"
    return pair[0].served + pair[1].served


def test_one_caller_is_served_where_it_waits_most(pair: tuple[Worker, Worker]):
    one, two = pair
    one.wait("a", 30)
    two.wait("a", 10)
    run(pair, 400)
    assert one.served["a"] / two.served["a"] == pytest.approx(3, rel=0.15)


def test_two_callers_get_the_same_wherever_their_connections_are(pair: tuple[Worker, Worker]):
    one, two = pair
    one.wait("greedy", 20)
    two.wait("greedy", 20)
    one.wait("modest", 2)
    served = run(pair, 600)
    assert served["modest"] / served["greedy"] == pytest.approx(1, rel=0.1)


def test_three_at_one_worker_and_one_at_the_other(pair: tuple[Worker, Worker]):
    one, two = pair
    for caller in "abc":
        one.wait(caller, 2)
    two.wait("greedy", 50)
    served = run(pair, 800)
    assert served["greedy"] / sum(served.values()) == pytest.approx(1 / 4, rel=0.1)


def test_more_urgent_goes_first_wherever_it_waits_and_the_rest_is_not_starved(pair: tuple[Worker, Worker]):
    one, two = pair
    one.wait("late", 5, priority=5)
    two.wait("soon", 5, priority=-5)
    served = run(pair, 330)
    assert 300 <= served["soon"] < 330
    assert served["late"] >= 8


def test_who_comes_back_has_neither_credit_nor_debt(pair: tuple[Worker, Worker]):
    one, two = pair
    one.wait("a", 4)
    run(pair, 100)
    two.wait("b", 4)
    before = one.served["a"]
    run(pair, 100)
    assert one.served["a"] - before == pytest.approx(50, abs=5)


def test_turns_begin_anew_when_nobody_waits_any_more(pair: tuple[Worker, Worker]):
    """So that virtual time, a whole number with an end, is spent by one crowd and not by all that ever came."""
    one, two = pair
    one.turn.publish(1, 0, COST)
    for _ in range(20):
        one.turn.started(10**18)
    one.turn.publish(0, 0, 0)
    two.wait("b", 4)
    one.wait("a", 4)
    served = run(pair, 100)
    assert served["a"] == pytest.approx(50, abs=5)


def test_one_that_does_not_take_its_turn_is_passed_over_until_it_starts(pair: tuple[Worker, Worker]):
    one, two = pair
    one.wait("a", 2)
    two.wait("b", 2)
    assert two.turn.holder() == 0
    two.turn.pass_over(0)
    assert two.turn.holder() == -1
    assert one.start()
    assert two.turn.next_other() == 0
