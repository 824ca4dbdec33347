"""The JSON schema (2020-12) of freehold.yaml, for editors and other programs; published as `docs/freehold.schema.json`.

It says less than the loader: it does not know the bounds of durations and sizes, unique names, the loopback rule or
what an engine makes of its options. What it refuses, the loader refuses too.
"""

import json
from collections.abc import Iterable
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from freehold.spec.model import Spec
from freehold.spec.shapes import EXTERNAL

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""The dialect that pydantic writes (its documentation, "JSON Schema")."""


class _Plain(GenerateJsonSchema):
    """Leaves out the titles that only repeat a key."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False: a key is its own title."""
        _ = schema
        return False


def schema(engines: Iterable[str]) -> dict[str, Any]:
    """Return the schema with `engines` as the names that `engine` may have."""
    found: dict[str, Any] = Spec.model_json_schema(schema_generator=_Plain)
    model = found["$defs"]["ModelSpec"]
    model["properties"]["engine"]["enum"] = sorted(engines)
    model.update(_by_engine())
    return {"$schema": DIALECT, **_tidy(found), "title": "freehold.yaml"}


def schema_text(engines: Iterable[str]) -> str:
    """Return the schema as the text of its published file."""
    return json.dumps(schema(engines), indent=2, ensure_ascii=False) + "\n"


def _by_engine() -> dict[str, Any]:
    """Return which keys go with which kind of engine."""
    external = {"required": ["endpoints"], **_without("source", "sha256", "replicas")}
    external["properties"]["endpoints"] = {"minItems": 1}
    managed = {
        "required": ["source", "sha256"],
        **_without("endpoints", "upstream_model", "api_key_env", "api_key_file"),
    }
    return {
        "if": {"properties": {"engine": {"const": EXTERNAL}}, "required": ["engine"]},
        "then": {**external, "not": {"required": ["api_key_env", "api_key_file"]}},
        "else": managed,
    }


def _without(*keys: str) -> dict[str, Any]:
    return {"properties": dict.fromkeys(keys, False)}


def _tidy(node: Any) -> Any:
    """Return the schema without line breaks in descriptions and without the empty defaults of absent texts."""
    if isinstance(node, list):
        return [_tidy(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _tidy(value) for key, value in node.items() if not (key == "default" and value == "")}
    if isinstance(kept.get("description"), str):
        kept["description"] = " ".join(kept["description"].split())
    if kept.get("type") == "object":
        kept.pop("title", None)
    return kept
