"""pydantic's errors in our own words: which key, what is wrong, what to write.

No value is repeated where a secret may have been pasted by mistake, and none is repeated at length.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from freehold.core.places import Mistake, Path, Tree, dotted
from freehold.core.problems import nearest_hint
from freehold.spec.fields import LATER, MISTAKE
from freehold.spec.later import is_later
from freehold.spec.model import ModelSpec, Spec

_MESSAGES = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "dict_type": "must be a map of keys and values",
    "model_type": "must be a map of keys and values",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_long": "must have at most {max_length} entries",
}
"""What pydantic's error types mean here; the names are pydantic's (its documentation, "Validation Errors")."""
_MISSING_HINTS = {"version": "write version: 1", "models": "list at least one model"}
_QUIET = frozenset({"source", "endpoints", "api_key", "api_key_env", "api_key_file", "upstream_model"})
"""Keys whose values are never repeated."""
_SECRETS = frozenset({"api_key", "key", "token", "password", "secret", "bearer"})
_LONGEST_VALUE = 40  # characters; our own bound: with its place and hint a problem still fits two lines of 80


def explain(error: ErrorDetails, tree: Tree) -> Mistake:
    """Return one pydantic error as a mistake at the key or value at fault."""
    path = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        return _unknown_key(path, tree)
    if error["type"] == "missing":
        return tree.at_value(path, " is missing", _MISSING_HINTS.get(dotted(path), ""))
    if error["input"] is None:
        return tree.at_value(path, " is empty", "write a value or remove the line")
    context: Mapping[str, Any] = error.get("ctx") or {}
    if error["type"] == MISTAKE:
        message, hint = str(context["message"]), str(context["hint"])
    else:
        message, hint = _MESSAGES.get(error["type"], error["msg"]).format(**context), _hint(error)
    return tree.at_value(path, _continued(path, message, error["input"]), hint)


def shown(path: Path, value: object) -> str:
    """Return `, not VALUE` for a value that may be repeated, or nothing."""
    if isinstance(value, dict | list | tuple) or _QUIET & set(path):
        return ""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return f", not {text}" if len(text) <= _LONGEST_VALUE else f", not {text[:_LONGEST_VALUE]}…"


def _continued(path: Path, message: str, value: object) -> str:
    if message.startswith(":"):
        return message
    return f" {message}" + (shown(path, value) if message.startswith("must") else "")


def _hint(error: ErrorDetails) -> str:
    scalar = isinstance(error["input"], bool | int | float)
    return "put it in quotes" if error["type"] == "string_type" and scalar else ""


def _unknown_key(path: Path, tree: Tree) -> Mistake:
    key, place = str(path[-1]), tree.key_place(path)
    if is_later(path):
        return tree.at_key(path, f" {LATER}", "remove the line")
    section = dotted(path[:-1]) if len(path) > 1 else "the top level"
    message = f"unknown key {key!r} in {section}"
    if key.lower() in _SECRETS:
        return Mistake(place, message, "a key never stands in this file: name its variable in api_key_env")
    return Mistake(place, message, _elsewhere(key, path) or nearest_hint(key, known_keys(path[:-1])))


def known_keys(path: Path) -> list[str]:
    """Return the keys that the section at `path` may have."""
    section: Any = Spec
    for part in path:
        if isinstance(part, str):
            section = _section(section.model_fields[part].annotation)
    return list(section.model_fields)


def _elsewhere(key: str, path: Path) -> str:
    """Return a hint for a key that is right but stands in the wrong section."""
    homes = _homes().get(key, [])
    if not homes or key in known_keys(path[:-1]):
        return ""
    return f"it belongs under {homes[0]}"


@cache
def _homes() -> dict[str, list[str]]:
    homes: dict[str, list[str]] = {}
    for key, section in [*_walk(Spec, ""), *((key, "models") for key in ModelSpec.model_fields)]:
        homes.setdefault(key, []).append(section or "the top level")
    return homes


def _walk(section: type[BaseModel], name: str) -> Iterator[tuple[str, str]]:
    for key, info in section.model_fields.items():
        yield key, name
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _walk(info.annotation, f"{name}.{key}".removeprefix("."))


def _section(annotation: Any) -> Any:
    """Return the section class inside an annotation such as `tuple[ModelSpec, ...]` or `PriceSpec | None`."""
    while get_origin(annotation) in {tuple, Annotated, UnionType}:
        annotation = get_args(annotation)[0]
    return annotation
