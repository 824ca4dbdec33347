"""What a person brings to a review beside the ledger: measured watts and a list of incidents, read and checked.

Watts come as CSV (`time,watts`; columns such as node and gpu distinguish series) or as what Prometheus answers to `query_range`
(source: prometheus.io, HTTP API, "Range queries": `data.resultType` matrix, samples `[unix seconds, "value"]`). Incidents
come as a JSON list of `{"start", "end", "what", "node"}`, the node if there are several. Nothing is estimated: time without samples is not covered.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from freehold.core.problems import Problem
from freehold.ledger.files.rows import Rows
from freehold.ledger.files.text import Lines
from freehold.ledger.foreign.cells import moment_s, number
from freehold.ledger.foreign.spans import HOUR_S, Spans
from freehold.ledger.foreign.use import Record, Unusable
from freehold.sizing.fleet.traffic import BadRow

HOLD_S = 300.0
"""How long a sample stands for, seconds. Source: Prometheus's look-back delta: 5 minutes."""
FILE_BYTES_MAX = 256 * 1024 * 1024
"""Largest file that is read. Source: our own bound: a month of 32 series every 15 s is some 200 MB of JSON."""
WATTS_MAX = 10e6
"""Most that one series may read, W. Source: our own bound: a whole hall of servers; more is a misread column."""
_LABELS = ("node", "host", "hostname", "instance", "gpu", "device", "index", "uuid", "name")
"""Columns that distinguish series; others, such as temperatures, do not."""
_SHORT_SERIES = 0.9  # A series that covers less of the others' time is worth a sentence.
_TIMES = ("time", "timestamp", "at", "Time", "Timestamp")
_WATTS = ("watts", "power_w", "w", "W", "value", "Value")
_PROBLEMS_MOST = 100  # Of one file: more do not help.

_PLACES_SHOWN = 3
"""Bad samples that are named. Our own choice: a wrong column shows in the first ones."""

Sample = tuple[str, str, Record | Unusable]
"""Where it stands behind the file's name, its series, and the record with `time` and `watts`."""
Samples = dict[str, list[tuple[float, float]]]
"""By series: Unix seconds and watts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watts:
    """What was drawn, over the time that samples cover."""

    mean_w: float
    """All series together."""
    covered_h: float
    energy_kwh: float
    """Drawn in the time that is covered."""
    series: int
    samples: int
    bad_samples: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOutage:
    """A time in which something was wrong, as its file says; Unix seconds."""

    start_s: float
    end_s: float
    what: str
    node: str = ""
    """Which node was out; those that do not say are taken for one."""


def read_watts(path: Path, since_s: float, until_s: float) -> Watts | Problem:
    """Return the watts of that time, or why the file says nothing about it."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            return Problem(
                where=str(path), message="is too large for a file of watts", hint="ask with a longer step"
            )
        found, bad = _samples(path)
        watts = _integrate(found, since_s, until_s)
    except OSError as exc:
        return Problem(where=str(path), message=f"cannot be read: {exc.strerror or exc}")
    except Unusable as exc:
        return Problem(
            where=str(path), message=str(exc), hint="CSV with time,watts, or the answer to query_range"
        )
    unreadable = _on_bad(bad, path)
    if watts is None:
        message = f"has no watts of the time that is reviewed ({len(bad):,} bad samples)"
        return Problem(where=str(path), message=message, hint="".join(unreadable))
    return replace(watts, bad_samples=len(bad), notes=(*watts.notes, *unreadable))


def _on_bad(bad: list[BadRow], path: Path) -> tuple[str, ...]:
    """Return a sentence on the samples that could not be read, with the place of the first ones."""
    if not bad:
        return ()
    shown = ", ".join(f"{path}{each.where} ({each.reason})" for each in bad[:_PLACES_SHOWN])
    more = f", and {len(bad) - _PLACES_SHOWN:,} more" if len(bad) > _PLACES_SHOWN else ""
    many = "1 sample" if len(bad) == 1 else f"{len(bad):,} samples"
    return (f"{many} of watts could not be read: {shown}{more}.",)


def read_incidents(path: Path, until_s: float) -> tuple[list[NodeOutage], list[Problem]]:
    """Return the incidents of a file in order of time, and everything that is wrong with it; an open one ends at `until_s`."""
    try:
        with path.open("rb") as file:
            value = msgspec.json.decode(file.read(FILE_BYTES_MAX))
    except OSError as exc:
        return [], [Problem(where=str(path), message=f"cannot be read: {exc.strerror or exc}")]
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        return [], [Problem(where=str(path), message=f"is not JSON: {exc}")]
    if type(value) is not list:
        hint = 'write [{"start": "2026-10-03T10:00Z", "end": "2026-10-03T11:00Z", "what": "…"}]'
        return [], [Problem(where=str(path), message="is not a list of incidents", hint=hint)]
    incidents, problems = [], []
    for index, each in enumerate(value):
        try:
            incidents.append(_incident(each, until_s))
        except Unusable as exc:
            problems.append(Problem(where=f"{path}[{index}]", message=str(exc)))
    return sorted(incidents, key=lambda each: each.start_s), problems[:_PROBLEMS_MOST]


