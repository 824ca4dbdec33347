"""The drainer: a thread that moves records from the spool to the ledger file, again and again.

It runs in the controller, not in the gateway: another interpreter's lock and another process's disk waits cannot touch
a request, and what a killed gateway left is drained by whoever lives. A disk that fails or hangs costs it time and
nothing else: the spool keeps the records, and how far it has come stands in a small file beside them (`drain.json`, on
tmpfs), from which gateways report how much waits and for how long.
"""

import contextlib
import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from freehold.core.clock import wall_s
from freehold.core.errors import FreeholdError, Temporary
from freehold.ledger.journal import Journal
from freehold.ledger.records.reconcile import EngineReading
from freehold.ledger.records.record import HEAD_BYTES, PAYLOAD_BYTES_MAX, LedgerRecord, read_frames
from freehold.ledger.spool import Segment, segments

EVERY_S = 0.5
"""Between two rounds. Source: our own choice: what a power failure can take is what tmpfs holds, so it is short; one
commit costs a disk some milliseconds."""
_BATCH_BYTES = 256 * 1024  # Read and committed at once: some 1,500 records, 1 to 10 ms of work.
_AGAIN_S_MAX = 8.0  # Back-off while the file cannot be written: doubled from EVERY_S up to this.
_DRAIN_FILE = "drain.json"


class DrainState(msgspec.Struct, frozen=True, kw_only=True):
    """How far the drainer has come, as it last said."""

    offsets: dict[str, int] = {}
    """By spool file: the bytes of it that are safely in the ledger file."""
    records_total: int = 0
    torn_bytes_total: int = 0
    """Bytes that were no record: half-written ends of killed gateways, as a rule none."""
    errors_total: int = 0
    """Rounds that failed."""
    last_error: str = ""
    """Why the last round failed; empty: it did not."""


class SpoolState(msgspec.Struct, frozen=True, kw_only=True):
    """What waits in a spool."""

    waiting_bytes: int = 0
    lag_s: float = 0.0
    """Age of the oldest record that is not in the ledger file yet; 0: none waits."""
    drain: DrainState = DrainState()


def spool_state(folder: Path) -> SpoolState:
    """Return what waits in a spool folder now. Reads a few small files on tmpfs."""
    drain = _read_state(folder)
    waiting_bytes, times_us = 0, []
    for segment in segments(folder):
        at = drain.offsets.get(segment.path.name, 0)
        left_bytes = max(0, segment.size_bytes() - at)
        waiting_bytes += left_bytes
        if left_bytes:
            first = read_frames(segment.read(at, HEAD_BYTES + PAYLOAD_BYTES_MAX)).records[:1]
            times_us += [record.time_us for record in first]
    lag_s = max(0.0, wall_s() - min(times_us) / 1e6) if times_us else 0.0
    return SpoolState(waiting_bytes=waiting_bytes, lag_s=lag_s, drain=drain)


def _read_state(folder: Path) -> DrainState:
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((folder / _DRAIN_FILE).read_bytes(), type=DrainState)
    return DrainState()


