from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import cost_samples as samples
from freehold.core.spread import Spread
from freehold.cost.lines import all_lines
from freehold.cost.lines.colocation import contracted_kw
from freehold.cost.lines.electricity import it_kw
from freehold.cost.model.capex import capex_of
from freehold.cost.model.case import CostCase
from freehold.cost.model.closed_form import energy_usd_per_month
from freehold.cost.model.draw import Draws, Middle
from freehold.cost.pricing.price import middle_usd, price

EXACT = Spread.exactly
LINES = {line.name: line for line in all_lines()}


def in_setting(case: CostCase, **changes: object) -> CostCase:
    return replace(case, setting=replace(case.setting, **changes), draws=Middle())  # type: ignore[arg-type]


def usd(name: str, case: CostCase) -> float:
    assert LINES[name].applies(case), name
    return float(LINES[name].price(case)[0])


def steady(gpus: int = 8, replicas: int = 8, **changes: object) -> object:
    """A fleet whose performance is known, so that it is as large as planned."""
    return samples.fleet(gpus=gpus, replicas=replicas, capacity=EXACT(6000.0 * replicas), **changes)


def owned(**own: float) -> CostCase:
    return samples.case(
        samples.bought(steady(), EXACT(30_000.0)), setting=samples.setting(own=samples.exact_own(**own))
    )


def rented(**rent: float) -> CostCase:
    return samples.case(
        samples.rented(steady(), EXACT(2.5)), setting=samples.setting(rent=samples.exact_rent(**rent))
    )


def test_tokens_are_priced_by_input_cached_input_and_output():
    api = samples.api(prices=(2.0, 10.0), cached_input_usd_per_m=0.5)
    traffic = samples.traffic(1e9, cached_share=0.4)
    case = samples.case(samples.called(samples.offered(api)), traffic=traffic)
    assert usd("api_tokens", case) == pytest.approx(450 * 2.0 + 300 * 0.5 + 250 * 10.0)


def test_what_can_wait_costs_half_and_cached_input_without_a_price_is_input():
    traffic = samples.traffic(1e9, cached_share=0.4, batch_share=0.5)
    case = samples.case(samples.called(), traffic=traffic)
    assert usd("api_tokens", case) == pytest.approx((750 * 2.0 + 250 * 10.0) * 0.75)


def test_rental_is_gpus_by_the_hour():
    assert usd("rental", rented()) == pytest.approx(8 * 730 * 2.5)


def test_hardware_is_written_off_to_what_it_fetches():
    case = owned(chassis_usd_per_gpu=5000.0, residual_fraction=0.2, life_months=36.0)
    assert usd("hardware", case) == pytest.approx(8 * 35_000 * 0.8 / 36)
    assert usd("capital", case) == pytest.approx(0.0)


def test_written_off_and_capital_are_the_lenders_annuity():
    case = owned(
        chassis_usd_per_gpu=5000.0,
        host_ram_usd_per_gb=30.0,
        network_usd_per_node=4000.0,
        storage_usd_per_tb=200.0,
        residual_fraction=0.2,
        capital_rate_per_year=0.1,
    )
    total = float(capex_of(case).total[0])
    assert total == pytest.approx(8 * 35_000 + 512 * 30 + 4000 + 1.92 * 200)
    parts = sum(
        usd(name, case) for name in ("hardware", "host_ram", "network", "storage", "capital", "spares")
    )
    rate, months = 0.1 / 12, 36
    annuity = (total - 0.2 * total / (1 + rate) ** months) * rate / (1 - (1 + rate) ** -months)
    assert parts == pytest.approx(annuity, rel=1e-6)


def test_the_annuity_of_nearly_free_capital_is_the_straight_line():
    assert usd("capital", owned(capital_rate_per_year=1e-9)) == pytest.approx(0.0, abs=0.01)


def test_a_quote_for_servers_stands_for_gpus_chassis_memory_and_disks():
    case = owned(chassis_usd_per_gpu=5000.0, host_ram_usd_per_gb=30.0, network_usd_per_node=4000.0)
    quoted = in_setting(case, node_usd=EXACT(300_000.0))
    assert float(capex_of(quoted).total[0]) == pytest.approx(304_000)


def test_contracted_power_is_never_below_hosts_and_gpus_at_their_most():
    case = samples.case(samples.bought(steady()))
    assert float(contracted_kw(case)[0]) == pytest.approx(8 * 0.7 + 4.6)
    assert usd("colocation", case) == pytest.approx(10.2 * 184)


