import shlex
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

import cost_samples as samples
from freehold.catalog.facts import Verified
from freehold.core.spread import Spread
from freehold.cost.review.review import ReviewInputs, review
from freehold.cost.review.trend import periods_of, trend_of
from freehold.sizing.fleet.traffic import BadRow, Hour

EXACT = Spread.exactly
MONTH_S = 2_628_000


def hours(*weeks: int, spread: int = 168) -> tuple[Hour, ...]:
    """One hour of traffic per `spread`, with so many tokens each."""
    return (
        *tuple(
            Hour(
                hour=500000 + index * spread,
                requests=1,
                input_tokens=tokens,
                cached_tokens=0,
                output_tokens=0,
            )
            for index, tokens in enumerate(weeks)
        ),
        Hour(
            hour=500000 + len(weeks) * spread - 1,
            requests=0,
            input_tokens=0,
            cached_tokens=0,
            output_tokens=0,
        ),
    )


def measured(**changes: Any) -> ReviewInputs:
    row: dict[str, Any] = {
        "days": 30.0,
        "traffic": samples.traffic(10e9),
        "fleet": samples.fleet(capacity=EXACT(48_000.0)),
        "kind": "buy",
        "gpu_usd": 28_000.0,
        "own": samples.own(),
        "rent": samples.rent(),
        "mean_w": 6000.0,
        "down_node_hours": 7.2,
        "incidents": 2,
        "api": samples.api(),
        "today": samples.TODAY,
        "draws": 2000,
    }
    return ReviewInputs(**{**row, **changes})


def test_what_a_million_tokens_really_cost():
    found = review(measured(kind="rent", rental_usd_per_gpu_hour=2.5, rent=samples.exact_rent()))
    assert found.usd_per_month.p50 == pytest.approx(8 * 730 * 2.5)
    assert found.usd_per_million_tokens is not None
    assert found.usd_per_million_tokens.p50 == pytest.approx(8 * 730 * 2.5 / 10_000)
    assert found.utilisation.p50 == pytest.approx(10e9 / (48_000 * MONTH_S))
    assert found.break_even_tokens_per_month is not None
    assert found.break_even_tokens_per_month.p50 == pytest.approx(8 * 730 * 2.5 / 4 * 1e6)
    assert (found.position, found.word) == ("above", "keep")


def test_measured_watts_and_downtime_are_used():
    own = samples.exact_own(power_usd_per_kwh=0.1, pue_ratio=1.5, gpu_power_fraction=1.0, host_kw=2.0)
    found = review(measured(own=own))
    assert found.lines["electricity"].p50 == pytest.approx(6 * 1.5 * 730 * 0.1, rel=1e-5)
    assert found.lines["failures"].p50 == pytest.approx(40_000 * 7.2 / 720, rel=1e-5)
    assert found.estimated == ()
    two = review(measured(own=own, fleet=samples.fleet(gpus=16, replicas=16, capacity=EXACT(96_000.0))))
    assert two.lines["failures"].p50 == pytest.approx(40_000 * 7.2 / 1440, rel=1e-5)


@pytest.mark.parametrize("watts", [None, 0.0])
def test_unknown_watts_are_estimated_and_told_never_zero(watts: float | None):
    found = review(measured(mean_w=watts, down_node_hours=None))
    energy = found.lines["electricity"]
    assert 0 < energy.p10 < energy.p50 < energy.p90
    assert any("watts were not measured" in each for each in found.estimated)
    assert any("downtime was not measured" in each for each in found.estimated)
    assert found.lines["failures"].p50 > 0


def test_a_measured_zero_of_downtime_is_zero():
    assert review(measured(down_node_hours=0.0)).lines["failures"].p90 == 0


