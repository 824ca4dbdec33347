"""Tables of raw bytes beside the tests: what is sent, what comes of it, and the clause that says so."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

CLOSING = frozenset({400, 408, 413, 414, 431, 501, 505})
"""Statuses of requests after which nobody can say where the next one begins, or whose rest is not read."""
_REPEATED = re.compile(rb"<([^<>]+)\*(\d+)>", re.DOTALL)


@dataclass(frozen=True)
class Case:
    """One row of a table."""

    name: str
    clause: str
    gets: int | str | list[int | str]
    sent: bytes

    @property
    def outcomes(self) -> list[list[str]]:
        """Return the statuses that may come, the answer to the request behind this one among them, and `close`."""
        each = self.gets if isinstance(self.gets, list) else [self.gets]
        return [
            one.split() if isinstance(one, str) else [str(one), "close" if one in CLOSING else "200"]
            for one in each
        ]


def read_cases(path: Path, **pieces: bytes) -> dict[str, Case]:
    """Return the cases of a table by their names; `pieces` adds to its own."""
    table = yaml.safe_load(path.read_text())
    known = {name: text.encode("latin-1") for name, text in table["pieces"].items()} | pieces
    cases = {}
    for part in table["cases"]:
        for name, gets, sent in part["rows"]:
            case = Case(name, part["by"], gets, _whole(sent.encode("latin-1"), known))
            assert cases.setdefault(f"{part['of']}: {name}", case) is case, f"two rows of one name: {name}"
    return cases


def _whole(text: bytes, pieces: dict[str, bytes]) -> bytes:
    """Return bytes with every piece and repetition written out."""
    for _ in range(3):  # pieces of pieces of pieces
        for name, piece in pieces.items():
            text = text.replace(b"<%b>" % name.encode(), piece)
    return _REPEATED.sub(lambda found: found[1] * int(found[2]), text)
