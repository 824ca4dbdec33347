"""One request under way: where it is asked, what the client gets, and what is recorded of it.

An exchange has an attempt (one try at one target), a tap (what the client received) and a client. A client that reads
slowly pauses the engine; a client that leaves ends the engine's work. Before the first byte another target is asked,
unseen. After it another target continues a plain text, so that the client sees one answer; where that cannot be, an error
in the stream says that the answer is not complete. `answers.continuation` words the request for the rest, `queue.admission` decides which
request starts when, and the `detour` whether other providers are asked.
"""

from dataclasses import replace

from freehold.gateway.answers import continuation, forced_call
from freehold.gateway.answers.continuation import Continuation
from freehold.gateway.answers.stream_tap import AnswerTap, StreamTap
from freehold.gateway.answers.usage import Usage, whole_usage
from freehold.gateway.endpoints.model import ServedModel
from freehold.gateway.endpoints.outlier_detection import Failure
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.exchange.attempt import TRY_ELSEWHERE, Attempt
from freehold.gateway.exchange.context import ExchangeContext
from freehold.gateway.exchange.finish import count_end, record_end
from freehold.gateway.exchange.ledger_record import CLIENT_LEFT
from freehold.gateway.exchange.provider import Stay
from freehold.gateway.queue.admission import QueuedRequest
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.frame import BodyFrame
from freehold.gateway.wire.headers import AnswerHead
from freehold.gateway.wire.ports import Alternative, Client
from freehold.gateway.wire.request import Request

ATTEMPTS_MAX = 3
"""Endpoints tried for one request. Source: our own bound, so that a request which kills engines cannot kill them all."""
_RESUMED = {CLIENT_LEFT: "abandoned"}  # How a resumed stream ended that was not finished, by its status.


