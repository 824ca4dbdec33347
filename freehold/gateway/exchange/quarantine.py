"""Which bodies crashed an engine, and which callers sent them, for a while: such a body is not sent again. Pure.

Bodies are kept as hashes and compared only with those of the same length, so that other requests cost nothing. It does not find
out which request was the cause: `crash_retry` does.
"""

from hashlib import blake2b
from typing import Protocol

from freehold.gateway.endpoints.model import ServedModel
from freehold.gateway.wire import errors
from freehold.gateway.wire.constraint_limits import CONSTRAINTS
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.headers import AnswerHead
from freehold.gateway.wire.request import Request

_BODY_S = 600.0
"""How long a body is rejected, seconds. Source: our own choice: longer than clients retry, short enough for a mistake."""
_CALLER_S = 600.0
"""How long its caller gets no last ready replica, seconds. Source: our own choice: as long as its body is rejected."""
_NO_CALLER_S = 60.0
"""The same for requests without keys, seconds. Source: our own choice: an engine is ready again by then, and others are like them."""
_KEPT_MAX = 1000
"""Hashes remembered; the oldest go first. Source: our own bound: some 200 KB, and engines to end are few."""
_SHAPING = tuple(f'"{key}"'.encode() for key in CONSTRAINTS if key != "text")
"""A body with one of these keys makes an engine parse what its caller wrote; `text` is a usual key of messages too."""
LARGE_BYTES = 64 * 1024
"""A body of this size is a likelier cause than a smaller one. Source: our own choice; 16,000 tokens of text."""
_SMALL_MAX = 16
"""Small bodies without a caller that are remembered whole. Source: our own bound: 1 MiB, and a comparison with each takes
microseconds."""
_WITHOUT_KEYS = ("(constrained)", "(large)")
"""The senders of requests without keys: all that constrain their answers are one, all other large ones another."""
_CHANGED_BYTES = 8
"""Bodies that differ in one place of at most so many bytes are alike. Source: our own choice: a counter or a seed."""


class BarredAttempt(Protocol):
    """A request's newest attempt; `attempt.Attempt` is one."""

    head: AnswerHead | None


class SentRequest(Protocol):
    """A request with its sender; `exchange.Exchange` is one."""

    model: ServedModel
    request: Request
    caller: str


class BarredRequest(SentRequest, Protocol):
    """A request that may be barred from the last ready replica; `exchange.Exchange` is one."""

    saw_crash: bool
    done: bool

    @property
    def attempt(self) -> BarredAttempt | None:
        """Return its newest attempt; None: it waits, or is over."""


