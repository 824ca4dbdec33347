"""When a line of a log says that it was written, and the line without that.

Read are the forms that people paste: `dmesg` (seconds since boot, also `-T`), `journalctl` and syslog, ISO 8601, and the records of
/dev/kmsg with their facility. A line without a time takes that of the line before it. Nothing here knows what lines mean.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from freehold.health.view import KernelLine

_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_KMSG = re.compile(r"^(\d{1,4}),(\d+),(\d+),[^;]{0,40};(.*)$", re.DOTALL)
_LEVEL = re.compile(r"^<(\d{1,4})>")
_BOOT = re.compile(r"^\[\s*(\d{1,12}\.\d{1,9})\]\s?(?:\[[TC ]*\d+\]\s?)?")
_WALL = re.compile(r"^\[\w{3} (\w{3})\s+(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})\]\s?")
_ISO = re.compile(r"^\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?)\]?\s+")
_SYSLOG = re.compile(r"^(\w{3})\s+(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\.\d+)?\s+")
_HOST = re.compile(r"^(?:[\w.-]+\s+)?kernel(?:\[\d*\])?:\s+")
_FACILITY_BITS = 8
"""Of a record's first number the lowest three bits are the level, the rest the facility. Source: printk, Documentation/ABI/testing/dev-kmsg."""


def kernel_lines(texts: Iterable[str], *, at_s: float, facility: int = 0) -> list[KernelLine]:
    """Return the lines with their times. Seconds since boot are moved so that the last such line is at `at_s`."""
    parsed = [_parse(text.rstrip("\r\n"), at_s, facility) for text in texts]
    boots = [time for kind, time, _, _ in parsed if kind == "boot"]
    shift = at_s - max(boots) if boots else 0.0
    lines: list[KernelLine] = []
    last = next((time + shift * (kind == "boot") for kind, time, _, _ in parsed if kind), at_s)
    for sequence, (kind, time, text, who) in enumerate(parsed):
        last = time + shift if kind == "boot" else time if kind else last
        lines.append(KernelLine(at_s=last, text=text, facility=who, sequence=sequence))
    return lines


def _parse(text: str, at_s: float, facility: int) -> tuple[str, float, str, int]:
    """Return the kind of time (`boot`, `wall`, empty: none), the time, the line without it, and its facility."""
    if record := _KMSG.match(text):
        return "boot", int(record[3]) / 1e6, record[4], int(record[1]) // _FACILITY_BITS
    if level := _LEVEL.match(text):
        text, facility = text[level.end() :], int(level[1]) // _FACILITY_BITS
    for form, kind in ((_BOOT, "boot"), (_WALL, "wall"), (_ISO, "wall"), (_SYSLOG, "wall")):
        if match := form.match(text):
            time = float(match[1]) if form is _BOOT else _wall(form, match, at_s)
            if time is not None:
                return kind, time, _bare(text[match.end() :]), facility
    return "", 0.0, _bare(text), facility


def _bare(text: str) -> str:
    """Take host and `kernel:` off, and a second time, since boot, that journals keep."""
    text = _HOST.sub("", text, count=1)
    return _BOOT.sub("", text, count=1)


def _wall(form: re.Pattern[str], match: re.Match[str], at_s: float) -> float | None:
    if form is _ISO:
        return iso_s(match[1])
    year = int(match[6]) if form is _WALL else datetime.fromtimestamp(max(0.0, at_s), UTC).year
    if match[1] not in _MONTHS:
        return None
    try:
        when = datetime(
            year, _MONTHS.index(match[1]) + 1, int(match[2]), int(match[3]), int(match[4]), int(match[5]), tzinfo=UTC
        )
    except ValueError:
        return None
    return when.timestamp()


def iso_s(text: str) -> float | None:
    """Return Unix seconds of an ISO 8601 time; without a zone it is UTC. None: it is no time."""
    try:
        when = datetime.fromisoformat(text.strip().replace(",", ".").replace("Z", "+00:00"))
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
