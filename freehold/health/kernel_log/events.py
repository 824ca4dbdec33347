"""Kernel lines as events: the driver's records of several lines are folded into one, then each line is read by patterns.yaml.

`read_events` is all that checks and diagnosis need. Only facility 0 is read, whatever the lines' source, because user space
can write any other. Nothing here judges, reads files or knows the time.
"""

import re
from collections.abc import Iterable, Sequence

import msgspec

from freehold.health.kernel_log.kinds import TEXT_MOST, KernelEvent, Kind, pci_key
from freehold.health.kernel_log.patterns import report_of
from freehold.health.model.view import KernelLine

__all__ = [
    "KernelEvent",
    "Kind",
    "fold_lines",
    "may_be_event",
    "pci_key",
    "read_event",
    "read_events",
    "uuids",
]

_OPENINGS = (
    (
        re.compile(r"NVRM: The NVIDIA GPU \S+"),
        re.compile(
            r"NVRM:\s+(?:\(PCI ID|installed|system has|fallen off|requires|is not supported|NVIDIA [\d.]+ driver)"
        ),
        "responding",
    ),
    (
        re.compile(r"NVRM: API mismatch:"),
        re.compile(
            r"NVRM:\s+(?:this kernel module|make sure|components|release|have the same|but"
            r"|has the version|the version|kernel module)"
        ),
        "same version",
    ),
)
"""Records of several lines (nv.c and osapi.c of the open driver): how one begins, how it continues, and the words at its end."""
_FOLD_WITHIN_S = 2.0  # our own choice: the driver prints one record's lines at once
_FOLD_LINES = 6
"""Lines of the longest record, with one to spare."""
_READ_MOST = 4096
"""Characters of a line that are read: four times the kernel's longest record, so that a hostile file costs no time."""
_SAME_KILL_S = 5.0
"""The kernel reports one kill in two lines; our own choice for how far apart they may be."""


def read_events(lines: Sequence[KernelLine]) -> list[KernelEvent]:
    """Return the events of the lines, in their order; the two lines of one kill give one event."""
    events: list[KernelEvent] = []
    killed: dict[str, float] = {}
    for line in fold_lines(lines):
        event = read_event(line)
        if event is None or (event.kind is Kind.OOM_KILL and _is_second_line(event, killed)):
            continue
        events.append(event)
    return events


def _is_second_line(event: KernelEvent, killed: dict[str, float]) -> bool:
    pid = event.fields["pid"]
    before_s = killed.get(pid)
    killed[pid] = event.at_s
    return before_s is not None and abs(event.at_s - before_s) <= _SAME_KILL_S


def read_event(line: KernelLine) -> KernelEvent | None:
    """Return the event of one line (already folded), or None; never for a line that the kernel did not write."""
    if line.facility:
        return None
    report = report_of(line.text[:_READ_MOST])
    if report is None:
        return None
    return KernelEvent(
        kind=report.kind,
        device=report.device,
        number=report.number,
        fields=report.fields,
        at_s=line.at_s,
        sequence=line.sequence,
        text=line.text[:TEXT_MOST],
    )


def may_be_event(line: KernelLine) -> bool:
    """Return whether the line is an event or may be a part of one: only such lines are kept for long."""
    return line.text.startswith("NVRM:") or read_event(line) is not None


def uuids(events: Iterable[KernelEvent]) -> dict[str, str]:
    """Return the UUID of each PCI address (`pci_key`) that a line named."""
    return {event.device: event.fields["uuid"] for event in events if event.kind is Kind.GPU_UUID}


def fold_lines(lines: Sequence[KernelLine]) -> list[KernelLine]:
    """Return the lines with the driver's records of several lines made one each, at the place and time of the first.

    Other lines between them stay. Folding what is folded changes nothing.
    """
    folded: list[KernelLine] = []
    open_at = -1
    for line in lines:
        if open_at >= 0 and _continues(folded[open_at], line):
            folded[open_at] = msgspec.structs.replace(
                folded[open_at], text=f"{folded[open_at].text}\n{line.text}"
            )
            continue
        if line.text.startswith("NVRM: ") and _opening(line.text) is not None:
            open_at = len(folded)
        folded.append(line)
    return folded


def _opening(text: str) -> tuple[re.Pattern[str], re.Pattern[str], str] | None:
    return next((row for row in _OPENINGS if row[0].match(text)), None)


def _continues(opened: KernelLine, line: KernelLine) -> bool:
    if not line.text.startswith("NVRM:") or line.facility != opened.facility:
        return False
    row = _opening(opened.text)
    if row is None or opened.text.count("\n") >= _FOLD_LINES or row[2] in opened.text:
        return False
    return abs(line.at_s - opened.at_s) <= _FOLD_WITHIN_S and bool(row[1].match(line.text))
