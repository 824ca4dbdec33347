"""A history as a month's traffic: sums scaled by the time it covers, its peak, and what had to be assumed. Pure.

A month has 730 hours. What a history does not cover is neither busy nor quiet: it is left out of the time that the sums
are divided by, and said. Hours without a row inside a log are quiet, up to LOST_S. It does not look for a trend.
"""

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from freehold.core.spread import quantile
from freehold.ledger.foreign.gather import Gathered, Sums
from freehold.ledger.foreign.spans import HOUR_S, Span, Spans
from freehold.sizing.fleet.traffic import HOURS_PER_MONTH, Hour, Traffic

LOST_S = 14 * 24 * 3600.0
"""A log without a row for longer than this was not being written. Source: our own choice: longer than the longest public
holidays; one row with a wrong year would else stretch a month over ten years."""
SILENT_S = 24 * 3600.0
"""A silence that is worth a sentence. Source: our own choice: a day."""
DIURNAL_PEAK = 2.5
"""Busiest hour over the day's mean where only days are known. Source: the middle of the 2 to 3 that diurnal load is said to
have; from memory, no measurement."""
PEAK_RANK = 0.99
"""Source: freehold.sizing.fleet.traffic.Traffic.peak_over_mean: the 99th percentile hour."""
OLD_DAYS = 90.0
"""Age of a history that is named. Source: docs/decisions/0010-decide.md, as of prices."""
EMBEDDED_PART = 0.1
"""Of the tokens: what embedding models may have without a word. Our own choice: below it no answer changes."""
_EMBEDS = re.compile(r"embed|rerank|\b(?:bge|e5|gte|minilm|voyage)\b", re.IGNORECASE)
"""Names of embedding models. Source: those of OpenAI, Google, Cohere, Mistral, BAAI, intfloat, Voyage and sentence-transformers."""
WEEK_H = 168.0
"""Source: 7 * 24; a shorter history has not seen every kind of hour."""
_WHOLE_S = (
    HOUR_S - 1.0
)  # Of an hour that counts as whole: the last row of a minute's bucket ends on the second.


def traffic_of(gathered: Gathered, source: str) -> Traffic:
    """Return the month's traffic; there must be tokens in it. `source` says what it was read from, for the report."""
    covered, silences = _covered(gathered)
    covered_h = max(covered.total_s() / HOUR_S, 1.0)
    scale = HOURS_PER_MONTH / covered_h
    total = gathered.total
    requests = max(total.requests, 1)
    peak, on_peak = _peak(gathered, covered, covered_h)
    return Traffic(
        input_tokens_per_month=total.input_tokens * scale,
        output_tokens_per_month=total.output_tokens * scale,
        cached_share=total.cached_tokens / total.input_tokens if total.input_tokens else 0.0,
        input_tokens_per_request=total.input_tokens / requests,
        output_tokens_per_request=total.output_tokens / requests,
        peak_over_mean=peak,
        batch_share=gathered.batch_tokens / total.tokens,
        hours=_hours(gathered, covered),
        source=source,
        by_model=tuple((name, float(tokens)) for name, tokens in gathered.models.most_common()),
        bad_rows=tuple(gathered.bad_rows),
        bad_rows_total=gathered.bad_rows_total,
        rows_total=gathered.rows_total,
        paid_usd_per_month=_paid_usd_per_month(gathered, scale),
        assumed=(
            *_on_age(covered, gathered.window.now_s),
            *_on_embeddings(gathered),
            *_on_time(covered, silences),
            on_peak,
            *_on_rows(gathered),
        ),
    )


def overlap_h(gathered: Gathered) -> float:
    """Return for how many hours both days and hours were given, which counts them twice."""
    either = Spans([*gathered.fine.united(), *gathered.coarse.united()])
    return (gathered.fine.total_s() + gathered.coarse.total_s() - either.total_s()) / HOUR_S


def _covered(gathered: Gathered) -> tuple[Spans, list[Span]]:
    """Return the time that the history is about, and the silences in it that count as quiet."""
    silent = _silences(gathered)
    logged = gathered.logged.without(span for span in silent if span[1] - span[0] > LOST_S)
    window = gathered.window
    spans = [*logged.united(), *gathered.fine.united(), *gathered.coarse.united()]
    covered = Spans(spans).within(window.since_s, min(window.until_s, window.now_s))
    return covered, [span for span in silent if SILENT_S < span[1] - span[0] <= LOST_S]


def _silences(gathered: Gathered) -> list[Span]:
    """Return the whole hours inside the logs in which no row lies, as stretches."""
    hours = sorted(gathered.active)
    pairs = itertools.pairwise(hours)
    between = [((one + 1.0) * HOUR_S, float(other) * HOUR_S) for one, other in pairs if other > one + 1]
    return [piece for span in between for piece in gathered.logged.within(*span).united()]


