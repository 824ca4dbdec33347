"""Kernel lines out of text: one record of /dev/kmsg, or a saved log in the forms that people have.

Those forms: `dmesg` (also -T, -e, -x, -r, --time-format iso), `journalctl -k` (short, short-precise, short-iso, short-full,
short-monotonic, short-unix, json), rsyslog's kern.log, `talosctl dmesg`, `cat /dev/kmsg`, and bare lines as people paste them. Nothing here opens
a file, knows the time of day, or says what a line means. A text cannot prove who wrote a line (`logger -t kernel`): what
comes from /dev/kmsg can.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from freehold.core.problems import Problem
from freehold.health.kernel_log.events import is_telling
from freehold.health.model.view import KernelLine

PROBLEMS_MOST = 20
"""Unreadable lines that are named one by one; our own choice."""
FACILITY_KERNEL = 0
"""RFC 5424, 6.2.1: only the kernel itself writes it."""
_FACILITY_USER = 1  # RFC 5424, 6.2.1
_FACILITY_DAEMON = 3  # RFC 5424, 6.2.1: what a program's line in a journal is taken for
_FACILITIES = {"kern": FACILITY_KERNEL, "user": _FACILITY_USER, "daemon": _FACILITY_DAEMON}
_LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_KMSG = re.compile(rb"(\d{1,10}),(\d{1,20}),(\d{1,20}),([^,;]*)[^;]*;([^\n]*)", re.DOTALL)


class Record(NamedTuple):
    """One record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg)."""

    facility: int
    level: int
    sequence: int
    since_boot_s: float
    continues: bool
    """It goes on with the record before (`+`)."""
    text: str


def parse_record(data: bytes) -> Record | None:
    """Return one record, its escapes undone and its key=value lines left out; None: it is none."""
    match = _KMSG.match(data)
    if not match:
        return None
    priority = int(match[1])
    raw = _ESCAPE.sub(lambda escape: bytes([int(escape[1], 16)]), match[5])
    return Record(
        facility=priority >> 3,
        level=priority & 7,
        sequence=int(match[2]),
        since_boot_s=int(match[3]) / 1e6,
        continues=match[4] == b"+",
        text=raw.decode("utf-8", "replace").rstrip("\n"),
    )


@dataclass(slots=True, kw_only=True)
class _Page:
    """What is known while a log is read."""

    boot_at_s: float
    now_s: float
    lines: list[KernelLine] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    last_s: float = 0.0


_MONTHS = {
    name: index + 1
    for index, name in enumerate(
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    )
}
_INNER = re.compile(r"(?:<(\d{1,3})>)?\[ *(\d{1,10}\.\d{1,9})\](?: ?\[ *[TC]\d+\])? ?")
_SECONDS = re.compile(
    r"(?:(?P<facility>\w+) *:(?P<level>\w+) *: )?(?:<(?P<priority>\d{1,3})>)?\[ *(?P<since>\d{1,10}\.\d{1,9})\]"
    r"(?:\[ *[TC]\d+\])?(?: (?P<text>.*)|$)",
    re.DOTALL,
)
_HUMAN = re.compile(
    r"(?:(?P<facility>\w+) *:(?P<level>\w+) *: )?\[(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (?P<month>\w{3}) +(?P<day>\d{1,2}) "
    r"(?P<clock>\d\d:\d\d:\d\d) (?P<year>\d{4})\](?: (?P<text>.*)|$)",
    re.DOTALL,
)
_CLOCK = r"\d\d:\d\d:\d\d"
_DMESG_ISO = re.compile(rf"(\d{{4}}-\d\d-\d\dT{_CLOCK}),(\d{{1,9}})(Z|[+-]\d\d:?\d\d)? (.*)", re.DOTALL)
_ISO = re.compile(rf"(\d{{4}}-\d\d-\d\dT{_CLOCK}(?:\.\d{{1,9}})?)(Z|[+-]\d\d:?\d\d)? (.*)", re.DOTALL)
_FULL = re.compile(
    rf"[A-Z][a-z]{{2}} (\d{{4}}-\d\d-\d\d {_CLOCK}(?:\.\d{{1,9}})?) [A-Z+-][\w:]{{1,5}} (.*)", re.DOTALL
)
_SHORT = re.compile(
    r"(?P<month>[A-Z][a-z]{2}) +(?P<day>\d{1,2}) (?P<clock>\d\d:\d\d:\d\d(?:\.\d{1,9})?) (?P<text>.*)",
    re.DOTALL,
)
_TALOS = re.compile(
    r"(?:\S+: )?(\w+): +(\w+): \[(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?)(Z|[+-]\d\d:?\d\d)\]: (.*)",
    re.DOTALL,
)
_MINUTE = re.compile(r"\[([A-Z][a-z]{2}) ?(\d{1,2}) (\d\d:\d\d)\] (.*)", re.DOTALL)
_DELTA = re.compile(r"\[ *([+-]\d{1,10}\.\d{1,9})\](?: (.*)|$)", re.DOTALL)
_UNIX = re.compile(r"(?P<unix>\d{9,11}\.\d{1,9}) (?P<text>.*)", re.DOTALL)
_WRITER = re.compile(r"[\w.-]{1,255} (?P<who>[\w()@./:-]{1,120}?)(?:\[\d+\])?: (?P<text>.*)", re.DOTALL)
_SKIPPED = re.compile(r"\s*$|-- .*|\.\.\.$")
_SHORT_YEAR = 1970  # the Unix epoch: what a date without a year gets where nobody said what today is


def parse_log_file(
    text: str, *, name: str = "kernel log", boot_at_s: float = 0.0, now_s: float = 0.0
) -> tuple[list[KernelLine], list[Problem]]:
    """Return the lines of a saved log and what in it is no kernel line, at most `PROBLEMS_MOST` of them and a count.

    Indented lines go on with the line before. `boot_at_s` (Unix seconds) is added to times since boot, 0: they stay as
    they are; `now_s` gives dates without a year their year; dates without a zone are taken for UTC. A line without a time
    that reads as an event gets the time of the line before. Lines of programs get facility 3, so that nothing believes
    them. Sequences are line numbers, 1-based.
    """
    page = _Page(boot_at_s=boot_at_s, now_s=now_s)
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.rstrip("\r")
        if not _SKIPPED.match(line) and not _go_on(page, line) and not _add(page, line, number):
            page.bad.append(number)
    return page.lines, _problems(page.bad, name)


def _problems(bad: list[int], name: str) -> list[Problem]:
    hint = "expected lines of dmesg, journalctl -k, kern.log or /dev/kmsg"
    named = [
        Problem(where=f"{name}:{number}:1", message="this is no kernel line", hint=hint)
        for number in bad[:PROBLEMS_MOST]
    ]
    more = len(bad) - len(named)
    return [*named, Problem(where=name, message=f"{more} more lines are no kernel lines")] if more else named


def _go_on(page: _Page, line: str) -> bool:
    """Append an indented line to the line before; a dictionary line of /dev/kmsg adds nothing."""
    if not line[0].isspace() or not page.lines:
        return False
    if not re.match(r" [A-Z]+=\S", line):
        last = page.lines[-1]
        page.lines[-1] = msgspec.structs.replace(last, text=f"{last.text}\n{line.strip()}")
    return True


def _add(page: _Page, line: str, number: int) -> bool:
    for read in _FORMS:
        found = read(page, line)
        if found:
            page.last_s = found.at_s
            page.lines.append(msgspec.structs.replace(found, sequence=number))
            return True
    bare = KernelLine(at_s=page.last_s, text=line, sequence=number)
    if not is_telling(bare):
        return False
    page.lines.append(bare)
    return True


def _kmsg(page: _Page, line: str) -> KernelLine | None:
    record = parse_record(line.encode("utf-8", "surrogatepass")) if line[:1].isdigit() else None
    if not record:
        return None
    return KernelLine(
        at_s=page.boot_at_s + record.since_boot_s,
        text=record.text,
        facility=record.facility,
        level=record.level,
    )


def _seconds(page: _Page, line: str) -> KernelLine | None:
    match = _SECONDS.match(line)
    if not match:
        return None
    facility, level = _priority(match["facility"], match["level"], match["priority"])
    at_s, text = page.boot_at_s + float(match["since"]), match["text"] or ""
    written = _WRITER.fullmatch(text) if match["facility"] is None and " kernel: " in text[:300] else None
    if written and written["who"] == "kernel":  # journalctl -o short-monotonic
        return KernelLine(at_s=at_s, text=written["text"], facility=facility, level=level)
    return KernelLine(at_s=at_s, text=text, facility=facility, level=level)


def _priority(facility: str | None, level: str | None, priority: str | None) -> tuple[int, int]:
    if priority:
        return int(priority) >> 3, int(priority) & 7
    return _FACILITIES.get(facility or "kern", _FACILITY_DAEMON), _LEVELS.index(
        level
    ) if level in _LEVELS else 6


def _human(_page: _Page, line: str) -> KernelLine | None:
    match = _HUMAN.match(line)
    at_s = _dated(int(match["year"]), match["month"], match["day"], match["clock"]) if match else None
    if match is None or at_s is None:
        return None
    facility, level = _priority(match["facility"], match["level"], None)
    return KernelLine(at_s=at_s, text=match["text"] or "", facility=facility, level=level)


def _dmesg_iso(_page: _Page, line: str) -> KernelLine | None:
    match = _DMESG_ISO.fullmatch(line)
    at_s = _iso_s(f"{match[1]}.{match[2]}", match[3]) if match else None
    return None if match is None or at_s is None else KernelLine(at_s=at_s, text=match[4])


def _iso(_page: _Page, line: str) -> KernelLine | None:
    match = _ISO.fullmatch(line)
    at_s = _iso_s(match[1], match[2]) if match else None
    return None if match is None or at_s is None else _written(at_s, match[3])


def _talos(_page: _Page, line: str) -> KernelLine | None:
    """Read `talosctl dmesg`: `NODE: kern: warning: [DATE]: text`."""
    match = _TALOS.fullmatch(line)
    at_s = _iso_s(match[3], match[4]) if match else None
    if match is None or at_s is None:
        return None
    facility, level = _priority(match[1], {"warning": "warn", "error": "err"}.get(match[2], match[2]), None)
    return KernelLine(at_s=at_s, text=match[5], facility=facility, level=level)


def _journal(_page: _Page, line: str) -> KernelLine | None:
    """Read `journalctl -o json`: one object a line; only what came by the kernel's transport is the kernel's."""
    if not line.startswith("{"):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    text, stamp = (
        (entry.get(key) for key in ("MESSAGE", "__REALTIME_TIMESTAMP"))
        if isinstance(entry, dict)
        else (None, None)
    )
    if not isinstance(text, str) or not str(stamp).isdigit():
        return None
    kernel = entry.get("_TRANSPORT", "kernel") == "kernel" and str(entry.get("SYSLOG_FACILITY", "0")) == "0"
    return KernelLine(
        at_s=int(str(stamp)) / 1e6, text=text, facility=FACILITY_KERNEL if kernel else _FACILITY_DAEMON
    )


def _full(_page: _Page, line: str) -> KernelLine | None:
    match = _FULL.fullmatch(line)
    at_s = _iso_s(match[1], None) if match else None
    return None if match is None or at_s is None else _written(at_s, match[2])


def _iso_s(when: str, zone: str | None) -> float | None:
    try:
        return _unix_s(datetime.fromisoformat(when + (zone or "")))
    except ValueError:
        return None


def _unix(_page: _Page, line: str) -> KernelLine | None:
    match = _UNIX.fullmatch(line)
    return _written(float(match["unix"]), match["text"]) if match else None


def _short(page: _Page, line: str) -> KernelLine | None:
    match = _SHORT.fullmatch(line)
    if not match:
        return None
    at_s = _this_year(page, match["month"], match["day"], match["clock"])
    return _written(at_s, match["text"]) if at_s is not None else None


def _relative(page: _Page, line: str) -> KernelLine | None:
    """Read dmesg -e: a date at each new minute, and seconds since the line before."""
    if match := _DELTA.match(line):
        return KernelLine(at_s=page.last_s + float(match[1]), text=match[2] or "")
    match = _MINUTE.match(line)
    at_s = _this_year(page, match[1], match[2], match[3]) if match else None
    return None if match is None or at_s is None else KernelLine(at_s=at_s, text=match[4])


def _this_year(page: _Page, month: str, day: str, clock: str) -> float | None:
    """Return the newest such date that is not in the future, or in 1970 where nobody said what today is."""
    year = datetime.fromtimestamp(page.now_s, UTC).year if page.now_s else _SHORT_YEAR
    at_s = _dated(year, month, day, clock)
    if at_s is not None and page.now_s and at_s > page.now_s + timedelta(days=1).total_seconds():
        return _dated(year - 1, month, day, clock)
    return at_s


def _dated(year: int, month: str, day: str, clock: str) -> float | None:
    try:
        return _unix_s(datetime.fromisoformat(f"{year:04d}-{_MONTHS[month]:02d}-{int(day):02d}T{clock}"))
    except (KeyError, ValueError):
        return None


def _unix_s(when: datetime) -> float:
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _written(at_s: float, text: str) -> KernelLine:
    """Take `HOST kernel: ` and an inner `[seconds]` away; whoever is not the kernel gets a program's facility."""
    match = _WRITER.fullmatch(text)
    if match is None or match["who"] != "kernel":
        return KernelLine(at_s=at_s, text=text, facility=_FACILITY_DAEMON)
    return KernelLine(at_s=at_s, text=_INNER.sub("", match["text"], count=1))


_FORMS: tuple[Callable[[_Page, str], KernelLine | None], ...] = (
    _seconds,
    _short,
    _dmesg_iso,
    _iso,
    _human,
    _relative,
    _full,
    _kmsg,
    _unix,
    _talos,
    _journal,
)
