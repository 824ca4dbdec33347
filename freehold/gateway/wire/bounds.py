"""How much structure a JSON body may have, found over its bytes before anything is decoded. Pure.

A body of brackets takes twenty times its size once it is decoded, and an object of 64,000 keys keeps a parser that looks
through all of them for each one busy for a minute. Texts and pictures of any length cost nothing here. Nesting is the
decoder's to bound: it stops near a thousand.
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
"""Commas, strings, and keys of all objects, each. Source: our own bound: a prompt of as many token numbers, twice the usual context."""
_BACKSLASHES_MAX = (
    1_048_576  # Pairs of them: 30 ms to take out, measured; nested JSON in 16 MiB has some 400,000.
)

_STRING = re.compile(rb'"[^"]*+"')
_NOT_OF_OBJECTS = bytes(set(range(256)) - set(b"{}:"))
_COLON, _OPEN = b":{"


def too_complex(body: bytes) -> Rejection | None:
    """Return the 400 for a body with more structure than any request needs, or None; what is not JSON may pass."""
    # What stands in texts counts too, so this is more than there is. Most bodies are below all the same.
    if not (_has_more(body, b":", KEYS_MAX) or _has_more(body, b",", ELEMENTS_MAX) or _has_containers(body)):
        return None
    if _has_more(body, b"\\\\", _BACKSLASHES_MAX):
        return _too_many(_BACKSLASHES_MAX, "escaped backslashes")
    body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if _has_more(body, b'"', 2 * ELEMENTS_MAX):
        return _too_many(ELEMENTS_MAX, "strings")
    outside = _STRING.sub(b"", body)
    if _has_containers(outside):
        return _too_many(CONTAINERS_MAX, "arrays and objects")
    if _has_more(outside, b",", ELEMENTS_MAX) or _has_more(outside, b":", ELEMENTS_MAX):
        return _too_many(ELEMENTS_MAX, "elements")
    return _large_object(outside) if _has_more(outside, b":", KEYS_MAX) else None


def _has_more(data: bytes, sign: bytes, most: int) -> bool:
    """Return whether a sign stands there more often: `replace` stops at a number, and where there are few it is five times `count`."""
    return len(data) - len(data.replace(sign, b"", most + 1)) > most * len(sign)


def _has_containers(data: bytes) -> bool:
    return _has_more(data, b"[", CONTAINERS_MAX) or _has_more(data, b"{", CONTAINERS_MAX)


def _large_object(outside: bytes) -> Rejection | None:
    """Return the 400 where one object has too many keys."""
    keys = [0]
    for sign in outside.translate(None, _NOT_OF_OBJECTS):
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
