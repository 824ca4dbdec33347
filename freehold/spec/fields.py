"""The kinds of value that freehold.yaml knows: durations, sizes, one-of-these, and text with a shape.

Each kind is an annotation that reads what the user wrote, says in our own words what is wrong with it, writes it
back, and describes itself to the JSON schema. It looks at one value only: what ties values together is in `rules`.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from math import isfinite
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from freehold.core import units
from freehold.spec import shapes

MISTAKE = "freehold"
"""The pydantic error type of every refusal made here; its context holds `message` and `hint`."""

LATER = "is not in this release"
"""How every key and value that only a later release knows is refused."""

Scalar = bool | int | float | str


def refuse(message: str, hint: str = "") -> PydanticCustomError:
    """Return the error to raise: `message` continues "<key> ..." (a leading colon: "<key>: ..."), `hint` says the fix."""
    return PydanticCustomError(MISTAKE, "{message}", {"message": message, "hint": hint})


class _OneValue:
    """A kind of single value: `read` returns it or raises in our words, `_schema` describes it to the JSON schema."""

    read: Callable[[object], object]
    _schema: Callable[[], dict[str, object]]

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(
        self, _core: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        return self._schema()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantityText(_OneValue):
    """A number with a unit, written as text and kept as a plain number in the base unit."""

    least: str
    most: str
    parse: Callable[[str], float | units.Unreadable]
    format: Callable[[Any], str]
    pattern: str

    def read(self, value: object) -> float:
        """Return the number, or raise pydantic's custom error in our words."""
        number = self.parse(value if isinstance(value, str) else "")
        if isinstance(number, units.Unreadable):
            bare = isinstance(value, int | float) and not isinstance(value, bool)
            raise refuse(number.message, f"{value} needs its unit" if bare else "")
        if not self._number(self.least) <= number <= self._number(self.most):
            raise refuse(f"must be between {self.least} and {self.most}")
        return number

    def _number(self, text: str) -> float:
        number = self.parse(text)
        assert not isinstance(number, units.Unreadable), text
        return number

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                self.format, when_used="unless-none"
            ),
        )

    def _schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": self.pattern}


Duration = partial(
    QuantityText, parse=units.parse_duration_s, format=units.format_duration, pattern=units.DURATION_PATTERN
)
"""A time between `least` and `most`, kept in seconds."""
Size = partial(QuantityText, parse=units.parse_bytes, format=units.format_bytes, pattern=units.BYTES_PATTERN)
"""A size between `least` and `most`, kept in bytes."""


def duration(default: str) -> Any:
    """Return a field for a `Duration` whose default is written as a user would write it."""
    return Field(default=units.parse_duration_s(default), json_schema_extra={"default": default})


