"""One request under way: choose a target, send, pass the answer on; retry before the first byte, explain a cut after it.

The exchange owns every decision about one request and holds the two connections together: a client that reads slowly
pauses the engine, a client that leaves ends the engine's work, an engine that dies or stalls before its first byte is
replaced by another, and so is one that does in the middle of a stream of text; where that cannot be, the stream ends with
an error in band. It never parses what it passes on.
"""

import asyncio
import ssl
from typing import TYPE_CHECKING

from freehold.engines.base import ApiError
from freehold.gateway.answers.stream_tap import StreamTap, tap_for
from freehold.gateway.answers.usage import Usage, whole_usage
from freehold.gateway.endpoints.pool import ServedModel, UpstreamTarget
from freehold.gateway.exchange import finish
from freehold.gateway.exchange.retry import Setbacks
from freehold.gateway.exchange.upstream import UpstreamConnection, connect
from freehold.gateway.exchange.upstream_request import body_for, request_bytes
from freehold.gateway.wire import errors
from freehold.gateway.wire.body import too_deep
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.headers import AnswerHead
from freehold.gateway.wire.request import Request

if TYPE_CHECKING:
    from freehold.gateway.server.client_connection import ClientConnection
    from freehold.gateway.server.gateway import Gateway

_ERROR_BODY_BYTES_MAX = (
    64 * 1024
)  # An engine's error is a sentence; more than this is cut. Source: our own bound.
_ANSWER_BYTES_MAX = 64 * 1024 * 1024  # Largest answer put together in memory. Source: our own bound.
_TRY_ELSEWHERE = frozenset(
    {429, 502, 503, 504}
)  # Busy, or dead behind it; of a 500 the body says whose fault it is.
_RESUMED = {499: "abandoned"}  # What became of a resumed stream that was not finished, by its status.


