"""The ledger of one stack as sums: what its file holds and what still lies in the spool, while it runs and when it is down.

It only reads. Beside the sums stands what the engines counted themselves.
"""

from dataclasses import dataclass
from pathlib import Path

from freehold.ledger.drainer import waiting_records
from freehold.ledger.journal import JOURNAL_NAME, Journal, Span
from freehold.ledger.records.reconcile import EngineReading, Gap, reconcile
from freehold.ledger.records.rollup import DAY_HOURS, HOUR_US, UsageTally, tally
from freehold.ledger.spool import spool_folder

_DAY_US = DAY_HOURS * HOUR_US


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSums:
    """What the ledger holds of a span of time."""

    tallies: list[UsageTally]
    """Of the time asked for."""
    gaps: list[Gap]
    """Over the whole days that it touches."""


def read_ledger(state_path: Path, span: Span) -> LedgerSums:
    """Return the sums of the stack with this state folder; empty ones where nothing was ever recorded."""
    # The spool first: a record that is drained in between is then found in the file, and is not counted twice.
    waiting = waiting_records(spool_folder(state_path))
    path = state_path / JOURNAL_NAME
    first_day, end_day = span.since_us // _DAY_US, -(-span.until_us // _DAY_US)
    days = Span(since_us=first_day * _DAY_US, until_us=end_day * _DAY_US)
    if not path.exists():
        found, whole = ([tally(each) for each in waiting if part.has(each)] for part in (span, days))
        readings = list[EngineReading]()
    else:
        journal = Journal(path, read_only=True)
        found, whole = journal.tallies(span, waiting), journal.tallies(days, waiting)
        readings = journal.readings()
        journal.close()
    return LedgerSums(tallies=found, gaps=reconcile(whole, readings, first_day=first_day, end_day=end_day))
