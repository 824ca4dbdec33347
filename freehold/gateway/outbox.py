"""What leaves at the end of a turn of the loop: requests to engines, and answers that came whole, one behind the other.

A busy loop reads from many connections in one turn. Were each of them written to at once, the kernel would wake its peer
every time, and the processor would change between our code and the kernel's with each; so all that one turn has to send
is sent together when all that it has read is dealt with. The records of these answers are one write to the spool, which is
done before the first of them leaves. Nothing waits for a clock here, and alone it waits for nothing. Streams do not pass
here: a chunk is written where it is read.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol


class Sender(Protocol):
    """A connection with something to send."""

    unsent: bytes
    """What leaves at the end of the turn; empty: it has left, or shall not leave any more."""
    write: Callable[[bytes], None]


class Outbox:
    """What one gateway sends at the end of this turn. `first` is done before anything leaves."""

    __slots__ = ("_first", "_loop", "_senders")

    def __init__(self, first: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._first = first
        self._senders: list[Sender] = []

    def __repr__(self) -> str:
        return f"<Outbox of {len(self._senders)} senders>"

    def add(self, sender: Sender) -> None:
        """Send what `sender` has unsent at the end of this turn."""
        if not self._senders:
            self._loop.call_soon(self.empty)
        self._senders.append(sender)

    def empty(self) -> None:
        """Send everything now. What fails is told the loop's guard (`run`): the rest leaves, and who calls this goes on."""
        senders, self._senders = self._senders, []
        try:
            self._first()
        except Exception as exc:  # noqa: BLE001 (guard: whoever calls this is another client, or a drain)
            self._tell(exc)
        for sender in senders:
            data = sender.unsent
            if data:
                sender.unsent = b""
                try:
                    sender.write(data)
                except Exception as exc:  # noqa: BLE001 (guard: as above)
                    self._tell(exc)

    def _tell(self, exc: Exception) -> None:
        self._loop.call_exception_handler({"message": "the outbox failed", "exception": exc})
