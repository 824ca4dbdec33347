"""Which request is the cause of a crash, on a clock of the test's own: reports, retries and blocked bodies."""

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from freehold.core.events import EngineEnd
from freehold.engines.base import ExitKind
from freehold.gateway.counters.shared_counters import SharedCounters
from freehold.gateway.exchange.crash_retry import CrashRetry
from freehold.gateway.exchange.quarantine import LARGE_BYTES, Quarantine
from freehold.gateway.exchange.shared_quarantine import SharedQuarantine
from freehold.gateway.wire.errors import Rejection


class Clock:
    """A loop whose time passes when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._number = count()

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay: float, callback: Callable[[], object]) -> Any:
        heappush(self._due, (self.now_s + delay, next(self._number), callback))

    def pass_s(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self._due and self._due[0][0] <= until_s:
            self.now_s, _, callback = heappop(self._due)
            callback()
        self.now_s = until_s


@dataclass(eq=False)
class Model:
    ready: int = 2
    entry: Any = field(default_factory=lambda: SimpleNamespace(name="m"))
    admission: Any = field(
        default_factory=lambda: SimpleNamespace(line=SimpleNamespace(bounds=SimpleNamespace(max_wait_s=20.0)))
    )

    def standing(self, _now_s: float) -> int:
        return self.ready


@dataclass(eq=False)
class Asked:
    model: Any
    started_s: float
    text: bytes = b"{}"
    caller: str = ""
    done: bool = False
    saw_crash: bool = False
    moves: int = 0
    rejection: str = ""
    attempt: Any = None

    @property
    def request(self) -> Any:
        return SimpleNamespace(body=self.text, request_id=f"r{self.started_s}")

    def move_on(self) -> None:
        self.moves += 1
        self.attempt = SimpleNamespace(holds_place=True, heard_s=1e9, head=None)

    def no_other_target(self) -> None:
        self.done, self.rejection = True, "engine_failed"

    def reject_here(self, rejection: Rejection) -> None:
        self.done, self.rejection = True, rejection.error.code or ""

    def answered(self) -> None:
        self.saw_crash, self.done = False, True


class Stage:
    """A crash retry with its clock, reports and model."""

    def __init__(self) -> None:
        self.clock, self.model, self.quarantine = Clock(), Model(), Quarantine()
        self.ends: list[EngineEnd] = []
        self.retry = CrashRetry(self.clock, lambda: tuple(self.ends), self.quarantine)

    def asked(self, *bodies: bytes, caller: str = "") -> list[Any]:
        return [Asked(self.model, float(at), body, caller) for at, body in enumerate(bodies)]

    def leave(self, request: Any, *, replica: str = "m-0", others: int = 0) -> None:
        """Let a client leave while an engine works for it."""
        gate = SimpleNamespace(in_flight=0, present=lambda: others)
        endpoint, engine = SimpleNamespace(incarnation=3), SimpleNamespace(managed=True)
        target: Any = SimpleNamespace(id=replica, endpoint=endpoint, gate=gate, engine=engine)
        self.retry.leaves(request, target)
        request.done = True

    def crash(self, *, replica: str = "m-0") -> None:
        self.ends = [EngineEnd(id=replica, incarnation=3, kind=ExitKind.CRASHED)]
        self.clock.pass_s(0.06)

    def lose(self, requests: list[Any], kind: str, *, replica: str = "m-0", others: int = 0) -> None:
        """Let an engine end under requests; an empty kind: no report comes."""
        gate = SimpleNamespace(in_flight=len(requests), present=lambda: len(requests) + others)
        endpoint = SimpleNamespace(incarnation=3)
        target: Any = SimpleNamespace(
            id=replica, endpoint=endpoint, gate=gate, engine=SimpleNamespace(managed=True)
        )
        for request in requests:
            assert self.retry.takes(request, target)
        if kind:
            self.ends = [EngineEnd(id=replica, incarnation=3, kind=kind)]
        self.clock.pass_s(0.06)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_request_alone_at_an_engine_that_crashes_is_the_cause_and_its_body_is_blocked_for_ten_minutes(
    stage: Stage,
) -> None:
    (request,) = stage.asked(b'{"a":1}')
    stage.lose([request], ExitKind.CRASHED)
    assert (request.rejection, request.moves) == ("engine_crashed", 0)
    now_s = stage.clock.now_s
    refused = stage.quarantine.refuse("m", request.text, now_s + 599)
    assert refused is not None
    assert (refused.error.status, refused.error.code) == (400, "request_quarantined")
    assert stage.quarantine.refuse("m", b'{"a":2}', now_s) is None
    assert stage.quarantine.refuse("n", request.text, now_s) is None
    assert stage.quarantine.refuse("m", request.text, now_s + 601) is None


@pytest.mark.parametrize("kind", [ExitKind.KILLED, ExitKind.STOPPED, ExitKind.PORT_IN_USE])
def test_an_end_that_came_from_outside_lets_all_move_at_once(kind: str, stage: Stage) -> None:
    requests = stage.asked(b"{}", b"{}")
    stage.lose(requests, kind)
    assert [each.moves for each in requests] == [1, 1]
    assert not stage.quarantine.refuse("m", b"{}", stage.clock.now_s)


def test_without_a_report_they_move_after_half_a_second(stage: Stage) -> None:
    requests = stage.asked(b"{}")
    stage.lose(requests, "")
    assert requests[0].moves == 0
    stage.clock.pass_s(0.5)
    assert requests[0].moves == 1


def test_a_report_of_an_earlier_process_is_not_taken_for_this_ones(stage: Stage) -> None:
    stage.ends = [EngineEnd(id="m-0", incarnation=2, kind=ExitKind.CRASHED)]
    requests = stage.asked(b"{}")
    stage.lose(requests, "")
    stage.clock.pass_s(0.5)
    assert requests[0].moves == 1


def test_requests_are_retried_one_by_one_and_the_last_is_the_cause_if_the_others_are_answered(
    stage: Stage,
) -> None:
    first, second, shaped = stage.asked(b"{}", b"{}", b'{"grammar":"x"}')
    shaped.started_s = 0.0  # it came first, and is the last one to be asked
    first.started_s = 1.0
    second.started_s = 2.0
    stage.lose([first, shaped, second], ExitKind.CRASHED)
    assert [first.moves, second.moves, shaped.moves] == [1, 0, 0]
    first.answered()
    stage.clock.pass_s(0.06)
    assert [first.moves, second.moves, shaped.moves] == [1, 1, 0]
    second.answered()
    stage.clock.pass_s(0.06)
    assert (shaped.rejection, shaped.moves) == ("engine_crashed", 0)


def test_a_retry_that_crashes_another_engine_is_the_cause_and_the_others_are_released(stage: Stage) -> None:
    first, second, third = stage.asked(b"{}", b"{}", b"{}")
    stage.lose([first, second, third], ExitKind.CRASHED)
    (passer_by,) = stage.asked(b"{}")
    stage.lose([first, passer_by], ExitKind.OUT_OF_MEMORY, replica="m-1")
    assert first.rejection == "engine_crashed"
    assert [second.moves, third.moves, passer_by.moves] == [1, 1, 1]


def test_no_retry_gets_the_last_ready_engine(stage: Stage) -> None:
    requests = stage.asked(b"{}", b"{}")
    stage.model.ready = 1
    stage.lose(requests, ExitKind.CRASHED)
    stage.clock.pass_s(5)
    assert [each.moves for each in requests] == [0, 0]
    stage.model.ready = 2
    stage.clock.pass_s(0.06)
    assert [each.moves for each in requests] == [1, 0]


def test_retries_that_found_no_engine_in_time_are_rejected_and_not_blocked(stage: Stage) -> None:
    requests = stage.asked(b"{}", b"{}")
    stage.model.ready = 1
    stage.lose(requests, ExitKind.CRASHED)
    stage.clock.pass_s(20.1)
    assert [each.rejection for each in requests] == ["engine_failed"] * 2


def test_if_a_client_has_left_the_last_request_is_retried_too(stage: Stage) -> None:
    first, second, third = stage.asked(b"{}", b"{}", b"{}")
    stage.lose([first, second, third], ExitKind.CRASHED)
    second.done = True  # its client left
    first.answered()
    stage.clock.pass_s(0.06)
    assert (third.rejection, third.moves) == ("", 1)


def test_requests_of_other_workers_may_be_the_cause_as_well(stage: Stage) -> None:
    (request,) = stage.asked(b"{}")
    stage.lose([request], ExitKind.CRASHED, others=1)
    assert (request.rejection, request.moves) == ("", 1)


def test_a_caller_that_has_just_ended_an_engine_is_the_first_cause_and_gets_no_last_engine(
    stage: Stage,
) -> None:
    (deadly,) = stage.asked(b'{"a":1}', caller="mallory")
    stage.lose([deadly], ExitKind.CRASHED)
    (again,) = stage.asked(b'{"a":2}', caller="mallory")
    (other,) = stage.asked(b"{}", caller="anna")
    stage.model.ready = 1
    assert stage.quarantine.bars(again, stage.clock.now_s)
    assert not stage.quarantine.bars(other, stage.clock.now_s)
    stage.lose([other, again], ExitKind.CRASHED, replica="m-1")
    assert (again.rejection, other.moves) == ("engine_crashed", 1)
    stage.clock.pass_s(599)
    assert stage.quarantine.bars(again, stage.clock.now_s)
    stage.clock.pass_s(2)
    assert not stage.quarantine.bars(again, stage.clock.now_s)
    stage.quarantine.tidy(stage.clock.now_s + 600)
    assert repr(stage.quarantine) == "<Quarantine 0 hashes, 0 bodies>"


def test_a_request_that_left_alone_before_its_engine_crashed_is_the_cause(stage: Stage) -> None:
    (left,) = stage.asked(b'{"a":1}', caller="mallory")
    stage.leave(left)
    stage.clock.pass_s(2.5)
    stage.crash()
    assert stage.quarantine.refuse("m", left.text, stage.clock.now_s)
    (again,) = stage.asked(b'{"a":2}', caller="mallory")
    stage.model.ready = 1
    assert stage.quarantine.bars(again, stage.clock.now_s)


@pytest.mark.parametrize("how", ["two left", "large", "of other workers", "too long ago", "beside another"])
def test_of_a_request_that_left_and_may_have_been_the_cause_only_the_sender_is_remembered(
    how: str, stage: Stage
) -> None:
    body = b'{"a":1}' + b" " * LARGE_BYTES * (how == "large")
    left, beside = stage.asked(body, b"{}", caller="mallory")
    stage.leave(left, others=how == "of other workers")
    if how == "two left":
        stage.leave(beside)
    stage.clock.pass_s(4.0 if how == "too long ago" else 1.0)
    if how == "beside another":
        (other,) = stage.asked(b'{"b":1}', caller="anna")
        stage.lose([other], ExitKind.CRASHED)
        assert (other.rejection, other.moves) == ("", 1)
    else:
        stage.crash()
    assert not stage.quarantine.refuse("m", left.text, stage.clock.now_s)
    (again,) = stage.asked(b'{"a":2}', caller="mallory")
    stage.model.ready = 1
    assert stage.quarantine.bars(again, stage.clock.now_s) is (how != "too long ago")


def test_a_known_sender_that_left_is_the_cause_and_not_what_runs_beside_it(stage: Stage) -> None:
    first, second = stage.asked(b'{"a":1}', b'{"a":2}', caller="mallory")
    stage.leave(first)
    stage.crash()
    stage.leave(second, replica="m-1")
    beside = stage.asked(b'{"a":3}', caller="anna")
    stage.lose(beside, ExitKind.CRASHED, replica="m-1")
    assert (beside[0].rejection, beside[0].moves) == ("", 1)
    assert stage.quarantine.refuse("m", second.text, stage.clock.now_s)


def test_a_sender_that_crashed_an_engine_leaves_one_ready_replica_free_while_its_requests_are_unanswered(
    stage: Stage,
) -> None:
    stage.model.ready = 3
    (deadly,) = stage.asked(b'{"grammar":"1"}', caller="mallory")
    stage.lose([deadly], ExitKind.CRASHED)
    more = stage.asked(*(b'{"grammar":"%d"}' % number for number in range(4)), caller="mallory")
    bars, now_s = stage.quarantine.bars, stage.clock.now_s
    assert [bars(each, now_s) for each in more] == [False, False, True, True]
    assert not bars(more[0], now_s)  # it waited, and is asked about a second time
    more[0].attempt = SimpleNamespace(head=object())  # its answer has begun
    assert [bars(each, now_s) for each in more[2:]] == [False, True]
    more[1].done = True
    assert not bars(more[3], now_s)
    (small,) = stage.asked(b'{"content":"hi"}', caller="mallory")
    assert not bars(small, now_s)


@pytest.mark.parametrize(
    ("body", "bars"),
    [
        (b'{"content":"end the engine","seed":7}', True),
        (b'{"content":"end the engine","seed":12345678}', True),
        (b'{"content":"end the engine","seed":923456789}', False),
        (b'{"content":"and the engine","seed":1}', True),
        (b'{"content":"and the engine","seed":2}', False),
        (b'{"content":"hi","seed":1}', False),
        (b'{"content":"end the engine","seed":1}' * 2, False),
        (b"", False),
    ],
)
def test_without_keys_a_small_body_bars_those_that_differ_in_one_place(
    body: bytes, *, bars: bool, stage: Stage
) -> None:
    (deadly,) = stage.asked(b'{"content":"end the engine","seed":1}')
    stage.lose([deadly], ExitKind.CRASHED)
    (other,) = stage.asked(body)
    assert not stage.quarantine.bars(other, stage.clock.now_s)  # two are ready
    stage.model.ready = 1
    assert stage.quarantine.bars(other, stage.clock.now_s) is bars
    assert not stage.quarantine.bars(other, stage.clock.now_s + 61)


@pytest.mark.parametrize("more", [b',"tools":[]', b',"grammar":"x"', b" " * LARGE_BYTES])
def test_without_keys_constrained_requests_are_one_caller_and_large_ones_another(
    more: bytes, stage: Stage
) -> None:
    deadly, alike, other = stage.asked(b'{"a":1' + more + b"}", b'{"b":"quite another"' + more + b"}", b"{}")
    stage.lose([deadly], ExitKind.CRASHED)
    stage.model.ready = 1
    assert stage.quarantine.bars(alike, stage.clock.now_s)
    assert not stage.quarantine.bars(other, stage.clock.now_s)


def test_a_worker_that_is_restarted_knows_what_was_blocked_before() -> None:
    memory = SharedCounters.create(2)
    woken: list[int] = []

    def new(index: int) -> SharedQuarantine:
        counters = SharedCounters(memory.fd, workers=2, index=index)
        counters.join()
        return SharedQuarantine(counters, lambda: woken.append(index))

    first, second = new(0), new(1)
    for number in range(40):  # more than are shared
        first.add("m", b"%d" % number, caller="mallory", now_s=100.0)
    assert woken == [0] * 40
    second.read_others(100.0)
    assert [bool(second.refuse("m", b"%d" % number, 100.0)) for number in (0, 20, 39)] == [False, True, True]
    memory.clear(0)
    again = new(0)
    assert not again.refuse("m", b"39", 100.0)
    again.tidy(101.0)
    assert again.refuse("m", b"39", 101.0)
    assert not again.refuse("n", b"39", 101.0)
    assert not again.refuse("m", b"39", 701.0)
    request: Any = Asked(Model(ready=1), 0.0, b"other", "mallory")
    assert again.bars(request, 101.0)
    assert not again.bars(request, 701.0)
