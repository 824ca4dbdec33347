from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import cost_samples as samples
from freehold.core.spread import Spread
from freehold.cost.model.case import CostSetting, Offer
from freehold.cost.model.draw import Draws, Middle
from freehold.cost.pricing.break_even import against_api, break_even, payback, utilisation_against_rental
from freehold.cost.pricing.price import Priced, middle_usd, price

EXACT = Spread.exactly


def both(mine: Offer, other: Offer, setting: CostSetting, draws: Any = None) -> tuple[Priced, Priced]:
    draws = draws or Middle()
    return price(mine, setting, draws=draws), price(other, setting, draws=draws)


def one_gpu(**changes: Any) -> Any:
    return samples.fleet(
        gpus=1, replicas=1, capacity=EXACT(6000.0), **{"peak_tokens_per_s": 3000.0, **changes}
    )


def test_at_the_break_even_both_cost_the_same():
    # 4 USD per million at 8 GPUs sized for 10 billion tokens: fewer of them carry the traffic of the break-even
    setting = samples.setting()
    mine, api = both(samples.rented(), samples.called(), setting)
    tokens = float(against_api(mine, api).tokens[0])
    scale = tokens / 10e9
    costs = [
        middle_usd(offer, setting, tokens_scale=scale, fleet_scale=scale) for offer in (mine.offer, api.offer)
    ]
    assert costs[0] == pytest.approx(costs[1], rel=1e-3)
    assert tokens < 1.2e9


@pytest.mark.parametrize("usd", [0.5, 2.69, 8.0])
def test_the_closed_form_and_the_draws_agree(usd: float):
    setting = samples.setting(rent=samples.exact_rent(rent_staff_fte=0.1, staff_usd_per_year=220_000.0))
    offers = samples.rented(one_gpu(), EXACT(usd)), samples.called()
    closed = float(against_api(*both(*offers, setting)).tokens[0])
    found = break_even(*both(*offers, setting, Draws(500, 1)))
    assert found.tokens_per_month is not None
    assert found.tokens_per_month.p50 == pytest.approx(closed, rel=1e-4)
    wins = [
        float(
            np.mean(
                np.less(*(each.total for each in both(*offers, at(setting, closed * part), Draws(500, 1))))
            )
        )
        for part in (0.98, 1.02)
    ]
    assert wins == [0.0, 1.0]


def at(setting: CostSetting, tokens: float) -> CostSetting:
    return replace(setting, traffic=samples.traffic(tokens))


def test_no_replica_count_helps_where_a_full_one_costs_more_than_the_api():
    setting = samples.setting()
    api = samples.called(samples.offered(samples.api(prices=(0.05, 0.08))))
    found = break_even(*both(samples.rented(), api, setting))
    assert (found.tokens_per_month, found.utilisation, found.gpus) == (None, None, None)  # 216 % is never
    assert found.chance_cheaper == 0
    free = samples.called(samples.offered(samples.api(prices=(0.0, 0.0))))
    assert break_even(*both(samples.rented(), free, setting)).utilisation is None


@pytest.mark.parametrize(("peak_rate", "reached"), [(3000.0, True), (6000.0, False)])
def test_peaks_bound_what_a_replica_carries(peak_rate: float, reached: bool):  # noqa: FBT001
    # 2,000 USD at 0.4 USD per million are 5 billion tokens, 32 % of 15.8 billion: with peaks of 2 x the mean a replica
    # carries half, with 4 x only a quarter
    fleet = one_gpu(peak_tokens_per_s=peak_rate)
    traffic = samples.traffic(1500 * 2_628_000)
    setting = samples.setting(rent=samples.exact_rent(), traffic=traffic)
    api = samples.called(samples.offered(samples.api(prices=(0.4, 0.4))))
    found = break_even(*both(samples.rented(fleet, EXACT(2000 / 730)), api, setting))
    assert (found.tokens_per_month is not None) == reached
    assert found.utilisation is not None
    assert found.utilisation.p50 == pytest.approx(5e9 / (6000 * 2_628_000), rel=1e-4)


