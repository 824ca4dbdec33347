"""The published schema of `freehold plan --json`: what it is, and that plans of every kind follow it."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from freehold.cost.report.schema import SCHEMA_NAME, schema, schema_text, to_jsonable
from plan_samples import EVERY, plan


def sections() -> Iterator[tuple[str, dict[str, Any]]]:
    found = schema()
    yield "PlanResult", found
    yield from found["$defs"].items()


def test_the_published_schema_is_the_schema_of_this_release(golden: Callable[[str, str], None]):
    golden(f"../../docs/{SCHEMA_NAME}", schema_text())


def test_the_schema_is_a_schema():
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("name", EVERY)
def test_a_plan_follows_it(name: str):
    text = json.dumps(to_jsonable(EVERY[name]()), allow_nan=False)
    assert list(Draft202012Validator(schema()).iter_errors(json.loads(text))) == []


def test_every_key_of_every_record_must_be_there():
    for name, section in sections():
        assert set(section["required"]) == set(section["properties"]), name


def test_what_scripts_rely_on_is_there():
    found = dict(sections())
    assert {"options", "break_even", "rules", "verdict"} <= set(found["PlanResult"]["required"])
    option = {
        "kind",
        "provider",
        "gpu",
        "count",
        "usd_per_month",
        "usd_per_million_tokens",
        "lines",
        "incomplete",
    }
    assert option <= set(found["Option"]["required"])
    assert set(found["Range"]["required"]) == {"p10", "p50", "p90"}
    assert {"claim", "verdict", "computed"} <= set(found["Rule"]["required"])


@pytest.mark.parametrize(
    "path",
    [
        ("verdict", "confidence"),
        ("options", 0, "usd_per_month"),
        ("options", 0, "kind"),
        ("rules",),
        ("version",),
    ],
    ids=str,
)
def test_a_plan_that_lacks_something_does_not_follow_it(path: tuple[str | int, ...]):
    document = to_jsonable(plan())
    holder: Any = document
    for step in path[:-1]:
        holder = holder[step]
    del holder[path[-1]]
    assert not Draft202012Validator(schema()).is_valid(document)


def test_python_is_not_spoken_in_it():
    assert "None" not in schema_text()
