"""Every rule of thumb with the figures that research gives for it, from the functions that plans use."""

from dataclasses import replace

import numpy as np
import pytest

import cost_samples as samples
from freehold.catalog.facts import EngineRatio, FailureRate, Verified
from freehold.core.spread import Spread
from freehold.cost.lines.electricity import it_kw
from freehold.cost.lines.failures import down_hours_per_node_year, missed_part
from freehold.cost.model.capex import capex_of
from freehold.cost.model.closed_form import (
    break_even_api_usd_per_m,
    break_even_tokens,
    break_even_utilisation,
    energy_usd_per_month,
    load_s,
    node_loss_probability,
    rental_for_utilisation,
)
from freehold.cost.model.draw import Draws, Middle, Vector
from freehold.cost.model.result import Rule
from freehold.cost.pricing.break_even import against_api
from freehold.cost.pricing.price import Priced, middle_usd, price
from freehold.cost.pricing.ranking import Ranking, ranking_of
from freehold.cost.rules import machines, money
from freehold.cost.rules.all_rules import rules_of
from freehold.sizing.fleet.links import balancer_mbit_s, tensor_crossing
from freehold.sizing.fleet.traffic import HOURS_PER_MONTH

EXACT = Spread.exactly
H100_MONTH = 2.69 * 730
PROVIDERS = np.array(
    [
        2.58,
        2.635,
        2.6661,
        2.9572,
        3.21,
        3.2126,
        3.3482,
        3.49,
        3.7969,
        3.8883,
        3.99,
        4.0811,
        4.4868,
        4.5,
        5.373,
        6.155,
    ]
)
"""Sixteen providers' H100 of 2026-10-24, USD per GPU-hour: catalog/data/rentals.yaml."""


def node(**own: object) -> Priced:
    """An eight-GPU node as research's base case has it: one price for all of it, 7 kW of 10.2 contracted."""
    count = int(own.pop("nodes", 1))  # type: ignore[call-overload]
    usd, it_w = own.pop("usd", EXACT(300_000.0)), own.pop("it_w", EXACT(7000.0 * count))
    colo = samples.assumed("colo_usd_per_kw_month", own.pop("colo", 184.0), samples.COLO)  # type: ignore[arg-type]
    draws = own.pop("draws", Middle())
    fleet = samples.fleet(gpus=8 * count, replicas=8 * count, capacity=EXACT(48_000.0 * count))
    assumed = replace(samples.exact_own(host_kw=4.6, **own), colo_usd_per_kw_month=colo)
    assumed = replace(
        assumed, staff_fte=replace(assumed.staff_fte, asked=True)
    )  # research says it of the whole fleet
    setting = samples.setting(own=assumed, node_usd=usd, measured_it_w=it_w)
    return price(samples.bought(fleet), setting, draws=draws)  # type: ignore[arg-type]


def gpu_hour(priced: Priced) -> Vector:
    return priced.total / priced.case.counts.gpus / 730


def rule(ranking: Ranking, start: str) -> Rule:
    return next(each for each in rules_of(ranking) if each.claim.startswith(start))


def ranking(**changes: object) -> Ranking:
    return ranking_of(samples.inputs(**changes))


# ---- H100 25,000 to 30,000 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "mid", "high", "verdict"),
    [
        (25_000, 28_000, 40_000, "holds"),
        (25_000, 32_000, 40_000, "depends"),
        (35_000, 38_000, 40_000, "does not hold"),
    ],
)
def test_h100_price(low: float, mid: float, high: float, verdict: str):
    fleet = samples.fleet(samples.gpu(price_new_usd=Spread(low, mid, high)))
    found = rule(ranking(fleets=(fleet,)), "An H100 costs")
    assert found.verdict == verdict
    assert f"{low:,.0f} to {high:,.0f} USD" in found.computed


# ---- +40 to 60 % infrastructure; a node costs more than 200,000 --------------------------------------------------


