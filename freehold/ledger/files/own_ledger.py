"""Freehold's own ledger file as usage: opened read-only, added up by SQLite, hour by hour.

It is no list of records, so it is read as a whole. The ledger keeps hours only in its sums; when its first and last hour
begin and end is found to the minute by asking for narrower spans. What still lies in the spool is not in the file.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from freehold.ledger.foreign.spans import HOUR_S
from freehold.ledger.foreign.use import Use
from freehold.ledger.journal import Journal, Span
from freehold.ledger.records.money import PICOUSD_PER_USD
from freehold.ledger.records.rollup import UsageTally

NAME = "own_ledger"
"""The file's name in this folder."""
LOOKED_FOR = "an SQLite file, as ledger.sqlite in Freehold's state folder is"
"""What it is recognised by, in words."""
MAGIC = b"SQLite format 3\x00"
"""First bytes. Source: sqlite.org, Database File Format, section 1.3."""
_US = 1_000_000  # Microseconds in a second.
_MINUTE_S = 60


def read_ledger(path: Path, span: Span) -> tuple[list[Use], list[str], tuple[float, float]]:
    """Return the uses in that time, sentences on what is not known, and from when to when there are records.

    Raises Temporary or Permanent where the file cannot be read; no records: the times are 0.
    """
    journal = Journal(path, read_only=True)
    try:
        tallies = journal.tallies(span)
        hours = sorted({tally.hour for tally in tallies})
        ends = (0.0, 0.0)
        if hours:
            first_s = _edge_s(journal, span, hours[0], first=True)
            ends = (first_s, _edge_s(journal, span, hours[-1], first=False))
    finally:
        journal.close()
    return list(uses_of(tallies, since_s=span.since_us / _US)), notes_on(tallies), ends


def uses_of(tallies: Iterable[UsageTally], *, since_s: float = 0.0) -> Iterator[Use]:
    """Give the sums as uses, one for each key, model, endpoint and hour; requests of which nothing is known give none.

    `since_s` is where the time that was asked for begins, maybe within the first hour.
    """
    for tally in tallies:
        tokens = tally.completion_tokens + tally.estimated_tokens
        if not tally.prompt_tokens and not tokens:
            continue
        known = tally.requests - tally.failed
        usd = tally.cost_picousd / PICOUSD_PER_USD if tally.priced else None
        start_s = max(float(tally.hour * HOUR_S), since_s)
        cached = min(tally.cached_tokens, tally.prompt_tokens)
        yield Use(start_s, start_s, max(known, 1), tally.prompt_tokens, cached, tokens, tally.model, usd)


def notes_on(tallies: Iterable[UsageTally]) -> list[str]:
    """Return a sentence on each kind of thing that the ledger does not know."""
    found = list(tallies)
    counts = {
        "requests whose tokens are partly known add the known part": sum(tally.unknown for tally in found),
        "requests could not be recorded and are missing": sum(tally.lost for tally in found),
        "requests failed and are left out": sum(tally.failed for tally in found),
        "requests have a price and no known cost": sum(tally.cost_unknown for tally in found),
    }
    return [f"{count:,} {words}." for words, count in counts.items() if count]


def _edge_s(journal: Journal, span: Span, hour: int, *, first: bool) -> float:
    """Return when the first record of an hour lies (its minute's beginning), or the last one (its minute's end)."""
    low, high = 0, _MINUTE_S
    while high - low > 1:
        middle = (low + high) // 2
        found = _any(journal, span, hour, (0, middle) if first else (middle, _MINUTE_S))
        low, high = (low, middle) if found is first else (middle, high)
    return float(hour * HOUR_S + (low if first else high) * _MINUTE_S)


def _any(journal: Journal, span: Span, hour: int, minutes: tuple[int, int]) -> bool:
    since_us, until_us = ((hour * HOUR_S + minute * _MINUTE_S) * _US for minute in minutes)
    part = Span(since_us=max(since_us, span.since_us), until_us=min(until_us, span.until_us))
    return bool(journal.tallies(part))
