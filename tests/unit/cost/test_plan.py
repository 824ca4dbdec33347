from dataclasses import replace
from datetime import date

import numpy as np
import pytest

import cost_samples as samples
from freehold.catalog.facts import RentalKind, Verified
from freehold.core.spread import Spread
from freehold.cost.model.draw import Middle
from freehold.cost.model.fleet_counts import counts_of
from freehold.cost.plan import plan
from freehold.cost.pricing.break_even import break_even
from freehold.cost.pricing.influence import unit_of
from freehold.cost.pricing.price import middle_usd
from freehold.cost.pricing.ranking import given_names, ranking_of
from freehold.sizing.fleet.traffic import BadRow

EXACT = Spread.exactly


def test_every_api_rental_and_purchase_is_an_option_once_and_the_cheapest_first():
    fleets = (samples.fleet(), samples.fleet(gpus=16, replicas=16))
    rentals = (
        samples.rental(),
        samples.rental(3.49, "lambda"),
        samples.rental(2.2, kind=RentalKind.RESERVED, term_months=12),
    )
    found = plan(samples.inputs(fleets=fleets, rentals=rentals))
    assert [sum(each.kind == kind for each in found.options) for kind in ("api", "rent", "buy")] == [2, 6, 2]
    assert len({each.id for each in found.options}) == len(found.options)
    costs = [each.usd_per_month.p50 for each in found.options]
    assert costs == sorted(costs)
    assert [each.id for each in found.options if each.paid_today] == ["api-anthropic-sonnet"]
    assert any(each.terms == "reserved 12 months" for each in found.options)
    assert all(each.sources for each in found.options)


def test_boards_are_bought_whole_and_rented_in_parts():
    card = samples.gpu(sold_in=8)
    fleet = samples.fleet(card, gpus=2, replicas=2, capacity=Spread.exactly(12_000.0))
    found = plan(samples.inputs(fleets=(fleet,), own=samples.exact_own(), draws=200))
    rented = next(each for each in found.options if each.kind == "rent")
    bought = next(each for each in found.options if each.kind == "buy")
    assert (rented.count, bought.count, bought.replicas) == (2, 8, 2)
    assert bought.capital_usd
    assert bought.capital_usd.p50 == pytest.approx(8 * 28_000, rel=0.03)
    assert (rented.utilisation, bought.utilisation) == (0.3, pytest.approx(0.3 / 4))


def test_idle_gpus_count_as_paid_for():
    fleet = samples.fleet(gpus=8, replicas=5, capacity=Spread.exactly(30_000.0), utilisation=0.5)
    one = replace(fleet, sized=replace(fleet.sized, ask=replace(fleet.sized.ask, gpus=1)))
    found = plan(
        samples.inputs(fleets=(one,), apis=(samples.api(),), rentals=(samples.rental(0.5),), draws=200)
    )
    assert next(each for each in found.options if each.kind == "rent").utilisation == pytest.approx(
        0.5 * 5 / 8
    )
    assert "31% used" in found.verdict.text
    assert "of 8 GPUs 3 are idle" in found.verdict.text


def test_growth_says_what_it_moves():
    quiet, growing = (plan(samples.inputs(growth_per_month=growth, draws=500)) for growth in (0.0, 0.05))
    assert not any("growth" in note for note in quiet.notes)
    note = next(note for note in growing.notes if "growth" in note)
    assert "17.96B tokens a month" in note or "18B tokens a month" in note
    assert "today's traffic" in note


def test_a_tornado_says_what_it_is_of():
    found = plan(samples.inputs(draws=500))
    assert found.tornado_option in {each.id for each in found.options if each.kind != "api"}
    assert found.tornado_against == "api-anthropic-sonnet"
    assert found.verdict.option in {each.option for each in found.curves}


def test_what_nobody_answers_for_is_said():
    alone = plan(samples.inputs(fallback_api=False, draws=200))
    assert any(note.startswith("neither an API nor a spare answers") for note in alone.notes)
    spared = samples.fleet(gpus=16, replicas=8, spare_replicas=8)
    noted = plan(samples.inputs(fleets=(spared,), fallback_api=False, draws=200)).notes
    assert any("8 spare replicas and no API answer while" in note for note in noted)
    assert not any("answer" in note for note in plan(samples.inputs(draws=200)).notes)


