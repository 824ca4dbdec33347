"""Single values: what is read, and what is refused with which words."""

import pytest

from freehold.ledger.foreign.cells import cached_within, count, moment_s, money, optional_count
from freehold.ledger.foreign.use import Unusable

OCT_25_0030_UTC_S = 1_792_888_200.0


@pytest.mark.parametrize(
    ("value", "read"),
    [(7, 7), ("7", 7), (" 7 ", 7), ("7.0", 7), (7.0, 7), ("1e3", 1000), (0, 0), (10**15, 10**15)],
)
def test_counts(value: object, read: int):
    assert count({"n": value}, "n") == read


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (-1, "negative"), ("-1", "negative"), (1.5, "whole"), ("1.5", "whole"), ("NaN", "whole"), (float("nan"), "whole"),
        ("inf", "whole"), (True, "whole"), (None, "missing"), ("", "missing"), ("x", "not a number"), ("9" * 5000, "not a number"),
        (10**16, "large"), (10**400, "large"), ("1_000", "not a number"), ([1], "whole"), ({}, "whole"), ("1,000", "not a number"),
    ],
)  # fmt: skip
def test_what_is_no_count(value: object, why: str):
    with pytest.raises(Unusable, match=f"n is .*{why}"):
        count({"n": value}, "n")


def test_a_count_may_be_absent():
    assert [optional_count(record, "n") for record in ({}, {"n": None}, {"n": ""}, {"n": "3"})] == [
        None,
        None,
        None,
        3,
    ]
    with pytest.raises(Unusable):
        optional_count({"n": "x"}, "n")


def test_money():
    assert [money(value, "usd") for value in (None, "", "0.50", 1, "2e-05")] == [None, None, 0.5, 1.0, 2e-05]
    for value in ("x", float("nan"), "inf", True, [], -0.1, 1e12):
        with pytest.raises(Unusable, match="usd is"):
            money(value, "usd")


@pytest.mark.parametrize(
    "value",
    [
        OCT_25_0030_UTC_S, OCT_25_0030_UTC_S * 1e3, OCT_25_0030_UTC_S * 1e6, "1792888200", "1792888200000", "1792888200.0", "1792888200000000",
        "2026-10-25T00:30:00Z", "2026-10-25 00:30:00", "2026-10-25 00:30:00.000", "2026-10-25T00:30:00+00",
        "2026-10-25T02:30:00+02:00", "2026-10-24T17:30:00.000000-0700",
    ],
)  # fmt: skip
def test_times(value: object):
    assert moment_s({"t": value}, ("u", "t")) == OCT_25_0030_UTC_S


def test_milliseconds_that_look_like_a_date_are_milliseconds():
    assert (
        moment_s({"t": "1760120410000"}, ("t",)) == 1_760_120_410
    )  # 1760-12-04 at 00:00 for datetime.fromisoformat


def test_the_hour_that_summer_time_repeats_is_two_hours():
    summer, winter = (moment_s({"t": f"2026-10-25T02:30:00+0{zone}:00"}, ("t",)) for zone in (2, 1))
    assert winter - summer == 3600


@pytest.mark.parametrize(
    "value",
    ["yesterday", "2026-13-01", "", None, True, [], -1, 10**30, float("nan"), float("inf"),      "0001-01-01T00:00:00+23:59", 5, "2014-12-31", "2026-10-25 02:30 CEST"],
)  # fmt: skip
def test_what_is_no_time(value: object):
    with pytest.raises(Unusable):
        moment_s({"t": value}, ("t",))


def test_cached_tokens_are_part_of_the_input():
    assert [cached_within(None, 5), cached_within(5, 5)] == [None, 5]
    with pytest.raises(Unusable):
        cached_within(6, 5)