class Quarantine:
    """The bodies and callers of one gateway process."""

    __slots__ = ("_lengths", "_small", "_unanswered", "_until_s", "is_empty")

    def __init__(self) -> None:
        self._until_s: dict[int, float] = {}
        """Until when, by the hash of a model and a body or caller; the oldest first."""
        self._small: dict[tuple[str, bytes], float] = {}
        """Until when a body without a caller bars those like it, by model and body; the oldest first."""
        self._lengths: frozenset[int] = frozenset()
        """Of the bodies; one that is over may still be among them."""
        self._unanswered: list[BarredRequest] = []
        """Of senders that crashed an engine: requests that may crash another one while it works on their first byte."""
        self.is_empty = True
        """Nothing need be asked: each request looks at this first."""

    def __repr__(self) -> str:
        return f"<Quarantine {len(self._until_s)} hashes, {len(self._small)} bodies>"

    def add(self, model: str, body: bytes, *, caller: str, now_s: float) -> None:
        """Remember a body that crashed an engine, and its caller (`sender_of`)."""
        self.remember(_hash(model, body), now_s + _BODY_S, len(body))
        self.add_sender(model, caller, body=body, now_s=now_s)

    def add_sender(self, model: str, caller: str, *, body: bytes, now_s: float) -> None:
        """Remember a caller (`sender_of`) of which one request may have crashed an engine; without one, its small body."""
        if caller:
            lasts_s = _NO_CALLER_S if caller in _WITHOUT_KEYS else _CALLER_S
            self.remember(_hash(model, caller.encode()), now_s + lasts_s, 0)
            return
        self.is_empty = False
        self._small[model, body] = now_s + _NO_CALLER_S
        if len(self._small) > _SMALL_MAX:
            del self._small[next(iter(self._small))]

    def remember(self, key: int, until_s: float, length: int) -> None:
        """Remember the hash of a body of this length, or of a caller (length 0), until then."""
        self.is_empty = False
        self._until_s.pop(key, None)
        self._until_s[key] = until_s
        if length:
            self._lengths |= {length}
        if len(self._until_s) > _KEPT_MAX:
            del self._until_s[next(iter(self._until_s))]

    def refuse(self, model: str, body: bytes, now_s: float) -> Rejection | None:
        """Return the 400 for a body that crashed an engine, or None."""
        if len(body) not in self._lengths or not self._holds(_hash(model, body), now_s):
            return None
        message = "An engine crashed on this same request. It is rejected for 10 minutes: change the request."
        return errors.invalid(message, code="request_quarantined")

    def bars(self, request: BarredRequest, now_s: float) -> bool:
        """Return whether a request may not be given a replica: it, or one like it, may have crashed another.

        One ready replica stays free of such requests, also if they come at the same time. A small one without grammar, schema or
        tools is only kept from the last.
        """
        if not (request.saw_crash or self.knows(request, now_s)):
            return False
        free = request.model.standing(now_s) - 1
        if free < 1 or not may_crash(request.request.body):
            return free < 1
        self._unanswered = [each for each in self._unanswered if each is not request and _is_unanswered(each)]
        if len(self._unanswered) + self.unanswered_elsewhere() >= free:
            return True
        self._unanswered.append(request)
        return False

    def unanswered_elsewhere(self) -> int:
        """Return how many such requests other workers have under way."""
        return 0

    def count_left(self, number: int) -> None:
        """Tell other workers how many requests have left engines at work lately."""

    def left_elsewhere(self) -> int:
        """Return how many requests of other workers have."""
        return 0

    def knows(self, request: BarredRequest, now_s: float) -> bool:
        """Return whether a request of the same sender, or without one a body like it, crashed an engine of this model lately."""
        return self.knows_sender(
            request.model.entry.name, sender_of(request), body=request.request.body, now_s=now_s
        )

    def knows_sender(self, model: str, sender: str, *, body: bytes, now_s: float) -> bool:
        """Return the same for a sender (`sender_of`) and a body."""
        if sender:
            return self._holds(_hash(model, sender.encode()), now_s)
        return any(
            name == model and until_s > now_s and _are_alike(body, known)
            for (name, known), until_s in self._small.items()
        )

    def _holds(self, key: int, now_s: float) -> bool:
        return self._until_s.get(key, 0.0) > now_s

    def tidy(self, now_s: float) -> None:
        """Forget what is over."""
        if self.is_empty:
            return
        self._unanswered = [each for each in self._unanswered if _is_unanswered(each)]
        self._until_s = {key: until_s for key, until_s in self._until_s.items() if until_s > now_s}
        self._small = {key: until_s for key, until_s in self._small.items() if until_s > now_s}
        if not self._until_s:
            self._lengths = frozenset()
        self.is_empty = not (self._until_s or self._small)


def may_crash(body: bytes) -> bool:
    """Return whether a body is of the kinds that crash engines: it constrains the answer, or it is large."""
    return len(body) >= LARGE_BYTES or constrains(body)


def _is_unanswered(request: BarredRequest) -> bool:
    attempt = request.attempt
    return not request.done and (attempt is None or attempt.head is None)


def constrains(body: bytes) -> bool:
    """Return whether a body seems to hold a grammar, a schema or tools."""
    return any(key in body for key in _SHAPING)


def sender_of(request: SentRequest) -> str:
    """Return its caller. Without keys all that constrain their answers are one, and all other large ones; empty: a small one."""
    body = request.request.body
    if request.caller:
        return request.caller
    constrained, large = _WITHOUT_KEYS
    return constrained if constrains(body) else large if len(body) >= LARGE_BYTES else ""


def _hash(model: str, what: bytes) -> int:
    """Return a positive number of 63 bits."""
    return int.from_bytes(blake2b(what, digest_size=8, key=model.encode()[:64]).digest()) >> 1


def _are_alike(one: bytes, other: bytes) -> bool:
    """Return whether two bodies differ in one place of at most `_CHANGED_BYTES`."""
    if abs(len(one) - len(other)) > _CHANGED_BYTES:
        return False
    same = _same_bytes(one, other) + _same_bytes(one[::-1], other[::-1])
    return max(len(one), len(other)) - same <= _CHANGED_BYTES


def _same_bytes(one: bytes, other: bytes) -> int:
    """Return how many bytes two bodies have in common at their beginnings."""
    length = min(len(one), len(other))
    differ = int.from_bytes(one[:length]) ^ int.from_bytes(other[:length])
    return length - (differ.bit_length() + 7) // 8