def test_a_rental_for_nothing_is_a_price():
    free = plan(samples.inputs(quotes={"rental_usd_per_gpu_hour": Spread.exactly(0.0)}, draws=200))
    quoted = next(each for each in free.options if each.provider == "quote")
    assert quoted.lines["rental"].p50 == 0
    assert not any(np.isnan(each.utilisation.p50) for each in free.break_even if each.utilisation)


def test_two_fleets_of_one_gpu_and_count_have_ids_that_tell_them_apart():
    other = samples.fleet()
    other = replace(other, sized=replace(other.sized, ask=replace(other.sized.ask, engine="sglang")))
    found = plan(samples.inputs(fleets=(samples.fleet(), other), rentals=(samples.rental(),)))
    assert {each.id for each in found.options if each.kind == "rent"} == {
        "rent-runpod-h100-sxm-8",
        "rent-runpod-h100-sxm-8-sglang-fp8",
    }


def test_a_plan_says_what_its_lines_and_tokens_come_to():
    found = plan(samples.inputs(rentals=(samples.rental(),)))
    bought = next(each for each in found.options if each.kind == "buy")
    assert set(bought.lines) == {
        "capital",
        "colocation",
        "egress",
        "electricity",
        "failures",
        "hardware",
        "host_ram",
        "insurance",
        "maintenance",
        "network",
        "spares",
        "staff",
        "storage",
    }
    assert bought.usd_per_million_tokens.p50 == pytest.approx(bought.usd_per_month.p50 / 10_000)
    assert bought.capital_usd is not None
    assert bought.capital_usd.p50 > 224_000
    assert next(each for each in found.options if each.kind == "api").capital_usd is None


def test_break_evens_are_against_the_api_in_use_the_same_model_and_a_rental():
    found = plan(samples.inputs(rentals=(samples.rental(),)))
    pairs = {(each.option, each.against) for each in found.break_even}
    rented, bought = "rent-runpod-h100-sxm-8", "buy-colocation-h100-sxm-8"
    apis = ("api-anthropic-sonnet", "api-groq-llama-8b-instant")
    assert pairs == {(mine, api) for mine in (rented, bought) for api in apis} | {(bought, rented)}
    assert {each.option for each in found.break_even if each.payback_month} == {bought}


def test_the_tornado_finds_every_input_and_puts_the_rental_markets_width_first():
    found = plan(samples.inputs(rentals=(samples.rental(1.5), samples.rental(6.0, "dear"))))
    names = [each.name for each in found.tornado]
    assert names[0] == "rental_usd_per_gpu_hour"
    assert set(names) == {
        "rental_usd_per_gpu_hour",
        "rent_staff_fte",
        "staff_usd_per_year",
        "storage_usd_per_tb_month",
        "egress_usd_per_gb",
    }
    first = found.tornado[0]
    assert (first.low_value, first.high_value, first.unit, first.asked) == (
        1.5,
        6.0,
        "USD per gpu hour",
        False,
    )
    assert first.usd_per_month_at_high - first.usd_per_month_at_low == pytest.approx(8 * 730 * 4.5)
    rented, called = (8 * 730 * 1.5, 40_000)
    around = rented - called + 4000  # staff, storage and egress at their middle are below that
    assert rented - called < first.usd_per_month_at_low < around
    staff = next(each for each in found.tornado if each.name == "rent_staff_fte")
    assert staff.usd_per_month_at_high - staff.usd_per_month_at_low == pytest.approx(0.18 * 220_000 / 12)
    swings = [abs(each.usd_per_month_at_high - each.usd_per_month_at_low) for each in found.tornado]
    assert swings == sorted(swings, reverse=True)


def test_a_quote_is_told_and_moves_the_tornado_no_more():
    inputs = samples.inputs(quotes={"rental_usd_per_gpu_hour": EXACT(1.5)})
    found = plan(inputs)
    assert "rental_usd_per_gpu_hour" not in {each.name for each in found.tornado}
    node = plan(samples.inputs(quotes={"node_usd": EXACT(200_000.0)}))
    assert any("quote for a server" in note for note in node.notes)


