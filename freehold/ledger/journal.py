"""The ledger on disk: an SQLite file that records are added to in batches, each exactly once.

This is the only file that knows sqlite3. A record's identity is its primary key, so a batch that is added again, after
a death between its commit and the removal of its spool, changes nothing. A commit is on the disk when it returns
(WAL, `synchronous=FULL`): what the spool may then forget outlives the machine. It waits for the disk as long as that
takes, so only the drainer's thread and commands call it; the gateway never does.
"""

import contextlib
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from freehold.core.errors import Permanent, Temporary
from freehold.ledger.records.reconcile import EngineReading
from freehold.ledger.records.record import LedgerRecord
from freehold.ledger.records.rollup import FAULT, HOUR_US, SUMS, UsageTally, tally

JOURNAL_NAME = "ledger.sqlite"
"""The file's name in a state folder."""
_VERSION = 1  # PRAGMA user_version of this schema
_BUSY_S = 5.0  # How long another process's write is waited for before the batch is tried again later.
_WHOLE_FILE = 2**62
_COLUMNS = msgspec.structs.fields(LedgerRecord)
_NAMES = tuple(column.name for column in _COLUMNS)
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS requests (
        run INTEGER, seq INTEGER, time_us INTEGER NOT NULL, request_id TEXT NOT NULL, key_id TEXT NOT NULL,
        model TEXT NOT NULL, path TEXT NOT NULL, endpoint TEXT NOT NULL, status INTEGER NOT NULL,
        outcome TEXT NOT NULL, basis TEXT NOT NULL, stream INTEGER NOT NULL,
        prompt_tokens INTEGER, cached_tokens INTEGER, completion_tokens INTEGER,
        chunks INTEGER NOT NULL, bytes INTEGER NOT NULL, ttft_us INTEGER, duration_us INTEGER NOT NULL,
        retries INTEGER NOT NULL, cost_usd TEXT, lost INTEGER NOT NULL,
        PRIMARY KEY (run, seq)) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS requests_by_time ON requests (time_us)",
    """CREATE TABLE IF NOT EXISTS engine_readings (
        replica TEXT, started_us INTEGER, day INTEGER, tokens_total INTEGER NOT NULL, read_us INTEGER NOT NULL,
        PRIMARY KEY (replica, started_us, day)) WITHOUT ROWID""",
    f"PRAGMA user_version = {_VERSION}",
)
_ADD = f"INSERT OR IGNORE INTO requests ({', '.join(_NAMES)}) VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608 - our own names
_READ = """INSERT INTO engine_readings VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
    SET tokens_total = max(tokens_total, excluded.tokens_total), read_us = excluded.read_us"""
_SUM = f"""SELECT key_id, model, endpoint, time_us / {HOUR_US}, count(*), sum(outcome = 'complete'),
    sum(outcome IN ('cut', 'abandoned')), sum(outcome = 'failed' AND status >= {FAULT}),
    sum(outcome = 'failed' AND status < {FAULT}), sum(basis NOT IN ('measured', 'none')),
    total(prompt_tokens), total(cached_tokens),
    total(CASE WHEN basis != 'estimated' THEN completion_tokens END),
    total(CASE WHEN basis = 'estimated' THEN completion_tokens END), sum(lost),
    total(cost_usd != ''), total(cost_usd = ''),
    coalesce(sum(CASE WHEN cost_usd != '' THEN CAST(replace(cost_usd, '.', '') AS INTEGER) END), 0)
    FROM requests WHERE time_us >= ? AND time_us < ? GROUP BY 1, 2, 3, 4"""  # noqa: S608 - a number of ours


ARRIVALS_MAX = 1_000_000
"""Most arrivals that are read at once. Source: our own bound: some 100 MB of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Unix microseconds from `since_us` up to and without `until_us`."""

    since_us: int = 0
    until_us: int = _WHOLE_FILE

    def has(self, record: LedgerRecord) -> bool:
        """Return whether a record is of that time."""
        return self.since_us <= record.time_us < self.until_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """Requests as they came."""

    rows: tuple[tuple[int, int, int], ...]
    """Unix microseconds of the asking, prompt tokens, answer tokens."""
    unknown: int
    """Of that time, those of whose tokens something is unknown."""


