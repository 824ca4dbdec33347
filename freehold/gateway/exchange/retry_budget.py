"""How many retries a gateway may make, so that a failing fleet is not asked twice as much. Pure.

It does not know which request is retried, nor where.
"""


class RetryBudget:
    """A token bucket for retries: each request earns a fifth of one, each second ten; at most a hundred are kept.

    Source: the shape and the 20% + 10/s of Finagle's RetryBudget (Twitter, documentation of com.twitter.finagle).
    """

    PER_REQUEST = 0.2  # Source: as above
    PER_SECOND = 10.0  # Source: as above
    KEPT_MAX = 100.0  # Source: as above (ten seconds of the floor)

    __slots__ = ("_at_s", "_kept", "requests")

    def __init__(self, now_s: float) -> None:
        self.requests = 0
        """Requests since the last retry. Each adds one here, without a call."""
        self._kept = self.KEPT_MAX
        self._at_s = now_s

    def __repr__(self) -> str:
        return f"<RetryBudget {min(self.KEPT_MAX, self._kept + self.requests * self.PER_REQUEST):.1f} left>"

    def spend(self, now_s: float) -> bool:
        """Return whether a retry may be made now, and count it."""
        earned = self.requests * self.PER_REQUEST + (now_s - self._at_s) * self.PER_SECOND
        self._kept, self.requests, self._at_s = min(self.KEPT_MAX, self._kept + earned), 0, now_s
        if self._kept < 1.0:
            return False
        self._kept -= 1.0
        return True