@pytest.mark.parametrize(("quote", "added"), [(270e3, 0.23), (310e3, 0.41), (317e3, 0.44), (350e3, 0.59)])
def test_quotes_over_their_gpus(quote: float, added: float):
    fleet = samples.fleet(samples.gpu(price_new_usd=EXACT(27_500.0)), capacity=EXACT(48_000.0))
    plain = samples.exact_own()
    found = rule(
        ranking(fleets=(fleet,), own=plain, quotes={"node_usd": EXACT(quote)}), "Infrastructure adds"
    )
    assert f"adds {added:.0%}" in found.computed
    assert found.verdict == ("holds" if 0.4 <= added <= 0.6 else "does not hold")


def test_a_node_by_the_guides_own_arithmetic():
    low, high = 8 * 25_000 * 1.4, 8 * 30_000 * 1.6
    assert (low, high) == (280_000, 384_000)
    fleet = samples.fleet(samples.gpu(price_new_usd=EXACT(25_000.0)), capacity=EXACT(48_000.0))
    own = samples.exact_own(chassis_usd_per_gpu=10_000.0)
    found = rule(ranking(fleets=(fleet,), own=own), "An 8-GPU node costs")
    assert found.verdict == "holds"
    assert "280,000 USD" in found.computed
    own = samples.exact_own()
    cheap = samples.fleet(samples.gpu(price_new_usd=EXACT(20_000.0)), capacity=EXACT(48_000.0))
    assert rule(ranking(fleets=(cheap,), own=own), "An 8-GPU node costs").verdict == "does not hold"


# ---- 12 to 15 kW; 0.12 USD per kWh; 2,500 colocation; power and hardware -----------------------------------------


def test_node_power():
    own = samples.own(gpu_power_fraction=(0.43, 0.6, 0.86), host_kw=2.0)
    fleet = samples.fleet(capacity=EXACT(48_000.0))
    case = samples.case(samples.bought(fleet), own=own)
    drawn = [
        float(it_kw(replace(case, draws=Middle(ends={"gpu_power_fraction": end})))[0])
        for end in ("low", "high")
    ]  # type: ignore[dict-item]
    assert drawn == pytest.approx([4.4, 6.8], abs=0.02)
    assert pytest.approx((12.0, 15.0), abs=0.05) == (10.2 * 1.18, 10.2 * 1.47)
    found = rule(ranking(), "An 8-GPU node draws")
    assert found.verdict == "depends"
    assert "at most 10.2" in found.computed


def test_energy_arithmetic():
    assert [round(energy_usd_per_month(kw, 0.12)) for kw in (12, 15)] == [1051, 1314]
    assert [round(energy_usd_per_month(kw, 0.146)) for kw in (12, 15)] == [1279, 1599]
    assert round(energy_usd_per_month(8.4, 0.12, pue=1.3)) == 957
    found = rule(ranking(), "12-15 kW at 0.12")
    assert found.verdict == "does not hold"
    assert "1,051-1,314 USD" in found.computed
    for usd, kw in ((1300, 12), (1600, 15)):
        # a PUE counted a second time, or 14.6 to 14.8 cents
        assert usd / energy_usd_per_month(kw, 0.12) == pytest.approx(1.23, abs=0.015)
        assert usd / (kw * 730) == pytest.approx(0.147, abs=0.0015)


def test_colocation():
    priced = node(it_w=EXACT(8400.0), pue_ratio=1.3, power_usd_per_kwh=0.12)
    space, energy = (float(priced.lines[name][0]) for name in ("colocation", "electricity"))
    assert (round(space), round(energy)) == (1877, 957)
    assert space + energy == pytest.approx(2834, abs=1)
    assert rule(ranking(), "Colocation of a node").verdict == "holds"
    assert rule(ranking(own_site="on-premises"), "Colocation of a node").verdict == "unknown"


def test_power_over_hardware():
    over = [
        usd * 36 / hardware for usd, hardware in ((1300, 384e3), (1600, 200e3), (2500, 384e3), (2500, 200e3))
    ]
    assert over == pytest.approx([0.12, 0.29, 0.23, 0.45], abs=0.006)
    assert [round(0.5 * hardware / 36) for hardware in (200e3, 300e3)] == [2778, 4167]
    priced = ranged_node((0.05, 0.175, 0.3))
    part = np.percentile(priced.lines["electricity"] * 36 / capex_of(priced.case).total, (5, 50, 95))
    assert part == pytest.approx([0.05, 0.09, 0.17], abs=0.01)
    assert float(np.median(priced.lines["electricity"] / priced.total)) == pytest.approx(0.05, abs=0.006)
    assert rule(ranking(), "Power costs more").verdict == "does not hold"