def test_the_machines_are_those_that_stand_there():
    slow = samples.fleet(capacity=Spread(1000, 48_000, 60_000), peak_tokens_per_s=40_000.0)
    found = review(measured(fleet=slow, own=samples.exact_own()))
    assert found.lines["hardware"].p10 == found.lines["hardware"].p90 == pytest.approx(8 * 28_000 / 36)
    assert any("capacity is a range" in each for each in found.estimated)
    alone = review(measured(api=None))
    assert alone.lines["spares"].p90 == 0


def test_going_back_is_printed_when_the_api_is_cheaper():
    rented = review(measured(kind="rent", rental_usd_per_gpu_hour=2.5, traffic=samples.traffic(100e6)))
    assert (rented.word, rented.position) == ("go-back", "below")
    assert "Going back to sonnet of anthropic is cheaper" in rented.headline
    assert rented.chance_api_cheaper == 1.0
    bought = review(measured(traffic=samples.traffic(100e6)))
    assert bought.word == "go-back"


@pytest.mark.parametrize(
    ("days", "word", "level"),
    [
        (0.015, "unclear", "low"),
        (6.9, "unclear", "low"),
        (7.0, "go-back", "medium"),
        (28.0, "go-back", "high"),
    ],
)
def test_a_few_hours_say_nothing_of_a_month(days: float, word: str, level: str):
    found = review(
        measured(days=days, kind="rent", rental_usd_per_gpu_hour=2.5, traffic=samples.traffic(100e6))
    )
    assert (found.word, found.confidence_word, found.confidence) == (word, level, 1.0)
    assert ("days were measured" in found.confidence_reason) == (days < 28)
    assert ("Too short to judge" in found.headline) == (word == "unclear")
    assert "llama-3.1-8b on 8 x h100-sxm, rented" in found.headline


def test_where_draws_are_torn_so_is_the_confidence():
    found = review(measured(traffic=samples.traffic(4.6e9)))
    assert found.confidence is not None
    assert 0.5 <= found.confidence < 0.9
    assert found.confidence_word in {"low", "medium"}
    assert review(measured(api=None)).confidence is None


def test_a_cheap_month_keeps_its_cents():
    found = review(measured(kind="rent", rental_usd_per_gpu_hour=2.5, traffic=samples.traffic(250e3)))
    assert "is cheaper: 1.00 USD a month" in found.headline


def test_watts_of_rented_machines_are_not_charged_and_it_says_so():
    found = review(measured(kind="rent", rental_usd_per_gpu_hour=2.5, mean_w=5200.0))
    assert "electricity" not in found.lines
    assert any("5.2 kW were measured and are not charged" in each for each in found.estimated)
    assert not any("not charged" in each for each in review(measured()).estimated)


def test_the_next_command_is_the_plan_for_what_was_measured():
    found = review(
        measured(
            kind="rent",
            rental_usd_per_gpu_hour=2.5,
            ledger="state/my ledger.sqlite",
            said=("--staff-fte", "0.2", "--api", "anthropic/sonnet"),
        )
    )
    words = shlex.split(found.next_command)
    assert words[:4] == ["freehold", "plan", "--usage", "state/my ledger.sqlite"]
    said = dict(zip(words[2::2], words[3::2], strict=True))
    assert said["--model"] == "llama-3.1-8b"
    assert (said["--gpu"], said["--rental-usd-per-gpu-hour"]) == ("h100-sxm", "2.5")
    assert words.count("--api") == 1
    assert said["--staff-fte"] == "0.2"
    unknown = shlex.split(review(measured(api=None)).next_command)
    assert unknown[2:4] == ["--tokens-per-month", "10000000000"]
    assert "--api" not in unknown


def test_bought_machines_are_used_up_while_running_them_is_cheaper():
    found = review(measured(traffic=samples.traffic(3e9)))
    assert found.api_usd_per_month is not None
    assert found.running_usd_per_month.p50 < found.api_usd_per_month.p50 < found.usd_per_month.p50
    assert found.word == "run-out"
    assert "do not replace" in found.headline


