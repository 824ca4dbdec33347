"""Which bodies ended an engine, and which callers sent them, for a while: such a body is not sent again. Pure.

Bodies are kept as hashes and compared only with those of the same length, so that other requests cost nothing. It does not find
out which request was to blame: `inquest` does.
"""

from hashlib import blake2b
from typing import Protocol, TypeVar

from freehold.gateway.endpoints.model import ServedModel
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection

_BODY_S = 600.0
"""How long a body is rejected, seconds. Source: our own choice: longer than clients retry, short enough for a mistake."""
_CALLER_S = 60.0
"""How long its caller gets no last ready replica, seconds. Source: our own choice: an engine is ready again by then."""
_KEPT_MAX = 1000
"""Bodies and callers remembered; the oldest go first. Source: our own bound: some 200 KB, and engines to end are few."""
K = TypeVar("K")


class BarredRequest(Protocol):
    """A request that may be barred from the last ready replica; `exchange.Exchange` is one."""

    model: ServedModel
    caller: str
    suspected: bool


class Quarantine:
    """The bodies and callers of one gateway process."""

    __slots__ = ("_bodies", "_callers", "_lengths", "is_empty")

    def __init__(self) -> None:
        self._bodies: dict[tuple[str, bytes], float] = {}
        """Until when, by model and hash; the oldest first."""
        self._callers: dict[tuple[str, str], float] = {}
        """Until when, by model and caller; the oldest first."""
        self._lengths: frozenset[int] = frozenset()
        """Of the bodies; one that is over may still be among them."""
        self.is_empty = True
        """Nothing need be asked: each request looks at this first."""

    def __repr__(self) -> str:
        return f"<Quarantine {len(self._bodies)} bodies, {len(self._callers)} callers>"

    def add(self, model: str, body: bytes, *, caller: str, now_s: float) -> None:
        """Remember a body that ended an engine, and its caller; the empty caller is no caller in particular."""
        self.is_empty = False
        _remember(self._bodies, (model, _hash(body)), now_s + _BODY_S)
        self._lengths |= {len(body)}
        if caller:
            _remember(self._callers, (model, caller), now_s + _CALLER_S)

    def refuse(self, model: str, body: bytes, now_s: float) -> Rejection | None:
        """Return the 400 for a body that ended an engine, or None."""
        if len(body) not in self._lengths or self._bodies.get((model, _hash(body)), 0.0) <= now_s:
            return None
        message = "An engine crashed on this same request. It is rejected for 10 minutes: change the request."
        return errors.invalid(message, code="request_quarantined")

    def bars(self, request: BarredRequest, now_s: float) -> bool:
        """Return whether a request may not be given the last ready replica: it, or one of its caller, may have ended another."""
        return (request.suspected or self.knows(request, now_s)) and request.model.standing(now_s) < 2

    def knows(self, request: BarredRequest, now_s: float) -> bool:
        """Return whether another request of the same caller ended an engine of this model a short time ago."""
        return self._callers.get((request.model.entry.name, request.caller), 0.0) > now_s

    def tidy(self, now_s: float) -> None:
        """Forget what is over."""
        _forget(self._callers, now_s)
        if self._bodies and _forget(self._bodies, now_s) and not self._bodies:
            self._lengths = frozenset()
        self.is_empty = not (self._bodies or self._callers)


def _hash(body: bytes) -> bytes:
    return blake2b(body, digest_size=16).digest()


def _remember(times: dict[K, float], key: K, until_s: float) -> None:
    times.pop(key, None)
    times[key] = until_s
    if len(times) > _KEPT_MAX:
        del times[next(iter(times))]


def _forget(times: dict[K, float], now_s: float) -> bool:
    """Drop what is over and return whether that was anything."""
    over = [key for key, until_s in times.items() if until_s <= now_s]
    for key in over:
        del times[key]
    return bool(over)
