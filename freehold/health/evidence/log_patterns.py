"""Words of other programs and of people that are signs: in engines' logs and states, in foreign findings, in notes on an incident.

The patterns are data: patterns.yaml. What a sign then means for the cause stands in catalog/data/health/evidence.yaml. Nothing here
weighs, and nothing of Freehold's own is read by its words.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

import msgspec

from freehold.catalog.load_evidence import THERMAL, load_evidence
from freehold.core.own_files import read_own

_LINE_MOST = 2000
"""Characters of a line that are searched: its first and last thousand. Source: our own choice: an error's name stands at one end, and a hostile
line must cost no time."""
_SHOWN_MOST = 300  # characters of what was found that go into the evidence


class _PatternRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of patterns.yaml."""

    sign: str
    pattern: str
    probe: str = ""


class _PatternFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file; its comments say what each part is."""

    engine_log: tuple[_PatternRow, ...]
    engine_setting: tuple[_PatternRow, ...]
    engine_exception: tuple[_PatternRow, ...]
    engine_state: tuple[_PatternRow, ...]
    finding: tuple[_PatternRow, ...]
    note: tuple[_PatternRow, ...]


class _Rule(NamedTuple):
    """A row with its patterns compiled."""

    sign: str
    pattern: re.Pattern[str]
    probe: re.Pattern[str]


@cache
def _rules(part: str) -> tuple[_Rule, ...]:
    flags = {"finding": re.IGNORECASE, "note": re.IGNORECASE | re.DOTALL}.get(part, re.NOFLAG)
    return tuple(
        _Rule(row.sign, re.compile(row.pattern, flags), re.compile(row.probe, flags))
        for row in getattr(_file(), part)
    )


@cache
def _file() -> _PatternFile:
    found = read_own(__package__, "patterns.yaml", _PatternFile)
    signs = {row.sign for part in found.__struct_fields__ for row in getattr(found, part)}
    if unknown := signs - load_evidence().signs.keys() - {THERMAL}:
        raise ValueError(f"patterns.yaml: unknown signs {sorted(unknown)}")
    return found


def log_signs(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the signs in an engine's log, each with the first line that has it.

    What is wrong with settings, files or packages counts where no fault of GPU, disk or network is named; a bare exception only where nothing else is.
    """
    text = tuple(_short(line) for line in lines)
    found = dict(_first_lines(text, "engine_log"))
    if not found.keys() - {"engine_crashed"}:
        found |= dict(list(_first_lines(text, "engine_setting"))[:1])
    yield from found.items() if found else _first_lines(text, "engine_exception")


def _short(line: str) -> str:
    return line if len(line) <= _LINE_MOST else f"{line[: _LINE_MOST // 2]} {line[-_LINE_MOST // 2 :]}"


def _first_lines(lines: tuple[str, ...], part: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for rule in _rules(part):
        line = next((line for line in lines if rule.pattern.search(line)), None)
        if line is not None and rule.sign not in seen:
            seen.add(rule.sign)
            yield rule.sign, line.strip()[:_SHOWN_MOST]


def state_signs(state: str) -> list[str]:
    """Return the signs in an engine's state."""
    return [rule.sign for rule in _rules("engine_state") if rule.pattern.search(state)]


def finding_sign(probe: str, words: str) -> str | None:
    """Return the sign (`thermal` has no GPUs to compare with yet) that a foreign finding is; None: no pattern matches."""
    found = (
        rule.sign for rule in _rules("finding") if rule.probe.search(probe) and rule.pattern.search(words)
    )
    return next(found, None)


def note_signs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the signs in a note on an incident, with the words that mean them."""
    for rule in _rules("note"):
        if match := rule.pattern.search(text):
            yield rule.sign, match[0][:_SHOWN_MOST]
