"""Ejection: what ejects, for how long, one trial at a time, and that somebody is always kept."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.endpoints.outlier_detection import Failure, OutlierState, kept

NO_ANSWERS: list[Failure] = ["connect", "lost", "stall", "silent"]


@dataclass(eq=False)
class Place:
    outlier: OutlierState = field(default_factory=OutlierState)


def ejected(*until_s: float, no_answer: bool = True) -> list[Place]:
    """Return places whose ejections end then; 0: never began."""
    places = [Place() for _ in until_s]
    for place, end_s in zip(places, until_s, strict=True):
        place.outlier.until_s, place.outlier.no_answer = end_s, no_answer
    return places


@pytest.mark.parametrize("failure", NO_ANSWERS)
def test_one_failure_to_answer_ejects_for_a_second(failure: Failure) -> None:
    standing = OutlierState()
    assert standing.note(failure, [standing], 5.0) == failure
    assert standing.is_out(5.999)
    assert not standing.is_out(6.0)


def test_ejections_double_to_eight_seconds_and_a_minute_of_use_forgives() -> None:
    standing, now_s, times = OutlierState(), 100.0, []
    for _ in range(6):
        standing.note("connect", [], now_s)
        times.append(standing.until_s - now_s)
        now_s = standing.until_s
        assert standing.begin(now_s)
    assert times == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert standing.succeeded(now_s)
    standing.note("connect", [], now_s + 59)
    assert standing.until_s == now_s + 59 + 8
    standing.begin(now_s + 70)
    standing.succeeded(now_s + 70)
    standing.note("connect", [], now_s + 130)
    assert standing.until_s == now_s + 131


def test_twenty_streams_that_break_at_once_are_one_ejection() -> None:
    standing = OutlierState()
    assert [standing.note("lost", [], 5.0) for _ in range(20)] == ["lost"] + [None] * 19
    assert standing.until_s == 6.0


def test_a_trial_lets_one_request_through_at_a_time() -> None:
    standing = OutlierState()
    standing.note("connect", [], 0.0)
    assert not standing.begin(0.5)
    assert standing.begin(1.0)
    assert standing.is_out(1.0)
    assert not standing.begin(1.1)
    standing.trial = False  # its client left: it showed nothing
    assert standing.begin(1.2)
    assert standing.succeeded(1.3)
    assert not standing.is_out(1.3)
    assert not standing.begin(1.4)


def test_a_failed_trial_ejects_again_whatever_the_failure() -> None:
    standing = OutlierState()
    standing.note("connect", [], 0.0)
    standing.begin(1.0)
    assert standing.note("status", [], 1.5) == "status"
    assert (standing.until_s, standing.trial) == (3.5, False)


def test_five_bad_answers_in_a_row_eject_and_one_good_one_between_counts() -> None:
    standing = OutlierState()
    for _ in range(4):
        assert standing.note("status", [], 0.0) is None
    standing.succeeded(0.0)
    for _ in range(4):
        assert standing.note("status", [], 0.0) is None
    assert standing.note("status", [], 0.0) == "status"


def answers(standing: OutlierState, others: list[OutlierState], pattern: str) -> list[Any]:
    said: list[Any] = []
    for mark in pattern:
        if mark == "x":
            said.append(standing.note("status", others, 1.0))
        else:
            standing.succeeded(1.0)
    return [reason for reason in said if reason]


def test_one_that_fails_every_other_time_is_an_outlier_among_good_ones() -> None:
    good, bad = OutlierState(), OutlierState()
    answers(good, [], "." * 30)
    assert answers(bad, [good, bad], ".x" * 10)[0] == "outlier"


def test_long_good_service_does_not_hide_it_for_long() -> None:
    good, bad = OutlierState(), OutlierState()
    answers(good, [], "." * 30)
    answers(bad, [], "." * 10_000)
    assert answers(bad, [good, bad], ".x" * 40)[0] == "outlier"


@pytest.mark.parametrize("pattern", [".x" * 100, ".xx" * 100, "....x" * 100])
def test_what_fails_everywhere_ejects_nobody(pattern: str) -> None:
    both = [OutlierState(), OutlierState()]
    for mark in pattern:
        for standing in both:
            assert not answers(standing, both, mark)


def test_one_bad_answer_in_ten_ejects_nobody() -> None:
    good, so_so = OutlierState(), OutlierState()
    answers(good, [], "." * 30)
    assert not answers(so_so, [good, so_so], ".........x" * 50)


def test_an_answer_from_before_its_ejection_does_not_bring_an_outlier_back() -> None:
    standing = OutlierState()
    answers(standing, [], "xxxxx")
    assert standing.until_s == 2.0
    assert not standing.succeeded(1.5)
    assert standing.begin(2.0)
    assert standing.succeeded(2.1)


def test_after_its_time_any_answer_brings_an_outlier_back() -> None:
    standing = OutlierState()
    answers(standing, [], "xxxxx")
    assert standing.succeeded(2.0)
    assert standing.until_s == 0


def test_any_answer_brings_one_back_that_was_taken_for_dead() -> None:
    standing = OutlierState()
    standing.note("stall", [], 1.0)
    assert standing.succeeded(1.5)
    assert standing.until_s == 0


# Who is kept


def test_the_least_bad_is_kept_when_none_answers() -> None:
    places = ejected(9.0, 7.0, 8.0)
    assert kept(places, 5.0) == [places[1]]


def test_all_but_one_of_those_that_do_not_answer_may_be_left_out() -> None:
    places = ejected(9.0, 0, 8.0, 7.0)
    assert kept(places, 5.0) == [places[1]]


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_at_most_half_of_those_that_answer_badly(count: int, most: int) -> None:
    places = ejected(*range(9, 9 + count), no_answer=False)
    assert kept(places, 5.0) == places[: count - most]


ROWS = st.lists(st.tuples(st.sampled_from([0, 4.0, 6.0, 8.0]), st.booleans(), st.booleans()), max_size=9)


@given(ROWS)
def test_somebody_is_kept_and_whoever_is_well_is(rows: list[tuple[float, bool, bool]]) -> None:
    places = [Place() for _ in rows]
    for place, (until_s, no_answer, trial) in zip(places, rows, strict=True):
        place.outlier.until_s, place.outlier.no_answer = until_s, no_answer
        place.outlier.trial = trial and until_s == 4.0
    left = kept(places, 5.0)
    assert bool(left) == bool(places)
    assert all(place in left for place in places if not place.outlier.is_out(5.0))
    out = [place for place in places if place not in left]
    assert sum(not place.outlier.no_answer for place in out) <= len(places) // 2
