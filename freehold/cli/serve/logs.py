r"""`freehold logs`: what the engines, the gateway and the controller wrote, also after the stack has ended.

Lines of several logs are merged by their time. A line without a time, which most engines write, follows the line
before it in its own log. The files are read as they are: no stack is asked. What an engine printed stands behind `| `
and is never read as a line of Freehold's; control characters are shown as `\x1b`.
"""

import contextlib
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from freehold.cli.terminal import shell_values
from freehold.cli.terminal.output import require_known, say_json, styled
from freehold.cli.terminal.place import StackPlace, json_option, require_readable, stack_options, start_hint
from freehold.core.errors import Permanent
from freehold.core.plain_text import one_line, plain
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.processes.minder_pipes import REMARK

_LOOK_AGAIN_S = 0.2  # Short enough to look immediate; a look costs one stat per log.
ACCESS = "access"
"""The access log's name; its lines would drown the others."""
HEALTH = "health"
"""The agent's log: every finding that changes is a line, so among other logs only its warnings are shown."""
_OWN = frozenset({ACCESS, HEALTH, "audit", "audit-rejected", "gateway", "controller", "up"})
"""Freehold's own logs of JSON lines. Any other has lines of a replica, or what one of Freehold's processes left on stderr."""
_OF_WORKERS = frozenset({ACCESS, "gateway"})
_WORKER = re.compile(r"-[0-9]+$")
_LINE_BYTES_MAX = 1024 * 1024  # A longer line is shown in pieces.
_COLOURS = {"warning": "yellow", "error": "red", "critical": "red"}
_HEAD = ("at", "level", "logger", "event")  # what has a column of its own, or none: `--raw` shows the logger
_MINDER = re.compile(REMARK.decode() + r"\[freehold: (\S+Z) (.*)\]")
"""What the minder writes into an engine's log. Source: `fleet/processes/minder.py`."""


@click.command("logs")
@click.argument("name", required=False, shell_complete=shell_values.logs)
@stack_options
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    metavar="COUNT",
    default=50,
    show_default=True,
    help="How many of the last lines per log.",
)
@click.option("--follow", "-f", is_flag=True, help="Also print new lines, until Ctrl-C.")
@click.option("--raw", is_flag=True, help="Print the lines as they were written.")
@json_option
def command(
    name: str | None, stack: StackPlace, *, lines: int, follow: bool, raw: bool, as_json: bool
) -> None:
    """Show the logs, merged by time: of NAME (a replica's id, gateway, controller, health, access or audit), or the last lines of all.

    The access log, one line per request, is shown only by its name; of the health log only warnings are shown
    without it. Times are UTC; an engine's own lines have none.
    """
    state = StateDir(stack.state_path)
    require_readable(state.logs)
    logs = {path.name.removesuffix(".log"): path for path in sorted(state.logs.glob("*.log"))}
    if not logs:
        raise Permanent(f"there are no logs in {state.logs}", hint=start_hint("logs", stack))
    if name == "access" and name not in logs:
        raise Permanent("the access log is empty: its first line comes with the first request")
    if name == "audit" and name not in logs:
        logs[name] = state.logs / "audit.log"  # --follow waits for it
        click.echo(
            "There are no acts yet: keys made or revoked, reloads, restarts and ends are listed here.",
            err=as_json,
        )
    require_known([name] if name is not None else [], logs, where="NAME", message="there is no log")
    tails = [Tail(source, logs[source]) for source in logs if _is_meant(source, name)]
    wanted = _worth_showing if name is None else lambda _: True
    alone = len(tails) == 1 and name is not None
    width = 0 if alone else max(len(tail.source) for tail in tails)
    write = _write_json if as_json else _write_raw if raw else _write_text
    for line in merged([(tail.written_s, tail.last(lines, wanted)) for tail in tails]):
        write(line, width)
    while follow:
        for line in merged([(tail.written_s, list(filter(wanted, tail.more()))) for tail in tails]):
            write(line, width)
        threading.Event().wait(_LOOK_AGAIN_S)


def _is_meant(source: str, name: str | None) -> bool:
    """Return whether a log is shown: each worker of the gateway has its own, and all are shown by the one name. `audit` has the rejected requests, too."""
    if name is None:
        return _first(source) != ACCESS
    return (
        source == name
        or (name in _OF_WORKERS and _first(source) == name)
        or (name == "audit" and source == "audit-rejected")
    )


def _first(source: str) -> str:
    """Return the name of the first worker's log of this kind."""
    return _WORKER.sub("", source)


@dataclass(slots=True)
class Line:
    """One line of a log."""

    source: str
    text: str
    """As it was written."""
    at_s: float | None = None
    """Its own time, Unix seconds; None: it has none."""
    event: str = ""
    """Its text without what the other fields say."""
    level: str = ""
    """Empty: it says none."""
    of_engine: bool = False
    """An engine printed it, or a library on stderr."""
    fields: dict[str, Any] = field(default_factory=dict)


