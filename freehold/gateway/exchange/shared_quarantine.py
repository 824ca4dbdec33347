"""A quarantine that all workers of one gateway share: what one has blocked, the others reject as soon as they are woken. Pure.

Each worker writes the newest hashes into rows of the shared counters and reads those of the others. It writes down what it
read as well, so that a worker that is restarted has all of it again. Bodies that are only alike are known to their own worker.
"""

from collections.abc import Callable

from freehold.gateway.counters.shared_counters import SharedCounters
from freehold.gateway.exchange.quarantine import BarredRequest, Quarantine

_ROWS = 64
"""Hashes that each worker shares, the newest. Source: our own bound: 32 bodies with their callers, and engines to end are few."""
_KEY, _UNTIL_MS, _LENGTH, _WRITTEN, _UNANSWERED, _LEFT = range(6)


class SharedQuarantine(Quarantine):
    """The bodies and callers of all workers; `wake_others` makes them call `read_others`."""

    __slots__ = ("_rows", "_seen", "_wake_others", "_written")

    def __init__(self, counters: SharedCounters, wake_others: Callable[[], object]) -> None:
        super().__init__()
        self._rows = [counters.row(f"quarantine {number}") for number in range(_ROWS)]
        self._wake_others = wake_others
        self._written = 0
        self._seen = 0

    def add_sender(self, model: str, caller: str, *, body: bytes, now_s: float) -> None:
        """Remember a caller, and the body that was added before, at all workers."""
        super().add_sender(model, caller, body=body, now_s=now_s)
        self._wake_others()

    def bars(self, request: BarredRequest, now_s: float) -> bool:
        """Return whether a request may not be given a replica, also for what other workers have under way."""
        barred = super().bars(request, now_s)
        self._rows[0].put(_UNANSWERED, len(self._unanswered))
        return barred

    def unanswered_elsewhere(self) -> int:
        """Return how many such requests other workers had under way when each looked last: a tick ago at most."""
        return self._rows[0].others(_UNANSWERED)

    def count_left(self, number: int) -> None:
        """Tell other workers how many requests have left engines at work lately."""
        self._rows[0].put(_LEFT, number)

    def left_elsewhere(self) -> int:
        """Return how many requests of other workers have."""
        return self._rows[0].others(_LEFT)

    def remember(self, key: int, until_s: float, length: int) -> None:
        """Remember a hash and write it down for the other workers."""
        super().remember(key, until_s, length)
        row = self._rows[self._written % _ROWS]
        self._written += 1
        row.put(_UNTIL_MS, 0)  # what is half written is over
        row.put(_KEY, key)
        row.put(_LENGTH, length)
        row.put(_UNTIL_MS, int(until_s * 1000))
        self._rows[0].put(_WRITTEN, self._written)

    def read_others(self, now_s: float) -> None:
        """Remember what other workers wrote since the last time."""
        written = self._rows[0].others(_WRITTEN)
        if written == self._seen:
            return
        self._seen = written
        for row in self._rows:
            for _, (key, until_ms, length, *_) in row.each():
                if until_ms > now_s * 1000 and not self._holds(key, now_s):
                    self.remember(key, until_ms / 1000, length)

    def tidy(self, now_s: float) -> None:
        """Forget what is over, and read what others wrote."""
        self.read_others(now_s)
        super().tidy(now_s)
        self._rows[0].put(_UNANSWERED, len(self._unanswered))
