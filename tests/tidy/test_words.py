"""The rules of docs/STYLE.md that a program can count, on README.md, CONTRIBUTING.md, CHANGELOG.md, docs/*.md and the
README files of benchmarks and examples.

Decision records are history and stay as they were written. Every bound may only shrink.
"""

import re
from pathlib import Path

import pytest

from tidy.source import ROOT
from tidy.words import BANNED, LONG_WORDS, Sentence, sentences

WORDS_MOST = 40
"""No sentence is longer: a reader loses the subject."""
LONG_SHARE_MOST = 0.012
"""The part of all sentences that may have more than 25 words: 0.008 when this was written."""
README_LINES_MOST = 120
"""A reader decides on the first screen."""
BANNED_MOST = 0
"""Banned phrases over all pages; docs/health-probes.md is what the probes say of themselves."""

PAGES = [
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md")
]
PAGES += sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")])
STYLE = ROOT / "docs" / "STYLE.md"


def sentences_of(page: Path) -> list[Sentence]:
    return list(sentences(page.read_text(encoding="utf-8")))


def place(page: Path, sentence: Sentence) -> str:
    return f"{page.relative_to(ROOT)}:{sentence.line}: {sentence.text}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_sentence_is_too_long(page: Path) -> None:
    long = [place(page, row) for row in sentences_of(page) if row.words > WORDS_MOST]
    assert not long, f"more than {WORDS_MOST} words; make two sentences of each:\n" + "\n".join(long)


def test_the_readme_is_a_first_screen() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= README_LINES_MOST, (
        "lists belong to docs/: commands.md, guarantees.md, README.md (the index)"
    )


def test_long_sentences_are_few() -> None:
    rows = [(page, row) for page in PAGES for row in sentences_of(page)]
    long = [(page, row) for page, row in rows if row.words > LONG_WORDS]
    share = len(long) / len(rows)
    print(f"{len(long)} of {len(rows)} sentences above {LONG_WORDS} words, {share:.2%}")
    assert share <= LONG_SHARE_MOST, (
        f"{share:.2%} of sentences have more than {LONG_WORDS} words:\n"
        + "\n".join(place(page, row) for page, row in long)
    )


def test_banned_phrases_only_become_fewer() -> None:
    found = [
        f"{place(page, row)}\n    instead of '{match.group()}': {instead}"
        for page in PAGES
        if page != STYLE  # it shows them
        for row in sentences_of(page)
        for phrase, instead in BANNED.items()
        for match in re.finditer(phrase, row.text, re.IGNORECASE)
    ]
    print(f"{len(found)} banned phrases")
    assert len(found) <= BANNED_MOST, "docs/STYLE.md bans these:\n" + "\n".join(found)


def test_sentences_are_found_in_paragraphs_lists_and_tables() -> None:
    page = "# A head\nOne two. Three `x y z`\nfour.\n\n- five: six\n- seven. vLLM eight.\n\n```\ncode\n```\n| a | b; c |\n|---|---|\n"
    assert [(row.line, row.text, row.words) for row in sentences(page)] == [
        (2, "One two.", 2),
        (2, "Three CODE four.", 3),
        (5, "five: six", 2),
        (6, "seven.", 1),
        (6, "vLLM eight.", 2),
        (11, "a", 1),
        (11, "b", 1),
        (11, "c", 1),
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The file is no GGUF file.", 1),
        ("There is no lock.", 0),
        ("It is no longer valid, and no more than one.", 0),
        ("Nobody told the client.", 2),
        ("The client that has the key.", 0),
    ],
)
def test_what_a_banned_phrase_is(text: str, count: int) -> None:
    assert sum(len(re.findall(phrase, text, re.IGNORECASE)) for phrase in BANNED) == count
