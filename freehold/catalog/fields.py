"""Plain values as the typed fields of a fact: the dataclasses of `facts` are the schema, and no second one is kept.

A value that does not fit its field is `Wrong`, in words that continue "FIELD: …". Whether a value is plausible is not
asked here: see `physics`.
"""

import contextlib
import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

from freehold.catalog.facts import Fact
from freehold.core.problems import nearest_hint
from freehold.core.spread import Spread

SMALLEST, LARGEST = 1e-12, 1e15
"""Bounds of any number but 0: our own, far outside of every unit in use, so that products and ratios stay finite."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """Why a value does not fit, and what would."""

    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a kind of fact."""

    name: str
    read: Callable[[object], object]
    """From a plain value to the field's own, or to `Wrong`."""
    required: bool
    unknown_as_none: bool
    """A row that leaves it out does not know it."""


_FIELDS: dict[str, Mapping[str, Field]] = {}


def fields_of(kind: type[Fact]) -> Mapping[str, Field]:
    """Return the fields of a kind of fact by name; one that may be None or has a default is not required."""
    if kind.__name__ not in _FIELDS:
        _FIELDS[kind.__name__] = _fields(kind)
    return _FIELDS[kind.__name__]


def _fields(kind: type[Fact]) -> Mapping[str, Field]:
    hints = get_type_hints(kind)
    return {each.name: _field(each, hints[each.name]) for each in dataclasses.fields(kind)}


def _field(field: "dataclasses.Field[Any]", hint: object) -> Field:
    plain, nullable = _without_none(hint)
    has_default = (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
    return Field(
        field.name,
        _reader(plain, nullable=nullable),
        required=not (nullable or has_default),
        unknown_as_none=nullable and not has_default,
    )


def _without_none(hint: object) -> tuple[object, bool]:
    if get_origin(hint) in {Union, types.UnionType}:
        kept = [each for each in get_args(hint) if each is not type(None)]
        return kept[0], len(kept) < len(get_args(hint))
    return hint, False


def _reader(hint: object, *, nullable: bool) -> Callable[[object], object]:
    read = _READERS.get(get_origin(hint) or hint)
    if read is None and isinstance(hint, type) and issubclass(hint, StrEnum):
        choice = hint
        read = lambda value: _choice(value, choice)  # noqa: E731 -- a def would only repeat the name
    if read is None:  # a fact inside a fact (Gpu.price) is put together by its section, never written
        return _not_written
    plain = read
    return (lambda value: None if value is None else plain(value)) if nullable else plain


def _not_written(_value: object) -> Wrong:
    return Wrong("cannot be written as such")


def _text(value: object) -> object:
    if isinstance(value, str) and value.strip():
        return value
    return Wrong("is empty" if value in ("", None) else f"{value!r} is not text", "put it in quotes")


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Wrong(f"{value!r} is not a number", "write a number without its unit")
    try:
        number = float(value)
    except OverflowError:
        return Wrong("is too large")
    if not math.isfinite(number):
        return Wrong(f"{value!r} is not a finite number")
    if number < 0:
        return Wrong(f"{value!r} is below 0")
    return (
        number if number == 0 or SMALLEST <= number <= LARGEST else Wrong(f"{value!r} is out of all bounds")
    )


def _count(value: object) -> object:
    number = _number(value)
    if isinstance(number, float) and isinstance(value, float) and not value.is_integer():
        return Wrong(f"{value!r} is not a whole number")
    return int(value) if isinstance(number, float) and isinstance(value, int | float) else number


def _flag(value: object) -> object:
    return value if isinstance(value, bool) else Wrong(f"{value!r} is not true or false")


def _date(value: object) -> object:
    with contextlib.suppress(ValueError):
        if isinstance(value, str):
            return date.fromisoformat(value)
    return Wrong(f"{value!r} is not a date", _DATE)


_DATE = "write it as 2026-11-27"


def _choice(value: object, choice: type[StrEnum]) -> object:
    known = [each.value for each in choice]
    if value in known:
        return choice(str(value))
    return Wrong(f"{value!r} is none of {', '.join(known)}", nearest_hint(str(value), known))


def _spread(value: object) -> object:
    parts = [_number(part) for part in (value if isinstance(value, list) else [value])]
    wrong = [part for part in parts if isinstance(part, Wrong)]
    numbers = [part for part in parts if isinstance(part, float)]
    if wrong:
        return wrong[0]
    if not 1 <= len(numbers) <= 3:
        return Wrong(f"has {len(numbers)} numbers", "write one, [low, high] or [low, middle, high]")
    if numbers != sorted(numbers):
        return Wrong("is not in ascending order", "write [low, high] or [low, middle, high]")
    if len(numbers) == 3:
        return Spread(*numbers)
    return Spread.between(*numbers) if len(numbers) == 2 else Spread.exactly(numbers[0])


def _pair(value: object) -> object:
    spread = _spread(value)
    if isinstance(spread, Spread) and not (isinstance(value, list) and len(value) == 2):
        return Wrong("is not two numbers", "write [low, high]")
    return (spread.low, spread.high) if isinstance(spread, Spread) else spread


def _numbers(value: object) -> object:
    if not isinstance(value, dict):
        return Wrong(f"{value!r} is not a map of numbers", "write {name: number}")
    read = {key: _number(each) for key, each in value.items()}
    wrong = [
        Wrong(f"{key}: {each.message}", each.hint) for key, each in read.items() if isinstance(each, Wrong)
    ]
    return wrong[0] if wrong else read


_READERS: Mapping[object, Callable[[object], object]] = {
    str: _text,
    float: _number,
    int: _count,
    bool: _flag,
    date: _date,
    Spread: _spread,
    tuple: _pair,
    Mapping: _numbers,
}
