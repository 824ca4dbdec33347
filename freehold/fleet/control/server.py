"""The control socket: an operator's `status`, `stop` and `restart` reach the running controller.

A unix socket in the state directory. It has mode 0600, or 0666 if the configuration gives other users a role; the kernel names the
user of each client, and `roles` decides. One line of JSON is the request; one or more lines of JSON are the answer. Everything is
bounded: length of a line, clients at once, time per line. It does not serve other machines and never sees an inference request.
"""

import asyncio
import contextlib
import functools
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from freehold.core.errors import Permanent
from freehold.fleet.control import audit
from freehold.fleet.control.client import DENIED, LINE_S, Line
from freehold.fleet.control.peer import Peer
from freehold.fleet.control.roles import LEAST, Role, how_to, role_of, why_not
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.run import Fleet
from freehold.telemetry.logs import get_logger

LINE_BYTES = 64 * 1024
"""Longest request. Source: own choice; a request is an op and an id."""
CLIENTS_MAX = 16
"""Clients answered at once. Source: own choice; they are one operator's terminals."""
REFUSED_MAX = 48
"""Further clients that get an error; the connections of any beyond are closed. Source: own choice."""
PROGRESS_S = 0.2
"""Between two checks of the progress of a stop."""
HEARTBEAT_S = 2.0
"""Longest silence in the answer to a stop. Source: own choice; an operator still believes that it works."""

Answerer = Callable[[dict[str, Any]], AsyncIterator[Line]]
"""From a request of a user that may make it to the lines of its answer; the controller provides it, since it covers more than the
fleet. Of an act, `by` is the user's name."""


async def until_finished(fleet: Fleet) -> AsyncIterator[Line]:
    """Yield `{"replicas": …}` when a state changes, and every HEARTBEAT_S, until the fleet has ended.

    The lines of the answer to a stop; the last one has `"done": true`.
    """
    sent, quiet_s = None, 0.0
    while not fleet.finished.is_set():
        states = {status.id: str(status.state) for status in fleet.statuses()}
        if states != sent or quiet_s >= HEARTBEAT_S:
            yield {"replicas": _statuses(fleet)}
            sent, quiet_s = states, 0.0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROGRESS_S):
                await fleet.finished.wait()
        quiet_s += PROGRESS_S
    yield {"replicas": _statuses(fleet), "done": True}


def _statuses(fleet: Fleet) -> Any:
    return msgspec.to_builtins(fleet.statuses())


class ControlServer:
    """Answers requests on the socket of a state directory that this process has claimed; `async with` runs it."""

    def __init__(self, state_dir: StateDir, answer: Answerer) -> None:
        self._state_dir = state_dir
        self._answer = answer
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._given: Mapping[int, Role] = {}
        self._log = get_logger("control")

    def allow(self, given: Mapping[int, Role]) -> None:
        """Give other users these roles from the next request on, by user id, and take those that they had."""
        self._given = given
        if self._server is not None:
            with contextlib.suppress(OSError), self._state_dir.socket_path() as path:
                Path(path).chmod(self._mode)

    @property
    def _mode(self) -> int:
        return 0o666 if self._given and sys.platform == "linux" else 0o600

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to listen; a socket that a dead controller left is replaced. Raises Permanent when it cannot."""
        try:
            listener = self._listen()
        except OSError as exc:
            raise Permanent(f"cannot listen in {self._state_dir.path}: {exc.strerror or exc}") from exc
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=LINE_BYTES)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with self._state_dir.socket_path() as path:
            Path(path).unlink(missing_ok=True)
            listener.bind(path)
            Path(path).chmod(self._mode)
            self._inode = Path(path).stat().st_ino
        listener.listen(CLIENTS_MAX)
        return listener

    async def reopen(self) -> None:
        """Listen anew, after the socket's file was removed; raises Permanent when it cannot."""
        if self._server is not None:
            self._server.close()
        await self.start()

    async def close(self) -> None:
        """Stop listening and let running answers finish their present line (LINE_S at most)."""
        if self._server is not None:
            self._server.close()
        if self._clients:
            await asyncio.wait(self._clients, timeout=LINE_S)
        for client in self._clients:
            client.cancel()
        self._unlink()

    def _unlink(self) -> None:
        with contextlib.suppress(OSError), self._state_dir.socket_path() as path:
            if Path(path).stat().st_ino == self._inode:  # else it is the next controller's
                Path(path).unlink()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) <= CLIENTS_MAX + REFUSED_MAX:
                await self._serve(reader, writer, refused=len(self._clients) > CLIENTS_MAX)
        except (TimeoutError, OSError):  # the client is slow or gone: only it loses its answer
            pass
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, refused: bool
    ) -> None:
        peer = Peer.of(writer.get_extra_info("socket"))
        is_engine = peer.is_engine
        # Also of a rejected client: an unread request would lose the error.
        request = await _read_request(reader)
        operation = request.get("op") if request else None
        if is_engine:
            await self._reject(writer, peer, operation, "an engine may not control the stack")
            return
        if refused:
            await _send(writer, {"error": f"{CLIENTS_MAX} clients are being answered: try again"})
            return
        if request is None:
            await _send(writer, {"error": 'one line of JSON is wanted, such as {"op": "status"}'})
            return
        if why := why_not(operation, role_of(peer.uid, self._given, own_uid=os.geteuid())):
            await self._reject(writer, peer, operation, why, hint=how_to(operation))
            return
        if LEAST[request["op"]] >= Role.OPERATOR and not request.get("dry_run"):
            request["by"] = await self.record(request["op"], peer, request)
        async for line in self._answer(request):
            await _send(writer, line)

    async def _reject(
        self, writer: asyncio.StreamWriter, peer: Peer, operation: object, why: str, *, hint: str = ""
    ) -> None:
        """Write a rejected request into the audit log, and answer it."""
        await self.record(audit.REJECTED, peer, {"operation": str(operation), "why": why})
        await _send(writer, {"error": why, "hint": hint, DENIED: True})

    async def record(self, act: str, peer: Peer, detail: Line) -> str:
        """Write an act into the audit log and return the user's name; a disk that fails or hangs is reported and prevents nothing."""
        loop, written, names = asyncio.get_running_loop(), asyncio.Event(), [f"uid {peer.uid}"]
        complain = functools.partial(self._log.error, "audit_not_written", act=act, uid=peer.uid)

        def write() -> None:
            names.append(peer.who())
            try:
                audit.append(self._state_dir.logs, act, peer=peer, detail=detail)
            except OSError as exc:
                complain(why=str(exc))
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(written.set)

        # A daemon: a disk that never answers must not keep the process from ending.
        threading.Thread(target=write, name="audit", daemon=True).start()
        try:
            async with asyncio.timeout(LINE_S):
                await written.wait()
        except TimeoutError:
            complain(why="the disk does not answer")
        return names[-1]


async def _read_request(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """Return the request, or None when it is too long or not a JSON object; raises TimeoutError."""
    async with asyncio.timeout(LINE_S):
        try:
            line = await reader.readline()
        except ValueError:
            return None
    try:
        request = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    return request if isinstance(request, dict) else None


async def _send(writer: asyncio.StreamWriter, line: Line) -> None:
    async with asyncio.timeout(LINE_S):
        writer.write(msgspec.json.encode(line) + b"\n")
        await writer.drain()