def test_power_is_over_half_where_it_is_dear_enough():
    own = samples.own(power_usd_per_kwh=2.0)
    assert rule(ranking(own=own), "Power costs more").verdict == "holds"


# ---- three years in a straight line ------------------------------------------------------------------------------


def base(**changes: object) -> Priced:
    """Research's base case of 2.94 USD per GPU-hour: 10 %, 20 % left, 5 % maintenance, 0.25 FTE.

    What research does not say is read as: 300,000 USD a node, 1 % insurance, 220,000 USD a year, 0.146 USD per kWh.
    """
    row: dict[str, object] = {
        "residual_fraction": 0.2,
        "capital_rate_per_year": 0.1,
        "maintenance_fraction_per_year": 0.05,
        "insurance_fraction_per_year": 0.01,
        "staff_fte": 0.25,
        "staff_usd_per_year": 220_000.0,
        "power_usd_per_kwh": 0.146,
        "pue_ratio": 1.3,
    }
    return node(**{**row, **changes})


def test_three_or_five_years():
    three, five = float(base().total[0]), float(base(life_months=60.0).total[0])
    assert three == pytest.approx(17_200, rel=0.005)
    assert five == pytest.approx(14_700, rel=0.02)
    assert 1 - five / three == pytest.approx(0.14, abs=0.02)
    assert rule(ranking(), "Hardware is written off").verdict == "depends"


# ---- rent below 200M tokens --------------------------------------------------------------------------------------

BILLS = {
    "haiku-5-5 or gpt-6-luna": (0.1, 0.5, 40),
    "gpt-oss-120b at Groq": (0.15, 0.6, 52.5),
    "Llama-70B at Together": (0.88, 0.88, 176),
    "terra or haiku-4-5": (1.0, 5.0, 400),
    "sonnet-5-5": (2.0, 10.0, 800),
    "opus-5-5": (4.0, 20.0, 1600),
}


@pytest.mark.parametrize(("entry", "exit_", "usd"), BILLS.values(), ids=BILLS)
def test_200m_tokens_at_an_api(entry: float, exit_: float, usd: float):
    setting = samples.setting(traffic=samples.traffic(200e6))
    offer = samples.called(samples.offered(samples.api(prices=(entry, exit_))))
    assert middle_usd(offer, setting) == pytest.approx(usd)


BREAK_EVENS = {
    "opus-5-5": (4.0, 20.0, 246e6),
    "sonnet-5-5": (2.0, 10.0, 491e6),
    "terra": (1.0, 5.0, 982e6),
    "Llama-70B at Together": (0.88, 0.88, 2.2e9),
    "small tier": (0.1, 0.5, 9.8e9),
    "Llama-8B at Groq": (0.05, 0.08, 34e9),
}


@pytest.mark.parametrize(("entry", "exit_", "tokens"), BREAK_EVENS.values(), ids=BREAK_EVENS)
def test_break_even_of_one_rented_h100(entry: float, exit_: float, tokens: float):
    assert break_even_tokens(H100_MONTH, api_usd_per_m=0.75 * entry + 0.25 * exit_) == pytest.approx(
        tokens, rel=0.02
    )
    fleet = samples.fleet(gpus=1, replicas=1, capacity=EXACT(64e9 / 2_628_000), peak_tokens_per_s=1.0)
    setting = samples.setting(rent=samples.exact_rent())
    api = samples.called(samples.offered(samples.api(prices=(entry, exit_))))
    mine, other = (price(each, setting, draws=Middle()) for each in (samples.rented(fleet, EXACT(2.69)), api))
    assert float(against_api(mine, other).tokens[0]) == pytest.approx(tokens, rel=0.02)


