"""The fake engine's side of HTTP/1.1: one `Connection` per client, strict in what it takes, free in what it sends.

Strict, so that a malformed request which a gateway lets through is seen and counted. Free, so that a handler may
send anything, also what is no HTTP. It does not know what a completion is.
"""

import asyncio
import json
import os
import socket
import struct
import traceback
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol, cast

import httptools
import msgspec

from freehold.core.clock import monotonic_s
from freehold.testing.fake_settings import FakeSettings

BODY_KEPT_MAX = 65_536
"""Bytes of each remembered body. Source: our own bound, above what tests send on purpose."""
BUG_EXIT_CODE = 98
"""Exit code after a mistake of the fake's own. Source: our own choice, used by nothing else here."""
REMEMBERED_MAX = 100
"""Requests and departures remembered. Source: our own bound."""


@dataclass(slots=True, kw_only=True)
class FakeRequest:
    """One whole request."""

    method: str = ""
    target: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    keep_alive: bool = True


class Departure(msgspec.Struct, frozen=True, kw_only=True):
    """A client that left before its answer was complete."""

    path: str
    stream: bool
    tokens: int
    """Made until it was noticed."""
    noticed_s: float
    """When it was noticed, on the machine's monotonic clock, which all processes share."""


class ReceivedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One well-formed request to an API path, as it came."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: str
    received_s: float


class ServerCounts(msgspec.Struct, kw_only=True):
    """What the fake has seen and done; `GET /_fake` gives it all."""

    requests: int = 0
    """Well-formed requests to completion and embedding paths."""
    finished: int = 0
    """Of those, completions made to the end, whether or not the client was still there."""
    aborted: int = 0
    """Of those, left by their client before the end."""
    while_loading: dict[str, int] = msgspec.field(default_factory=dict)
    """Completions that came, and were refused, while it was loading, by path: probes that ask for one are among them."""
    in_flight: int = 0
    in_flight_max: int = 0
    running: int = 0
    waiting: int = 0
    bad_requests: int = 0
    """Messages that are no HTTP, or ambiguous; their connection was closed."""
    bad_request_bytes: int = 0
    bytes_received: int = 0
    connections: int = 0
    connections_open: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    """Made, also of answers that were never finished."""
    tokens_of_finished: int = 0
    decode_steps: int = 0
    departures: list[Departure] = msgspec.field(default_factory=list)
    """The last REMEMBERED_MAX clients that left."""
    recent: list[ReceivedRequest] = msgspec.field(default_factory=list)
    """The last REMEMBERED_MAX requests to completion and embedding paths."""


class Owner(Protocol):
    """Whoever answers requests."""

    settings: FakeSettings
    counts: ServerCounts

    async def handle(self, connection: "Connection", request: FakeRequest) -> None:
        """Answer one request on its connection."""
        ...