def test_energy_is_mean_draw_by_pue_once():
    case = owned(gpu_power_fraction=0.5, host_kw=2.0, pue_ratio=1.3, power_usd_per_kwh=0.12)
    assert float(it_kw(case)[0]) == pytest.approx(8 * 0.7 * 0.5 + 2.0)
    assert usd("electricity", case) == pytest.approx(energy_usd_per_month(4.8, 0.12, pue=1.3))


def test_no_energy_and_no_pue_where_the_space_includes_power():
    colo = replace(samples.COLO, power_included=True)
    own = replace(samples.own(), colo_usd_per_kw_month=samples.assumed("colo_usd_per_kw_month", 300.0, colo))
    included = samples.setting(own=own)
    offer = samples.bought(steady())
    assert "electricity" not in price(offer, included, draws=Middle()).lines
    dearer = replace(own, pue_ratio=samples.assumed("pue_ratio", 2.0))
    assert middle_usd(offer, included) == middle_usd(offer, replace(included, own=dearer))
    at_home = replace(included, site="on-premises")
    assert set(price(offer, at_home, draws=Middle()).lines) ^ set(
        price(offer, included, draws=Middle()).lines
    ) == {
        "colocation",
        "electricity",
    }


def test_measured_watts_replace_the_ratings():
    case = owned(pue_ratio=1.3, power_usd_per_kwh=0.12, gpu_power_fraction=1.0, host_kw=2.0)
    measured = in_setting(case, measured_it_w=EXACT(4000.0))
    assert usd("electricity", measured) == pytest.approx(energy_usd_per_month(4.0, 0.12, pue=1.3))


def test_spare_gpus_idle():
    fleet = steady(gpus=8, replicas=4, spare_replicas=4)
    case = replace(owned(gpu_power_fraction=0.5), offer=samples.bought(fleet, EXACT(30_000.0)))
    assert float(it_kw(case)[0]) == pytest.approx((4 * 350 + 4 * 80) / 1000)


@pytest.mark.parametrize("name", ["maintenance", "insurance"])
def test_yearly_parts_of_the_price(name: str):
    case = owned(**{f"{name}_fraction_per_year": 0.06})
    assert usd(name, case) == pytest.approx(240_000 * 0.06 / 12)


def test_staff_of_each_way():
    assert usd("staff", owned(staff_fte=0.25, staff_usd_per_year=240_000.0)) == pytest.approx(5000)
    assert usd("staff", rented(rent_staff_fte=0.1, staff_usd_per_year=240_000.0)) == pytest.approx(2000)


@pytest.mark.parametrize(("nodes", "times"), [(1, 1.0), (2, 1.25), (10, 3.25)])
def test_people_that_nobody_said_grow_with_the_nodes_and_those_that_were_said_do_not(
    nodes: int, times: float
):
    fleet = samples.fleet(gpus=8 * nodes, replicas=8 * nodes, capacity=EXACT(48_000.0 * nodes))
    for make, before in ((samples.bought, owned), (samples.rented, rented)):
        names = {"staff_fte": 0.2} if before is owned else {"rent_staff_fte": 0.2}
        case = replace(before(**names, staff_usd_per_year=240_000.0), offer=make(fleet), draws=Middle())
        assert usd("staff", case) == pytest.approx(4000 * times)
        own, rent = (
            replace(each, staff_fte=replace(each.staff_fte, asked=True))
            for each in (case.setting.own, case.setting.rent)
        )
        assert usd("staff", in_setting(case, own=own, rent=rent)) == pytest.approx(4000)


def test_disks_hold_the_weights_twice():
    assert usd("storage", owned(storage_usd_per_tb=100.0, life_months=40.0)) == pytest.approx(1.92 * 100 / 40)
    assert usd("storage", rented(storage_usd_per_tb_month=80.0)) == pytest.approx(2 * 8.03e9 / 1e12 * 80)
    big = replace(steady(), sized=replace(steady().sized, weights_bytes=2_000_000_000_000))
    case = replace(owned(storage_usd_per_tb=100.0), offer=samples.bought(big, EXACT(30_000.0)))
    assert float(capex_of(case).storage[0]) == pytest.approx(4.0 * 100)


def test_answers_that_leave_are_paid_by_the_gb():
    case = owned(egress_usd_per_gb=0.1)
    assert usd("egress", case) == pytest.approx(2.5e9 * 200 / 1e9 * 0.1)


def test_downtime_costs_the_missed_tokens_at_the_apis_price():
    case = owned(gpu_failures_per_gpu_year=0.04, repair_days=4.0)
    assert usd("failures", case) == pytest.approx(40_000 * 8 * 0.04 * 4 * 24 / 8760)