def test_200m_tokens_are_little_for_one_gpu():
    assert pytest.approx(76, abs=0.2) == 200e6 / 2_628_000
    assert pytest.approx([1964, 2913], abs=1) == [730 * 2.69, 730 * 3.99]
    assert break_even_api_usd_per_m(H100_MONTH, 200e6) == pytest.approx(9.8, abs=0.05)
    assert break_even_api_usd_per_m(2.0 * 730, 200e6) == pytest.approx(7.3, abs=0.01)
    found = rule(ranking(rent=samples.exact_rent()), "Rent below 200M")
    assert found.verdict == "does not hold"
    assert "costs 800 USD" in found.computed
    assert "1,964" in found.computed
    assert "above 9.82 USD" in found.computed
    dear = rule(
        ranking(rent=samples.exact_rent(), apis=(samples.api(prices=(20.0, 60.0)),)), "Rent below 200M"
    )
    assert dear.verdict == "holds"


# ---- buy above 65 % ----------------------------------------------------------------------------------------------


def ranged_node(fte: tuple[float, float, float], *, nodes: int = 1) -> Priced:
    """Research's ranges: capex 240-300-384k, residual 5-20-35 %, WACC 6-10-15 %, 5-7-8.4 kW, colocation 130-184-300 …"""
    return node(
        nodes=nodes,
        usd=Spread(240e3, 300e3, 384e3),
        it_w=Spread(5000.0 * nodes, 7000.0 * nodes, 8400.0 * nodes),
        colo=(130, 184, 300),
        residual_fraction=(0.05, 0.2, 0.35),
        capital_rate_per_year=(0.06, 0.1, 0.15),
        pue_ratio=(1.15, 1.3, 1.58),
        power_usd_per_kwh=(0.07, 0.12, 0.2),
        maintenance_fraction_per_year=(0.02, 0.05, 0.08),
        staff_usd_per_year=(160e3, 220e3, 300e3),
        staff_fte=fte,
        draws=Draws(40_000, seed=11),
    )


def test_the_guides_65_percent_is_a_rental_price():
    guide = node(usd=EXACT(330_000.0), colo=2500 / 10.2)
    assert float(gpu_hour(guide)[0]) == pytest.approx(2.0, abs=0.005)
    assert rental_for_utilisation(float(gpu_hour(guide)[0]), 0.65) == pytest.approx(3.08, abs=0.01)
    assert float(gpu_hour(base())[0]) == pytest.approx(2.94, abs=0.005)
    assert rental_for_utilisation(float(gpu_hour(base())[0]), 0.65) == pytest.approx(4.52, abs=0.01)
    assert float(base().total[0]) / 8 / HOURS_PER_MONTH == pytest.approx(float(gpu_hour(base())[0]))


@pytest.mark.parametrize(
    ("fte", "nodes", "median", "band", "wins"),
    [
        ((0.05, 0.175, 0.3), 1, 0.76, (0.46, 1.12), 0.28),
        ((0.1, 0.55, 1.0), 1, 1.01, (0.59, 1.63), 0.09),
        ((0.5, 1.0, 2.0), 10, 0.69, (0.42, 1.01), 0.41),
    ],
)
def test_break_even_utilisation_over_sixteen_providers(
    fte: tuple[float, float, float], nodes: int, median: float, band: tuple[float, float], wins: float
):
    # Research drew from triangles and does not say the FTE of its ten nodes: the middle within 3 points, the rest roughly
    hourly = gpu_hour(ranged_node(fte, nodes=nodes))
    used = hourly / np.random.default_rng(3).choice(PROVIDERS, hourly.size)
    low, middle, high = np.percentile(used, (5, 50, 95))
    assert np.median(PROVIDERS) == pytest.approx(3.64, abs=0.01)
    assert middle == pytest.approx(median, abs=0.03)
    assert low == pytest.approx(band[0], abs=0.06)
    assert high == pytest.approx(band[1], rel=0.12)
    assert float(np.mean(used < 0.65)) == pytest.approx(wins, abs=0.08)


def test_against_aws_and_a_reservation():
    few, many = (gpu_hour(ranged_node(fte)) for fte in ((0.05, 0.175, 0.3), (0.1, 0.55, 1.0)))
    middles = [break_even_utilisation(float(np.median(each)), 6.88) for each in (few, many)]
    assert middles == pytest.approx([0.36, 0.53], abs=0.03)
    assert float(np.mean(many < 2.35)) == pytest.approx(0.07, abs=0.03)


