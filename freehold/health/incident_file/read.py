"""An incident file, or a recording of views, as cases for `diagnose`: one case per incident in it, oldest first.

The format is documented in docs/health-diagnosis.md and docs/incident.schema.json. Every mistake is a `Problem` with its path, all at
once. Nothing here judges and nothing here reads the disk.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from freehold.core.findings import Finding, Verdict
from freehold.core.problems import Problem
from freehold.health.evidence.case import IncidentCase
from freehold.health.evidence.incident import IncidentEvent, NodeIncident, group
from freehold.health.evidence.kernel_lines import kernel_events
from freehold.health.evidence.link_events import settled
from freehold.health.evidence.quantity import MeasuredQuantity, ReadingChange
from freehold.health.evidence.surroundings import EngineEnd, Surroundings
from freehold.health.evidence.view_changes import FromViews, from_views
from freehold.health.incident_file.context import around, boundaries, earlier, operator_mistakes
from freehold.health.incident_file.counters import change_of, last_xids
from freehold.health.incident_file.kernel_text import BOOT_MOST_S, dated_line, pasted_lines
from freehold.health.incident_file.mistakes import mistakes
from freehold.health.incident_file.names import component_of, gpu_component, gpu_names, of_counter
from freehold.health.incident_file.schema import (
    EVIDENCE,
    ContextEntry,
    CounterEntry,
    EngineEntry,
    IncidentFile,
    KernelEntry,
    seconds,
)
from freehold.health.incidents.history import History, boundary_s, latest_revisions, since
from freehold.health.model.view import View


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentCases:
    """What a file holds."""

    cases: tuple[IncidentCase, ...] = ()
    problems: tuple[Problem, ...] = ()
    ignored: tuple[str, ...] = ()
    """Places of lines that are not a kernel's and were left out."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Other names of a GPU (`gpu:SERIAL`, `gpu:0`) to the component that the cases know it by."""


def read_incident(data: object, name: str) -> IncidentCases:
    """Return the cases that a file's data holds; `name` is the file's, for problems."""
    if (
        isinstance(data, list)
        and data
        and all(isinstance(one, dict) and "monotonic_s" in one for one in data)
    ):
        data = {"views": data}
    problems = list(_problems(data))
    if problems:
        named = (replace(one, where=f"{name}: {one.where}") for one in problems)
        return IncidentCases(problems=tuple(named))
    return _cases(msgspec.convert(data, IncidentFile))


def _problems(data: object) -> Iterator[Problem]:
    found = list(mistakes(data, IncidentFile))
    yield from found
    if not isinstance(data, dict):
        return
    if not data.keys() & set(EVIDENCE):
        message = "none of the keys that hold evidence is here"
        yield Problem(where="$", message=message, hint=f"at least one of {', '.join(EVIDENCE)}")
    if not found:
        file = msgspec.convert(data, IncidentFile)
        yield from operator_mistakes(file.context or ContextEntry())
        yield from _counter_mistakes(file.counters)
        yield from _view_mistakes(file.views)


def _counter_mistakes(counters: Sequence[CounterEntry]) -> Iterator[Problem]:
    for index, counter in enumerate(counters):
        if not of_counter(counter):
            hint = "name it with gpu, disk, interface, peer, replica, host or component"
            yield Problem(where=f"$.counters[{index}]", message="does not say what it was read of", hint=hint)


def _view_mistakes(views: Sequence[object]) -> Iterator[Problem]:
    for index, view in enumerate(views):
        try:
            msgspec.convert(view, View)
        except msgspec.ValidationError as exc:
            hint = "write views with `freehold health record`"
            yield Problem(where=f"$.views[{index}]", message=f"is not a view: {exc}", hint=hint)


def read_kernel_log(text: str, name: str = "kernel log", *, now_s: float = 0.0) -> IncidentCases:
    """Return the cases that kernel lines alone hold; `now_s` (Unix seconds) says which year dates without one are of."""
    lines, ignored = pasted_lines(text, path=name, at_s=0.0, now_s=now_s)
    incidents = group(settled(kernel_events(lines)))
    cases = tuple(IncidentCase(incident=incident) for incident in incidents)
    return IncidentCases(cases=cases, ignored=tuple(ignored))


def _cases(file: IncidentFile) -> IncidentCases:
    views = from_views([msgspec.convert(view, View) for view in file.views])
    at_s = seconds(file.at) or views.at_s
    events, ignored = _kernel(file, at_s)
    events += [*_xids(file, at_s), *kernel_events(views.lines)]
    names = gpu_names(file.gpus, events)
    findings = [_renamed(one, names) for one in _findings(file)]
    changes = [_renamed(one, names) for one in _changes(file, views)]
    events += _xids_in_words(events, findings, changes, at_s)
    engines = (*map(_engine_end, file.engines), *views.engines)
    context = file.context or ContextEntry()
    known = around(context, at_s=at_s or max((event.at_s for event in events), default=0.0))
    bounds = boundaries(context)
    bounds |= {names[subject]: when for subject, when in bounds.items() if subject in names}
    counted = settled([event for event in events if event.at_s > boundary_s(bounds, event.component)])
    if not counted and (findings or engines or known != Surroundings()) and not (bounds and events):
        counted = [IncidentEvent(at_s=at_s, kind="finding")]
    incidents = group(counted, node=file.node or views.node, changes=changes)
    past = [replace(one, subject=names.get(one.subject, one.subject)) for one in map(earlier, file.history)]
    every = IncidentCase(incident=_NOTHING, around=known, past=tuple(since(past, boundaries=bounds)))
    cases = [replace(every, incident=incident) for incident in incidents]
    cases[-1:] = [replace(one, findings=tuple(findings), engines=engines) for one in cases[-1:]]
    return IncidentCases(cases=tuple(cases), ignored=tuple(ignored), names=names)


