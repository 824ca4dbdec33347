"""One attempt of a request at one target: send, read the answer, pass it on; and what that reveals about the target.

An attempt reads what the engine answers and reports to its exchange (`AttemptOwner`) what happened. It decides neither whether the
request goes to another target nor what the client gets instead of an answer: `exchange` does. It never parses what it
passes on.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol

from freehold.engines.base import COUNT_PATHS, TRANSCRIPTIONS, ApiError, PrefixCache
from freehold.gateway.answers.assemble import Assembler
from freehold.gateway.answers.stream_tap import JSON_PATHS, AnswerTap, tap_for
from freehold.gateway.answers.usage import WHOLE_BYTES_MAX, Usage, is_json, whole_usage
from freehold.gateway.endpoints import stall
from freehold.gateway.endpoints.model import ServedModel
from freehold.gateway.endpoints.outlier_detection import Failure
from freehold.gateway.endpoints.prefix_key import key_of
from freehold.gateway.endpoints.slot_owners import SlotStay
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.exchange.context import ExchangeContext
from freehold.gateway.exchange.upstream import connect
from freehold.gateway.exchange.upstream_request import body_for
from freehold.gateway.wire import errors
from freehold.gateway.wire.body import too_deep
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.frame import BodyFrame, UntilCloseFrame
from freehold.gateway.wire.headers import AnswerHead
from freehold.gateway.wire.ports import Client, EngineConnection
from freehold.gateway.wire.request import Request

_ERROR_BODY_BYTES_MAX = (
    64 * 1024
)  # An engine's error is a sentence; more than this is cut. Source: our own bound.
_ANSWER_BYTES_MAX = 64 * 1024 * 1024  # Largest answer put together in memory. Source: our own bound.
_LOGGED_BYTES = 2000  # So much of an engine's error goes to the log. Source: our own bound, some 20 lines.
_GIVEN_UP_S = 1.0  # A client that leaves sooner is no sign of a hung engine. Source: our own choice.
TRY_ELSEWHERE = frozenset({429, 502, 503, 504})
"""Answers of a target that is busy, or dead behind its server; for a 500 the body decides."""


class AttemptOwner(Protocol):
    """The request that an attempt belongs to; `exchange.Exchange` is one."""

    context: ExchangeContext
    client: Client
    model: ServedModel
    request: Request
    caller: str
    cost_tokens: int
    prefix_key: int | None
    on_trial: bool
    done: bool
    tap: AnswerTap | None
    """What has been passed on as it came; None: nothing is passed on so."""
    rest_body: bytes
    """The request for the rest of an answer; empty: the client's own request is sent."""
    resumed_at_bytes: int
    """What the client had of the answer when it was last given to another target; 0: it never was."""
    paused_s: float | None
    """Since when the client does not read; None: it reads."""
    first_s: float | None
    """When the first byte of a streamed answer came."""
    lost_at: UpstreamTarget | None
    """Where a pooled connection ended before an answer: from then on this request uses new ones; None: nowhere."""

    @property
    def answer_bytes(self) -> int:
        """Return how much of an answer's body the client was given."""

    def client_head(self, head: AnswerHead) -> bytes:
        """Return the head of the client's answer."""

    def on_last(self, last_bytes: int) -> None:
        """Record the answer as complete: its last bytes are about to leave."""

    def answer_came(self) -> None:
        """Count an answer of the target."""

    def moves_on(self, head: AnswerHead) -> bool:
        """Deal with an answer of status 300 or more; return whether this attempt is over."""

    def attempt_failed(self, attempt: "Attempt", reason: Failure) -> None:
        """Deal with a target that gave no answer."""

    def stream_broke(self, frame: BodyFrame | None, message: str, *, reason: str) -> None:
        """Deal with a stream whose engine failed."""

    def try_again(self, target: UpstreamTarget | None = None) -> None:
        """Begin another attempt, at this target or at any other."""

    def reject(self, rejection: Rejection) -> None:
        """Send an error instead of an answer."""

    def no_other_target(self) -> None:
        """Reject the request: no target answered."""

    def finish_whole(self, head: AnswerHead, data: bytes, usage: Usage | None) -> None:
        """Send an answer that came whole in one read, and used this."""

    def finish_passed(self, status: int) -> None:
        """End an answer that was passed on to its end."""

    def finish_error(self, status: int, body: bytes, *, retry_after_s: float | None) -> None:
        """Deal with an error answer that was read to its end."""

    def finish_assembled(self, answer: bytes) -> None:
        """Send an answer that was put together."""


