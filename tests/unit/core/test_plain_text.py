"""Text of others is shown so that it is what it looks like."""

import json

import pytest

from freehold.core.plain_text import json_line, one_line, plain, printable


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


def test_a_command_keeps_its_own_colours_and_nothing_else() -> None:
    assert printable("\x1b[31mred\x1b[0m\x1b[2J\u202e\nnext") == "\x1b[31mred\x1b[0m\\x1b[2J\\u202e\nnext"


def test_json_means_the_same_and_has_no_control_character() -> None:
    value = {"a\x9b": "\x7f\u202e\u2028 größer 🎉 \\u202e"}
    line = json_line(json.dumps(value, ensure_ascii=False).encode())
    assert json.loads(line) == value
    assert plain(line.decode()) == line.decode()
    assert "größer 🎉" in line.decode()
