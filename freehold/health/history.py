"""What was diagnosed and done before, kept across restarts: a file of JSON lines that survives being cut in the middle of one.

`read_past` takes text and never fails: a line that does not parse was torn by a crash and is left out. `Keeper` appends one line
per diagnosis and rewrites the file when it has grown. What a repetition means is decided in `diagnose`; the only I/O of
diagnosis is here.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from freehold.health.signs_events import Past

KEEP_S = 30 * 86_400.0
"""How long a diagnosis is kept, seconds. Source: our own choice; NVSentinel looks back 7 days at most."""
MOST = 5000
"""Lines that are kept. Source: our own choice: about 1 MB."""


def read_past(text: str) -> list[Past]:
    """Return what the text tells, oldest first; torn lines and lines of another kind are left out."""
    decoder = msgspec.json.Decoder(Past)
    found: list[Past] = []
    for line in text.splitlines():
        try:
            found.append(decoder.decode(line))
        except (msgspec.DecodeError, UnicodeEncodeError):
            continue
    return sorted(found, key=lambda past: past.at_s)


def write_past(past: Iterable[Past]) -> str:
    """Return the lines for them."""
    return "".join(msgspec.json.encode(one).decode() + "\n" for one in past)


def kept(past: Sequence[Past], *, now_s: float) -> list[Past]:
    """Return what is still worth keeping, at most `MOST`, newest last."""
    return [one for one in sorted(past, key=lambda one: one.at_s) if now_s - one.at_s <= KEEP_S][-MOST:]


def since(past: Iterable[Past], *, boundaries: dict[str, float]) -> list[Past]:
    """Return what came after an operator set a subject healthy; `""` among the boundaries is the whole node.

    So an old fault never trips again, and a new one does.
    """
    whole = boundaries.get("", -float("inf"))
    return [one for one in past if one.at_s > max(whole, boundaries.get(one.subject, -float("inf")))]


class Keeper:
    """The file. One process writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> list[Past]:
        """Return what the file tells; no file: nothing. Raises OSError when it cannot be read."""
        if not self.path.exists():
            return []
        return read_past(self.path.read_text("utf-8", errors="replace"))

    def add(self, past: Sequence[Past], *, now_s: float) -> None:
        """Append and make it durable; after `MOST` lines write the file anew. Raises OSError when the disk does not take it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = self.path.exists() and self.path.read_bytes()[-1:] not in {b"", b"\n"}
        with self.path.open("ab") as file:
            file.write((("\n" if torn else "") + write_past(past)).encode())
            file.flush()
            os.fsync(file.fileno())
        if len(everything := self.load()) > MOST:
            self._rewrite(kept(everything, now_s=now_s))

    def _rewrite(self, past: Sequence[Past]) -> None:
        new = self.path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(write_past(past).encode())
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
