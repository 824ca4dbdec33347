"""Why a program ended: by its exit code, and by rules over its last log lines.

The rules of an engine stand in its data file (`engine_data`); nothing here knows an engine.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from freehold.engines.base import ExitCause, ExitKind

_SIGNAL_NAMES = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
    11: "SIGSEGV", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
}  # fmt: skip
"""Names of the signals that end programs. Source: signal(7), the numbers of x86 and ARM Linux."""
_SHELL_SIGNAL_BASE = 128
"""A shell or a container runtime reports death by signal n as exit code 128 + n. Source: POSIX shell, section 2.8.2."""
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
"""Exit codes of a launcher that could not start the program. Source: POSIX shell, section 2.8.2."""


def explain_code(exit_code: int) -> ExitCause | None:
    """Return what an exit code alone tells of any program (negative: minus the signal); None: nothing."""
    if exit_code == 0:
        return ExitCause(kind=ExitKind.STOPPED, summary="it ended without an error")
    if exit_code in (_NOT_EXECUTABLE, _NOT_FOUND):
        return ExitCause(
            kind=ExitKind.MISSING_PROGRAM,
            summary="the program could not be started",
            hint="check that the program is installed and executable",
            restart=False,
        )
    number = -exit_code if exit_code < 0 else exit_code - _SHELL_SIGNAL_BASE
    return _explain_signal(number) if number in _SIGNAL_NAMES else None


def _explain_signal(number: int) -> ExitCause:
    name = _SIGNAL_NAMES[number]
    if number in (1, 2, 15):
        return ExitCause(kind=ExitKind.STOPPED, summary=f"it was stopped with {name}")
    if number == 9:
        return ExitCause(
            kind=ExitKind.KILLED,
            summary="it was killed with SIGKILL",
            hint="if nobody did that, the kernel ran out of memory: see `dmesg | grep -i oom`",
        )
    if number == 4:
        return ExitCause(
            kind=ExitKind.CRASHED,
            summary="it used an instruction that this processor does not have (SIGILL)",
            hint="install a build of the engine for this processor",
            restart=False,
        )
    return ExitCause(kind=ExitKind.CRASHED, summary=f"it crashed with {name}")


def last_words(lines: tuple[str, ...]) -> str:
    """Return the last log line that says something, at most 300 characters; empty when there is none."""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


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


def explain(
    exit_code: int,
    lines: tuple[str, ...],
    *,
    rules: Iterable[ExitRule],
    stamp: re.Pattern[str] | None = None,
) -> ExitCause:
    """Return why a program ended: by its exit code if it was stopped or killed, else by the rules, else by the code."""
    by_code = explain_code(exit_code)
    if by_code is not None and by_code.kind in (ExitKind.STOPPED, ExitKind.KILLED):
        return by_code  # whatever the log says, that is not why it ended
    return by_rules(rules, lines, stamp=stamp) or otherwise(exit_code, lines)


def otherwise(exit_code: int, lines: tuple[str, ...]) -> ExitCause:
    """Return what the exit code tells, or the last words of the log where it tells nothing."""
    said = last_words(lines) or "it printed nothing"
    return explain_code(exit_code) or ExitCause(
        kind=ExitKind.UNKNOWN, summary=f"it ended with exit code {exit_code}: {said}"
    )