def _peak(gathered: Gathered, covered: Spans, covered_h: float) -> tuple[float, str]:
    """Return the peak over the mean, and the sentence on where it comes from."""
    mean = gathered.total.tokens / covered_h
    if gathered.coarse_tokens * 2 > gathered.total.tokens:
        days = _at_rank(_by_day(gathered, covered)) / (24 * mean)
        peak = DIURNAL_PEAK * max(1.0, days)
        return peak, (
            f"Only whole days are known, so the shape of a day is assumed: its busiest hour has {DIURNAL_PEAK:g} times "
            f"the day's mean (2 to 3 is usual), which with the busiest days makes {peak:.1f}."
        )
    whole = [gathered.hours[hour].tokens if hour in gathered.hours else 0
             for hour, part_s in covered.by_hour() if part_s >= _WHOLE_S]  # fmt: skip
    if len(whole) < 2:
        return DIURNAL_PEAK, (
            f"The history has fewer than two whole hours: the busiest hour is assumed to have {DIURNAL_PEAK:g} "
            "times the mean (2 to 3 is usual)."
        )
    peak = max(1.0, _at_rank(whole) / mean)
    return peak, f"The peak is the 99th percentile of {len(whole)} whole hours: {peak:.1f} times the mean."


def _by_day(gathered: Gathered, covered: Spans) -> list[float]:
    """Return the tokens of each whole day that is covered."""
    seconds: defaultdict[int, float] = defaultdict(float)
    tokens: defaultdict[int, float] = defaultdict(float)
    for hour, part_s in covered.by_hour():
        seconds[hour // 24] += part_s
        tokens[hour // 24] += gathered.hours[hour].tokens if hour in gathered.hours else 0
    return [tokens[day] for day, held_s in seconds.items() if held_s >= 24 * _WHOLE_S]


def _at_rank(values: Sequence[float]) -> float:
    """Return the value at the peak's rank; 0 where there are none."""
    return quantile(sorted(values), PEAK_RANK) if values else 0.0


def _hours(gathered: Gathered, covered: Spans) -> tuple[Hour, ...]:
    """Return every hour that is covered or has a row, quiet ones with noughts."""
    numbers = {hour for hour, _ in covered.by_hour()} | gathered.hours.keys()
    return tuple(
        Hour(hour=number, **asdict(gathered.hours.get(number) or Sums())) for number in sorted(numbers)
    )


def _paid_usd_per_month(gathered: Gathered, scale: float) -> float | None:
    """Return what was paid in a month: by the bills if there are any, else by the rows; None: nothing says it."""
    invoiced_h = gathered.invoiced.total_s() / HOUR_S
    if invoiced_h:
        return gathered.invoiced_usd * HOURS_PER_MONTH / invoiced_h
    return gathered.usd * scale if gathered.priced_requests else None


def _on_age(covered: Spans, now_s: float) -> list[str]:
    end_s = covered.united()[-1][1] if covered.united() else now_s
    days = (now_s - end_s) / (24 * HOUR_S) if math.isfinite(now_s) else 0.0
    if days <= OLD_DAYS:
        return []
    return [f"The history ends on {_date(end_s)}, {days:,.0f} days ago: today's traffic may be another."]


def _on_embeddings(gathered: Gathered) -> list[str]:
    embedding = {name: tokens for name, tokens in gathered.models.items() if _EMBEDS.search(name)}
    part = sum(embedding.values()) / gathered.total.tokens
    if part <= EMBEDDED_PART:
        return []
    names = ", ".join(sorted(embedding, key=lambda name: -embedding[name])[:3])
    what = f"{part:.0%} of the tokens are of models that embed and generate no text ({names})"
    return [f"{what}: a model that generates would not serve them; give the usage without them."]


def _on_time(covered: Spans, silences: list[Span]) -> list[str]:
    said = []
    covered_h = covered.total_s() / HOUR_S
    if covered_h < 1:
        said.append(
            "The history covers less than an hour and is counted as one whole: a month may well be busier."
        )
    elif covered_h < WEEK_H:
        said.append(
            f"The history covers {covered_h:.1f} hours, less than a week: a month is assumed to be like them."
        )
    holes = covered.holes()
    if holes:
        longest = max(holes, key=_length_s)
        said.append(
            f"{_times(len(holes))} the history is missing in between, the longest for {_hours_text(longest)} "
            f"from {_date(longest[0])}: the missing time is assumed to be like the rest."
        )
    if silences:
        longest = max(silences, key=_length_s)
        said.append(
            f"{_times(len(silences))} there is no row for more than a day, the longest for "
            f"{_hours_text(longest)} from {_date(longest[0])}: counted as hours without traffic."
        )
    return said


def _on_rows(gathered: Gathered) -> list[str]:
    said = [
        f"{count:,} {'row was' if count == 1 else 'rows were'} left out: {reason}."
        for reason, count in gathered.left_out.most_common()
    ]
    total = gathered.total.requests
    if gathered.uncached_requests:
        part = (
            ""
            if gathered.uncached_requests >= total
            else f" of {gathered.uncached_requests:,} of {total:,} requests"
        )
        said.append(
            f"How many input tokens{part} a cache held is not known: none is assumed, which makes an API look dear."
        )
    if gathered.priced_requests and gathered.priced_requests < total and not gathered.invoiced.united():
        unpriced = total - gathered.priced_requests
        said.append(
            f"What {unpriced:,} of {total:,} requests cost is not known: more was paid than is shown."
        )
    if gathered.seen.forgot:
        said.append(
            "The files are so long that rows that come twice were looked for only within some million rows."
        )
    return [*said, *dict.fromkeys(gathered.notes)]


def _times(count: int) -> str:
    return "Once" if count == 1 else f"{count:,} times"


def _hours_text(span: Span) -> str:
    hours = round(_length_s(span) / HOUR_S)
    if hours < 1:
        return "less than an hour"
    return "1 hour" if hours == 1 else f"{hours:,} hours"


def _length_s(span: Span) -> float:
    return span[1] - span[0]


def _date(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M} UTC"
