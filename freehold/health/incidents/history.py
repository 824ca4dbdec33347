"""What was diagnosed before and what operators set healthy, kept across restarts: JSON lines that survive being cut in one.

Reading takes text and never fails: a line that does not parse was torn by a crash and is left out. The file itself is
`agent.history_file`'s; what a repetition means is decided in `evidence.diagnose`.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from freehold.health.evidence.kernel_signs import PastFault

FILE_NAME = "health-history.jsonl"
"""In the state folder."""
KEEP_S = 30 * 86_400.0
"""How long a diagnosis or a mark is kept, seconds. Source: our own choice; NVSentinel looks back 7 days at most."""
MOST = 5000
"""Diagnoses that are kept. Source: our own choice: about 1 MB."""
MARKS_MOST = 500
"""Marks that are kept. Source: our own choice: an operator's hand, a dozen times a day."""
_NEVER_S = -float("inf")
_Kind = TypeVar("_Kind", PastFault, "Mark")


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operator set something healthy: what was wrong with it until then never trips again."""

    set_healthy_s: float
    """Unix seconds: the boundary."""
    subject: str = ""
    """As `PastFault.subject`; empty: the whole node."""
    component: str = ""
    """The same as findings call it: a GPU by its UUID."""
    findings: tuple[tuple[str, str, str], ...] = ()
    """Probe, component and reason of what was found wrong then. As long as that stays as it is, it is nothing new."""
    by: str = ""
    """Who: the name of the user on this node."""
    reason: str = ""
    """Why, as the operator wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a file holds."""

    past: tuple[PastFault, ...] = ()
    """Oldest first."""
    marks: tuple[Mark, ...] = ()
    """Oldest first."""

    def boundaries(self) -> dict[str, float]:
        """Return when an operator last set what healthy: subject, or empty for the node, to Unix seconds."""
        return {mark.subject: mark.set_healthy_s for mark in self.marks}


def read_history(text: str) -> History:
    """Return all that the text holds; torn lines and lines of another kind are left out."""
    marks = sorted(_read(text, Mark), key=lambda mark: mark.set_healthy_s)
    past = sorted(_read(text, PastFault), key=lambda past: past.at_s)
    return History(past=tuple(past), marks=tuple(marks))


def _read(text: str, kind: type[_Kind]) -> Iterator[_Kind]:
    decoder = msgspec.json.Decoder(kind)
    for line in text.splitlines():
        with contextlib.suppress(msgspec.DecodeError, UnicodeEncodeError):
            yield decoder.decode(line)


def history_lines(entries: Iterable[PastFault | Mark]) -> str:
    """Return the file's lines for them."""
    return "".join(msgspec.json.encode(one).decode() + "\n" for one in entries)


def latest_revisions(past: Iterable[PastFault]) -> list[PastFault]:
    """Return them with what was said again of an incident in place of what was said of it before."""
    every = list(past)
    last: dict[str, int] = {}
    for one in every:
        last[one.incident] = max(last.get(one.incident, 0), one.revision)
    # Written twice is once: a disk that took half of them was given all of them again.
    fresh = dict.fromkeys(one for one in every if one.incident and one.revision == last[one.incident])
    return sorted([*fresh, *(one for one in every if not one.incident)], key=lambda one: one.at_s)


def still_kept(history: History, *, now_s: float) -> list[PastFault | Mark]:
    """Return what is still worth keeping: the newest marks, then the newest diagnoses, oldest first."""
    marks = [mark for mark in history.marks if now_s - mark.set_healthy_s <= KEEP_S][-MARKS_MOST:]
    return [*marks, *[one for one in history.past if now_s - one.at_s <= KEEP_S][-MOST:]]


def since(past: Iterable[PastFault], *, boundaries: dict[str, float]) -> list[PastFault]:
    """Return what came after an operator set a subject healthy; `""` among the boundaries is the whole node.

    So an old fault never trips again, and a new one does.
    """
    return [one for one in past if one.at_s > boundary_s(boundaries, one.subject)]


def boundary_s(boundaries: dict[str, float], subject: str) -> float:
    """Return until when nothing counts of a subject, Unix seconds."""
    return max(boundaries.get("", _NEVER_S), boundaries.get(subject, _NEVER_S))