class Exchange(Setbacks):
    """One request under way. Defaults stand on the class: an instance holds what this request has met so far."""

    wants_payload = False
    engine_keeps_alive = False
    _connecting: asyncio.Task[None] | None = None
    _pending = b""
    _kept: tuple[bytes, ...] = ()
    _heard = False
    _paused_s: float | None = None
    _seen_bytes = 0
    usage: Usage | None = None
    _noted = False

    def __init__(
        self, gateway: "Gateway", client: "ClientConnection", *, model: ServedModel, request: Request
    ) -> None:
        self.gateway = gateway
        self.client = client
        self.model = model
        self.request = request
        self._times = gateway.settings  # as they are now: a reload cuts nobody
        self.started_s = self._begun_s = self._heard_s = gateway.now_s()
        if request.caller is not None:
            self.belongs_to(request.caller)

    def __repr__(self) -> str:
        at = self.target.id if self.target else "nowhere"
        return f"<Exchange {self.request.request_id} {self.model.entry.name} at {at}, {self.answer_bytes} bytes passed>"

    @property
    def deadline_s(self) -> float:
        """Return when the whole answer must be there, on the loop's clock: the first of all limits that there are."""
        return self.started_s + min(self.request.timeout_s, self._times.total_s)

    # Sending

    def start(self) -> None:
        """Begin: find a target with room and send the request there, or wait for one."""
        self.gateway.budget.earn()
        target = self.model.admission.enter(self, self.started_s)
        if target is not None:
            self._attempt(target)

    def proceed(self, target: UpstreamTarget) -> None:
        """Send the request after a wait; a place at `target` is taken already."""
        self._heard_s = self.gateway.now_s()
        if not self.attempts:
            self._begun_s = self._heard_s
        self._attempt(target)

    def turn_away(self, refusal: Rejection) -> None:
        """Refuse the request, which waited in vain; no engine saw it."""
        self.done = True
        if self.request.grant is not None:
            self.request.grant.end(refusal.error.status, 0, asked=False)
        self.client.refuse(refusal, self.request)

    def _attempt(self, target: UpstreamTarget) -> None:
        self.attempts += 1
        self.target, self._at_target = target, True
        connection = None if self._fresh else target.take_idle()
        if connection is not None:
            self._send(connection, target)
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._connect(target))

    def _attempt_again(self, target: UpstreamTarget | None = None) -> None:
        """Begin another attempt; what the one before had begun to hear is forgotten."""
        self._heard_s, self._head, self._kept, self.assembler = self.gateway.now_s(), None, (), None
        self._began = False
        if not self._resumed_at_bytes:
            self.first_s = self.passing = None
        elif isinstance(self.passing, StreamTap):
            self.passing.begin_again()
        target = target or self.model.admission.enter_again(self, self._heard_s)
        if target is not None:
            self._attempt(target)

    async def _connect(self, target: UpstreamTarget) -> None:
        try:
            connection = await connect(target, timeout_s=self.gateway.settings.connect_s)
        except (OSError, TimeoutError, ssl.SSLError):
            self._connecting = None
            self._attempt_failed("connect")
            return
        self._connecting = None
        if connection.closing:
            # It was closed while this task waited for its turn, so nobody would tell us any more.
            self._attempt_failed("lost")
            return
        if self.done:
            target.keep(connection)
            return
        self._send(connection, target)

    def _send(self, connection: UpstreamConnection, target: UpstreamTarget) -> None:
        data = self._asking or self.request.body
        if not target.as_it_is:
            try:
                data, self.assembler = body_for(self.request, target, data)
            except RecursionError:
                target.keep(connection)
                self._refuse(too_deep())
                return
        self._connection = connection
        connection.send(self, request_bytes(self.request, target, data))
        if self._paused_s is not None:
            connection.pause()

    # What the engine's connection calls

    def takes_whole(self, head: AnswerHead) -> bool:
        """Return whether an answer that came whole in one read, as most do, can go to the client as it is."""
        whole = head.plain and self.assembler is None and not self._resumed_at_bytes
        return whole and self.request.keep_alive and not self.gateway.draining

    def on_whole(self, head: AnswerHead, data: bytes) -> None:
        """Pass on such an answer; its connection is free again."""
        assert self.target is not None
        self._connection = None
        self._answered(self.target)
        self._made_bytes = len(data)
        self.usage = whole_usage(data)
        # It is in the ledger before it leaves, whenever this process is killed: the outbox sees to that.
        self._note(200, complete=True, later=True)
        self._finish(200)
        lines = self.request.id_line, self.gateway.date_line, self.request.limit_lines
        self.client.answered_whole(b"".join((head.start, *lines, b"\r\n", data)))

    def on_head(self, connection: UpstreamConnection, head: AnswerHead) -> None:
        """Decide what to do with an answer whose head has come."""
        assert self.target is not None
        self.engine_keeps_alive = head.keep_alive
        self._heard = True
        if head.status in _TRY_ELSEWHERE and self._may_move_busy(head, self.target):
            connection.abort()
            self._connection = None
            self._attempt_over(f"status_{head.status}")
            return
        if head.status < 500 and head.status not in _TRY_ELSEWHERE:
            self._answered(self.target)
        self._head = head
        self._choose_mode(head)

    def _choose_mode(self, head: AnswerHead) -> None:
        if head.status >= 300 and head.status != 304:
            self.wants_payload, self.on_body = True, self._collect
        elif self.assembler is not None and head.event_stream:
            self.wants_payload, self.on_body = True, self._assemble
        elif self._resumed_at_bytes:
            self._join(head)
        else:
            self.wants_payload = False  # an attempt before may have wanted it
            self.passing, head = tap_for(head, self.request, write=self.client.write, on_last=self._on_last)
            self._pending = self._client_head(head)
            self.on_body = self._splice

    def _join(self, head: AnswerHead) -> None:
        """Pass the rest of an answer on that another engine began."""
        if head.event_stream and (head.chunked or head.length_bytes is not None):
            self.wants_payload, self.on_body = False, self._splice
        else:
            self._refuse(self._no_replica())

    def _on_last(self, last_bytes: int) -> None:
        """Write the answer down as complete: its last bytes are about to leave."""
        assert self._head is not None
        self._note(self._head.status, complete=True, last_bytes=last_bytes)

    def _client_head(self, head: AnswerHead) -> bytes:
        http11 = self.request.http11
        self.keeps_client = http11 and (head.chunked or head.length_bytes is not None)
        start = head.start if http11 else head.start_unchunked
        return start + self.client.head_end(self.request, close=not self.keeps_client)

    def on_end(self) -> None:
        """Finish: the answer was read to its end."""
        self._connection = None
        assert self._head is not None
        if self.on_body == self._collect:
            self._answer_error(self._head)
        elif self.on_body == self._assemble:
            self._answer_assembled()
        else:
            if self._pending:
                self._splice(b"")
            assert self.passing is not None
            self._finish(self._head.status)
            self.client.answered()

    # The four ways of an answer

    def _splice(self, data: bytes) -> None:
        assert self.passing is not None
        self.passing.bytes += len(data)
        self.passing.keep(data)
        if self._pending:
            data = self._pending + data
            self._pending = b""
            self._first_byte()
        elif self._resumed_at_bytes and not self._began:
            self._first_byte()
        self.passing.last = data
        self.client.write(data)

    def _first_byte(self) -> None:
        assert self.target is not None
        now_s, streamed = self.gateway.now_s(), self.request.stream or self.assembler is not None
        if streamed and self.first_s is None:
            self.first_s = now_s
        self._began = True
        self.target.gate.first_byte(now_s - self._heard_s, streamed=streamed)

    def _collect(self, data: bytes) -> None:
        self._heard = True
        self._kept = (*self._kept, data)
        if sum(map(len, self._kept)) > _ERROR_BODY_BYTES_MAX:
            self._stop_engine()
            self.on_end()

    def _assemble(self, data: bytes) -> None:
        assert self.assembler is not None
        self._heard = True
        if self.first_s is None:
            self._first_byte()
        self.assembler.feed(data)
        if self.assembler.size_bytes > _ANSWER_BYTES_MAX:
            self._stop_engine()
            self._refuse(
                errors.bad_gateway("The answer is larger than this gateway puts together; ask for a stream.")
            )

    def _answer_error(self, head: AnswerHead) -> None:
        assert self.target is not None
        data = b"".join(self._kept)
        if head.status == 500 and self._may_move_broken(data, self.target):
            self._attempt_over("status_500")
            return
        self._refuse(
            errors.from_answer(self.target.engine, head.status, body=data, retry_after_s=head.retry_after_s)
        )

    def _answer_assembled(self) -> None:
        assert self.assembler is not None
        result = self.assembler.result()
        if isinstance(result, ApiError):
            self._refuse(Rejection(error=result, by_engine=True))
            return
        self._made_bytes = len(result)
        self.usage = whole_usage(result)
        self._finish(200)
        self.client.reply(self.request, 200, body=result)

    # What the client's connection and the wheel call

    def client_left(self) -> None:
        """End the engine's work: nobody listens any more. Who has the last event has all, and left nothing."""
        if self.done:
            return
        whole = self._noted and self._head is not None  # only the framing's end had not gone out
        if not whole:
            self.gateway.meters.client_left(self.model.entry.name)
            if self._connection is not None:
                self._suspect_silence()
        self._stop_engine()
        self._finish(self._head.status if whole and self._head else 499)

    def pause(self) -> None:
        """Stop reading from the engine: the client is full."""
        self._paused_s = self.gateway.now_s()
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read from the engine again."""
        self._paused_s = None
        self._heard = True
        if self._connection is not None:
            self._connection.resume()

    def check(self, now_s: float) -> None:
        """Enforce the time limits; called about twice a second."""
        times = self._times
        if self.claim is not None:
            return  # the queue has its own
        if self.passing is not None:
            self.passing.tidy(self.gateway.keeping)
        if now_s >= self.deadline_s:
            self._engine_gone("The answer was not finished within the request's timeout.", code="timeout")
        elif not self._at_target:
            return
        elif self._heard or self.answer_bytes != self._seen_bytes:
            self._heard, self._heard_s, self._seen_bytes = False, now_s, self.answer_bytes
        elif self._paused_s is not None:
            if now_s - self._paused_s > times.client_stall_s:
                self.gateway.meters.cut(self.model.entry.name, "client_stall")
                self.code = "client_stall"
                self._stop_engine()
                self._finish(499)
                self.client.abort()
        elif self._connection is not None and now_s - self._heard_s > self._silence_max_s():
            self._engine_too_slow()

    def _finish(self, status: int) -> None:
        if self.done:
            return
        self.done = True
        now_s = self.gateway.now_s()
        unfinished = isinstance(self.passing, StreamTap) and not self.passing.ended
        if not self._noted:
            self._note(status, complete=status < 400 and not unfinished)
        if self._resumed_at_bytes:
            self.model.meters.resumed(_RESUMED.get(status, "cut") if unfinished else "whole")
        self._leave_target(now_s - self._heard_s if self._head is None and status == 200 else None)
        if self.request.grant is not None:
            self.request.grant.end(status, self.answer_bytes, asked=self.attempts > 0)
        took_s = now_s - self.started_s
        ttft_s = None if self.first_s is None else self.first_s - self.started_s
        self.model.meters.finished(
            self.request.path, status, took_s=took_s, ttft_s=ttft_s, answer_bytes=self.answer_bytes
        )
        self.model.admission.end(self, service_s=now_s - self._begun_s if status < 400 else None)

    def _note(self, status: int, *, complete: bool, last_bytes: int = 0, later: bool = False) -> None:
        """Settle what this request came to, once; `later`: its answer leaves through the outbox, and is in the ledger by then."""
        if not self._noted:
            self._noted = True
            finish.settle(self, status, complete=complete, last_bytes=last_bytes)
            if self.gateway.recorder is not None and not later:
                self.gateway.recorder.write()
