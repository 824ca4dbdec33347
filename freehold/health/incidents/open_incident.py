"""One incident of a live node while it goes on: what belongs to it, its diagnosis, and its report.

A plain record with few rules of its own: something new opens or prolongs it, a bad finding keeps it standing, an
operator's mark ends it. It does not decide what belongs to it, nor when it is diagnosed: that is `tracker`'s part.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from freehold.core.findings import Evidence, Finding, Verdict
from freehold.health.evidence.diagnose import Diagnosis
from freehold.health.evidence.incident import SILENCE_S, IncidentEvent
from freehold.health.evidence.surroundings import EngineEnd
from freehold.health.model.snapshot import FindingKey, IncidentReport, IncidentState, SettledFinding
from freehold.health.model.view import Gpus

EVIDENCE_MOST = 8
"""Entries of evidence each way that a snapshot carries. Source: our own choice: a snapshot is sent every 10 s, to the end of a pipe."""
TEXT_MOST = 300
"""Characters of one text in it. Source: our own choice, as `judged` cuts a kernel line."""
EVENTS_MOST, _FIRST = 400, 100
"""Events that are kept of one incident: the first hundred and the newest. Source: our own bound: a burst of XID 13 has some 200 lines."""
Key = tuple[str, str]
"""Probe and component."""
Conclusion = tuple[str, str, str, str]
"""Hypothesis, component, signature and action: what the history keeps of a diagnosis."""
BAD = frozenset({Verdict.DEGRADED, Verdict.UNHEALTHY})


@dataclass(slots=True, kw_only=True)
class OpenIncident:
    """What is known of one incident."""

    id: str
    start_s: float
    last_s: float
    at_start: bool = False
    """It stood already when the agent began to look: nothing that came later belongs to it."""
    apart: str = ""
    """What it is about, if that neither explains nor comes from anything else: then nothing else belongs to it."""
    events: list[IncidentEvent] = field(default_factory=list)
    ill: dict[Key, Finding | None] = field(default_factory=dict)
    """What was found wrong and still is; None: the agent before this one reported it, and it was not seen since."""
    was: dict[Key, Finding] = field(default_factory=dict)
    """All that was found wrong, each with its last finding."""
    ends: dict[str, EngineEnd] = field(default_factory=dict)
    """By replica: how its engine ended or stood still."""
    before: Gpus | None = None
    """GPU readings from before it."""
    unseen_s: dict[Key, float] = field(default_factory=dict)
    """Since when no probe reports what was found wrong."""
    is_new: bool = True
    """Something telling changed since it was diagnosed."""
    diagnosis: Diagnosis | None = None
    """Of this agent; None: it was not diagnosed yet, or by the agent before this one."""
    conclusion: Conclusion = ("", "", "", "")
    conclusion_s: float = 0.0
    """Since when the conclusion is this one, monotonic."""
    written: Conclusion = ("", "", "", "")
    """What the history's file has of it."""
    report: IncidentReport
    """The last diagnosis; times, state and findings in it are not kept up to date."""
    over_s: float = 0.0
    well_s: float = 0.0
    """When the last of what was found wrong was well again."""
    closing: bool = False
    """The silence after its last event counts as its end: it is diagnosed once more."""

    def state(self, now_s: float) -> IncidentState:
        """Return whether it goes on; `now_s` is Unix time."""
        if self.over_s:
            return IncidentState.OVER
        return IncidentState.OPEN if now_s - self.last_s <= SILENCE_S else IncidentState.STANDING

    def is_near(self, at_s: float) -> bool:
        """Return whether what happened then happened less than the silence before or after it."""
        return self.start_s - SILENCE_S <= at_s <= self.last_s + SILENCE_S

    def components(self) -> set[str]:
        """Return what it is about, by the names that the kernel and the probes use."""
        return {event.component for event in self.events} | {component for _, component in self.was}

    def add(self, event: IncidentEvent) -> None:
        """Take in something new."""
        self.events.append(event)
        if len(self.events) > EVENTS_MOST:
            del self.events[_FIRST]
        self.start_s, self.last_s = min(self.start_s, event.at_s), max(self.last_s, event.at_s)
        self.is_new = True

    def hold(self, key: Key, finding: Finding) -> None:
        """Take over what is found wrong."""
        before = self.ill.get(key)
        if before is None or (before.verdict, before.reason) != (finding.verdict, finding.reason):
            self.is_new = True
        self.ill[key] = self.was[key] = finding

    def update(
        self, bad: Mapping[Key, SettledFinding], verdicts: Mapping[Key, Verdict], now_s: float
    ) -> None:
        """Update it by the settled findings: `bad` are the bad ones, `verdicts` those of all components.

        What cannot be read any more is not well again; what no probe has reported for the silence is gone.
        """
        for key in tuple(self.ill):
            if key in bad:
                self.unseen_s.pop(key, None)
                if self.ill[key] is None:  # the agent before this one knew it as well
                    self.ill[key] = self.was[key] = bad[key].finding
                self.hold(key, bad[key].finding)
            elif verdicts.get(key) is Verdict.UNKNOWN:
                self.unseen_s.pop(key, None)
            elif key in verdicts or now_s - self.unseen_s.setdefault(key, now_s) > SILENCE_S:
                del self.ill[key]
                self.unseen_s.pop(key, None)
                self.well_s = now_s

    def forgive(self, is_past: Callable[[str, float], bool]) -> set[FindingKey]:
        """Forget what an operator has set healthy, by component and time; return what of it is still found wrong."""
        kept = [event for event in self.events if not is_past(event.component, event.at_s)]
        pardoned = {key for key in self.ill if is_past(key[1], self.start_s)}
        keys = {key for key in self._keys() if (key.probe, key.component) in pardoned}
        changed = len(kept) < len(self.events) or bool(pardoned)
        self.events = kept
        self.ill = {key: found for key, found in self.ill.items() if key not in pardoned}
        if changed and (kept or self.ill):  # what was made of all of it does not hold for what is left
            self.is_new, self.report = (
                True,
                msgspec.structs.replace(self.report, problem=False, hypothesis=""),
            )
        self.was = {key: found for key, found in self.was.items() if not is_past(key[1], self.start_s)}
        return keys

    def age(self, now_s: float) -> None:
        """Notice the silence after its last event, and that nothing is found wrong any more; `now_s` is Unix time."""
        if self.state(now_s) is IncidentState.OPEN:
            return
        if not self.closing:
            self.closing = True
            self.is_new |= self.diagnosis is not None  # with the readings as they are at its end
        if not self.ill:
            self.over_s = max(self.last_s + SILENCE_S, self.well_s)

    def is_long_over(self, now_s: float, seconds: float) -> bool:
        """Return whether it has been over for so long."""
        return bool(self.over_s) and now_s - self.over_s >= seconds

    def move_s(self, seconds: float) -> None:
        """Move it in time: the clock was set."""
        self.start_s, self.last_s = self.start_s + seconds, self.last_s + seconds
        self.events = [replace(event, at_s=event.at_s + seconds) for event in self.events]

    def conclude(self, diagnosis: Diagnosis, now_s: float) -> None:
        """Take over what it was diagnosed as; `now_s` is monotonic.

        That nothing points to a fault any more does not revoke what was seen before.
        """
        self.is_new = False
        if self.report.problem and not diagnosis.problem:
            return
        conclusion = (
            str(diagnosis.hypothesis),
            diagnosis.component,
            diagnosis.signature,
            str(diagnosis.action),
        )
        if conclusion != self.conclusion:
            self.conclusion, self.conclusion_s = conclusion, now_s
        self.diagnosis, self.report = diagnosis, _with_diagnosis(self.report, diagnosis)

    def to_report(self, now_s: float) -> IncidentReport:
        """Return it as a snapshot carries it; `now_s` is Unix time."""
        self.report = msgspec.structs.replace(
            self.report,
            state=self.state(now_s),
            start_s=self.start_s,
            last_s=self.last_s,
            over_s=self.over_s,
            at_start=self.at_start,
            apart=self.apart,
            events=max(len(self.events), self.report.events),
            findings=tuple(sorted(self._keys())),
        )
        return self.report

    def _keys(self) -> list[FindingKey]:
        """Return what is found wrong, each with what was said of it last, if by the agent before this one."""
        before = {(key.probe, key.component): key.reason for key in self.report.findings}
        return [
            FindingKey(probe=key[0], component=key[1], reason=found.reason if found else before.get(key, ""))
            for key, found in self.ill.items()
        ]


