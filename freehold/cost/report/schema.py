"""Plans and reviews as JSON and the schemas of that JSON (2020-12), made from the types in cost: docs/*.schema.json.

Numbers are rounded to six digits: more is noise. What has no finite value is null, and only where the schema says so:
in ranges and curves (a break-even that some draws never reach). A number that is not finite elsewhere is our mistake.
It does not validate: the types do.
"""

import ast
import inspect
import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from numbers import Integral
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from freehold.cost.model import result as plan_shapes
from freehold.cost.model.result import Curve, Percentiles, PlanResult
from freehold.cost.model.rounding import significant
from freehold.cost.review import review as review_shapes
from freehold.cost.review import trend as trend_shapes
from freehold.cost.review.review import ReviewResult

SCHEMAS: Mapping[str, type[PlanResult] | type[ReviewResult]] = {
    "plan.schema.json": PlanResult,
    "review.schema.json": ReviewResult,
}
"""The published files in docs/, and what they describe."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""The dialect that pydantic writes (its documentation, "JSON Schema")."""
_DIGITS = 6
"""Significant digits of a number in JSON: a tenth of a cent in a thousand dollars; our own choice."""
_HOLED = (Percentiles, Curve)
"""Where a number may be null."""
_PUBLISHED = {
    "Percentiles": "Range",
    "PlanOption": "Option",
    "PlanVerdict": "Verdict",
    "TurningPoint": "Change",
}
"""What the schemas call a class: their names stay, since programs are generated from them."""
_NONE = re.compile(r"\bNone\b")
"""Python's word for JSON's null."""
_CLASS = re.compile(rf"\b({'|'.join(_PUBLISHED)})\b(?=\")")
_HOLE = "null: not finite, such as a break-even that the draws of this percentile never reach."


def to_jsonable(result: PlanResult | ReviewResult) -> dict[str, Any]:
    """Return a plan or a review as dicts, lists, texts, numbers, booleans and None, ready for any JSON writer."""
    return {field.name: _plain(getattr(result, field.name)) for field in fields(result)}


def _plain(value: Any, *, holed: bool = False) -> Any:
    if is_dataclass(value):
        inner = isinstance(value, _HOLED)
        return {field.name: _plain(getattr(value, field.name), holed=inner) for field in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(each, holed=holed) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each, holed=holed) for each in value]
    if value is None or isinstance(value, str | bool):
        return value
    return int(value) if isinstance(value, Integral) else _number(float(value), holed=holed)


def _number(value: float, *, holed: bool) -> float | None:
    if math.isfinite(value):
        return significant(
            float(value), _DIGITS
        )  # float(): numpy's are floats too, but not to every JSON writer
    assert holed, f"{value} where a number must be"
    return None


class _BareTitles(GenerateJsonSchema):
    """Leaves out the titles that only repeat a key."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False: a key is its own title."""
        _ = schema
        return False


def schema(file: str) -> dict[str, Any]:
    """Return the schema of that file: every key is there always; keys that it does not know may come in later releases."""
    kind = SCHEMAS[file]
    found: dict[str, Any] = TypeAdapter(kind).json_schema(schema_generator=_BareTitles, mode="serialization")
    described = _described()
    for name, section in ((kind.__name__, found), *found["$defs"].items()):
        section["required"] = list(section["properties"])
        for key, value in section["properties"].items():
            value.pop("default", None)
            if (name, key) in described:
                value["description"] = described[name, key]
    for holed in _HOLED:
        _allow_holes(found["$defs"].get(holed.__name__, {"properties": {}}))
    found = json.loads(_CLASS.sub(lambda name: _PUBLISHED[name[0]], json.dumps(found)))
    found["$defs"] = dict(sorted(found["$defs"].items()))
    return {"$schema": DIALECT, **found, "title": f"freehold {file.partition('.')[0]} --json"}


def _allow_holes(section: dict[str, Any]) -> None:
    for value in section["properties"].values():
        number = value.get("items", value)
        if number.get("type") == "number":
            number["type"] = ["number", "null"]
            value["description"] = f"{value['description']} {_HOLE}" if "description" in value else _HOLE


def _described() -> dict[tuple[str, str], str]:
    """Return the text under each field of the shapes, by class and field."""
    shapes = (plan_shapes, review_shapes, trend_shapes)
    found = {}
    for node in (node for module in shapes for node in ast.parse(inspect.getsource(module)).body):
        if isinstance(node, ast.ClassDef):
            for field, below in zip(node.body, node.body[1:], strict=False):
                text = _string(below)
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and text:
                    found[node.name, field.target.id] = _NONE.sub("null", " ".join(text.split()))
    return found


def _string(node: ast.stmt) -> str:
    is_text = (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
    return str(node.value.value) if is_text else ""  # type: ignore[attr-defined]


def schema_text(file: str) -> str:
    """Return the schema as the text of that published file."""
    return json.dumps(schema(file), indent=2, ensure_ascii=False) + "\n"
