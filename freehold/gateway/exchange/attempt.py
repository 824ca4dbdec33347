"""What an attempt at a target says of that target, and whether the request may go to another one.

The half of an exchange that judges: it counts failures and answers, asks the retry budget, and knows how long a target
may be silent. It does not decide what is sent, passed on or told to the client: `exchange` does.
"""

from typing import TYPE_CHECKING

from freehold.gateway.answers.assemble import Assembler
from freehold.gateway.endpoints import stall
from freehold.gateway.endpoints.outlier_detection import Failure
from freehold.gateway.endpoints.pool import ServedModel, UpstreamTarget
from freehold.gateway.queue.admission import QueuedRequest
from freehold.gateway.wire import errors
from freehold.gateway.wire.headers import AnswerHead
from freehold.gateway.wire.request import Request

if TYPE_CHECKING:
    from freehold.gateway.server.gateway import Gateway

ATTEMPTS_MAX = 3
"""Endpoints tried for one request. Source: our own bound, so that a request which kills engines cannot kill them all."""
_GIVEN_UP_S = 1.0  # A client that leaves sooner says nothing of the engine. Source: our own choice.


class Attempting(QueuedRequest):
    """A request with the target that it is at. Defaults stand on the class, as in `Exchange`."""

    gateway: "Gateway"
    model: ServedModel
    request: Request
    target: UpstreamTarget | None = None
    attempts = 0
    _at_target = False
    _head: AnswerHead | None = None
    assembler: Assembler | None = None
    first_s: float | None = None
    _heard_s = 0.0
    _began = False
    """The target under way has said something."""
    _resumed_at_bytes = 0
    """What the client had of the answer when it was last given to another replica; 0: it never was."""

    def _answered(self, target: UpstreamTarget) -> None:
        self.model.succeeded(target, self.gateway.tick_s)

    def _failed(self, target: UpstreamTarget, failure: Failure) -> None:
        reason = self.model.failed(target, failure, self.gateway.now_s())
        if reason is not None:
            self.gateway.log.warning("endpoint_ejected", endpoint=target.id, reason=reason)

    def _has_other(self, target: UpstreamTarget) -> bool:
        # Who has an answer already waits for a replica that is started again, if need be.
        untried = self._resumed_at_bytes or any(
            t not in self.tried and t is not target for t in self.model.targets
        )
        return bool(untried) and self.attempts < ATTEMPTS_MAX

    def _may_move(self, target: UpstreamTarget) -> bool:
        """Return whether the request may be sent to another target, and count that on the budget.

        A begun answer costs no budget: a replica takes all its streams with it at once, each would be lost work, and
        they wait for room beside the queue; only attempts bound them.
        """
        if not self._has_other(target):
            return False
        return bool(self._resumed_at_bytes) or self.gateway.budget.spend(self.gateway.now_s())

    def _may_move_busy(self, head: AnswerHead, target: UpstreamTarget) -> bool:
        """Take note of a 429, 502, 503 or 504 and return the same."""
        until_s = self.gateway.now_s() + min(head.retry_after_s or 1.0, errors.RETRY_AFTER_S_MAX)
        self.model.busy(target, until_s)
        if head.status in {429, 503}:
            target.gate.busy()
        else:
            self._failed(target, "status")
        return self._may_move(target)

    def _may_move_broken(self, body: bytes, target: UpstreamTarget) -> bool:
        """Take note of a 500, whose body says whose fault it is, and return the same."""
        engine = target.engine
        error = engine.translate_error(500, body)
        callers_fault = error is not None and error.status < 500
        if callers_fault or (engine.blames_model is not None and engine.blames_model(body)):
            self._answered(target)
            return False
        self._failed(target, "status")
        return self._may_move(target)

    def _suspect_silence(self) -> None:
        """Count it as a failure when a client gave up on an engine that had not said a word to anybody.

        A hung engine keeps its connections open and says nothing; without this, each client that gives up would leave
        it looking idle, so that it would be given the next request too. One that answered others since is slow, not
        hung.
        """
        target, silent_s = self.target, self.gateway.now_s() - self._heard_s
        if target is None or self._head is not None or silent_s < _GIVEN_UP_S:
            return
        if target.standing.heard_s <= self._heard_s:
            self._failed(target, "silent")

    def _silence_max_s(self) -> float:
        stall_s, times = self.model.entry.stall_s, self.gateway.settings
        if self._head is not None:
            return stall.limit_s(times.between_bytes_s, stall_s, silent_tokens=0)
        tokens = self.cost_tokens
        if self.request.stream or self.assembler is not None:
            tokens -= self.request.max_tokens
        return stall.limit_s(times.first_byte_s, stall_s, silent_tokens=tokens)

    def _leave_target(self, whole_s: float | None = None) -> None:
        if self._at_target and self.target is not None:
            self.target.gate.leave(self.cost_tokens, began=self._began, whole_s=whole_s)
            self._at_target = False
            if self.on_trial:
                self.on_trial = self.target.standing.trial = False
