"""A client's connection: one request at a time, backpressure and time limits on every step.

Pipelined requests are answered in order; bytes that come while an answer is under way wait, bounded. What comes in is read
by `request_reader`. It does no TLS: that is the transport's (`accept`).
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

from freehold.gateway.exchange.exchange import Exchange
from freehold.gateway.server.authenticate import certificate_of
from freehold.gateway.server.gateway import Gateway
from freehold.gateway.server.head_cache import KnownHead
from freehold.gateway.server.keyed_reader import KeyedReader
from freehold.gateway.server.keyless import KeylessConnections
from freehold.gateway.server.request_ids import unnamed
from freehold.gateway.server.request_reader import RequestReader
from freehold.gateway.server.routing import LARGE_BYTES, begin, read
from freehold.gateway.wire import errors, headers
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request import ENGINE_PATHS, Request

SEND_BUFFER_BYTES = 64 * 1024
"""SO_SNDBUF and write high-water mark per client. Source: gateway benchmarks: a client that stops reading holds under
1 MB in all, and 64 KiB is more than any round trip of token text needs."""
_LOW_WATER_BYTES = (
    16 * 1024
)  # Resume well below the mark, so that reading is not switched on and off per chunk.
_SLICE_BYTES = (
    16 * 1024
)  # Parsed at once: bounds what one read of the kernel's 256 KiB can make us hold or do.
_LINGER_S = (
    2.0  # After a rejection, for so long what still comes is read and dropped. Source: nginx's idea, shorter.
)
_NO_LINGER = struct.pack("ii", 1, 0)  # SO_LINGER on with 0 s: a close is a reset. Source: socket(7).


class Handshake:
    """What a connection has in place of its transport until TLS is agreed: it can only be given up."""

    def __init__(self, give_up: Callable[[], object], peername: object) -> None:
        self.abort = self.close = give_up
        self._peername = peername

    def get_extra_info(self, name: str) -> object:
        """Return the client's address as `peername`; nothing else is known yet."""
        return self._peername if name == "peername" else None