class Journal:
    """An open ledger file. Raises Temporary for what may pass (full, locked), Permanent for what will not."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        with self._failures():
            if read_only:
                self._db = sqlite3.connect(
                    f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S, isolation_level=None
                )
            else:
                self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
                self._prepare()
            self._check_version()
        self._inode = path.stat().st_ino

    def _prepare(self) -> None:
        self.path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:
            with self._transaction():
                for statement in _SCHEMA:
                    self._db.execute(statement)

    def _check_version(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            raise Temporary(f"ledger {self.path} is just being made", hint="try again in a second")
        if version != _VERSION:
            raise Permanent(
                f"{self.path} is a ledger of version {version}, this Freehold knows version {_VERSION}",
                hint="use the Freehold that wrote it, or move the file away",
            )

    def is_here(self) -> bool:
        """Return whether the open file is still the one with its name; False: it was removed or moved."""
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def add(self, records: Collection[LedgerRecord], readings: Iterable[EngineReading] = ()) -> int:
        """Add records and readings in one transaction, durably, and return how many records were new."""
        rows = [msgspec.structs.astuple(record) for record in records]
        with self._failures(), self._transaction():
            before = self._db.total_changes
            self._db.executemany(_ADD, rows)
            added = self._db.total_changes - before
            self._db.executemany(
                _READ, [(r.replica, r.started_us, r.day, r.tokens_total, r.read_us) for r in readings]
            )
        return added

    def tallies(self, span: Span, waiting: Iterable[LedgerRecord] = ()) -> list[UsageTally]:
        """Return the sums of that time, by key, model, endpoint and hour; of `waiting` those that are not in yet too."""
        with self._failures(), self._transaction("BEGIN"):
            # One snapshot for both questions: a record that is added meanwhile counts once.
            rows = self._db.execute(_SUM, (span.since_us, span.until_us)).fetchall()
            fresh = [record for record in waiting if span.has(record) and not self._has(record)]
        return [_tally(row) for row in rows] + [tally(record) for record in fresh]

    def arrivals(self, span: Span, models: Collection[str] = ()) -> Arrivals:
        """Return when the whole chat answers of that time were asked for and their sizes, in the order of their asking.

        At most `ARRIVALS_MAX`, the latest; with `models` only of those. What has no token counts is only counted.
        """
        named = f" AND model IN ({', '.join('?' * len(models))})" if models else ""
        query = f"""SELECT time_us - duration_us, prompt_tokens, completion_tokens FROM requests
            WHERE time_us >= ? AND time_us < ? AND outcome = 'complete' AND path = '/v1/chat/completions'{named}
            ORDER BY time_us DESC LIMIT {ARRIVALS_MAX}"""  # noqa: S608 - question marks and a number of ours
        with self._failures():
            rows = self._db.execute(query, (span.since_us, span.until_us, *models)).fetchall()
        known = sorted((at_us, prompt, answer) for at_us, prompt, answer in rows if prompt and answer)
        return Arrivals(rows=tuple(known), unknown=len(rows) - len(known))

    def _has(self, record: LedgerRecord) -> bool:
        query = "SELECT 1 FROM requests WHERE run = ? AND seq = ?"
        return self._db.execute(query, (record.run, record.seq)).fetchone() is not None

    def readings(self) -> list[EngineReading]:
        """Return every reading of the engines' counters."""
        query = "SELECT replica, started_us, day, tokens_total, read_us FROM engine_readings"
        with self._failures():
            return [EngineReading(*row) for row in self._db.execute(query)]

    def close(self) -> None:
        """Close the file."""
        with self._failures():
            self._db.close()

    @contextlib.contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        self._db.execute(begin)
        try:
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):  # some failures have rolled it back already
                self._db.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Say SQLite's failures in our words: a full or locked file may pass, a broken one will not."""
        try:
            yield
        except (sqlite3.OperationalError, OSError) as exc:
            raise Temporary(f"ledger {self.path}: {exc}") from exc
        except sqlite3.DatabaseError as exc:
            raise Permanent(
                f"ledger {self.path}: {exc}", hint="move the file away: a new one is made"
            ) from exc


def _tally(row: tuple[Any, ...]) -> UsageTally:
    key_id, model, endpoint, hour, requests, *sums = row
    return UsageTally(
        key_id=key_id,
        model=model,
        endpoint=endpoint,
        hour=hour,
        **dict(zip(SUMS, map(int, (requests, *sums)), strict=True)),  # the query has them in this order
    )
