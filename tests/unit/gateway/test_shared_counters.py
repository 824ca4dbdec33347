"""The board: what one worker writes the others read, each in its own column, and what is over leaves nothing behind."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.counters import shared_counters as board_module
from freehold.gateway.counters.shared_counters import PUBLISHED_BYTES_MAX, VALUES, SharedCounters


@pytest.fixture
def parent() -> Iterator[SharedCounters]:
    board = SharedCounters.create(3)
    yield board
    os.close(board.fd)


def seats(parent: SharedCounters) -> list[SharedCounters]:
    return [SharedCounters(parent.fd, workers=parent.workers, index=index) for index in range(parent.workers)]


def test_a_row_is_one_workers_to_write_and_everybodys_to_read(parent: SharedCounters):
    one, two, three = seats(parent)
    one.row("a").add(0, 3)
    two.row("b").add(0, 100)
    two.row("a").put(0, 4)
    assert one.row("a").others(0) == 4
    assert one.row("a").total(0) == 7
    assert three.row("a").total(0) == 7
    assert three.row("b").each() == [(1, [100, *[0] * (VALUES - 1)])]


def test_a_row_asked_for_again_is_the_same(parent: SharedCounters):
    one, *_ = seats(parent)
    assert one.row("a") is one.row("a")
    assert one.row("a") is not one.row("b")


def test_a_row_that_nobody_uses_goes_when_its_numbers_are_0(parent: SharedCounters):
    one, two, _ = seats(parent)
    row = one.row("a")
    row.add(2, 1)
    row.release()
    one.look()
    assert two.row("a").others(2) == 1
    row.add(2, -1)
    one.look()
    assert one.row("a") is not row


def test_places_that_are_given_up_are_used_again(parent: SharedCounters, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(board_module, "PLACES", 8)
    one, two, _ = seats(parent)
    for number in range(100):
        row = one.row(str(number))
        row.put(0, number)
        assert two.row(str(number)).others(0) == number
        row.put(0, 0)
        row.release()
        one.look()
        two.row(str(number)).release()
        two.row(str(number)).release()
        two.look()
    assert one.overflows == 0


def test_a_full_column_costs_the_others_sight_and_nothing_else(
    parent: SharedCounters, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(board_module, "PLACES", 4)
    one, two, _ = seats(parent)
    rows = [one.row(str(number)) for number in range(6)]
    for row in rows:
        row.add(1, 5)
    assert one.overflows == 2
    assert [row.total(1) for row in rows] == [5] * 6
    assert sum(two.row(str(number)).others(1) for number in range(4)) == 20


@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_that_is_too_large_is_the_largest(parent: SharedCounters, sign: int):
    one, two, _ = seats(parent)
    row = one.row("a")
    row.put(0, sign * 10**30)
    row.add(1, sign * (2**63 - 10))
    row.add(1, sign * 100)
    row.put(2, 7)
    assert [row.get(what) for what in range(3)] == [sign * (2**63 - 1)] * 2 + [7]
    assert two.row("a").others(0) == sign * (2**63 - 1)
    assert two.row("a").total(2) == 7


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(-5, 5), st.booleans()), max_size=60)
)
def test_sums_are_what_was_added(steps: list[tuple[int, int, int, bool]]):
    parent = SharedCounters.create(3)
    places, board_module.PLACES = board_module.PLACES, 16  # so that names meet in the table
    try:
        boards = seats(parent)
        expected = [[0] * 10 for _ in boards]
        for worker, name, by, leaves in steps:
            row = boards[worker].row(str(name))
            row.add(3, by)
            expected[worker][name] += by
            if leaves:
                for _ in range(row.users):
                    row.release()
                boards[worker].look()
        for name in range(10):
            for worker, board in enumerate(boards):
                others = sum(mine[name] for index, mine in enumerate(expected) if index != worker)
                assert board.row(str(name)).others(3) == others
                assert board.row(str(name)).get(3) == expected[worker][name]
    finally:
        board_module.PLACES = places
        os.close(parent.fd)


def test_what_a_dead_worker_counted_is_cleared_and_what_it_published_stays(parent: SharedCounters):
    one, two, _ = seats(parent)
    one.row("a").put(0, 9)
    one.publish(b"words")
    parent.clear(0)
    assert two.row("a").others(0) == 0
    assert two.published(0) == b"words"


def test_a_dead_worker_does_not_count_before_it_is_cleared(parent: SharedCounters):
    one, two, three = seats(parent)
    gone = os.fork()
    if not gone:
        one.join()
        one.row("a").put(0, 9)
        os._exit(0)
    os.waitid(os.P_PID, gone, os.WEXITED | os.WNOWAIT)  # ended, and nobody has collected it yet
    two.join()
    assert two.row("a").others(0) == 9
    two.look()
    assert two.row("a").others(0) == 0
    assert two.living == 1
    os.waitpid(gone, 0)
    two.look()
    assert two.living == 1
    assert three.pids().get(0) == gone  # it has not looked yet


def test_a_text_is_read_whole_or_not_at_all(parent: SharedCounters):
    one, two, _ = seats(parent)
    assert two.published(0) == b""
    for number in range(5):
        assert one.publish(b"%d" % number * 1000)
        assert two.published(0) == b"%d" % number * 1000
    assert not one.publish(bytes(PUBLISHED_BYTES_MAX + 1))
    assert two.published(0) == b"4" * 1000
    start = one._text_start(0, 5)
    one._bytes[start + 10 : start + 12] = b"xx"  # as if it were being written
    assert two.published(0) == b""