def test_curves_are_of_traffic_and_sensitivities_of_price_and_staff():
    found = plan(samples.inputs(rentals=(samples.rental(),)))
    assert [each.option for each in found.curves] == [
        "api-anthropic-sonnet",
        "api-groq-llama-8b-instant",
        "rent-runpod-h100-sxm-8",
        "buy-colocation-h100-sxm-8",
    ]
    for curve in found.curves:
        assert curve.over == "tokens_per_month"
        assert list(curve.usd_per_month) == sorted(curve.usd_per_month)
    for curve in found.curves[2:]:
        assert (
            curve.usd_per_month[-1] > 500 * curve.usd_per_month[12]
        )  # a thousand times today's traffic takes as many machines
    middle = len(found.curves[0].x) // 2
    assert found.curves[0].x[middle] == pytest.approx(10e9)
    assert found.curves[0].usd_per_month[middle] == pytest.approx(40_000)
    varied = {(each.option.split("-")[0], each.over): each for each in found.sensitivity}
    assert set(varied) == {
        (kind, over) for kind in ("rent", "buy") for over in ("rental_usd_per_gpu_hour", "staff_fte")
    }
    rented = varied["rent", "rental_usd_per_gpu_hour"]
    rise = rented.usd_per_month[-1] - rented.usd_per_month[0]
    assert rise == pytest.approx(8 * 730 * (rented.x[-1] - rented.x[0]))
    assert len(set(varied["buy", "rental_usd_per_gpu_hour"].usd_per_month)) == 1


def test_notes_tell_what_the_plan_cannot_know():
    traffic = samples.traffic(paid_usd_per_month=20_000.0)
    found = plan(samples.inputs(traffic=traffic, paid_today="", own_site="on-premises"))
    assert any("the API in use today is not given" in note for note in found.notes)
    assert any("not priced" in note for note in found.notes)
    billed = plan(samples.inputs(traffic=traffic))
    paid = next(each for each in billed.options if each.paid_today)
    assert (paid.usd_per_month.p50, paid.terms) == (pytest.approx(20_000), "as billed")
    assert "20,000" in paid.warnings[-1]
    near = plan(samples.inputs(traffic=samples.traffic(paid_usd_per_month=43_000.0)))
    assert next(each for each in near.options if each.paid_today).usd_per_month.p50 == pytest.approx(40_000)
    assert any("20,000" in note and "40,000" in note for note in billed.notes)
    assert not any("20,000" in note for note in plan(samples.inputs(traffic=samples.traffic())).notes)


def test_the_models_of_a_history_are_shown_by_their_part():
    by_model = (("big", 6e9), *((f"m{index}", 1e9) for index in range(6)))
    found = plan(samples.inputs(traffic=samples.traffic(by_model=by_model)))
    assert found.summary["by_model"] == "big 50%, m0 8%, m1 8%, m2 8%, m3 8%, 2 more"
    assert "by_model" not in plan(samples.inputs()).summary


def test_rows_that_were_left_out_are_counted_and_shown():
    bad = tuple(BadRow(where=f"usage.csv:{line}", reason="no number") for line in range(2, 102))
    traffic = samples.traffic(bad_rows=bad, bad_rows_total=1234, rows_total=5000)
    assert plan(samples.inputs(traffic=traffic)).notes[0] == (
        "1,234 of 5,000 rows could not be used: usage.csv:2 (no number), usage.csv:3 (no number), "
        "usage.csv:4 (no number), usage.csv:5 (no number), usage.csv:6 (no number), 1,229 more"
    )
    one = samples.traffic(bad_rows=bad[:1], bad_rows_total=1, rows_total=2)
    assert plan(samples.inputs(traffic=one)).notes[0].endswith("not be used: usage.csv:2 (no number)")
    assert not any("could not be used" in note for note in plan(samples.inputs()).notes)


def test_without_anything_to_compare_there_is_still_a_plan():
    found = plan(samples.inputs(fleets=(), apis=(), rentals=()))
    assert found.options == ()
    assert found.verdict.word == "undecided"
    assert (found.break_even, found.tornado, found.curves) == ((), (), ())
    lonely = plan(samples.inputs(fleets=(), rentals=()))
    assert lonely.verdict.word == "change-api"
    empty = plan(samples.inputs(traffic=samples.traffic(0.0)))
    assert empty.verdict.word == "stay"


