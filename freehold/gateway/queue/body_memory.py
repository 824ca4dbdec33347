"""Memory for request bodies that are still coming in: how much all of them may take, and which is next. Pure.

A body asks for all of its bytes at once and has them until it is whole. If bytes were given piece by piece, many half bodies could
fill the memory and none of them would ever end. A client without room is not read from, so its own kernel buffers the rest,
and it waits in turn; small bodies never ask. One key has at most half of the memory and of the line, so that it does not keep
other keys out, and no more bodies than it may have requests at once. A whole body is a request, and the queue bounds those.
There are no sockets here and no clocks.
"""

from collections.abc import Callable

from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request import Caller

SMALL_BYTES = 64 * 1024
"""Largest body that never waits here, bytes. Source: our own choice: sixteen thousand tokens of text; longer ones are
rare, and all connections that may be open hold 1.3 GB of such at the most."""
WAITING_MAX = 256
"""Bodies that may wait for room. Source: our own choice: each holds what its client sent before it was stopped, at most
320 KiB, 80 MiB in all."""
_RETRY_AFTER_S = 5.0  # Source: our own choice: 16 MiB come in 5 s over 27 Mbit/s.


class Upload:
    """One body that comes in, or waits for room to do so."""

    __slots__ = ("caller", "comes", "on_room", "size_bytes")

    def __init__(self, caller: Caller | None, size_bytes: int, on_room: Callable[[], None]) -> None:
        """Take its key (None: no key is needed), its size or the most it may have, and what to call when there is room."""
        self.caller = caller
        self.size_bytes = size_bytes
        self.on_room = on_room
        self.comes = False
        """It has its room."""

    def __repr__(self) -> str:
        return f"<Upload of {self.size_bytes} bytes, {'coming' if self.comes else 'waiting'}>"


class _CallerShare:
    """What one caller has here."""

    __slots__ = ("bodies", "held_bytes", "waiting")

    def __init__(self) -> None:
        self.bodies = self.waiting = self.held_bytes = 0


class BodyMemory:
    """The room for bodies of one gateway process."""

    def __init__(self, room_bytes: int) -> None:
        self.room_bytes = room_bytes
        self.held_bytes = 0
        """What those that come in may take."""
        self._waiting: dict[Upload, None] = {}
        self._parts: dict[Caller, _CallerShare] = {}

    def __repr__(self) -> str:
        return f"<BodyMemory {self.held_bytes} of {self.room_bytes} bytes, {len(self._waiting)} wait>"

    @property
    def waiting(self) -> int:
        """Return how many bodies wait for room."""
        return len(self._waiting)

    def ask(self, upload: Upload) -> Rejection | None:
        """Give a body its room or a place in the line (see `upload.comes`), or return why it gets neither."""
        rejection = self._why_not(upload)
        if rejection is not None:
            return rejection
        self._waiting[upload] = None
        part = self._part(upload)
        part.bodies += 1
        part.waiting += 1
        self._let_in(upload)
        return None

    def give_back(self, upload: Upload) -> None:
        """Take the room, or the place in the line, of a body that is whole or will never be; once for each `ask`."""
        part = self._part(upload)
        if upload.comes:
            upload.comes = False
            self.held_bytes -= upload.size_bytes
            part.held_bytes -= upload.size_bytes
        else:
            del self._waiting[upload]
            part.waiting -= 1
        part.bodies -= 1
        if upload.caller is not None and not part.bodies:
            del self._parts[upload.caller]
        self._let_in()

    def resize(self, room_bytes: int) -> None:
        """Use another size; what has room keeps it."""
        self.room_bytes = room_bytes
        self._let_in()

    def _part(self, upload: Upload) -> _CallerShare:
        return (
            _CallerShare() if upload.caller is None else self._parts.setdefault(upload.caller, _CallerShare())
        )

    def _why_not(self, upload: Upload) -> Rejection | None:
        part, waiting_max = None, WAITING_MAX
        if upload.caller is not None:
            part, waiting_max = self._parts.get(upload.caller), WAITING_MAX // 2
            most = upload.caller.concurrency
            if part is not None and most is not None and part.bodies >= most:
                return upload.caller.over_concurrency()
        if len(self._waiting) >= WAITING_MAX or (part is not None and part.waiting >= waiting_max):
            return full()
        return None

    def _let_in(self, asking: Upload | None = None) -> None:
        """Give room in turn; a key that has its half is skipped until it has less, other bodies wait in line."""
        for upload in list(self._waiting):
            part = self._part(upload)
            whole, half = self.room_bytes, self.room_bytes // 2
            if upload.caller is not None and part.held_bytes and part.held_bytes + upload.size_bytes > half:
                continue
            if self.held_bytes and self.held_bytes + upload.size_bytes > whole:
                return  # and no body overtakes it, or the largest would never come
            del self._waiting[upload]
            upload.comes = True
            self.held_bytes += upload.size_bytes
            part.held_bytes += upload.size_bytes
            part.waiting -= 1
            if upload is not asking:
                upload.on_room()


def full() -> Rejection:
    """Return the 503 for a body for which there was no room in time."""
    message = "Too many large requests are coming in; this one was not read."
    return errors.unavailable(message, code="too_many_uploads", retry_after_s=_RETRY_AFTER_S)
