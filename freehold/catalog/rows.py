"""Files of facts as rows of plain values with their places; the shipped ones from a parsed copy, for speed.

The YAML files are the source of truth. Reading them with places takes some 0.3 s, a tenth of what a whole plan may, so
`data/parsed.json` holds what they say, and each of its files only counts while the SHA-256 of the YAML is the one that
it was made from: an edited file is read anew, and a stale copy costs time, never truth. `python -m freehold.catalog.rows`
writes the copy. No value is checked here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import msgspec

from freehold.catalog.sections import SECTIONS
from freehold.core.places import Mistake, Tree, read_tree
from freehold.core.problems import Problem, nearest_hint

DATA = Path(__file__).parent / "data"
"""Where the shipped facts lie."""
PARSED = "parsed.json"
"""The file in `DATA` with what the YAML files say."""
SHIPPED_NAME = "freehold/catalog/data"
"""The shipped folder's name in places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactRow:
    """One row as written."""

    section: str
    values: Mapping[str, object]
    where: str
    """`file:line:column` of the row."""
    places: Mapping[str, str]
    """Of each value, by field."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Of each field's name; empty for rows of the parsed copy."""

    def place(self, field: str) -> str:
        """Return where a field's value stands, or the row where it is not written."""
        return self.places.get(field, self.where)


class Copied(msgspec.Struct, frozen=True):
    """What one file of the parsed copy says, and of which bytes it says so."""

    sha256: str
    rows: list[FactRow]


def parse(text: str, name: str) -> tuple[list[FactRow], list[Problem]]:
    """Return the rows of a file of facts, and every mistake of form in it; `name` stands in places. Never raises."""
    tree = read_tree(text, name)
    rows: list[FactRow] = []
    mistakes = list(tree.mistakes)
    if isinstance(tree.data, dict):
        for section in tree.data:
            _section(tree, section, rows, mistakes)
    elif not mistakes:
        place = tree.value_place(())
        mistakes.append(
            Mistake(place, "has no sections", "write, for example, `rentals:` and a list below it")
        )
    return rows, [
        Problem(where=str(each.place), message=each.message, hint=each.hint) for each in sorted(mistakes)
    ]


def _section(tree: Tree, section: str, rows: list[FactRow], mistakes: list[Mistake]) -> None:
    content = tree.data[section] if isinstance(tree.data, dict) else None
    if section not in SECTIONS:
        message = f"there is no section {section!r}"
        mistakes.append(Mistake(tree.key_place((section,)), message, nearest_hint(section, SECTIONS)))
    elif not isinstance(content, list):
        message = f"{section}: must be a list of rows"
        mistakes.append(Mistake(tree.value_place((section,)), message, "begin each row with `- `"))
    else:
        for index, values in enumerate(content):
            if isinstance(values, dict):
                rows.append(_row(tree, section, index, values))
            else:
                place = tree.value_place((section, index))
                mistakes.append(
                    Mistake(place, f"{section}: a row must be a map of fields", "write `- id: …`")
                )


def _row(tree: Tree, section: str, index: int, values: dict[str, object]) -> FactRow:
    path = (section, index)
    return FactRow(
        section=section,
        values=values,
        where=str(tree.key_place(path)),
        places={key: str(tree.value_place((*path, key))) for key in values},
        keys={key: str(tree.key_place((*path, key))) for key in values},
    )


def shipped(folder: Path = DATA) -> tuple[list[FactRow], list[Problem]]:
    """Return the rows of the shipped files in `folder`, and their mistakes, of which there should be none."""
    known_files = copies(folder)
    rows: list[FactRow] = []
    problems: list[Problem] = []
    for path in sorted(folder.glob("*.yaml")):
        content = path.read_bytes()
        known = known_files.get(path.name)
        if known and known.sha256 == sha256(content).hexdigest():
            rows += known.rows
        else:
            read, wrong = parse(content.decode(), f"{SHIPPED_NAME}/{path.name}")
            rows += read
            problems += wrong
    return rows, problems


def copies(folder: Path = DATA) -> Mapping[str, Copied]:
    """Return the parsed copy by file name; empty where it is missing or broken."""
    try:
        return msgspec.json.decode((folder / PARSED).read_bytes(), type=dict[str, Copied])
    except (OSError, msgspec.DecodeError):
        return {}


def copied(path: Path) -> Copied:
    """Return what the copy should hold for one YAML file."""
    content = path.read_bytes()
    rows, _ = parse(content.decode(), f"{SHIPPED_NAME}/{path.name}")
    bare = [
        FactRow(section=row.section, values=row.values, where=row.where, places=row.places) for row in rows
    ]
    return Copied(sha256=sha256(content).hexdigest(), rows=bare)


def write_copy(folder: Path = DATA) -> None:
    """Write the parsed copy of the YAML files in `folder` anew."""
    content = {path.name: copied(path) for path in sorted(folder.glob("*.yaml"))}
    (folder / PARSED).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")


if __name__ == "__main__":
    write_copy()
