"""Turn the end of each request into one ledger record and append it to the spool.

A record is written before the last bytes of its answer leave, with one write to tmpfs. So an answer that a client has is in the
ledger, even if the process is killed a moment later. Nothing waits: a full spool costs a record, a spool that was removed is
written again, and `/health` and `/metrics` report both. It does not drain the spool: the controller does; its state is read from
the files next to the spool, only on request.
"""

from collections import deque
from math import floor
from pathlib import Path
from typing import Any

import msgspec

from freehold.gateway.answers.usage import Usage
from freehold.gateway.counters.request_metrics import read_at_scrape
from freehold.gateway.wire.request import id_of
from freehold.ledger.drainer import SpoolState, spool_state
from freehold.ledger.records.record import Basis, LedgerRecord, Outcome, frame
from freehold.ledger.spool import SpoolWriter
from freehold.telemetry.logs import get_logger
from freehold.telemetry.metrics import Metrics, Reading

BEHIND_S = 30.0
"""Older than this, an undrained record makes the ledger `behind`. Source: our own choice: sixty rounds of the drainer."""
_NO_USAGE = Usage()
CLIENT_LEFT = 499
"""Status of a request whose client left. Source: nginx's status for it."""


# Members of an enumeration are looked up slowly, and these are wanted once per request.
_COMPLETE, _ABANDONED, _CUT, _FAILED = Outcome.COMPLETE, Outcome.ABANDONED, Outcome.CUT, Outcome.FAILED
_MEASURED, _ESTIMATED, _NONE, _UNKNOWN = Basis.MEASURED, Basis.ESTIMATED, Basis.NONE, Basis.UNKNOWN


def outcome_of(status: int, answer_bytes: int, *, complete: bool) -> Outcome:
    """Return how a request ended."""
    if complete:
        return _COMPLETE
    if status == CLIENT_LEFT:
        return _ABANDONED
    return _CUT if answer_bytes else _FAILED


class AnswerTokens(msgspec.Struct, gc=False):
    """What is known of an answer's tokens."""

    usage: Usage | None
    tokens: int | None
    """About how many tokens its engine made; None: unknown."""
    chunks: int
    cost_usd: str | None = None
    """As the ledger's record has it."""

    def completion(self, outcome: Outcome) -> tuple[int | None, Basis]:
        """Return the answer's tokens and what that number rests on."""
        if self.usage is not None and self.usage.completion_tokens is not None:
            return self.usage.completion_tokens, _MEASURED
        if self.tokens is not None:
            return self.tokens, _ESTIMATED
        return None, _NONE if outcome is _FAILED else _UNKNOWN


class RequestEnd(msgspec.Struct, frozen=True, gc=False):
    """How one request ended, for ledger and access log; times in seconds. Made by position: one is made for each."""

    wall_s: float
    """When, as Unix seconds."""
    id_line: bytes
    """The header line with its id."""
    key_id: str
    path: str
    stream: bool
    model: str
    endpoint: str
    """Where it was asked last; empty: no engine saw it."""
    status: int
    outcome: Outcome
    bytes: int
    ttft_s: float | None
    took_s: float
    retries: int
    """Attempts after the first one; below 0: there was none."""
    wait_s: float
    """How long it waited for its first start."""
    code: str
    """Why it failed: an error's code; empty: it did not fail."""
    tokens: AnswerTokens


class LedgerWriter:
    """Writes records of one gateway process."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._spool = SpoolWriter(folder, max_bytes=max_bytes)
        self._folder = folder
        self._seq = 0
        self._noted: deque[RequestEnd] = deque()
        """What is not in the spool yet."""
        self.note = self._noted.append
        """Takes what a request came to; `write` must follow before its client can have the end of the answer."""
        self._reported_dropped = 0
        self._reported_lost = ""
        self._log = get_logger("gateway.ledger")

    def __repr__(self) -> str:
        return f"<LedgerWriter {self._spool!r}>"

    def write(self) -> None:
        """Write what was taken, with one write, or count what could not be written."""
        if not self._noted:
            return
        frames: list[bytes] = []
        dropped = self._spool.dropped_total
        try:
            self._frame(frames, lost=dropped - self._reported_dropped)
        finally:
            if frames and self._spool.append_all(frames):
                self._reported_dropped = dropped

    def _frame(self, frames: list[bytes], *, lost: int) -> None:
        """Make records of what was taken, one behind the other; what is left after a failure is made the next time."""
        noted, run = self._noted, self._spool.run
        while noted:
            end = noted.popleft()
            tokens = end.tokens
            self._seq += 1
            usage = tokens.usage or _NO_USAGE
            completion, basis = tokens.completion(end.outcome)
            # In the order of the fields: twenty-two keywords take msgspec twice as long as all the rest of this. And `floor`,
            # since to call a type, `int`, takes twice as long.
            record = LedgerRecord(
                run, self._seq, floor(end.wall_s * 1e6),
                id_of(end.id_line), end.key_id, end.model, end.path, end.endpoint,
                end.status, end.outcome, basis, end.stream,
                usage.prompt_tokens, usage.cached_tokens, completion,
                tokens.chunks, end.bytes,
                None if end.ttft_s is None else floor(end.ttft_s * 1e6), floor(end.took_s * 1e6),
                max(0, end.retries),
                tokens.cost_usd,
                0 if frames else lost,
            )  # fmt: skip
            frames.append(frame(record))

    def tick(self) -> None:
        """Check whether the spool was removed, and log that; called now and then. One look at a file in use."""
        self.write()
        spool = self._spool
        if spool.look():
            doing = "what the gateway still held is written again; other files that were not drained are lost"
            self._log.error("spool_removed", doing=doing, removed=spool.removed_total)
        elif spool.lost and spool.lost != self._reported_lost:
            doing = "records are kept in memory, until this process ends, and the folder is tried again"
            self._log.error("spool_removed", doing=doing, removed=spool.removed_total, reason=spool.lost)
        self._reported_lost = spool.lost

    def health(self) -> dict[str, Any]:
        """Return what `/health` shows of the ledger."""
        state = spool_state(self._folder)
        return {
            "status": self._status(state),
            "spool_bytes": state.waiting_bytes,
            "lag_s": round(state.lag_s, 1),
            "dropped": self._spool.dropped_total,
            "removed": self._spool.removed_total,
            "error": self._spool.lost or self._spool.last_error or state.drain.last_error,
        }

    def _status(self, state: SpoolState) -> str:
        if self._spool.dropped_total > self._reported_dropped:
            return "dropping"
        if self._spool.lost:
            return "removed"
        return "behind" if state.lag_s > BEHIND_S or state.drain.last_error else "ok"

    def watch(self, metrics: Metrics) -> None:
        """Let `/metrics` read how the ledger is at each scrape."""
        spool, folder = self._spool, self._folder
        readings: dict[str, Reading] = {
            "freehold_ledger_spool_bytes": lambda: {(): spool_state(folder).waiting_bytes},
            "freehold_ledger_lag_seconds": lambda: {(): spool_state(folder).lag_s},
            "freehold_ledger_records_total": lambda: {(): spool.records_total},
            "freehold_ledger_dropped_total": lambda: {(): spool.dropped_total},
            "freehold_ledger_spool_removed_total": lambda: {(): spool.removed_total},
            "freehold_ledger_drain_errors_total": lambda: {(): spool_state(folder).drain.errors_total},
        }
        read_at_scrape(metrics, readings)