def down_node_hours(incidents: Iterable[NodeOutage], since_s: float, until_s: float) -> float:
    """Return how many hours of that time nodes were out, summed over the nodes; on one node overlaps count once."""
    by_node: dict[str, Spans] = defaultdict(Spans)
    for each in incidents:
        by_node[each.node].add(each.start_s, each.end_s)
    return sum(spans.within(since_s, until_s).total_s() for spans in by_node.values()) / HOUR_S


def _incident(value: Any, until_s: float) -> NodeOutage:
    if type(value) is not dict:
        raise Unusable("is not an incident: {start, end, what}")
    start_s = moment_s(value, ("start",))
    is_open = value.get("end") in (None, "")
    end_s = max(start_s, until_s) if is_open else moment_s(value, ("end",))
    if end_s < start_s:
        raise Unusable("ends before it starts")
    what = value.get("what")
    if type(what) is not str or not what.strip():
        raise Unusable("does not name what it was")
    node = value.get("node", "")
    if type(node) is not str:
        raise Unusable("has a node that is not a name")
    return NodeOutage(start_s=start_s, end_s=end_s, what=what.strip(), node=node)


def _samples(path: Path) -> tuple[Samples, list[BadRow]]:
    """Return the samples by series, and those that could not be read; raises Unusable for another kind of file."""
    with path.open("rb") as file:
        is_json = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
        file.seek(0)
        pairs = _prometheus(file.read()) if is_json else _csv(path)
    found: Samples = defaultdict(list)
    bad: list[BadRow] = []
    for where, name, record in pairs:
        try:
            if isinstance(record, Unusable):
                raise record
            sample = (moment_s(record, ("time",)), _watts(record["watts"]))
        except Unusable as exc:
            bad.append(BadRow(where=where, reason=str(exc)))
        else:
            found[name].append(sample)
    return found, bad


def _watts(value: Any) -> float:
    found = float(number(value, "watts"))
    if not 0 <= found <= WATTS_MAX:
        raise Unusable("watts are implausible")
    return found


def _prometheus(data: bytes) -> Iterator[Sample]:
    try:
        answer = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise Unusable(f"is not JSON: {exc}") from None
    body = answer.get("data") if type(answer) is dict else None
    if type(body) is not dict or body.get("resultType") != "matrix" or type(body.get("result")) is not list:
        raise Unusable("is not an answer of Prometheus with a series (resultType matrix)")
    return _matrix(body["result"])


def _matrix(result: list[Any]) -> Iterator[Sample]:
    for at, series in enumerate(result):
        values = series.get("values") if type(series) is dict else None
        for index, pair in enumerate(values if type(values) is list else [None]):
            where = f"[{at}][{index}]"
            if type(pair) is not list or len(pair) != 2:
                yield where, "", Unusable("it is not a sample")
            else:
                yield where, str(series.get("metric")), {"time": pair[0], "watts": pair[1]}


def _csv(path: Path) -> Iterator[Sample]:
    with contextlib.closing(Lines(path)) as lines:
        rows = Rows(lines, "csv")
        time = watts = ""
        for line, record in rows:
            if not time:
                time, watts = (_column(rows.columns, names) for names in (_TIMES, _WATTS))
            if isinstance(record, Unusable):
                yield f":{line}", "", record
            else:
                yield (
                    f":{line}",
                    "\x1f".join(str(record.get(name)) for name in _LABELS),
                    {"time": record[time], "watts": record[watts]},
                )


def _column(columns: list[str], names: Iterable[str]) -> str:
    found = next((name for name in names if name in columns), "")
    if not found:
        raise Unusable(f"has no column called {' or '.join(names)}")
    return found


def _integrate(found: Samples, since_s: float, until_s: float) -> Watts | None:
    covered = {name: Spans() for name in found}
    joules = 0.0
    for name, samples in found.items():
        samples.sort()
        ends = [at for at, _ in samples[1:]] + [float("inf")]
        for (at, watts), next_s in zip(samples, ends, strict=True):
            start_s, end_s = max(at, since_s), min(at + HOLD_S, next_s, until_s)
            covered[name].add(start_s, end_s)
            joules += watts * max(0.0, end_s - start_s)
    union = Spans(span for spans in covered.values() for span in spans.united())
    covered_s = union.total_s()
    if not covered_s:
        return None
    short = sum(spans.total_s() < _SHORT_SERIES * covered_s for spans in covered.values())
    note = f"{short} of {len(found)} series have no samples for a part of the time and count as off there."
    return Watts(
        mean_w=joules / covered_s,
        covered_h=covered_s / HOUR_S,
        energy_kwh=joules / 3.6e6,
        series=len(found),
        samples=sum(len(samples) for samples in found.values()),
        notes=(note,) if short else (),
    )
