"""Kernel lines out of text: one record of /dev/kmsg, or a saved log in the forms that tools print.

Those forms: `dmesg` (also -T, -e, -x, -r, --time-format iso), `journalctl -k` (short, short-precise, short-iso, short-full,
short-monotonic, short-unix, json), rsyslog's kern.log, `talosctl dmesg`, `cat /dev/kmsg`, and bare lines as people paste them. Nothing here opens
a file, knows the time of day, or says what a line means. A text cannot prove who wrote a line (`logger -t kernel`): what
comes from /dev/kmsg can.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from freehold.core.problems import Problem
from freehold.health.kernel_log.events import may_be_event
from freehold.health.model.view import KernelLine

PROBLEMS_MOST = 20
"""Unreadable lines that are named one by one; our own choice."""
FACILITY_KERNEL = 0
"""RFC 5424, 6.2.1: only the kernel itself writes it."""
_FACILITY_USER = 1  # RFC 5424, 6.2.1
_FACILITY_DAEMON = 3  # RFC 5424, 6.2.1: what a program's line in a journal is taken for
_FACILITIES = {"kern": FACILITY_KERNEL, "user": _FACILITY_USER, "daemon": _FACILITY_DAEMON}
_LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
_LEVEL_NAMES = {"warning": "warn", "error": "err"}
"""As talosctl writes them."""
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_KMSG = re.compile(rb"(\d{1,10}),(\d{1,20}),(\d{1,20}),([^,;]*)[^;]*;([^\n]*)", re.DOTALL)


class KmsgRecord(NamedTuple):
    """One record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg)."""

    facility: int
    level: int
    sequence: int
    since_boot_s: float
    continues: bool
    """It continues the record before (`+`)."""
    text: str


def parse_record(data: bytes) -> KmsgRecord | None:
    """Return one record, its escapes undone and its key=value lines left out; None: it is not a record."""
    match = _KMSG.match(data)
    if not match:
        return None
    priority = int(match[1])
    raw = _ESCAPE.sub(lambda escape: bytes([int(escape[1], 16)]), match[5])
    return KmsgRecord(
        facility=priority >> 3,
        level=priority & 7,
        sequence=int(match[2]),
        since_boot_s=int(match[3]) / 1e6,
        continues=match[4] == b"+",
        text=raw.decode("utf-8", "replace").rstrip("\n"),
    )


@dataclass(slots=True, kw_only=True)
class _ParsedLog:
    """What is known while a log is read."""

    boot_at_s: float
    now_s: float
    lines: list[KernelLine] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    last_s: float = 0.0


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LABEL = r"(?:(?P<facility>\w+) *:(?P<level>\w+) *: )?"
_TEXT = r"(?: (?P<text>.*))?"
_CLOCK = r"\d\d:\d\d:\d\d(?:\.\d{1,9})?"
_ZONE = r"(?P<zone>Z|[+-]\d\d:?\d\d)?"
_FORMS = tuple(
    re.compile(form, re.DOTALL)
    for form in (
        # dmesg, with -x or -r; journalctl -o short-monotonic
        rf"{_LABEL}(?:<(?P<priority>\d{{1,3}})>)?\[ *(?P<since>\d{{1,10}}\.\d{{1,9}})\](?:\[ *[TC]\d+\])?{_TEXT}",
        # journalctl -o short and short-precise, rsyslog's kern.log
        rf"(?P<month>[A-Z][a-z]{{2}}) +(?P<day>\d{{1,2}}) (?P<clock>{_CLOCK}) (?P<entry>.*)",
        # dmesg --time-format iso
        rf"(?P<date>\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{{1,9}}){_ZONE} (?P<text>.*)",
        # journalctl -o short-iso, rsyslog with RFC 3339 times
        rf"(?P<date>\d{{4}}-\d\d-\d\dT{_CLOCK}){_ZONE} (?P<entry>.*)",
        # dmesg -T
        rf"{_LABEL}\[{_DAYS} (?P<month>\w{{3}}) +(?P<day>\d{{1,2}}) (?P<clock>\d\d:\d\d:\d\d) (?P<year>\d{{4}})\]{_TEXT}",
        # dmesg -e: seconds since the line before, and a date at each new minute
        rf"\[ *(?P<delta>[+-]\d{{1,10}}\.\d{{1,9}})\]{_TEXT}",
        r"\[(?P<month>[A-Z][a-z]{2}) ?(?P<day>\d{1,2}) (?P<clock>\d\d:\d\d)\] (?P<text>.*)",
        # journalctl -o short-full
        rf"[A-Z][a-z]{{2}} (?P<date>\d{{4}}-\d\d-\d\d {_CLOCK}) [A-Z+-][\w:]{{1,5}} (?P<entry>.*)",
        # journalctl -o short-unix
        r"(?P<unix>\d{9,11}\.\d{1,9}) (?P<entry>.*)",
        # talosctl dmesg
        rf"(?:\S+: )?(?P<facility>\w+): +(?P<level>\w+): \[(?P<date>\d{{4}}-\d\d-\d\dT{_CLOCK}){_ZONE}\]: (?P<text>.*)",
    )
)
"""`text` is the kernel's text, `entry` has host and program before it."""
_ENTRY = re.compile(r"[\w.-]{1,255} (?P<program>[\w()@./:-]{1,120}?)(?:\[\d+\])?: (?P<text>.*)", re.DOTALL)
_INNER = re.compile(r"(?:<(\d{1,3})>)?\[ *(\d{1,10}\.\d{1,9})\](?: ?\[ *[TC]\d+\])? ?")
_SKIPPED = re.compile(r"\s*$|-- .*|\.\.\.$")
_SHORT_YEAR = 1970  # the Unix epoch: what a date without a year gets where today's date is not known


