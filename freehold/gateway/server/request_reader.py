"""The input side of a client's connection: bytes in, requests out, within bounds of size and memory.

Framing is llhttp's (through httptools) in its strict mode, and a little stricter: whatever two parsers could read
differently is rejected and the connection closed, so that no malformed request reaches an engine. A large body asks for
room (`body_memory`) when its head has come, or, where its length is not sent, when it turns out to be large; until it has
room, its client is not read from. Nothing here answers, or knows what becomes of a request that is whole.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import httptools

from freehold.gateway.queue.body_memory import SMALL_BYTES, Upload, full
from freehold.gateway.server.authenticate import ClientCertificate
from freehold.gateway.server.gateway import Gateway
from freehold.gateway.server.request_ids import fresh_id_line, unnamed
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request import (
    FIELD_BYTES_MAX,
    HEADERS_MAX,
    IGNORED,
    TARGET_BYTES_MAX,
    Request,
    refuse_trailer,
    take_header,
)

HEAD_BYTES_MAX = 64 * 1024
"""Longest request head, and longest framing between two bytes of a body (chunk extensions, trailers), bytes. Source:
our own bound; twice the 32 KiB of most cloud load balancers."""
_QUEUED_REQUESTS_MAX = 32  # Pipelined requests that wait; no official SDK pipelines, so this is generous.
_SIZE_CHARS_MAX = (
    64  # Of a chunk's size line: 16 hex digits are 64 bits, and what follows a `;` means nothing here.
)
_CHUNK_BYTES = 24  # Framing that each chunk may have: 16 hex digits, two line ends, and a little more.
_WAITING_BYTES_MAX = 64 * 1024  # Bytes of a next request kept while an answer is under way.


class RequestReader:
    """Reads one client's requests; `on_room` is called when a body that waited has room."""

    __slots__ = ("_chunk_at_bytes", "_gateway", "_head_bytes", "_on_room", "_parser", "_size_line", "certificate", "deadline_s", "incoming", "queue",
                 "reading", "transport", "upload", "waiting")  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, gateway: Gateway, on_room: Callable[[], object]) -> None:
        self._gateway = gateway
        self._on_room = on_room
        self._parser = httptools.HttpRequestParser(self)
        self._head_bytes = 0
        self._chunk_at_bytes: int | None = None
        """Bytes of the body before the chunk whose size came last; None: it is looked at, or there is none."""
        self._size_line = b""
        """The beginning of a chunk's size line that has not come whole."""
        self.certificate: ClientCertificate | None = None
        """What the client showed in its TLS handshake; None: nothing."""
        self.incoming: Request | None = None
        """The request that is coming in."""
        self.queue: deque[Request] = deque()
        """Requests that came whole, or broken, and are not answered yet."""
        self.waiting = b""
        """Bytes that came while an answer was under way."""
        self.reading = True
        self.upload: Upload | None = None
        """The room that a body has until it is read, or waits for; None: it is small, or there is none."""
        self.deadline_s = gateway.context.now_s() + gateway.context.settings.header_s
        """By when the connection's next step must have happened, on the loop's clock."""

    def __repr__(self) -> str:
        return f"<RequestReader {len(self.queue)} queued, {len(self.waiting)} bytes wait>"

    # What the connection calls

    def feed(self, data: bytes) -> Rejection | None:
        """Parse bytes; return why they are no HTTP, or None."""
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._after_upgrade(data[exc.args[0] :])
            return None
        except httptools.HttpParserError as exc:
            status = 505 if str(exc) == "Invalid HTTP version" else 400
            return errors.malformed(f"Malformed HTTP request: {exc}.", status=status)
        incoming = self.incoming
        if incoming is not None and incoming.codings and incoming.method and incoming.rejection is None:
            self._look_at_chunk(incoming, data)
        return None

    def _look_at_chunk(self, request: Request, data: bytes) -> None:
        """Reject a body as soon as it announces a chunk that is larger than it may be (RFC 9112 7.1), instead of awaiting it.

        The parser does not show a chunk's size. Where this read ended within a chunk, the line before its data has it.
        """
        began, self._chunk_at_bytes = self._chunk_at_bytes, None
        if began is not None:
            data = data[: len(data) - (request.body_bytes - began)]
            if data != b"\n" and not data.endswith(b"\r\n"):
                return  # the chunk has come, but for its end
            data = data[:-1]
        _, earlier, line = data.rpartition(b"\n")
        self._size_line = (line if earlier else self._size_line + line)[:_SIZE_CHARS_MAX]
        if began is not None:
            size, self._size_line = self._size_line.partition(b";")[0].rstrip(b"\r"), b""
            left_bytes = self._gateway.context.settings.max_body_bytes - began
            # What is not a number is a trailer.
            if size.isalnum() and (len(size) == _SIZE_CHARS_MAX or int(size, 16) > left_bytes):
                request.rejection = self.too_large()

    def hold(self, data: bytes) -> None:
        """Keep bytes until the answer under way has ended."""
        self.waiting += data
        if len(self.waiting) > _WAITING_BYTES_MAX:
            self._stop_reading()

    @property
    def in_head(self) -> bool:
        """Return whether a request has begun and its head has not come whole."""
        return bool(self._head_bytes)

    @property
    def held(self) -> bool:
        """Return whether the incoming body waits for room."""
        return self.upload is not None and not self.upload.comes

    def past_bounds(self) -> Rejection | None:
        """Return why the incoming request, or the number of requests before it, is too much, or None."""
        if self.incoming is not None and self.incoming.rejection is not None:
            return self.incoming.rejection
        if self._head_bytes > HEAD_BYTES_MAX:
            if self.incoming is not None and len(self.incoming.url) > TARGET_BYTES_MAX:
                return errors.target_too_long()
            return errors.malformed("The request head, or its body's framing, is too long.", status=431)
        if len(self.queue) > _QUEUED_REQUESTS_MAX:
            return errors.malformed("Too many pipelined requests.")
        return None

    def may_continue(self) -> bool:
        """Return whether more of the incoming request may come; a large body asks for room first, and is rejected or waits."""
        request = self.incoming
        if request is None or not request.method:
            return True
        settings = self._gateway.context.settings
        if self.upload is None and max(request.length_bytes, request.body_bytes) > SMALL_BYTES:
            size_bytes = request.length_bytes or settings.max_body_bytes
            upload = Upload(request.caller, size_bytes, self._room_came)
            rejection = self._gateway.body_memory.ask(upload)
            if rejection is not None:
                self.reject_incoming(rejection)
                return False
            self.upload = upload
            if not upload.comes:
                self._stop_reading()
                self.deadline_s = self._gateway.context.tick_s + settings.queue_max_wait_s
        if self.held:
            return False
        if request.expect:
            # The client waits for this before it sends the body (RFC 9110 10.1.1).
            request.expect = False
            if request.rejection is None and request.http11:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def start_reading(self) -> None:
        """Read from the client again."""
        if not self.reading:
            self.reading = True
            self.transport.resume_reading()

    def _stop_reading(self) -> None:
        if self.reading and not self.transport.is_closing():
            self.reading = False
            self.transport.pause_reading()

    def reject_incoming(self, rejection: Rejection) -> None:
        """Queue an error for the incoming request, behind those that came whole before it, and read no more of it.

        The rest of its body is not read as anything: the connection closes after the answer.
        """
        culprit = self.culprit()
        culprit.rejection = replace(rejection, close=True)
        self.drop_incoming()
        self.queue.append(culprit)
        self._stop_reading()

    def drop_incoming(self) -> None:
        """Forget the incoming request, and give back its room."""
        self.incoming = None
        self.give_back()

    def give_back(self) -> None:
        """Give back the room of a body that was read, or will never be."""
        if self.upload is not None:
            self._gateway.body_memory.give_back(self.upload)
            self.upload = None

    def culprit(self) -> Request:
        """Return the incoming request, if its head has come, or a stand-in."""
        incoming = self.incoming
        if incoming is not None and incoming.method:
            return incoming
        stand_in = unnamed()
        if incoming is not None and incoming.url:
            stand_in.method = self._parser.get_method()  # no content follows HEAD (RFC 9110 9.3.2)
        return stand_in

    def too_late(self) -> Rejection:
        """Return why a request whose time is over is rejected."""
        if self.held:
            return replace(full(), close=True)
        return errors.timeout("The request did not come in time.", status=408)

    def too_large(self) -> Rejection:
        """Return the 413 for a body beyond the limit."""
        limit = self._gateway.context.settings.max_body_bytes
        return errors.invalid(f"The body is larger than {limit} bytes.", status=413, code="request_too_large")

    def _room_came(self) -> None:
        """Continue after the current callback returns: room came while another connection gave it back."""
        asyncio.get_running_loop().call_soon(self._on_room)

    def _after_upgrade(self, rest: bytes) -> None:
        """Continue in HTTP/1.1 as if no upgrade had been offered (RFC 9110 7.8: a server may ignore it).

        The parser takes what follows the head for another protocol. It is this request's body, if it has one: a new
        parser gets its framing, so that no body is ever read as a request.
        """
        self._parser = httptools.HttpRequestParser(self)
        request = self.queue.pop()
        framing = request.framing() if request.rejection is None else b""
        if framing:
            self._parser.feed_data(b"POST / HTTP/1.1\r\nhost: h\r\n%b\r\n" % framing)
            self.incoming = request
        else:
            self.queue.append(request)
        self.waiting = rest + self.waiting

    # What httptools calls

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.incoming = Request()

    def on_url(self, url: bytes) -> None:
        """Take the request target, or a part of it."""
        if self.incoming is not None:
            self.incoming.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header, or a trailer."""
        request = self.incoming
        if request is None or request.method:
            self.drop_trailer(name)
            return
        request.header_count += self._field_count(name, value) if self._head_bytes > FIELD_BYTES_MAX else 1
        if name not in IGNORED:
            take_header(request, name, value)

    def drop_trailer(self, name: bytes) -> None:
        """Forget a trailer, which comes when the method is known, and reject the request for one that others could heed."""
        if self.incoming is not None and self.incoming.rejection is None:
            self.incoming.rejection = refuse_trailer(name)

    def _field_count(self, name: bytes, value: bytes) -> int:
        """Return as how many fields one counts, in a head that is long enough for one to be too long: that is past the bound."""
        return 1 if len(name) + len(value) <= FIELD_BYTES_MAX else HEADERS_MAX + 1

    def check_head(self, request: Request, version: str) -> Rejection | None:
        """Return why a head, of HTTP version `1.1` or another, cannot be served, or None."""
        return request.check_head(version)

    def on_headers_complete(self) -> None:
        """Check the head; a body that is too large or unwanted is rejected before it is read."""
        request = self.incoming
        if request is None:
            return
        self._head_bytes = 0
        version = self._parser.get_http_version()
        request.method = self._parser.get_method()
        request.http11 = version == "1.1"
        request.keep_alive = request.http11 and self._parser.should_keep_alive()
        request.rejection = self.check_head(request, version)
        settings = self._gateway.context.settings
        if request.rejection is None and request.length_bytes > settings.max_body_bytes:
            request.rejection = self.too_large()
        request.name(fresh_id_line)
        self.deadline_s = self._gateway.context.tick_s + settings.body_s

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body, within the limit."""
        request = self.incoming
        if request is None or request.rejection is not None:
            return
        # Of framing, each chunk has its share; what is more adds up (RFC 9112 7.1.1).
        self._head_bytes = max(0, self._head_bytes - len(data) - _CHUNK_BYTES)
        request.body_bytes += len(data)
        if request.body_bytes > self._gateway.context.settings.max_body_bytes:
            request.body, request.gathered = b"", None
            request.rejection = self.too_large()
        elif not request.body:
            request.body = data  # all of it, usually
        else:
            # In one piece: a list of the pieces of a body in tiny chunks takes many times its bytes.
            if request.gathered is None:
                request.gathered = bytearray(request.body)
            request.gathered += data

    def on_chunk_header(self) -> None:
        """Note where a chunk of the body begins."""
        if self.incoming is not None:
            self._chunk_at_bytes = self.incoming.body_bytes

    def on_chunk_complete(self) -> None:
        """Forget the chunk: its size was true."""
        self._chunk_at_bytes = None

    def on_message_complete(self) -> None:
        """Queue the request; it is answered after those before it."""
        request, self.incoming = self.incoming, None
        self._head_bytes = 0
        if request is not None and len(self.queue) <= _QUEUED_REQUESTS_MAX:
            if request.gathered is not None:
                request.body, request.gathered = bytes(request.gathered), None
            self.queue.append(request)
