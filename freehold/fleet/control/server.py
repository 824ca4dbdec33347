"""The control socket: an operator's `status`, `stop` and `restart` reach the running controller.

A unix socket in the state directory, mode 0600 in a directory of 0700: only its user can open it. One line of
JSON is the request; one or more lines of JSON are the answer. Everything is bounded: length of a line, clients at once, time per line.
It does not serve other machines and never sees an inference request.
"""

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import msgspec

from freehold.core.errors import Permanent
from freehold.fleet.control.client import LINE_S, Line
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.processes import proc_files
from freehold.fleet.processes.launch_process import replica_of
from freehold.fleet.run import Fleet

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
"""From a request to the lines of its answer; the controller provides it, since it covers more than the fleet."""


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
            Path(path).chmod(0o600)
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
        is_engine = _is_engine(writer)
        request = await _read_request(
            reader
        )  # also of a rejected client: an unread request would lose the error
        if is_engine:
            await _send(writer, {"error": "an engine may not control the stack"})
            return
        if refused:
            await _send(writer, {"error": f"{CLIENTS_MAX} clients are being answered: try again"})
            return
        if request is None:
            await _send(writer, {"error": 'one line of JSON is wanted, such as {"op": "status"}'})
            return
        async for line in self._answer(request):
            await _send(writer, line)


def _is_engine(writer: asyncio.StreamWriter) -> bool:
    """Return whether the client is a process of an engine, or has ended already.

    Landlock does not limit connections to the socket's path, so the kernel is asked who connected (SO_PEERCRED, unix(7)).
    """
    peer: socket.socket = writer.get_extra_info("socket")
    if sys.platform != "linux":
        return False
    pid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    outside = pid == 0  # it is in no namespace that this process sees: an operator beside the container
    return not outside and (proc_files.mark(pid) is None or bool(replica_of(pid)))


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