def parse_log_file(
    text: str, *, name: str = "kernel log", boot_at_s: float = 0.0, now_s: float = 0.0
) -> tuple[list[KernelLine], list[Problem]]:
    """Return the lines of a saved log and the lines that are not kernel lines, at most `PROBLEMS_MOST` of them and a count.

    Indented lines continue the line before. `boot_at_s` (Unix seconds) is added to times since boot, 0: they stay as
    they are; `now_s` gives dates without a year their year; dates without a zone are taken for UTC. A line without a time
    that reads as an event gets the time of the line before. Lines of programs get facility 3, so that they never become events. Sequences are line numbers, 1-based.
    """
    page = _ParsedLog(boot_at_s=boot_at_s, now_s=now_s)
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.rstrip("\r")
        if not _SKIPPED.match(line) and not _continue(page, line) and not _add(page, line, number):
            page.bad.append(number)
    return page.lines, _problems(page.bad, name)


def _problems(bad: list[int], name: str) -> list[Problem]:
    hint = "expected lines of dmesg, journalctl -k, kern.log or /dev/kmsg"
    named = [
        Problem(where=f"{name}:{number}:1", message="this is not a kernel line", hint=hint)
        for number in bad[:PROBLEMS_MOST]
    ]
    more = len(bad) - len(named)
    return [*named, Problem(where=name, message=f"{more} more lines are not kernel lines")] if more else named


def _continue(page: _ParsedLog, line: str) -> bool:
    """Append an indented line to the line before; a dictionary line of /dev/kmsg adds nothing."""
    if not line[0].isspace() or not page.lines:
        return False
    if not re.match(r" [A-Z]+=\S", line):
        last = page.lines[-1]
        page.lines[-1] = msgspec.structs.replace(last, text=f"{last.text}\n{line.strip()}")
    return True


def _add(page: _ParsedLog, line: str, number: int) -> bool:
    found = _dated_line(page, line) or _record_line(page, line) or _journal_line(line)
    if found:
        page.last_s = found.at_s
        page.lines.append(msgspec.structs.replace(found, sequence=number))
        return True
    bare = KernelLine(at_s=page.last_s, text=line, sequence=number)
    if not may_be_event(bare):
        return False
    page.lines.append(bare)
    return True


