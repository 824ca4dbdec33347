"""Retry after a `Temporary` failure, a bounded number of times; every remote source uses it.

A try that brought new bytes resets the count, so that a long download over a bad line completes, while one that
gains nothing ends soon. It does not decide what is temporary: the file that owns the client does.
"""

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from freehold.core.errors import Temporary

Result = TypeVar("Result")

GAIN_BYTES = 1 << 20
"""New bytes that make a failed try count as progress. Source: bounds the tries by the file's size in MiB."""

_SLICE_S = 0.2  # between two calls of `on_wait`, which may cancel
_dice = random.SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How often to retry, and how long to wait.

    Source of the defaults: our choice; with them the fetch fails after about 8 s of waiting for a server that is down.
    """

    attempts: int = 5
    """Tries in a row that may fail without new bytes; at least 1."""
    first_s: float = 0.5
    """Wait before the second try, seconds; it doubles for each further one, less up to a quarter by chance."""
    longest_s: float = 30.0
    """Longest wait of our own, seconds."""
    patience_s: float = 120.0
    """Longest `Retry-After` that is waited for, seconds; a longer one ends the fetch."""

    def wait_s(self, failures: int, error: Temporary) -> float | None:
        """Return the seconds to wait after `failures` failures in a row, or None to stop retrying."""
        asked_s = error.retry_after_s or 0.0
        if failures >= self.attempts or asked_s > self.patience_s:
            return None
        own_s = min(self.first_s * 2.0 ** (failures - 1), self.longest_s)
        return max(asked_s, own_s * _dice.uniform(0.75, 1.0))


def persist(
    attempt: Callable[[], Result],
    *,
    backoff: Backoff,
    gained_bytes: Callable[[], int],
    on_wait: Callable[[Temporary, float], None],
) -> Result:
    """Return what `attempt` returns, retrying after `Temporary` as `backoff` says; else raise the last one.

    `gained_bytes` returns the most that any try has had on disk; `on_wait` gets the failure and the seconds left,
    several times a second, and may raise to cancel.
    """
    failures, best_bytes = 0, 0
    while True:
        try:
            return attempt()
        except Temporary as error:
            if gained_bytes() >= best_bytes + GAIN_BYTES:
                failures, best_bytes = 0, gained_bytes()
            failures += 1
            wait_s = backoff.wait_s(failures, error)
            if wait_s is None:
                raise
            for left_s in _slices(wait_s):
                on_wait(error, left_s)


def _slices(wait_s: float) -> Iterator[float]:
    never = threading.Event()
    while wait_s > 0:
        yield wait_s
        never.wait(min(wait_s, _SLICE_S))
        wait_s -= _SLICE_S