class Exchange(QueuedRequest[UpstreamTarget]):
    """One request under way. Defaults stand on the class: an instance holds what this request has met so far."""

    attempt: Attempt | None = None
    """The newest attempt; None: no target was asked yet."""
    attempts = 0
    usage: Usage | None = None
    done = False
    code = ""
    paused_s: float | None = None
    lost_at: UpstreamTarget | None = None
    _broken: tuple[BodyFrame | None, Rejection, str] | None = None
    """Where its stream broke, the error that is due, and why; None: it did not, or is continued."""
    rest_body = b""
    detour: "Alternative[Exchange] | None" = None
    """The way to other providers; None: the request stays here."""
    keeps_client = True
    """The client's connection can be used again after the answer."""
    _whole_bytes = 0
    _recorded = False

    model: ServedModel
    """Which is asked; set before it starts."""

    def __init__(self, context: ExchangeContext, client: Client, request: Request) -> None:
        # Without keywords: with them, to make one takes twice as long.
        self.context, self.client, self.request = context, client, request
        self._settings = context.settings  # as they are now: a reload cuts no answer
        self.started_s = self._begun_s = context.now_s()
        # Read several times for each request: from the class that takes ten times as long.
        self.tap: AnswerTap | None = None
        self.stay: Stay | None = None
        self.first_s: float | None = None
        self.saw_crash = False  # an engine crashed under this request; it is asked once more at most
        self.resumed_at_bytes = 0
        caller = request.caller
        if caller is not None:
            self.caller, self.weight, self.priority = caller.id, caller.weight, caller.priority

    def __repr__(self) -> str:
        at = self.attempt.target.id if self.attempt else "nowhere"
        return f"<Exchange {self.request.request_id} {self.model.entry.name} at {at}, {self.answer_bytes} bytes passed>"

    @property
    def deadline_s(self) -> float:  # type: ignore[override]
        """Return when the whole answer must be there, on the loop's clock: the first of all limits."""
        return self.started_s + min(self.request.timeout_s, self._settings.total_s)

    @property
    def answer_bytes(self) -> int:
        """Return how much of an answer's body the client was given."""
        return self._whole_bytes if self.tap is None else self.tap.total_bytes

    def start(self) -> None:
        """Begin: find a target with room and send the request there, or wait for one."""
        if self.detour is None or not self.detour.start(self):
            self.start_here(self.started_s)

    def start_here(self, now_s: float) -> None:
        """Begin at a target of this stack, or wait for one."""
        self.context.retry_budget.requests += 1
        if self._is_barred(now_s):
            self.turn_away(errors.last_replica(self.model.entry.name))
            return
        target = self.model.admission.enter(self, now_s)
        if target is not None:
            self._ask(target, now_s)

    def start_over(self, model: ServedModel) -> None:
        """Begin again at this model, as if the request had come now; nothing of an earlier attempt counts."""
        self.model, self.attempt, self.attempts, self.tap, self.first_s = model, None, 0, None, None
        self._begun_s = self.context.now_s()

    def proceed(self, target: UpstreamTarget) -> None:
        """Send the request after a wait; a place at `target` is taken already."""
        now_s = self.context.now_s()
        if not self.attempts:
            self._begun_s = now_s
        if self._is_barred(now_s):
            target.gate.leave(self.cost_tokens, began=False)
            self.reject(errors.last_replica(self.model.entry.name))
            return
        self._ask(target, now_s)

    def _is_barred(self, now_s: float) -> bool:
        quarantine = self.context.quarantine
        return (self.saw_crash or not quarantine.is_empty) and quarantine.bars(self, now_s)

    def turn_away(self, rejection: Rejection) -> None:
        """Reject the request, which waited in vain; no engine saw it."""
        self.flow = None  # it was never started, or is out of the queue again
        if self.detour is not None and self.detour.instead_of(self, rejection):
            return
        self.done = True
        if self.request.grant is not None:
            self.request.grant.end(rejection.error.status, 0, asked=False)
        self.client.reject(rejection, self.request)

    def _ask(self, target: UpstreamTarget, now_s: float) -> None:
        self.attempts += 1
        self.attempt = attempt = Attempt(self, target, now_s)
        attempt.start()

    def try_again(self, target: UpstreamTarget | None = None) -> None:
        """Begin another attempt, at `target` or wherever there is room; what the one before sent is forgotten."""
        now_s = self.context.now_s()
        if self.attempt is not None:
            self.attempt.forget_answer()
        if not self.resumed_at_bytes:
            self.first_s = self.tap = None
        elif isinstance(self.tap, StreamTap):
            self.tap.begin_again()
        target = target or self.model.admission.enter_again(self, now_s)
        if target is not None:
            self._ask(target, now_s)

    def answer_came(self) -> None:
        """Count an answer of the target."""
        assert self.attempt is not None
        if self.stay is not None:
            self.stay.answered(self.context.now_s())
        self.model.succeeded(self.attempt.target, self.context.tick_s)

    def moves_on(self, head: AnswerHead) -> bool:
        """Deal with an answer of status 300 or more; return whether this attempt is over."""
        attempt = self.attempt
        assert attempt is not None
        if self.stay is not None:
            self.stay.rejected(head, self.context.now_s())
            if self.detour is not None:  # another provider's error is not shown to the client
                attempt.stop_engine()
                self.detour.come_back(self)
                return True
        if head.status not in TRY_ELSEWHERE:
            return False
        attempt.count_busy(head)
        if not self._may_move(attempt.target):
            return False
        attempt.stop_engine()
        self._move(f"status_{head.status}")
        return True

    def _may_move(self, target: UpstreamTarget) -> bool:
        """Return whether the request may be sent to another target, and count that on the retry budget.

        A begun answer costs no budget: a replica takes all its streams with it at once, each would be lost work, and
        they wait for room outside the queue, possibly until the replica has restarted; only the number of attempts bounds them.
        """
        if self.attempts >= ATTEMPTS_MAX:
            return False
        if self.resumed_at_bytes:
            return True
        untried = any(t not in self.tried and t is not target for t in self.model.targets)
        return untried and self.context.retry_budget.spend(self.context.now_s())

    def attempt_failed(self, attempt: Attempt, reason: Failure) -> None:
        """Deal with a target that gave no answer: ask another one, or reject the request."""
        if self.stay is not None:
            self.stay.failed(reason, self.context.now_s())
        attempt.count_failure(reason)
        self._warn("endpoint_failed", reason=reason)
        if self.done:
            return
        was_asked = reason == "lost" or (reason == "connect" and self.lost_at is attempt.target)
        if not (was_asked and self.context.may_have_crashed(self, attempt.target)):
            self.move_on(reason)

    def move_on(self, reason: str = "lost") -> None:
        """Ask another target after one that gave no answer or broke it off, or end the request."""
        assert self.attempt is not None
        if self._broken is not None:
            frame, error, reason = self._broken
            if not self._continue(reason):
                self._cut(frame, error, reason=reason)
        elif self._may_move(self.attempt.target):
            self._move(reason)
        else:
            self.no_other_target()

    def _move(self, reason: str) -> None:
        assert self.attempt is not None
        self.context.metrics.retried(self.model.entry.name, reason)
        self.tried = self.tried | {self.attempt.target}
        self.attempt.leave()
        self.try_again()
        self.model.admission.pump()

    def no_other_target(self) -> None:
        """Reject the request: it failed, and no other target had room in time."""
        name = self.model.entry.name
        message = f"No replica of {name} could answer; attempts: {self.attempts}."
        self.reject(errors.unavailable(message, code="engine_failed"))

    def reject(self, rejection: Rejection) -> None:
        """Send an error instead of an answer, unless another provider is asked."""
        if self.detour is None or not self.detour.instead_of(self, rejection):
            self.reject_here(rejection)

    def reject_here(self, rejection: Rejection) -> None:
        """Send an error instead of an answer, or behind its beginning."""
        if self.answer_bytes:  # the client has the beginning of an answer, so it cannot be given another one
            self._stop_engine()
            frame = None if self._broken is None else self._broken[0]
            message = "The engine failed, and no other one went on."
            self._cut(frame, errors.bad_gateway(message), reason="not_resumed")
            return
        # An engine was asked, so the request is counted by its status and not among those that no engine saw.
        self.code = rejection.error.code or ""
        self._finish(rejection.error.status)
        self.client.reject(replace(rejection, by_engine=True), self.request)

    def stream_broke(self, frame: BodyFrame | None, message: str, *, reason: str) -> None:
        """Deal with a stream whose engine failed: another one continues it, or it is cut."""
        assert self.attempt is not None
        code = "timeout" if reason == "timeout" else "engine_failed"
        self._broken = frame, errors.bad_gateway(message, code=code), reason
        if code == "timeout" or not self.context.may_have_crashed(self, self.attempt.target):
            self.move_on()

    def _continue(self, reason: str) -> bool:
        """Let another target continue the answer, or end it where only its end is missing; return whether that can be."""
        tap, how, request = self.tap, self.model.continues, self.request
        if not isinstance(tap, StreamTap) or tap.log is None or how is None:
            return False
        text = tap.log.text()
        end: bytes | None = b""
        if not tap.ended:
            end = continuation.ending(request.path, request.body, sent=text, hides_usage=request.hides_usage)
        if end is not None:
            self._end_stream(tap, end)
            return True
        plan: Continuation | str = "too_many_attempts"
        if self.attempts < ATTEMPTS_MAX:
            plan = continuation.plan(request.path, request.body, sent=text, how=how)
        if isinstance(plan, str):
            self._warn("not_resumed", reason=reason, detail=plan)
            if not self.resumed_at_bytes:
                self.model.metrics.resumed("not_possible")
            return False
        self._warn("stream_resumes", reason=reason, detail=str(plan.rest.tokens_before))
        self.rest_body, self.resumed_at_bytes = plan.body, tap.total_bytes
        tap.go_on(plan.rest)
        self._broken = None
        self._move(reason)
        return True

    def _end_stream(self, tap: StreamTap, events: bytes) -> None:
        """End an answer that is complete but for its end."""
        last = tap.last_words(events)
        tap.total_bytes += len(last)
        self.model.metrics.resumed("ended")
        self._finish(200)
        self.client.write(last)
        self.client.answered()

    def _cut(self, frame: BodyFrame | None, error: Rejection, *, reason: str) -> None:
        """End a stream that cannot be finished with an error in band, in a way that no client takes for the end."""
        request, client = self.request, self.client
        stream = self.tap if isinstance(self.tap, StreamTap) else None
        if stream is not None and stream.ended and stream.chunked:
            # All of it has been passed on, and is in the ledger as whole: only its framing's end has not come.
            self._end_stream(stream, b"")
            return
        self.context.metrics.cut(self.model.entry.name, reason)
        self.code = reason
        self._warn("stream_cut", reason=reason)
        self._finish(min(502, error.error.status))  # a revoked key's 401 is no failure of this server
        # Without an engine there is no half event: what was resumed goes to the client in whole events.
        if stream is None or not (frame is None or stream.at_border(frame)):
            # Where a close is the only sign of the end, a close would be taken for it: then it is a reset.
            client.abort(reset=not self.keeps_client)
            return
        client.write(errors.in_band(error, request.path, chunked=request.http11, last=stream.last))
        if request.http11:
            # The body has its end, so the connection is as good as after any answer, as the head may have announced.
            client.answered()
        else:
            client.close()

    def _warn(self, event: str, *, reason: str, detail: str | None = None) -> None:
        more = {} if detail is None else {"detail": detail}
        at = "" if self.attempt is None else self.attempt.target.id
        self.context.log.warning(event, endpoint=at, reason=reason, request=self.request.request_id, **more)

    # Time, and the client

    def shut(self, rejection: Rejection) -> None:
        """End now, with this error: the drain's grace is over, or the key was revoked. No provider is asked instead."""
        frame = None if self.attempt is None else self.attempt.frame
        self._stop_engine()
        if self.answer_bytes:
            self._cut(frame, rejection, reason=rejection.error.code or "")
        else:
            self.reject_here(rejection)

    def check(self, now_s: float) -> None:
        """Enforce the time limits; called about twice a second."""
        attempt = self.attempt
        if self.claim is not None:
            return  # the queue has its own
        if isinstance(self.tap, StreamTap):
            self.tap.tidy(self.context.pack_budget)
        if now_s >= self.deadline_s:
            self._give_up("The answer was not finished within the request's timeout.")
        elif attempt is None or not attempt.holds_place or attempt.spoke(now_s):
            return
        elif self.paused_s is not None:
            if now_s - self.paused_s > self._settings.client_stall_s:
                self.context.metrics.cut(self.model.entry.name, "client_stall")
                self.code = "client_stall"
                attempt.stop_engine()
                self._finish(CLIENT_LEFT)
                self.client.abort()
        elif attempt.silent_too_long(now_s):
            self._engine_too_slow(attempt)

    def _engine_too_slow(self, attempt: Attempt) -> None:
        message, frame = "The engine did not answer in time.", attempt.frame
        if self.stay is not None and self.detour is not None:
            self.stay.failed("stall", self.context.now_s())
        if self.answer_bytes > self.resumed_at_bytes:
            attempt.stop_engine()
            attempt.count_failure("stall")
            self.stream_broke(frame, message, reason="timeout")
        elif self.resumed_at_bytes:
            attempt.stop_engine()
            self.attempt_failed(attempt, "stall")
        else:
            attempt.count_failure("stall")
            if self._may_move(attempt.target):
                attempt.stop_engine()
                self._move("stall")
            else:
                self._give_up(message)

    def _give_up(self, message: str) -> None:
        self._report_silence()
        frame = None if self.attempt is None else self.attempt.frame
        self._stop_engine()
        if self.answer_bytes:
            self._cut(frame, errors.bad_gateway(message, code="timeout"), reason="timeout")
        else:
            self.reject(errors.timeout(message))

    def _report_silence(self) -> None:
        """Report a provider that was given up before it had answered."""
        if self.stay is not None and self.attempt is not None and self.attempt.head is None:
            self.stay.provider.silent(since_s=self.attempt.heard_s, now_s=self.context.now_s())

    def _stop_engine(self) -> None:
        if self.attempt is not None:
            self.attempt.stop_engine()

    def client_left(self) -> None:
        """End the engine's work: the client is gone. A client that got the last event has the whole answer."""
        if self.done:
            return
        attempt = self.attempt
        head = None if attempt is None else attempt.head
        whole = self._recorded and head is not None  # only the framing's end had not gone out
        if self.detour is not None:
            self._report_silence()
        if not whole:
            self.context.metrics.client_left(self.model.entry.name)
            if attempt is not None and self.stay is None:
                attempt.count_silence()
        self._stop_engine()
        self._finish(head.status if whole and head is not None else CLIENT_LEFT)

    def pause(self) -> None:
        """Stop reading from the engine: the client reads too slowly."""
        self.paused_s = self.context.now_s()
        if self.attempt is not None:
            self.attempt.pause()

    def resume(self) -> None:
        """Read from the engine again."""
        self.paused_s = None
        if self.attempt is not None:
            self.attempt.resume()

    def client_head(self, head: AnswerHead) -> bytes:
        """Return the head of the client's answer."""
        http11 = self.request.http11
        self.keeps_client = http11 and (head.chunked or head.length_bytes is not None)
        start = head.start if http11 else head.start_unchunked
        return start + self.client.head_end(self.request, close=not self.keeps_client)

    def finish_whole(self, head: AnswerHead, data: bytes, usage: Usage | None) -> None:
        """Send an answer that came whole in one read, and used this."""
        self._whole_bytes = len(data)
        self.usage = usage
        # It is in the ledger before it leaves, whenever this process is killed: the write batch sees to that.
        self.record(200, complete=True, later=True)
        self._finish(200)
        request, date = self.request, self.context.date_line
        whole = head.start, request.id_line, date, request.limit_lines, b"\r\n", data
        self.client.answered_whole(b"".join(whole))

    def finish_passed(self, status: int) -> None:
        """End an answer that was passed on to its end."""
        self._finish(status)
        self.client.answered()

    def finish_error(self, status: int, body: bytes, *, retry_after_s: float | None) -> None:
        """Deal with an error answer that was read to its end: ask another target, or send it to the client."""
        attempt = self.attempt
        assert attempt is not None
        if status >= 500:
            attempt.note_error(f"status_{status}", body)
        if status == 500 and attempt.count_broken(body):
            if self.context.may_have_crashed(self, attempt.target):  # vLLM answers so just before it ends
                return
            if self._may_move(attempt.target):
                self._move("status_500")
                return
        self.reject(errors.from_answer(attempt.target.engine, status, body=body, retry_after_s=retry_after_s))

    def finish_assembled(self, answer: bytes) -> None:
        """Send an answer that was put together."""
        self._whole_bytes = len(answer)
        self.usage = whole_usage(answer)
        self._finish(200)
        if self.request.stream:  # only a forced call is put together for a client that asked for a stream
            events = forced_call.as_events(answer, hides_usage=self.request.hides_usage)
            self.client.reply(self.request, 200, body=events, content_type="text/event-stream")
        else:
            self.client.reply(self.request, 200, body=answer)

    def on_last(self, last_bytes: int) -> None:
        """Record the answer as complete: its last bytes are about to leave."""
        assert self.attempt is not None
        assert self.attempt.head is not None
        self.record(self.attempt.head.status, complete=True, last_bytes=last_bytes)

    def _finish(self, status: int) -> None:
        if self.done:
            return
        self.done, self.saw_crash = True, self.saw_crash and status >= 400
        now_s, tap = self.context.now_s(), self.tap
        unfinished = tap is not None and isinstance(tap, StreamTap) and not tap.ended
        if not self._recorded:
            self.record(status, complete=status < 400 and not unfinished)
        if self.resumed_at_bytes:
            self.model.metrics.resumed(_RESUMED.get(status, "cut") if unfinished else "whole")
        count_end(self, status, now_s)
        self.model.admission.end(self, service_s=now_s - self._begun_s if status < 400 else None)
        self.attempt = None  # so that reference counting frees both

    def record_attempt(self, status: int) -> None:
        """Record an attempt that failed and may have cost something; the request itself continues."""
        self.record(status, complete=False)
        self._recorded = False

    def record(self, status: int, *, complete: bool, last_bytes: int = 0, later: bool = False) -> None:
        """Record the request's end, once; `later`: its answer leaves with the write batch, which writes the ledger first."""
        if not self._recorded:
            self._recorded = True
            tokens = record_end(self, status, complete=complete, last_bytes=last_bytes)
            if tokens is not None and tokens.usage is not None:
                usage = tokens.usage
                self.model.admission.learn(self, usage.prompt_tokens, usage.completion_tokens)
            if self.context.ledger is not None and not later:
                self.context.ledger.write()
