"""The bounds are computed and agree with the table that they were designed by."""

import math

import pytest

from freehold.health.mesh.loss_bounds import (
    UNDECIDED,
    alarm_chance,
    is_over,
    limit,
    lossy_window,
    odds_of_node,
    poisson_below,
)
from freehold.health.model.view import LossWindow


@pytest.mark.parametrize(("sent", "lost"), [(600, 3), (3000, 5), (6000, 6)])
def test_the_designed_limits(sent: int, lost: int) -> None:
    assert limit(sent) == lost


@pytest.mark.parametrize(
    ("sent", "rate", "found"),
    [(600, 0.01, 0.94), (600, 0.005, 0.58), (3000, 0.005, 0.999), (6000, 0.001, 0.55)],
)
def test_how_much_of_a_loss_a_limit_finds(sent: int, rate: float, found: float) -> None:
    assert 1 - poisson_below(limit(sent), sent * rate) == pytest.approx(found, abs=0.005)


@pytest.mark.parametrize("sent", [1, 20, 100, 599, 600, 3000, 6000, 100_000])
def test_a_limit_is_the_least_number_within_the_bound(sent: int) -> None:
    def chance_of(least: int) -> float:
        mean = sent * 1e-4
        return 1 - sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(least))

    assert chance_of(limit(sent)) <= 1e-4 < chance_of(limit(sent) - 1)


def test_a_large_mesh_cries_wolf_no_more_often_than_one_of_three_nodes() -> None:
    assert alarm_chance(1) == alarm_chance(2) == 1e-4
    for peers in (3, 7, 31):
        ways = 2 * peers
        alarms = ways * (1 - poisson_below(limit(600, alarm_chance(peers)), 600 * 1e-4))
        assert alarms <= 4e-4
    assert limit(600, alarm_chance(7)) == 4
    assert 1 - poisson_below(4, 600 * 0.01) > 0.8  # one way by itself; a lossy node has fourteen


def test_a_loss_that_ended_is_told_from_one_that_goes_on() -> None:
    assert is_over(3000, 30, sent_late=600, lost_late=0)  # six expected, none seen
    assert not is_over(3000, 6, sent_late=600, lost_late=0)  # one expected
    assert not is_over(3000, 30, sent_late=600, lost_late=4)
    assert not is_over(0, 0, sent_late=0, lost_late=0)


def windows(minute: int, two: int, five: int) -> tuple[LossWindow, ...]:
    rows = ((60, 600, minute), (120, 1200, two), (300, 3000, five))
    return tuple(
        LossWindow(seconds=seconds, settled_out=sent, lost_out=lost, settled_back=sent)
        for seconds, sent, lost in rows
    )


def test_the_shortest_window_with_too_much_loss_is_taken_and_each_direction_by_itself() -> None:
    found = lossy_window(windows(3, 3, 3), back=False)
    assert found
    assert found.seconds == 60
    assert lossy_window(windows(3, 3, 3), back=True) is None
    assert lossy_window(windows(2, 2, 2), back=False) is None


def test_a_longer_window_finds_slow_loss_but_not_one_that_is_over() -> None:
    slow = lossy_window(windows(1, 2, 5), back=False)
    assert slow
    assert slow.seconds == 300
    assert lossy_window(windows(0, 0, 30), back=False) is None


@pytest.mark.parametrize(("own", "other"), [(6, 6), (6, 2), (8, 1), (12, 2), (30, 15), (5000, 4000)])
def test_a_second_witness_who_loses_alike_makes_it_the_node(own: int, other: int) -> None:
    assert odds_of_node(own, other, 1200) >= 1


@pytest.mark.parametrize(("own", "other"), [(12, 0), (30, 1), (30, 2), (300, 5)])
def test_one_who_loses_much_less_makes_it_the_path(own: int, other: int) -> None:
    assert odds_of_node(own, other, 1200) < UNDECIDED


def test_few_losses_leave_it_open() -> None:
    assert UNDECIDED <= odds_of_node(6, 0, 1200) < 1
    assert odds_of_node(0, 0, 1200) == pytest.approx(10)
