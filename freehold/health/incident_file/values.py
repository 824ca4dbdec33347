"""Plain values out of what somebody wrote in an incident file: forgiving in form, exact in what it could not use.

A `Reader` walks data and gathers every mistake with its path. Numbers may be text, lists may be single values, and several names
mean the same key; what is of the wrong kind is a problem, and a key that looks like a slip of a known one too. A key that is merely
not known is told and left out.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from freehold.core.problems import Problem, nearest_hint
from freehold.health.evidence.counters import number

SLIP = 0.8
"""So near to a known key (difflib's ratio) is a slip of the pen. Source: our own choice: `kernal` is 0.83 from `kernel`."""
_ITEMS_MOST = 20_000
"""Entries of one list that are read. Source: our own choice, some hundred times a large incident."""

Data = Mapping[str, object]


@dataclass(slots=True)
class Reader:
    """Problems and what was left out, by path."""

    name: str
    problems: list[Problem] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def problem(self, path: str, message: str, hint: str = "") -> None:
        """Note a mistake."""
        self.problems.append(Problem(where=f"{self.name}: {path}", message=message, hint=hint))

    def pick(self, data: Data, path: str, names: Sequence[str]) -> tuple[str, object] | None:
        """Return the path and value of the first of several names that is there and not null."""
        for key in names:
            if data.get(key) is not None:
                return f"{path}.{key}", data[key]
        return None

    def text(self, data: Data, path: str, *names: str) -> str:
        """Return a text; empty when it is not there."""
        found = self.pick(data, path, names)
        if found is None:
            return ""
        if isinstance(found[1], str | int | float) and not isinstance(found[1], bool):
            return str(found[1])
        self.problem(found[0], "must be text", "put it in quotes")
        return ""

    def number(self, data: Data, path: str, *names: str) -> float | None:
        """Return a number, also from text; None when it is not there."""
        found = self.pick(data, path, names)
        if found is None:
            return None
        value = number(found[1]) if isinstance(found[1], str | int | float) else None
        if value is None:
            self.problem(found[0], f"must be a number, not {found[1]!r:.60}")
        return value

    def time(self, data: Data, path: str, *names: str) -> float | None:
        """Return Unix seconds, from a number or an ISO 8601 text; None when it is not there."""
        found = self.pick(data, path, names)
        if found is None:
            return None
        when = moment(found[1])
        if when is None:
            self.problem(
                found[0], f"must be a time, not {found[1]!r:.60}", "Unix seconds, or 2026-11-27T10:00:00Z"
            )
        return when

    def flag(self, data: Data, path: str, *names: str) -> bool | None:
        """Return a yes or no; None when it is not there."""
        found = self.pick(data, path, names)
        value = number(found[1]) if found and isinstance(found[1], str | int | float) else None
        if found and value is None:
            self.problem(found[0], "must be true or false")
        return None if value is None else bool(value)

    def items(self, value: object, path: str) -> Iterator[tuple[str, object]]:
        """Yield the entries of a list with their paths; a single value is a list of one."""
        if value is None:
            return
        entries = value if isinstance(value, list | tuple) else [value]
        if len(entries) > _ITEMS_MOST:
            self.problem(
                path, f"has {len(entries)} entries; {_ITEMS_MOST} are read at most", "cut it to the incident"
            )
        for index, entry in enumerate(entries[:_ITEMS_MOST]):
            yield f"{path}[{index}]", entry

    def maps(self, value: object, path: str) -> Iterator[tuple[str, Data]]:
        """Yield the entries of a list of maps; anything else in it is a problem."""
        for where, entry in self.items(value, path):
            if (data := as_map(entry)) is not None:
                yield where, data
            else:
                self.problem(where, f"must be an object, not {entry!r:.60}")

    def lines(self, value: object, path: str) -> list[str]:
        """Return lines of text, from a list or from one text with line ends."""
        found: list[str] = []
        for where, entry in self.items(value, path):
            if isinstance(entry, str):
                found.extend(entry.splitlines())
            else:
                self.problem(where, f"must be text, not {entry!r:.60}")
        return found

    def unknown(self, data: Data, path: str, known: Sequence[str]) -> None:
        """Note keys that are not known: as a problem where they look like a slip, else as left out."""
        for key in data:
            if key in known or key.startswith(("_", "x-", "$")):
                continue
            if difflib.get_close_matches(key, known, n=1, cutoff=SLIP):
                self.problem(f"{path}.{key}", f"the key {key!r} is not known", nearest_hint(key, known))
            else:
                self.ignored.append(f"{path}.{key}")


def as_map(value: object) -> Data | None:
    """Return a map with text keys; None: it is none."""
    return {str(key): entry for key, entry in value.items()} if isinstance(value, Mapping) else None


def iso_s(text: str) -> float | None:
    """Return Unix seconds of an ISO 8601 time; without a zone it is UTC. None: it is no time."""
    try:
        when = datetime.fromisoformat(text.strip().replace(",", "."))
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def moment(value: object) -> float | None:
    """Return Unix seconds of a number or an ISO text; None: it is no time."""
    if isinstance(value, str):
        return iso_s(value) if number(value) is None else number(value)
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
