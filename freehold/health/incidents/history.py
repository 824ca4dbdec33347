"""What was diagnosed before and what operators set healthy, kept across restarts: JSON lines that survive being cut in one.

Reading takes text and never fails: a line that does not parse was torn by a crash and is left out. `Keeper` appends lines and
writes the file anew when it has grown; the agent and an operator's command may both do so, one at a time. What a repetition
means is decided in `diagnose`; the only I/O of diagnosis is here.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from freehold.core.whole_file import replace_file
from freehold.health.evidence.kernel_signs import Past

FILE_NAME = "health-history.jsonl"
"""In the state folder."""
KEEP_S = 30 * 86_400.0
"""How long a diagnosis or a mark is kept, seconds. Source: our own choice; NVSentinel looks back 7 days at most."""
MOST = 5000
"""Diagnoses that are kept. Source: our own choice: about 1 MB."""
MARKS_MOST = 500
"""Marks that are kept. Source: our own choice: an operator's hand, a dozen times a day."""
_NEVER_S = -float("inf")
_Kind = TypeVar("_Kind", Past, "Mark")


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operator set something healthy: what was wrong with it until then never trips again."""

    set_healthy_s: float
    """Unix seconds: the boundary."""
    subject: str = ""
    """As `Past.subject`; empty: the whole node."""
    component: str = ""
    """The same as findings call it: a GPU by its UUID."""
    findings: tuple[tuple[str, str, str], ...] = ()
    """Probe, component and reason of what was found wrong then. As long as that stays as it is, it is nothing new."""
    by: str = ""
    """Who: the name of the user on this node."""
    reason: str = ""
    """Why, in his words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a file tells."""

    past: tuple[Past, ...] = ()
    """Oldest first."""
    marks: tuple[Mark, ...] = ()
    """Oldest first."""

    def boundaries(self) -> dict[str, float]:
        """Return when an operator last set what healthy: subject, or empty for the node, to Unix seconds."""
        return {mark.subject: mark.set_healthy_s for mark in self.marks}

    def counts(self) -> list[Past]:
        """Return the diagnoses that still count: of each incident the last word, and nothing before a mark."""
        return since(last_words(self.past), boundaries=self.boundaries())


def read_history(text: str) -> History:
    """Return all that the text tells; torn lines and lines of another kind are left out."""
    marks = sorted(_read(text, Mark), key=lambda mark: mark.set_healthy_s)
    return History(past=tuple(read_past(text)), marks=tuple(marks))


def read_past(text: str) -> list[Past]:
    """Return the diagnoses that the text tells, oldest first."""
    return sorted(_read(text, Past), key=lambda past: past.at_s)


def _read(text: str, kind: type[_Kind]) -> Iterator[_Kind]:
    decoder = msgspec.json.Decoder(kind)
    for line in text.splitlines():
        with contextlib.suppress(msgspec.DecodeError, UnicodeEncodeError):
            yield decoder.decode(line)


def write_past(past: Iterable[Past]) -> str:
    """Return the lines for them."""
    return _lines(past)


def _lines(entries: Iterable[Past | Mark]) -> str:
    return "".join(msgspec.json.encode(one).decode() + "\n" for one in entries)


def last_words(past: Iterable[Past]) -> list[Past]:
    """Return them with what was said again of an incident in place of what was said of it before."""
    every = list(past)
    last: dict[str, int] = {}
    for one in every:
        last[one.incident] = max(last.get(one.incident, 0), one.revision)
    # Told twice is once: a disk that took half of them was given all of them again.
    fresh = dict.fromkeys(one for one in every if one.incident and one.revision == last[one.incident])
    return sorted([*fresh, *(one for one in every if not one.incident)], key=lambda one: one.at_s)


def kept(past: Sequence[Past], *, now_s: float) -> list[Past]:
    """Return what is still worth keeping, at most `MOST`, newest last."""
    return [one for one in sorted(past, key=lambda one: one.at_s) if now_s - one.at_s <= KEEP_S][-MOST:]


def since(past: Iterable[Past], *, boundaries: dict[str, float]) -> list[Past]:
    """Return what came after an operator set a subject healthy; `""` among the boundaries is the whole node.

    So an old fault never trips again, and a new one does.
    """
    return [one for one in past if one.at_s > boundary_s(boundaries, one.subject)]


def boundary_s(boundaries: dict[str, float], subject: str) -> float:
    """Return until when nothing counts of a subject, Unix seconds."""
    return max(boundaries.get("", _NEVER_S), boundaries.get(subject, _NEVER_S))


class Keeper:
    """The file. Several processes may write it: each holds a lock beside it meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> History:
        """Return what the file tells; no file: nothing. Raises OSError when it cannot be read."""
        if not self.path.exists():
            return History()
        return read_history(self.path.read_text("utf-8", errors="replace"))

    def stamp(self) -> tuple[int, int, int] | None:
        """Return what changes when the file does; None: there is none. Raises OSError as `load`."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return (found.st_ino, found.st_size, found.st_mtime_ns)

    def add(self, past: Sequence[Past], *, now_s: float) -> None:
        """Append and make it durable; after `MOST` lines write the file anew. Raises OSError when the disk does not take it."""
        self._add(past, now_s)

    def mark(self, mark: Mark) -> None:
        """Append what an operator says; as `add`."""
        self._add([mark], mark.set_healthy_s)

    def _add(self, entries: Sequence[Past | Mark], now_s: float) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self._append(_lines(entries))
            if len((everything := self.load()).past) > MOST:
                self._rewrite(everything, now_s)

    def _append(self, lines: str) -> None:
        torn = self.path.exists() and self.path.read_bytes()[-1:] not in {b"", b"\n"}
        with self.path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                data = (("\n" if torn else "") + lines).encode()
                while data:  # a disk that is nearly full takes a part
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock; a file system without locks goes without."""
        with self.path.with_suffix(".lock").open("ab") as lock:
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _rewrite(self, history: History, now_s: float) -> None:
        marks = [mark for mark in history.marks if now_s - mark.set_healthy_s <= KEEP_S][-MARKS_MOST:]
        replace_file(self.path, _lines([*marks, *kept(history.past, now_s=now_s)]).encode())
