"""What a report shows of a measured month, in which words: shared by the terminal and Markdown. It computes nothing."""

from collections.abc import Mapping
from datetime import UTC, datetime

from freehold.cost.model import rounding
from freehold.cost.model.result import Percentiles
from freehold.cost.report.clean import clean
from freehold.cost.report.outline import words_of
from freehold.cost.review.review import ReviewResult
from freehold.cost.review.trend import DAY_H, Period

ANSWERS: Mapping[str, str] = {
    "keep": "Keep it",
    "run-out": "Use it up, do not replace it",
    "go-back": "Go back to the API",
    "unclear": "Unclear",
}
"""The verdict's word, said."""
CENT_USD = 0.01
"""Below it an amount a month is noise. Source: the smallest coin."""
PERIODS_MOST = 8
"""Weeks or days shown; the last ones. Our own choice: two months of weeks, a week of days."""


def figures(result: ReviewResult) -> tuple[tuple[str, str], ...]:
    """Return the figures of the month, each with its unit."""
    least = "at least " if result.incomplete else ""
    paid = result.usd_per_million_tokens
    rows = (
        (
            "measured",
            f"{rounding.plain_number(result.days)} days until {clean(result.today)}, as a month of 730 h",
        ),
        ("served", f"{rounding.tokens(result.tokens_per_month)} tokens a month"),
        (
            "really paid",
            f"{least}{rounding.usd_range(paid)} USD per million tokens" if paid else "no token was served",
        ),
        ("cost", f"{least}{rounding.usd_range(result.usd_per_month)} USD a month"),
        (
            "of which running",
            f"{least}{rounding.usd_range(result.running_usd_per_month)} USD a month, without what machines cost at the start",
        ),
        (
            "utilisation",
            f"{rounding.percent_range(result.utilisation)} of {rounding.tokens_range(result.capacity_tokens_per_month)} tokens a month within the SLO",
        ),
    )
    return (*rows, *_alternative(result), ("trend", trend_text(result)))


def _alternative(result: ReviewResult) -> tuple[tuple[str, str], ...]:
    if not result.api:
        return (("API", "none to compare with"),)
    cost, part = result.api_usd_per_month, result.chance_api_cheaper
    paid = "price unknown" if cost is None else f"{rounding.usd_range(cost)} USD a month"
    share = "" if part is None else f", cheaper in {rounding.chance(part)} of the draws"
    return ((f"{clean(result.api)}", f"{paid}{share}"), ("break-even", break_even_text(result)))


def break_even_text(result: ReviewResult) -> str:
    """Return where these machines cost what the API would, and on which side of it the traffic is."""
    even = result.break_even_tokens_per_month
    if even is None:
        return "at no traffic" if result.position == "below" else "unknown"
    side = {"above": "; your traffic is above it", "below": "; your traffic is below it", "unknown": ""}
    return f"at {rounding.tokens_range(even)} tokens a month{side[result.position]}"


def trend_text(result: ReviewResult) -> str:
    """Return where the tokens go: `rising, +31% from the first third of the periods to the last`."""
    trend = result.trend
    if trend.direction == "unknown":
        return "unknown: too few whole days"
    if trend.change is None:
        return trend.direction
    sign = "+" if trend.change > 0 else ""
    unit = "weeks" if trend.periods and trend.periods[0].hours > DAY_H else "days"
    return f"{trend.direction}, {sign}{rounding.percent(trend.change)} from the first third of the {unit} to the last"


PERIOD_HEADS = ("from (UTC)", "tokens", "utilisation", "USD per M tokens", "API cheaper")
"""Of the columns of `period_rows`."""


def period_rows(result: ReviewResult) -> tuple[tuple[str, ...], ...]:
    """Return the last weeks or days as cells."""
    return tuple(_period_row(each) for each in result.trend.periods[-PERIODS_MOST:])


def _period_row(each: Period) -> tuple[str, ...]:
    start = datetime.fromtimestamp(each.start_hour * 3600, UTC).strftime("%Y-%m-%d")
    paid = each.usd_per_million_tokens
    cheaper = "n/a" if each.api_cheaper is None else "yes" if each.api_cheaper else "no"
    return (
        start,
        rounding.tokens(each.tokens),
        rounding.percent(each.utilisation),
        "n/a" if paid is None else rounding.amount(paid),
        cheaper,
    )


def line_rows(lines: Mapping[str, Percentiles]) -> tuple[tuple[str, str], ...]:
    """Return the cost lines, the dearest first: name and USD a month."""
    ranked = sorted(lines.items(), key=lambda pair: -pair[1].p50)
    return tuple((words_of(name), _small(cost)) for name, cost in ranked)


def confidence_text(result: ReviewResult) -> str:
    """Return how sure the answer is and why; empty: there is nothing to compare."""
    if result.confidence is None:
        return ""
    reason = clean(result.confidence_reason).rstrip(".")
    return f"{result.confidence_word}: {reason or f'it holds in {rounding.chance(result.confidence)} of the draws'}"


def _small(cost: Percentiles) -> str:
    """Return a line's cost; what is below a cent is only said to be that."""
    return "<0.01" if 0 < cost.p90 < CENT_USD and cost.p10 >= 0 else rounding.usd_range(cost)