def size(default: str) -> Any:
    """Return a field for a `Size` whose default is written as a user would write it."""
    return Field(default=units.parse_bytes(default), json_schema_extra={"default": default})


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf(_OneValue):
    """One of a few values of one type."""

    values: tuple[str | int, ...]
    later: tuple[str, ...] = ()
    """Values that a coming release will know; this one refuses them by name."""
    later_numbers: bool = False
    """True: every other whole number is such a value."""

    def read(self, value: object) -> str | int:
        """Return the value, or raise pydantic's custom error in our words."""
        for known in self.values:
            if type(known) is type(value) and known == value:
                return known
        only = " or ".join(map(str, self.values))
        if value in self.later if isinstance(value, str) else self.later_numbers and type(value) is int:
            raise refuse(f": {value} {LATER}", f"write {only} or remove the line")
        raise refuse(f"must be {only}")

    def _schema(self) -> dict[str, object]:
        # A bare `enum` would let a validator take `true` or `1.0` for 1; the type keeps the former out.
        kind = "string" if isinstance(self.values[0], str) else "integer"
        return {"type": kind, "enum": list(self.values)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped(_OneValue):
    """Text that `mistake` finds nothing wrong with; `lower` keeps it in lower case."""

    mistake: Callable[[str], str]
    """Returns what is wrong, continuing "<key> ...", or an empty text."""
    pattern: str
    """What the JSON schema says of it: never stricter than `mistake`."""
    hint: str = ""
    lower: bool = False

    def read(self, value: object) -> str:
        """Return the text, or raise pydantic's custom error in our words."""
        if not isinstance(value, str):
            if value is None or isinstance(value, dict | list):
                raise refuse("must be text", self.hint)
            found = self.mistake(str(value))
            raise refuse(found or "must be text", self.hint if found else "put it in quotes")
        if found := self.mistake(value):
            raise refuse(found, self.hint)
        return value.lower() if self.lower else value

    def _schema(self) -> dict[str, object]:
        return {"type": "string", "pattern": self.pattern}


Name = partial(Shaped, mistake=shapes.name_mistake, pattern=shapes.NAME_PATTERN)
"""What a model, an adapter, a fallback or a node is called."""
Url = partial(Shaped, mistake=shapes.endpoint_mistake, pattern=shapes.ENDPOINT_PATTERN)
"""The base URL of a server that runs elsewhere."""
Address = partial(Shaped, mistake=shapes.listen_mistake, pattern=shapes.LISTEN_PATTERN)
"""An address and a port to listen on."""
PlainText = Annotated[str, Shaped(mistake=shapes.plain_text_mistake, pattern=r"\S")]
"""A free text of one line."""
Variable = Annotated[str, Shaped(mistake=shapes.variable_mistake, pattern=shapes.VARIABLE_PATTERN)]
"""The name of an environment variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A list of `least` to `most` entries, counted before the entries are looked at; kept as a tuple."""

    least: int = 0
    most: int

    def read(self, value: object) -> tuple[object, ...]:
        """Return the entries, unread, or raise pydantic's custom error in our words."""
        if not isinstance(value, list | tuple):
            raise refuse("must be a list")
        if len(value) < self.least:
            raise refuse(f"must have at least {self.least} " + ("entry" if self.least == 1 else "entries"))
        if len(value) > self.most:
            raise refuse(f"must have at most {self.most} entries")
        return tuple(value)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        least = {"minItems": self.least} if self.least else {}
        return {**handler(core), **least, "maxItems": self.most}


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(_OneValue):
    """A number from 0 to `most` with at most `places` decimal places, kept as it was written."""

    most: float
    places: int = 6

    def read(self, value: object) -> float:
        """Return the number, or raise pydantic's custom error in our words."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
            raise refuse("must be a number")
        if not 0 <= value <= self.most:
            raise refuse(f"must be between 0 and {self.most:g}")
        # The shortest text of a float is what the user wrote; binary fractions have no places to count.
        exponent = Decimal(str(value)).normalize().as_tuple().exponent
        if isinstance(exponent, int) and -exponent > self.places:
            raise refuse(f"must have at most {self.places} decimal places")
        return float(value)

    def _schema(self) -> dict[str, object]:
        return {"type": "number", "minimum": 0, "maximum": self.most}


Usd = Number
"""US dollars from 0 to `most`, to a millionth."""
Part = partial(Number, most=1)
"""A part of a whole, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole(_OneValue):
    """A whole number between `least` and `most`, for a key that has no default: nothing written is no value."""

    least: int
    most: int

    def read(self, value: object) -> int:
        """Return the number, or raise pydantic's custom error in our words."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise refuse("must be a whole number")
        if not self.least <= value <= self.most:
            raise refuse(f"must be between {self.least} and {self.most}")
        return value

    def _schema(self) -> dict[str, object]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuWish(_OneValue):
    """`auto`, a number of GPUs for each replica, or a list of GPUs: numbers and UUIDs, kept as a tuple."""

    most: int = 64
    """GPUs of one node. Source: our own bound; the largest nodes have 16, and of divided GPUs (MIG) 56 instances."""

    def read(self, value: object) -> int | str | tuple[int | str, ...]:
        """Return what is wished, or raise pydantic's custom error in our words."""
        if value == "auto":
            return "auto"
        if isinstance(value, list | tuple):
            return self._list(value)
        if type(value) is int and 0 <= value <= self.most:
            return value
        raise refuse(
            f"must be auto, a number from 0 to {self.most}, or a list", "for example auto, 2, [0, 1]"
        )

    def _list(self, value: list[object] | tuple[object, ...]) -> tuple[int | str, ...]:
        if not 1 <= len(value) <= self.most:
            raise refuse(f"must have 1 to {self.most} entries", "gpus: 0 for none at all")
        found: list[int | str] = []
        for entry in value:
            if (
                not isinstance(entry, int | str)
                or isinstance(entry, bool)
                or not re.fullmatch(_GPU, str(entry))
            ):
                raise refuse(
                    f": {entry!r} is not a GPU", "a number as nvidia-smi shows it, or a UUID (GPU-…, MIG-…)"
                )
            if entry in found:
                raise refuse(f": {entry} stands there twice", "remove one")
            found.append(entry)
        return tuple(found)

    def _schema(self) -> dict[str, object]:
        entry = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": _GPU_UUID}]}
        return {
            "anyOf": [
                {"type": "string", "enum": ["auto"]},
                {"type": "integer", "minimum": 0, "maximum": self.most},
                {"type": "array", "items": entry, "minItems": 1, "maxItems": self.most, "uniqueItems": True},
            ]
        }


_GPU_UUID = r"^(GPU|MIG)-[0-9A-Za-z/-]{1,80}$"
_GPU = rf"\d{{1,4}}|{_GPU_UUID}"


def option_value(value: object) -> Scalar:
    """Return an engine option's value: a finite number, truth value or text as written, a list or mapping as its JSON.

    Raises pydantic's custom error in our words for anything else.
    """
    if isinstance(value, list | dict):
        try:
            return json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise refuse(
                "must hold nothing but numbers, true, false, null, texts, lists and mappings"
            ) from None
    if not isinstance(value, Scalar):
        raise refuse("must be a number, true, false, text, a list or a mapping")
    if isinstance(value, float) and not isfinite(value):
        raise refuse("must be a finite number")
    return value


AnyOption = Annotated[
    Scalar,
    BeforeValidator(option_value),
    WithJsonSchema(
        {"anyOf": [{"type": kind} for kind in ("boolean", "integer", "number", "string", "array", "object")]}
    ),
]
"""A raw value of an engine option."""
