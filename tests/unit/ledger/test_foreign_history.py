"""Hours as a month: what is scaled by what, and what is said when something is not known."""

import itertools

import pytest

from freehold.ledger.foreign.gather import Gathered, TimeWindow
from freehold.ledger.foreign.history import DIURNAL_PEAK, overlap_h, traffic_of
from freehold.ledger.foreign.use import LeftOut, Paid, Unusable, Use

HOUR_S = 3600
START_S = 1_790_812_800.0  # 2026-10-01T00:00Z
HOUR = int(START_S // HOUR_S)


def request(at_s: float, tokens: int = 100, **more: object) -> Use:
    return Use(START_S + at_s, START_S + at_s, 1, tokens, more.pop("cached", 0), 0, **more)


def bucket(start_h: float, hours: float, tokens: int, requests: int = 1) -> Use:
    start_s = START_S + start_h * HOUR_S
    return Use(start_s, start_s + hours * HOUR_S, requests, tokens, 0, 0)


def gather(*items: object, window: TimeWindow | None = None) -> Gathered:
    found = Gathered(window=window or TimeWindow())
    for number, item in enumerate(items):
        found.take(item, number)
    found.end_file()
    return found


def said(found: Gathered) -> str:
    return " | ".join(traffic_of(found, "x").assumed)


def test_a_log_covers_from_its_first_row_to_its_last():
    # 100 tokens every half hour from 00:30 to 10:00: nine and a half hours, not eleven
    found = traffic_of(gather(*(request(HOUR_S * half / 2) for half in range(1, 21))), "x")
    assert found.input_tokens_per_month == pytest.approx(2000 * 730 / 9.5)
    assert found.input_tokens_per_request == 100
    assert found.rows_total == 20


def test_partial_hours_do_not_make_the_peak():
    rows = [
        request(1799 + hour * HOUR_S, 100) for hour in range(6)
    ]  # one in each hour; the first and the last are not whole
    rows += [request(5 * HOUR_S + 3599.5 - 1800, 100_000)]  # a burst in the last hour, which is not whole
    found = traffic_of(gather(*rows), "x")
    assert found.peak_over_mean == 1.0
    assert found.hours[-1].input_tokens == 100_100


def test_the_peak_is_the_99th_percentile_of_whole_hours_quiet_ones_included():
    busy = {hour: 1000 if hour % 24 in (9, 10, 11) else 0 for hour in range(24 * 8)}
    found = traffic_of(gather(*(bucket(hour, 1, tokens) for hour, tokens in busy.items())), "x")
    assert found.peak_over_mean == pytest.approx(8.0)
    one_in_300 = [bucket(hour, 1, 1_000_000 if hour == 7 else 100) for hour in range(300)]
    found = traffic_of(gather(*one_in_300), "x")
    assert found.peak_over_mean == 1.0  # one hour of 300 lies beyond the percentile
    assert "300 whole hours" in found.assumed[0]


def test_percentiles_lie_between_values_in_proportion():
    found = traffic_of(gather(*(bucket(hour, 1, tokens) for hour, tokens in enumerate((100, 200, 300)))), "x")
    assert found.peak_over_mean == pytest.approx((200 + 0.98 * 100) / 200)


def test_days_give_the_months_sum_and_an_assumed_peak():
    days = [bucket(24 * day, 24, 240 if day != 3 else 480) for day in range(10)]
    found = traffic_of(gather(*days), "x")
    assert found.input_tokens_per_month == pytest.approx(2640 * 730 / 240)
    ninety_ninth = 240 + 0.91 * 240
    assert found.peak_over_mean == pytest.approx(DIURNAL_PEAK * ninety_ninth / 264)
    assert "Only whole days are known" in found.assumed[0]
    assert sum(hour.input_tokens for hour in found.hours) == 2640


def test_spreading_a_day_loses_nothing():
    found = gather(bucket(0, 24, 1_000_003, requests=7))
    assert sum(sums.input_tokens for sums in found.hours.values()) == 1_000_003
    assert sum(sums.requests for sums in found.hours.values()) == 7
    assert {sums.input_tokens for sums in found.hours.values()} == {41666, 41667}


def test_few_hours_are_said():
    assert "covers 2.0 hours, less than a week" in said(gather(request(0), request(2 * HOUR_S)))
    alone = gather(request(0))
    assert "less than an hour" in said(alone)
    assert traffic_of(alone, "x").input_tokens_per_month == 100 * 730
    assert traffic_of(alone, "x").peak_over_mean == DIURNAL_PEAK
    week = gather(*(request(hour * HOUR_S) for hour in range(169)))
    assert "week" not in said(week)


def test_a_silence_within_a_log_is_quiet_time_and_is_said():
    found = gather(*(request(hour * HOUR_S) for hour in (0, 1, 2, 52, 53)))
    assert (
        "Once there is no row for more than a day, the longest for 49 hours from 2026-10-01 03:00 UTC"
        in said(found)
    )
    assert traffic_of(found, "x").input_tokens_per_month == pytest.approx(500 * 730 / 53)


def test_a_silence_of_weeks_is_no_history_at_all():
    rows = [request(hour * HOUR_S) for hour in range(24)]
    far = request(-400 * 24 * HOUR_S)  # a row with a wrong year
    found = gather(far, *rows)
    assert traffic_of(found, "x").input_tokens_per_month == pytest.approx(2500 * 730 / 24, rel=0.05)
    assert "Once the history is missing in between" in said(found)


def test_missing_buckets_are_not_quiet_ones():
    with_empty = gather(bucket(0, 1, 100), bucket(1, 1, 0, 0), bucket(2, 1, 100))
    with_hole = gather(bucket(0, 1, 100), bucket(2, 1, 100))
    assert traffic_of(with_empty, "x").input_tokens_per_month == pytest.approx(200 * 730 / 3)
    assert traffic_of(with_hole, "x").input_tokens_per_month == pytest.approx(200 * 730 / 2)
    assert "missing in between, the longest for 1 hour from 2026-10-01 01:00 UTC" in said(with_hole)
    assert "missing" not in said(with_empty)


def test_files_of_other_times_leave_the_time_between_out():
    found = Gathered()
    for day in (0, 10):
        for hour in range(25):
            found.take(request((24 * day + hour) * HOUR_S), hour)
        found.end_file()
    assert traffic_of(found, "x").input_tokens_per_month == pytest.approx(5000 * 730 / 48)


def test_a_bucket_that_is_not_over_counts_up_to_now():
    now = TimeWindow(now_s=START_S + 1.5 * HOUR_S)
    found = traffic_of(gather(bucket(0, 1, 100), bucket(1, 1, 50), window=now), "x")
    assert found.input_tokens_per_month == pytest.approx(150 * 730 / 1.5)


def test_the_time_asked_for_is_covered_where_rows_lie_on_both_sides():
    window = TimeWindow(since_s=START_S + HOUR_S, until_s=START_S + 3 * HOUR_S)
    found = gather(*(request(hour * HOUR_S + 60) for hour in range(5)), window=window)
    assert traffic_of(found, "x").input_tokens_per_month == pytest.approx(200 * 730 / 2)
    assert found.outside_rows == 3


def test_what_was_paid_by_rows_or_by_bills():
    rows = [request(hour * HOUR_S, usd=0.5 if hour else None) for hour in range(3)]
    found = gather(*rows)
    assert traffic_of(found, "x").paid_usd_per_month == pytest.approx(1.0 * 730 / 2)
    assert "What 1 of 3 requests cost is not known" in said(found)
    bills = gather(*rows, Paid(START_S, START_S + 24 * HOUR_S, 12.0))
    assert traffic_of(bills, "x").paid_usd_per_month == pytest.approx(12 * 730 / 24)
    assert traffic_of(gather(request(0), request(9000)), "x").paid_usd_per_month is None


def test_unknown_cached_tokens_are_said():
    assert "a cache held is not known" in said(gather(request(0, cached=None)))
    assert "1 of 2 requests a cache" in said(gather(request(0, cached=None), request(9, cached=3)))
    assert "cache" not in said(gather(request(0, cached=0)))


def test_bad_rows_are_counted_and_the_first_hundred_kept():
    found = gather(
        request(0), *(Unusable(f"fault {number}") for number in range(250)), LeftOut("they failed", START_S)
    )
    assert found.bad_rows_total == 250
    assert [row.reason for row in found.bad_rows] == [f"fault {number}" for number in range(100)]
    assert found.bad_rows[0].where == "1"
    assert found.rows_total == 252
    assert "1 row was left out: they failed." in said(found)


def test_the_future_and_repetitions_are_bad():
    window = TimeWindow(now_s=START_S + 10)
    found = gather(
        request(0, identity="a"), request(1, identity="a"), request(311), request(309), window=window
    )
    assert [row.reason for row in found.bad_rows] == ["a row like it came before", "it lies in the future"]
    assert found.total.requests == 2


def test_model_names_are_bounded_and_their_tokens_are_not_lost():
    found = gather(*(request(0, 1, model=f"m{number}") for number in range(1500)))
    models = dict(traffic_of(found, "x").by_model)
    assert len(models) <= 1001
    assert sum(models.values()) == 1500
    assert models["(others)"] == 500


def test_days_and_hours_over_the_same_time_are_seen():
    both = gather(
        bucket(0, 24, 240), *(bucket(hour, 1, 10) for hour in itertools.chain(range(5), range(30, 33)))
    )
    assert overlap_h(both) == 5
    assert overlap_h(gather(bucket(0, 24, 240), bucket(24, 1, 10))) == 0


def test_a_day_that_is_not_over_makes_no_peak():
    now = TimeWindow(now_s=START_S + 36 * HOUR_S)
    found = traffic_of(gather(bucket(0, 24, 240), bucket(24, 24, 600), window=now), "x")
    assert found.input_tokens_per_month == pytest.approx(840 * 730 / 36)
    assert found.peak_over_mean == DIURNAL_PEAK


def test_rows_that_are_left_out_show_that_the_log_was_written():
    found = gather(request(0), LeftOut("they failed", START_S + 10 * HOUR_S))
    assert traffic_of(found, "x").input_tokens_per_month == pytest.approx(100 * 730 / 10)


def test_an_old_history_is_told():
    def told(days: float) -> str:
        return said(
            gather(
                *(request(60 * minute) for minute in range(600)),
                window=TimeWindow(now_s=START_S + days * 86400),
            )
        )

    assert "days ago" not in told(90)
    assert "The history ends on 2026-10-01 09:59 UTC, 100 days ago" in told(100)


def test_tokens_of_embedding_models_are_told():
    def told(name: str, tokens: int) -> str:
        return said(gather(request(0, tokens, model=name), request(HOUR_S, 1000, model="gpt-6-terra")))

    for name in ("text-embedding-3-small", "BAAI/bge-m3", "voyage-4", "rerank-v4"):
        assert f"50% of the tokens are of models that embed and generate no text ({name})" in told(name, 1000)
    assert "embed" not in told("text-embedding-3-small", 100)
    assert "embed" not in told("bigger-gte", 0)
    assert "embed" not in told("gpt-5", 1000)
