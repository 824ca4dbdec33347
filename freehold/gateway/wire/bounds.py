"""How much structure a JSON body may have, found over its bytes before anything is decoded. Pure.

A body of brackets takes twenty times its size once it is decoded, and an object of 64,000 keys keeps a parser that looks
through all of them for each one busy for a minute. Texts and pictures cost nothing here: each may be as long as the body.
"""

import re

from freehold.gateway.wire.errors import Rejection, invalid

LOOK_BYTES = 16 * 1024
"""Shorter bodies are not looked at, bytes. Source: no bound below can be passed in so few."""
KEYS_MAX = 4096
"""Keys of one object. Source: our own bound; OpenAI's `logit_bias` takes 300. Measured: 64,000 keep llama.cpp busy for a
minute and the time grows with the square, so these take a quarter of a second."""
CONTAINERS_MAX = 65_536
"""Arrays and objects. Source: our own bound: ten thousand messages of a few parts each."""
ELEMENTS_MAX = 262_144
"""Commas, and keys of all objects. Source: our own bound: a prompt of as many token numbers, twice the usual context."""
DEPTH_MAX = 2000
"""Arrays and objects in each other. Source: our own bound; a decoder in Python 3.11 stops at half of that, later ones at five times as many."""

# Pieces of which none ends within an escape, so that no step keeps other threads waiting. Pairs in a run of backslashes mean nothing.
_PIECE = re.compile(rb"(?s)(.{1,262144})(\\*+)([^\\]?)")
_TEXT = bytes(set(range(256)) - set(b'"{}[]:,'))
_ROUND, _NOT_BRACKETS = bytes.maketrans(b"{}[]", b"()()"), b":,"
_NOT_OF_OBJECTS = b"[],"
_COLON, _OPEN = b":{"


def too_complex(body: bytes) -> Rejection | None:
    """Return the 400 for a body with more structure than any request needs, or None; what is not JSON may pass."""
    # What stands in texts counts too, so this is more than there is. Most bodies are below all the same.
    if not (
        has_more(body, b":", KEYS_MAX)
        or has_more(body, b",", ELEMENTS_MAX)
        or has_more(body, b"[", DEPTH_MAX // 2)
        or has_more(body, b"{", DEPTH_MAX // 2)
    ):
        return None
    signs = _outside(body)
    if has_more(signs, b"[", CONTAINERS_MAX) or has_more(signs, b"{", CONTAINERS_MAX):
        return _too_many(CONTAINERS_MAX, "arrays and objects")
    if has_more(signs, b",", ELEMENTS_MAX) or has_more(signs, b":", ELEMENTS_MAX):
        return _too_many(ELEMENTS_MAX, "elements")
    if _is_deeper(signs, DEPTH_MAX):
        return _too_many(DEPTH_MAX, "arrays and objects in each other")
    return _large_object(signs) if has_more(signs, b":", KEYS_MAX) else None


def is_deeper(raw: bytes, depth: int) -> bool:
    """Return whether a JSON value is nested deeper."""
    return _is_deeper(_outside(raw), depth)


def _is_deeper(signs: bytes, depth: int) -> bool:
    """Each turn takes the innermost level away, at the speed of memory."""
    left = signs.translate(_ROUND, _NOT_BRACKETS)
    for _ in range(depth):
        if b"()" not in left:
            return False
        left = left.replace(b"()", b"")
    return b"()" in left


def _outside(body: bytes) -> bytes:
    """Return the signs of structure that stand outside of texts."""
    parts, inside = [], 0
    for found in _PIECE.finditer(body):
        piece, run, end = found.groups()
        plain = (piece + run[: len(run) % 2] + end).replace(b"\\\\", b"").replace(b'\\"', b"")
        texts = plain.translate(None, _TEXT).split(b'"')
        parts.append(b"".join(texts[inside::2]))
        inside ^= 1 - len(texts) % 2
    return b"".join(parts)


def has_more(data: bytes, sign: bytes, most: int) -> bool:
    """Return whether a sign stands there more often: `replace` stops at a number, and where there are few it is five times `count`."""
    return len(data) - len(data.replace(sign, b"", most + 1)) > most * len(sign)


def _large_object(signs: bytes) -> Rejection | None:
    """Return the 400 where one object has too many keys."""
    keys = [0]
    for sign in signs.translate(None, _NOT_OF_OBJECTS):
        if sign == _COLON:
            keys[-1] += 1
            if keys[-1] > KEYS_MAX:
                return _too_many(KEYS_MAX, "keys in one object")
        elif sign == _OPEN:
            keys.append(0)
        elif len(keys) > 1:
            keys.pop()
    return None


def _too_many(most: int, what: str) -> Rejection:
    return invalid(f"The body has more than {most} {what}.", code="body_too_complex")