class Drainer:
    """The drainer of one spool folder; one at a time may run for a folder (the controller's lock sees to that)."""

    def __init__(self, folder: Path, journal_path: Path, *, every_s: float = EVERY_S) -> None:
        self._folder = folder
        self._journal_path = journal_path
        self._every_s = every_s
        self._journal: Journal | None = None
        before = _read_state(folder)
        self._offsets = dict(before.offsets)
        self._records, self._torn, self._errors = (
            before.records_total,
            before.torn_bytes_total,
            before.errors_total,
        )
        self._last_error = ""
        self._readings: dict[tuple[str, int, int], EngineReading] = {}
        self._said = b""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="freehold-ledger", daemon=True)

    def __repr__(self) -> str:
        return f"<Drainer {self._folder} {self._records} drained, {self._errors} errors>"

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def note(self, readings: Iterable[EngineReading]) -> None:
        """Take readings of engines' counters, to be written with the next round. Never waits."""
        for reading in readings:
            self._readings[reading.replica, reading.started_us, reading.day] = reading

    def stop(self, timeout_s: float) -> bool:
        """Drain what is there and end; returns False where that took longer than `timeout_s`: the spool keeps the rest."""
        self._stopping.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        again_s = self._every_s
        while True:
            last = self._stopping.is_set()
            ok = self._try_round()
            if last:
                break
            again_s = self._every_s if ok else min(again_s * 2, _AGAIN_S_MAX)
            self._stopping.wait(again_s)
        if self._journal is not None:
            with contextlib.suppress(FreeholdError):  # what is committed is committed
                self._journal.close()

    def _try_round(self) -> bool:
        try:
            self.round()
        except (FreeholdError, OSError) as exc:
            self._errors += 1
            self._last_error = str(exc)
            if self._journal is not None:
                with contextlib.suppress(FreeholdError):  # a fresh connection is made in the next round
                    self._journal.close()
                self._journal = None
            self._say()
            return False
        self._last_error = ""
        self._say()
        return True

    def round(self) -> None:
        """Move what is there now; raises Temporary or Permanent where the ledger file cannot take it."""
        if self._journal is not None and not self._journal.is_here():
            # What was in it is gone with it; what comes now must not go the same way.
            self._journal.close()
            self._journal = None
            raise Temporary(f"{self._journal_path} was removed or moved", hint="it is made again")
        if self._journal is None:
            self._journal = Journal(self._journal_path)
        found = segments(self._folder)
        newest = {segment.run: segment.number for segment in found}
        for segment in found:
            # Asked before reading: if no writer is left, what is read now is all that there is.
            final = segment.number < newest[segment.run] or not segment.has_writer()
            self._drain(self._journal, segment, final=final)
        self._write_readings(self._journal)
        names = {segment.path.name for segment in found}
        self._offsets = {name: at for name, at in self._offsets.items() if name in names}

    def _drain(self, journal: Journal, segment: Segment, *, final: bool) -> None:
        name = segment.path.name
        while True:
            at = self._offsets.get(name, 0)
            data = segment.read(at, _BATCH_BYTES)
            found = read_frames(data)
            if found.records:
                journal.add(found.records)
                self._records += len(found.records)
                self._torn += found.torn_bytes
                self._offsets[name] = at + found.used_bytes
                self._say()
            elif final and len(data) == _BATCH_BYTES:
                self._skip(name, at, len(data) - HEAD_BYTES)  # a long stretch of nonsense: look behind it
            else:
                break
        if final:
            self._torn += len(data)
            segment.path.unlink(missing_ok=True)

    def _skip(self, name: str, at: int, size_bytes: int) -> None:
        self._torn += size_bytes
        self._offsets[name] = at + size_bytes

    def _write_readings(self, journal: Journal) -> None:
        readings = dict(self._readings)
        if readings:
            journal.add((), readings.values())
        for key, reading in readings.items():
            if self._readings.get(key) is reading:
                del self._readings[key]

    def _say(self) -> None:
        """Publish the state, where it is news, whole: a reader never sees half of it."""
        state = DrainState(
            offsets=self._offsets,
            records_total=self._records,
            torn_bytes_total=self._torn,
            errors_total=self._errors,
            last_error=self._last_error,
        )
        data = msgspec.json.encode(state)
        if data == self._said:
            return
        fresh = self._folder / f"{_DRAIN_FILE}.new"
        with contextlib.suppress(OSError):  # a spool that cannot be written to is the writer's to report
            fresh.write_bytes(data)
            fresh.replace(self._folder / _DRAIN_FILE)
            self._said = data


def waiting_records(folder: Path) -> list[LedgerRecord]:
    """Return the records in a spool folder that are not known to be in the ledger file, without changing anything."""
    drained = _read_state(folder).offsets
    waiting: list[LedgerRecord] = []
    for segment in segments(folder):
        at = drained.get(segment.path.name, 0)
        waiting += read_frames(segment.read(at, segment.size_bytes())).records
    return waiting
