"""Which endpoints of a model get no requests for a while because they fail, and how they come back. Pure.

An endpoint that takes no connection, drops one, falls silent, answers 5xx time after time, or fails far more often than
the others is ejected for 1, 2, 4 and then 8 s. After that one request at a time is let through as a trial: its success
brings the endpoint back, its failure ejects it again. However many fail, the least bad is always kept, and endpoints
that do answer are never ejected in such numbers that the others drown. A busy answer is not a failure:
other endpoints are preferred, nothing more. It does not choose an endpoint; `balance` does, among those that are left.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol, TypeVar

Failure = Literal["connect", "lost", "stall", "silent", "status"]
Reason = Literal["connect", "lost", "stall", "silent", "status", "outlier"]

_NO_ANSWER: frozenset[Failure] = frozenset({"connect", "lost", "stall", "silent"})
"""Failures to answer at all: one is enough, since the next request would most likely meet the same, and a trial a second
later costs one retry."""
_IN_A_ROW = 5
"""Answers 5xx in a row that eject. Source: Envoy, outlier detection, consecutive_5xx."""
_EJECTED_S_MIN, _DOUBLINGS_MAX = 1.0, 3
"""1, 2, 4 and then 8 s. Source: our own choice; long enough for a llama.cpp restart (about 1 s), short enough that a
replica which came back is found by the next few requests."""
_FORGIVEN_S = 60.0
"""An endpoint that was in use this long starts again at the shortest time. Source: our own choice; as
FleetSettings.stable_s forgives restarts."""
_ANSWERS_MIN, _ANSWERS_KEPT = 10, 20
"""The share of failures is looked at from so many answers on, and taken over about so many. Source: our own choice;
Envoy's success-rate detection wants 100 in 10 s, more than most replicas of a language model answer."""
_OUTLIER_SHARE = 0.3
"""The share of failures from which an endpoint may be an outlier. Source: our own choice: below it a retry elsewhere
costs less than doing without the endpoint."""
_OUTLIER_TIMES = 2.0
"""And so many times the others' share: what fails everywhere is the requests' fault. Source: our own choice."""


class OutlierState:
    """One endpoint's failures, and whether it is ejected."""

    __slots__ = ("_closed_s", "_ejections", "_in_a_row", "answers", "busy_until_s", "failures", "heard_s", "no_answer",
                 "trial", "until_s")  # fmt: skip

    def __init__(self) -> None:
        self.until_s = 0.0
        """When its ejection ends and its trials begin; 0: it is trusted."""
        self.no_answer = False
        """It is ejected for not answering, as opposed to answering badly."""
        self.trial = False
        """A trial is under way."""
        self.busy_until_s = 0.0
        self.heard_s = 0.0
        """When it answered last, as precisely as the caller of `succeeded` knows."""
        self.answers = 0.0
        self.failures = 0.0
        self._in_a_row = 0
        self._ejections = 0
        self._closed_s = 0.0

    def __repr__(self) -> str:
        what = (
            "trusted"
            if not self.until_s
            else "on trial"
            if self.trial
            else f"ejected until {self.until_s:.1f}"
        )
        return f"<OutlierState {what}, {self.failures:.0f} of {self.answers:.0f} failed>"

    def is_out(self, now_s: float) -> bool:
        """Return whether it gets no request: it is ejected, or its one trial is under way."""
        return self.until_s > now_s or self.trial

    def note(self, failure: Failure, others: Iterable["OutlierState"], now_s: float) -> Reason | None:
        """Count a failure and return for what reason it ejects, if it does."""
        self.answers += 1
        self.failures += 1
        self._in_a_row += 1
        reason: Reason | None = failure if failure in _NO_ANSWER else self._by_answers(others)
        if self.answers > _ANSWERS_KEPT:
            self.failures *= _ANSWERS_KEPT / self.answers
            self.answers = _ANSWERS_KEPT
        if self.until_s > now_s:
            return None  # it is ejected already; requests sent before that are no new evidence
        if self.until_s and reason is None:
            reason = "status"  # the trial failed
        if reason is not None:
            self._eject(now_s, no_answer=failure in _NO_ANSWER)
        return reason

    def _by_answers(self, others: Iterable["OutlierState"]) -> Reason | None:
        if self._in_a_row >= _IN_A_ROW:
            return "status"
        share = self.failures / self.answers
        if self.answers < _ANSWERS_MIN or share < _OUTLIER_SHARE:
            return None
        answers, failures = 0.0, 0.0
        for other in others:
            if other is not self:
                answers += other.answers
                failures += other.failures
        return "outlier" if answers and share >= _OUTLIER_TIMES * failures / answers else None

    def _eject(self, now_s: float, *, no_answer: bool) -> None:
        if not self.until_s and now_s - self._closed_s >= _FORGIVEN_S:
            self._ejections = 0
        self.until_s = now_s + _EJECTED_S_MIN * 2 ** min(self._ejections, _DOUBLINGS_MAX)
        self._ejections += 1
        self.no_answer = no_answer
        self.trial = False

    def begin(self, now_s: float) -> bool:
        """Return whether the request that is sent now is its trial."""
        if not self.until_s or self.trial or self.until_s > now_s:
            return False
        self.trial = True
        return True

    def succeeded(self, now_s: float) -> bool:
        """Count an answer; return whether it brings the endpoint back.

        Of one that answers, but badly, an answer to what was sent before its ejection is no new evidence.
        """
        self.answers += 1
        self.heard_s = now_s
        self._in_a_row = 0
        self.busy_until_s = 0.0
        if not self.until_s or not (self.trial or self.no_answer or self.until_s <= now_s):
            return False
        self.until_s = self.answers = self.failures = 0.0
        self.trial = False
        self._closed_s = now_s
        return True


class HasOutlierState(Protocol):
    """An endpoint with its state; `target.UpstreamTarget` is one."""

    outlier: OutlierState


T = TypeVar("T", bound=HasOutlierState)


def kept(endpoints: Sequence[T], now_s: float) -> list[T]:
    """Return those of all a model's endpoints that may be given a request now: at least one, unless there are none.

    Of those that do not answer at all, all but the least bad may be left out; of those that answer badly, at most half.
    Least bad is whose ejection ends first.
    """
    out = [each for each in endpoints if each.outlier.is_out(now_s)]
    if not out:
        return list(endpoints)
    out.sort(key=badness)
    badly = [each for each in out if not each.outlier.no_answer]
    spared = badly[: max(0, len(badly) - len(endpoints) // 2)]
    if len(out) - len(spared) == len(endpoints):
        spared.append(out[0])
    return [each for each in endpoints if each in spared or each not in out]


def badness(each: HasOutlierState) -> float:
    """Return when its ejection ends: the sooner, the less bad."""
    return each.outlier.until_s
