"""The request that is coming in on a client's connection: its body, the room that it needs, and how it is refused.

What is one piece is kept as it came. A large body asks for room (`intake`) when its head has come, or, where its length
is not told, when it turns out to be large; until it has it, its client is not read from. Nothing here parses, answers or
knows what becomes of a request that is whole.
"""

import asyncio
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from freehold.gateway.queue.body_memory import SMALL_BYTES, Upload, full
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request import Request, unnamed

if TYPE_CHECKING:
    from collections.abc import Callable

    from freehold.gateway.server.gateway import Gateway


class Arrival(asyncio.Protocol):
    """The side of a connection on which requests come in."""

    __slots__ = ("_deadline_s", "_head_bytes", "_incoming", "_queue", "_reading", "_upload", "closing", "gateway",
                 "transport", "write")  # fmt: skip

    transport: asyncio.Transport
    write: "Callable[[bytes], None]"

    def __init__(self, gateway: "Gateway") -> None:
        self.gateway = gateway
        self.closing = False
        self._incoming: Request | None = None
        self._queue: deque[Request] = deque()
        """Requests that came whole, or broken, and are not answered yet."""
        self._head_bytes = 0
        self._reading = True
        self._upload: Upload | None = None
        """The room that what is coming in has, or waits for; None: it is small, or nothing is."""
        self._deadline_s = gateway.now_s() + gateway.settings.header_s

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body, within the limit."""
        request = self._incoming
        if request is None or request.refusal is not None:
            return
        self._head_bytes = 0
        request.body_bytes += len(data)
        if request.body_bytes > self.gateway.settings.max_body_bytes:
            request.body, request.gathered = b"", None
            request.refusal = self._too_large()
        elif not request.body:
            request.body = data  # all of it, usually
        else:
            # In one piece: a list of the pieces of a body in tiny chunks takes many times its bytes.
            if request.gathered is None:
                request.gathered = bytearray(request.body)
            request.gathered += data

    # Room for bodies

    def _may_come(self) -> bool:
        """Return whether what is coming in may go on to; a large body asks for room first, and is refused or waits."""
        request = self._incoming
        if request is None or not request.method:
            return True
        if self._upload is None and max(request.length_bytes, request.body_bytes) > SMALL_BYTES:
            size_bytes = request.length_bytes or self.gateway.settings.max_body_bytes
            upload = Upload(request.caller, size_bytes, self._room_came)
            refusal = self.gateway.intake.ask(upload)
            if refusal is not None:
                self._refuse_incoming(refusal)
                return False
            self._upload = upload
            if not upload.comes:
                self._stop_reading()
                self._deadline_s = self.gateway.tick_s + self.gateway.settings.queue_max_wait_s
        if self._upload is not None and not self._upload.comes:
            return False
        if request.expect:
            self._encourage(request)
        return True

    def _room_came(self) -> None:
        """Go on, once whoever left the room is done with what it does now."""
        asyncio.get_running_loop().call_soon(self._next)

    def _give_back(self) -> None:
        assert self._upload is not None
        self.gateway.intake.give_back(self._upload)
        self._upload = None

    @property
    def _held(self) -> bool:
        """Return whether what is coming in waits for room."""
        return self._upload is not None and not self._upload.comes

    def _stop_reading(self) -> None:
        if self._reading and not self.closing:
            self._reading = False
            self.transport.pause_reading()

    def _start_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()

    def _encourage(self, request: Request) -> None:
        """Ask for the body of a request whose client waits for that (RFC 9110 10.1.1)."""
        request.expect = False
        if request.refusal is None and request.http11:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _too_large(self) -> Rejection:
        limit = self.gateway.settings.max_body_bytes
        return errors.invalid(f"The body is larger than {limit} bytes.", status=413, code="request_too_large")

    # Refusing it

    def _refuse_incoming(self, refusal: Rejection) -> None:
        """Refuse what is coming in, when those that came whole before it are answered, and read no more of it.

        The rest of its body is not read as anything: the connection closes after the answer.
        """
        culprit = self._culprit()
        culprit.refusal = replace(refusal, close=True)
        self._drop_incoming()
        self._queue.append(culprit)
        self._stop_reading()

    def _drop_incoming(self) -> None:
        self._incoming = None
        if self._upload is not None:
            self._give_back()

    def _culprit(self) -> Request:
        """Return the request that is coming in, if its head has come, or a stand-in."""
        incoming = self._incoming
        return incoming if incoming is not None and incoming.method else unnamed()

    def _too_late(self) -> Rejection:
        """Return why a request whose time is over is refused."""
        if self._held:
            return replace(full(), close=True)
        return errors.timeout("The request did not come in time.", status=408)

    def _next(self) -> None:
        """Go on with whatever is next."""
        raise NotImplementedError
