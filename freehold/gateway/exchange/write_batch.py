"""What leaves at the end of a turn of the loop: requests to engines, and answers that came whole, one behind the other.

A busy loop reads from many connections in one turn. Were each of them written to at once, the kernel would wake its peer
every time, and the processor would change between our code and the kernel's with each; so all that one turn has to send
is sent together when all that it has read is dealt with. The records of these answers are one write to the spool, which is
done before the first of them leaves. Nothing waits for a clock here, and alone it waits for nothing. Streams do not pass
here: a chunk is written where it is read.
"""

import asyncio
from collections.abc import Callable, Iterator

from freehold.gateway.wire.ports import Sender


class WriteBatch:
    """What one gateway sends at the end of this turn. `first` is called before anything leaves; None: there is no ledger."""

    __slots__ = ("_first", "_loop", "_senders")

    def __init__(self, first: Callable[[], object] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._first = first
        self._senders: list[Sender] = []

    def __repr__(self) -> str:
        return f"<WriteBatch of {len(self._senders)} senders>"

    def add(self, sender: Sender) -> None:
        """Send what `sender` has unsent at the end of this turn."""
        if not self._senders:
            self._loop.call_soon(self.empty)
        self._senders.append(sender)

    def empty(self) -> None:
        """Send everything now."""
        senders, self._senders = self._senders, []
        try:
            if self._first is not None:
                self._first()
        finally:
            self._send(iter(senders))

    def _send(self, senders: Iterator[Sender]) -> None:
        """Send one after the other; one that fails ends in the guard (`run`), and the rest is sent after it."""
        try:
            for sender in senders:
                data = sender.unsent
                if data:
                    sender.unsent = b""
                    sender.write(data)
        except Exception:
            # A later `empty` sends these first.
            self._senders[:0] = senders
            self._loop.call_soon(self.empty)
            raise
