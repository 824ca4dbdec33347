"""An incident file, or a recording of views, as cases for `diagnose`: one case per incident in it, oldest first.

The format is documented in docs/health-diagnosis.md and docs/incident.schema.json. Reading is total: every mistake is a `Problem`
with its path, all at once. Nothing here judges and nothing here reads the disk.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from freehold.core.findings import Action, Finding, Verdict
from freehold.core.problems import Problem
from freehold.health.evidence.case import Case
from freehold.health.evidence.counters import number, plain
from freehold.health.evidence.diagnose import Diagnosis, diagnose
from freehold.health.evidence.incident import Change, Event, group
from freehold.health.evidence.kernel_lines import BOOT_MOST_S, kernel_events, pasted_lines
from freehold.health.evidence.kernel_signs import DAY_S, Past
from freehold.health.evidence.link_events import settled
from freehold.health.evidence.surroundings import Around, EngineEnd
from freehold.health.evidence.view_changes import from_views
from freehold.health.incident_file import parts
from freehold.health.incident_file.context import around as around_of
from freehold.health.incident_file.context import boundaries, earlier
from freehold.health.incident_file.counters import changes, component_of
from freehold.health.incident_file.values import Data, Reader, as_map
from freehold.health.incidents.history import History, boundary_s, last_words, since
from freehold.health.kernel_log.events import pci_key
from freehold.health.model.view import KernelLine

_KERNEL = ("kernel", "kernel_log", "kernel_lines", "kmsg", "dmesg", "log", "lines", "logs", "journal")
_COUNTERS = (
    "counters",
    "nvml",
    "readings",
    "metrics",
    "changes",
    "dcgm",
    "storage",
    "network",
    "rdma",
    "host",
)
_FINDINGS = ("findings", "probes", "checks")
_ENGINES = ("engines", "engine", "replicas", "replica")
_CONTEXT = ("context", "around", "notes", "note")
_TIMES = ("at", "at_s", "time", "timestamp", "when")
_EVENTS = ("events", "xids")
_H100 = (
    "before",
    "during",
    "after",
    "process_exit",
    "process_stderr_tail",
    "exit_code",
    "log_tail",
    "signal",
)
KEYS = (
    "version", "node", "host_name", "hostname", "id", "title", "description", "about", "source", "label", "expected", "verdict", "truth", "gpus",
    "history", "past", "previous", "views", *_KERNEL, *_COUNTERS, *_FINDINGS, *_ENGINES, *_CONTEXT, *_TIMES, *_EVENTS, *_H100,
)  # fmt: skip
"""Every key of the top level, aliases too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a file tells."""

    cases: tuple[Case, ...] = ()
    problems: tuple[Problem, ...] = ()
    ignored: tuple[str, ...] = ()
    """Paths of what was not understood and left out."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Other names of a GPU (`gpu:SERIAL`, `gpu:0`) to the component that the cases know it by."""


@dataclass(slots=True, kw_only=True)
class _Parts:
    """What was read so far."""

    node: str = ""
    at_s: float = 0.0
    events: list[Event] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    engines: list[EngineEnd] = field(default_factory=list)
    past: list[Past] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    boundaries: dict[str, float] = field(default_factory=dict)


def read_incident(data: object, name: str) -> Told:
    """Return the cases that a file's data tells; `name` is the file's, for problems."""
    reader = Reader(name)
    if isinstance(data, list) and data and all(_is_view(one) for one in data):
        data = {"views": data}
    elif isinstance(data, list) and all(isinstance(one, str) for one in data):
        data = {"kernel": data}
    top = as_map(data)
    if top is None:
        reader.problem("$", "must be an object with the keys of an incident", "see docs/health-diagnosis.md")
        return Told(problems=tuple(reader.problems))
    inner = as_map(top.get("incident"))
    top = {**top, **inner} if inner is not None else top
    reader.unknown(top, "$", (*KEYS, "incident"))
    if not set(top) & set(KEYS):
        reader.problem(
            "$",
            "none of the keys of an incident is here",
            "at least one of kernel, counters, findings, engines, views",
        )
    cases, names = _cases(reader, top)
    return Told(
        cases=() if reader.problems else cases,
        problems=tuple(reader.problems),
        ignored=tuple(reader.ignored),
        names=names,
    )


def _is_view(value: object) -> bool:
    return isinstance(value, dict) and "monotonic_s" in value


def read_kernel_log(text: str, name: str = "kernel log", *, now_s: float = 0.0) -> Told:
    """Return the cases that kernel lines alone tell; `now_s` (Unix seconds) says which year dates without one are of."""
    reader = Reader(name)
    events = kernel_events(pasted_lines(reader, text, path=name, at_s=0.0, now_s=now_s))
    cases = tuple(Case(incident=incident) for incident in group(settled(events)))
    return Told(cases=cases, ignored=tuple(reader.ignored))