def _dated_line(page: _ParsedLog, line: str) -> KernelLine | None:
    for form in _FORMS:
        match = form.fullmatch(line)
        if match:
            parts = match.groupdict()
            at_s = _at_s(page, parts)
            if at_s is not None:
                return _kernel_line(at_s, parts)
    return None


def _kernel_line(at_s: float, parts: Mapping[str, str | None]) -> KernelLine:
    entry = parts.get("entry")
    if entry is not None:
        return _journal_entry(at_s, entry) or KernelLine(at_s=at_s, text=entry, facility=_FACILITY_DAEMON)
    facility, level = _priority(parts.get("facility"), parts.get("level"), parts.get("priority"))
    text = parts["text"] or ""
    if "since" in parts and parts["facility"] is None and " kernel: " in text[:300]:
        found = _journal_entry(at_s, text)
        if found is not None:
            return msgspec.structs.replace(found, facility=facility, level=level)
    return KernelLine(at_s=at_s, text=text, facility=facility, level=level)


def _journal_entry(at_s: float, entry: str) -> KernelLine | None:
    """Return the line without `HOST kernel: ` and an inner `[seconds]`; None: the kernel did not write it."""
    match = _ENTRY.fullmatch(entry)
    if match is None or match["program"] != "kernel":
        return None
    return KernelLine(at_s=at_s, text=_INNER.sub("", match["text"], count=1))


def _priority(facility: str | None, level: str | None, priority: str | None) -> tuple[int, int]:
    if priority:
        return int(priority) >> 3, int(priority) & 7
    level = _LEVEL_NAMES.get(level or "", level)
    number = _LEVELS.index(level) if level in _LEVELS else _LEVELS.index("info")
    return _FACILITIES.get(facility or "kern", _FACILITY_DAEMON), number


def _record_line(page: _ParsedLog, line: str) -> KernelLine | None:
    record = parse_record(line.encode("utf-8", "surrogatepass")) if line[:1].isdigit() else None
    if not record:
        return None
    return KernelLine(
        at_s=page.boot_at_s + record.since_boot_s,
        text=record.text,
        facility=record.facility,
        level=record.level,
    )


def _journal_line(line: str) -> KernelLine | None:
    """Read `journalctl -o json`: one object a line; only what came by the kernel's transport is the kernel's."""
    if not line.startswith("{"):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    text, stamp = entry.get("MESSAGE"), str(entry.get("__REALTIME_TIMESTAMP"))
    if not isinstance(text, str) or not stamp.isdigit():
        return None
    kernel = entry.get("_TRANSPORT", "kernel") == "kernel" and str(entry.get("SYSLOG_FACILITY", "0")) == "0"
    facility = FACILITY_KERNEL if kernel else _FACILITY_DAEMON
    return KernelLine(at_s=int(stamp) / 1e6, text=text, facility=facility)


def _at_s(page: _ParsedLog, parts: Mapping[str, str | None]) -> float | None:
    """Return a line's time in Unix seconds; None: there is no such date."""
    if since := parts.get("since"):
        return page.boot_at_s + float(since)
    if delta := parts.get("delta"):
        return page.last_s + float(delta)
    if unix := parts.get("unix"):
        return float(unix)
    if date := parts.get("date"):
        return _unix_s(f"{date}{parts.get('zone') or ''}")
    if year := parts.get("year"):
        return _in_year(int(year), parts)
    # Without a year: the newest such date that is not in the future, or in 1970 where today's date is not known.
    this_year = datetime.fromtimestamp(page.now_s, UTC).year if page.now_s else _SHORT_YEAR
    at_s = _in_year(this_year, parts)
    if at_s is not None and page.now_s and at_s > page.now_s + timedelta(days=1).total_seconds():
        return _in_year(this_year - 1, parts)
    return at_s


def _in_year(year: int, parts: Mapping[str, str | None]) -> float | None:
    month, day = parts["month"], int(parts["day"] or 0)
    if month not in _MONTHS:
        return None
    return _unix_s(f"{year:04d}-{_MONTHS.index(month) + 1:02d}-{day:02d}T{parts['clock']}")


def _unix_s(date: str) -> float | None:
    try:
        when = datetime.fromisoformat(date)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
