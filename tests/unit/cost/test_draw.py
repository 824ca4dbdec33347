import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.spread import Spread
from freehold.cost.model.draw import Draws, Middle
from freehold.cost.model.percentiles import cheapest_shares, range_of
from freehold.cost.model.result import Percentiles

PRICE = Spread(25_000.0, 28_000.0, 40_000.0)


def test_draws_have_the_spreads_percentiles():
    drawn = Draws(200_000, seed=3).take("gpu_usd", PRICE)
    found = np.percentile(drawn, (5, 50, 95))
    assert found == pytest.approx([PRICE.low, PRICE.mid, PRICE.high], rel=0.005)
    assert float(drawn.min()) > 0


@pytest.mark.parametrize("spread", [Spread(0.0, 0.02, 0.09), Spread(-3.0, 1.0, 2.0)])
def test_what_may_be_nothing_is_drawn_straight_and_cut_only_where_it_cannot_be_negative(spread: Spread):
    drawn = Draws(200_000, seed=3).take("egress", spread)
    assert np.percentile(drawn, (50, 95)) == pytest.approx([spread.mid, spread.high], rel=0.02)
    assert (float(drawn.min()) < 0) == (spread.low < 0)


def test_what_is_known_is_one_number():
    assert Draws(1000, seed=1).take("x", Spread.exactly(7.0)).tolist() == [7.0]


def test_a_names_draws_depend_on_seed_and_name_and_not_on_the_order_of_asking():
    first, second, other = Draws(100, seed=1), Draws(100, seed=1), Draws(100, seed=2)
    second.take("b", PRICE)
    assert np.array_equal(first.take("a", PRICE), second.take("a", PRICE))
    assert not np.array_equal(first.take("a", PRICE), other.take("a", PRICE))
    assert not np.array_equal(first.take("a", PRICE), first.take("b", PRICE))


def test_inputs_of_one_name_move_together_and_others_do_not():
    draws = Draws(20_000, seed=1)
    ours, theirs = draws.take("staff", Spread(0.1, 0.2, 0.4)), draws.take("staff", Spread(1.0, 2.0, 4.0))
    assert theirs == pytest.approx(ours * 10, rel=1e-5)
    assert abs(np.corrcoef(ours, draws.take("pue", PRICE))[0, 1]) < 0.03


def test_middle_values_can_be_held_at_an_end_or_a_value():
    assert Middle().take("x", PRICE)[0] == PRICE.mid
    assert Middle(ends={"x": "high"}).take("x", PRICE)[0] == PRICE.high
    assert Middle(values={"x": 5.0}).take("x", PRICE)[0] == 5.0
    assert Middle(values={"y": 5.0}).take("x", PRICE)[0] == PRICE.mid


@given(
    st.floats(0.01, 1e6),
    st.floats(1.0, 10.0),
    st.floats(1.0, 10.0),
    st.integers(0, 2**31),
    st.integers(2, 400),
)
def test_ranges_are_in_order(mid: float, down: float, up: float, seed: int, size: int):
    found = range_of(Draws(size, seed).take("x", Spread(mid / down, mid, mid * up)))
    assert found.p10 <= found.p50 <= found.p90


def test_range_is_that_of_percentiles():
    values = np.random.default_rng(1).permutation(np.arange(1001, dtype=np.float32))
    found = range_of(values)
    assert (found.p10, found.p50, found.p90) == (100.0, 500.0, 900.0)


@pytest.mark.parametrize("size", [5001, 20_000, 100_000])
def test_ranges_of_many_draws_are_exactly_those_of_all_in_order(size: int):
    random = np.random.default_rng(size)
    for values in (random.lognormal(0, 1, size), random.integers(0, 3, size), random.pareto(1.1, size)):
        drawn = values.astype(np.float32)
        found, ordered = range_of(drawn), np.sort(drawn)
        ranks = [round(part * (size - 1)) for part in (0.1, 0.5, 0.9)]
        assert [found.p10, found.p50, found.p90] == ordered[ranks].tolist()
    edges = np.repeat(np.arange(4, dtype=np.float32), (1000, 4000, 4000, 1001))
    assert range_of(edges) == Percentiles(p10=1.0, p50=2.0, p90=3.0)  # ranks on the very first value of a bin
    never = np.where(random.random(size) < 0.2, np.inf, 1.0)
    assert (range_of(never).p50, range_of(never).p90) == (1.0, np.inf)


def test_shares_count_draws_and_a_tie_goes_to_the_first():
    shares = cheapest_shares(
        [np.array([1.0, 5.0, 3.0, 9.0]), np.array([2.0, 2.0, 3.0, 2.0]), np.array([4.0])]
    )
    assert shares == [0.5, 0.5, 0.0]
    assert cheapest_shares([]) == []
