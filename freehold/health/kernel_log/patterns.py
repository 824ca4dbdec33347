"""The forms of kernel lines, read from patterns.yaml, and what one line reports by them.

The file is ours: one that is not as it must be raises at the first use. Nothing here judges, and nothing folds records (see `events`).
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import msgspec

from freehold.catalog.load_xids import sxids
from freehold.core.own_files import read_own
from freehold.health.kernel_log.kinds import Kind, pci_key

_BREAK = re.compile(r"[ \t]*(?:\n|#012)[ \t]*(?:NVRM:)?[ \t]*")
"""Where a record's lines meet: as the kernel keeps them, and as syslog escapes a newline."""
_UNKNOWN = "<unknown>"
_PCI_GROUPS = ("source", "pci", "address")
_COUNTED_GROUPS = ("cpu", "mc")
_NO_FIELDS = frozenset({"source", "pci", "device", "number", *_COUNTED_GROUPS})
"""Named groups that are not fields of an event."""


class _Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One form of a line, as patterns.yaml explains it."""

    kind: Kind
    pattern: str
    fields: dict[str, str] = {}
    lower: tuple[str, ...] = ()
    hex: tuple[str, ...] = ()
    number: str = "number"
    details: tuple[str, ...] = ()
    one_line: bool = False


class _Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lines that hold the same words."""

    source: str
    words: tuple[str, ...]
    lines: tuple[_Line, ...]


class _Patterns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    parts: dict[str, str]
    details: dict[str, tuple[str, ...]]
    groups: tuple[_Group, ...]


class LineReport(NamedTuple):
    """What one line reports."""

    kind: Kind
    device: str
    number: int | None
    fields: dict[str, str]


class _Form(NamedTuple):
    """A form of a line with its patterns compiled."""

    line: _Line
    pattern: re.Pattern[str]
    details: tuple[re.Pattern[str], ...]


def report_of(text: str) -> LineReport | None:
    """Return what a line reports; None: it is not an event."""
    for word, forms in _forms():
        if word in text:
            for form in forms:
                found = _read(form, text)
                if found is not None:
                    return found
    return None


@cache
def _forms() -> tuple[tuple[str, tuple[_Form, ...]], ...]:
    """Return the words that a line must hold, each with the forms that are then tried."""
    table = read_own(__package__, "patterns.yaml", _Patterns)
    parts: dict[str, str] = {}
    for name, part in table.parts.items():
        parts[name] = _unfolded(part, parts)
    details = {name: tuple(map(re.compile, patterns)) for name, patterns in table.details.items()}
    found = []
    for group in table.groups:
        forms = tuple(
            _Form(
                line,
                re.compile(_unfolded(line.pattern, parts)),
                tuple(pattern for name in line.details for pattern in details[name]),
            )
            for line in group.lines
        )
        found += [(word, forms) for word in group.words]
    return tuple(found)


def _unfolded(pattern: str, parts: dict[str, str]) -> str:
    return re.sub(r"(?<!\(\?P)<(\w+)>", lambda match: parts[match[1]], pattern)


def _read(form: _Form, text: str) -> LineReport | None:
    line = form.line
    match = form.pattern.match(_BREAK.sub(" ", text) if line.one_line else text)
    if match is None:
        return None
    groups = match.groupdict()
    fields = line.fields | dict(_fields(groups))
    for detail in form.details:
        if found := detail.search(groups["_rest"]):
            fields |= _fields(found.groupdict())
    fields |= {name: fields[name].lower() for name in line.lower if name in fields}
    fields |= {name: str(int(fields[name], 16)) for name in line.hex}
    number = fields.get(line.number) or groups.get(line.number)
    report = LineReport(line.kind, _device(groups), int(number) if number else None, fields)
    return _sxid(report) if line.kind is Kind.SXID else report


def _fields(groups: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in groups.items():
        if value is None or value == _UNKNOWN or name in _NO_FIELDS or name.startswith("_"):
            continue
        if name.endswith("_"):
            yield from ((f"{name[:-1]}{index}", part) for index, part in enumerate(re.split("[, ]+", value)))
        else:
            yield name, value.strip()


def _device(groups: dict[str, Any]) -> str:
    for name in _PCI_GROUPS:
        if key := pci_key(groups.get(name) or ""):
            return key
    for name in _COUNTED_GROUPS:
        if name in groups:
            return f"{name}{groups[name]}"
    return groups.get("device") or groups.get("interface") or ""


def _sxid(report: LineReport) -> LineReport | None:
    """Add the catalog's severity to an SXid whose line has none; None: the catalog does not know it either."""
    if "severity" in report.fields:
        return report
    known = sxids().get(report.number or 0)
    if known is None:
        return None
    severity = "non-fatal" if known.fatal is False else "fatal"
    return report._replace(fields={**report.fields, "severity": severity})
