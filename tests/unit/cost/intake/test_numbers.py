"""Numbers on the command line: counts, shares, times and ranges, or a problem that names the flag and a form that works."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.problems import Problem
from freehold.core.spread import Spread
from freehold.cost.intake.flags import FlagReader
from freehold.cost.intake.numbers import (
    read_count,
    read_number,
    read_range,
    read_seconds,
    read_share,
)


def test_one_number_is_known_and_two_are_a_range():
    assert read_range("--x", "2.10") == Spread.exactly(2.10)
    found = read_range("--x", "2..8")
    assert found == Spread(2, 4, 8)  # the middle of two positive bounds is geometric
    assert read_range("--x", "5%..20%") != found
    assert read_range("--x", "10%") == Spread.exactly(0.1)
    assert read_range("--x", "0..2") == Spread(0, 1, 2)
    assert read_range("--x", "310k") == Spread.exactly(310_000)
    assert read_range("--x", "0.9M..1.6M") == Spread(9e5, 1.2e6, 1.6e6)


@pytest.mark.parametrize(
    "text", ["", "x", "1..", "..2", "-1", "1..2..3", "1e999", "nan", "inf", "3..2", "1,5"]
)
def test_what_is_no_range_is_a_problem_of_the_flag(text: str):
    found = read_range("--x", text)
    assert isinstance(found, Problem)
    assert found.where == "--x"


def test_shares_are_at_most_one():
    assert read_share("--s", "30%") == 0.3
    assert read_share("--s", "0.3") == 0.3
    assert isinstance(read_share("--s", "30"), Problem)
    assert isinstance(read_share("--s", "10%..20%"), Problem)


def test_counts_and_times_are_above_nought():
    assert read_count("--c", "900M") == 9e8
    assert read_seconds("--t", "500ms") == 0.5
    assert read_number("--n", "2.5") == 2.5
    for read, text in ((read_count, "0"), (read_count, "1.5"), (read_seconds, "0s"), (read_seconds, "5")):
        assert isinstance(read("--c", text), Problem)


def test_a_reader_keeps_every_problem():
    reader = FlagReader()
    assert reader.take(read_count, "--a", None) is None
    assert reader.take(read_count, "--a", "5x") is None
    assert reader.take(read_share, "--b", "7") is None
    assert reader.take(read_count, "--c", "7") == 7
    assert [problem.where for problem in reader.problems] == ["--a", "--b"]


@given(st.text(max_size=40))
def test_no_text_raises(text: str):
    for read in (read_count, read_number, read_range, read_seconds, read_share):
        read("--x", text)
