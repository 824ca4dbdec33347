"""Which endpoint gets a request: the least loaded of those that may have it. Pure.

Load is requests in flight over slots, since a replica with eight slots takes twice what one with four does. An
endpoint that just failed is suspected for a while and comes last, but is never ruled out: the least bad of many
bad ones is still tried. Retries draw on a budget, so that a failing fleet is not asked twice as much.
"""

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """What routing looks at; `gateway.targets.Target` is one."""

    @property
    def id(self) -> str:
        """Return the endpoint's id."""
        ...

    @property
    def in_flight(self) -> int:
        """Return the requests under way there."""
        ...

    @property
    def slots(self) -> int:
        """Return how many it works on at once; 0 is unknown."""
        ...

    @property
    def suspect_until_s(self) -> float:
        """Return when suspicion ends, on the caller's monotonic clock."""
        ...


C = TypeVar("C", bound=Candidate)


def choose(candidates: Sequence[C], now_s: float, *, turn: int, tried: Collection[str] = ()) -> C | None:
    """Return the best candidate not yet `tried`, or None.

    `turn` counts requests: ties go round, so that idle replicas share the work.
    """
    best: C | None = None
    best_rank = (2.0, 0.0)
    count = len(candidates)
    for offset in range(count):
        candidate = candidates[(turn + offset) % count]
        if candidate.id in tried:
            continue
        rank = _rank(candidate, now_s)
        if best is None or rank < best_rank:
            best, best_rank = candidate, rank
    return best


def _rank(candidate: Candidate, now_s: float) -> tuple[float, float]:
    if candidate.suspect_until_s > now_s:
        return 1.0, candidate.suspect_until_s
    return 0.0, candidate.in_flight / (candidate.slots or 1)


# Back-off of suspicion: 1, 2, 4 and then 8 s. Source: our own choice; long enough for a llama.cpp restart (about 1 s),
# short enough that a replica which came back is found by the next few requests.
_SUSPICION_S_MIN = 1.0
_SUSPICION_DOUBLINGS_MAX = 3


def suspicion_s(failures: int) -> float:
    """Return for how long an endpoint is suspected after `failures` (≥ 1) in a row, seconds."""
    return float(_SUSPICION_S_MIN * 2 ** min(failures - 1, _SUSPICION_DOUBLINGS_MAX))


class RetryBudget:
    """A token bucket for retries: each request earns a fifth of one, each second ten, a hundred are kept at most.

    Source: the shape and the 20% + 10/s of Finagle's RetryBudget (Twitter, documentation of com.twitter.finagle).
    """

    PER_REQUEST = 0.2  # Source: as above
    PER_SECOND = 10.0  # Source: as above
    KEPT_MAX = 100.0  # Source: as above (ten seconds of the floor)

    def __init__(self, now_s: float) -> None:
        self._kept = self.KEPT_MAX
        self._at_s = now_s

    def __repr__(self) -> str:
        return f"<RetryBudget {self._kept:.1f} left>"

    def earn(self) -> None:
        """Count one request."""
        if self._kept < self.KEPT_MAX:
            self._kept += self.PER_REQUEST

    def spend(self, now_s: float) -> bool:
        """Return whether a retry may be made now, and count it."""
        self._kept = min(self.KEPT_MAX, self._kept + (now_s - self._at_s) * self.PER_SECOND)
        self._at_s = now_s
        if self._kept < 1.0:
            return False
        self._kept -= 1.0
        return True
