"""What leaves at the end of a turn: all of it, in order, after what has to be done first, whoever fails."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from freehold.gateway.exchange.write_batch import WriteBatch


class Sending:
    """A connection that notes what it writes."""

    def __init__(self, said: list[str], data: str, *, fails: bool = False) -> None:
        self.unsent = data.encode()
        self._said = said
        self._fails = fails

    def write(self, data: bytes) -> None:
        if self._fails:
            raise ZeroDivisionError
        self._said.append(data.decode())


def run(work: Callable[[list[str]], Coroutine[Any, Any, None]]) -> list[str]:
    said: list[str] = []
    asyncio.run(work(said))
    return said


def test_all_leaves_at_the_end_of_the_turn_after_what_comes_first() -> None:
    async def work(said: list[str]) -> None:
        outbox = WriteBatch(lambda: said.append("first"))
        for data in "abc":
            outbox.add(Sending(said, data))
        assert not said
        await asyncio.sleep(0)
        said.append("-")
        outbox.add(Sending(said, "d"))
        await asyncio.sleep(0)

    assert run(work) == ["first", "a", "b", "c", "-", "first", "d"]


def test_what_leaves_now_does_not_leave_again() -> None:
    async def work(said: list[str]) -> None:
        outbox, withdrawn = WriteBatch(lambda: None), Sending(said, "never")
        outbox.add(Sending(said, "a"))
        outbox.add(withdrawn)
        withdrawn.unsent = b""
        outbox.empty()
        said.append("-")
        await asyncio.sleep(0)

    assert run(work) == ["a", "-"]


def test_one_that_fails_keeps_nobody_back() -> None:
    async def work(said: list[str]) -> None:
        failures: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failures.append(what["exception"]))
        outbox = WriteBatch(lambda: None)
        for data in "abc":
            outbox.add(Sending(said, data, fails=data == "b"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [type(each) for each in failures] == [ZeroDivisionError]

    assert run(work) == ["a", "c"]


def test_who_lets_go_what_is_unsent_lets_go_what_a_failure_left_as_well() -> None:
    async def work(said: list[str]) -> None:
        outbox = WriteBatch(lambda: None)
        for data in "abcd":
            outbox.add(Sending(said, data, fails=data == "b"))
        with pytest.raises(ZeroDivisionError):
            outbox.empty()
        outbox.add(Sending(said, "e"))
        outbox.empty()
        said.append("the next answer to c")
        await asyncio.sleep(0)

    assert run(work) == ["a", "c", "d", "e", "the next answer to c"]


def test_what_should_come_first_and_fails_keeps_nobody_back() -> None:
    async def work(said: list[str]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append("told"))
        outbox = WriteBatch(lambda: 1 // 0)
        outbox.add(Sending(said, "a"))
        await asyncio.sleep(0)

    assert run(work) == ["a", "told"]