def test_use_at_the_break_even_is_of_the_gpus_that_carry_it():
    fleet = samples.fleet(gpus=8, replicas=8, capacity=EXACT(48_000.0), peak_tokens_per_s=40_000.0)
    setting = samples.setting(rent=samples.exact_rent(), traffic=samples.traffic(20e9))
    api = samples.called(samples.offered(samples.api(prices=(2.0, 2.0))))
    found = break_even(*both(samples.rented(fleet, EXACT(2.0)), api, setting))
    assert found.tokens_per_month is not None
    assert found.utilisation is not None
    assert found.tokens_per_month.p50 == pytest.approx(1460 / 2.0 * 1e6, rel=1e-4)
    assert found.gpus == 1
    assert found.utilisation.p50 == pytest.approx(730e6 / (6000 * 2_628_000), rel=1e-4)


@pytest.mark.parametrize(("usd_per_m", "boards"), [(2.0, 1), (0.2, 3)])
def test_replicas_on_a_board_that_is_bought_anyhow_cost_nothing_more(usd_per_m: float, boards: int):
    card = samples.gpu(sold_in=8)
    fleet = samples.fleet(card, gpus=8, replicas=2, capacity=EXACT(12_000.0), peak_tokens_per_s=10_000.0)
    one = replace(fleet, sized=replace(fleet.sized, ask=replace(fleet.sized.ask, gpus=1)))
    setting = samples.setting(own=samples.exact_own(), traffic=samples.traffic(4000 * 2_628_000))
    board_usd = 8 * 50_000 / 36
    api = samples.called(samples.offered(samples.api(prices=(usd_per_m, usd_per_m))))
    found = break_even(*both(samples.bought(one, EXACT(50_000.0)), api, setting))
    carried = 6000 * 2_628_000 / 2.5
    assert (board_usd / usd_per_m * 1e6 <= 8 * carried) == (boards == 1)
    assert found.gpus == 8 * boards
    if boards == 1:
        assert found.tokens_per_month is not None
        assert found.tokens_per_month.p50 == pytest.approx(board_usd / usd_per_m * 1e6, rel=1e-4)


def test_against_a_rental_it_is_the_part_of_the_hours():
    setting = samples.setting(own=samples.exact_own(), rent=samples.exact_rent())
    fleet = samples.fleet(capacity=EXACT(48_000.0))
    mine, rent = both(
        samples.bought(fleet, EXACT(36 * 730 * 2.0)), samples.rented(fleet, EXACT(4.0)), setting
    )
    found = break_even(mine, rent)
    assert found.utilisation is not None
    assert found.utilisation.p50 == pytest.approx(0.5, rel=1e-5)
    assert found.tokens_per_month is not None
    assert found.tokens_per_month.p50 == pytest.approx(0.5 * 48_000 * 2_628_000, rel=1e-5)
    cheap = samples.rented(fleet, EXACT(1.0))
    never = break_even(*both(mine.offer, cheap, setting))
    assert (never.tokens_per_month, never.utilisation) == (None, None)  # twice what it carries is never
    reserved = break_even(*both(mine.offer, replace(rent.offer, reserved=True), setting))
    assert (reserved.tokens_per_month, reserved.utilisation) == (None, None)


def plain(usd: float = 36_000.0, **own: float) -> tuple[Offer, CostSetting]:
    """One GPU that costs only what it costs."""
    return samples.bought(one_gpu(), EXACT(usd)), samples.setting(own=samples.exact_own(**own))


def test_payback_is_what_was_paid_over_what_is_saved():
    offer, setting = plain(maintenance_fraction_per_year=0.12)
    mine, api = both(offer, samples.called(samples.offered(samples.api(prices=(0.2, 0.6)))), setting)
    assert float(api.total[0]) == pytest.approx(3000)
    assert float(payback(mine, api)[0]) == pytest.approx(36_000 / (3000 - 360))


def test_payback_not_within_its_life_is_none():
    offer, setting = plain(life_months=12.0)
    api = samples.called(samples.offered(samples.api(prices=(0.2, 0.6))))
    assert break_even(*both(offer, api, setting)).payback_month is not None
    dear, setting = plain(48_000.0, life_months=12.0)
    assert break_even(*both(dear, api, setting)).payback_month is None
    assert break_even(*both(samples.rented(one_gpu()), api, setting)).payback_month is None


