"""Which request is blamed for a crash, on a clock of the test's own: reports, suspects and their trials."""

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from freehold.core.events import EngineEnd
from freehold.engines.base import ExitKind
from freehold.gateway.exchange.inquest import Inquest
from freehold.gateway.exchange.quarantine import Quarantine
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
    suspected: bool = False
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
        self.suspected, self.done = False, True


class Court:
    """An inquest with its clock, reports and model."""

    def __init__(self) -> None:
        self.clock, self.model, self.quarantine = Clock(), Model(), Quarantine()
        self.ends: list[EngineEnd] = []
        self.inquest = Inquest(self.clock, lambda: tuple(self.ends), self.quarantine)

    def asked(self, *bodies: bytes, caller: str = "") -> list[Any]:
        return [Asked(self.model, float(at), body, caller) for at, body in enumerate(bodies)]

    def lose(self, requests: list[Any], kind: str, *, replica: str = "m-0", others: int = 0) -> None:
        """Let an engine end under requests; an empty kind: no report comes."""
        gate = SimpleNamespace(in_flight=len(requests), present=lambda: len(requests) + others)
        endpoint = SimpleNamespace(incarnation=3)
        target: Any = SimpleNamespace(
            id=replica, endpoint=endpoint, gate=gate, engine=SimpleNamespace(managed=True)
        )
        for request in requests:
            assert self.inquest.takes(request, target)
        if kind:
            self.ends = [EngineEnd(id=replica, incarnation=3, kind=kind)]
        self.clock.pass_s(0.06)


@pytest.fixture
def court() -> Court:
    return Court()


def test_a_single_suspect_of_a_crash_is_to_blame_and_its_body_is_refused_for_ten_minutes(
    court: Court,
) -> None:
    (request,) = court.asked(b'{"a":1}')
    court.lose([request], ExitKind.CRASHED)
    assert (request.rejection, request.moves) == ("engine_crashed", 0)
    now_s = court.clock.now_s
    refused = court.quarantine.refuse("m", request.text, now_s + 599)
    assert refused is not None
    assert (refused.error.status, refused.error.code) == (400, "request_quarantined")
    assert court.quarantine.refuse("m", b'{"a":2}', now_s) is None
    assert court.quarantine.refuse("n", request.text, now_s) is None
    assert court.quarantine.refuse("m", request.text, now_s + 601) is None


@pytest.mark.parametrize("kind", [ExitKind.KILLED, ExitKind.STOPPED, ExitKind.PORT_IN_USE])
def test_an_end_that_came_from_outside_lets_all_move_at_once(kind: str, court: Court) -> None:
    requests = court.asked(b"{}", b"{}")
    court.lose(requests, kind)
    assert [each.moves for each in requests] == [1, 1]
    assert not court.quarantine.refuse("m", b"{}", court.clock.now_s)


def test_without_a_report_they_move_after_half_a_second(court: Court) -> None:
    requests = court.asked(b"{}")
    court.lose(requests, "")
    assert requests[0].moves == 0
    court.clock.pass_s(0.5)
    assert requests[0].moves == 1


def test_a_report_of_an_earlier_process_is_not_taken_for_this_ones(court: Court) -> None:
    court.ends = [EngineEnd(id="m-0", incarnation=2, kind=ExitKind.CRASHED)]
    requests = court.asked(b"{}")
    court.lose(requests, "")
    court.clock.pass_s(0.5)
    assert requests[0].moves == 1


def test_suspects_are_asked_one_by_one_and_the_last_is_blamed_when_the_others_were_answered(
    court: Court,
) -> None:
    first, second, shaped = court.asked(b"{}", b"{}", b'{"grammar":"x"}')
    shaped.started_s = 0.0  # it came first, and is the last one to be asked
    first.started_s = 1.0
    second.started_s = 2.0
    court.lose([first, shaped, second], ExitKind.CRASHED)
    assert [first.moves, second.moves, shaped.moves] == [1, 0, 0]
    first.answered()
    court.clock.pass_s(0.06)
    assert [first.moves, second.moves, shaped.moves] == [1, 1, 0]
    second.answered()
    court.clock.pass_s(0.06)
    assert (shaped.rejection, shaped.moves) == ("engine_crashed", 0)


def test_a_suspect_under_which_another_engine_crashes_is_blamed_and_the_others_are_free(court: Court) -> None:
    first, second, third = court.asked(b"{}", b"{}", b"{}")
    court.lose([first, second, third], ExitKind.CRASHED)
    (passer_by,) = court.asked(b"{}")
    court.lose([first, passer_by], ExitKind.OUT_OF_MEMORY, replica="m-1")
    assert first.rejection == "engine_crashed"
    assert [second.moves, third.moves, passer_by.moves] == [1, 1, 1]


def test_suspects_never_get_the_last_ready_engine_and_wait_for_another(court: Court) -> None:
    requests = court.asked(b"{}", b"{}")
    court.model.ready = 1
    court.lose(requests, ExitKind.CRASHED)
    court.clock.pass_s(5)
    assert [each.moves for each in requests] == [0, 0]
    court.model.ready = 2
    court.clock.pass_s(0.06)
    assert [each.moves for each in requests] == [1, 0]


def test_suspects_that_waited_in_vain_are_rejected_and_not_blamed(court: Court) -> None:
    requests = court.asked(b"{}", b"{}")
    court.model.ready = 1
    court.lose(requests, ExitKind.CRASHED)
    court.clock.pass_s(20.1)
    assert [each.rejection for each in requests] == ["engine_failed"] * 2


def test_where_a_suspect_has_left_the_last_one_is_asked_and_not_blamed_unheard(court: Court) -> None:
    first, second, third = court.asked(b"{}", b"{}", b"{}")
    court.lose([first, second, third], ExitKind.CRASHED)
    second.done = True  # its client left
    first.answered()
    court.clock.pass_s(0.06)
    assert (third.rejection, third.moves) == ("", 1)


def test_other_workers_requests_may_be_to_blame_as_well(court: Court) -> None:
    (request,) = court.asked(b"{}")
    court.lose([request], ExitKind.CRASHED, others=1)
    assert (request.rejection, request.moves) == ("", 1)


def test_a_caller_who_just_ended_an_engine_is_blamed_first_and_gets_no_last_engine(court: Court) -> None:
    (deadly,) = court.asked(b'{"a":1}', caller="mallory")
    court.lose([deadly], ExitKind.CRASHED)
    (again,) = court.asked(b'{"a":2}', caller="mallory")
    (other,) = court.asked(b"{}", caller="anna")
    court.model.ready = 1
    assert court.quarantine.bars(again, court.clock.now_s)
    assert not court.quarantine.bars(other, court.clock.now_s)
    court.lose([other, again], ExitKind.CRASHED, replica="m-1")
    assert (again.rejection, other.moves) == ("engine_crashed", 1)
    court.clock.pass_s(61)
    assert not court.quarantine.bars(again, court.clock.now_s)
    court.quarantine.tidy(court.clock.now_s + 600)
    assert repr(court.quarantine) == "<Quarantine 0 bodies, 0 callers>"


def test_without_keys_no_caller_is_barred(court: Court) -> None:
    (deadly,) = court.asked(b'{"a":1}')
    court.lose([deadly], ExitKind.CRASHED)
    court.model.ready = 1
    assert not court.quarantine.bars(court.asked(b"{}")[0], court.clock.now_s)
