"""A client's connection: strict HTTP/1.1 in, one request at a time, backpressure and time limits on every step.

Framing is llhttp's (through httptools) in its strict mode, and a little stricter: whatever two parsers could read
differently is answered 400 and the connection closed, so that no malformed request reaches an engine. Pipelined
requests are answered in order; bytes that come while an answer is under way wait, bounded. There is no TLS here.
"""

import asyncio
import socket
from collections import deque
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote_to_bytes

import httptools

from freehold.core.ids import is_request_id, new_request_id
from freehold.gateway import heads, refuse
from freehold.gateway.exchange import Exchange, Request
from freehold.gateway.refuse import Refusal

if TYPE_CHECKING:
    from freehold.gateway.service import Gateway

SEND_BUFFER_BYTES = 64 * 1024
"""SO_SNDBUF and write high-water mark per client. Source: gateway benchmarks: a client that stops reading holds under
1 MB in all, and 64 KiB is more than any round trip of token text needs."""
_LOW_WATER_BYTES = (
    16 * 1024
)  # Resume well below the mark, so that reading is not switched on and off per chunk.
HEAD_BYTES_MAX = 64 * 1024
"""Longest request head, bytes. Source: our own bound; twice the 32 KiB of most cloud load balancers."""
_HEADERS_MAX = 100  # Source: Apache's LimitRequestFields default.
_QUEUED_REQUESTS_MAX = 32  # Pipelined requests that wait; nobody's SDK pipelines, so this is generous.
_WAITING_BYTES_MAX = 64 * 1024  # Bytes of a next request kept while an answer is under way.
_PASSED_ON = frozenset({b"traceparent", b"tracestate", b"anthropic-version", b"anthropic-beta"})


class Incoming:
    """One request as it is being parsed."""

    __slots__ = (
        "body",
        "body_bytes",
        "codings",
        "encoding",
        "expect",
        "header_count",
        "hosts",
        "http11",
        "keep_alive",
        "method",
        "passed",
        "refusal",
        "request_id",
        "url",
    )  # fmt: skip

    def __init__(self) -> None:
        self.method = ""
        self.url = b""
        self.body: list[bytes] = []
        self.body_bytes = 0
        self.header_count = 0
        self.hosts = 0
        self.codings: list[bytes] = []
        self.encoding = b""
        self.expect = False
        self.http11 = True
        self.keep_alive = True
        self.passed = b""
        self.request_id = ""
        self.refusal: Refusal | None = None

    @property
    def path(self) -> str:
        """Return the path as it was sent, without the query, never normalised; broken bytes show as `?`."""
        return self.url.partition(b"?")[0].decode("ascii", "replace")

    def as_request(self, *, stream: bool) -> Request:
        """Return what an exchange needs."""
        return Request(
            path=self.path,
            body=b"".join(self.body),
            request_id=self.request_id or new_request_id(),
            stream=stream,
            http11=self.http11,
            keep_alive=self.keep_alive,
            passed=self.passed,
        )

    def take_header(self, name: bytes, value: bytes) -> None:
        """Take the headers that mean something to the gateway."""
        name = name.lower()
        self.header_count += 1
        if name == b"host":
            self.hosts += 1
        elif name == b"transfer-encoding":
            self.codings.append(value.strip().lower())
        elif name == b"x-request-id":
            text = value.decode("latin-1")
            self.request_id = text if is_request_id(text) else ""
        elif name == b"expect":
            self.expect = value.lower() == b"100-continue"
        elif name == b"content-encoding":
            self.encoding = value.strip().lower()
        elif name in _PASSED_ON:
            self.passed += b"%b: %b\r\n" % (name, value)

    def check_head(self) -> Refusal | None:
        """Return why this head cannot be trusted or served, or None."""
        if self.header_count > _HEADERS_MAX:
            return refuse.malformed(f"More than {_HEADERS_MAX} header fields.", status=431)
        if self.hosts != 1 and (self.http11 or self.hosts):
            return refuse.malformed("A request needs exactly one Host header.")
        if self.codings and (self.codings != [b"chunked"] or not self.http11):
            return refuse.malformed("The only transfer coding accepted is a single 'chunked', in HTTP/1.1.")
        if not self.url.startswith(b"/"):
            return refuse.malformed("The request target must be a path.")
        if self.encoding not in {b"", b"identity"}:
            return refuse.invalid(
                "Compressed request bodies are not accepted.", status=415, code="unsupported_encoding"
            )
        return None