def test_without_a_price_there_is_no_verdict():
    for changes in ({"gpu_usd": None}, {"kind": "rent"}):
        found = review(measured(**changes))
        assert found.word == "unclear"
        assert found.incomplete
        assert "at least" in found.headline
    alone = review(measured(api=None))
    assert (alone.word, alone.position, alone.api_usd_per_month) == ("unclear", "unknown", None)
    quoted = review(measured(gpu_usd=None, node_usd=300_000.0))
    assert quoted.incomplete == ()


def test_no_tokens_have_no_price():
    found = review(measured(traffic=samples.traffic(0.0)))
    assert found.usd_per_million_tokens is None
    assert found.word == "go-back"
    assert found.utilisation.p50 == 0


def test_weeks_have_their_price_and_their_use():
    found = review(
        measured(
            kind="rent",
            rental_usd_per_gpu_hour=2.5,
            rent=samples.exact_rent(),
            traffic=replace(samples.traffic(10e9), hours=hours(500_000_000, 1_000_000_000, 2_000_000_000)),
        )
    )
    assert found.trend.direction == "rising"
    assert found.trend.change == pytest.approx(3.0)
    first = found.trend.periods[0]
    assert first.hours == 168
    assert first.usd_per_million_tokens == pytest.approx(8 * 168 * 2.5 / 500)
    assert first.utilisation == pytest.approx(500e6 / (48_000 * 168 * 3600))
    assert [each.api_cheaper for each in found.trend.periods] == [True, False, False]


def test_days_where_there_are_few_weeks_and_cut_periods_are_left_out():
    rows = hours(10, 10, 0, 10, 10, 10, spread=24)
    periods = periods_of(rows[:-1], usd_per_month=730.0, capacity_tokens_per_month=7300.0, api_usd_per_m=None)
    assert [each.tokens for each in periods] == [10, 10, 0, 10, 10]
    assert periods[2].usd_per_million_tokens is None
    assert periods[0].usd_per_million_tokens == pytest.approx(24 / 10 * 1e6)
    assert periods[0].api_cheaper is None
    assert trend_of(periods).direction == "flat"
    assert trend_of(periods[:2]).direction == "unknown"
    falling = periods_of(hours(9, 6, 3), usd_per_month=1.0, capacity_tokens_per_month=1.0, api_usd_per_m=1.0)
    assert trend_of(falling).direction == "falling"
    assert periods_of((), usd_per_month=1.0, capacity_tokens_per_month=1.0, api_usd_per_m=1.0) == []


def test_the_seed_decides_it():
    assert review(measured()) == review(measured())


def test_rows_of_the_ledger_that_were_left_out_are_told():
    bad = (BadRow(where="ledger.sqlite:7", reason="no tokens"),)
    told = review(measured(traffic=samples.traffic(10e9, bad_rows=bad, bad_rows_total=1, rows_total=9)))
    sentence = "1 of 9 rows could not be used: ledger.sqlite:7 (no tokens)"
    assert sentence in told.estimated
    assert sentence not in review(measured()).estimated


def test_old_assumptions_are_widened_and_told():
    old = replace(samples.FACT, as_of=date(2024, 1, 1), verified=Verified.MEMORY)
    power = samples.assumed("power_usd_per_kwh", (0.1, 0.12, 0.14), old)
    fresh = review(measured(own=replace(samples.own(), power_usd_per_kwh=replace(power, fact=samples.FACT))))
    stale = review(measured(own=replace(samples.own(), power_usd_per_kwh=power)))
    said = review(measured(own=replace(samples.own(), power_usd_per_kwh=replace(power, asked=True))))
    wide = [each.lines["electricity"].p90 - each.lines["electricity"].p10 for each in (fresh, stale, said)]
    assert wide[1] > 1.1 * wide[0]
    assert wide[2] == pytest.approx(wide[0])
    assert any(each.startswith("power_usd_per_kwh: as of 2024-01-01") for each in stale.estimated)
    assert not any("power_usd_per_kwh" in each for each in (*fresh.estimated, *said.estimated))