def test_utilisation_above_one_is_worded_as_never():
    near = rule(ranking(rentals=(samples.rental(4.34),)), "Buy above 65%")
    assert near.verdict == "holds"
    assert "65% utilisation." in near.computed
    cheap = rule(ranking(rentals=(samples.rental(1.5),)), "Buy above 65%")
    assert cheap.verdict == "does not hold"
    assert "never at this rental price" in cheap.computed
    assert rule(ranking(rentals=(samples.rental(2.99),)), "Buy above 65%").verdict == "depends"


# ---- engines, networks, disks, rebuilds, spares, failures ---------------------------------------------------------


def ratio(median: float, iqr: tuple[float, float]) -> dict[str, EngineRatio]:
    row = EngineRatio(
        id="trtllm-over-vllm",
        median=median,
        iqr=iqr,
        matched_pairs=304,
        share_ge_1_3=0.079,
        source="matched pairs",
        as_of=samples.FRESH,
        verified=Verified.RAN,
    )
    return {row.id: row}


def test_tensorrt_llm_is_not_30_percent_faster():
    inputs = samples.inputs(catalog=samples.catalog(engine_ratios=ratio(1.108, (1.047, 1.191))))
    found = rule(ranking_of(inputs), "TensorRT-LLM is 30-50%")
    assert found.verdict == "does not hold"
    assert all(part in found.computed for part in ("304", "+10.8%", "+5% to +19%", "7.9%"))
    other = samples.inputs(catalog=samples.catalog(engine_ratios=ratio(1.35, (1.2, 1.5))))
    assert rule(ranking_of(other), "TensorRT-LLM is 30-50%").verdict == "holds"


def test_tensorrt_llm_builds_are_dated():
    found = rule(ranking(), "TensorRT-LLM needs")
    assert found.verdict == "depends"
    assert "not in this plan (vllm)" in found.computed


LINKS = {"1gbe": (0.117, 50, 30, 725), "10gbe": (1.17, 40, 8.6, 78)}


@pytest.mark.parametrize(("gb_s", "latency_us", "one", "many"), LINKS.values(), ids=LINKS)
def test_tensor_parallel_of_70b_across_nodes(gb_s: float, latency_us: float, one: float, many: float):
    for sequences, expected in ((1, one), (32, many)):
        link = replace(samples.LINKS["10gbe"], effective_gb_s_per_dir=gb_s, latency_us=latency_us)
        shape = replace(samples.SHAPE, layers=80, hidden=8192)
        extra = tensor_crossing(shape, link, ranks=2, sequences=sequences).decode_ms
        assert extra == pytest.approx(expected, rel=0.03)


def test_a_slow_network_is_enough_for_replicas_and_not_for_splits():
    assert balancer_mbit_s(10_000) == pytest.approx(16)
    assert rule(ranking(), "1/10 GbE").verdict == "does not hold"
    fleet = samples.fleet()
    across = replace(fleet, sized=replace(fleet.sized, ask=replace(fleet.sized.ask, gpus=16)))
    assert rule(ranking(fleets=(across,)), "1/10 GbE").verdict == "holds"


def test_nas_to_nvme():
    assert machines.swap_bytes(0.2) == pytest.approx(182e6, rel=0.005)
    found = rule(ranking(), "Moving weights")
    assert found.verdict == "does not hold"
    assert "182 MB" in found.computed


def test_rebuild_in_an_hour():
    assert load_s(141e9, 0.117) / 60 == pytest.approx(20, abs=0.2)
    assert load_s(141e9, 1.17) / 60 == pytest.approx(2.0, abs=0.02)
    fleet = samples.fleet()
    big = replace(fleet, sized=replace(fleet.sized, weights_bytes=141_000_000_000))
    found = rule(ranking(fleets=(big,)), "A node is rebuilt")
    assert found.verdict == "holds"
    assert "20.1 min over 1 GbE" in found.computed
    slow = replace(big, load_time_s=Spread(1000, 3000, 9000))
    assert rule(ranking(fleets=(slow,)), "A node is rebuilt").verdict == "does not hold"


