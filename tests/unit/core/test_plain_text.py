"""Text of others is shown so that it is what it looks like."""

import pytest

from freehold.core.plain_text import one_line, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("ready in 1 s\tok\nnext", "ready in 1 s\tok\nnext"),
        ("größer 你好 🎉", "größer 你好 🎉"),
        ("\x1b[36mblue\x1b[0m", "blue"),
        ("\x1b[2J\x1b]0;x\x07", "\\x1b[2J\\x1b]0;x\\x07"),
        ("a\rb\x00\x7f\x9b", "a\\x0db\\x00\\x7f\\x9b"),
        ("\u202eexe\u2028\u200b", "\\u202eexe\\u2028\\u200b"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_moves_or_hides_is_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_line_stays_one() -> None:
    assert one_line("a\nrun: b") == "a\\nrun: b"
