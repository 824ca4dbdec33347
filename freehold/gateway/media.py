"""Addresses in a request that an engine would fetch by itself: found, so that they can be refused. Pure.

An engine that takes pictures fetches what a caller names, from where it runs: its own loopback, a cloud's metadata service, the
inside of the network. What comes in the request itself (`data:`) is harmless. Texts are never searched: an address in a question
stays one.
"""

from typing import Any

import msgspec

from freehold.gateway.body import too_deep
from freehold.gateway.refuse import Refusal, invalid

_PLACES = ("messages", "input", "system", "prompt", "documents", "query")
"""Where content may be. Source: OpenAI's chat completions and responses, Anthropic's messages, vLLM's rerank."""
_NO_CONTENT = frozenset({"annotations"})
"""Keys under which addresses are told and not fetched: citations of an earlier answer. Source: OpenAI's responses."""
_SHOWN = 80  # characters of an address in an error


def refuse_addresses(body: bytes) -> Refusal | None:
    """Return the 400 for a body (as `read_body` accepted it) with an address to fetch, or None."""
    if b"url" not in body and b"\\u" not in body:  # letters can be written as \\u0075 and so on
        return None
    try:
        decoded = msgspec.json.decode(body)
    except RecursionError:
        return too_deep()
    except msgspec.DecodeError:
        return None  # a number that Python has no room for, such as 1e999: no engine reads it either
    found = _first([decoded.get(place) for place in _PLACES])
    if found is None:
        return None
    return invalid(
        f"This model is not sent to fetch {found[:_SHOWN]!r}: put pictures into the request as data: URIs. Who runs this "
        "server can allow addresses with `media_urls: allow`.",
        param="messages",
        code="media_url_refused",
    )


def _first(waiting: list[Any]) -> str | None:
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            for key, inner in value.items():
                if key in _NO_CONTENT:
                    continue
                if not isinstance(inner, str):
                    waiting.append(inner)
                elif key.lower().endswith("url") and inner and inner[:5].lower() != "data:":
                    return inner
    return None
