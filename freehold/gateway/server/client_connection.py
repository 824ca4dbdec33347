"""A client's connection: strict HTTP/1.1 in, one request at a time, backpressure and time limits on every step.

Framing is llhttp's (through httptools) in its strict mode, and a little stricter: whatever two parsers could read
differently is answered 400 and the connection closed, so that no malformed request reaches an engine. Pipelined
requests are answered in order; bytes that come while an answer is under way wait, bounded. There is no TLS here.
"""

import asyncio
import socket
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import httptools

from freehold.gateway.exchange.exchange import Exchange
from freehold.gateway.server.request_reader import Arrival
from freehold.gateway.wire import errors, headers
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.head_cache import KnownHead
from freehold.gateway.wire.request import IGNORED, Request, take_header, unnamed

if TYPE_CHECKING:
    from freehold.gateway.server.gateway import Gateway

SEND_BUFFER_BYTES = 64 * 1024
"""SO_SNDBUF and write high-water mark per client. Source: gateway benchmarks: a client that stops reading holds under
1 MB in all, and 64 KiB is more than any round trip of token text needs."""
_LOW_WATER_BYTES = (
    16 * 1024
)  # Resume well below the mark, so that reading is not switched on and off per chunk.
HEAD_BYTES_MAX = 64 * 1024
"""Longest request head, and longest framing between two bytes of a body (chunk extensions, trailers), bytes. Source:
our own bound; twice the 32 KiB of most cloud load balancers."""
_SLICE_BYTES = (
    16 * 1024
)  # Parsed at once: bounds what one read of the kernel's 256 KiB can make us hold or do.
_LINGER_S = (
    2.0  # After a refusal, for so long what still comes is read and dropped. Source: nginx's idea, shorter.
)
_NO_LINGER = struct.pack("ii", 1, 0)  # SO_LINGER on with 0 s: a close is a reset. Source: socket(7).
_QUEUED_REQUESTS_MAX = 32  # Pipelined requests that wait; nobody's SDK pipelines, so this is generous.
_WAITING_BYTES_MAX = 64 * 1024  # Bytes of a next request kept while an answer is under way.