def test_growth_brings_payback_nearer_until_another_machine_is_needed():
    offer, setting = plain()
    api = samples.called(samples.offered(samples.api(prices=(0.2, 0.6))))
    slow = float(payback(*both(offer, api, setting))[0])
    assert slow == pytest.approx(12.0)
    growing = float(payback(*both(offer, api, setting), growth_per_month=0.05)[0])
    # by hand: sum of 3000 x 1.05^k passes 36,000 within the tenth month
    saved = np.cumsum(3000 * 1.05 ** np.arange(12))
    assert np.searchsorted(saved, 36_000) == 9
    assert growing == pytest.approx(9 + (36_000 - saved[8]) / (saved[9] - saved[8]), rel=1e-5)
    full = samples.bought(one_gpu(peak_tokens_per_s=5900.0), EXACT(36_000.0))
    assert float(payback(*both(full, api, setting), growth_per_month=0.05)[0]) > growing


def test_no_growth_is_the_limit_of_little_growth():
    offer, setting = plain(maintenance_fraction_per_year=0.12)
    pair = both(offer, samples.called(samples.offered(samples.api(prices=(0.2, 0.6)))), setting)
    assert float(payback(*pair, growth_per_month=1e-9)[0]) == pytest.approx(
        float(payback(*pair)[0]), rel=1e-4
    )


def test_chances_are_of_the_same_draws():
    # staff and electricity are shared: two identical machines at two prices differ in every draw the same way
    setting = samples.setting()
    draws = Draws(500, 1)
    cheap, dear = both(samples.rented(usd=EXACT(2.0)), samples.rented(usd=EXACT(2.01)), setting, draws)
    assert break_even(cheap, dear).chance_cheaper == 1.0


def test_the_replicas_of_a_break_even_are_those_that_carry_it():
    # each replica costs 1460 a month, saves 2 USD per million and carries half of what it could; people cost 10,000
    full = 6000 * 2_628_000 / 1e6
    fleet = samples.fleet(gpus=4, replicas=4, capacity=EXACT(24_000.0), peak_tokens_per_s=12_000.0)
    traffic = samples.traffic(6000 * 2_628_000)
    rent = samples.exact_rent(rent_staff_fte=1.0, staff_usd_per_year=120_000.0)
    rent = replace(rent, staff_fte=replace(rent.staff_fte, asked=True))
    api = samples.called(samples.offered(samples.api(prices=(1.0, 1.0))))
    mine, other = both(samples.rented(fleet, EXACT(2.0)), api, samples.setting(rent=rent, traffic=traffic))
    found = against_api(mine, other)
    count = -(-10_000 // (full / 2 - 1460))
    assert count == 2
    assert float(found.replicas[0]) == count
    assert float(found.tokens[0]) == pytest.approx((10_000 + count * 1460) * 1e6, rel=1e-4)
    assert float(found.tokens[0]) <= count * full / 2 * 1e6


def test_what_each_token_costs_on_ones_own_machines_is_taken_off_what_it_saves():
    # 40 USD a GB is more than anybody asks: so that what leaves is a good part of the API's 4 USD per million
    rent = samples.exact_rent(rent_egress_usd_per_gb=40.0)
    fleet = one_gpu(peak_tokens_per_s=1.0)
    mine, api = both(samples.rented(fleet, EXACT(2.0)), samples.called(), samples.setting(rent=rent))
    each = float(mine.lines["egress"][0]) / 10e9
    assert each > 0.1e-6
    expected = 1460 / (4e-6 - each)
    assert float(against_api(mine, api).tokens[0]) == pytest.approx(expected, rel=1e-3)


def test_what_a_rental_costs_besides_its_hours_is_not_saved_by_turning_it_off():
    people = {"staff_usd_per_year": 120_000.0}
    setting = samples.setting(
        own=samples.exact_own(staff_fte=0.2, **people), rent=samples.exact_rent(rent_staff_fte=0.1, **people)
    )
    fleet = samples.fleet(capacity=EXACT(48_000.0))
    mine, rent = both(
        samples.bought(fleet, EXACT(36 * 730 * 2.0)), samples.rented(fleet, EXACT(4.0)), setting
    )
    hourly = 8 * 730 * 4.0
    assert float(utilisation_against_rental(mine, rent)[0]) == pytest.approx(
        (8 * 730 * 2.0 + 2000 - 1000) / hourly, rel=1e-4
    )
