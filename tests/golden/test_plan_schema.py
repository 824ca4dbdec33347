"""The published schemas of `freehold plan --json` and `freehold review --json`: what they are, and who follows them."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from freehold.cost.report.schema import SCHEMAS, schema, schema_text, to_jsonable
from plan_samples import EVERY, plan
from review_samples import REVIEWS, review

PLAN, REVIEW = "plan.schema.json", "review.schema.json"
every_file = pytest.mark.parametrize("file", SCHEMAS)


def sections(file: str) -> Iterator[tuple[str, dict[str, Any]]]:
    found = schema(file)
    yield SCHEMAS[file].__name__, found
    yield from found["$defs"].items()


@every_file
def test_the_published_schema_is_the_schema_of_this_release(golden: Callable[[str, str], None], file: str):
    golden(f"../../docs/{file}", schema_text(file))


@every_file
def test_the_schema_is_a_schema(file: str):
    Draft202012Validator.check_schema(schema(file))


@pytest.mark.parametrize("name", REVIEWS)
def test_a_review_follows_it(name: str):
    text = json.dumps(to_jsonable(REVIEWS[name]()), allow_nan=False)
    assert list(Draft202012Validator(schema(REVIEW)).iter_errors(json.loads(text))) == []


def test_neither_follows_the_others():
    assert not Draft202012Validator(schema(PLAN)).is_valid(to_jsonable(review()))
    assert not Draft202012Validator(schema(REVIEW)).is_valid(to_jsonable(plan()))


@pytest.mark.parametrize("name", EVERY)
def test_a_plan_follows_it(name: str):
    text = json.dumps(to_jsonable(EVERY[name]()), allow_nan=False)
    assert list(Draft202012Validator(schema(PLAN)).iter_errors(json.loads(text))) == []


@every_file
def test_every_key_of_every_record_must_be_there(file: str):
    for name, section in sections(file):
        assert set(section["required"]) == set(section["properties"]), name


def test_what_scripts_rely_on_is_there():
    found = dict(sections(PLAN))
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
    assert not Draft202012Validator(schema(PLAN)).is_valid(document)


@every_file
def test_python_is_not_spoken_in_it(file: str):
    assert "None" not in schema_text(file)