class ClientConnection(Arrival):
    """One client."""

    __slots__ = ("_idle", "_known", "_parser", "_turning", "_waiting", "_write_paused", "exchange", "unsent")

    def __init__(self, gateway: "Gateway") -> None:
        super().__init__(gateway)
        self.exchange: Exchange | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting = b""
        self._idle = True
        self._known: KnownHead | None = None
        """The head that was last known here: pooled clients send the same with each request."""
        self._write_paused = False
        self._turning = False
        self.unsent = b""

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
            full = errors.unavailable("Too many connections.", code="too_many_connections")
            self.refuse(replace(full, close=True), unnamed())

    def connection_lost(self, exc: Exception | None) -> None:
        """End what this client asked for: nobody listens any more."""
        del exc
        self.closing = True
        self.unsent = b""
        self.gateway.connections.discard(self)
        self._queue.clear()
        self._drop_incoming()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_left()

    def eof_received(self) -> bool:
        """Treat a half-close as leaving: a client that will not read is not told apart from one that will not write.

        Returns False so that the transport closes itself, once it has sent what it has. A half-closed client that still
        waits for its answer is not served; no SDK does that, and an engine must not work on for nobody.
        """
        if self.unsent:
            self.gateway.outbox.empty()  # it is in the ledger as answered
        return False

    def data_received(self, data: bytes) -> None:
        """Take what came, in slices, so that every bound holds whatever the kernel hands over at once."""
        if self.unsent:
            self.gateway.outbox.empty()  # what this client is given next must not overtake it
        if self._idle and len(data) <= _SLICE_BYTES and not self._write_paused and not self.closing:
            # The usual case: a whole request on a connection that waits for one.
            request = self._known.request(data) if self._known is not None else None
            if request is None:
                self._known = self.gateway.known_heads.find(data)
                request = self._known.request(data) if self._known is not None else None
            if request is None:
                self._feed(data)
            else:
                self._take_known(request)
            return
        for at in range(0, len(data), _SLICE_BYTES):
            self._take(data[at : at + _SLICE_BYTES])

    def _take_known(self, request: Request) -> None:
        """Answer a request that came whole behind a head that is known, past the parser, which waits for another one."""
        self._idle = False
        if len(request.body) > self.gateway.settings.max_body_bytes and request.refusal is None:
            request.refusal = self._too_large()
        self._dispatch(request)

    def _take(self, data: bytes) -> None:
        """Parse, or keep for later while an answer is under way."""
        if self.closing:
            return
        busy = self.exchange is not None or self._queue or self._write_paused
        if not busy and (self._upload is None or self._upload.comes):
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
        else:
            self._deadline_s = self.gateway.now_s() + self.gateway.settings.client_stall_s

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
        self._incoming = Request()

    def on_url(self, url: bytes) -> None:
        """Take the request target, or a part of it."""
        if self._incoming is not None:
            self._incoming.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header; trailers, which come when the method is known, mean nothing here."""
        request = self._incoming
        if request is None or request.method:
            return
        request.header_count += 1
        if name not in IGNORED:
            take_header(request, name, value)

    def on_headers_complete(self) -> None:
        """Check the head; a body that is too large or unwanted is refused before it is read."""
        request = self._incoming
        if request is None:
            return
        self._head_bytes = 0
        version = self._parser.get_http_version()
        request.method = self._parser.get_method()
        request.http11 = version == "1.1"
        request.keep_alive = request.http11 and self._parser.should_keep_alive()
        request.refusal = request.check_head(version)
        if request.refusal is None and request.length_bytes > self.gateway.settings.max_body_bytes:
            request.refusal = self._too_large()
        request.name()
        self._deadline_s = self.gateway.tick_s + self.gateway.settings.body_s

    def on_message_complete(self) -> None:
        """Queue the request; it is answered when those before it are."""
        request, self._incoming = self._incoming, None
        self._head_bytes = 0
        if self._upload is not None:
            self._give_back()
        if request is not None and len(self._queue) <= _QUEUED_REQUESTS_MAX:
            request.complete()
            self._queue.append(request)

    # Parsing

    def _feed(self, data: bytes) -> None:
        first = self._idle
        if first:
            self._idle = False
            self._deadline_s = self.gateway.tick_s + self.gateway.settings.header_s
        broken: Rejection | None = None
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._after_upgrade(data[exc.args[0] :])
        except httptools.HttpParserError as exc:
            broken = errors.malformed(f"Malformed HTTP request: {exc}.")
        if broken is None and self._incoming is None and len(self._queue) == 1 and not self._write_paused:
            request = self._queue.popleft()
            if first:
                self.gateway.known_heads.learn(data, request)
            self._dispatch(request)
        else:
            self._after_feed(broken)

    def _after_feed(self, broken: Rejection | None) -> None:
        broken = broken or self._past_bounds()
        if broken is not None:
            self._refuse_incoming(broken)
        elif not (self._queue or self._waiting) and self._may_come():
            return  # more of it is awaited, by the time limit that it has
        self._next()

    def _past_bounds(self) -> Rejection | None:
        """Return why the request that is coming in, or the line of those before it, is too much to go on with."""
        if self._incoming is not None and self._incoming.refusal is not None:
            return self._incoming.refusal
        if self._incoming is not None and self._head_bytes > HEAD_BYTES_MAX:
            return errors.malformed("The request head, or its body's framing, is too long.", status=431)
        if len(self._queue) > _QUEUED_REQUESTS_MAX:
            return errors.malformed("Too many pipelined requests.")
        return None

    def _after_upgrade(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 as if no upgrade had been offered (RFC 9110 7.8: a server may ignore it).

        The parser takes what follows the head for another protocol. It is this request's body, if it has one: a new
        parser is told its framing, so that no body is ever read as a request.
        """
        self._parser = httptools.HttpRequestParser(self)
        request = self._queue.pop()
        framing = request.framing() if request.refusal is None else b""
        if framing:
            self._parser.feed_data(b"POST / HTTP/1.1\r\nhost: h\r\n%b\r\n" % framing)
            self._incoming = request
        else:
            self._queue.append(request)
        self._waiting = rest + self._waiting

    # One request after another

    def _next(self) -> None:
        """Answer queued requests until one is under way, none is left, or the client does not read its answers.

        Each answer that is made here ends in a call of this again, so only the outermost call does the work.
        """
        if self._turning:
            return
        self._turning = True
        try:
            while self._step():
                pass
        finally:
            self._turning = False

    def _step(self) -> bool:
        """Do the next thing and return whether another may follow."""
        if self.exchange is not None or self.closing:
            return False
        if self._write_paused:
            self._deadline_s = self.gateway.now_s() + self.gateway.settings.client_stall_s
            return False
        if self._queue:
            self._dispatch(self._queue.popleft())
            return True
        return self._await_next()

    def _await_next(self) -> bool:
        """Go on with what has come meanwhile, or wait, with the time limit of what is awaited."""
        if not self._may_come():
            return bool(self._queue)
        waiting, self._waiting = self._waiting, b""
        self._start_reading()
        incoming = self._incoming
        if incoming is None and not self._head_bytes and not waiting:
            self._rest()
            return False
        head_came = incoming is not None and incoming.method
        times = self.gateway.settings
        self._deadline_s = self.gateway.tick_s + (times.body_s if head_came else times.header_s)
        if waiting:
            self.data_received(waiting)
        return bool(waiting)

    def _dispatch(self, request: Request) -> None:
        if request.refusal is not None:
            self.refuse(request.refusal, request)
            return
        exchange = self.gateway.begin(self, request)
        if exchange is not None:
            self.exchange = exchange
            exchange.start()

    def answered(self) -> None:
        """Go on with the next request: the exchange wrote its answer's last byte."""
        exchange, self.exchange = self.exchange, None
        assert exchange is not None
        if not exchange.request.keep_alive or self.gateway.draining or not exchange.keeps_client:
            self.close()
        elif self._queue or self._waiting or self._incoming or self._write_paused or not self._reading:
            self._next()
        else:
            self._rest()

    def answered_whole(self, answer: bytes) -> None:
        """Send a whole answer, which others may follow, at the end of this turn, and go on with the next request."""
        self.unsent, self.exchange = answer, None
        self.gateway.outbox.add(self)
        if self._queue or self._waiting or self._incoming or self._write_paused or not self._reading:
            self.gateway.outbox.empty()
            self._next()
        else:
            self._rest()

    def _rest(self) -> None:
        """Wait for a next request."""
        self._idle = True
        self._deadline_s = self.gateway.tick_s + self.gateway.settings.idle_s

    # Answers made here

    def head_end(self, request: Request, *, close: bool) -> bytes:
        """Return the last lines of an answer's head: id, date, and whether the connection goes on."""
        closing = (
            b"connection: close\r\n" if close or not request.keep_alive or self.gateway.draining else b""
        )
        lines = request.id_line, self.gateway.date_line, request.limit_lines, closing
        return b"%b%b%b%b\r\n" % lines

    def reply(
        self,
        request: Request,
        status: int,
        *,
        body: bytes,
        content_type: str = "application/json",
    ) -> None:
        """Write a whole answer (its head alone, for HEAD) and go on with the next request."""
        head = f"content-length: {len(body)}\r\ncontent-type: {content_type}\r\n".encode()
        end = self.head_end(request, close=False)
        self.write(headers.status_line(status) + head + end + (b"" if request.method == b"HEAD" else body))
        self.exchange = None
        if request.keep_alive and not self.gateway.draining:
            self._next()
        else:
            self.close()

    def refuse(self, refusal: Rejection, request: Request) -> None:
        """Write an error answer."""
        if not refusal.by_engine:
            status, code = refusal.error.status, refusal.error.code or ""
            self.gateway.meters.refused(code or str(status), status=status)
            self.gateway.access.refused(request, self.exchange, status=status, code=code)
        body = errors.body(refusal.error, request.path)
        extra = f"content-length: {len(body)}\r\ncontent-type: application/json\r\n"
        if refusal.retry_after_s is not None:
            extra += (
                f"retry-after: {refusal.retry_after_s}\r\nretry-after-ms: {refusal.retry_after_s * 1000}\r\n"
            )
        if refusal.allow:
            extra += f"allow: {refusal.allow}\r\n"
        end = refusal.headers + self.head_end(request, close=refusal.close)
        content = b"" if request.method == b"HEAD" else body
        self.write(headers.status_line(refusal.error.status) + extra.encode() + end + content)
        self.exchange = None
        if refusal.close:
            self._linger()
        elif not request.keep_alive or self.gateway.draining:
            self.close()
        else:
            self._next()

    # Ends

    def close(self) -> None:
        """Send what is written, then close."""
        self.exchange = None
        if self.unsent:
            self.gateway.outbox.empty()
        if not self.closing:
            self.closing = True
            self._drop_incoming()
            self._deadline_s = self.gateway.now_s() + self.gateway.settings.client_stall_s
            self.transport.close()

    def _linger(self) -> None:
        """Close, but first read and drop for a while what the client is still sending.

        A close with unread bytes is a reset, and a reset can take the answer away from a client before it read it.
        """
        if not self.closing:
            self.closing = True
            self._drop_incoming()
            self._deadline_s = self.gateway.now_s() + _LINGER_S
            self._start_reading()
            self.transport.write_eof()

    def abort(self, *, reset: bool = False) -> None:
        """Close at once; what is not sent is lost, and the client sees a cut, with `reset` in any case."""
        self.exchange, self.unsent = None, b""
        self.closing = True
        sock = self.transport.get_extra_info("socket")
        if reset and sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
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
            self.refuse(self._too_late(), self._culprit())

    def drain(self) -> None:
        """Close if nothing is under way; otherwise after the answer."""
        if not self.busy:
            self.close()

    @property
    def busy(self) -> bool:
        """Return whether a request is under way here, be it that it is still coming in."""
        return not self._idle and not self.closing