def test_a_fleet_that_does_not_fit_is_listed_with_its_reason():
    unfit = samples.fleet(fits=False, why_not="weights are 141 GB", capacity=EXACT(0.0), replicas=1)
    found = plan(samples.inputs(fleets=(replace(unfit, replicas=0),), rentals=(samples.rental(),)))
    machines = [each for each in found.options if each.kind != "api"]
    assert machines
    assert all("141 GB" in each.incomplete[0] for each in machines)


def test_shared_assumptions_are_drawn_once():
    found = plan(samples.inputs())
    assert [each["name"] for each in found.assumptions].count("staff_usd_per_year") == 1


def test_old_assumptions_are_widened_unless_the_user_said_them():
    old = replace(samples.FACT, as_of=date(2025, 11, 27))
    assumed = samples.assumed("chassis_usd_per_gpu", (8000, 10_000, 12_000), old)
    for asked in (True, False):
        own = replace(samples.own(), chassis_usd_per_gpu=replace(assumed, asked=asked))
        row = next(each for each in plan(samples.inputs(own=own)).assumptions if each["name"] == assumed.name)
        assert (row["high"] == 12_000) == asked
        assert float(row["high"]) >= 12_000
        assert row["mid"] == 10_000


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("power_usd_per_kwh", "USD per kwh"),
        ("pue_ratio", "ratio"),
        ("rent_staff_fte", "fte"),
        ("maintenance_fraction_per_year", "fraction per year"),
        ("runpod on-demand h100-sxm:rental_usd_per_gpu_hour", "USD per gpu hour"),
        ("h100-sxm:tokens_per_s", "tokens per s"),
    ],
)
def test_units_are_read_off_names(name: str, unit: str):
    assert unit_of(name) == unit


def test_curves_cross_where_the_break_even_says():
    one = samples.fleet(gpus=1, replicas=1, capacity=EXACT(6000.0), peak_tokens_per_s=200.0)
    ranking = ranking_of(
        samples.inputs(
            apis=(samples.api(),),
            rentals=(samples.rental(),),
            traffic=samples.traffic(100e6),
            fleets=(one,),
        )
    )
    rented, api = ranking.best("rent"), ranking.best("api")
    assert rented is not None
    assert api is not None
    even = break_even(rented.priced, api.priced).tokens_per_month
    assert even is not None
    gaps = [
        middle_usd(api.offer, ranking.setting, tokens_scale=scale, fleet_scale=scale)
        - middle_usd(rented.offer, ranking.setting, tokens_scale=scale, fleet_scale=scale)
        for scale in (even.p50 * part / 100e6 for part in (0.95, 1.05))
    ]
    assert gaps[0] < 0 < gaps[1]


def test_a_fleet_with_room_does_not_grow_with_its_traffic():
    roomy = samples.fleet(gpus=8, replicas=8, capacity=EXACT(48_000.0), peak_tokens_per_s=10.0)
    replicas = [float(counts_of(roomy, Middle(), scale=scale).replicas[0]) for scale in (0, 1, 20, 10_000)]
    assert replicas == [1, 8, 8, 17]


def test_a_quote_stands_for_all_rentals_of_that_gpu():
    other = samples.fleet(samples.gpu(id="l40s"))
    rentals = (samples.rental(1.0), samples.rental(1.0, gpu="l40s"))
    quotes = {"rental_usd_per_gpu_hour:h100-sxm": Spread(2.9, 3.0, 3.1), "node_usd": Spread(2e5, 2.1e5, 3e5)}
    inputs = samples.inputs(fleets=(samples.fleet(), other), rentals=rentals, quotes=quotes)
    found = {(each.provider, each.gpu): each for each in plan(inputs).options if each.kind == "rent"}
    assert not found["runpod", "h100-sxm"].can_win
    assert any("your quote" in warning for warning in found["runpod", "h100-sxm"].warnings)
    assert found["quote", "h100-sxm"].can_win
    assert found["runpod", "l40s"].can_win
    ranking = ranking_of(inputs)
    assert ranking.market("h100-sxm") == Spread(1.0, 3.0, 3.0)  # what others ask is still known
    assert {"node_usd", "quote quote h100-sxm:rental_usd_per_gpu_hour"} <= given_names(inputs)


