"""Text of callers and engines made safe to show: no character of it moves a cursor, forges a line or hides another.

It deliberately keeps every visible character, so it takes out neither secrets nor markup.
"""

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""ECMA-48, SGR: a program's colours, which say nothing."""
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb]"
)
"""C0 and C1 without tab and line feed (ECMA-48); marks of direction, of no width and of lines (UAX #9, UTR #36); lone surrogates."""
_UNSAFE_OR_COLOUR = re.compile(f"{_COLOUR.pattern}|{_UNSAFE.pattern}")


def plain(text: str) -> str:
    r"""Return a text with its colours left out and other control characters as `\x1b` or `\u202e`; tabs and line feeds stay."""
    return _UNSAFE.sub(_escaped, _COLOUR.sub("", text))


def one_line(text: str) -> str:
    r"""Return what `plain` does, with a line feed as `\n`: for a place where a line must not be forged."""
    return plain(text).replace("\n", "\\n")


def printable(text: str) -> str:
    """Return a text for a terminal: as `plain`, but colours stay, since commands print their own."""
    return _UNSAFE_OR_COLOUR.sub(lambda found: found[0] if len(found[0]) > 1 else _escaped(found), text)


def json_line(encoded: bytes) -> bytes:
    r"""Return a JSON text with the control characters that JSON allows as they are (C1, U+202E …) as `\u202e`; it means the same."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", encoded.decode()).encode()


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