def test_failures_of_a_node():
    assert [node_loss_probability(afr, 8) for afr in (0.025, 0.04, 0.06)] == pytest.approx(
        [0.18, 0.28, 0.39], abs=0.005
    )
    for afr, hours, up in ((0.025, 19, 0.9978), (0.06, 46, 0.9947)):
        case = node(gpu_failures_per_gpu_year=afr, repair_days=4.0).case
        assert float(down_hours_per_node_year(case)[0]) == pytest.approx(hours, abs=0.5)
        assert 1 - float(missed_part(case)[0]) == pytest.approx(up, abs=0.0001)


def test_a_spare_costs_one_nth():
    for nodes in (1, 10):
        priced = node(nodes=nodes)
        setting = replace(priced.case.setting, fallback=None, spare_node=True)
        spared = price(priced.offer, setting, draws=Middle())
        assert float(spared.lines["spares"][0] / spared.lines["hardware"][0]) == pytest.approx(1 / nodes)
    assert rule(ranking(), "Keep a cold spare").verdict == "does not hold"
    dear = samples.inputs(apis=(samples.api(prices=(400.0, 2000.0)),))
    assert rule(ranking_of(dear), "Keep a cold spare").verdict == "holds"


LLAMA3 = (
    ("faulty_gpu", "gpu", 148, 0.06106),
    ("hbm3", "gpu", 72, 0.0297),
    ("gpu_rest", "gpu", 48, 0.0198),
    ("software", "dependency", 76, 0.0313),
    ("network", "network", 75, 0.031),
)


def test_llama3_failures_sum_to_419():
    rows = tuple(
        FailureRate(
            cause=cause,
            group=group,
            count=count,
            rate_per_gpu_year=rate,
            source="Llama 3 paper",
            as_of=samples.FRESH,
            verified=Verified.READ,
        )
        for cause, group, count, rate in LLAMA3
    )
    found = rule(ranking_of(samples.inputs(catalog=samples.catalog(failures=rows))), "Llama-3-style")
    assert found.verdict == "holds"
    assert all(part in found.computed for part in ("419", "35.3%", "64.0%", "17.3%", "1.38", "28%", "31 h"))
    less = samples.inputs(catalog=samples.catalog(failures=rows[1:]))
    assert rule(ranking_of(less), "Llama-3-style").verdict == "depends"


# ---- without data --------------------------------------------------------------------------------------------------


def test_without_numbers_nothing_holds():
    empty = samples.inputs(fleets=(), apis=(), rentals=())
    verdicts = {each.claim: each.verdict for each in rules_of(ranking_of(empty))}
    assert len(verdicts) == len(money.MONEY_RULES) + len(machines.MACHINE_RULES) == 17
    assert set(verdicts.values()) == {"unknown", "depends"}
    assert [claim for claim, verdict in verdicts.items() if verdict == "depends"] == [
        "TensorRT-LLM needs a fragile build per model and GPU"
    ]


def test_at_200m_it_is_the_fleet_that_is_cheapest_there():
    big = samples.fleet()
    few = samples.fleet(samples.gpu(id="small"), gpus=64, replicas=64, capacity=Spread.exactly(64 * 900.0))
    rentals = (samples.rental(), samples.rental(0.9, gpu="small"))
    found = rule(ranking(rent=samples.exact_rent(), fleets=(big, few), rentals=rentals), "Rent below 200M")
    assert "small, 657" in found.computed  # the H100 is the cheaper at 10 billion tokens


def test_the_price_of_a_node_is_the_quote_for_it():
    quotes = {"node_usd": Spread.exactly(190_000.0)}
    found = rule(ranking(quotes=quotes), "An 8-GPU node costs")
    assert "Your quote for eight h100-sxm is 190,000 USD" in found.computed
    assert found.verdict == "does not hold"
    cards = {"fleets": (samples.fleet(samples.gpu(id="l40s")),)}
    catalog = samples.catalog(gpus={"h100-sxm": samples.gpu()})
    other = rule(ranking(quotes=quotes, catalog=catalog, **cards), "An 8-GPU node costs")
    assert other.computed == rule(ranking(catalog=catalog, **cards), "An 8-GPU node costs").computed
