"""A copy of a request whose answer goes to no client: sent to a provider to be compared in metrics and ledger, and paid for.

It is an exchange like any other, with a client that drops everything. It has no part in the original's fate: it is not
retried, charges no key's limits and ends with the drain. The texts of the answers are not compared.
"""

import copy

from freehold.gateway.exchange.context import ExchangeContext
from freehold.gateway.exchange.exchange import Exchange
from freehold.gateway.exchange.provider import Stay
from freehold.gateway.fallback.detour import ProviderRoute
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request import Request


class Mirror:
    """The client of one copy; `running` are the copies under way."""

    def __init__(self, context: ExchangeContext, original: Request, running: "set[Mirror]") -> None:
        self._context = context
        self._request = _copied(original)
        self._running = running
        self.exchange: Exchange | None = None

    def __repr__(self) -> str:
        return f"<Mirror {self.exchange!r}>"

    def start(self, route: ProviderRoute, stay: Stay) -> None:
        """Send the copy; a place at the provider is taken already."""
        self.exchange = exchange = Exchange(self._context, self, self._request)
        exchange.model = route.copy_model
        self._running.add(self)
        exchange.stay = stay
        exchange.proceed(stay.target)

    def end(self) -> None:
        """End the copy: the gateway drains."""
        if self.exchange is not None:
            self.exchange.client_left()
            self.answered()

    # What an exchange calls of its client

    def write(self, data: bytes) -> None:
        """Drop bytes of an answer."""

    def head_end(self, request: Request, *, close: bool) -> bytes:
        """Return nothing: the head is not sent."""
        del request, close
        return b""

    def answered(self) -> None:
        """Write the record: nothing of a copy passes the write batch, which does so for other requests."""
        if self._context.ledger is not None:
            self._context.ledger.write()
        self._running.discard(self)
        self.exchange = None

    def answered_whole(self, answer: bytes) -> None:
        """Drop an answer that came whole."""
        del answer
        self.answered()

    def reply(self, request: Request, status: int, *, body: bytes, content_type: str = "") -> None:
        """Drop a whole answer."""
        del request, status, body, content_type
        self.answered()

    def reject(self, rejection: Rejection, request: Request) -> None:
        """Drop an error."""
        del rejection, request
        self.answered()

    def close(self) -> None:
        """End the copy."""
        self.answered()

    def abort(self, *, reset: bool = False) -> None:
        """End the copy."""
        del reset
        self.answered()


def _copied(original: Request) -> Request:
    """Return the same request without its caller."""
    request = copy.copy(original)
    request.caller = request.grant = None
    request.key_id, request.limit_lines = "", b""
    request.http11 = request.keep_alive = True
    return request