class ClientConnection(asyncio.Protocol):
    """One client."""

    __slots__ = (
        "_deadline_s",
        "_head_bytes",
        "_idle",
        "_incoming",
        "_parser",
        "_queue",
        "_reading",
        "_waiting",
        "_write_paused",
        "closing",
        "exchange",
        "gateway",
        "transport",
        "write",
    )  # fmt: skip

    def __init__(self, gateway: "Gateway") -> None:
        self.gateway = gateway
        self.exchange: Exchange | None = None
        self.closing = False
        self._parser = httptools.HttpRequestParser(self)
        self._incoming: Incoming | None = None
        self._queue: deque[Incoming] = deque()
        self._waiting = b""
        self._head_bytes = 0
        self._reading = True
        self._idle = True
        self._write_paused = False
        self._deadline_s = gateway.now_s() + gateway.settings.header_s

    def __repr__(self) -> str:
        doing = (
            "closing"
            if self.closing
            else "answering"
            if self.exchange
            else "idle"
            if self._idle
            else "reading"
        )
        return f"<ClientConnection {doing}, {len(self._queue)} queued>"

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what a slow client can make us hold, in this process and in the kernel."""
        # A cast, since uvloop's transports do not derive from asyncio's.
        self.transport = transport = cast("asyncio.Transport", transport)
        self.write = transport.write
        transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES, low=_LOW_WATER_BYTES)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if not self.gateway.admit_connection(self):
            self.refuse(refuse.unavailable("Too many connections.", code="too_many_connections"), None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what this client asked for: nobody listens any more."""
        del exc
        self.closing = True
        self.gateway.connections.discard(self)
        self._queue.clear()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_left()

    def eof_received(self) -> bool:
        """Treat a half-close as leaving: a client that will not read is not told apart from one that will not write.

        Returns False so that the transport closes itself. A half-closed client that still waits for its answer is not
        served; no SDK does that, and an engine must not work on for nobody.
        """
        return False

    def data_received(self, data: bytes) -> None:
        """Parse, or keep for later while an answer is under way."""
        if self.closing:
            return
        if self.exchange is None and not self._queue and not self._write_paused:
            self._feed(data)
            return
        self._waiting += data
        if len(self._waiting) > _WAITING_BYTES_MAX:
            self._stop_reading()

    def pause_writing(self) -> None:
        """Stop the engine: this client reads more slowly than it writes."""
        self._write_paused = True
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        """Let the engine go on, or the next request."""
        self._write_paused = False
        if self.exchange is not None:
            self.exchange.resume()
        elif not self.closing:
            self._next()

    # What httptools calls

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._incoming = Incoming()

    def on_url(self, url: bytes) -> None:
        """Take the request target, or a part of it."""
        if self._incoming is not None:
            self._incoming.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        if self._incoming is not None:
            self._incoming.take_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the head; a body that is too large or unwanted is refused before it is read."""
        incoming = self._incoming
        if incoming is None:
            return
        self._head_bytes = -1
        incoming.method = self._parser.get_method().decode("ascii")
        incoming.http11 = self._parser.get_http_version() == "1.1"
        incoming.keep_alive = self._parser.should_keep_alive() and incoming.http11
        incoming.refusal = incoming.check_head()
        self._deadline_s = self.gateway.now_s() + self.gateway.settings.body_s
        if incoming.expect and incoming.refusal is None and self.exchange is None:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body, within the limit."""
        incoming = self._incoming
        if incoming is None or incoming.refusal is not None:
            return
        incoming.body_bytes += len(data)
        if incoming.body_bytes > self.gateway.settings.max_body_bytes:
            incoming.body.clear()
            incoming.refusal = self._too_large()
        else:
            incoming.body.append(data)

    def on_message_complete(self) -> None:
        """Queue the request; it is answered when those before it are."""
        incoming, self._incoming = self._incoming, None
        self._head_bytes = 0
        if incoming is not None:
            self._queue.append(incoming)

    # Parsing

    def _feed(self, data: bytes) -> None:
        if self._idle:
            self._idle = False
            self._deadline_s = self.gateway.now_s() + self.gateway.settings.header_s
        broken: Refusal | None = None
        if self._head_bytes >= 0:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._after_upgrade(data[exc.args[0] :])
        except httptools.HttpParserError as exc:
            broken = refuse.malformed(f"Malformed HTTP request: {exc}.")
        self._after_feed(broken)

    def _after_feed(self, broken: Refusal | None) -> None:
        incoming = self._incoming
        if broken is None and incoming is not None and incoming.refusal is not None:
            # Refused before its body has come: answer now and close, the rest of the body is not read.
            broken = Refusal(error=incoming.refusal.error, close=True)
        if broken is None and incoming is not None and self._head_bytes > HEAD_BYTES_MAX:
            broken = refuse.malformed("The request head is too long.", status=431)
        if broken is None and len(self._queue) > _QUEUED_REQUESTS_MAX:
            broken = refuse.malformed("Too many pipelined requests.")
        if broken is not None and not self._queue:
            self.refuse(broken, None)
            return
        if broken is not None:
            # Requests that came whole before the broken one are answered first; it is refused in its turn.
            poison = Incoming()
            poison.refusal = broken
            self._queue.append(poison)
            self._stop_reading()
        self._next()

    def _after_upgrade(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 as if no upgrade had been offered (RFC 9110 7.8: a server may ignore it)."""
        self._parser = httptools.HttpRequestParser(self)
        self._waiting = rest + self._waiting

    def _stop_reading(self) -> None:
        if self._reading and not self.closing:
            self._reading = False
            self.transport.pause_reading()

    def _too_large(self) -> Refusal:
        limit = self.gateway.settings.max_body_bytes
        return refuse.invalid(f"The body is larger than {limit} bytes.", status=413, code="request_too_large")

    # One request after another

    def _next(self) -> None:
        """Answer queued requests until one is under way, none is left, or the client does not read its answers."""
        while self._queue and self.exchange is None and not self.closing and not self._write_paused:
            self._dispatch(self._queue.popleft())
        if self._write_paused:
            self._deadline_s = self.gateway.now_s() + self.gateway.settings.client_stall_s
        elif self.exchange is None and not self.closing:
            self._await_next()

    def _await_next(self) -> None:
        waiting, self._waiting = self._waiting, b""
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()
        if waiting:
            self._feed(waiting)
        elif self._incoming is None and not self._head_bytes:
            self._idle = True
            self._deadline_s = self.gateway.now_s() + self.gateway.settings.idle_s

    def _dispatch(self, incoming: Incoming) -> None:
        if incoming.refusal is not None:
            self.refuse(incoming.refusal, incoming.as_request(stream=False))
            return
        exchange = self.gateway.begin(self, incoming)
        if exchange is not None:
            self.exchange = exchange
            exchange.start()

    def answered(self) -> None:
        """Go on with the next request: the exchange wrote its answer's last byte."""
        exchange, self.exchange = self.exchange, None
        assert exchange is not None
        if not exchange.request.keep_alive or self.gateway.draining or not exchange.keeps_client:
            self.close()
        else:
            self._next()

    # Answers made here

    def head_end(self, request: Request, *, close: bool) -> bytes:
        """Return the last lines of an answer's head: id, date, and whether the connection goes on."""
        closing = (
            b"connection: close\r\n" if close or not request.keep_alive or self.gateway.draining else b""
        )
        return b"x-request-id: %b\r\n%b%b\r\n" % (
            request.request_id.encode(),
            self.gateway.date_line,
            closing,
        )

    def reply(
        self,
        request: Request,
        status: int,
        body: bytes,
        *,
        content_type: str = "application/json",
        head_only: bool = False,
    ) -> None:
        """Write a whole answer (or its head alone, for HEAD) and go on with the next request."""
        head = f"content-length: {len(body)}\r\ncontent-type: {content_type}\r\n".encode()
        end = self.head_end(request, close=False)
        self.write(heads.status_line(status) + head + end + (b"" if head_only else body))
        self.exchange = None
        if request.keep_alive and not self.gateway.draining:
            self._next()
        else:
            self.close()

    def refuse(self, refusal: Refusal, request: Request | None) -> None:
        """Write an error answer; `request` is None where it could not be understood."""
        if not refusal.by_engine:
            self.gateway.meters.refused(refusal.error.code or str(refusal.error.status))
        request = request or Incoming().as_request(stream=False)
        body = refuse.body(refusal.error, request.path)
        extra = f"content-length: {len(body)}\r\ncontent-type: application/json\r\n"
        if refusal.retry_after_s is not None:
            extra += (
                f"retry-after: {refusal.retry_after_s}\r\nretry-after-ms: {refusal.retry_after_s * 1000}\r\n"
            )
        if refusal.allow:
            extra += f"allow: {refusal.allow}\r\n"
        end = self.head_end(request, close=refusal.close)
        self.write(heads.status_line(refusal.error.status) + extra.encode() + end + body)
        self.exchange = None
        if refusal.close or not request.keep_alive or self.gateway.draining:
            self.close()
        else:
            self._next()

    # Ends

    def close(self) -> None:
        """Send what is written, then close."""
        self.exchange = None
        if not self.closing:
            self.closing = True
            self._deadline_s = self.gateway.now_s() + self.gateway.settings.client_stall_s
            self.transport.close()

    def abort(self) -> None:
        """Close at once; what is not sent is lost, and the client sees a cut."""
        self.exchange = None
        self.closing = True
        self.transport.abort()

    def check(self, now_s: float) -> None:
        """Enforce the time limits; called about twice a second."""
        if self.exchange is not None:
            self.exchange.check(now_s)
        elif now_s < self._deadline_s:
            return
        elif self.closing or self._write_paused:
            self.abort()
        elif self._idle:
            self.close()
        else:
            self.refuse(refuse.timeout("The request did not come in time.", status=408), None)

    def drain(self) -> None:
        """Close if nothing is under way; otherwise after the answer."""
        if self.exchange is None and not self._queue:
            self.close()


def model_id_of(path: str) -> str:
    """Return the model id in `/v1/models/<id>`, percent-decoded once."""
    return unquote_to_bytes(path.removeprefix("/v1/models/")).decode("utf-8", "replace")