_NOTHING = NodeIncident(node="", start_s=0.0, end_s=0.0, events=())
_Named = TypeVar("_Named", Finding, ReadingChange)


def _renamed(one: _Named, names: Mapping[str, str]) -> _Named:
    """Give a GPU one name: its address, where that is known."""
    return replace(one, component=names.get(one.component, one.component))


def _kernel(file: IncidentFile, at_s: float) -> tuple[list[IncidentEvent], list[str]]:
    text = "\n".join(line for line in file.kernel if isinstance(line, str))
    lines, ignored = pasted_lines(text, path="$.kernel", at_s=at_s)
    dated = [dated_line(line, at_s) for line in file.kernel if isinstance(line, KernelEntry)]
    return [event for some in (*dated, lines) for event in kernel_events(some)], ignored


def _xids(file: IncidentFile, at_s: float) -> Iterator[IncidentEvent]:
    for entry in file.xids:
        fields = {key: value for key, value in (("pid", entry.pid), ("name", entry.name)) if value}
        when = seconds(entry.at)
        yield IncidentEvent(
            at_s=at_s if when is None else when,
            kind="xid",
            component=gpu_component(entry.gpu),
            number=entry.xid,
            fields=fields,
        )


def _findings(file: IncidentFile) -> Iterator[Finding]:
    for entry in file.findings:
        yield Finding(
            probe=entry.probe,
            component=component_of(entry.component),
            verdict=entry.verdict,
            reason=entry.reason,
            message=entry.message,
            at_s=seconds(entry.at) or 0.0,
        )


def _changes(file: IncidentFile, views: FromViews) -> Iterator[ReadingChange]:
    yield from map(change_of, file.counters)
    for entry in file.engines:
        yield from _progress(entry)
    yield from views.changes


def _engine_end(entry: EngineEntry) -> EngineEnd:
    return EngineEnd(
        replica=entry.replica,
        engine=entry.engine,
        exit_code=_exit_code(entry),
        log_tail=tuple(line for text in entry.log_tail for line in text.splitlines()),
        state=entry.state,
        at_s=seconds(entry.at) or 0.0,
    )


def _exit_code(entry: EngineEntry) -> int | None:
    if isinstance(entry.signal, str):
        return -_SIGNALS[entry.signal.upper()] if entry.signal.upper() in _SIGNALS else entry.exit_code
    return -abs(entry.signal) if entry.signal else entry.exit_code


_SIGNALS = {
    "SIGHUP": 1, "SIGINT": 2, "SIGILL": 4, "SIGABRT": 6, "SIGBUS": 7, "SIGFPE": 8, "SIGKILL": 9, "SIGSEGV": 11, "SIGTERM": 15,
}  # fmt: skip
"""Source: signal(7)."""


def _progress(entry: EngineEntry) -> Iterator[ReadingChange]:
    counted = (
        ("tokens_total", MeasuredQuantity.PROGRESS, entry.tokens_before, entry.tokens_after),
        ("running", MeasuredQuantity.RUNNING, None, entry.running),
    )
    for name, quantity, before, after in counted:
        if after is not None:
            yield ReadingChange(
                component=f"engine:{entry.replica}",
                name=name,
                quantity=quantity,
                before=before,
                after=after,
                source="engine metrics",
            )


_XID_WORD = re.compile(r"\bxid\D{0,3}(\d{1,3})\b", re.IGNORECASE)
_WELL = frozenset({Verdict.HEALTHY, Verdict.NOT_APPLICABLE, Verdict.UNKNOWN})


def _xids_in_words(
    events: Sequence[IncidentEvent],
    findings: Sequence[Finding],
    changes: Sequence[ReadingChange],
    at_s: float,
) -> list[IncidentEvent]:
    """Return XIDs that only another program's finding or a last-XID gauge has, not the kernel's log, as events."""
    known = {event.number for event in events if event.kind == "xid"}
    found = [
        IncidentEvent(
            at_s=one.at_s or at_s, kind="xid", component=one.component, number=int(match[1]), text=one.message, source=one.probe
        )
        for one in findings
        if one.verdict not in _WELL
        and one.probe != "gpu_xid"
        and (match := _XID_WORD.search(f"{one.reason} {one.message}"))
    ]  # fmt: skip
    gauges = [
        IncidentEvent(at_s=at_s, kind="xid", component=one.component, number=number, source=one.source)
        for one, number in last_xids(changes)
    ]
    return [event for event in (*found, *gauges) if event.number not in known]


def with_history(file: IncidentCases, history: History) -> list[IncidentCase]:
    """Return the cases with what a history knows, and without what an operator has set healthy since.

    Lines that only say how long after the boot they came (a kernel log without dates) cannot be compared with that time: they stay.
    """
    past = [
        replace(one, subject=file.names.get(one.subject, one.subject))
        for one in latest_revisions(history.past)
    ]
    bounds = {file.names.get(subject, subject): at_s for subject, at_s in history.boundaries().items()}
    counted = since(past, boundaries=bounds)
    cases: list[IncidentCase] = []
    for case in file.cases:
        incident = case.incident
        events, followers = (
            tuple(e for e in some if e.at_s > boundary_s(bounds, e.component) or e.at_s < BOOT_MOST_S)
            for some in (incident.events, incident.followers)
        )
        if not events and incident.events:
            continue
        before = [one for one in counted if one.at_s < incident.start_s or incident.start_s < BOOT_MOST_S]
        left = replace(incident, events=events, followers=followers)
        cases.append(replace(case, incident=left, past=(*before, *case.past)))
    return cases
