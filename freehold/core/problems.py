"""The user's mistakes as values: where, what, and what to do. Loaders return all of them, never the first."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in what the user wrote.

    `where` is `file:line:column` (1-based) or the flag or variable it came from; `message` says what is wrong;
    `hint` says the fix, or is empty.
    """

    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """Return the problem as one line for a terminal."""
        return f"{self.where}: {self.message}" + (f" ({self.hint})" if self.hint else "")


def nearest_hint(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest known word, or lists all of them when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return "known: " + ", ".join(names) if names else ""
