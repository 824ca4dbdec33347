"""What one key may still do: token buckets on virtual time, in whole numbers, so that nothing is lost in rounding.

A bucket holds one minute's allowance and fills evenly. So over any stretch of t minutes a key is given at most
(1 + t) times its limit, and over a long one exactly its limit. Pure: the time comes in as a value; one that goes back
fills nothing, one that jumps ahead fills a bucket at most to its brim. It does not know which request it judges.
"""

from dataclasses import dataclass
from typing import Literal

from freehold.engines.base import ApiError
from freehold.gateway.callers.keys import KeyLimits
from freehold.gateway.wire.errors import RETRY_AFTER_S_MAX, Rejection

MINUTE_MS = 60_000
"""A level counts in minute-milliseconds: at n a minute a bucket gains exactly n in each millisecond."""


class Bucket:
    """One allowance of `per_minute` things a minute; full but for what was used of an `older` one with another limit."""

    __slots__ = ("_at_ms", "_brim", "level", "per_minute")

    def __init__(self, per_minute: int, now_ms: int, *, older: "Bucket | None" = None) -> None:
        self.per_minute = per_minute
        self._brim = self.level = per_minute * MINUTE_MS
        """What is left, in minute-milliseconds; below nothing where more was used than was asked for."""
        self._at_ms = now_ms
        if older is not None:
            older.wait_ms(0, now_ms)
            self.level -= older.used

    def __repr__(self) -> str:
        return f"<Bucket {self.level / MINUTE_MS:.1f} of {self.per_minute}>"

    def wait_ms(self, amount: int, now_ms: int) -> int:
        """Return in how many milliseconds there is room for `amount`, 0 for now; more than the brim never fits."""
        level = self.level
        if now_ms > self._at_ms:
            level += (now_ms - self._at_ms) * self.per_minute
            if level > self._brim:  # noqa: PLR1730 - min() costs as much as all the rest here
                level = self._brim
            self.level, self._at_ms = level, now_ms
        lacking = amount * MINUTE_MS - level
        return -(-lacking // self.per_minute) if lacking > 0 else 0

    def take(self, amount: int) -> None:
        """Take `amount` out, below nothing if need be; a negative one is given back, at most to the brim."""
        self.level -= amount * MINUTE_MS
        if self.level > self._brim:  # noqa: PLR1730 - as above
            self.level = self._brim

    @property
    def used(self) -> int:
        """Return what is missing from the brim, in minute-milliseconds."""
        return self._brim - self.level

    def shown(self) -> tuple[int, bytes]:
        """Return how many whole things are left, and in what time the bucket is full if nothing more is taken."""
        level = self.level
        full_in_ms = -((level - self._brim) // self.per_minute)
        left = level // MINUTE_MS if level > 0 else 0
        return left, _SHORT[full_in_ms] if full_in_ms < 1000 else duration(full_in_ms)


@dataclass(frozen=True, slots=True)
class Over:
    """Which limit a request would break, and when it would not."""

    limit: Literal["requests", "tokens", "size", "concurrency", "reserved", "budget", "usd_reserved", "usd"]
    """`size`: more tokens than a minute ever has; `reserved`: only requests under way stand in the budget's way."""
    wait_ms: int | None = None
    """Milliseconds until there is room; None: unknown, or never."""


_UNKNOWN_MS = 1000  # Where the wait is not known, the client is asked to retry after a second.
# The message for each limit; `l` are the key's limits, `t` the tokens that the request may take.
_OVER = {
    "requests": "This API key may send {l.requests_per_minute} requests a minute.",
    "tokens": "This API key may use {l.tokens_per_minute} tokens a minute; this request may take {t}.",
    "size": "This request may take {t} tokens, prompt and answer; this API key may use {l.tokens_per_minute} a minute."
    " Lower its max_tokens or shorten it.",
    "concurrency": "This API key may have {l.concurrency} requests under way at once.",
    "reserved": "The rest of this API key's {l.monthly_tokens} tokens a month is reserved by requests under way.",
    "budget": "This API key has used its {l.monthly_tokens} tokens of this month.",
    "usd_reserved": "The rest of this API key's {usd} USD a month is reserved by requests under way.",
    "usd": "This API key has used its {usd} USD of this month.",
}


def over_limit(over: Over, limits: KeyLimits, *, tokens: int) -> Rejection:
    """Return the 429 for a caller's own limit; it says when to retry, or that a retry does not help."""
    spent = over.limit in {"budget", "usd"}
    usd = f"{(limits.monthly_microusd or 0) / 1e6:.2f}"
    error = ApiError(
        status=429,
        message=_OVER[over.limit].format(l=limits, t=tokens, usd=usd),
        type="rate_limit_error",
        code="insufficient_quota" if spent else "rate_limit_exceeded",
    )
    if spent or over.limit == "size":
        return Rejection(error=error, headers=b"x-should-retry: false\r\n")
    wait_ms = min(RETRY_AFTER_S_MAX * 1000, over.wait_ms or _UNKNOWN_MS)
    lines = b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (-(-wait_ms // 1000), wait_ms)
    return Rejection(error=error, headers=lines)


class Allowance:
    """All buckets of one key, and how many of its requests are under way."""

    __slots__ = ("_concurrency", "_form", "_requests", "_tokens", "in_flight")

    def __init__(self, limits: KeyLimits, now_ms: int) -> None:
        self.in_flight = 0
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self.change(limits, now_ms)

    def change(self, limits: KeyLimits, now_ms: int) -> None:
        """Hold to other limits from now on; what was used stays used."""
        self._concurrency = limits.concurrency
        self._requests = _bucket(limits.requests_per_minute, now_ms, self._requests)
        self._tokens = _bucket(limits.tokens_per_minute, now_ms, self._tokens)
        self._form = _form(b"requests", self._requests) + _form(b"tokens", self._tokens)

    def ask(self, tokens: int, now_ms: int) -> Over | None:
        """Take one request of `tokens`, or return the limit that it would break; then nothing is taken."""
        requests, bucket = self._requests, self._tokens
        requests_ms = 0 if requests is None else requests.wait_ms(1, now_ms)
        tokens_ms = 0 if bucket is None else bucket.wait_ms(tokens, now_ms)
        if bucket is not None and tokens > bucket.per_minute:
            return Over("size")
        if self._concurrency is not None and self.in_flight >= self._concurrency:
            return Over("concurrency")
        if requests_ms or tokens_ms:
            return Over("tokens", tokens_ms) if tokens_ms > requests_ms else Over("requests", requests_ms)
        self.in_flight += 1
        if requests is not None:
            requests.level -= MINUTE_MS
        if bucket is not None:
            bucket.level -= tokens * MINUTE_MS
        return None

    def charge(self, tokens: int) -> None:
        """Take more tokens than were asked for, or give some back: what was really used has become known."""
        if self._tokens is not None:
            self._tokens.take(tokens)

    def give_back_request(self) -> None:
        """Count one request less: it came to nothing."""
        if self._requests is not None:
            self._requests.take(-1)

    def lines(self) -> bytes:
        """Return OpenAI's `x-ratelimit-*` header lines for the limits that there are, as they stood at the last `ask`."""
        requests, tokens = self._requests, self._tokens
        if tokens is None:
            return b"" if requests is None else self._form % requests.shown()
        return self._form % (tokens.shown() if requests is None else requests.shown() + tokens.shown())


def _bucket(per_minute: int | None, now_ms: int, older: Bucket | None) -> Bucket | None:
    return None if per_minute is None else Bucket(per_minute, now_ms, older=older)


def _form(what: bytes, bucket: Bucket | None) -> bytes:
    """Return the header lines of one limit with places for what is left and for when it is full."""
    lines = b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%b\r\n"
    return b"" if bucket is None else lines % (what, bucket.per_minute, what, what)


def duration(value_ms: int) -> bytes:
    """Return a time as OpenAI writes it: `88ms`, `12s`, `6m0s`, from a second on rounded up to whole ones.

    Source: OpenAI API guide, "Rate limits in headers".
    """
    if value_ms < 1000:
        return _SHORT[value_ms]
    seconds = -(-value_ms // 1000)
    return b"%ds" % seconds if seconds < 60 else b"%dm%ds" % divmod(seconds, 60)


_SHORT = tuple(b"%dms" % value_ms for value_ms in range(1000))  # Made once: most answers carry one of these.
