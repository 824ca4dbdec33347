"""A connection to an engine: sends one request at a time, follows the answer's framing, hands the bytes on.

It decides nothing: what an answer, a cut or a timeout means is decided by the exchange. A connection whose answer was
not read to its exact end is never used again.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import cache
from typing import cast

from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.wire.frame import (
    BadFramingError,
    BodyFrame,
    EngineGaveUpError,
    is_known_chunk,
    is_one_chunk,
)
from freehold.gateway.wire.headers import HEAD_BYTES_MAX, AnswerHead, may_become_head, read_head
from freehold.gateway.wire.ports import AnswerSink, Passing, SendBatch
from freehold.telemetry.logs import get_logger

RECEIVE_BUFFER_BYTES = 64 * 1024
"""SO_RCVBUF of engine sockets. Source: research by measurement (gateway benchmarks): without it the kernel grows the
buffer to tcp_rmem's maximum (32 MiB here), and an engine fills it for every slow client before a pause is felt."""


_INTERIM_MAX = (
    8  # Interim answers (1xx) before the real one. Source: our own bound; engines send none or one.
)


class UpstreamConnection(asyncio.Protocol):
    """One connection to one target."""

    __slots__ = (
        "_head",
        "_interim",
        "_passing",
        "_reads_on",
        "closing",
        "frame",
        "served",
        "sink",
        "target",
        "transport",
        "unsent",
        "write",
    )

    write: Callable[[bytes], None]

    def __init__(self, target: UpstreamTarget) -> None:
        self.target = target
        self.sink: AnswerSink | None = None
        """Reads the answer under way; None: the connection is idle."""
        self.served = 0
        self.closing = False
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before any use
        self.frame: BodyFrame | None = None
        self._head = b""
        self._interim = 0
        self._passing: Passing | None = None
        self._reads_on = True
        self.unsent = b""

    def __repr__(self) -> str:
        doing = "closing" if self.closing else "busy" if self.sink else "idle"
        return f"<UpstreamConnection {self.target.id} {doing}, {self.served} served>"

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound the kernel's buffer, so that a pause is felt by the engine soon."""
        # A cast, since uvloop's transports do not derive from asyncio's.
        self.transport = transport = cast("asyncio.Transport", transport)
        self.write = transport.write
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Hand body bytes on; read the head first; distrust bytes without a request."""
        passing = self._passing
        if passing is not None and (
            is_one_chunk(data) if passing.heads is None else is_known_chunk(data, passing.heads)
        ):
            # The way of nearly every token. Between 200 streams nothing is in the processor's cache, so what counts
            # is how few objects are touched.
            passing.total_bytes += len(data)
            passing.last = data
            passing.keep(data)
            passing.chunks += 1
            passing.write(data)
        elif self.frame is not None:
            self._body(data, self.frame)
        elif self.unsent:
            self._distrust("it answers before it was asked")  # what came answers no request, or another one
        elif self.sink is not None:
            head, blank, rest = data.partition(b"\r\n\r\n")
            if blank and not self._head and len(head) <= HEAD_BYTES_MAX - 4:
                self._read_head(head, rest)
            else:
                self._head_part(data)
        else:
            self.abort()

    def eof_received(self) -> None:
        """Let the transport close; connection_lost reports to the sink."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Report to the sink, or leave the pool."""
        self.closing = True
        self.unsent = b""
        self._passing = None
        sink, self.sink = self.sink, None
        if sink is None:
            self.target.forget(self)
        else:
            sink.on_lost(self, self.frame, in_order=exc is None)

    def pause_writing(self) -> None:
        """Nothing to do: a request is written once, whole; its size is bounded by the body limit."""

    def resume_writing(self) -> None:
        """Nothing to do, as above."""

    # What an attempt calls

    def send(self, sink: AnswerSink, request: bytes, batch: SendBatch) -> None:
        """Send one request at the end of this turn of the loop, and give its answer to `sink`."""
        self.sink = sink
        self.frame = None
        self._interim = 0
        self.unsent = request
        batch.add(self)

    def pause(self) -> None:
        """Read no more until `resume`: the client is slower than the engine."""
        if self._reads_on and not self.closing:
            self._reads_on = False
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self._reads_on and not self.closing:
            self._reads_on = True
            self.transport.resume_reading()

    def abort(self) -> None:
        """Drop the connection at once, so that the engine learns that its client is gone."""
        self.sink = None
        self._passing = None
        self.unsent = b""
        self.closing = True
        self.transport.abort()

    def close(self) -> None:
        """Close an idle connection."""
        self.closing = True
        self.transport.close()

    # Reading

    def _head_part(self, data: bytes) -> None:
        data = self._head + data if self._head else data
        end = data.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
        if end >= 0:
            self._head = b""
            self._read_head(data[:end], data[end + 4 :])
        elif len(data) >= HEAD_BYTES_MAX:
            self._distrust("its answer's head is too long")
        elif may_become_head(data):
            self._head = data
        else:
            self._distrust("its answer is not HTTP/1.x")

    def _read_head(self, raw: bytes, rest: bytes) -> None:
        sink = self.sink
        assert sink is not None
        try:
            head = read_head(raw)
        except BadFramingError as exc:
            self._distrust(str(exc))
            return
        if head.status < 200:
            self._skip_interim(head, rest)
            return
        if head.length_bytes == len(rest) and self._reads_on and sink.takes_whole(head):
            self.sink = None
            self.served += 1
            self.target.keep(self)
            sink.on_whole(head, rest)
            return
        self.frame = frame = head.frame()
        sink.on_head(self, head)
        if self.sink is sink and (rest or frame.done):
            self._body(rest, frame)

    def _skip_interim(self, head: AnswerHead, rest: bytes) -> None:
        """Skip an interim answer (100 Continue, 103 Early Hints): the real one follows."""
        self._interim += 1
        if head.status == 101 or self._interim > _INTERIM_MAX:
            self._distrust("it sends interim answers that were not requested")
        elif rest:
            self._head_part(rest)

    def _body(self, data: bytes, frame: BodyFrame) -> None:
        sink = self.sink
        assert sink is not None
        try:
            if sink.wants_payload:
                used, pieces = frame.payload(data)
                for piece in pieces:
                    if self.sink is sink:
                        sink.on_body(piece)
            else:
                assert sink.passing is not None
                used, out = sink.passing.take(data, frame)
                if out:
                    sink.on_body(out)
        except BadFramingError as exc:
            self._distrust(str(exc))
            return
        except EngineGaveUpError as exc:
            self._lose("engine_gave_up", str(exc))
            return
        if self.sink is sink:
            if frame.done:
                self._finish(sink, trusted=used == len(data))
            else:
                passing = None if sink.wants_payload else sink.passing
                self._passing = None if passing is None else passing.fast(frame)

    def _finish(self, sink: AnswerSink, *, trusted: bool) -> None:
        self.served += 1
        self.sink = None
        self.frame = None
        self._passing = None
        if trusted and sink.engine_keeps_alive and not self.closing:
            self.resume()
            self.target.keep(self)
        else:
            self.close()
        sink.on_end()

    def _distrust(self, why: str) -> None:
        """Give the connection up: its bytes break the protocol."""
        self._lose("engine_broke_protocol", why)

    def _lose(self, event: str, why: str) -> None:
        sink, frame = self.sink, self.frame
        self.abort()
        if sink is not None:
            get_logger("gateway").warning(event, endpoint=self.target.id, why=why)
            sink.on_lost(self, frame, in_order=False)


@cache
def _tls() -> ssl.SSLContext:
    """Return the one context for all https endpoints: making one reads every certificate of the system."""
    return ssl.create_default_context()


_BACKLOG_S = 0.01
"""Between two tries while the engine's queue of connections is full. Source: own choice; it accepts thousands a second."""


async def connect_unix(path: str) -> socket.socket:
    """Return a socket that is connected to a Unix socket; raise OSError if no server listens there.

    While the server's queue is full, connect(2) fails with EAGAIN, which loops take for a connection under way.
    """
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                await asyncio.sleep(_BACKLOG_S)
            else:
                return sock
    except BaseException:
        sock.close()
        raise


async def connect(target: UpstreamTarget, *, timeout_s: float) -> UpstreamConnection:
    """Return a new connection to a target; raise OSError or TimeoutError when there is none in time."""
    loop = asyncio.get_running_loop()
    context = _tls() if target.tls else None
    async with asyncio.timeout(timeout_s):
        if target.socket:
            sock = await connect_unix(target.socket)
            _, connection = await loop.create_unix_connection(lambda: UpstreamConnection(target), sock=sock)
            return connection
        _, connection = await loop.create_connection(
            lambda: UpstreamConnection(target), target.host, target.port, ssl=context
        )
    return connection
