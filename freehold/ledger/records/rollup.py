"""Records added up: by model, key, endpoint, day or hour. Pure.

What is unknown stays unknown: a request without a token count is counted as such and adds nothing to any sum, so that
a sum is never a guess; estimated tokens stand in a column of their own. Days and hours are UTC.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from freehold.ledger.records.money import picousd
from freehold.ledger.records.record import Basis, LedgerRecord, Outcome

Dimension = Literal["model", "key", "endpoint", "day", "hour"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
HOUR_US = 3_600_000_000  # Source: 60 * 60 s, in microseconds
FAULT = 500
"""Lowest HTTP status that is the stack's fault, as `freehold status` counts it. Source: RFC 9110, 15.6 (server errors)."""
DAY_HOURS = 24  # Source: Unix time has no leap seconds, and UTC no summer time


@dataclass(slots=True, kw_only=True)
class UsageTally:
    """Sums over some requests of one key, model and endpoint in one hour, or over several such."""

    key_id: str = ""
    model: str = ""
    endpoint: str = ""
    hour: int = 0
    """Hours since the Unix epoch."""
    requests: int = 0
    complete: int = 0
    interrupted: int = 0
    """Cut, or abandoned by their clients."""
    failed: int = 0
    """The stack could not answer: an error of HTTP 500 or above instead of an answer."""
    rejected: int = 0
    """The engine refused the client's request: an error below HTTP 500, such as 400."""
    unknown: int = 0
    """Requests that were answered, wholly or in part, and of whose tokens something is not known."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Those of the prompt tokens that came from a cache."""
    completion_tokens: int = 0
    """As the engines reported them."""
    estimated_tokens: int = 0
    """Completion tokens of answers without a report: the chunks delivered."""
    lost: int = 0
    """Requests that could not be recorded at all."""
    priced: int = 0
    """Requests whose cost is known."""
    cost_unknown: int = 0
    """Requests that were charged for and whose cost is not known."""
    cost_picousd: int = 0
    """What the priced ones cost together, exactly."""

    def add(self, other: "UsageTally") -> None:
        """Add another's sums to these."""
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


SUMS = tuple(
    name for name in UsageTally.__dataclass_fields__ if name not in {"key_id", "model", "endpoint", "hour"}
)
"""What is added up, in the order of the columns."""


def tally(record: LedgerRecord) -> UsageTally:
    """Return one record as sums."""
    estimated = record.basis is Basis.ESTIMATED
    tokens = record.completion_tokens or 0
    known = record.basis in {Basis.MEASURED, Basis.NONE}
    return UsageTally(
        key_id=record.key_id,
        model=record.model,
        endpoint=record.endpoint,
        hour=record.time_us // HOUR_US,
        requests=1,
        complete=int(record.outcome is Outcome.COMPLETE),
        interrupted=int(record.outcome in {Outcome.CUT, Outcome.ABANDONED}),
        failed=int(record.outcome is Outcome.FAILED and record.status >= FAULT),
        rejected=int(record.outcome is Outcome.FAILED and record.status < FAULT),
        unknown=int(not known),
        prompt_tokens=record.prompt_tokens or 0,
        cached_tokens=record.cached_tokens or 0,
        completion_tokens=0 if estimated else tokens,
        estimated_tokens=tokens if estimated else 0,
        lost=record.lost,
        priced=int(bool(record.cost_usd)),
        cost_unknown=int(record.cost_usd == ""),
        cost_picousd=picousd(record.cost_usd) if record.cost_usd else 0,
    )


def roll_up(
    tallies: Iterable[UsageTally], by: Sequence[Dimension]
) -> list[tuple[tuple[str, ...], UsageTally]]:
    """Return the sums for each combination of the dimensions' values, in their order; for none, the one total."""
    sums: dict[tuple[str, ...], UsageTally] = {}
    for each in tallies:
        place = tuple(_value(each, dimension) for dimension in by)
        sums.setdefault(place, UsageTally()).add(each)
    return sorted(sums.items(), key=lambda item: item[0])


def _value(tally: UsageTally, dimension: Dimension) -> str:
    if dimension == "day":
        return day_text(tally.hour // DAY_HOURS)
    if dimension == "hour":
        return f"{datetime.fromtimestamp(tally.hour * 3600, UTC):%Y-%m-%dT%H:00Z}"
    return {"model": tally.model, "key": tally.key_id, "endpoint": tally.endpoint}[dimension]


def day_text(day: int) -> str:
    """Return a day, counted from the Unix epoch, as `2026-11-24`."""
    return f"{datetime.fromtimestamp(day * 86400, UTC):%Y-%m-%d}"