def test_a_quote_with_a_range_is_told_in_the_tornado():
    quotes = {"rental_usd_per_gpu_hour": Spread(1.4, 1.5, 1.6)}
    found = plan(samples.inputs(quotes=quotes))
    assert found.tornado_option == "rent-quote-h100-sxm-8"
    quoted = next(each for each in found.tornado if each.name == "rental_usd_per_gpu_hour")
    assert (quoted.asked, quoted.low_value, quoted.high_value) == (True, 1.4, 1.6)
    server = plan(samples.inputs(quotes={"node_usd": Spread(1e5, 1.2e5, 1.4e5)}, rentals=()))
    assert next(each for each in server.tornado if each.name == "node_usd").asked


def test_a_starting_price_without_its_term_is_listed_and_never_wins():
    start = samples.rental(0.1, "acme", kind=RentalKind.RESERVED, verified=Verified.READ)
    ranking = ranking_of(samples.inputs(rentals=(start, samples.rental())))
    assert "acme" in {each.offer.provider for each in ranking.options}
    best = ranking.best("rent")
    assert best is not None
    assert best.offer.provider == "runpod"
    assert ranking.market("h100-sxm") == EXACT(2.69)


def test_of_many_prices_the_cheapest_the_middle_and_the_dearest_are_priced_and_the_market_is_all_of_them():
    usd = (5.0, 2.0, 9.0, 2.5, 3.0, 4.0, 7.0)
    many = [samples.rental(each, f"cloud-{each:g}") for each in usd]
    spots = [samples.rental(each, f"spot-{each:g}", kind=RentalKind.SPOT) for each in (1.0, 1.5)]
    mine = samples.rental(6.0, "acme", verified=Verified.USER)
    ranking = ranking_of(samples.inputs(rentals=(*many, *spots, mine)))
    rented = {each.offer.provider for each in ranking.options if each.offer.kind == "rent"}
    assert rented == {"cloud-2", "cloud-2.5", "cloud-4", "cloud-9", "spot-1", "acme"}
    assert ranking.market("h100-sxm") == Spread(2.0, 5.0, 9.0)


def test_the_market_is_told_by_its_middle():
    rentals = tuple(samples.rental(usd, f"p{usd}") for usd in (1.0, 2.0, 5.0))
    assert ranking_of(samples.inputs(rentals=rentals)).market("h100-sxm") == Spread(1.0, 2.0, 5.0)


def test_break_evens_are_of_the_growth_that_was_said():
    months = [
        next(
            each.payback_month.p50
            for each in plan(samples.inputs(growth_per_month=growth, rentals=())).break_even
            if each.payback_month
        )
        for growth in (0.0, 0.1)
    ]
    assert months[1] < 0.95 * months[0]


@pytest.mark.parametrize("sold_in", [1, 8])
def test_a_quoted_server_is_paid_and_counted_whole(sold_in: int):
    two = samples.fleet(samples.gpu(sold_in=sold_in), gpus=2, replicas=2, capacity=EXACT(12_000.0))
    inputs = samples.inputs(fleets=(two,), quotes={"node_usd": EXACT(200_000.0)}, own=samples.exact_own())
    found = next(each for each in plan(inputs).options if each.kind == "buy")
    assert (found.count, found.replicas) == (8, 2)
    assert found.utilisation == pytest.approx(0.3 * 2 / 8)
    assert found.capital_usd is not None
    assert found.capital_usd.p50 == pytest.approx(200_000)
    bought, rented = ranking_of(inputs).same_gpu
    assert bought is not None
    assert rented is not None
    assert float(bought.priced.case.counts.gpus[0]) == 8
    unquoted = next(
        each
        for each in plan(samples.inputs(fleets=(two,), own=samples.exact_own())).options
        if each.kind == "buy"
    )
    assert unquoted.count == (2 if sold_in == 1 else 8)
