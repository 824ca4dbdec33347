"""What an exchange does when things go wrong: try elsewhere, go on elsewhere, refuse, or end a stream in band.

Before the first byte another replica is asked, unseen. After it another replica goes on with a plain text, so that the
client sees one answer; where that cannot be, an error in the stream says that it is not complete, and no client can take
it for the end. How a continuation is worded is `resume`; who may be asked and when is `admission`.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from freehold.gateway.answers import continuation
from freehold.gateway.answers.continuation import Continuation
from freehold.gateway.answers.stream_tap import StreamTap
from freehold.gateway.endpoints.outlier_detection import Failure
from freehold.gateway.endpoints.pool import UpstreamTarget
from freehold.gateway.exchange.attempt import ATTEMPTS_MAX, Attempting
from freehold.gateway.exchange.upstream import Tap, UpstreamConnection
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.frame import BodyFrame, UntilCloseFrame

if TYPE_CHECKING:
    from freehold.gateway.server.client_connection import ClientConnection

_TOLD_AS_THEY_ARE = frozenset({"draining", "timeout"})  # Reasons that are codes too; others are the engine's.


class Setbacks(Attempting):
    """The part of an exchange that deals with failures, and what both parts know. Defaults stand on the class."""

    client: "ClientConnection"
    done = False
    passing: Tap | None = None
    """What has been passed on as it came; None: the answer is not passed on so."""
    keeps_client = True
    _connection: UpstreamConnection | None = None
    _fresh = False
    _made_bytes = 0
    _asking = b""
    """The request that asks for the rest of an answer; empty: the caller's own is asked."""

    # What the other part does

    def on_end(self) -> None:
        """Finish: the answer was read to its end."""
        raise NotImplementedError

    def _attempt_again(self, target: UpstreamTarget | None = None) -> None:
        raise NotImplementedError

    def _finish(self, status: int) -> None:
        raise NotImplementedError

    @property
    def answer_bytes(self) -> int:
        """Return how much of an answer's body the client was given."""
        return self._made_bytes if self.passing is None else self.passing.bytes

    # Before the first byte

    def on_lost(self, connection: UpstreamConnection, frame: BodyFrame | None, *, in_order: bool) -> None:
        """Deal with an engine connection that ended before the answer did; `in_order`: by a close, not a failure."""
        self._connection = None
        if isinstance(frame, UntilCloseFrame) and in_order:
            # An answer without a length ends with its connection; that it is whole cannot be known, as HTTP/1.0 goes.
            self.on_end()
        elif self.answer_bytes > self._resumed_at_bytes:
            if self.target is not None:
                self._failed(self.target, "lost")
            self._broken(frame, "The engine failed.", reason="engine_lost")
        elif connection.served and not self._fresh and frame is None:
            # A pooled connection that the engine closed at the same moment: no sign of a sick replica. From here on
            # this request takes no other pooled one, so that it meets that only once, beyond its attempts if need be.
            self._fresh = True
            self._attempt_again(self.target)
        else:
            self._attempt_failed("lost")

    def _attempt_failed(self, reason: Failure) -> None:
        target = self.target
        assert target is not None
        self._failed(target, reason)
        self.gateway.log.warning(
            "endpoint_failed", endpoint=target.id, reason=reason, request=self.request.request_id
        )
        if self.done:
            return
        if self._may_move(target):
            self._attempt_over(reason)
        else:
            self._refuse(self._no_replica())

    def _attempt_over(self, reason: str) -> None:
        assert self.target is not None
        self.gateway.meters.retried(self.model.entry.name, reason)
        self.tried = self.tried | {self.target}
        self._leave_target()
        self._attempt_again()
        self.model.admission.pump()

    def no_other_target(self) -> None:
        """Refuse the request: it failed, and no other target had room in time."""
        self._refuse(self._no_replica())

    def _no_replica(self) -> Rejection:
        return errors.unavailable(
            f"No replica of {self.model.entry.name} could answer; attempts: {self.attempts}.",
            code="engine_failed",
        )

    def _refuse(self, refusal: Rejection) -> None:
        if self._resumed_at_bytes:
            # The client has the beginning of an answer, so it cannot be given another one.
            self._stop_engine()
            self._cut(None, "The engine failed, and no other one went on.", reason="not_resumed")
            return
        # An engine was asked, so the request is counted by its status and not among those that no engine saw.
        self.code = refusal.error.code or ""
        self._finish(refusal.error.status)
        self.client.refuse(replace(refusal, by_engine=True), self.request)

    # After it

    def _broken(self, frame: BodyFrame | None, message: str, *, reason: str) -> None:
        """Deal with a stream whose engine failed: another one goes on, or it is cut."""
        if not self._go_on(reason):
            self._cut(frame, message, reason=reason)

    def _go_on(self, reason: str) -> bool:
        """Give the answer to another replica to go on with, or end it where only its end is missing.

        Returns whether that can be.
        """
        meter, how = self.passing, self.model.continues
        if not isinstance(meter, StreamTap) or meter.kept is None or how is None or self.target is None:
            return False
        request, heard = self.request, meter.kept.heard()
        end = (
            b""
            if meter.ended
            else continuation.ending(request.path, request.body, heard=heard, hides_usage=request.hides_usage)
        )
        if end is not None:
            self._end_here(meter, end)
            return True
        plan: Continuation | str = "too_many_attempts"
        if self.attempts < ATTEMPTS_MAX:
            plan = continuation.plan(request.path, request.body, heard=heard, how=how)
        if isinstance(plan, str):
            self._tell_resume("not_resumed", reason, plan)
            if not self._resumed_at_bytes:
                self.model.meters.resumed("not_possible")
            return False
        self._tell_resume("stream_resumes", reason, str(plan.rest.tokens_before))
        self._asking, self._resumed_at_bytes = plan.body, meter.bytes
        meter.go_on(plan.rest)
        self._attempt_over(reason)
        return True

    def _tell_resume(self, event: str, reason: str, detail: str) -> None:
        assert self.target is not None
        self.gateway.log.warning(
            event, endpoint=self.target.id, reason=reason, detail=detail, request=self.request.request_id
        )

    def _end_here(self, meter: StreamTap, events: bytes) -> None:
        """End an answer that is complete but for its end."""
        words = meter.last_words(events)
        meter.bytes += len(words)
        self.model.meters.resumed("ended")
        self._finish(200)
        self.client.write(words)
        self.client.answered()

    def _cut(self, frame: BodyFrame | None, message: str, *, reason: str) -> None:
        """End a stream that can no longer be finished, in a way that no client takes for the end."""
        if isinstance(self.passing, StreamTap) and self.passing.ended and self.passing.chunked:
            # All of it has been passed on, and is in the ledger as whole: only its framing's end has not come.
            self._end_here(self.passing, b"")
            return
        self.gateway.meters.cut(self.model.entry.name, reason)
        self.code, at = reason, self.target.id if self.target else ""
        self.gateway.log.warning("stream_cut", endpoint=at, reason=reason, request=self.request.request_id)
        self._finish(502)
        passing, request = self.passing, self.request
        stream = isinstance(passing, StreamTap)
        # Without an engine there is no half of anything: what was resumed goes to the client in whole events.
        if passing is None or not stream or not (frame is None or passing.at_border(frame)):
            # Where a close is the only sign of the end, a close would be taken for it: then it is a reset.
            self.client.abort(reset=not self.keeps_client)
            return
        code = reason if reason in _TOLD_AS_THEY_ARE else "engine_failed"
        said = errors.bad_gateway(message, code=code)
        self.client.write(errors.in_band(said, request.path, chunked=request.http11, last=passing.last))
        if request.http11:
            # The body has its end, so the connection is as good as after any answer, and the head may have said so.
            self.client.answered()
        else:
            self.client.close()

    def shut(self) -> None:
        """End now: the drain's grace is over."""
        self._engine_gone("The server is shutting down.", code="draining")

    def _engine_too_slow(self) -> None:
        target = self.target
        assert target is not None
        frame = self._connection.frame if self._connection is not None else None
        message = "The engine did not answer in time."
        if self.answer_bytes > self._resumed_at_bytes:
            self._stop_engine()
            self._failed(target, "stall")
            self._broken(frame, message, reason="timeout")
        elif self._resumed_at_bytes:
            self._stop_engine()
            self._attempt_failed("stall")
        else:
            self._failed(target, "stall")
            if self._may_move(target):
                self._stop_engine()
                self._attempt_over("stall")
            else:
                self._engine_gone(message, code="timeout")

    def _engine_gone(self, message: str, *, code: str) -> None:
        frame = self._connection.frame if self._connection is not None else None
        self._stop_engine()
        if self.answer_bytes:
            self._cut(frame, message, reason=code)
        elif code == "timeout":
            self._refuse(errors.timeout(message))
        else:
            self._refuse(errors.unavailable(message, code=code))

    def _stop_engine(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
