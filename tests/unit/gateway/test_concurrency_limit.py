import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.queue.concurrency_limit import LIMIT_MAX, START, ConcurrencyLimit


@dataclass
class Engine:
    """An engine with slots and a queue of its own, behind a gate, on virtual time; always more to do than it can."""

    slots: int
    service_s: float
    known: bool = False
    prefill_s: float = 0.1
    now_s: float = 0.0
    busy: int = 0
    queue: list[float] = field(default_factory=list)
    first_bytes_s: list[tuple[float, float]] = field(default_factory=list)
    in_flight: list[tuple[float, int]] = field(default_factory=list)
    done: int = 0

    def __post_init__(self) -> None:
        self.gate = ConcurrencyLimit(slots=self.slots if self.known else 0)
        self.rng = random.Random(self.slots)
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order: Iterator[int] = itertools.count()

    def at(self, delay_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now_s + delay_s, next(self.order), what))

    def run(self, seconds: float) -> "Engine":
        self.fill()
        while self.events[0][0] < seconds:
            self.now_s, _, what = heapq.heappop(self.events)
            what()
            self.fill()
            self.in_flight.append((self.now_s, self.gate.in_flight))
        return self

    def fill(self) -> None:
        while self.gate.enter(10):
            self.queue.append(self.now_s)
        while self.queue and self.busy < self.slots:
            self.busy += 1
            begins_s = self.prefill_s * self.rng.uniform(0.8, 1.5)
            self.at(begins_s, partial(self.first, self.queue.pop(0)))

    def first(self, sent_s: float) -> None:
        self.first_bytes_s.append((self.now_s, self.now_s - sent_s))
        self.gate.first_byte(self.now_s - sent_s)
        self.at(self.service_s * self.rng.uniform(0.5, 1.5), self.finish)

    def finish(self) -> None:
        self.busy -= 1
        self.done += 1
        self.gate.leave(10, began=True)


@pytest.mark.parametrize(("slots", "service_s"), [(4, 0.5), (8, 2.0), (32, 4.0)])
def test_an_unknown_engine_is_kept_full_and_hardly_more_in_a_lasting_overload(
    slots: int, service_s: float
) -> None:
    seconds = 40 * service_s
    engine = Engine(slots, service_s).run(seconds)
    late = [count for at_s, count in engine.in_flight if at_s > seconds / 2]
    assert sum(late) / len(late) <= 1.5 * slots + 3
    assert engine.done >= 0.9 * slots / (service_s + 1.15 * engine.prefill_s) * seconds


def test_known_slots_are_kept_full_and_never_exceeded() -> None:
    engine = Engine(6, 1.0, known=True).run(60)
    assert max(count for _, count in engine.in_flight) == 6
    assert engine.gate.limit == 6


def test_a_large_engine_that_is_quick_is_found_to_be_large() -> None:
    engine = Engine(10_000, 20.0, prefill_s=0.02).run(8)
    assert engine.gate.in_flight == LIMIT_MAX


def test_while_nobody_awaits_a_first_byte_one_more_may_come() -> None:
    gate = ConcurrencyLimit(slots=0)
    for _ in range(START):
        assert gate.enter(1)
    assert not gate.enter(1)
    for _ in range(START - 1):
        gate._awaited -= 1
    assert not gate.enter(1)
    gate._awaited -= 1
    assert gate.enter(1)
    assert not gate.enter(1)


def test_busy_lowers_the_limit_under_what_was_given() -> None:
    gate = ConcurrencyLimit(slots=10)
    for _ in range(6):
        gate.enter(1)
    gate.busy()
    assert gate.limit == 5
    for _ in range(100):
        gate.busy()
    assert gate.limit == 1


def test_long_prompts_among_short_ones_are_not_taken_for_a_queue() -> None:
    gate, rng = ConcurrencyLimit(slots=64), random.Random(0)
    for _ in range(64):
        gate.enter(1)
    for _ in range(3000):
        gate.first_byte(rng.choice([0.1, 4.0]) * rng.uniform(0.9, 1.1))
        gate._awaited += 1
    assert gate.limit >= 60


@given(costs=st.lists(st.integers(1, 100), max_size=40), slots=st.integers(1, 9), budget=st.integers(1, 200))
def test_no_bound_is_ever_passed_and_an_idle_target_takes_anything(
    costs: list[int], slots: int, budget: int
) -> None:
    gate = ConcurrencyLimit(slots=slots, token_budget=budget)
    here: list[int] = []
    for cost in costs:
        if gate.enter(cost):
            here.append(cost)
        else:
            assert here
            gate.leave(here.pop(0), began=False, whole_s=0.1)
        assert (gate.in_flight, gate.tokens) == (len(here), sum(here))
        assert len(here) <= slots
        assert sum(here) <= budget or len(here) == 1