class Attempt:
    """One attempt. Defaults stand on the class: an instance holds what differs."""

    wants_payload = False
    passing: AnswerTap | None = None
    engine_keeps_alive = False
    head: AnswerHead | None = None
    """The answer's head; None: the target has not answered yet."""
    assembler: Assembler | None = None
    """Puts a stream together for a client that asked for a whole answer; None: the answer is passed on."""
    holds_place = True
    """It counts in the target's limit."""
    connection: EngineConnection | None = None
    _stay: SlotStay | None = None
    _began = False
    """The answer's body has begun."""
    _connecting: asyncio.Task[None] | None = None
    _client_head = b""
    _error_parts: tuple[bytes, ...] = ()
    _heard = False
    """The target sent something since the last check."""
    _seen_bytes = 0
    on_body: Callable[[bytes], None]

    def __init__(self, owner: AttemptOwner, target: UpstreamTarget, heard_s: float) -> None:
        self.owner = owner
        self.target = target
        self.heard_s = heard_s
        """When the target last sent something; at first, when the attempt began."""

    def __repr__(self) -> str:
        return f"<Attempt at {self.target.id}, {'answered' if self.head else 'waiting'}>"

    # Sending

    def start(self) -> None:
        """Send the request on an idle connection, or connect first."""
        connection = None if self.owner.lost_at is not None else self.target.take_idle()
        if connection is not None:
            self._send(connection)
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        owner = self.owner
        try:
            connection = await connect(self.target, timeout_s=owner.context.settings.connect_s)
        except (OSError, TimeoutError, ssl.SSLError):
            self._connecting = None
            owner.attempt_failed(self, "connect")
            return
        self._connecting = None
        if connection.closing:
            # It was closed while this task waited for its turn, so no callback will follow.
            owner.attempt_failed(self, "lost")
        elif owner.done:
            self.target.keep(connection)
        else:
            self._send(connection)

    def _send(self, connection: EngineConnection) -> None:
        owner, target = self.owner, self.target
        request = owner.request
        data = owner.rest_body or request.body
        if not target.as_it_is:
            try:
                self._enter_slot()
                data, self.assembler = body_for(request, target, data=data, stay=self._stay)
            except RecursionError:
                target.keep(connection)
                owner.reject(too_deep())
                return
        self.connection = connection
        head = target.request_start(request.path)
        if request.path == TRANSCRIPTIONS:
            head = head.replace(b"application/json", request.form, 1)
        whole = b"%b%d\r\n%b%b\r\n%b" % (head, len(data), request.id_line, request.passed, data)
        connection.send(self, whole, owner.context.write_batch)
        if owner.paused_s is not None:
            connection.pause()

    def _enter_slot(self) -> None:
        """Take a slot of an engine that keeps callers apart by slots."""
        owner, engine = self.owner, self.target.engine
        request = owner.request
        if (
            request.cache_salt
            and engine.prefix_cache is PrefixCache.SLOTS
            and request.path not in COUNT_PATHS
        ):
            pinned = request.one_answer and request.path in engine.apart_paths
            if owner.prefix_key is None:
                owner.prefix_key = key_of(request.path, request.body)
            self._stay = self.target.owners.enter(request.cache_salt, owner.prefix_key, pinned=pinned)

    def _is_answered(self) -> bool:
        return self.head is not None and self.head.status == 200

    def _leave_slot(self, *, answered: bool) -> None:
        if self._stay is not None:
            self.target.owners.leave(self._stay, answered=answered)
            self._stay = None

    # What the engine's connection calls

    def takes_whole(self, head: AnswerHead) -> bool:
        """Return whether an answer that came whole in one read, as most do, can go to the client as it is."""
        owner = self.owner
        whole = head.plain and self.assembler is None and not owner.resumed_at_bytes
        return whole and owner.request.keep_alive and not owner.context.draining

    def on_whole(self, head: AnswerHead, data: bytes) -> None:
        """Take such an answer; its connection is free again."""
        self.connection = None
        usage = whole_usage(data)
        unread = usage is None or len(data) > WHOLE_BYTES_MAX
        if unread and self.owner.request.path in JSON_PATHS and not is_json(data):
            self.owner.attempt_failed(self, "status")
            return
        self.owner.answer_came()
        self.owner.finish_whole(head, data, usage)

    def on_head(self, connection: EngineConnection, head: AnswerHead) -> None:
        """Decide what to do with an answer whose head has come."""
        del connection
        self.engine_keeps_alive = head.keep_alive
        self._heard = True
        status = head.status
        if status >= 300 and self.owner.moves_on(head):
            return
        if status < 500 and status not in TRY_ELSEWHERE:
            self.owner.answer_came()
        self.head = head
        if status >= 300 and status != 304:
            self.wants_payload, self.on_body = True, self._collect
        elif self.assembler is not None and head.event_stream:
            self.wants_payload, self.on_body = True, self._assemble
        elif self.owner.resumed_at_bytes:
            self._join(head)
        else:
            owner = self.owner
            owner.tap, head = tap_for(
                head,
                owner.request,
                write=owner.client.write,
                on_last=owner.on_last,
                on_error=self.note_error,
            )
            self.passing, self.on_body = owner.tap, self._pass_on
            self._client_head = owner.client_head(head)

    def _join(self, head: AnswerHead) -> None:
        """Pass on the rest of an answer that another target began."""
        if head.event_stream and (head.chunked or head.length_bytes is not None):
            self.passing, self.on_body = self.owner.tap, self._pass_on
        else:
            self.owner.no_other_target()

    def on_lost(self, connection: EngineConnection, frame: BodyFrame | None, *, in_order: bool) -> None:
        """Deal with an engine connection that ended before the answer did; `in_order`: it was closed, not broken."""
        self.connection = None
        owner = self.owner
        if isinstance(frame, UntilCloseFrame) and in_order:
            # An answer without a length ends with its connection; that it is whole cannot be known, as HTTP/1.0 goes.
            self.on_end()
        elif owner.answer_bytes > owner.resumed_at_bytes:
            self.count_failure("lost")
            owner.stream_broke(frame, "The engine failed.", reason="engine_lost")
        elif connection.served and owner.lost_at is None and frame is None:
            # A pooled connection that the engine closed at the same moment: no sign of a sick replica. From here on this
            # request uses no other pooled one, so that it meets that only once, in addition to its attempts if need be.
            owner.lost_at = self.target
            owner.try_again(self.target)
        else:
            owner.attempt_failed(self, "lost")

    def on_end(self) -> None:
        """Finish: the answer was read to its end."""
        self.connection = None
        head = self.head
        assert head is not None
        if self.on_body == self._collect:
            body = b"".join(self._error_parts)
            self.owner.finish_error(head.status, body, retry_after_s=head.retry_after_s)
        elif self.on_body == self._assemble:
            assert self.assembler is not None
            answer = self.assembler.result()
            if self.assembler.broken:
                self.owner.attempt_failed(self, "status")
            elif isinstance(answer, ApiError):
                if self.assembler.reported:
                    self.note_error("error_event", self.assembler.reported)
                self.owner.reject(Rejection(error=answer, by_engine=True))
            else:
                self.owner.finish_assembled(answer)
        else:
            self._end_passed(head.status)

    def _end_passed(self, status: int) -> None:
        """End an answer that was passed on, or treat it as a dead engine's where it only stopped."""
        owner, passing = self.owner, self.passing
        assert passing is not None
        last = passing.last_part()
        if last is not None:
            if last or self._client_head:
                self._pass_on(last)
            owner.finish_passed(status)
        elif owner.answer_bytes > owner.resumed_at_bytes:
            self.count_failure("status")
            # The framing has ended already, so what counts is how the client gets it.
            owner.stream_broke(UntilCloseFrame(), "The engine ended its answer early.", reason="engine_lost")
        else:
            owner.attempt_failed(self, "status")

    # What becomes of the body

    def _pass_on(self, data: bytes) -> None:
        tap = self.passing
        assert tap is not None
        tap.total_bytes += len(data)
        tap.keep(data)
        if self._client_head:
            data = self._client_head + data
            self._client_head = b""
            self._first_byte()
        elif not self._began and self.owner.resumed_at_bytes:
            self._first_byte()
        tap.last = data
        tap.write(data)

    def _first_byte(self) -> None:
        owner, now_s = self.owner, self.owner.context.now_s()
        streamed = owner.request.stream or self.assembler is not None
        if streamed and owner.first_s is None:
            owner.first_s = now_s
        self._began = True
        self.target.gate.first_byte(now_s - self.heard_s, streamed=streamed)

    def _collect(self, data: bytes) -> None:
        self._heard = True
        self._error_parts = (*self._error_parts, data)
        if sum(map(len, self._error_parts)) > _ERROR_BODY_BYTES_MAX:
            self.stop_engine()
            self.on_end()

    def _assemble(self, data: bytes) -> None:
        assert self.assembler is not None
        self._heard = True
        if self.owner.first_s is None:
            self._first_byte()
        self.assembler.feed(data)
        if self.assembler.size_bytes > _ANSWER_BYTES_MAX:
            self.stop_engine()
            self.owner.reject(
                errors.bad_gateway("The answer is larger than this gateway puts together; ask for a stream.")
            )

    # What its exchange calls

    @property
    def frame(self) -> BodyFrame | None:
        """Return the framing of the body under way; None: there is none."""
        return None if self.connection is None else self.connection.frame

    def pause(self) -> None:
        """Stop reading from the engine."""
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        """Read from the engine again; its silence meanwhile does not count."""
        self._heard = True
        if self.connection is not None:
            self.connection.resume()

    def stop_engine(self) -> None:
        """Drop the connection, so that the engine ends its work."""
        if self.connection is not None:
            self.connection.abort()
            self.connection = None
            self.owner.context.left_running(self.owner, self.target)

    def spoke(self, now_s: float) -> bool:
        """Return whether the target sent something since the last call; called about twice a second."""
        answer_bytes = self.owner.answer_bytes + (self.passing.held_bytes if self.passing else 0)
        if not self._heard and answer_bytes == self._seen_bytes:
            return False
        self._heard, self.heard_s, self._seen_bytes = False, now_s, answer_bytes
        return True

    def silent_too_long(self, now_s: float) -> bool:
        """Return whether the target has sent nothing for longer than its model's engines may."""
        return self.connection is not None and now_s - self.heard_s > self._silence_max_s()

    def _silence_max_s(self) -> float:
        owner = self.owner
        stall_s, settings = owner.model.entry.stall_s, owner.context.settings
        if self.head is not None:
            return stall.limit_s(settings.between_bytes_s, stall_s, silent_tokens=0)
        tokens = owner.cost_tokens
        if owner.request.stream or self.assembler is not None:
            tokens -= owner.request.max_tokens
        return stall.limit_s(settings.first_byte_s, stall_s, silent_tokens=tokens)

    def count_silence(self) -> None:
        """Count a failure where a client gave up on an engine that had not answered any request meanwhile.

        A hung engine keeps its connections open and sends nothing; without this, each client that gives up would leave
        it looking idle, so that it would be given the next request too. One that answered other requests is slow, not
        hung.
        """
        silent_s = self.owner.context.now_s() - self.heard_s
        if self.connection is None or self.head is not None or silent_s < _GIVEN_UP_S:
            return
        if self.target.outlier.heard_s <= self.heard_s:
            self.count_failure("silent")

    def count_failure(self, failure: Failure) -> None:
        """Count a failure of the target, which may eject it."""
        context = self.owner.context
        reason = self.owner.model.failed(self.target, failure, context.now_s())
        if reason is not None:
            context.log.warning("endpoint_ejected", endpoint=self.target.id, reason=reason)

    def count_busy(self, head: AnswerHead) -> None:
        """Count a 429, 502, 503 or 504."""
        owner = self.owner
        wait_s = min(head.retry_after_s or 1.0, errors.RETRY_AFTER_S_MAX)
        owner.model.busy(self.target, owner.context.now_s() + wait_s)
        if head.status in {429, 503}:
            self.target.gate.busy()
        else:
            self.count_failure("status")

    def count_broken(self, body: bytes) -> bool:
        """Count a 500; return whether its body shows that the engine is at fault, and not the request or the model."""
        engine = self.target.engine
        error = engine.translate_error(500, body)
        clients_fault = error is not None and error.status < 500
        if clients_fault or (engine.blames_model is not None and engine.blames_model(body)):
            self.owner.answer_came()
            return False
        self.count_failure("status")
        return True

    def note_error(self, reason: str, text: bytes) -> None:
        """Write an engine's own error text into the log, but nothing that its model wrote; the client does not get it."""
        engine, detail = self.target.engine, text[:_LOGGED_BYTES].decode("utf-8", "replace")
        if engine.blames_model is not None and engine.blames_model(text):
            detail = "what the model wrote does not parse"
        name = self.owner.request.request_id
        self.owner.context.log.warning(
            "engine_error", endpoint=self.target.id, reason=reason, request=name, detail=detail
        )

    def leave(self, whole_s: float | None = None) -> None:
        """Free the place at the target; `whole_s`: seconds after which the answer came whole in one read, if it did."""
        self._leave_slot(answered=whole_s is not None or self._is_answered())
        if self.holds_place:
            self.holds_place = False
            self.target.gate.leave(self.owner.cost_tokens, began=self._began, whole_s=whole_s)
            if self.owner.on_trial:
                self.owner.on_trial = self.target.outlier.trial = False

    def forget_answer(self) -> None:
        """Drop what came of an answer: another attempt follows."""
        self._leave_slot(answered=self._is_answered())
        self.head, self.assembler, self._error_parts = None, None, ()
        self.passing = None
