"""Pasted kernel lines as lines of one incident: with the times that the file gives, and without what people and syslog did to them.

Reading a line's time is `kernel_log.formats`'s business, its meaning `kernel_log.events`'s.
"""

import re

import msgspec

from freehold.health.incident_file.schema import KernelEntry, seconds
from freehold.health.kernel_log.formats import parse_log_file
from freehold.health.model.view import KernelLine

BOOT_MOST_S = 1e8
"""Times below this are seconds since boot. Source: 1e8 seconds are three years of uptime; as Unix time it is 1973."""
_SOME_YEAR_S = 1.8e9
"""Of dates without a year only the differences matter, so any year will do. Source: our own choice."""


def pasted_lines(
    text: str, *, path: str, at_s: float, now_s: float = 0.0
) -> tuple[list[KernelLine], list[str]]:
    """Return the lines, and the places of what is not a kernel line; times since boot are moved so that the last one is at `at_s`.

    A date without a year is the last one before `at_s`, else before `now_s`.
    """
    lines, bad = parse_log_file(_tidied(text), name=path, now_s=at_s or now_s or _SOME_YEAR_S)
    since_boot = [line.at_s for line in lines if line.at_s < BOOT_MOST_S]
    shift = at_s - max(since_boot) if since_boot and at_s else 0.0
    moved = [
        msgspec.structs.replace(line, at_s=line.at_s + shift) if line.at_s < BOOT_MOST_S else line
        for line in lines
    ]
    return moved, [problem.where for problem in bad]


def dated_line(entry: KernelEntry, at_s: float) -> list[KernelLine]:
    """Return a line that the file gives with its time and facility; text without a time is the kernel's all the same."""
    when = seconds(entry.at)
    lines, _ = pasted_lines(entry.text, path="", at_s=at_s)
    time = {} if when is None else {"at_s": when}
    return [msgspec.structs.replace(line, facility=line.facility or entry.facility, **time) for line in lines]


def _tidied(text: str) -> str:
    """Mend what people and syslog do to lines: a record's lines joined or indented, `kernel:` without a time, the name cut off."""
    one_line = re.sub(r"(?:#012|\n[ \t]+)(?=NVRM:)", "\n", text)
    bare = re.sub(r"^kernel: ", "", one_line, flags=re.MULTILINE)
    return re.sub(r"^((?:\[[^\]]*\] ?)?)Xid \(", r"\1NVRM: Xid (", bare, flags=re.MULTILINE)
