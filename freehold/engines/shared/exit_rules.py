"""Why a program ended, by words in its last log lines: what engine files share to write that down as rules.

It knows no engine's words; those stand in each engine's file. What an exit code alone tells stands in `base`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from freehold.engines.base import ExitCause, ExitKind, explain_code, last_words

_QUOTE_CHARS = 300
"""Longest quotation of a log line in a summary: four lines of a terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRule:
    """Words in the log that tell why a program ended."""

    kind: ExitKind
    words: re.Pattern[str]
    summary: str
    hint: str
    restart: bool


def exit_rule(kind: ExitKind, words: str, *, summary: str, hint: str, restart: bool) -> ExitRule:
    """Return a rule; `words` is a regular expression that is looked for in each line."""
    return ExitRule(kind=kind, words=re.compile(words), summary=summary, hint=hint, restart=restart)


def by_rules(
    rules: Iterable[ExitRule], lines: tuple[str, ...], *, stamp: re.Pattern[str] | None = None
) -> ExitCause | None:
    """Return the cause by the first rule that any line fits; None: none fits.

    `stamp` is what stands before the program's own words in a line (time, level), and is left out of the summary.
    """
    for rule in rules:
        line = next((line for line in lines if rule.words.search(line)), None)
        if line is not None:
            said = (stamp.sub("", line) if stamp else line).strip()[:_QUOTE_CHARS]
            return ExitCause(
                kind=rule.kind, summary=f"{rule.summary}: {said}", hint=rule.hint, restart=rule.restart
            )
    return None


def otherwise(exit_code: int, lines: tuple[str, ...]) -> ExitCause:
    """Return what the exit code tells, or the last words of the log where it tells nothing."""
    said = last_words(lines) or "it printed nothing"
    return explain_code(exit_code) or ExitCause(
        kind=ExitKind.UNKNOWN, summary=f"it ended with exit code {exit_code}: {said}"
    )
