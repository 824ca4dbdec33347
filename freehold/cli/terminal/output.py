"""What commands print: JSON on stdout with `--json`, text for people otherwise, and errors on stderr.

With `--json` stdout holds JSON and nothing else, so that a script can parse it also after a failure. Text from
outside (names, paths, an engine's last lines) is printed with its control characters escaped and never read as markup.
"""

import os
from collections.abc import Iterable, Sequence

import click
import msgspec

from freehold.core.plain_text import json_line, plain, printable
from freehold.core.problems import Problem, nearest_hint

INTERRUPTED = 130
"""Exit code after Ctrl-C. Source: POSIX shells, 128 + SIGINT."""


class UserMistakes(click.ClickException):
    """The user's input is wrong: all the problems at once, exit code 2."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


def mistake(where: str, message: str, hint: str = "") -> UserMistakes:
    """Return one problem of the user's input as an exception to raise."""
    return UserMistakes([Problem(where=where, message=message, hint=hint)])


def require_known(names: Iterable[str], known: Iterable[str], *, where: str, message: str) -> None:
    """Raise UserMistakes with a problem for each name that is not known; `message` is put before the name."""
    known = list(known)
    problems = [
        Problem(where=where, message=f"{message} {name!r}", hint=nearest_hint(name, known))
        for name in names
        if name not in known
    ]
    if problems:
        raise UserMistakes(problems)


def wants_json(argv: Sequence[str]) -> bool:
    """Return whether a command line asks for JSON, also one that does not parse."""
    return "--json" in argv


def styled(text: str, *, colour: str | None = None, bold: bool = False, dim: bool = False) -> str:
    """Return the text with terminal codes; without any when NO_COLOR is set (see no-color.org).

    If the output is not a terminal, `click.echo` removes them.
    """
    if os.environ.get("NO_COLOR"):
        return text
    return click.style(text, fg=colour, bold=bold or None, dim=dim or None)


def show_lines(lines: Iterable[str]) -> None:
    """Print lines on stdout; control characters in them are escaped."""
    for line in lines:
        click.echo(printable(line))


def say_json(value: object) -> None:
    """Print one value as one line of JSON on stdout, at once."""
    click.echo(json_line(msgspec.json.encode(value)))  # flushes, also where stdout was closed before we began


def answer(value: object, text: str, *, as_json: bool) -> None:
    """Print what a command did: the value as JSON, or the text for a person."""
    if as_json:
        say_json(value)
    else:
        click.echo(printable(text))


def show_problems(problems: Sequence[tuple[str, str, str]], *, as_json: bool) -> None:
    """Print mistakes in the user's input, each as where, what, and what to do."""
    if as_json:
        say_json({"problems": [{"where": w, "message": m, "hint": h} for w, m, h in problems]})
        return
    for where, message, hint in problems:
        click.echo(f"{styled(plain(where), bold=True)}: {plain(message)}", err=True)
        if hint:
            click.echo(f"    {plain(hint)}", err=True)
    count = len(problems)
    if count > 1:
        click.echo(f"{count} problems; nothing was done.", err=True)


def show_failure(message: str, hint: str, *, as_json: bool) -> None:
    """Print a failure of the world, and what to do."""
    if as_json:
        say_json({"error": {"message": message, "hint": hint}})
        return
    click.echo(f"{styled('freehold', bold=True)}: {plain(message)}", err=True)
    if hint:
        click.echo(f"    {plain(hint)}", err=True)


def duration_text(seconds: float) -> str:
    """Return an age for a person: `0.4 s`, `12 s`, `3 min`, `5 h 12 min`, `2 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, days = minutes // 60, minutes // (24 * 60)
    return f"{hours} h {minutes % 60} min" if days == 0 else f"{days} d {hours % 24} h"
