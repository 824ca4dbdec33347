"""`freehold logs`: what the engines, the gateway and the controller wrote, also after the stack has ended.

It reads the files as they are: no line is parsed, filtered or sorted into another log's, and no stack is asked.
"""

import contextlib
import re
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import click

from freehold.cli.output import UserMistakes, say_json
from freehold.cli.place import config_option, find_config, json_option, start_hint, state_dir_option
from freehold.core.errors import Permanent
from freehold.core.problems import Problem, nearest_hint
from freehold.fleet.control.state_dir import StateDir
from freehold.stack.folders import state_dir_for

_LOOK_AGAIN_S = 0.2  # As quick as an eye; a log line more or less costs nothing.
ACCESS = "access"
"""The access log's name; its lines would drown the others."""
_OF_WORKERS = frozenset({ACCESS, "gateway"})
_WORKER = re.compile(r"-[0-9]+$")
_LINE_BYTES_MAX = 1024 * 1024  # A longer line is shown in pieces.


@click.command("logs")
@click.argument("name", required=False)
@config_option
@state_dir_option
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    metavar="COUNT",
    default=50,
    show_default=True,
    help="How many of the last lines per log.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines until Ctrl-C.")
@json_option
def command(
    name: str | None,
    config_flag: Path | None,
    state_dir: Path | None,
    *,
    lines: int,
    follow: bool,
    as_json: bool,
) -> None:
    """Show the logs: of NAME (a replica's id, gateway, controller or access), or the last lines of all.

    The access log, one line per request, is shown only by its name.
    """
    config_path = find_config(config_flag)
    state = StateDir(state_dir_for(state_dir, config_path))
    logs = {path.name.removesuffix(".log"): path for path in sorted(state.logs.glob("*.log"))}
    if not logs:
        raise Permanent(
            f"there are no logs in {state.logs}", hint=start_hint("logs", config_path, state.path)
        )
    if name is not None and name not in logs:
        problem = Problem(where="NAME", message=f"there is no log {name!r}", hint=nearest_hint(name, logs))
        raise UserMistakes([problem], as_json=as_json)
    chosen = [Tail(source, logs[source]) for source in logs if _is_meant(source, name)]
    alone = len(chosen) == 1 and name is not None
    for tail in chosen:
        for line in tail.last(lines):
            _say(tail.source, line, alone=alone, as_json=as_json)
    while follow:
        for tail in chosen:
            for line in tail.more():
                _say(tail.source, line, alone=alone, as_json=as_json)
        threading.Event().wait(_LOOK_AGAIN_S)


def _is_meant(source: str, name: str | None) -> bool:
    """Return whether a log is shown: each worker of the gateway has its own, and all are shown by the one name."""
    if name is None:
        return _first(source) != ACCESS
    return source == name or (name in _OF_WORKERS and _first(source) == name)


def _first(source: str) -> str:
    """Return what the first worker's log of this kind is called."""
    return _WORKER.sub("", source)


def _say(source: str, line: str, *, alone: bool, as_json: bool) -> None:
    if as_json:
        say_json({"source": source, "line": line})
    else:
        click.echo(line if alone else f"{click.style(source, fg='cyan')} {line}")


class Tail:
    """A log file that may be rotated while it is read."""

    def __init__(self, source: str, path: Path) -> None:
        self.source = source
        self._path = path
        self._inode = 0
        self._at = 0

    def last(self, count: int) -> list[str]:
        """Return the last `count` lines, those before a rotation included."""
        older = self._path.with_name(self._path.name + ".1")
        kept: deque[str] = deque(maxlen=max(0, count))
        if older.exists():
            with older.open("rb") as file:
                kept.extend(_lines(file.read().splitlines()))
        kept.extend(self.more())
        return list(kept)

    def more(self) -> Iterator[str]:
        """Yield the lines since the last call; start anew where the file was rotated."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return
        if stat.st_ino != self._inode or stat.st_size < self._at:
            yield from self._rest()
            self._inode, self._at = stat.st_ino, 0
        yield from self._new(self._path)

    def _rest(self) -> Iterator[str]:
        """Yield what was written between the last look and the rotation."""
        older = self._path.with_name(self._path.name + ".1")
        with contextlib.suppress(FileNotFoundError):
            if older.stat().st_ino == self._inode:
                yield from self._new(older)

    def _new(self, path: Path) -> Iterator[str]:
        with path.open("rb") as file:
            file.seek(self._at)
            for line in iter(lambda: file.readline(_LINE_BYTES_MAX), b""):
                if not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX:
                    break  # still being written: whole next time
                self._at += len(line)
                yield from _lines([line])


def _lines(raw: list[bytes]) -> Iterator[str]:
    for line in raw:
        yield line.decode("utf-8", "replace").rstrip("\r\n")
