"""Numbers as people read them."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.spread import Spread
from freehold.cost.model import rounding
from freehold.cost.model.result import Percentiles

INF, NAN = float("inf"), float("nan")


def ranged(p10: float, p50: float, p90: float) -> Percentiles:
    return Percentiles(p10=p10, p50=p50, p90=p90)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1964.3, "1,964"),
        (123456.0, "123,500"),
        (99.96, "99.96"),
        (15.25, "15.25"),
        (2.0, "2.00"),
        (0.209, "0.209"),
        (0.2, "0.20"),
        (0.0412, "0.0412"),
        (0.000002, "0.000002"),
        (0.9999, "1.00"),
        (0.0, "0.00"),
        (-0.0, "0.00"),
        (-1234.0, "-1,234"),
        (999.6, "1,000"),
        (INF, "unknown"),
        (NAN, "unknown"),
    ],
)
def test_amounts(value: float, text: str):
    assert rounding.amount(value) == text


def test_a_range_shows_less_digits_at_its_ends():
    assert rounding.usd_range(ranged(1724, 1964.2, 2308)) == "1,964 (1,720\N{EN DASH}2,310)"
    assert rounding.usd_range(ranged(0.183, 0.209, 0.2412)) == "0.209 (0.18\N{EN DASH}0.24)"
    assert rounding.spread(Spread(4100, 5120, 6333)) == "5,120 (4,100\N{EN DASH}6,330)"


def test_what_is_known_has_no_range():
    assert rounding.usd_range(ranged(1964, 1964, 1964)) == "1,964"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (900e6, "900M"),
        (1.234e9, "1.23B"),
        (64e9, "64B"),
        (999_999_999, "1B"),
        (1.5e12, "1.5T"),
        (200_000, "200k"),
        (512, "512"),
        (0, "0"),
        (INF, "never"),
        (NAN, "unknown"),
    ],
)
def test_tokens(value: float, text: str):
    assert rounding.tokens(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.314, "31%"),
        (0.0034, "0.3%"),
        (0.00021, "0.02%"),
        (0.0, "0%"),
        (1.2, "120%"),
        (1e-9, "under 0.001%"),
        (NAN, "unknown"),
    ],
)
def test_shares(value: float, text: str):
    assert rounding.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "under 1%"),
        (0.0099, "under 1%"),
        (0.37, "37%"),
        (0.9931, "over 99%"),
        (1.0, "over 99%"),
        (NAN, "unknown"),
    ],
)
def test_a_share_of_draws_is_never_a_certainty(value: float, text: str):
    assert rounding.chance(value) == text


def test_months_are_whole_and_may_never_come():
    assert rounding.month_range(ranged(19.2, 27.4, INF)) == "28 (20\N{EN DASH}never)"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "500 ms"), (2.0, "2 s"), (22.04, "22 s"), (1200, "20 min"), (9000, "2.5 h"), (INF, "unknown")],
)
def test_durations(value: float, text: str):
    assert rounding.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(141e9, "141 GB"), (131072, "131 kB"), (999.0, "999 B"), (1.6e13, "16 TB")]
)
def test_bytes(value: float, text: str):
    assert rounding.bytes_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.25"), (36.0, "36"), (300000, "300,000"), (0.0, "0"), (NAN, "unknown")]
)
def test_inputs(value: float, text: str):
    assert rounding.plain_number(value) == text


@given(st.floats(min_value=1e-6, max_value=1e13))
def test_an_amount_is_right_to_one_in_a_thousand_or_half_a_unit(value: float):
    text = rounding.amount(value)
    assert re.fullmatch(r"[0-9,]+(\.[0-9]+)?", text)
    slack = 0.006 if value < 100 else 0.501
    assert abs(float(text.replace(",", "")) - value) <= max(
        value * 1e-3, slack if value >= 1 else value * 0.06
    )


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_nothing_makes_them_fail(value: float):
    for write in (rounding.amount, rounding.tokens, rounding.percent, rounding.chance, rounding.plain_number):
        text = write(value)
        assert text
        assert math.isfinite(value) or text in {"unknown", "never"}
