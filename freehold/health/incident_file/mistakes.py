"""Every mistake in an incident file at once, by the types of `schema`: unknown keys with the nearest known one, values of the wrong type.

msgspec stops at the first mistake, and a file that a person wrote often has several. What a value means is not checked here.
"""

import types
from collections.abc import Iterator
from enum import EnumType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from freehold.core.problems import Problem, nearest_hint

ENTRIES_MOST = 20_000
"""Entries of one list that are read. Source: our own choice, some hundred times a large incident."""


def mistakes(value: object, kind: Any, path: str = "$") -> Iterator[Problem]:
    """Yield every mistake in `value`, which is to be a `kind`; `where` is the path from the top."""
    kind = _kind_for(value, kind)
    if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield from _of_object(value, kind, path)
    elif isinstance(value, list) and get_origin(kind) is list:
        for index, entry in enumerate(value[:ENTRIES_MOST]):
            yield from mistakes(entry, get_args(kind)[0], f"{path}[{index}]")
        if len(value) > ENTRIES_MOST:
            message = f"has {len(value)} entries; {ENTRIES_MOST} are read at most"
            yield Problem(where=path, message=message, hint="cut it to the incident")
    else:
        yield from _of_value(value, kind, path)


def _of_object(value: dict[Any, Any], kind: type[msgspec.Struct], path: str) -> Iterator[Problem]:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for key, entry in value.items():
        if key in fields:
            yield from mistakes(entry, fields[key].type, f"{path}.{key}")
        else:
            hint = nearest_hint(str(key), fields)
            yield Problem(where=f"{path}.{key}", message=f"the key {key!r} is not known", hint=hint)
    for name, field in fields.items():
        if field.required and name not in value:
            yield Problem(where=f"{path}.{name}", message=f"{name!r} is missing")


def _of_value(value: object, kind: Any, path: str) -> Iterator[Problem]:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        inner = exc.args[0].partition(" - at `$")[2].rstrip("`")
        message = str(exc).partition(" - at ")[0]
        words = nearest_hint(str(value), map(str, kind)) if isinstance(kind, EnumType) else ""
        yield Problem(where=f"{path}{inner}", message=f"{message[0].lower()}{message[1:]}", hint=words)


def _kind_for(value: object, kind: Any) -> Any:
    """Return the type that a value is to be of: without its description, and of several the one of the value's own shape."""
    if not isinstance(value, dict | list):
        return kind
    shape = (list,) if isinstance(value, list) else (msgspec.Struct, dict)
    kind = _bare(kind)
    several = get_args(kind) if get_origin(kind) in {Union, types.UnionType} else ()
    return next((one for one in map(_bare, several) if _is_of(one, shape)), kind)


def _bare(kind: Any) -> Any:
    return _bare(get_args(kind)[0]) if get_origin(kind) is Annotated else kind


def _is_of(kind: Any, shape: tuple[type, ...]) -> bool:
    kind = get_origin(kind) or kind
    return isinstance(kind, type) and issubclass(kind, shape)
