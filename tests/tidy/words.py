"""The sentences of Markdown pages, for the rules of docs/STYLE.md that a program can count. It judges no grammar."""

import re
from collections.abc import Iterator
from typing import NamedTuple

LONG_WORDS = 25
"""Rule 2 of docs/STYLE.md: at most 25 words a sentence."""

BANNED = {
    r"(?<!there )\b(is|are|was|were) no\b(?! (more|less|longer|later|earlier|further)\b)": "is not a, has no, without",
    r"\b(told|tells|telling)\b": "report, list, show",
    r"\b(hear|hears|heard)\b": "receive, read",
    r"\b(nobody|somebody|whoever|anybody|everybody)\b": "the client, the engine, the operator",
    r"\bwho (has|is|asks|waits|sends|reads|wants|gets|leaves|streams|finds)\b": "the client that",
    r"\bown words?\b|\blast word\b|\bpresent word\b": "message, verdict, report",
    r"\b(he|his|him)\b": "the client, the operator",
    r"\b(goes|go|going|went) on\b": "continue, keep, is still",
}
"""A phrase that STYLE.md bans, as a regular expression, and what to write instead."""


_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')*]*\s+(?=[\"'(*]*(?:[A-Z0-9`]|vLLM|llama|nginx|nvidia))")


class Sentence(NamedTuple):
    """One sentence of a page: the line where its block begins, and its words."""

    line: int
    text: str
    words: int


def sentences(markdown: str) -> Iterator[Sentence]:
    """Yield the sentences of paragraphs, list items and table cells; code blocks, headings and quoted samples are none."""
    for line, block in _blocks(markdown):
        text = re.sub(r"\*?\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "CODE", block)).replace("**", "")
        for part in _SENTENCE_END.split(text):
            words = sum(any(letter.isalnum() for letter in word) for word in part.split())
            if words:
                yield Sentence(line, part.strip(), words)


def _blocks(markdown: str) -> Iterator[tuple[int, str]]:
    held: list[str] = []
    start, fenced = 1, False
    for number, line in enumerate([*markdown.splitlines(), ""], 1):
        stripped = line.strip()
        if stripped.startswith("```"):
            fenced = not fenced
        ends = fenced or not stripped or stripped.startswith(("```", "#", "|", ">", "<"))
        item = re.match(r"([-*]|\d+\.)\s+", stripped)
        if (ends or item) and held:
            yield start, " ".join(held)
            held = []
        if not fenced and stripped.startswith("|") and not re.fullmatch(r"[|\s:-]+", stripped):
            yield from (
                (number, cell.strip()) for cell in re.split(r"(?<!\\)\||; ", stripped) if cell.strip()
            )
        elif not ends:
            start = start if held else number
            held.append(stripped[item.end() :] if item else stripped)
