"""A plan as JSON values: rounded, never NaN, nothing left out."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from freehold.cost.model.result import Percentiles, PlanResult
from freehold.cost.report.schema import to_jsonable
from plan_samples import EVERY, plan


def test_every_field_is_there_and_none_stays_null():
    found = to_jsonable(plan())
    assert list(found) == [field.name for field in fields(PlanResult)]
    api = next(option for option in found["options"] if option["kind"] == "api")
    assert api["utilisation"] is None
    assert api["capital_usd"] is None
    assert found["break_even"][2]["tokens_per_month"] is None


def test_numbers_have_six_digits_and_counts_are_whole():
    first = plan().options[0]
    option = replace(
        first, usd_per_month=Percentiles(p10=1964.123456, p50=0.123456789, p90=123456789.0), count=3
    )
    found = to_jsonable(replace(plan(), options=(option,)))["options"][0]
    assert found["usd_per_month"] == {"p10": 1964.12, "p50": 0.123457, "p90": 123457000.0}
    assert found["count"] == 3
    assert isinstance(found["count"], int)


@pytest.mark.parametrize("hole", [float("inf"), float("nan"), np.float64("inf")])
def test_a_range_without_an_end_has_null_there(hole: float):
    each = replace(plan().break_even[0], tokens_per_month=Percentiles(p10=1.0, p50=hole, p90=hole))
    found = to_jsonable(replace(plan(), break_even=(each,)))["break_even"][0]["tokens_per_month"]
    assert found == {"p10": 1.0, "p50": None, "p90": None}


def test_a_number_that_must_be_one_is_refused_if_it_is_none():
    verdict = replace(plan().verdict, confidence=float("nan"))
    with pytest.raises(AssertionError):
        to_jsonable(replace(plan(), verdict=verdict))


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_numbers_of_numpy_become_json(kind: type[np.floating]):
    verdict = replace(plan().verdict, confidence=kind(0.5))
    assert json.dumps(to_jsonable(replace(plan(), verdict=verdict))["verdict"]["confidence"]) == "0.5"


@pytest.mark.parametrize("name", EVERY)
def test_every_kind_of_plan_is_strict_json(name: str):
    found = to_jsonable(EVERY[name]())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
