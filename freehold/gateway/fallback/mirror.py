"""A copy of a request whose answer nobody reads: sent to a fallback to be compared in metrics and ledger, and paid for.

It is an exchange like any other, with a client that takes everything and says nothing. It has no part in the original's
fate: it is not retried, charges no key's limits and ends with the drain. Answers are not compared word by word here.
"""

import copy
from typing import TYPE_CHECKING, Any, cast

from freehold.gateway.endpoints.outlier_detection import Failure
from freehold.gateway.exchange.upstream import UpstreamConnection
from freehold.gateway.fallback.exchange import AwayExchange, Way, note_error
from freehold.gateway.fallback.provider import Stay
from freehold.gateway.wire.headers import AnswerHead
from freehold.gateway.wire.request import Request

if TYPE_CHECKING:
    from freehold.gateway.server.client_connection import ClientConnection
    from freehold.gateway.server.gateway import Gateway


class _Nobody:
    """A client that takes everything; what an exchange calls of a connection."""

    def write(self, data: bytes) -> None:
        """Drop bytes of an answer."""

    def answered(self) -> None:
        """Drop its end."""

    def answered_whole(self, answer: bytes) -> None:
        """Drop an answer that came whole."""

    def reply(self, *_: Any, **__: Any) -> None:
        """Drop a whole answer."""

    def refuse(self, *_: Any) -> None:
        """Drop an error."""

    def head_end(self, *_: Any, **__: Any) -> bytes:
        """Return nothing: nobody reads the head."""
        return b""

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def abort(self, **_: Any) -> None:
        """Do the same."""


_NOBODY = cast("ClientConnection", _Nobody())


class Shadow(AwayExchange):
    """One copy under way."""

    def __init__(self, gateway: "Gateway", original: Request, *, way: Way, away: Stay) -> None:
        super().__init__(gateway, _NOBODY, model=way.shadow_model, request=_copied(original))
        self.away: Stay = away

    def start(self) -> None:
        """Send it; a place is taken already."""
        self._attempt(self.away.target)

    def on_head(self, connection: UpstreamConnection, head: AnswerHead) -> None:
        """Read the answer; an error costs nothing."""
        if head.status >= 300:
            self.away.free = True
            note_error(self.away.fallback, head, self.gateway.now_s())
        super().on_head(connection, head)

    def _attempt_failed(self, reason: Failure) -> None:
        self.away.free = reason == "connect"
        self.away.fallback.failed(self.gateway.now_s())
        super()._attempt_failed(reason)

    def _suspect_silence(self) -> None:
        """Say nothing of an endpoint when the drain ends a copy."""

    def _finish(self, status: int) -> None:
        super()._finish(status)
        if self.gateway.recorder is not None:
            self.gateway.recorder.write()  # nothing of a copy passes the outbox, which sees to that for others
        assert self.gateway.fallbacks is not None
        self.gateway.fallbacks.copies.discard(self)


def _copied(original: Request) -> Request:
    """Return the same request, asked by nobody."""
    request = copy.copy(original)
    request.caller = request.grant = None
    request.key_id, request.limit_lines = "", b""
    request.http11 = request.keep_alive = True
    return request
