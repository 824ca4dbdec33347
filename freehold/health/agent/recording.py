"""A recording of a node: one line that says what it is, then one view per line, so that a replay is the live code's input.

JSON lines, so that it can be cut, joined by hand and read in a diff. A recording holds what was read and nothing that was
concluded; it is written whole views at a time, and a torn last line (the node died) costs that view only. What cannot be read is a
`Problem` with its line. It knows no probe.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from freehold.core.problems import Problem
from freehold.health.model.probe import Expected
from freehold.health.model.view import View

FORMAT = "freehold-recording"
VERSION = 1
"""Of the format; a reader refuses a later one. Fields that are new with a default need no new version. Our own count."""
LINE_BYTES_MOST = 16_000_000
"""Longest line that is read: a view of 16 GPUs and 10,000 kernel lines is under 3 MB. Our own bound against a file that is none."""


class RecordingHead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first line."""

    format: str = ""
    version: int = 0
    node: str = ""
    about: str = ""
    """A title of what happened."""
    source: str = ""
    """Where it comes from: `freehold health record`, or what it was converted from."""
    truth: str = ""
    """What is known to be the case, where it is: `healthy`, `software`."""
    expected: Expected = Expected()
    """What the node should have had, by the configuration that was recorded with."""


_HEAD = msgspec.json.Decoder(RecordingHead)
_VIEW = msgspec.json.Decoder(View, strict=False)
_ENCODE = msgspec.json.Encoder()
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on bytes that are no JSON of ours; the last on one nested thousands deep."""


class ViewRecorder:
    """Writes views to a file that the caller opened (binary) and closes."""

    def __init__(self, file: IO[bytes], head: RecordingHead | None = None) -> None:
        """Write the head; its format, version and, where it names none, its source are this recorder's."""
        self._file = file
        head = head or RecordingHead()
        source = head.source or "freehold health record"
        self._line(msgspec.structs.replace(head, format=FORMAT, version=VERSION, source=source))

    def add(self, view: View) -> None:
        """Write one view and flush it, so that a node that dies leaves all but the last."""
        self._line(view)

    def _line(self, value: msgspec.Struct) -> None:
        # `format` and `version` must stand in the file although omit_defaults drops equal ones: theirs are never the default.
        self._file.write(_ENCODE.encode(value) + b"\n")
        self._file.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What a file held: all views that could be read, and all that is wrong with the rest."""

    head: RecordingHead
    views: tuple[View, ...]
    problems: tuple[Problem, ...] = ()


def load_recording(path: Path) -> Recording:
    """Return a recording with every problem at once; never raises on what is in the file."""
    problems: list[Problem] = []
    head, views = RecordingHead(), []
    try:
        with path.open("rb") as file:
            for item in _lines(file, str(path), problems.append):
                if isinstance(item, RecordingHead):
                    head = item
                else:
                    views.append(item)
    except OSError as exc:
        problems.append(Problem(where=str(path), message=f"cannot be read: {exc.strerror or exc}"))
    return Recording(head=head, views=tuple(views), problems=tuple(problems))


def _lines(file: IO[bytes], where: str, report: Callable[[Problem], None]) -> Iterator[RecordingHead | View]:
    head = _head(file.readline(LINE_BYTES_MOST), where)
    if isinstance(head, Problem):
        report(head)
        return
    yield head
    number, last_s = 1, float("-inf")
    while line := file.readline(LINE_BYTES_MOST):
        number += 1
        view = _view(line, f"{where}:{number}") if line.strip() else None
        if isinstance(view, Problem):
            report(view)
        elif view is not None:
            if view.at_s < last_s:
                report(
                    Problem(
                        where=f"{where}:{number}",
                        message="this view is older than the one before it",
                        hint="sort the lines by at_s; probes want the newest last",
                    )
                )
            last_s = max(last_s, view.at_s)
            yield view


def _head(line: bytes, where: str) -> RecordingHead | Problem:
    try:
        head = _HEAD.decode(line)
    except _UNREADABLE as exc:
        return Problem(where=f"{where}:1", message=f"this is no recording: {exc}", hint=_HOW)
    if head.format != FORMAT:
        return Problem(where=f"{where}:1", message="the first line is no recording's head", hint=_HOW)
    if head.version > VERSION or head.version < 1:
        hint = f"this Freehold reads up to version {VERSION}"
        return Problem(
            where=f"{where}:1", message=f"recording version {head.version} is not known", hint=hint
        )
    return head


_HOW = "`freehold health record` writes one"


def _view(line: bytes, where: str) -> View | Problem:
    try:
        return _VIEW.decode(line)
    except _UNREADABLE as exc:
        torn = "" if line.endswith(b"\n") else "the last line is not whole: "
        return Problem(where=where, message=f"{torn}{exc}", hint="the other lines were read")
