"""Retry the requests that were running when an engine crashed, one at a time, so that the cause does not end a second engine.

A connection that breaks shows that an answer is lost, not why. So a request waits a moment for the report of how its engine
ended, also where its stream has begun. If the engine was killed or stopped, or if no report comes, its requests are retried at once.
After a crash they are retried one after the other, the most likely cause last, and never at the last ready engine. If the next
engine crashes too, the request that was retried there is the cause, and the others are released. If all others are answered, the
last one is the cause and is not retried. The cause is rejected, and its body is blocked in the quarantine.

An engine may also crash under a request whose client has left. So what left an engine at work is remembered for a moment: if that
engine crashes and nothing else ran there, this was the cause. Otherwise its caller is only kept from the last ready replica.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from freehold.core.events import EngineEnd
from freehold.engines.base import ExitKind
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.exchange.quarantine import LARGE_BYTES, Quarantine, SentRequest, constrains, sender_of
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.headers import AnswerHead
from freehold.gateway.wire.ports import Loop
from freehold.telemetry.logs import get_logger

_LOOK_EVERY_S = 0.05
"""Between two looks, seconds. Source: our own choice: connections of one engine break within milliseconds of each other."""
_REPORT_S = 0.5
"""Longest wait for a report, seconds. Source: our own choice; minder and fleet take some 30 ms on a quiet machine."""
_SURVIVED_S = 1.0
"""A request whose engine lives so long is followed by the next. Source: our own choice; a grammar of 400,000 parentheses
ends llama.cpp after 0.3 s."""
_LEFT_S = 3.0
"""How long a request may have crashed the engine that it left, seconds. Source: our own choice: llama.cpp frees a slot 0.2 s after its
client left, but parses a grammar to its end; with the fleet's report that is a second, and as much again on a busy machine."""
_LEFT_MAX = 256
"""Requests that left and are remembered; the oldest go first. Source: our own bound: 16 MiB, if all were small and without keys."""
_CRASHES = frozenset({ExitKind.CRASHED, ExitKind.OUT_OF_MEMORY, ExitKind.UNKNOWN})
"""Ends that a request may have caused; the others come from outside, or from how the engine was started."""


class RetriedAttempt(Protocol):
    """A request's newest attempt; `attempt.Attempt` is one."""

    holds_place: bool
    heard_s: float
    head: AnswerHead | None


class InterruptedRequest(SentRequest, Protocol):
    """A request that waits here; `exchange.Exchange` is one."""

    started_s: float
    done: bool
    saw_crash: bool
    """An engine crashed under this request; a whole answer clears it."""

    @property
    def attempt(self) -> RetriedAttempt | None:
        """Return its newest attempt; None: it is over."""

    def move_on(self) -> None:
        """Ask another engine, or let it continue the stream, if that may be."""

    def no_other_target(self) -> None:
        """Reject it: no engine had room in time."""

    def reject_here(self, rejection: Rejection) -> None:
        """Reject it for good; a stream that has begun gets the error in band."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _LeftRequest:
    """A request whose client left while an engine worked for it."""

    at: tuple[str, int]
    """Which engine, by replica and incarnation."""
    model: str
    sender: str
    body: bytes
    """Empty: a large one, which is not kept. Then only its sender is blamed."""
    others: bool
    """Other workers had requests there too."""
    until_s: float


class _CrashedEngine:
    """The requests of one crash that were not retried yet, the least likely cause first."""

    def __init__(self, requests: Iterable[InterruptedRequest], until_s: float, *, has_cause: bool) -> None:
        self.requests = deque(sorted(requests, key=_retry_order))
        self.all_requests = frozenset(self.requests)
        self.until_s = until_s
        self.has_cause = has_cause
        """One of these is the cause, if all others are answered: no other worker had requests there, and no client left."""


class _EndedEngine:
    """Requests that one engine left without a whole answer, until it is known how it ended."""

    def __init__(self, until_s: float, *, others: bool) -> None:
        self.until_s = until_s
        self.requests: list[InterruptedRequest] = []
        self.others = others
        """Other workers had requests there too."""


class CrashRetry:
    """The interrupted requests of ended engines in one gateway process; `ends` returns the newest reports of the fleet."""

    def __init__(self, loop: Loop, ends: Callable[[], tuple[EngineEnd, ...]], quarantine: Quarantine) -> None:
        self._loop = loop
        self._quarantine = quarantine
        self._ends = ends
        self._ended: dict[tuple[str, int], _EndedEngine] = {}
        self._crashes: dict[str, deque[_CrashedEngine]] = {}
        """Crashed engines whose requests are being retried, by model."""
        self._retried: dict[str, InterruptedRequest] = {}
        """The request that is being retried, by model."""
        self._left: deque[_LeftRequest] = deque(maxlen=_LEFT_MAX)
        """Requests that left an engine at work, the oldest first."""

    def __repr__(self) -> str:
        return f"<CrashRetry {len(self._ended)} engines without a report, {len(self._crashes)} models with retries>"

    def takes(self, request: InterruptedRequest, target: UpstreamTarget) -> bool:
        """Return whether a request whose engine left it without a whole answer waits here; then it is retried or rejected from here.

        Only an engine of this stack's fleet has reports.
        """
        incarnation = target.endpoint.incarnation
        if not target.engine.managed or not incarnation:
            return False
        at = target.id, incarnation
        ended = self._ended.get(at)
        if ended is None:
            until_s = self._loop.time() + _REPORT_S
            ended = self._ended[at] = _EndedEngine(until_s, others=self._has_others(target))
            self._loop.call_later(_LOOK_EVERY_S, partial(self._read_report, at))
        ended.requests.append(request)
        return True

    def leaves(self, request: SentRequest, target: UpstreamTarget) -> None:
        """Remember a request that leaves its engine at work, until it is known that the engine survived it."""
        at = target.id, target.endpoint.incarnation
        if not target.engine.managed or not at[1]:
            return
        if not self._left:
            self._loop.call_later(_LOOK_EVERY_S, self._look_at_left)
        body = request.request.body
        left = _LeftRequest(
            at=at,
            model=request.model.entry.name,
            sender=sender_of(request),
            body=body if len(body) < LARGE_BYTES else b"",
            others=self._has_others(target),
            until_s=self._loop.time() + _LEFT_S,
        )
        self._left.append(left)
        self._quarantine.count_left(len(self._left))

    def _has_others(self, target: UpstreamTarget) -> bool:
        """Return whether requests of other workers run at an engine, or may have left it lately."""
        return target.gate.present() > target.gate.in_flight or self._quarantine.left_elsewhere() > 0

    def _look_at_left(self) -> None:
        """Blame what left an engine that has crashed since, if nothing else was interrupted there; forget what is over."""
        crashed = {(end.id, end.incarnation) for end in self._ends() if end.kind in _CRASHES}
        for at in {each.at for each in self._left} & crashed - self._ended.keys():
            self._blame_left(self._take_left(at), alone=True)
        now_s = self._loop.time()
        while self._left and self._left[0].until_s <= now_s:
            self._left.popleft()
        self._quarantine.count_left(len(self._left))
        if self._left:
            self._loop.call_later(_LOOK_EVERY_S, self._look_at_left)

    def _take_left(self, at: tuple[str, int]) -> list[_LeftRequest]:
        """Return what left this engine lately, and forget it."""
        found = [each for each in self._left if each.at == at]
        for each in found:
            self._left.remove(each)
        return found

    def _blame_left(self, left: list[_LeftRequest], *, alone: bool) -> None:
        """Block the body of a request that must have been the cause; of the others only the senders are remembered."""
        now_s = self._loop.time()
        for each in left:
            if alone and len(left) == 1 and each.body and not each.others:
                self._quarantine.add(each.model, each.body, caller=each.sender, now_s=now_s)
            else:
                self._quarantine.add_sender(each.model, each.sender, body=each.body, now_s=now_s)
            get_logger("gateway").error("engine_crashed_after", model=each.model, caller=each.sender)

    def _read_report(self, at: tuple[str, int]) -> None:
        ended = self._ended[at]
        kind = next((end.kind for end in self._ends() if (end.id, end.incarnation) == at), None)
        if kind is None and self._loop.time() < ended.until_s:
            self._loop.call_later(_LOOK_EVERY_S, partial(self._read_report, at))
            return
        del self._ended[at]
        requests = [each for each in ended.requests if not each.done]
        left = self._take_left(at)
        if kind not in _CRASHES:
            _release(requests)
        elif self._knows_any(left):
            self._blame_left(left, alone=True)
            _release(requests)
        else:
            self._crashed(requests, has_cause=not (ended.others or left))
            self._blame_left(left, alone=False)

    def _knows_any(self, left: list[_LeftRequest]) -> bool:
        """Return whether a sender that crashed an engine before has left a request at this one."""
        now_s = self._loop.time()
        return any(
            self._quarantine.knows_sender(each.model, each.sender, body=each.body, now_s=now_s)
            for each in left
        )

    def _crashed(self, requests: list[InterruptedRequest], *, has_cause: bool) -> None:
        # A second crash, or a caller that has just ended another engine: the others need not wait for more.
        causes = [each for each in requests if each.saw_crash] or [
            each for each in requests if self._quarantine.knows(each, self._loop.time())
        ]
        if causes:
            for each in causes:
                self._block(each)
                self._release_others_of(each)
            _release(requests)
        elif requests:
            name = requests[0].model.entry.name
            until_s = self._loop.time() + requests[0].model.admission.line.bounds.max_wait_s
            for each in requests:
                each.saw_crash = True
            waiting = self._crashes.setdefault(name, deque())
            waiting.append(_CrashedEngine(requests, until_s, has_cause=has_cause))
            if len(waiting) == 1:
                self._look_at_retry(name)

    def _release_others_of(self, cause: InterruptedRequest) -> None:
        """Release the other requests of the same crash: the cause is known."""
        for crash in self._crashes.get(cause.model.entry.name, ()):
            if cause in crash.all_requests:
                requests, crash.requests = crash.requests, deque()
                for each in crash.all_requests:
                    each.saw_crash = False
                _release(requests)

    def _look_at_retry(self, name: str) -> None:
        """Retry the next request of a model, or block the last; look again while there are some."""
        crashes = self._crashes[name]
        retried = self._retried.get(name)
        if retried is not None and retried.saw_crash and retried.done:
            crashes[0].has_cause = False  # it left without an answer, so it may have been the one
        if retried is None or retried.done or not retried.saw_crash or self._survives(retried):
            self._retried.pop(name, None)
            self._retry_next(crashes, name)
        if crashes:
            self._loop.call_later(_LOOK_EVERY_S, partial(self._look_at_retry, name))
        else:
            del self._crashes[name]

    def _survives(self, retried: InterruptedRequest) -> bool:
        attempt = retried.attempt
        if attempt is None or not attempt.holds_place:
            return False  # it waits for room
        return attempt.head is not None or self._loop.time() - attempt.heard_s > _SURVIVED_S

    def _retry_next(self, crashes: deque[_CrashedEngine], name: str) -> None:
        crash, now_s = crashes[0], self._loop.time()
        requests = deque(each for each in crash.requests if not each.done)
        crash.has_cause = crash.has_cause and len(requests) == len(crash.requests)
        crash.requests = requests
        standing = requests[0].model.standing(now_s) if requests else 0
        if len(requests) == 1 and crash.has_cause:
            self._block(requests[0])
            self._release_others_of(requests.popleft())
        elif now_s >= crash.until_s or not standing:
            while requests:
                requests.popleft().no_other_target()
        elif standing > 1:
            self._retried[name] = retried = requests.popleft()
            retried.move_on()
            return
        if not requests:
            crashes.popleft()

    def _block(self, cause: InterruptedRequest) -> None:
        name, request, now_s = cause.model.entry.name, cause.request, self._loop.time()
        self._quarantine.add(name, request.body, caller=sender_of(cause), now_s=now_s)
        get_logger("gateway").error(
            "engine_crashed", model=name, request=request.request_id, caller=cause.caller
        )
        cause.reject_here(errors.engine_crashed())


def _retry_order(each: InterruptedRequest) -> tuple[bool, int, float]:
    """Return what requests are ordered by, since the last may not be retried: constrained answers, large bodies and new ones last."""
    body = each.request.body
    return constrains(body), len(body) // LARGE_BYTES, each.started_s


def _release(requests: Iterable[InterruptedRequest]) -> None:
    """Retry requests elsewhere, as after any failure."""
    for each in list(requests):
        if not each.done:
            each.move_on()
