"""Each defence that docs/threat-model.md claims names a test, and each test that it names exists. Whether it proves the claim is for readers."""

import re
from collections.abc import Iterator

from tidy.source import ROOT

PAGE = ROOT / "docs" / "threat-model.md"
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
CLAIMS_LEAST = 40
"""So many rows the page has at least: one of which no row is recognised would pass too."""


def claims(text: str) -> Iterator[str]:
    """Yield the rows below a head whose last column is `test`."""
    is_claimed = False
    for line in text.splitlines():
        if not line.startswith("|"):
            is_claimed = False
        elif line.endswith("| test |"):
            is_claimed = True
        elif is_claimed and not line.startswith("|---"):
            yield line


def missing(text: str) -> list[str]:
    """Return the tests that the text names and that no file of that name has."""
    found = {path.name: "" for path in ROOT.glob("tests/**/test_*.py")}
    for path in ROOT.glob("tests/**/test_*.py"):
        found[path.name] += path.read_text(encoding="utf-8")
    return [
        f"{file}::{name}"
        for file, name in NAMED.findall(text)
        if not re.search(rf"^ *(async )?def {name}\(", found.get(file, ""), re.MULTILINE)
    ]


def test_each_claim_names_a_test() -> None:
    rows = list(claims(PAGE.read_text(encoding="utf-8")))
    assert len(rows) >= CLAIMS_LEAST
    bare = [row for row in rows if not NAMED.search(row)]
    assert not bare, "these claims name no test; test them, or move them to *Not defended*:\n" + "\n".join(
        bare
    )


def test_each_named_test_exists() -> None:
    gone = missing(PAGE.read_text(encoding="utf-8"))
    assert not gone, "docs/threat-model.md names tests that do not exist: " + ", ".join(gone)


def test_a_bare_claim_and_a_missing_test_are_found() -> None:
    page = "| claim | test |\n|---|---|\n| a | `test_x.py::test_y` |\n| b | |\n\n| what | until |\n|---|---|\n| c | |\n"
    assert [bool(NAMED.search(row)) for row in claims(page)] == [True, False]
    known = "`test_threat_model.py::test_each_named_test_exists`"
    assert missing(f"{page} {known}") == ["test_x.py::test_y"]
