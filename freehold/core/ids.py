"""Request ids: short, unique across processes and restarts, cheap enough for every request.

They are no secrets and no ordering is promised; whoever needs either must not look here.
"""

import itertools
import secrets
from collections.abc import Callable

# 64 random bits tell processes apart (a collision among a million processes has odds of 3e-8); the counter does the rest.
_PREFIX = "req-" + secrets.token_hex(8) + "-"
_COUNTER = itertools.count(1)
LENGTH_MAX = 128
"""Longest caller's id that is echoed, characters. Source: our own bound; OpenAI's own ids have 36."""


def request_ids_in(before: bytes, behind: bytes) -> Callable[[], bytes]:
    """Return what makes an id that no other request has, such as `req-1f00b2c3d4e5f607-1a`, at each call.

    It is made as bytes between these two, which have no `%`: that is cheaper than to put it there.
    """
    form = b"%b%b%%x%b" % (before, _PREFIX.encode(), behind)
    return lambda: form % next(_COUNTER)


def is_request_id(text: str) -> bool:
    """Return whether a caller's id can be echoed: 1 to LENGTH_MAX visible ASCII characters."""
    return 0 < len(text) <= LENGTH_MAX and text.isascii() and text.isprintable() and " " not in text
