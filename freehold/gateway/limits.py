"""What one key may still do: token buckets on virtual time, in whole numbers, so that nothing is lost in rounding.

A bucket holds one minute's allowance and fills evenly. So over any stretch of t minutes a key is given at most
(1 + t) times its limit, and over a long one exactly its limit. Pure: the time comes in as a value; one that goes back
fills nothing, one that jumps ahead fills a bucket at most to its brim. It does not know whose request it judges.
"""

from dataclasses import dataclass
from typing import Literal

from freehold.gateway.keys import Limits

_MINUTE_US = 60_000_000
"""A level counts in minute-microseconds: at n a minute a bucket gains exactly n in each microsecond."""


class Bucket:
    """One allowance of `per_minute` things a minute; full but for what was used of an `older` one with another limit."""

    __slots__ = ("_at_us", "_brim", "_level", "per_minute")

    def __init__(self, per_minute: int, now_us: int, *, older: "Bucket | None" = None) -> None:
        self.per_minute = per_minute
        self._brim = self._level = per_minute * _MINUTE_US
        self._at_us = now_us
        if older is not None:
            older.fill(now_us)
            self._level -= older.used

    def __repr__(self) -> str:
        return f"<Bucket {self.remaining} of {self.per_minute}>"

    def fill(self, now_us: int) -> None:
        """Add what the time since the last look has earned; the other methods speak of that moment."""
        if now_us > self._at_us:
            self._level = min(self._brim, self._level + (now_us - self._at_us) * self.per_minute)
            self._at_us = now_us

    def wait_us(self, amount: int) -> int:
        """Return in how many microseconds there is room for `amount`, 0 for now; more than the brim never fits."""
        lacking = amount * _MINUTE_US - self._level
        return -(-lacking // self.per_minute) if lacking > 0 else 0

    def take(self, amount: int) -> None:
        """Take `amount` out, below nothing if need be; a negative one is given back, at most to the brim."""
        self._level = min(self._brim, self._level - amount * _MINUTE_US)

    @property
    def remaining(self) -> int:
        """Return how many whole things are left."""
        return max(0, self._level // _MINUTE_US)

    @property
    def used(self) -> int:
        """Return what is missing from the brim, in minute-microseconds."""
        return self._brim - self._level

    @property
    def full_in_us(self) -> int:
        """Return in how many microseconds it is full again if nothing is taken."""
        return -(-self.used // self.per_minute)


@dataclass(frozen=True, slots=True)
class Over:
    """Which limit a request would break, and when it would not."""

    limit: Literal["requests", "tokens", "size", "concurrency", "reserved", "budget"]
    """`size`: more tokens than a minute ever has; `reserved`: only requests under way stand in the budget's way."""
    wait_us: int | None
    """Microseconds until there is room; None: nobody knows, or never."""


class Allowance:
    """All buckets of one key, and how many of its requests are under way."""

    __slots__ = ("concurrency", "in_flight", "requests", "tokens")

    def __init__(self, limits: Limits, now_us: int) -> None:
        self.in_flight = 0
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.change(limits, now_us)

    def change(self, limits: Limits, now_us: int) -> None:
        """Hold to other limits from now on; what was used stays used."""
        self.concurrency = limits.concurrency
        self.requests = _bucket(limits.requests_per_minute, now_us, self.requests)
        self.tokens = _bucket(limits.tokens_per_minute, now_us, self.tokens)

    def over(self, tokens: int, now_us: int) -> Over | None:
        """Return the limit that one more request of `tokens` would break, or None. Nothing is taken."""
        if self.requests is not None:
            self.requests.fill(now_us)
        if self.tokens is not None:
            self.tokens.fill(now_us)
            if tokens > self.tokens.per_minute:
                return Over("size", None)
        if self.concurrency is not None and self.in_flight >= self.concurrency:
            return Over("concurrency", None)
        requests_us = self.requests.wait_us(1) if self.requests is not None else 0
        tokens_us = self.tokens.wait_us(tokens) if self.tokens is not None else 0
        if tokens_us > requests_us:
            return Over("tokens", tokens_us)
        return Over("requests", requests_us) if requests_us else None

    def take(self, tokens: int) -> None:
        """Take one request of `tokens`, which `over` has just found room for."""
        self.in_flight += 1
        if self.requests is not None:
            self.requests.take(1)
        self.charge(tokens)

    def charge(self, tokens: int) -> None:
        """Take more tokens than were found room for, or give back: what was really used has become known."""
        if self.tokens is not None:
            self.tokens.take(tokens)


def _bucket(per_minute: int | None, now_us: int, older: Bucket | None) -> Bucket | None:
    return None if per_minute is None else Bucket(per_minute, now_us, older=older)


def limit_lines(allowance: Allowance) -> bytes:
    """Return OpenAI's `x-ratelimit-*` header lines for the limits that there are, as they stand now."""
    lines = b""
    if allowance.requests is not None:
        lines = _lines(b"requests", allowance.requests)
    return lines if allowance.tokens is None else lines + _lines(b"tokens", allowance.tokens)


def _lines(what: bytes, bucket: Bucket) -> bytes:
    return b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %b\r\n" % (
        what, bucket.per_minute, what, bucket.remaining, what, duration(bucket.full_in_us),
    )  # fmt: skip


def duration(value_us: int) -> bytes:
    """Return a time as OpenAI writes it, rounded up: `88ms`, `12s`, `6m0s`. Source: OpenAI, "Rate limits in headers"."""
    if value_us <= 999_000:
        return b"%dms" % -(-value_us // 1000)
    minutes, seconds = divmod(-(-value_us // 1_000_000), 60)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds
