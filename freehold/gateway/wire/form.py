"""The form (multipart/form-data) that a file comes in: which model it is for, and the same form with another name. Pure.

Read as strictly as a form can be meant: what two parsers could read differently is rejected, since the engine reads it again.
Files are never looked into. Source of the format: RFC 7578, RFC 2046 5.1.
"""

import re
from dataclasses import dataclass

import msgspec

from freehold.core.events import PRIVATE_KEYS
from freehold.gateway.wire.body import BodyFields
from freehold.gateway.wire.errors import Rejection, invalid

_BOUNDARY = re.compile(
    rb'multipart/form-data; *boundary=(?:"([^"\\]{1,70})"|([!#-\'*+.0-9A-Z^-z|~-]{1,70}))', re.IGNORECASE
)
_NAME = re.compile(
    rb'content-disposition: *form-data; *name="([^"\\\r\n]{1,100})"(; *filename="[^"\r\n]*")?(; *filename\*=[^;"\r\n]*)?',
    re.IGNORECASE,
)
_PARTS_MAX = 64
"""Parts of one form. Source: our own bound; OpenAI's transcriptions know ten fields."""
_PART_HEAD_BYTES_MAX = 1024
"""Header lines of one part. Source: our own bound."""
_VALUE_BYTES_MAX = 256
"""Longest value that is read here: a model's name. Source: our own bound."""


@dataclass(frozen=True, slots=True)
class Form:
    """What the gateway reads of a form."""

    model: str
    names: frozenset[str]
    """The names of all parts."""
    stream: bool
    start: int
    """Where in the body the model's name begins, and ends."""
    end: int


def read_form(data: bytes, content_type: bytes) -> Form | Rejection:
    """Return what a form says, or the 400 for one that cannot be read in one way only."""
    found = _BOUNDARY.fullmatch(content_type)
    if found is None:
        return _malformed("the Content-Type is not multipart/form-data with a boundary")
    parts = _parts(data, b"\r\n--" + (found[1] or found[2]))
    if isinstance(parts, Rejection):
        return parts
    single = [name for name, _, _ in parts if not name.endswith("[]")]
    if len(single) != len(set(single)):
        return _malformed("a field stands twice")
    spans = {name: (start, end) for name, start, end in parts}
    start, end = spans.get("model", (0, 0))
    model = data[start:end]
    if not 0 < len(model) <= _VALUE_BYTES_MAX:
        return invalid(
            "You must provide a model parameter.", param="model", code="missing_required_parameter"
        )
    flag = slice(*spans.get("stream", (0, 0)))
    return Form(
        model.decode("utf-8", "replace"), frozenset(spans), data[flag].lower() in {b"true", b"1"}, start, end
    )


def _parts(data: bytes, delimiter: bytes) -> list[tuple[str, int, int]] | Rejection:
    """Return each part's name and where its value begins and ends."""
    if not data.startswith(delimiter[2:] + b"\r\n"):
        return _malformed("it does not begin with its boundary")
    parts: list[tuple[str, int, int]] = []
    at = len(delimiter)
    while len(parts) < _PARTS_MAX:
        start = data.find(b"\r\n\r\n", at, at + _PART_HEAD_BYTES_MAX)
        end = data.find(delimiter, start + 4)
        named = [found for line in data[at:start].split(b"\r\n") if (found := _NAME.fullmatch(line))]
        if start < 0 or end < 0 or len(named) != 1:
            return _malformed("a part has no name, or no end")
        parts.append((named[0][1].decode("utf-8", "replace"), start + 4, end))
        at = end + len(delimiter)
        if data[at : at + 2] != b"\r\n":
            ended = data[at:] in {b"--", b"--\r\n"}
            return parts if ended else _malformed("bytes follow its end")
        at += 2
    return _malformed(f"it has more than {_PARTS_MAX} parts")


def fields_of(form: Form) -> BodyFields:
    """Return what routing reads of a body: the model, and which of the engine's own keys are there."""
    fields = BodyFields(model=form.model, stream=form.stream)
    for name in form.names & set(PRIVATE_KEYS):
        setattr(fields, name, msgspec.Raw(b"true"))
    return fields


def _malformed(why: str) -> Rejection:
    return invalid(f"The form cannot be read: {why}.", code="invalid_form")


def with_model(data: bytes, content_type: bytes, model: str) -> bytes:
    """Return a form (as `read_form` accepted it) that names the model as the engine knows it."""
    form = read_form(data, content_type)
    assert isinstance(form, Form), "it was read before, when the request came"
    return data[: form.start] + model.encode() + data[form.end :]
