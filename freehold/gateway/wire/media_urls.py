"""Addresses in a request that an engine would fetch by itself: found, so that they can be rejected. Pure.

An engine that takes pictures fetches what a caller names, from where it runs: its own loopback, a cloud's metadata service, the
inside of the network. What comes in the request itself (`data:`) is harmless. Texts are never searched: an address in a question
stays one.
"""

import json
import re
from typing import Any

import msgspec

from freehold.gateway.wire.body import too_deep
from freehold.gateway.wire.bounds import has_more
from freehold.gateway.wire.errors import Rejection, invalid

_PLACES = ("messages", "input", "system", "prompt", "documents", "query")
"""Where content may be. Source: OpenAI's chat completions and responses, Anthropic's messages, vLLM's rerank."""
_NO_CONTENT = frozenset({"annotations"})
"""Keys under which addresses are shown and not fetched: citations of an earlier answer. Source: OpenAI's responses."""
_ARGUMENTS = {"tool_use": "input"}
"""Kinds of parts, and under which of their keys are the arguments that a tool was given, which are text to an engine. Source:
Anthropic's messages."""
_BARE = frozenset({"image", "video", "audio"})
"""Keys that hold an address although their name does not show it. Source: SGLang's embeddings (`MultimodalEmbeddingInput`), Qwen's chat format."""
# Each begins with one character, so that what lies between two of them is passed over at the speed of memory.
_SIGN = re.compile(
    rb'"(?:(?<=[uU][rR][lL]")|(?<="image")|(?<="video")|(?<="audio"))\s*:\s*"(?![dD][aA][tT][aA]:|")'
)
# The last letters of such a key as escapes: five of six characters each at most.
_ESCAPED = re.compile(rb'\\u00[0-9A-Fa-f]{2}[^"]{0,30}"\s*:\s*"')
_ASCII = bytes(range(128)) + b"?" * 128
_LOOKED_AT = 65_536  # Signs that are looked at one by one: 5 ms. With more of them, to decode the body is faster; measured.
_SHOWN = 80  # characters of an address in an error


def refuse_addresses(body: bytes) -> Rejection | None:
    """Return the 400 for a body (as `read_body` accepted it) with an address to fetch, or None."""
    if not _may_hold(body):
        return None
    body = _narrowed(body)
    try:
        decoded = msgspec.json.decode(body)
    except RecursionError:
        return too_deep()
    except msgspec.DecodeError:
        # A number that a decoder has no room for, such as 1e999: engines in Python read it all the same.
        try:
            decoded = json.loads(body)
        except (ValueError, RecursionError) as exc:
            return invalid(f"The body is not valid JSON: {exc}.", code="invalid_json")
    found = _first([decoded.get(place) for place in _PLACES])
    if found is None:
        return None
    return invalid(
        f"This model is not sent to fetch {found[:_SHOWN]!r}: put pictures into the request as data: URIs. The "
        "operator can allow addresses: `media_urls: allow` in the model of freehold.yaml.",
        param="messages",
        code="media_url_refused",
    )


def _narrowed(body: bytes) -> bytes:
    """Return a body with all characters that make Python keep a text in four bytes each replaced: no key to find has one."""
    body = body if body.isascii() else body.translate(_ASCII)
    if b"\\ud" in body or b"\\uD" in body:
        # Two backslashes are one in a text; what follows them is no escape.
        body = body.replace(b"\\\\", b"??").replace(b"\\ud", b"?ud").replace(b"\\uD", b"?uD")
    return body


def _may_hold(body: bytes) -> bool:
    """Return whether a body may hold an address, by its bytes: most bodies are not decoded, nor are pictures in the request.

    Written out, since every request of a model that may fetch is searched; by `find`, which takes half as long as `in`.
    """
    find = body.find
    kinds = find(b'"image"') >= 0 or find(b'"video"') >= 0 or find(b'"audio"') >= 0
    plain = kinds or find(b'rl"') >= 0 or find(b'RL"') >= 0
    if plain and (has_more(body, b'\\"', _LOOKED_AT) or _SIGN.search(body) is not None):
        return True
    escapes = find(b"u00") >= 0 and b"\\u00" in body
    return escapes and (has_more(body, b"\\u00", _LOOKED_AT) or _ESCAPED.search(body) is not None)


def _first(waiting: list[Any]) -> str | None:
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            for key, inner in value.items():
                if key in _NO_CONTENT or key == _arguments_of(value):
                    continue
                if not isinstance(inner, str):
                    waiting.append(inner)
                elif _is_address(key, inner):
                    return inner
    return None


def _arguments_of(part: dict[str, Any]) -> str | None:
    kind = part.get("type")
    return _ARGUMENTS.get(kind) if isinstance(kind, str) else None


def _is_address(key: str, text: str) -> bool:
    named = key in _BARE or key.lower().endswith("url")
    return named and bool(text) and text[:5].lower() != "data:"