def begin(incident_id: str, at_s: float, *, at_start: bool = False, apart: str = "") -> OpenIncident:
    """Return an incident that begins now."""
    report = IncidentReport(id=incident_id, state=IncidentState.OPEN, start_s=at_s, last_s=at_s)
    return OpenIncident(
        id=incident_id, start_s=at_s, last_s=at_s, at_start=at_start, apart=apart, report=report
    )


def resume(report: IncidentReport) -> OpenIncident:
    """Return an incident as the agent before this one reported it."""
    conclusion = (report.hypothesis, report.component, report.signature, str(report.action))
    return OpenIncident(
        id=report.id,
        start_s=report.start_s,
        last_s=report.last_s,
        at_start=report.at_start,
        apart=report.apart,
        ill={(key.probe, key.component): None for key in report.findings},
        is_new=not report.hypothesis and not report.over_s,
        conclusion=conclusion,
        written=conclusion if report.revision else ("", "", "", ""),
        report=report,
        over_s=report.over_s,
    )


def _with_diagnosis(report: IncidentReport, diagnosis: Diagnosis) -> IncidentReport:
    pro, contra = diagnosis.evidence, diagnosis.evidence_against
    left_out = max(0, len(pro) - EVIDENCE_MOST) + max(0, len(contra) - EVIDENCE_MOST)
    return msgspec.structs.replace(
        report,
        problem=diagnosis.problem,
        hypothesis=str(diagnosis.hypothesis),
        component=diagnosis.component,
        confidence=diagnosis.confidence,
        action=diagnosis.action,
        summary=_cut(diagnosis.summary),
        what_would_change_it=_cut(diagnosis.what_would_change_it),
        caution=diagnosis.caution,
        evidence=tuple(_short(entry) for entry in pro[:EVIDENCE_MOST]),
        evidence_against=tuple(_short(entry) for entry in contra[:EVIDENCE_MOST]),
        left_out=left_out,
        signature=diagnosis.signature,
    )


def _short(entry: Evidence) -> Evidence:
    return replace(
        entry,
        what=_cut(entry.what),
        value=_cut(entry.value),
        source=_cut(entry.source),
        baseline=_cut(entry.baseline),
    )


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MOST else text[: TEXT_MOST - 1] + "…"
