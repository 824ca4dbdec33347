"""The thread that keeps a state folder: what it writes, in which order, when, and what it does when the folder goes."""

import asyncio
import os
import queue
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from freehold.core.clock import monotonic_s
from freehold.fleet.control.server import ControlServer
from freehold.fleet.control.state_dir import Running, StateDir
from freehold.fleet.control.state_keeper import StateKeeper
from waiting import remove_at_once, wait_until

CLAIM = """
import sys, threading
from pathlib import Path
from typing import Any
from freehold.fleet.control.state_dir import StateDir
state = StateDir(Path(sys.argv[1]))
assert state.claim(config_path="other.yaml") is None
(state.path / "control.sock").touch()
print("mine", flush=True)
threading.Event().wait()
"""


class SlowDisk(StateDir):
    """A folder whose writes wait until they are let go, and are remembered."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.let_go = threading.Event()
        self.began = threading.Event()
        self.written: list[tuple[str, int | None]] = []

    def record(self, name: str, pid: int | None) -> None:
        self.began.set()
        assert self.let_go.wait(10)
        self.written.append((name, pid))
        super().record(name, pid)


@contextmanager
def kept(state: StateDir) -> Iterator[tuple[StateKeeper, "queue.Queue[Running | None]"]]:
    """Give a running keeper of a claimed folder, and what it tells: None is restored, else who has taken it."""
    told: queue.Queue[Running | None] = queue.Queue()
    assert state.claim(config_path="x.yaml") is None
    (state.path / "control.sock").touch()
    keeper = StateKeeper(
        state,
        config_path="x.yaml",
        on_restored=lambda: told.put(None),
        on_taken=told.put,
    )
    keeper.start()
    try:
        yield keeper, told
    finally:
        assert keeper.close()
        state.release()


def recorded(path: Path) -> list[str]:
    return sorted(leftover.name for leftover in StateDir(path).leftovers())


def test_recording_does_not_wait_and_the_last_word_is_written(tmp_path: Path) -> None:
    state = SlowDisk(tmp_path)
    with kept(state) as (keeper, _told):
        keeper.record("a", os.getpid())
        assert state.began.wait(5)
        began_s = monotonic_s()
        for pid in (1, 2, None):
            keeper.record("b", pid)
        keeper.record("c", os.getpid())
        keeper.record("b", os.getpid())
        assert monotonic_s() - began_s < 1.0, "the disk holds nobody up"
        assert state.written == []
        state.let_go.set()
    me = os.getpid()
    assert state.written == [("a", me), ("c", me), ("b", me)]
    assert recorded(tmp_path) == ["a", "b", "c"]


def test_what_a_disk_does_not_take_ends_nothing(tmp_path: Path) -> None:
    in_the_way = tmp_path / f".processes.json.{os.getpid()}.new"
    in_the_way.mkdir()
    with kept(StateDir(tmp_path)) as (keeper, _told):
        keeper.record("a", os.getpid())
    with kept(StateDir(tmp_path)) as (keeper, _told):
        in_the_way.rmdir()
        keeper.record("b", os.getpid())
    assert recorded(tmp_path) == ["b"]


@pytest.mark.parametrize("gone", ["", "control.sock", "controller.json"])
def test_what_was_removed_is_made_again(gone: str, tmp_path: Path) -> None:
    path = tmp_path / "state"
    state = StateDir(path)
    with kept(state) as (keeper, told):
        keeper.record("a", os.getpid())
        keeper.record("ended", os.getpid())
        keeper.record("ended", None)
        wait_until(lambda: recorded(path) == ["a"])
        if gone:
            (path / gone).unlink()
        else:
            remove_at_once(path)
        assert told.get(timeout=10) is None
        (path / "control.sock").touch()
        assert recorded(path) == ["a"]
        holder = StateDir(path).holder()
        assert holder is not None
        assert (holder.pid, holder.config_path) == (os.getpid(), "x.yaml")
        assert StateDir(path).claim(config_path="y.yaml") == holder, "the lock is ours again"


def test_a_folder_that_somebody_else_has_by_now_is_left_to_them(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with kept(StateDir(path)) as (keeper, told):
        remove_at_once(path)
        with subprocess.Popen([sys.executable, "-c", CLAIM, path], stdout=subprocess.PIPE) as other:
            try:
                assert other.stdout is not None
                assert other.stdout.readline() == b"mine\n"
                taken = told.get(timeout=10)
                assert taken is not None
                assert (taken.pid, taken.config_path) == (other.pid, "other.yaml")
                keeper.record("a", os.getpid())
                assert keeper.close()
                assert recorded(path) == []
            finally:
                other.kill()


def test_a_control_socket_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    async def answer(_request: dict[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        yield {}

    async def story() -> None:
        async with ControlServer(StateDir(tmp_path), answer):
            (tmp_path / "theirs").touch()  # before ours goes: a file of another number
            (tmp_path / "theirs").rename(tmp_path / "control.sock")

    asyncio.run(story())
    assert (tmp_path / "control.sock").exists()