def test_with_a_spare_a_failure_lasts_as_long_as_loading():
    fleet = steady(gpus=8, replicas=4, spare_replicas=4)
    case = replace(
        owned(gpu_failures_per_gpu_year=0.04, repair_days=4.0),
        offer=samples.bought(fleet, EXACT(30_000.0)),
        draws=Middle(),
    )
    assert usd("failures", case) == pytest.approx(40_000 * 4 * 0.04 * 20 / 3600 / 8760)
    assert usd("spares", case) == pytest.approx(4 * 30_000 / 36)
    assert usd("hardware", case) == pytest.approx(4 * 30_000 / 36)


def test_no_spare_is_added_that_nobody_asked_for():
    case = owned()
    alone = in_setting(case, fallback=None)
    assert usd("failures", alone) == 0
    assert usd("spares", alone) == 0
    assert float(alone.counts.nodes[0]) == 1


def test_what_if_a_cold_node_stood_by():
    case = owned()
    alone = in_setting(case, fallback=None, spare_node=True)
    assert usd("spares", alone) == pytest.approx(usd("hardware", case))
    assert float(alone.counts.nodes[0]) == 2


def test_gpus_of_a_board_that_no_replica_stands_on_idle():
    fleet = steady(gpus=8, replicas=3)
    one = replace(fleet, sized=replace(fleet.sized, ask=replace(fleet.sized.ask, gpus=1)))
    case = replace(owned(gpu_power_fraction=0.5), offer=samples.bought(one, EXACT(30_000.0)))
    assert float(it_kw(case)[0]) == pytest.approx((3 * 350 + 5 * 80) / 1000)


def test_measured_downtime_replaces_failure_rates():
    case = owned(gpu_failures_per_gpu_year=0.04, repair_days=4.0)
    measured = in_setting(case, missed_fraction=0.01)
    assert usd("failures", measured) == pytest.approx(400)


def test_a_gpu_that_turns_out_slower_gets_company_and_a_faster_one_is_kept():
    fleet = samples.fleet(
        gpus=8, replicas=8, capacity=Spread(30_000, 60_000, 120_000), peak_tokens_per_s=45_000.0
    )
    case = samples.case(samples.rented(fleet, EXACT(2.5)))
    counted: Callable[[str], float] = lambda end: float(  # noqa: E731
        replace(case, draws=Middle(ends={"h100-sxm:tokens_per_s": end})).counts.gpus[0]  # type: ignore[dict-item]
    )
    assert (counted("low"), counted("mid"), counted("high")) == (16, 8, 8)


def test_all_options_of_a_gpu_share_its_performance():
    draws, setting = Draws(500, 1), samples.setting()
    fleet = samples.fleet(capacity=Spread(30_000, 60_000, 90_000), peak_tokens_per_s=45_000.0)
    offers = (samples.rented(fleet), samples.bought(replace(fleet, storage="another")))
    both = [samples.case(offer, draws, setting=setting).counts.gpus for offer in offers]
    assert np.array_equal(*both)
    assert len(np.unique(both[0])) > 1


def test_draws_serve_one_setting():
    case = samples.case(samples.bought())
    with pytest.raises(AssertionError):
        replace(case, setting=samples.setting())


def test_a_box_with_one_card_is_not_a_whole_node():
    small, full = (
        samples.case(samples.bought(samples.fleet(gpus=n, replicas=n, capacity=EXACT(6000.0 * n))))
        for n in (1, 8)
    )
    assert float(small.counts.full_nodes[0]) == pytest.approx(0.2)
    assert float(full.counts.full_nodes[0]) == 1


def test_hosts_with_few_cards_draw_less_than_full_ones():
    case = replace(owned(gpu_power_fraction=0.5, host_kw=2.0), offer=samples.bought(steady(2, 2)))
    assert float(it_kw(case)[0]) == pytest.approx(2 * 0.35 + 0.25 * 2.0)


def test_each_rented_node_has_its_disks():
    case = samples.case(
        samples.rented(steady(24, 24)),
        setting=samples.setting(rent=samples.exact_rent(storage_usd_per_tb_month=80.0)),
    )
    assert usd("storage", case) == pytest.approx(3 * 2 * 8.03e9 / 1e12 * 80)


def test_running_costs_leave_out_all_that_was_paid_at_the_start():
    own = samples.exact_own(chassis_usd_per_gpu=10_000.0, power_usd_per_kwh=0.1, capital_rate_per_year=0.1)
    offer = samples.bought(steady(gpus=8, replicas=4, spare_replicas=4), EXACT(30_000.0))
    found = price(offer, samples.setting(own=own), draws=Middle())
    assert float(found.lines["spares"][0]) > 0
    assert float(found.running[0]) == pytest.approx(
        float(found.lines["electricity"][0] + found.lines["failures"][0]), rel=1e-5
    )
