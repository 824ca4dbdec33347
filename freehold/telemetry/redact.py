"""Remove from logs: secrets by key and by shape, and the texts of prompts and answers.

The idea: one total function, `clean`, turns any value into plain JSON data and takes secrets and prompts out on the
way, so that a record cannot be written without it. It does not detect secrets that neither a key nor a known shape
(`Bearer …`, `user:password@host`, `api_key=…`) gives away.
"""

import dataclasses
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from functools import lru_cache
from typing import Literal

import msgspec

from freehold.core.plain_text import plain

REDACTED = "[redacted]"
TEXT_CHARS_MAX = 8192
"""Longest text of one value, characters: a traceback fits, an answer of an engine does not fill the queue."""
DEPTH_MAX = 6
"""Deepest nesting that is followed; deeper values are named by their type. Also ends cycles."""
ITEMS_MAX = 100
"""Most members of one list or mapping; the rest is counted."""

SECRET_KEY = re.compile(
    r"(?:^|_)(?:authorization|(?:api|private|access|secret|signing|master|encryption)_?key|token|secret"
    r"|password|passwd|passphrase|cookie|credentials?)$"
)
"""Matches a key in lower case with `-` as `_`: `Authorization`, `x-api-key`, `hf_token`; not `max_tokens`."""
PROMPT_KEYS = frozenset(
    {
        *(
            "prompt",
            "messages",
            "input",
            "inputs",
            "instructions",
            "documents",
            "tools",
            "suffix",
            "query",
            "body",
        ),
        *(
            "content",
            "text",
            "delta",
            "choices",
            "completion",
            "output",
            "outputs",
            "request_body",
            "response_body",
        ),
    }
)
"""Fields in which the APIs carry prompts and answers (OpenAI and Anthropic requests and responses)."""
SECRET_SHAPES = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=:-]+"), rf"\1 {REDACTED}"),
    (re.compile(r"(?<=://)[^/\s@'\"]+@"), f"{REDACTED}@"),
    (
        re.compile(
            r"(?i)((?:authorization|(?:api|private|access|secret)[_-]?key|token|secret|password)['\"]?\s*[=:]\s*)"
            r"(?!['\"]?(?:bearer|basic)\b)(['\"]?)[^\s'\",;&)}]+"
        ),
        rf"\1\2{REDACTED}",
    ),
    (re.compile(r"\b(?:sk|hf|fh|ghp|xox[abp])[-_][\w-]{16,}"), REDACTED),
)
"""Shapes of secrets inside a text, and their replacement; the last row is the key formats of common services."""
PLAIN_TYPES = frozenset({str, int, float, bool, type(None)})
"""Exactly these types are JSON as they are; a subclass may bring its own `repr` or value."""
SHAPE_HINTS = (
    *("bearer", "basic", "@", "authorization", "key", "token", "secret", "password"),
    *("sk-", "sk_", "hf-", "hf_", "fh-", "fh_", "ghp", "xox"),
)
"""A text (in lower case) without any of these matches no shape: ten substring tests cost a tenth of the patterns."""


def clean(value: object, *, depth: int = 0) -> object:
    """Return `value` as JSON data without secrets and prompts; total for every value with a working `repr`."""
    if isinstance(value, Enum):
        return clean(value.value, depth=depth)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | bytes | bytearray):
        return clean_text(value)
    if depth >= DEPTH_MAX:
        return f"<{type(value).__name__}>"
    fields = _fields(value)
    if fields is not None:
        return _clean_fields(fields, depth + 1)
    if isinstance(value, list | tuple | AbstractSet):
        return _clean_items(list(value), depth + 1)
    return clean_text(repr(value))


def clean_text(text: str | bytes | bytearray) -> str:
    """Return `text` without secrets of a known shape, cut to `TEXT_CHARS_MAX`, and without control characters but tab and line feed."""
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes | bytearray) else text
    if len(shown) > TEXT_CHARS_MAX:
        shown = f"{shown[:TEXT_CHARS_MAX]}… [{len(shown) - TEXT_CHARS_MAX} more characters]"
    if may_hold_secret(shown.lower()):
        for shape, instead in SECRET_SHAPES:
            shown = shape.sub(instead, shown)
    return shown if shown.isascii() and shown.isprintable() else plain(shown)


def may_hold_secret(lower: str) -> bool:
    """Return False when a text in lower case certainly holds no secret of a known shape."""
    for hint in SHAPE_HINTS:  # noqa: SIM110 - a generator costs twice as much, on every record
        if hint in lower:
            return True
    return False


def is_plain(name: str, value: object) -> bool:
    """Return whether a field needs no cleaning, apart from secrets inside its text and its length."""
    return type(value) in PLAIN_TYPES and _sort(name) == "plain"


def clean_field(name: str, value: object, *, depth: int = 0) -> object:
    """Return the value that may be logged under the key `name`: a placeholder for a secret or a prompt, else the cleaned value."""
    sort = _sort(name)
    if sort == "secret":
        return REDACTED if value else value
    if sort == "prompt" and value is not None:
        size = len(value) if isinstance(value, str | bytes | list | tuple | dict) else 1
        return f"[withheld: {type(value).__name__} of {size}]"
    return clean(value, depth=depth)


@lru_cache(maxsize=1024)  # field names are few and come again with every record
def _sort(name: str) -> Literal["secret", "prompt", "plain"]:
    plain = name.lower().replace("-", "_")
    if SECRET_KEY.search(plain):
        return "secret"
    return "prompt" if plain in PROMPT_KEYS else "plain"


def _fields(value: object) -> Mapping[object, object] | None:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def _clean_fields(fields: Mapping[object, object], depth: int) -> dict[str, object]:
    kept = list(fields.items())[:ITEMS_MAX]
    cleaned = {_key(name): clean_field(_key(name), value, depth=depth) for name, value in kept}
    if len(fields) > ITEMS_MAX:
        cleaned["more"] = len(fields) - ITEMS_MAX
    return cleaned


def _key(name: object) -> str:
    return clean_text(name.decode("latin-1") if isinstance(name, bytes) else str(name))


def _clean_items(items: list[object], depth: int) -> list[object]:
    """Clean a list; a pair whose first half is a key, as in a list of headers, is cleaned as a field."""
    if len(items) == 2 and isinstance(items[0], str | bytes):
        name = _key(items[0])
        return [name, clean_field(name, items[1], depth=depth)]
    cleaned = [clean(item, depth=depth) for item in items[:ITEMS_MAX]]
    return [*cleaned, f"{len(items) - ITEMS_MAX} more"] if len(items) > ITEMS_MAX else cleaned
