"""Room for bodies that come in: its bounds, its order, and that every byte of it comes back."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.callers.grant import KeyState
from freehold.gateway.callers.keys import KeyLimits, KeyRecord
from freehold.gateway.queue.body_memory import WAITING_MAX, BodyMemory, Upload
from freehold.gateway.wire.errors import Rejection

ROOM = 100


def caller(name: str = "k", **limits: int) -> KeyState:
    record = KeyRecord(id=name, name=name, hash="00" * 32, created_s=1, limits=KeyLimits(**limits))
    return KeyState(record, 0)


def ask(
    intake: BodyMemory,
    size_bytes: int,
    of: KeyState | None = None,
    *,
    told: Callable[[], None] = lambda: None,
):
    upload = Upload(of, size_bytes, told)
    assert intake.ask(upload) is None
    return upload


def code(refusal: Rejection | None) -> tuple[int, str | None]:
    assert refusal is not None
    return refusal.error.status, refusal.error.code


def test_who_finds_no_room_comes_in_his_turn():
    intake, told = BodyMemory(ROOM), list[str]()
    first, second = ask(intake, 60), ask(intake, 40)
    large = ask(intake, 50, told=lambda: told.append("large"))
    small = ask(intake, 10, told=lambda: told.append("small"))
    assert [each.comes for each in (first, second, large, small)] == [True, True, False, False]
    intake.give_back(second)
    assert not large.comes
    assert not small.comes, "or the large one would never come"
    intake.give_back(first)
    assert told == ["large", "small"]
    assert intake.held_bytes == 60


def test_one_larger_than_all_of_the_room_comes_alone():
    intake = BodyMemory(ROOM)
    first = ask(intake, 1)
    giant, third = ask(intake, 10 * ROOM), ask(intake, 1)
    assert not giant.comes
    intake.give_back(first)
    assert (giant.comes, third.comes) == (True, False)
    intake.give_back(giant)
    assert third.comes


def test_one_caller_has_half_of_the_room_and_keeps_nobody_behind_it():
    intake, greedy, modest = BodyMemory(ROOM), caller("greedy"), caller("modest")
    mine = [ask(intake, 25, greedy) for _ in range(4)]
    assert [each.comes for each in mine] == [True, True, False, False]
    other = ask(intake, 25, modest)
    assert other.comes
    intake.give_back(mine[0])
    assert [each.comes for each in mine[1:]] == [True, True, False]


def test_no_more_of_one_caller_come_than_it_may_have_requests_at_once():
    intake, pair = BodyMemory(ROOM), caller(concurrency=2)
    first, _ = ask(intake, 10, pair), ask(intake, 90, pair)
    assert code(intake.ask(Upload(pair, 1, pytest.fail))) == (429, "rate_limit_exceeded")
    intake.give_back(first)
    assert intake.ask(Upload(pair, 1, lambda: None)) is None


def test_the_line_is_bounded_and_half_of_it_is_one_callers():
    intake, greedy = BodyMemory(ROOM), caller("greedy")
    ask(intake, ROOM)
    for _ in range(WAITING_MAX // 2):
        ask(intake, 1, greedy)
    assert code(intake.ask(Upload(greedy, 1, pytest.fail))) == (503, "too_many_uploads")
    for _ in range(WAITING_MAX // 2):
        ask(intake, 1)
    refusal = intake.ask(Upload(None, 1, pytest.fail))
    assert code(refusal) == (503, "too_many_uploads")
    assert refusal is not None
    assert refusal.retry_after_s
    assert intake.waiting == WAITING_MAX


def test_more_room_lets_in_who_waits():
    intake = BodyMemory(ROOM)
    ask(intake, ROOM)
    waits = ask(intake, ROOM)
    intake.resize(2 * ROOM)
    assert waits.comes


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from("ab-"), st.integers(1, 150)),
            st.tuples(st.just("end"), st.integers(0, 99)),
        ),
        max_size=80,
    )
)
def test_whoever_comes_and_goes_the_bounds_hold_and_all_of_it_comes_back(steps: list[tuple[str, int]]):
    intake, callers = BodyMemory(ROOM), {"a": caller("a", concurrency=5), "b": caller("b"), "-": None}
    here: list[Upload] = []
    for who, number in steps:
        if who != "end":
            upload = Upload(callers[who], number, lambda: None)
            if intake.ask(upload) is None:
                here.append(upload)
        elif here:
            intake.give_back(here.pop(number % len(here)))
        coming = [each for each in here if each.comes]
        assert intake.held_bytes == sum(each.size_bytes for each in coming)
        assert intake.held_bytes <= ROOM or len(coming) == 1
        assert intake.waiting == len(here) - len(coming)
        assert coming or not here, "somebody waits and there is room"
        for name in "ab":
            own = [each.size_bytes for each in coming if each.caller is callers[name]]
            assert sum(own) <= ROOM // 2 or len(own) == 1
    for upload in here:
        intake.give_back(upload)
    assert (intake.held_bytes, intake.waiting, intake._parts) == (0, 0, {})
