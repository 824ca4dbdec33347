"""Reviews made by hand for the tests of reports: each answer, and months in which something was not measured."""

from collections.abc import Callable
from dataclasses import replace

from freehold.cost.model.result import Percentiles
from freehold.cost.review.review import ReviewResult
from freehold.cost.review.trend import Period, Trend
from plan_samples import HOSTILE, around

FIRST_HOUR = 1793232000 // 3600
"""2026-10-29 00:00 UTC."""


def weeks(count: int, *, hours: int = 168, growth: float = 0.05) -> Trend:
    periods = tuple(
        Period(
            start_hour=FIRST_HOUR + index * hours,
            hours=hours,
            tokens=round(1.1e9 * (1 + growth * index)),
            utilisation=0.031 * (1 + growth * index),
            usd_per_million_tokens=3.9 / (1 + growth * index),
            api_cheaper=index < 2,
        )
        for index in range(count)
    )
    return Trend(direction="rising", change=0.31, periods=periods)


def review() -> ReviewResult:
    """Return a review in which owning is kept."""
    return ReviewResult(
        version=1,
        today="2026-11-27",
        days=30.0,
        usd_per_month=around(17210),
        running_usd_per_month=around(5420),
        usd_per_million_tokens=around(3.66),
        lines={
            "hardware": around(7900),
            "staff": around(2800),
            "electricity": around(690),
            "host_ram": around(900),
        },
        tokens_per_month=4.7e9,
        capacity_tokens_per_month=around(151e9),
        utilisation=around(0.031),
        api="openai/gpt-6-terra",
        api_usd_per_month=around(18800, 0.0),
        break_even_tokens_per_month=around(4.3e9),
        position="above",
        chance_api_cheaper=0.31,
        trend=weeks(4),
        word="keep",
        headline="Keep it: 17,210 USD a month against 18,800 for gpt-6-terra of openai.",
        text="4,700,000,000 tokens a month were served. 2 incidents were recorded in 30 days.",
        estimated=("watts were not measured: 5.2 kW (4.1-6.6) are estimated from the ratings",),
        incomplete=(),
    )


def unpriced() -> ReviewResult:
    """Return a review in which nobody said what was paid, nothing was served and no API is known."""
    return replace(
        review(),
        usd_per_million_tokens=None,
        tokens_per_month=0.0,
        utilisation=Percentiles(p10=0.0, p50=0.0, p90=0.0),
        api="",
        api_usd_per_month=None,
        break_even_tokens_per_month=None,
        position="unknown",
        chance_api_cheaper=None,
        trend=Trend(direction="unknown", change=None),
        word="unclear",
        estimated=(),
        incomplete=("what is paid for h100-sxm",),
    )


def hostile() -> ReviewResult:
    """Return a review in which every text from outside tries to be markup."""
    return replace(
        review(),
        api=HOSTILE,
        headline=HOSTILE,
        text=HOSTILE,
        lines={HOSTILE: around(1.0)},
        estimated=(HOSTILE,),
        incomplete=(HOSTILE,),
    )


REVIEWS: dict[str, Callable[[], ReviewResult]] = {
    "keep": review,
    "run out": lambda: replace(review(), word="run-out"),
    "go back": lambda: replace(review(), word="go-back", position="below", break_even_tokens_per_month=None),
    "unpriced": unpriced,
    "days": lambda: replace(review(), trend=weeks(14, hours=24)),
    "hostile": hostile,
}
"""Every sample by what it is for."""
