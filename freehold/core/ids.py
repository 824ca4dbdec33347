"""Request ids: short, unique across processes and restarts, cheap enough for every request.

They are no secrets and no ordering is promised; whoever needs either must not look here.
"""

import itertools
import secrets

# 64 random bits tell processes apart (a collision among a million processes has odds of 3e-8); the counter does the rest.
_PREFIX = "req-" + secrets.token_hex(8) + "-"
_PREFIX_BYTES = _PREFIX.encode()
_COUNTER = itertools.count(1)
LENGTH_MAX = 128
"""Longest caller's id that is echoed, characters. Source: our own bound; OpenAI's own ids have 36."""


def new_request_id() -> str:
    """Return an id that no other request has, such as `req-1f00b2c3d4e5f607-1a`."""
    return f"{_PREFIX}{next(_COUNTER):x}"


def new_request_id_bytes() -> bytes:
    """Return the same as bytes."""
    return b"%b%x" % (_PREFIX_BYTES, next(_COUNTER))


def is_request_id(text: str) -> bool:
    """Return whether a caller's id can be echoed: 1 to LENGTH_MAX visible ASCII characters."""
    return 0 < len(text) <= LENGTH_MAX and text.isascii() and text.isprintable() and " " not in text
