"""A gateway without sockets: its connections talk through transports made of bytes, so that a test sees every byte at once.

Everything above the transport is the gateway as shipped. Nothing sleeps: bytes are handed over, the loop is turned until
nothing more happens, and an exception that reaches the loop fails the test.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from freehold.core.events import Endpoint, ModelEntry, ReplicaState, Snapshot
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.exchange import attempt
from freehold.gateway.exchange.upstream import UpstreamConnection
from freehold.gateway.server.client_connection import ClientConnection
from freehold.gateway.server.gateway import Gateway
from freehold.gateway.settings import Settings

TURNS_MAX = 2000
"""Turns of the loop after which something that is still going on counts as endless."""
QUIET_TURNS = (
    6  # A task, its callback and what that starts: nothing takes more turns in a row without any byte.
)
SLOTS = 4096


class Wire(asyncio.Transport):
    """One side's transport: keeps what is written, and hands over what the test sends while reading is on."""

    def __init__(self, protocol: asyncio.Protocol, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.half_closed = self.closed = False
        self.on_write: Callable[[], None] | None = None
        self._loop = loop
        self._reading = True
        self._inbox = bytearray()
        self._ending: list[Exception | None] = []
        self.steps = 0
        """Grows with everything that happens here."""
        protocol.connection_made(self)

    # The test's side

    def send(self, data: bytes) -> None:
        """Let bytes arrive, as soon as the protocol reads."""
        self._inbox += data
        self._deliver()

    def end(self, error: Exception | None = None) -> None:
        """Let the other side end the connection once all of its bytes have arrived."""
        self._ending = [error]
        self._deliver()

    def _deliver(self) -> None:
        while self._inbox and self._reading and not self.closed:
            data, self._inbox = bytes(self._inbox), bytearray()
            self.steps += 1
            self.protocol.data_received(data)
        if self._ending and not self._inbox and not self.closed:
            (error,) = self._ending
            self._ending = []
            if error is None:
                self.protocol.eof_received()
            self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            self.steps += 1
            self._loop.call_soon(self.protocol.connection_lost, error)

    # What a protocol calls

    def write(self, data: Any) -> None:
        """Keep bytes, unless it is over."""
        assert not self.half_closed, "written after the end of writing"
        if not self.closed:
            self.steps += 1
            self.written += data
            if self.on_write is not None:
                self._loop.call_soon(self.on_write)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def close(self) -> None:
        self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self._deliver)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever full here."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        del name
        return default


class MemoryGateway:
    """A gateway in this process; `on_connect` gets the wire of each connection to the engine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.troubles: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.troubles.append(context))
        self.engine_wires: list[Wire] = []
        self.on_connect: Callable[[Wire], None] = lambda wire: None
        self._numbers = itertools.count(1)
        monkeypatch.setattr(attempt, "connect", self._connect)
        self.gateway = self.loop.run_until_complete(self._make(Settings(**settings)))

    async def _make(self, settings: Settings) -> Gateway:
        return Gateway(settings)

    async def _connect(self, target: UpstreamTarget, *, timeout_s: float) -> UpstreamConnection:
        del timeout_s
        connection = UpstreamConnection(target)
        wire = Wire(connection, self.loop)
        self.engine_wires.append(wire)
        self.on_connect(wire)
        return connection

    def renew(self) -> None:
        """Forget the engine that was there: a new one, with which nothing has happened yet, takes its place."""
        number = next(self._numbers)
        self.engine_wires.clear()
        endpoint = Endpoint(
            id=f"m-{number}",
            model="m",
            url="http://127.0.0.1:1",
            engine="external",
            state=ReplicaState.READY,
            slots=SLOTS,
        )
        entry = ModelEntry(name="m", engine="external", created_s=0)
        self._run(self._apply(Snapshot(generation=number, models=(entry,), endpoints=(endpoint,))))

    async def _apply(self, snapshot: Snapshot) -> None:
        self.gateway.apply(snapshot)

    def client(self) -> "MemoryClient":
        return MemoryClient(self, ClientConnection(self.gateway))

    def settle(self, *wires: Wire) -> None:
        """Turn the loop until nothing more happens on these wires and the engine's."""
        self._run(self._settle(wires))
        assert not self.troubles, self.troubles

    async def _settle(self, wires: tuple[Wire, ...]) -> None:
        quiet, before = 0, -1
        for _ in range(TURNS_MAX):
            await asyncio.sleep(0)
            now = sum(wire.steps for wire in (*wires, *self.engine_wires))
            quiet, before = (quiet + 1 if now == before else 0), now
            if quiet > QUIET_TURNS:
                return
        raise AssertionError("it does not come to rest")

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(work)

    def close(self) -> None:
        """End it and what it started."""
        self._run(self._end())
        self.loop.close()
        assert not self.troubles, self.troubles

    async def _end(self) -> None:
        if self.gateway.authenticator is not None:
            self.gateway.authenticator.stop()
        self.gateway._ticking.cancel()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in cast("set[asyncio.Task[Any]]", others):
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class MemoryClient:
    """One client's connection."""

    def __init__(self, rig: MemoryGateway, connection: ClientConnection) -> None:
        self.rig = rig
        self.connection = connection
        self.wire = Wire(connection, rig.loop)

    def send(self, data: bytes) -> None:
        """Send, and let everything happen that follows from it."""

        async def hand_over() -> None:
            self.wire.send(data)

        self.rig.loop.run_until_complete(hand_over())
        self.rig.settle(self.wire)

    def leave(self) -> bytes:
        """End the connection; return everything that was answered."""
        self.wire.end()
        self.rig.settle(self.wire)
        return bytes(self.wire.written)

    @property
    def held_bytes(self) -> int:
        """What the connection keeps of requests that are not answered yet."""
        reader = self.connection._reader
        queued = [*reader.queue, *filter(None, [reader.incoming])]
        bodies = sum(len(r.gathered or r.body) + len(r.url) for r in queued)
        return bodies + len(reader.waiting)

    @property
    def at_rest(self) -> bool:
        """Whether the connection is over, or nothing is under way and nothing waits but for more of a request."""
        connection = self.connection
        return connection.exchange is None and (connection.closing or not connection._reader.queue)