def _cases(reader: Reader, top: Data) -> tuple[tuple[Case, ...], dict[str, str]]:
    part = _Parts(
        node=reader.text(top, "$", "node", "hostname", "host_name"),
        at_s=reader.time(top, "$", *_TIMES) or 0.0,
    )
    _read_gpus(reader, top, part)
    _read_kernel(reader, top, part)
    _read_events(reader, top, part)
    for key in _COUNTERS:
        part.changes.extend(changes(reader, top.get(key), f"$.{key}") if top.get(key) is not None else [])
    _read_before_after(reader, top, part)
    found = _first(reader, top, _FINDINGS)
    findings = parts.findings(reader, found[1], found[0]) if found else []
    part.events.extend(_told_xids(part, findings))
    _read_engines(reader, top, part)
    _read_views(reader, top, part)
    around = _read_context(reader, top, part)
    findings = _renamed(part, findings)
    events = settled([event for event in part.events if event.at_s > _boundary(part, event.component)])
    incidents = group(events, node=part.node, changes=part.changes)
    if (
        not incidents
        and (findings or part.engines or around != Around())
        and not (part.boundaries and part.events)
    ):
        incidents = group([Event(at_s=part.at_s, kind="told")], node=part.node, changes=part.changes)
    named = [replace(one, subject=part.names.get(one.subject, one.subject)) for one in part.past]
    past = tuple(since(named, boundaries=part.boundaries))
    last = incidents[-1:]
    cases = tuple(
        Case(
            incident=incident,
            findings=tuple(findings) if incident in last else (),
            engines=tuple(part.engines) if incident in last else (),
            around=around,
            past=past,
        )
        for incident in incidents
    )
    return cases, part.names


def remembering(told: Told, history: History) -> list[Case]:
    """Return the cases with what a history knows, and without what an operator has set healthy since.

    Lines that only say how long after the boot they came (a kernel log without dates) cannot be compared with his time: they stay.
    """
    past = [
        replace(one, subject=told.names.get(one.subject, one.subject)) for one in last_words(history.past)
    ]
    bounds = {told.names.get(subject, subject): at_s for subject, at_s in history.boundaries().items()}
    cases: list[Case] = []
    for case in told.cases:
        incident = case.incident
        events = tuple(event for event in incident.events if _is_after(event, bounds))
        if events or not incident.events:
            followers = tuple(event for event in incident.followers if _is_after(event, bounds))
            before = [
                one
                for one in since(past, boundaries=bounds)
                if one.at_s < incident.start_s or incident.start_s < BOOT_MOST_S
            ]
            left = replace(incident, events=events, followers=followers)
            cases.append(replace(case, incident=left, past=(*before, *case.past)))
    return cases


def _is_after(event: Event, bounds: dict[str, float]) -> bool:
    return event.at_s > boundary_s(bounds, event.component) or event.at_s < BOOT_MOST_S


def _renamed(part: _Parts, findings: Sequence[Finding]) -> list[Finding]:
    """Give a GPU one name, its address where that is known: in readings, in what an operator set healthy, in the findings returned."""
    for event in part.events:
        if event.kind == "gpu_uuid":
            part.names.setdefault(f"gpu:{event.fields['uuid']}", event.component)
    part.changes = [
        replace(change, component=part.names.get(change.component, change.component))
        for change in part.changes
    ]
    for subject, at_s in list(part.boundaries.items()):
        part.boundaries.setdefault(part.names.get(subject, subject), at_s)
    return [replace(one, component=part.names.get(one.component, one.component)) for one in findings]


_XID_WORD = re.compile(r"\bxid\D{0,3}(\d{1,3})\b", re.IGNORECASE)


def _told_xids(part: _Parts, findings: Sequence[Finding]) -> list[Event]:
    """Return XIDs that only findings or a last-XID gauge tell, not the kernel's log, as events."""
    known = {event.number for event in part.events if event.kind == "xid"}
    told = [
        Event(
            at_s=one.at_s or part.at_s,
            kind="xid",
            component=one.component,
            number=int(match[1]),
            text=one.message,
            source=one.probe,
        )
        for one in findings
        if one.verdict not in _WELL
        and one.probe != "gpu_xid"
        and (match := _XID_WORD.search(f"{one.reason} {one.message}"))
    ]
    gauges = [
        Event(at_s=part.at_s, kind="xid", component=one.component, number=int(value), source=one.source)
        for one in part.changes
        if plain(one.name) in {"xid", "xid_error", "xid_errors"}
        and (value := number(one.after))
        and 0 < value < _XID_MOST
        and value != number(one.before)
    ]
    return [event for event in (*told, *gauges) if event.number not in known]