def read_line(source: str, text: str) -> Line:
    """Return a line with its parts: JSON in a log of Freehold's own, a remark of the minder, or anything else, which is all event."""
    own = _first(source) in _OWN
    if own and text.startswith("{"):
        with contextlib.suppress(msgspec.MsgspecError, ValueError):
            found = msgspec.json.decode(text, type=dict[str, Any])
            at = found.get("at")
            return Line(
                source,
                text,
                at_s=datetime.fromisoformat(at).timestamp() if isinstance(at, str) else None,
                event=str(found.get("event", "")),
                level=str(found.get("level", "")),
                fields={name: value for name, value in found.items() if name not in _HEAD},
            )
    if found_note := _MINDER.fullmatch(text):
        with contextlib.suppress(ValueError):
            return Line(
                source, text, at_s=datetime.fromisoformat(found_note[1]).timestamp(), event=found_note[2]
            )
    return Line(source, text, event=text, of_engine=not own)


def merged(logs: Iterable[tuple[float, Sequence[Line]]]) -> list[Line]:
    """Return the lines of several logs by time; each log comes with the time of its last write, Unix seconds.

    A line without a time takes that of the line before it, or else that of the next one; a log without any, the last write's.
    """
    timed: list[tuple[float, Line]] = []
    for written_s, lines in logs:
        at_s = next((line.at_s for line in lines if line.at_s is not None), written_s)
        for line in lines:
            at_s = at_s if line.at_s is None else line.at_s
            timed.append((at_s, line))
    return [line for _, line in sorted(timed, key=lambda each: each[0])]


def _worth_showing(line: Line) -> bool:
    """Return whether a line is shown together with other logs."""
    return line.source != HEALTH or line.level not in {"debug", "info"}


def _write_json(line: Line, _: int) -> None:
    at = None if line.at_s is None else _time_text(line.at_s)
    say_json({"source": line.source, "at": at, "level": line.level or None, "line": line.text})


def _write_raw(line: Line, width: int) -> None:
    click.echo(
        f"{click.style(line.source, fg='cyan')} {one_line(line.text)}" if width else one_line(line.text)
    )


def _write_text(line: Line, width: int) -> None:
    """Print time, level, source (where there are several), event and fields; a text of several lines is printed below."""
    event = "| " * line.of_engine + one_line(line.event)
    if not width and line.at_s is None and not line.fields:
        click.echo(event)
        return
    pairs = [
        (one_line(name), plain(_value_text(value)))
        for name, value in line.fields.items()
        if value not in ("", None)
    ]
    words = [event, *(f"{name}={text}" for name, text in pairs if "\n" not in text)]
    time = "" if line.at_s is None else _time_text(line.at_s)
    head = [
        styled(f"{time:24}", dim=True),
        styled(f"{one_line(line.level):8}", colour=_COLOURS.get(line.level)),
    ]
    head += [styled(line.source.ljust(width), colour="cyan")] if width else []
    click.echo(" ".join([*head, *filter(None, words)]))
    for name, text in pairs:
        if "\n" in text:
            click.echo(
                f"    {name}:\n" + "\n".join(f"        {each}" for each in text.rstrip("\n").split("\n"))
            )


def _time_text(at_s: float) -> str:
    unit = "seconds" if at_s.is_integer() else "milliseconds"
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec=unit).removesuffix("+00:00") + "Z"


def _value_text(value: object) -> str:
    if isinstance(value, dict):
        return "{…}"  # such as the whole status in the log `up`: --raw has it
    if isinstance(value, str) and (not re.search(r'[\s"=]', value) or "\n" in value):
        return value
    return msgspec.json.encode(value).decode()


class Tail:
    """A log file that may be rotated while it is read."""

    def __init__(self, source: str, path: Path) -> None:
        self.source = source
        self._path = path
        self._inode = 0
        self._at = 0

    @property
    def written_s(self) -> float:
        """Return when the file was last written, Unix seconds; 0: there is none now."""
        with contextlib.suppress(FileNotFoundError):
            return self._path.stat().st_mtime
        return 0.0

    def last(self, count: int, wanted: Callable[[Line], bool] = lambda _: True) -> list[Line]:
        """Return the last `count` wanted lines, those before a rotation included."""
        older = self._path.with_name(self._path.name + ".1")
        kept: deque[Line] = deque(maxlen=max(0, count))
        if older.exists():
            with older.open("rb") as file:
                kept.extend(filter(wanted, self._read(file.read().splitlines())))
        kept.extend(filter(wanted, self.more()))
        return list(kept)

    def more(self) -> Iterator[Line]:
        """Yield the lines since the last call; after a rotation, from the start of the new file."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return
        if stat.st_ino != self._inode or stat.st_size < self._at:
            yield from self._rest()
            self._inode, self._at = stat.st_ino, 0
        yield from self._new(self._path)

    def _rest(self) -> Iterator[Line]:
        """Yield what was written between the last look and the rotation."""
        older = self._path.with_name(self._path.name + ".1")
        with contextlib.suppress(FileNotFoundError):
            if older.stat().st_ino == self._inode:
                yield from self._new(older)

    def _new(self, path: Path) -> Iterator[Line]:
        with path.open("rb") as file:
            file.seek(self._at)
            for line in iter(lambda: file.readline(_LINE_BYTES_MAX), b""):
                if not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX:
                    break  # still being written: whole next time
                self._at += len(line)
                yield from self._read([line])

    def _read(self, raw: list[bytes]) -> Iterator[Line]:
        for line in raw:
            yield read_line(self.source, line.decode("utf-8", "replace").rstrip("\r\n"))
