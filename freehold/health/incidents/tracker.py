"""The incidents of a live node: from its views and what is believed of it to diagnoses, and what the history is to keep of them.

What is new (a kernel line that means trouble, a finding that turned bad or worse) opens an incident or belongs to one, by the
three minutes of silence that cut a file's events as well. An incident whose findings still stand is `standing`, and what comes
after the silence is another one. It diagnoses only when something telling changed, and never often. Here is no loop, clock or
file: the agent brings views, findings and history, and takes away the lines to be written. It acts on nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count

import msgspec

from freehold.catalog.load_evidence import Hypothesis
from freehold.core.findings import Finding, Verdict
from freehold.health.evidence.diagnose import diagnose
from freehold.health.evidence.incident import SILENCE_S, IncidentEvent
from freehold.health.evidence.kernel_lines import SILENT, as_event, with_disk_names
from freehold.health.evidence.kernel_signs import PastFault
from freehold.health.incidents.case_building import NodeSituation, apart_of, case_of
from freehold.health.incidents.history import History, Mark
from freehold.health.incidents.node_readings import NodeReadings
from freehold.health.incidents.open_incident import BAD, Key, OpenIncident, begin, resume
from freehold.health.incidents.past_faults import FaultMemory
from freehold.health.kernel_log.events import fold_lines, read_event, read_events
from freehold.health.model.snapshot import (
    FindingKey,
    GpuName,
    HealthSnapshot,
    IncidentReport,
    IncidentState,
    SettledFinding,
)
from freehold.health.model.view import Kernel, KernelLine, View

DIAGNOSE_S = 10.0
"""Between two diagnoses at least, of whatever incident. Source: our own choice: the pace of most probes, and 0.1 % of a core at worst."""
NAMES_S = 30.0
"""How long the start waits for a reading of the GPUs, which says which is which. Source: our own choice: NVML takes some seconds."""
FIRM_S = 20.0
"""A verdict that stayed the same for so long is written down while its incident still goes on. Source: our own choice: two diagnoses
more, and time for the probes of 10 s to have seen it."""
SURE = 0.9
"""One as sure as this is written down at once: a node may be reset seconds after its GPU fell off the bus. Source: our own choice."""
REVISIONS_MOST = 4
"""Times that one incident is written down. Source: our own bound, for a verdict that wavers."""
OVER_SHOWN_S = 3600.0
"""How long an incident that is over is still report. Source: our own choice: until whoever was called has looked."""
START_S = 60.0
"""What is found wrong this soon after the start, and was never seen well, began at an unknown time. Source: our own choice: every
probe has looked twice by then."""
INCIDENTS_MOST = 20
"""Incidents that are kept. Source: our own bound."""
SHOWN_MOST = 6
"""Incidents that a snapshot carries, those that go on first. Source: our own bound: 6 of 16 entries of evidence are 40 kB."""
MINOR_MOST = 300
"""Kernel events that are kept though they mean no trouble by themselves. Source: our own bound; they count only as a rate."""
_CLOCK_SET_S = 1.0  # A wall clock that moves this much against the other was set.


class IncidentTracker:
    """What goes on at one node; all of it is for one thread."""

    def __init__(self, *, node: str, started_s: float, boot: str = "", gpus: bool = True) -> None:
        """`started_s` is Unix time of the agent's start, `boot` the kernel's boot id; `gpus`: they are read here."""
        self.diagnoses_total = 0
        self._node, self._boot, self._started_s = node, boot, started_s
        self._reads_gpus = gpus
        self._readings = NodeReadings()
        self._memory = FaultMemory(node=node, boot=boot)
        self._incidents: list[OpenIncident] = []
        """Newest last."""
        self._minor: list[IncidentEvent] = []
        self._set_healthy: set[FindingKey] = set()
        self._well: set[Key] = set()
        """What was seen well since the start."""
        self._began_s, self._diagnosed_s = float("inf"), float("-inf")
        self._sequence = -1
        self._recalls = False
        """The kernel's log is about to be read again from before the start."""
        self._resumed_s = float("-inf")
        self._new_from_s = float("-inf")
        self._log_read_s = 0.0
        self._offset_s: float | None = None

    # --- what is brought ------------------------------------------------------------------------------------------

    def resume(self, before: HealthSnapshot | None, history: History) -> None:
        """Go on where the agent before this one stopped: `before` is its last snapshot, None: there is none.

        A machine that was started anew since has no incident that still goes on, and its kernel's log is a new one.
        """
        self._memory.learn(history)
        if before is None:
            self._set_healthy = {_key(parts) for mark in history.marks for parts in mark.findings}
            return
        self._readings = NodeReadings(before.gpus)
        self._incidents = [
            resume(report) for report in sorted(before.incidents, key=lambda report: report.start_s)
        ]
        if before.boot == self._boot:
            self._sequence, self._resumed_s = before.log_sequence, before.at_s
            self._set_healthy, self._recalls = set(before.set_healthy), True
        for one in self._incidents if before.boot != self._boot else ():
            one.over_s, one.is_new = one.over_s or before.at_s, False
            if one.report.problem and not one.report.revision:
                self._memory.keep(one, self._readings, boot=before.boot)
        for mark in history.marks:
            if mark.set_healthy_s > before.at_s:
                self._pardon(mark)

    def forget_the_past(self) -> None:
        """Begin without it, since its files cannot be read: what the kernel's log has from before the start is nothing new."""
        self._new_from_s = self._started_s

    def learn(self, history: History) -> bool:
        """Take over the history's file as it is now; return whether an operator set anything healthy since."""
        fresh = self._memory.learn(history)
        for mark in fresh:
            self._pardon(mark)
        return bool(fresh)

    def admit(self, view: View) -> View:
        """Return a view without the kernel lines that an operator has set healthy."""
        if view.kernel is None or not view.kernel.lines or not self._memory.history.marks:
            return view
        lines = [line for line in fold_lines(view.kernel.lines) if not self._is_pardoned(line)]
        return msgspec.structs.replace(view, kernel=msgspec.structs.replace(view.kernel, lines=tuple(lines)))

    def add(self, view: View) -> None:
        """Take in the next view."""
        self._began_s = min(self._began_s, view.monotonic_s)
        self._mind_the_clock(view)
        before = self._readings.gpus
        self._readings.add(view)
        if (
            self._readings.gpus != before
        ):  # a mark is by serial number: only now is it known whose lines it forgives
            for mark in self._memory.history.marks:
                self._forgive(mark)
        if view.kernel is not None:
            self._read_kernel(view.kernel, view.at_s)

    @property
    def gpus(self) -> tuple[GpuName, ...]:
        """Return every GPU that was ever named here."""
        return self._readings.gpus

    def is_due(self, now_s: float) -> bool:
        """Return whether something telling is to be diagnosed now; `now_s` is monotonic."""
        calm = now_s - self._diagnosed_s >= DIAGNOSE_S
        return calm and any(one.is_new for one in self._incidents) and self._knows_names(now_s)

    def conclude(self, snapshot: HealthSnapshot, now_s: float) -> HealthSnapshot:
        """Return the snapshot with what its findings, and the views so far, are incidents of; `now_s` is monotonic."""
        if self._knows_names(now_s):
            self._believe(snapshot.findings, snapshot.at_s)
            self._age(snapshot.at_s)
            if self.is_due(now_s):
                self._diagnose(snapshot.at_s, now_s)
            for one in self._incidents:
                if self._is_firm(one, snapshot.at_s, now_s):
                    self._memory.keep(one, self._readings)
        return msgspec.structs.replace(
            snapshot,
            incidents=self._reports(snapshot.at_s),
            set_healthy=tuple(sorted(self._set_healthy)),
            marked_s=max((mark.set_healthy_s for mark in self._memory.history.marks), default=0.0),
            gpus=self._readings.gpus,
            boot=self._boot,
            log_read_s=self._log_read_s,
            log_sequence=self._sequence,
        )

    def _knows_names(self, now_s: float) -> bool:
        """Return whether it is known which GPU is which: the kernel and probes may call one by its address until then."""
        return self._readings.named or not self._reads_gpus or now_s - self._began_s >= NAMES_S

    def take_lines(self) -> list[PastFault]:
        """Return what is to be added to the history's file, once."""
        return self._memory.take_lines()

    # --- kernel lines ---------------------------------------------------------------------------------------------

    def _read_kernel(self, kernel: Kernel, at_s: float) -> None:
        self._log_read_s = at_s
        if not kernel.lines:
            return
        events = read_events(list(kernel.lines))
        self._readings.learn_names(events)
        self._memory.note_renewals(events)
        for event in with_disk_names(events):
            found = as_event(event)
            if event.kind in SILENT or event.at_s < self._new_from_s:
                continue
            if self._is_past(found.component, event.at_s) or not self._readings.concerns_node(event):
                continue
            if self._recalls and event.sequence <= self._sequence:
                # The agent before this one knew the line: it goes back to its incident, if that still goes on, and is not new.
                home = self._home(event.at_s, apart_of(self._readings.component(found.component)))
                if home is not None:
                    home.events.append(found)
            elif event.is_trouble:
                self._place(found).add(found)
            else:
                self._minor.append(found)
        del self._minor[:-MINOR_MOST]
        self._sequence = max(self._sequence, *(line.sequence for line in kernel.lines))
        self._recalls = False

    def _is_pardoned(self, line: KernelLine) -> bool:
        event = read_event(line)
        if event is None or event.kind in SILENT:
            return False
        return self._is_past(as_event(event).component, event.at_s)

    # --- findings -------------------------------------------------------------------------------------------------

    def _believe(self, findings: Sequence[SettledFinding], now_s: float) -> None:
        """Take over what is believed: what turned bad or worse is new."""
        named = [self._named(each) for each in findings]
        bad = {_of(each.finding): each for each in reversed(named) if each.finding.verdict in BAD}
        verdicts = {_of(each.finding): each.finding.verdict for each in reversed(named)}
        known = {key for key, verdict in verdicts.items() if verdict is not Verdict.UNKNOWN}
        self._well = (self._well | (known - bad.keys())) & verdicts.keys()
        self._readings.compare(each.finding for each in named)
        still = {_key((*key, each.finding.reason)) for key, each in bad.items()}
        self._set_healthy = {
            key for key in self._set_healthy if key in still or (key.probe, key.component) not in known
        }
        before = {key: found for one in self._going_on() for key, found in one.ill.items()}
        for one in self._going_on():
            one.update(bad, verdicts, now_s)
            self._see_engines(one)
        for key, each in bad.items():
            if key not in before or _is_worse(each.finding, before[key]):
                self._turned_bad(key, each, now_s)

    def _named(self, each: SettledFinding) -> SettledFinding:
        """Return a finding on a GPU by the GPU's own name; before it was read a probe knows it by its address alone."""
        component = self._readings.component(each.finding.component)
        if component == each.finding.component:
            return each
        return msgspec.structs.replace(each, finding=replace(each.finding, component=component))

    def _turned_bad(self, key: Key, each: SettledFinding, now_s: float) -> None:
        finding, known = each.finding, _key((*key, each.finding.reason))
        at_s = min(each.since_s, finding.at_s or each.since_s)
        # A line of the kernel's log may be what it rests on: then that counts, and the agent before this one knew it.
        if at_s <= max(self._resumed_s, self._new_from_s) - SILENCE_S or self._is_past(
            finding.component, at_s
        ):
            self._set_healthy.add(known)
        if known in self._set_healthy:
            return
        event = IncidentEvent(
            at_s=at_s,
            kind="finding",
            component=finding.component,
            text=finding.message,
            source=f"probe {finding.probe}",
        )
        at_start = key not in self._well and now_s - self._started_s <= START_S
        home = self._place(event, at_start=at_start, apart=apart_of(finding.component, finding))
        home.add(event)
        for one in self._incidents:
            if one is not home:
                one.ill.pop(key, None)
        home.hold(key, finding)
        self._see_engines(home)

    def _see_engines(self, one: OpenIncident) -> None:
        ends = self._readings.ends(found for found in one.ill.values() if found is not None)
        one.ends |= {end.replica: end for end in ends}

    # --- which incident -------------------------------------------------------------------------------------------

    def _going_on(self) -> list[OpenIncident]:
        return [one for one in self._incidents if not one.over_s]

    def _place(
        self, event: IncidentEvent, *, at_start: bool = False, apart: str | None = None
    ) -> OpenIncident:
        """Return the incident that something new belongs to; where there is none it begins one."""
        component = self._readings.component(event.component)
        apart = apart_of(component) if apart is None else apart
        home = self._home(event.at_s, apart, at_start=at_start)
        if home is None:
            home = self._begin(event.at_s, apart, at_start=at_start)
        self._gather(home, component)
        return home

    def _home(self, at_s: float, apart: str, *, at_start: bool = False) -> OpenIncident | None:
        able = [one for one in reversed(self._going_on()) if one.apart == apart]
        near = (one for one in able if one.is_near(at_s) and (at_start or not one.at_start))
        found = (one for one in able if one.at_start and at_start)
        return next(near, None) or next(found, None)

    def _begin(self, at_s: float, apart: str, *, at_start: bool) -> OpenIncident:
        taken = {one.id for one in self._incidents}
        names = (f"{at_s * 1000:.0f}" + (f"-{number}" if number else "") for number in count())
        name = next(name for name in names if name not in taken)
        one = begin(name, at_s, at_start=at_start, apart=apart)
        one.before = self._readings.before(at_s)
        self._incidents.append(one)
        if len(self._incidents) > INCIDENTS_MOST:
            self._incidents.remove(min(self._incidents, key=lambda old: (not old.over_s, old.last_s)))
        return one

    def _gather(self, home: OpenIncident, component: str) -> None:
        """Let an incident take over what is found wrong with the component that something new is about."""
        for one in self._going_on():
            if one is home or one.apart != home.apart:
                continue
            for key in [key for key in one.ill if key[1] == component]:
                found = home.ill[key] = one.ill.pop(key)
                if found is not None:
                    home.was[key] = found

    def _age(self, now_s: float) -> None:
        """End what is over, and forget what has long been."""
        for one in self._going_on():
            one.age(now_s)
        kept = [one for one in self._incidents if one.is_new or not one.is_long_over(now_s, OVER_SHOWN_S)]
        self._incidents = kept
        first_s = min((one.start_s for one in self._going_on()), default=now_s)
        self._minor = [event for event in self._minor if event.at_s >= first_s - SILENCE_S]

    def _mind_the_clock(self, view: View) -> None:
        """Move everything in time when the wall clock was set: silence is no matter of it."""
        offset_s = view.at_s - view.monotonic_s
        if self._offset_s is not None and abs(offset_s - self._offset_s) > _CLOCK_SET_S:
            for one in self._going_on():
                one.move_s(offset_s - self._offset_s)
        self._offset_s = offset_s

    # --- what an operator says ------------------------------------------------------------------------------------

    def _is_past(self, component: str, at_s: float) -> bool:
        if not self._memory.history.marks:
            return False
        mine = self._readings.component(component)
        return self._memory.is_past({component, mine, self._readings.subject(mine)}, at_s)

    def _pardon(self, mark: Mark) -> None:
        """End what an operator has set healthy, and call nothing new what is found wrong of it as it was then."""
        self._set_healthy |= {
            _key((probe, self._readings.component(part), reason)) for probe, part, reason in mark.findings
        }
        self._forgive(mark)

    def _forgive(self, mark: Mark) -> None:
        def is_past(component: str, at_s: float) -> bool:
            mine = self._readings.component(component)
            named = {"", mine, self._readings.subject(mine)}
            return at_s <= mark.set_healthy_s and mark.subject in named

        for one in self._going_on():
            self._set_healthy |= one.forgive(is_past)
            if not one.events and not one.ill:
                one.over_s, one.is_new = mark.set_healthy_s, False
                one.report = msgspec.structs.replace(one.report, set_healthy_by=mark.by or "an operator")

    # --- diagnosis ------------------------------------------------------------------------------------------------

    def _diagnose(self, now_s: float, monotonic_s: float) -> None:
        """Diagnose one incident, of those that changed the newest that goes on."""
        fresh = [one for one in self._incidents if one.is_new]
        one = max(fresh, key=lambda each: (each.state(now_s) is IncidentState.OPEN, each.last_s))
        scene = NodeSituation(
            node=self._node,
            readings=self._readings,
            others=self._going_on(),
            minor=self._minor,
            past=self._memory.of(one, self._readings),
        )
        # Noted before: a mistake of ours in it costs its own diagnosis, and is not repeated until something new comes.
        self._diagnosed_s, one.is_new = monotonic_s, False
        self.diagnoses_total += 1
        one.conclude(diagnose(case_of(one, scene)), monotonic_s)

    def _is_firm(self, one: OpenIncident, now_s: float, monotonic_s: float) -> bool:
        """Return whether what was made of an incident is to be written down: when it is firm, and at its end if it changed."""
        report = one.report
        if not report.problem or one.conclusion == one.written or report.set_healthy_by:
            return False
        if one.state(now_s) is not IncidentState.OPEN:
            return not one.is_new and report.revision < REVISIONS_MOST
        if report.revision or report.hypothesis == Hypothesis.UNDETERMINED or one.diagnosis is None:
            return False
        return report.confidence >= SURE or monotonic_s - one.conclusion_s >= FIRM_S

    def _reports(self, now_s: float) -> tuple[IncidentReport, ...]:
        order = sorted(self._incidents, key=lambda one: (bool(one.over_s), -one.last_s))
        return tuple(one.to_report(now_s) for one in order[:SHOWN_MOST])


def _of(finding: Finding) -> Key:
    return (finding.probe, finding.component)


def _key(parts: Iterable[str]) -> FindingKey:
    probe, component, reason = parts
    return FindingKey(probe=probe, component=component, reason=reason)


def _is_worse(now: Finding, before: Finding | None) -> bool:
    return before is not None and (now.verdict, before.verdict) == (Verdict.UNHEALTHY, Verdict.DEGRADED)
