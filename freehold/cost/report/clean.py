"""Names and sentences from outside, made safe to show: no control codes, no hidden turns of the writing direction.

Escaping for HTML, Markdown or a terminal is not done here: each writer knows its own.
"""

import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that are not shown as what they are: controls, format marks, surrogates, unassigned, separators."""
_KEPT = {"\u200d", "\u200c"}
"""Joiners, which some scripts need."""


def clean(text: str) -> str:
    """Return one line of text: white space as single blanks, every hidden character as U+FFFD."""
    words = " ".join(text.split())
    hidden = {char for char in words if unicodedata.category(char) in _HIDDEN} - _KEPT
    return "".join("\ufffd" if char in hidden else char for char in words)


def cut(text: str, most: int) -> str:
    """Return the text, or its beginning up to a sentence's or word's end with `…` where it is longer than `most`."""
    if len(text) <= most:
        return text
    head = text[: most - 2]
    sentence = max(head.rfind(mark) for mark in (". ", "; "))
    if sentence > most // 2:
        return f"{head[: sentence + 1]} …"
    words = head.rsplit(" ", maxsplit=1)[0]
    return (words if len(words) > most // 2 else head).rstrip(" ,;:.(") + "…"