_XID_MOST = 1000
"""XIDs are below this. Source: NVIDIA's catalogue ends at 173."""
_WELL = frozenset({Verdict.HEALTHY, Verdict.NOT_APPLICABLE, Verdict.UNKNOWN})


def _boundary(part: _Parts, component: str) -> float:
    return max(part.boundaries.get("", -float("inf")), part.boundaries.get(component, -float("inf")))


def _first(reader: Reader, top: Data, names: Iterable[str]) -> tuple[str, object] | None:
    return reader.pick(top, "$", tuple(names))


def _read_gpus(reader: Reader, top: Data, part: _Parts) -> None:
    """Read which index, UUID and serial number stand at which address, and readings that stand there."""
    if isinstance(top.get("gpus"), int | float | str):
        return
    for where, gpu in reader.maps(top.get("gpus"), "$.gpus"):
        address = pci_key(reader.text(gpu, where, "pci", "pci_bus_id", "bus_id"))
        index = reader.text(gpu, where, "index", "gpu", "id")
        component = f"gpu:{address or index}"
        for key in ("index", "gpu", "id", "uuid", "serial"):
            if reader.text(gpu, where, key):
                part.names[f"gpu:{reader.text(gpu, where, key)}"] = component
        readings = {
            key: value
            for key, value in gpu.items()
            if key
            not in {"pci", "pci_bus_id", "bus_id", "index", "gpu", "id", "uuid", "serial", "name", "model"}
        }
        if readings:
            part.changes.extend(changes(reader, {component: readings}, where))


def _read_kernel(reader: Reader, top: Data, part: _Parts) -> None:
    for key in _KERNEL:
        texts: list[str] = []
        for where, entry in reader.items(top.get(key), f"$.{key}"):
            if isinstance(entry, str):
                texts.append(entry)
            elif (data := as_map(entry)) is not None and "lines" in data:
                texts.extend(reader.lines(data["lines"], f"{where}.lines"))
            elif data is not None:
                part.events.extend(kernel_events(_dated_line(reader, data, where, part.at_s)))
            else:
                reader.problem(where, f"must be a line of text, not {entry!r:.60}")
        part.events.extend(
            kernel_events(pasted_lines(reader, "\n".join(texts), path=f"$.{key}", at_s=part.at_s))
        )


def _dated_line(reader: Reader, data: Data, path: str, at_s: float) -> list[KernelLine]:
    """Return a line that stands with its time as an object."""
    when = reader.time(data, path, "at_s", "at", "time", "timestamp")
    facility = int(reader.number(data, path, "facility") or 0)
    texts = reader.lines(data.get("text") or data.get("message") or data.get("line"), path)
    known = len(reader.ignored)
    lines = pasted_lines(reader, "\n".join(texts), path=path, at_s=at_s)
    del reader.ignored[known:]  # it is a kernel line, by its key: one that tells nothing is not left out
    moved = {} if when is None else {"at_s": when}
    return [msgspec.structs.replace(line, facility=line.facility or facility, **moved) for line in lines]


def _read_events(reader: Reader, top: Data, part: _Parts) -> None:
    for key in _EVENTS:
        for where, entry in reader.items(top.get(key), f"$.{key}"):
            data = as_map(entry) or {"xid": entry}
            if isinstance(entry, str) and not entry.strip().isdigit():
                part.events.extend(kernel_events(pasted_lines(reader, entry, path=where, at_s=part.at_s)))
                continue
            number = reader.number(data, where, "xid", "number", "code")
            when = reader.time(data, where, "at", "at_s", "time")
            gpu = reader.text(data, where, "gpu", "pci", "device", "component")
            fields = {name: str(data[name]) for name in ("pid", "name", "gpc", "tpc") if name in data}
            if number is not None:
                at_s = part.at_s if when is None else when
                part.events.append(
                    Event(
                        at_s=at_s,
                        kind="xid",
                        component=component_of(f"gpu:{gpu}"),
                        number=int(number),
                        fields=fields,
                    )
                )


def _read_before_after(reader: Reader, top: Data, part: _Parts) -> None:
    """Read snapshots of one GPU before, during and after: the last one during counts, else the one after."""
    before, during, after = (top.get(key) for key in ("before", "during", "after"))
    last = during[-1] if isinstance(during, list) and during else during or after
    first, now = _flat(before), _flat(last)
    for name, value in now.items():
        pair = {"before": first.get(name), "after": value}
        part.changes.extend(changes(reader, {"gpu:0": {name: pair}}, "$.during" if during else "$.after"))


def _flat(value: object) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, entry in (as_map(value) or {}).items():
        flat.update(_flat(entry) if as_map(entry) is not None else {key: entry})
    return flat