class Connection(asyncio.Protocol):
    """One client connection; requests on it are answered one after the other."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser = httptools.HttpRequestParser(self)
        self._incoming = FakeRequest()
        self._requests: asyncio.Queue[FakeRequest] = asyncio.Queue()
        self._writable = asyncio.Event()
        self._writable.set()
        self._served = 0
        self.transport: asyncio.Transport | None = None
        self.gone = False
        """Whether the client has left."""
        self.abortable = True
        """Whether the handler is cancelled when the client leaves."""
        self.last = False
        """Whether the connection closes after this answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start serving."""
        self.transport = cast("asyncio.Transport", transport)
        self._owner.counts.connections += 1
        self._owner.counts.connections_open += 1
        self._task = asyncio.get_running_loop().create_task(self._serve())
        self._task.add_done_callback(_end_on_bug)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the client left; end its answer if the handler lets it."""
        del exc
        self.gone = True
        self._owner.counts.connections_open -= 1
        self._writable.set()
        if self.abortable:
            self._task.cancel()

    def pause_writing(self) -> None:
        """Stop `flush` until the client reads again."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let `flush` go on."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Parse; what is no HTTP is counted, answered 400 and ends the connection."""
        counts = self._owner.counts
        counts.bytes_received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            counts.bad_requests += 1
            counts.bad_request_bytes += len(data)
            self.last = True
            self.respond(400, {"error": {"code": 400, "message": "no HTTP", "type": "invalid_request_error"}})
            self.close()

    def on_url(self, url: bytes) -> None:
        """Collect the target (httptools)."""
        self._incoming.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header (httptools)."""
        self._incoming.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        """Collect body bytes (httptools)."""
        self._incoming.body += body

    def on_message_complete(self) -> None:
        """Queue the request (httptools)."""
        self._incoming.method = self._parser.get_method().decode("latin-1")
        self._incoming.keep_alive = self._parser.should_keep_alive()
        self._requests.put_nowait(self._incoming)
        self._incoming = FakeRequest()

    async def _serve(self) -> None:
        while not self.gone and not self.last:
            request = await self._next()
            if request is None:
                break
            self._served += 1
            limit = self._owner.settings.keep_alive_requests
            self.last = not request.keep_alive or (limit > 0 and self._served >= limit)
            await self._owner.handle(self, request)
        self.close()

    async def _next(self) -> FakeRequest | None:
        idle_s = self._owner.settings.keep_alive_s or None
        try:
            return await asyncio.wait_for(self._requests.get(), idle_s)
        except TimeoutError:
            return None

    def send(self, data: bytes) -> None:
        """Send bytes as they are; nothing when the client has left."""
        if self.transport is not None and not self.gone:
            self.transport.write(data)

    async def flush(self) -> None:
        """Wait until the client has room for more."""
        await self._writable.wait()

    def close(self) -> None:
        """Close after what was sent."""
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        """Drop the connection with a TCP reset."""
        if self.transport is not None:
            now = struct.pack("ii", 1, 0)  # linger for 0 s: the kernel sends RST instead of FIN
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
            self.transport.abort()

    def head(self, status: int, *lines: str) -> bytes:
        """Return a response head with the connection's keep-alive words and the given header lines."""
        settings = self._owner.settings
        alive = f"Keep-Alive: timeout={settings.keep_alive_s:g}, max={settings.keep_alive_requests}"
        words = ["Server: fake", "Connection: close" if self.last else alive, *lines]
        text = "\r\n".join((f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *words))
        return f"{text}\r\n\r\n".encode()

    def respond(self, status: int, value: Any, *lines: str) -> None:
        """Send a whole answer: JSON, or text when `value` is one."""
        text = isinstance(value, str)
        body = value.encode() if text else json.dumps(value).encode()
        kind = "text/plain; version=0.0.4" if text else "application/json; charset=utf-8"
        head = self.head(status, f"Content-Type: {kind}", f"Content-Length: {len(body)}", *lines)
        self.send(head + body)

    def open_stream(self) -> None:
        """Send the head of an event stream."""
        self.send(self.head(200, "Content-Type: text/event-stream", "Transfer-Encoding: chunked"))

    def chunk(self, data: bytes) -> None:
        """Send one chunk of the open stream; empty data ends it."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))


def _end_on_bug(task: "asyncio.Task[None]") -> None:
    """End the process loudly when a handler fails by our own mistake: a test must not take it for a fault."""
    if not task.cancelled() and (error := task.exception()) is not None:
        traceback.print_exception(error)
        os._exit(BUG_EXIT_CODE)


def remember(counts: ServerCounts, request: FakeRequest) -> None:
    """Count a request to an API path and keep it for `GET /_fake`."""
    counts.requests += 1
    seen = ReceivedRequest(
        method=request.method,
        target=request.target,
        headers=tuple(request.headers),
        body=request.body[:BODY_KEPT_MAX].decode("utf-8", "replace"),
        received_s=monotonic_s(),
    )
    counts.recent = [*counts.recent, seen][-REMEMBERED_MAX:]


def note_departure(counts: ServerCounts, departure: Departure) -> None:
    """Count a client that left before its answer was complete."""
    counts.aborted += 1
    counts.departures = [*counts.departures, departure][-REMEMBERED_MAX:]
