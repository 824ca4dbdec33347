"""Monthly figures: a month ends in UTC, and a clock that jumps loses none."""

import msgspec
import pytest

from freehold.gateway.callers.spend import Spending

OCTOBER_S = 1793491199  # 2026-10-31 23:59:59 UTC
NOVEMBER_S = OCTOBER_S + 1
DAY_S = 86_400


def test_a_month_ends_at_midnight_in_utc():
    spending = Spending()
    spending.enter(OCTOBER_S)
    spending.month["k"] = 5
    spending.enter(OCTOBER_S + 0.9)
    assert spending.month == {"k": 5}
    spending.enter(NOVEMBER_S)
    assert spending.month == {}


def test_a_clock_that_jumps_over_the_end_and_back_finds_its_figures():
    spending = Spending()
    spending.enter(OCTOBER_S)
    october = spending.month
    october["k"] = 5
    for away_s in (3600, 400 * DAY_S, 4000 * DAY_S):
        spending.enter(OCTOBER_S + away_s)
        spending.month["k"] = 1
        spending.enter(OCTOBER_S)
        assert spending.month is october


def test_only_two_months_are_kept():
    spending = Spending()
    for month in range(30):
        spending.enter(OCTOBER_S + month * 31 * DAY_S)
        spending.month["k"] = month
    assert len(msgspec.json.decode(spending.saved())["months"]) == 2
    assert spending.month == {"k": 29}


def test_what_is_saved_is_found_again():
    spending = Spending()
    spending.enter(OCTOBER_S)
    spending.month["k"] = 5
    again = Spending(spending.saved())
    again.enter(OCTOBER_S)
    assert again.month == {"k": 5}
    assert again.saved() == spending.saved()


@pytest.mark.parametrize("data", [b"{", b'{"months":{"2026-11":{"k":"x"}}}', b"[]"])
def test_a_broken_file_says_so(data: bytes):
    with pytest.raises(msgspec.DecodeError):
        Spending(data)
