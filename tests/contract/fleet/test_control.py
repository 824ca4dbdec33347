"""The state directory and the control socket with real processes, files and clients that misbehave."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from freehold.core.errors import Permanent, Temporary
from freehold.fleet.control import server
from freehold.fleet.control.client import Line, NotRunning, ask
from freehold.fleet.control.server import ControlServer, until_finished
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan
from freehold.fleet.run import Fleet
from freehold.testing.fake_engine_adapter import FAKE_ENGINE
from waiting import wait_until

HOLDER = """
import sys, time
from pathlib import Path
from freehold.fleet.control.state_dir import StateDir
state = StateDir(Path(sys.argv[1]))
print(state.claim(config_path="there.yaml"), flush=True)
time.sleep(600)
"""


async def echo(request: dict[str, Any]) -> AsyncIterator[Line]:
    for i in range(int(request.get("lines", 1))):
        yield {"op": request.get("op"), "line": i}


@contextlib.contextmanager
def child(argv: list[str], *, start_new_session: bool = False) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program whose output is read; it does not outlive a test that fails."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=start_new_session) as process:
        try:
            yield process
        finally:
            process.kill()


def served(path: Path, story: Callable[[StateDir], Awaitable[None]], answer: server.Answerer = echo) -> None:
    async def run() -> None:
        state = StateDir(path)
        assert state.claim(config_path="x.yaml") is None
        try:
            async with ControlServer(state, answer):
                await story(state)
        finally:
            state.release()

    asyncio.run(run())


async def asked(path: Path, **request: object) -> list[dict[str, Any]]:
    return await asyncio.to_thread(lambda: list(ask(path, request)))


@pytest.mark.parametrize("depth", [0, 12], ids=["short path", "long path"])
def test_a_question_is_answered_line_by_line(tmp_path: Path, depth: int) -> None:
    path = tmp_path.joinpath(*["a-long-folder"] * depth)

    async def story(state: StateDir) -> None:
        assert await asked(path, op="status", lines=3) == [{"op": "status", "line": i} for i in range(3)]
        assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
        assert stat.S_IMODE((state.path / "control.sock").stat().st_mode) == 0o600

    served(path, story)
    assert not (path / "control.sock").exists()
    with pytest.raises(NotRunning, match="nothing runs here"):
        list(ask(path, {"op": "status"}))


def test_a_socket_that_a_dead_controller_left_is_nobody_and_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    with pytest.raises(NotRunning):
        list(ask(tmp_path, {"op": "status"}))

    async def story(_state: StateDir) -> None:
        assert await asked(tmp_path, op="status")

    served(tmp_path, story)


@pytest.mark.parametrize("sent", [b"no json\n", b"[1]\n", b"x" * 100_000 + b"\n", b'{"op"', b"\xff\n"])
def test_what_is_no_request_is_refused_in_words(tmp_path: Path, sent: bytes) -> None:
    async def story(state: StateDir) -> None:
        reader, writer = await asyncio.open_unix_connection(str(state.path / "control.sock"))
        with contextlib.suppress(ConnectionError):  # refused before all of it was taken
            writer.write(sent)
            writer.write_eof()
            await writer.drain()
        with contextlib.suppress(ConnectionError):
            assert "error" in json.loads(await reader.readline() or '{"error": ""}')
        writer.close()
        assert await asked(state.path, op="status")

    served(tmp_path, story)


def test_clients_that_say_nothing_are_bounded_and_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LINE_S", 0.3)

    async def story(state: StateDir) -> None:
        path = str(state.path / "control.sock")
        idle = [await asyncio.open_unix_connection(path) for _ in range(server.CLIENTS_MAX)]
        (refused,) = await asked(state.path, op="status")
        assert "clients are being answered" in refused["error"]
        for reader, writer in idle:
            assert await reader.read() == b"", "let go after its time"
            writer.close()
        assert (await asked(state.path, op="status"))[0]["op"] == "status"

    served(tmp_path, story)


def test_a_client_that_does_not_read_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LINE_S", 0.3)
    ended = asyncio.Event()

    async def flood(_request: dict[str, Any]) -> AsyncIterator[Line]:
        try:
            while True:
                yield {"x": "y" * 10_000}
        finally:
            ended.set()

    async def story(state: StateDir) -> None:
        _, writer = await asyncio.open_unix_connection(str(state.path / "control.sock"), limit=1)
        writer.write(b'{"op": "status"}\n')
        await asyncio.wait_for(ended.wait(), 5)
        writer.close()

    served(tmp_path, story, flood)


def test_a_controller_that_hangs_is_a_temporary_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LINE_S", 0.2)
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(tmp_path / "control.sock"))
        hung.listen()
        with pytest.raises(Temporary, match="does not answer"):
            list(ask(tmp_path, {"op": "status"}))


def test_a_stop_tells_how_far_it_is_until_all_has_ended(tmp_path: Path) -> None:
    plan = ReplicaPlan(id="m-0", model="m", engine=FAKE_ENGINE, options={"term_delay_s": 0.5})
    settings = FleetSettings(log_dir=tmp_path / "logs")

    async def run() -> None:
        fleet = Fleet([plan], settings, on_snapshot=lambda _: None)

        async def answer(request: dict[str, Any]) -> AsyncIterator[Line]:
            assert request["op"] == "stop"
            fleet.request_stop(drained=True)
            async for line in until_finished(fleet):
                yield line

        async with ControlServer(StateDir(tmp_path), answer), asyncio.TaskGroup() as group:
            group.create_task(fleet.run())
            lines = await asked(tmp_path, op="stop")
        assert lines[-1]["done"] is True
        assert lines[-1]["replicas"][0]["state"] == "stopped"
        assert len(lines) >= 2

    asyncio.run(run())


def test_a_second_controller_is_told_who_was_first_and_a_dead_one_is_no_obstacle(tmp_path: Path) -> None:
    with child([sys.executable, "-c", HOLDER, str(tmp_path)]) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"None\n"
        state = StateDir(tmp_path)
        holder = state.claim(config_path="here.yaml")
        assert holder is not None
        assert (holder.pid, holder.config_path) == (first.pid, "there.yaml")
        assert not state.wait_free(0.1)
        first.kill()
        first.wait()
        assert state.holder() is None
        assert state.wait_free(0.1)
        assert state.claim(config_path="here.yaml") is None
        assert state.holder() is not None
        state.release()
        assert state.holder() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_record_of_another_user_is_not_believed(tmp_path: Path) -> None:
    with child([sys.executable, "-c", HOLDER, str(tmp_path)]) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        StateDir(tmp_path).record("gateway", holder.pid)
        for path in (tmp_path / "controller.json", tmp_path / "processes.json"):
            os.chown(path, 12345, -1)
        assert StateDir(tmp_path).holder() is None
        assert StateDir(tmp_path).leftovers() == []
        for path in (tmp_path / "controller.json", tmp_path / "processes.json"):
            os.chown(path, 0, -1)
            path.chmod(0o666)
        assert StateDir(tmp_path).holder() is None
        assert StateDir(tmp_path).leftovers() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_folder_of_another_user_does_not_have_root_end_any_process(tmp_path: Path) -> None:
    with child([sys.executable, "-c", HOLDER, str(tmp_path)]) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        StateDir(tmp_path).record("gateway", holder.pid)
        for path in (tmp_path, tmp_path / "controller.json", tmp_path / "processes.json"):
            os.chown(path, 12345, -1)
        assert StateDir(tmp_path).holder() is None
        assert StateDir(tmp_path).end_leftovers(grace_s=0.1) == []
        assert holder.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be a second user")
def test_root_sees_the_stack_of_a_services_user(tmp_path: Path) -> None:
    script = f"import os, sys; os.chdir('/'); os.setgid(1); os.setuid(1)\n{HOLDER}"
    os.chown(tmp_path, 1, 1)
    for folder in tmp_path.parents[:3]:
        folder.chmod(0o711)
    early = "from freehold.fleet.control import state_dir\nimport encodings.idna\n"  # it may not read the interpreter's files
    with child([sys.executable, "-c", early + script, str(tmp_path)]) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        found = StateDir(tmp_path).holder()
        assert found is not None
        assert found.pid == holder.pid


def test_leftovers_are_exactly_the_recorded_processes_that_still_live(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    assert state.leftovers() == []
    stubborn = "trap '' TERM; echo up; while :; do sleep 1; done"
    with (
        child(["sh", "-c", stubborn], start_new_session=True) as gateway,
        child(["sleep", "600"]) as engine,
    ):
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == b"up\n"
        state.record("gateway", gateway.pid)
        state.record("m-0", engine.pid)
        state.record("m-1", engine.pid)
        state.record("m-1", None)
        assert [left.name for left in StateDir(tmp_path).leftovers()] == ["gateway", "m-0"]
        engine.kill()
        engine.wait()
        assert StateDir(tmp_path).end_leftovers(grace_s=0.2) == ["gateway"]
        assert wait_until(gateway.poll) == -signal.SIGKILL
        assert state.leftovers() == []


def test_a_state_directory_that_cannot_be_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Permanent, match="cannot use the state directory"):
        StateDir(tmp_path / "file" / "state").claim(config_path="")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_somebody_elses_state_directory_is_not_used(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(Permanent, match="belongs to another user"):
        StateDir(tmp_path).claim(config_path="")


def test_a_folder_that_is_there_already_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    state = StateDir(tmp_path)
    assert state.claim(config_path="") is None
    state.release()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702, 0o770])
def test_a_folder_that_others_may_write_to_is_refused(mode: int, tmp_path: Path) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(Permanent, match="can be written by others") as caught:
        StateDir(tmp_path).claim(config_path="")
    assert caught.value.hint.startswith("chmod go-w ")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == []
