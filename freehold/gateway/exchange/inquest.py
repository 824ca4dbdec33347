"""Which request made an engine crash: asked of the fleet's report, then of the other engines, one suspect at a time.

A connection that breaks shows that an answer is lost, not why. So a request without a first byte waits a moment for the
report of how its engine ended. An engine that was killed or stopped, or of which no report comes, is not the requests'
doing: they move at once. After a crash all of them are suspects. They are asked again one after the other, the most suspected
last, and never at the last ready engine. If the next engine crashes too, that suspect is to blame and the others are free. If all
others are answered, the last one is to blame and is not asked again. It does not decide what becomes of the blamed: `exchange` does.
"""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from freehold.core.events import EngineEnd
from freehold.engines.base import ExitKind
from freehold.gateway.endpoints.model import ServedModel
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.exchange.quarantine import LARGE_BYTES, Quarantine, constrains, sender_of
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.headers import AnswerHead
from freehold.gateway.wire.ports import Loop
from freehold.gateway.wire.request import Request
from freehold.telemetry.logs import get_logger

_LOOK_EVERY_S = 0.05
"""Between two looks, seconds. Source: our own choice: connections of one engine break within milliseconds of each other."""
_REPORT_S = 0.5
"""Longest wait for a report, seconds. Source: our own choice; minder and fleet take some 30 ms on a quiet machine."""
_TURN_S = 1.0
"""A suspect whose engine lives so long is followed by the next. Source: our own choice; a grammar of 400,000 parentheses
ends llama.cpp after 0.3 s."""
_CRASHES = frozenset({ExitKind.CRASHED, ExitKind.OUT_OF_MEMORY, ExitKind.UNKNOWN})
"""Ends that a request may have caused; the others come from outside, or from how the engine was started."""


class SuspectAttempt(Protocol):
    """A suspect's newest attempt; `attempt.Attempt` is one."""

    holds_place: bool
    heard_s: float
    head: AnswerHead | None


class Suspect(Protocol):
    """A request that waits here; `exchange.Exchange` is one."""

    model: ServedModel
    request: Request
    caller: str
    started_s: float
    done: bool
    suspected: bool
    """Its engine crashed before it answered; an answer acquits it."""

    @property
    def attempt(self) -> SuspectAttempt | None:
        """Return its newest attempt; None: it is over."""

    def move_on(self) -> None:
        """Ask another engine, if that may be."""

    def no_other_target(self) -> None:
        """Reject it: no engine had room in time."""

    def reject_here(self, rejection: Rejection) -> None:
        """Reject it for good."""


class _Group:
    """The suspects of one crash that were not asked again yet, the oldest first."""

    def __init__(self, suspects: Iterable[Suspect], until_s: float, *, complete: bool) -> None:
        self.suspects = deque(sorted(suspects, key=_suspicion))
        self.members = frozenset(self.suspects)
        self.until_s = until_s
        self.complete = complete
        """One of these is to blame, if all others are acquitted: no other worker had requests there, and none left."""


class _Loss:
    """Requests that one engine left without an answer, until it is known how it ended."""

    def __init__(self, until_s: float, *, others: bool) -> None:
        self.until_s = until_s
        self.suspects: list[Suspect] = []
        self.others = others
        """Other workers had requests there too."""


class Inquest:
    """All that is open in one gateway process; `ends` gives the newest reports."""

    def __init__(self, loop: Loop, ends: Callable[[], tuple[EngineEnd, ...]], quarantine: Quarantine) -> None:
        self._loop = loop
        self._quarantine = quarantine
        self._ends = ends
        self._lost: dict[tuple[str, int], _Loss] = {}
        self._groups: dict[str, deque[_Group]] = {}
        """By model."""
        self._on_trial: dict[str, Suspect] = {}

    def __repr__(self) -> str:
        return f"<Inquest {len(self._lost)} engines lost, {len(self._groups)} models with suspects>"

    def takes(self, suspect: Suspect, target: UpstreamTarget) -> bool:
        """Return whether a request whose engine left it without an answer waits here; then it goes on by itself.

        Only an engine of this stack's fleet has reports.
        """
        incarnation = target.endpoint.incarnation
        if not target.engine.managed or not incarnation:
            return False
        at = target.id, incarnation
        loss = self._lost.get(at)
        if loss is None:
            others = target.gate.present() > target.gate.in_flight
            loss = self._lost[at] = _Loss(self._loop.time() + _REPORT_S, others=others)
            self._loop.call_later(_LOOK_EVERY_S, partial(self._look, at))
        loss.suspects.append(suspect)
        return True

    def _look(self, at: tuple[str, int]) -> None:
        loss = self._lost[at]
        kind = next((end.kind for end in self._ends() if (end.id, end.incarnation) == at), None)
        if kind is None and self._loop.time() < loss.until_s:
            self._loop.call_later(_LOOK_EVERY_S, partial(self._look, at))
            return
        del self._lost[at]
        suspects = [each for each in loss.suspects if not each.done]
        if kind in _CRASHES:
            self._crashed(suspects, complete=not loss.others)
        else:
            _free(suspects)

    def _crashed(self, suspects: list[Suspect], *, complete: bool) -> None:
        # On a second crash, or of a caller who has just ended another engine: the others need not wait for more.
        blamed = [each for each in suspects if each.suspected] or [
            each for each in suspects if self._quarantine.knows(each, self._loop.time())
        ]
        if blamed:
            for each in blamed:
                self._convict(each)
                self._free_group_of(each)
            _free(suspects)
        elif suspects:
            name = suspects[0].model.entry.name
            until_s = self._loop.time() + suspects[0].model.admission.line.bounds.max_wait_s
            for each in suspects:
                each.suspected = True
            waiting = self._groups.setdefault(name, deque())
            waiting.append(_Group(suspects, until_s, complete=complete))
            if len(waiting) == 1:
                self._next(name)

    def _free_group_of(self, culprit: Suspect) -> None:
        """Let the suspects of the same crash go: it is known who was to blame."""
        for group in self._groups.get(culprit.model.entry.name, ()):
            if culprit in group.members:
                suspects, group.suspects = group.suspects, deque()
                for each in suspects:
                    each.suspected = False
                _free(suspects)

    def _next(self, name: str) -> None:
        """Ask for the next suspect of a model, or blame the last; look again while there are some."""
        groups = self._groups[name]
        trial = self._on_trial.get(name)
        if trial is not None and trial.suspected and trial.done:
            groups[0].complete = False  # it left without an answer, so it may have been the one
        if trial is None or trial.done or not trial.suspected or self._outlives(trial):
            self._on_trial.pop(name, None)
            self._take_turn(groups, name)
        if groups:
            self._loop.call_later(_LOOK_EVERY_S, partial(self._next, name))
        else:
            del self._groups[name]

    def _outlives(self, trial: Suspect) -> bool:
        attempt = trial.attempt
        if attempt is None or not attempt.holds_place:
            return False  # it waits for room
        return attempt.head is not None or self._loop.time() - attempt.heard_s > _TURN_S

    def _take_turn(self, groups: deque[_Group], name: str) -> None:
        group, now_s = groups[0], self._loop.time()
        suspects = deque(each for each in group.suspects if not each.done)
        group.complete = group.complete and len(suspects) == len(group.suspects)
        group.suspects = suspects
        standing = suspects[0].model.standing(now_s) if suspects else 0
        if len(suspects) == 1 and group.complete:
            self._convict(suspects.popleft())
        elif now_s >= group.until_s or not standing:
            while suspects:
                suspects.popleft().no_other_target()
        elif standing > 1:
            self._on_trial[name] = trial = suspects.popleft()
            trial.move_on()
            return
        if not suspects:
            groups.popleft()

    def _convict(self, culprit: Suspect) -> None:
        name, request, now_s = culprit.model.entry.name, culprit.request, self._loop.time()
        self._quarantine.add(name, request.body, caller=sender_of(culprit), now_s=now_s)
        get_logger("gateway").error(
            "engine_crashed", model=name, request=request.request_id, caller=culprit.caller
        )
        culprit.reject_here(errors.engine_crashed())


def _suspicion(each: Suspect) -> tuple[bool, int, float]:
    """Return what suspects are ordered by, since the last may not have to be asked: shaped answers, large bodies, new ones last."""
    body = each.request.body
    return constrains(body), len(body) // LARGE_BYTES, each.started_s


def _free(suspects: Iterable[Suspect]) -> None:
    """Let requests be asked elsewhere, as after any failure."""
    for each in list(suspects):
        if not each.done:
            each.move_on()
