"""The control socket and a second user of the machine: a real process of another user asks, and the kernel names it."""

import asyncio
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from freehold.fleet.control import audit, server
from freehold.fleet.control.client import Line, NotAllowed, ask
from freehold.fleet.control.peer import Peer, user_name
from freehold.fleet.control.roles import Role
from freehold.fleet.control.server import ControlServer
from freehold.fleet.control.state_dir import StateDir

OTHER = 1  # daemon, which every Linux has
SECOND_USER = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be a second user")
CLIENT = """
import os, socket, sys
os.setgid(1)
os.setuid(int(sys.argv[1]))
client = socket.socket(socket.AF_UNIX)
try:
    client.connect(sys.argv[2])
    client.sendall(sys.argv[3].encode() + b"\\n")
    print(client.makefile().read())
except PermissionError:
    print('{"error": "no way in"}')
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a state folder that other users can pass through, as an admin would prepare one."""
    path = Path(tempfile.mkdtemp(prefix="roles-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def as_other(folder: Path, **request: object) -> dict[str, Any]:
    """Return the last line of the answer to a request of the other user."""
    argv = [sys.executable, "-c", CLIENT, str(OTHER), str(folder / "control.sock"), json.dumps(request)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


class Asked:
    """An answerer that notes what reached it."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    async def __call__(self, request: dict[str, Any]) -> AsyncIterator[Line]:
        self.requests.append(request)
        yield {"done": True}


def served(folder: Path, story: Callable[[ControlServer, Asked], Awaitable[None]]) -> None:
    async def run() -> None:
        answer = Asked()
        async with ControlServer(StateDir(folder), answer) as control:
            await story(control, answer)

    asyncio.run(run())


async def other(folder: Path, **request: object) -> dict[str, Any]:
    return await asyncio.to_thread(as_other, folder, **request)


def audited(folder: Path, name: str = audit.NAME) -> list[dict[str, Any]]:
    path = folder / "logs" / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@SECOND_USER
def test_without_roles_a_second_user_has_no_way_in(folder: Path) -> None:
    async def story(_control: ControlServer, answer: Asked) -> None:
        assert await other(folder, op="status") == {"error": "no way in"}
        assert not answer.requests

    served(folder, story)


@SECOND_USER
@pytest.mark.parametrize(
    ("role", "operation", "passes"),
    [
        (Role.CALLER, "status", False),
        (Role.VIEWER, "status", True),
        (Role.VIEWER, "restart", False),
        (Role.OPERATOR, "restart", True),
        (Role.OPERATOR, "stop", False),
        (Role.ADMIN, "stop", True),
    ],
)
def test_a_second_user_may_do_what_its_role_may(
    folder: Path, role: Role, operation: str, *, passes: bool
) -> None:
    async def story(control: ControlServer, answer: Asked) -> None:
        control.allow({OTHER: role})
        said = await other(folder, op=operation, by="root", uid=0)
        assert ("denied" not in said) == passes == bool(answer.requests)
        acts = [(line["event"], line["by"]) for line in audited(folder)]
        assert acts == ([(operation, user_name(OTHER))] if passes and operation != "status" else [])
        assert all(request["by"] == user_name(OTHER) for request in answer.requests if operation != "status")

    served(folder, story)


@SECOND_USER
def test_a_role_that_is_taken_away_is_gone_at_once(folder: Path) -> None:
    async def story(control: ControlServer, _answer: Asked) -> None:
        control.allow({OTHER: Role.VIEWER, OTHER + 1: Role.VIEWER})
        assert await other(folder, op="status") == {"done": True}
        control.allow({OTHER + 1: Role.VIEWER})
        assert (await other(folder, op="status"))["error"] == "this user has no role here"
        control.allow({})
        assert await other(folder, op="status") == {"error": "no way in"}
        await control.reopen()
        assert await other(folder, op="status") == {"error": "no way in"}

    served(folder, story)


def test_the_socket_is_open_to_others_only_while_somebody_has_a_role(folder: Path) -> None:
    async def story(control: ControlServer, _answer: Asked) -> None:
        def mode() -> int:
            return stat.S_IMODE((folder / "control.sock").stat().st_mode)

        assert mode() == 0o600
        control.allow({OTHER: Role.VIEWER})
        assert mode() == 0o666
        await control.reopen()
        assert mode() == 0o666
        control.allow({})
        assert mode() == 0o600

    served(folder, story)


def test_acts_are_audited_and_looks_are_not(folder: Path) -> None:
    async def story(_control: ControlServer, answer: Asked) -> None:
        for request in (
            {"op": "status"},
            {"op": "health"},
            {"op": "reload", "dry_run": True},
            {"op": "reload", "wait": True},
            {"op": "restart", "name": "m-0"},
            {"op": "set_healthy", "component": "gpu:1"},
            {"op": "stop", "now": True},
        ):
            await asyncio.to_thread(lambda request=request: list(ask(folder, request)))
        assert len(answer.requests) == 7

    served(folder, story)
    found = audited(folder)
    assert [line["event"] for line in found] == ["reload", "restart", "set_healthy", "stop"]
    assert found[1]["name"] == "m-0"
    assert {line["origin"].partition(" (")[0] for line in found} == {f"pid {os.getpid()}"}


def test_a_request_that_does_not_exist_reaches_nothing(folder: Path) -> None:
    async def story(_control: ControlServer, answer: Asked) -> None:
        with pytest.raises(NotAllowed, match="unknown operation 'format'"):
            await asyncio.to_thread(lambda: list(ask(folder, {"op": "format"})))
        assert not answer.requests

    served(folder, story)


@SECOND_USER
def test_rejected_requests_are_audited_and_push_no_act_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "MAX_BYTES", 1000)
    monkeypatch.setattr(audit, "BACKUPS", 1)

    async def story(control: ControlServer, answer: Asked) -> None:
        control.allow({OTHER: Role.VIEWER})
        await asyncio.to_thread(lambda: list(ask(folder, {"op": "restart", "name": "m-0"})))
        await other(folder, op="format\x1b[2J\u202e", by="root")
        await other(folder, op="restart", name="m-0", by="root")
        (odd, line) = audited(folder, audit.REJECTED_NAME)
        assert odd["operation"] == "format\x1b[2J\u202e"
        assert (line["event"], line["by"], line["operation"]) == ("rejected", user_name(OTHER), "restart")
        assert line["why"] == "restart needs the role operator, this user is viewer"
        assert line["at"].startswith("20")
        assert line["origin"].startswith("pid ")
        for _ in range(5):
            await other(folder, op="stop")
        assert len(answer.requests) == 1

    served(folder, story)
    assert [line["event"] for line in audited(folder)] == ["restart"]
    files = list((folder / "logs").glob(f"{audit.REJECTED_NAME}*"))
    assert sum(path.stat().st_size for path in files) <= 2000
    assert all(text.isascii() and "\x1b" not in text for text in map(Path.read_text, files))


def test_a_disk_that_takes_no_audit_line_prevents_no_act(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()

    async def story(_control: ControlServer, answer: Asked) -> None:
        (folder / "logs").write_text("a file where the folder should be")
        await asyncio.to_thread(lambda: list(ask(folder, {"op": "restart", "name": "a"})))
        monkeypatch.setattr(server, "LINE_S", 0.3)
        monkeypatch.setattr(audit, "append", lambda *_, **__: answers.wait())
        await asyncio.to_thread(lambda: list(ask(folder, {"op": "restart", "name": "b"})))
        assert [request["name"] for request in answer.requests] == ["a", "b"]

    try:
        served(folder, story)
    finally:
        answers.set()


def test_the_sender_of_a_signal_is_not_known(folder: Path) -> None:
    async def story(control: ControlServer, _answer: Asked) -> None:
        await control.record("reload", Peer(pid=0, uid=os.geteuid(), signal="SIGHUP"), {})

    served(folder, story)
    assert audited(folder)[0]["origin"] == "SIGHUP, from this user or root"
