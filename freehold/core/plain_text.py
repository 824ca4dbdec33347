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


def plain(text: str) -> str:
    r"""Return a text with its colours left out and other control characters as `\x1b` or `\u202e`; tabs and line feeds stay."""
    return _UNSAFE.sub(_escaped, _COLOUR.sub("", text))


def one_line(text: str) -> str:
    r"""Return what `plain` does, with a line feed as `\n`: for a place where a line must not be forged."""
    return plain(text).replace("\n", "\\n")


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