class ClientConnection(asyncio.Protocol):
    """One client."""

    __slots__ = ("_being_read", "_context", "_gateway", "_idle", "_keyless", "_known", "_reader", "_stepping", "_write_paused", "closing",
                 "exchange", "transport", "unsent", "write")  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._context = gateway.context
        keys = gateway.authenticator
        self._reader = (
            RequestReader(gateway, self._next)
            if keys is None
            else KeyedReader(gateway, self._next, authenticator=keys, on_key=self._key_came)
        )
        self._keyless: KeylessConnections | None = None
        """Where it counts among the keyless; None: its key was accepted, or none is needed."""
        self.exchange: Exchange | None = None
        self.closing = False
        self.unsent = b""
        self._being_read: asyncio.Future[Exchange | Rejection] | None = None
        """What a thread finds in the large body of the request; None: no thread reads one."""
        self._idle = True
        self._known: KnownHead | None = None
        """The head that was last known here: pooled clients send the same with each request."""
        self._write_paused = False
        self._stepping = False

    def __repr__(self) -> str:
        state = (
            "closing"
            if self.closing
            else "answering"
            if self.exchange
            else "idle"
            if self._idle
            else "reading"
        )
        return f"<ClientConnection {state}, {self._reader!r}>"

    # What asyncio calls

    def await_tls(self, handshake: Handshake) -> None:
        """Count as a connection before TLS is agreed, so that half handshakes have no more room than half requests."""
        self.transport = cast("asyncio.Transport", handshake)
        self._join()
        if self._keyless is None and len(self._gateway.connections) > self._gateway.connections_max:
            self.abort()

    def _join(self) -> None:
        self._gateway.connections.add(self)
        self._count_keyless()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what a slow client can make us hold, in this process and in the kernel."""
        if self.closing:
            cast("asyncio.Transport", transport).abort()  # it was given up while TLS was agreed
            return
        # A cast, since uvloop's transports do not derive from asyncio's.
        self.transport = self._reader.transport = transport = cast("asyncio.Transport", transport)
        self.write = transport.write
        transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES, low=_LOW_WATER_BYTES)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        connections = self._gateway.connections
        if self in connections:
            self._reader.certificate = certificate_of(transport.get_extra_info("peercert"))
            self._reader.deadline_s = self._context.now_s() + self._context.settings.header_s
        else:
            self._join()
        if len(connections) > self._gateway.connections_max:
            full = errors.unavailable("Too many connections.", code="too_many_connections")
            self.reject(replace(full, close=True), unnamed())

    def connection_lost(self, exc: Exception | None) -> None:
        """End what this client asked for: the client is gone."""
        del exc
        self.closing = True
        self.unsent = b""
        self._gateway.connections.discard(self)
        self._key_came()
        self._reader.queue.clear()
        self._reader.drop_incoming()
        if self._being_read is not None:
            self._being_read.cancel()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_left()

    def _count_keyless(self) -> None:
        """Count as keyless from now on, if keys are needed here; the oldest such connections may have to leave."""
        keyless = self._keyless = self._gateway.keyless
        if keyless is not None:
            peer = self.transport.get_extra_info("peername")
            address = str(peer[0]) if peer else ""
            keyless.add(self, address, connections_max=self._gateway.connections_max)

    def _key_came(self) -> None:
        """Count as keyless no more."""
        if self._keyless is not None:
            self._keyless.discard(self)
            self._keyless = None

    def evict(self) -> None:
        """Leave for a newer connection: no key was accepted here, so no answer is lost."""
        self._keyless = None
        self._gateway.connections.discard(self)
        self.abort()

    def eof_received(self) -> bool:
        """Treat a half-close as leaving: a client that does not read looks the same as one that does not write.

        Returns False so that the transport closes itself, once it has sent what it has. A half-closed client that still
        waits for its answer is not served; no SDK does that, and an engine must not work for a client that is gone.
        """
        if self.unsent:
            self._context.write_batch.empty()  # it is in the ledger as answered
        return False

    def data_received(self, data: bytes) -> None:
        """Take what came, in slices, so that every bound holds whatever the kernel hands over at once."""
        if self.unsent:
            self._context.write_batch.empty()  # this client's next answer must not overtake it
        if self._idle and len(data) <= _SLICE_BYTES and not self._write_paused and not self.closing:
            # The usual case: a whole request on a connection that waits for one.
            request = self._known.request(data) if self._known is not None else None
            if request is None:
                self._known = self._gateway.head_cache.find(data)
                request = self._known.request(data) if self._known is not None else None
            if request is None or not self._take_known(request):
                self._feed(data)
            return
        for at in range(0, len(data), _SLICE_BYTES):
            self._take(data[at : at + _SLICE_BYTES])

    def _take_known(self, request: Request) -> bool:
        """Answer a request that came whole behind a known head; return False for one that the parser has to read and reject."""
        keys = self._gateway.authenticator
        if keys is not None and keys.identify(request, self._reader.certificate) is not None:
            return False
        if len(request.body) > self._context.settings.max_body_bytes:
            return False
        self._idle = False
        self._begin(request)
        return True

    def _take(self, data: bytes) -> None:
        """Parse, or keep for later while an answer is under way or earlier bytes are not parsed yet."""
        if self.closing:
            return
        reader = self._reader
        busy = self.exchange is not None or self._being_read or reader.queue or self._write_paused
        if busy or reader.held or reader.waiting:
            reader.hold(data)
        else:
            self._feed(data)

    def pause_writing(self) -> None:
        """Stop the engine: this client reads more slowly than it writes."""
        self._write_paused = True
        if self.exchange is not None:
            self.exchange.pause()
        else:
            self._await_client()

    def resume_writing(self) -> None:
        """Let the engine continue, or take the next request."""
        self._write_paused = False
        if self.exchange is not None:
            self.exchange.resume()
        elif not self.closing:
            self._next()

    def _await_client(self) -> None:
        """Give the client the time that it has to read what was written."""
        self._reader.deadline_s = self._context.now_s() + self._context.settings.client_stall_s

    # Parsing

    def _feed(self, data: bytes) -> None:
        reader, first = self._reader, self._idle
        if first:
            self._idle = False
            reader.deadline_s = self._context.tick_s + self._context.settings.header_s
        broken = reader.feed(data)
        if broken is None and reader.incoming is None and len(reader.queue) == 1 and not self._write_paused:
            request = reader.queue.popleft()
            if first:
                self._gateway.head_cache.learn(data, request)
            self._dispatch(request)
            return
        broken = broken or reader.past_bounds()
        if broken is not None:
            reader.reject_incoming(broken)
        elif not (reader.queue or reader.waiting) and reader.may_continue():
            return  # more of it is awaited, within its time limit
        self._next()

    # One request after another

    def _next(self) -> None:
        """Answer queued requests until one is under way, none is left, or the client does not read its answers.

        Each answer that is made here ends in a call of this again, so only the outermost call does the work.
        """
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._step():
                pass
        finally:
            self._stepping = False

    def _step(self) -> bool:
        """Do the next thing and return whether another may follow."""
        if self.exchange is not None or self._being_read or self.closing:
            return False
        if self._write_paused:
            self._await_client()
            return False
        if self._reader.queue:
            self._dispatch(self._reader.queue.popleft())
            return True
        return self._await_next()

    def _await_next(self) -> bool:
        """Continue with what has come meanwhile, or wait, within the time limit of what is awaited."""
        reader, settings = self._reader, self._context.settings
        if not reader.may_continue():
            return bool(reader.queue)
        waiting, reader.waiting = reader.waiting, b""
        reader.start_reading()
        incoming = reader.incoming
        if incoming is None and not reader.in_head and not waiting:
            self._rest()
            return False
        head_came = incoming is not None and incoming.method
        reader.deadline_s = self._context.tick_s + (settings.body_s if head_came else settings.header_s)
        if waiting:
            self.data_received(waiting)
        return bool(waiting)

    def _dispatch(self, request: Request, found: Exchange | Rejection | None = None) -> None:
        """Begin a request, or let a thread read its body first and then come here again with what it found."""
        large = len(request.body) > LARGE_BYTES and request.path in ENGINE_PATHS
        if large and found is None and request.rejection is None:
            self._being_read = self._gateway.in_thread(partial(read, self._gateway, self, request))
            self._being_read.add_done_callback(partial(self._was_read, request))
            return
        if self._reader.upload is not None:
            self._reader.give_back()
        if request.rejection is not None:
            if request.caller is None and self._keyless is None:
                self._count_keyless()
            self.reject(request.rejection, request)
            return
        self._begin(request, found)

    def _begin(self, request: Request, found: Exchange | Rejection | None = None) -> None:
        if request.caller is not None and self._keyless is not None:
            self._key_came()
        exchange = begin(self._gateway, self, request=request, found=found)
        if exchange is not None:
            self.exchange = exchange
            exchange.start()

    def _was_read(self, request: Request, done: "asyncio.Future[Exchange | Rejection]") -> None:
        self._being_read = None
        if not self.closing:
            if done.exception() is not None:
                self.abort()
            self._dispatch(request, done.result())

    def answered(self) -> None:
        """Take the next request: the exchange wrote its answer's last byte."""
        exchange, self.exchange = self.exchange, None
        assert exchange is not None
        if not exchange.request.keep_alive or self._context.draining or not exchange.keeps_client:
            self.close()
        elif self._has_more():
            self._next()
        else:
            self._rest()

    def answered_whole(self, answer: bytes) -> None:
        """Send a whole answer, with others, at the end of this turn of the loop, and take the next request."""
        self.unsent, self.exchange = answer, None
        self._context.write_batch.add(self)
        if self._has_more():
            self._context.write_batch.empty()
            self._next()
        else:
            self._rest()

    def _has_more(self) -> bool:
        reader = self._reader
        return bool(
            reader.queue or reader.waiting or reader.incoming or self._write_paused or not reader.reading
        )

    def _rest(self) -> None:
        """Wait for a next request."""
        self._idle = True
        self._reader.deadline_s = self._context.tick_s + self._context.settings.idle_s

    # Answers made here

    def head_end(self, request: Request, *, close: bool) -> bytes:
        """Return the last lines of an answer's head: id, date, and whether the connection is kept."""
        context = self._context
        closing = b"connection: close\r\n" if close or not request.keep_alive or context.draining else b""
        return b"%b%b%b%b\r\n" % (request.id_line, context.date_line, request.limit_lines, closing)

    def reply(
        self, request: Request, status: int, *, body: bytes, content_type: str = "application/json"
    ) -> None:
        """Write a whole answer (its head alone, for HEAD) and take the next request."""
        head = f"content-length: {len(body)}\r\ncontent-type: {content_type}\r\n".encode()
        end = self.head_end(request, close=False)
        self.write(headers.status_line(status) + head + end + (b"" if request.method == b"HEAD" else body))
        self.exchange = None
        if request.keep_alive and not self._context.draining:
            self._next()
        else:
            self.close()

    def reject(self, rejection: Rejection, request: Request) -> None:
        """Write an error answer."""
        error, exchange = rejection.error, self.exchange
        if not rejection.by_engine:
            code = error.code or ""
            self._context.metrics.refused(code or str(error.status), status=error.status)
            model = "" if exchange is None else request.adapter or exchange.model.entry.name
            waited_s = 0.0 if exchange is None else exchange.waited_s
            self._context.access_log.refused(
                request, status=error.status, code=code, model=model, waited_s=waited_s
            )
        body = errors.body(error, request.path)
        extra = f"content-length: {len(body)}\r\ncontent-type: application/json\r\n"
        if rejection.retry_after_s is not None:
            after_s = rejection.retry_after_s
            extra += f"retry-after: {after_s}\r\nretry-after-ms: {after_s * 1000}\r\n"
        if rejection.allow:
            extra += f"allow: {rejection.allow}\r\n"
        end = rejection.headers + self.head_end(request, close=rejection.close)
        content = b"" if request.method == b"HEAD" else body
        self.write(headers.status_line(error.status) + extra.encode() + end + content)
        self.exchange = None
        if rejection.close:
            self._linger()
        elif not request.keep_alive or self._context.draining:
            self.close()
        else:
            self._next()

    # Ends

    def close(self) -> None:
        """Send what is written, then close."""
        self.exchange = None
        if self.unsent:
            self._context.write_batch.empty()
        if not self.closing:
            self.closing = True
            self._reader.drop_incoming()
            self._await_client()
            self.transport.close()

    def _linger(self) -> None:
        """Close, but first read and drop for a while what the client is still sending.

        A close with unread bytes is a reset, and a reset can take the answer away from a client before it read it.
        """
        if not self.closing:
            self.closing = True
            self._reader.drop_incoming()
            self._reader.deadline_s = self._context.now_s() + _LINGER_S
            self._reader.start_reading()
            if self.transport.can_write_eof():  # TLS has no half-close here
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
        elif self._being_read is not None or now_s < self._reader.deadline_s:
            return
        elif self.closing or self._write_paused:
            self.abort()
        elif self._idle:
            self.close()
        else:
            self.reject(self._reader.too_late(), self._reader.culprit())

    def drain(self) -> None:
        """Close if no request is under way; otherwise after the answer."""
        if not self.busy:
            self.close()

    @property
    def busy(self) -> bool:
        """Return whether a request is under way here, be it that it is still coming in."""
        return not self._idle and not self.closing