def _read_engines(reader: Reader, top: Data, part: _Parts) -> None:
    for key in _ENGINES:
        value = top.get(key)
        if value is not None and not isinstance(value, str):
            ends, moved = parts.engines(reader, value, f"$.{key}")
            part.engines.extend(ends)
            part.changes.extend(moved)
    if any(
        top.get(key) is not None for key in ("process_exit", "exit_code", "process_stderr_tail", "log_tail")
    ):
        engine = top.get("engine") if isinstance(top.get("engine"), str) else ""
        alone = {"replica": "0", "engine": engine, "exit_code": top.get("process_exit", top.get("exit_code")), "signal": top.get("signal"),
                 "log_tail": top.get("process_stderr_tail", top.get("log_tail"))}  # fmt: skip
        part.engines.extend(parts.engines(reader, [alone], "$")[0])


def _read_views(reader: Reader, top: Data, part: _Parts) -> None:
    if top.get("views") is None:
        return
    told = from_views(top["views"], reader)
    part.node = part.node or told.node
    part.at_s = part.at_s or told.at_s
    part.events.extend(kernel_events(told.lines))
    part.changes.extend(told.changes)
    part.engines.extend(told.engines)


def _read_context(reader: Reader, top: Data, part: _Parts) -> Around:
    found = [(f"$.{key}", top[key]) for key in _CONTEXT if top.get(key) is not None]
    past = _first(reader, top, ("history", "past", "previous"))
    around = Around()
    end_s = max((event.at_s for event in part.events), default=part.at_s)
    at_s = part.at_s or end_s
    for path, value in found:
        more = around_of(reader, value, path=path, at_s=at_s)
        around = replace(around if as_map(value) is None else more, words=(*around.words, *more.words))
        data = as_map(value) or {}
        part.boundaries.update(boundaries(reader, data, path))
        past = past or ((f"{path}.history", data["history"]) if data.get("history") is not None else None)
        if isinstance(data.get("expected_gpus"), int) and isinstance(data.get("gpus"), int):
            part.changes.append(
                Change(
                    component="gpu:",
                    name="gpu_count",
                    before=float(str(data["expected_gpus"])),
                    after=float(str(data["gpus"])),
                )
            )
    part.past.extend(earlier(reader, past[1], path=past[0], at_s=at_s) if past else [])
    return around


_BEFORE_MOST = 500
"""Earlier faults of the same file that an incident is compared with. Source: our own choice: a day of incidents."""


def diagnose_all(cases: Sequence[Case]) -> list[Diagnosis]:
    """Return a diagnosis per case, each knowing those before it as history."""
    done: list[Diagnosis] = []
    before: list[Past] = []
    for case in cases:
        start_s = case.incident.start_s
        before = [one for one in before if start_s - one.at_s <= DAY_S][-_BEFORE_MOST:]
        diagnosis = diagnose(replace(case, past=(*case.past, *before)))
        done.append(diagnosis)
        before.extend(
            replace(one, action=Action.NONE) for one in as_past(diagnosis)
        )  # nobody says that it was done
    return done


def as_past(diagnosis: Diagnosis) -> list[Past]:
    """Return what the history keeps of a diagnosis: the fault, and each XID by itself, so that repetitions are found."""
    incident, action = diagnosis.incident, str(diagnosis.action)
    if not diagnosis.problem:
        return []
    main = Past(
        at_s=incident.start_s, subject=diagnosis.component, signature=diagnosis.signature, action=action,
        hypothesis=str(diagnosis.hypothesis), node=incident.node,
    )  # fmt: skip
    xids = {
        (event.component, event.number, _place(event)): event
        for event in incident.events
        if event.kind == "xid"
    }
    others = [
        Past(
            at_s=event.at_s,
            subject=component,
            signature=f"xid {number}",
            place=place,
            action=Action.NONE,
            node=incident.node,
        )
        for (component, number, place), event in sorted(xids.items(), key=str)
        if (component, f"xid {number}") != (main.subject, main.signature) or place
    ]
    first = next(
        (one for one in others if (one.subject, one.signature) == (main.subject, main.signature)), None
    )
    return (
        [replace(main, place=first.place), *(o for o in others if o is not first)]
        if first
        else [main, *others]
    )


def _place(event: Event) -> str:
    return ", ".join(f"{key} {event.fields[key]}" for key in ("gpc", "tpc") if key in event.fields)


_RANK = {action: index for index, action in enumerate(Action)}


def foremost(diagnoses: Sequence[Diagnosis]) -> Diagnosis | None:
    """Return the one that matters most: a known cause before an unknown one, then the gravest action, then the latest."""
    if not diagnoses:
        return None
    return max(
        diagnoses,
        key=lambda d: (d.problem, d.hypothesis != "undetermined", _RANK[d.action], d.incident.end_s),
    )
