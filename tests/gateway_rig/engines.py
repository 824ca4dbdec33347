"""Engines made of bytes: TCP servers on one event loop in a thread, so that a test can be plain blocking code.

They keep every byte that they receive. What they answer is a coroutine of the test; they correct nothing.
"""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

TIMEOUT_S = 10.0


class Call:
    """One request as an engine got it, and the means to answer it in any way."""

    def __init__(self, line: "_Line", head: bytes, body: bytes, *, number: int) -> None:
        self._line = line
        self.head = head
        self.body = body
        self.number = number
        """Which request on its connection, from 0."""
        self.path = head.split(b" ", 2)[1].decode()
        self.gone = asyncio.Event()
        """Set when the gateway has closed its side."""
        self.gone_at_s: float | None = None
        self.sent_bytes = 0
        """For handlers that want to count."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        found = re.search(rb"(?im)^" + re.escape(name.encode()) + rb":[ \t]*(.*?)\r?$", self.head)
        return found[1].decode() if found else None

    def send(self, data: bytes) -> None:
        self._line.transport.write(data)

    async def room(self) -> None:
        """Wait until the gateway has taken what was sent."""
        await self._line.writable.wait()

    def end(self) -> None:
        self._line.transport.close()

    def reset(self) -> None:
        sock = self._line.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._line.transport.abort()

    def unsent_bytes(self) -> int:
        return self._line.transport.get_write_buffer_size()


Answering = Callable[[Call], Awaitable[None]]


class _Line(asyncio.Protocol):
    """One connection of the gateway to an engine."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.unread = b""
        self.call: Call | None = None
        self.served = 0
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.engine.lines.add(self)
        self.engine.connections += 1
        if self.engine.on_connect is not None:
            self.engine.on_connect(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.engine.lines.discard(self)
        self.writable.set()
        if self.call is not None:
            self.call.gone_at_s = time.monotonic()
            self.call.gone.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self.engine.received += data
        self.unread += data
        self._next()

    def _next(self) -> None:
        head, blank, rest = self.unread.partition(b"\r\n\r\n")
        if self.call is not None or not blank:
            return
        length = re.search(rb"(?i)\ncontent-length: (\d+)", head)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return
        self.unread = rest[size:]
        self.call = Call(self, head, rest[:size], number=self.served)
        self.served += 1
        self.engine.calls.append(self.call)
        task = asyncio.get_running_loop().create_task(self._answer(self.call))
        self.engine.tasks.add(task)
        task.add_done_callback(self.engine.tasks.discard)

    async def _answer(self, call: Call) -> None:
        await self.engine.answer(call)
        self.call = None
        self._next()


class Engine:
    """A TCP server on the loopback address whose answers are a coroutine of the test."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.lines: set[_Line] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.reset()
        self._server: asyncio.Server | None = None
        self.open()

    def reset(self) -> None:
        """Forget what was seen and answer as a healthy engine."""
        self.answer: Answering = healthy
        self.on_connect: Callable[[asyncio.Transport], None] | None = None
        self.calls: list[Call] = []
        self.received = bytearray()
        self.connections = 0

    def line(self) -> asyncio.Protocol:
        """Return the protocol of one more connection, for a server of the test's own."""
        return _Line(self)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def do(self, work: Callable[[], object]) -> None:
        """Run something on the engines' loop and wait for it."""

        async def run() -> None:
            work()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(TIMEOUT_S)

    def open(self) -> None:
        """Listen, again on the same port."""

        async def run() -> None:
            self._server = await self._loop.create_server(
                lambda: _Line(self), "127.0.0.1", self.port, backlog=1024
            )
            self.port = self._server.sockets[0].getsockname()[1]

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(TIMEOUT_S)

    def close(self) -> None:
        """Listen no more and close every connection: a process that is gone."""

        def run() -> None:
            assert self._server is not None
            self._server.close()
            self.hang_up()

        self.do(run)

    def hang_up(self) -> None:
        """Close every connection that is open now (call on the loop, or through `do`)."""
        for line in list(self.lines):
            line.transport.close()


class Engines:
    """Engines on one loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def new(self) -> Engine:
        return Engine(self.loop)

    def stop(self) -> None:
        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(TIMEOUT_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(TIMEOUT_S)
        self.loop.close()


def whole(value: object, *, status: int = 200, extra: str = "") -> bytes:
    """Return an answer with a length."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    head = (
        f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{extra}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(text: str, finish: str | None = None) -> bytes:
    said = {"content": text} if text else {}
    return event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                  "choices": [{"index": 0, "delta": said, "finish_reason": finish}]})  # fmt: skip


ANSWER = {"id": "c", "object": "chat.completion", "created": 1, "model": "m",
          "choices": [{"index": 0, "message": {"role": "assistant", "content": "ab"}, "finish_reason": "stop"}]}  # fmt: skip
STREAMED = delta("a") + delta("b") + delta("", "stop") + b"data: [DONE]\n\n"


async def healthy(call: Call) -> None:
    """Answer at once, streamed where that was asked for."""
    if call.body and call.json.get("stream"):
        parts = (delta("a"), delta("b"), delta("", "stop"), b"data: [DONE]\n\n")
        call.send(STREAM_HEAD + b"".join(map(chunk, parts)) + b"0\r\n\r\n")
    else:
        call.send(whole(ANSWER))


def says(engine: Engine, *data: bytes, then: str = "keep") -> None:
    """Let an engine answer every request with these bytes, each in a write of its own; then keep, end or reset."""

    async def answer(call: Call) -> None:
        for part in data:
            call.send(part)
            await asyncio.sleep(0)
        if then != "keep":
            getattr(call, then)()

    engine.answer = answer


async def never(call: Call) -> None:
    await call.gone.wait()


def streaming_then(then: Callable[[Call], object]) -> Callable[[Call], object]:
    async def answer(call: Call) -> None:
        call.send(STREAM_HEAD + chunk(delta("a")))
        then(call)
        await call.gone.wait()

    return answer


class Held:
    """Answers that an engine keeps back until it is told."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.go_on = asyncio.Event()
        engine.answer = self.answer

    async def answer(self, call: Call) -> None:
        await self.go_on.wait()
        await healthy(call)

    def release(self) -> None:
        self.engine.do(self.go_on.set)
