"""The ledger beside the engines' own counters: where they differ, and by how much. Pure.

Both count generated tokens. The engine's count is a little larger in a sound stack: it has the readiness completions,
which no client asked for, and what it made of answers that were cut before they could be counted. A large gap means that
a client uses the engine past the gateway, or that requests were not recorded. Nothing is corrected here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from freehold.ledger.records.rollup import DAY_HOURS, UsageTally


@dataclass(frozen=True, slots=True, order=True)
class EngineReading:
    """The last value of an engine's counter of generated tokens on one day (UTC)."""

    replica: str
    started_us: int
    """When the engine's process was started: with each start its counter begins anew. Unix microseconds."""
    day: int
    """Days since the Unix epoch."""
    tokens_total: int
    read_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """One endpoint's tokens by its own count and by the ledger's."""

    endpoint: str
    engine_tokens: int | None
    """None: it has no counter that was read."""
    ledger_tokens: int
    """Measured and estimated."""
    read_us: int | None = None
    """When the counter was last read, Unix microseconds."""

    @property
    def gap_tokens(self) -> int | None:
        """Return how many tokens the engine made that the ledger does not know of; None: unknown."""
        return None if self.engine_tokens is None else self.engine_tokens - self.ledger_tokens


def reconcile(
    tallies: Iterable[UsageTally], readings: Iterable[EngineReading], *, first_day: int, end_day: int
) -> list[Gap]:
    """Return the gap of each endpoint over whole days, from `first_day` up to and without `end_day`."""
    booked: dict[str, int] = {}
    for each in tallies:
        if each.endpoint and first_day <= each.hour // DAY_HOURS < end_day:
            tokens = each.completion_tokens + each.estimated_tokens
            booked[each.endpoint] = booked.get(each.endpoint, 0) + tokens
    made: dict[str, int] = {}
    read_us: dict[str, int] = {}
    for reading, tokens in _per_day(readings):
        if first_day <= reading.day < end_day:
            made[reading.replica] = made.get(reading.replica, 0) + tokens
            read_us[reading.replica] = max(reading.read_us, read_us.get(reading.replica, 0))
    return [
        Gap(
            endpoint=name,
            engine_tokens=made.get(name),
            ledger_tokens=booked.get(name, 0),
            read_us=read_us.get(name),
        )
        for name in sorted(booked.keys() | made.keys())
    ]


def _per_day(readings: Iterable[EngineReading]) -> Iterable[tuple[EngineReading, int]]:
    """Yield each reading with the tokens of that day: the counter's growth since the day before."""
    for _, of_one_start in groupby(sorted(readings), key=lambda r: (r.replica, r.started_us)):
        before = 0
        for reading in of_one_start:
            yield reading, max(0, reading.tokens_total - before)
            before = max(before, reading.tokens_total)
