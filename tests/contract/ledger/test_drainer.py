"""From spool to file: each record exactly once, whatever dies, fills up or hangs."""

import contextlib
import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.core.errors import Permanent, Temporary
from freehold.ledger import journal as journal_module
from freehold.ledger.drainer import Drainer, spool_state, waiting_records
from freehold.ledger.journal import JOURNAL_NAME, Journal, Span
from freehold.ledger.records.reconcile import EngineReading
from freehold.ledger.records.record import Basis, LedgerRecord, Outcome, frame
from freehold.ledger.records.rollup import roll_up
from freehold.ledger.spool import SpoolWriter, make_folder, segments
from waiting import wait_until


def record(seq: int, *, run: int = 1, **more: object) -> LedgerRecord:
    told = {
        "run": run, "seq": seq, "time_us": seq, "request_id": f"r{seq}", "key_id": "", "model": "m", "path": "/p",
        "endpoint": "e", "status": 200, "outcome": Outcome.COMPLETE, "basis": Basis.MEASURED, "stream": False,
        "completion_tokens": 2,
    }  # fmt: skip
    return LedgerRecord(**(told | more))


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    make_folder(folder)
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / JOURNAL_NAME


def rows(path: Path) -> list[int]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return [seq for (seq,) in db.execute("SELECT seq FROM requests ORDER BY run, seq")]


def write(spool: Path, first: int, end: int) -> SpoolWriter:
    writer = SpoolWriter(spool)
    assert all(writer.append(record(seq, run=writer.run)) for seq in range(first, end))
    return writer


def test_what_is_in_the_file_is_forgotten_by_the_spool(spool: Path, path: Path) -> None:
    writer, drainer = write(spool, 1, 1001), Drainer(spool, path)
    drainer.round()
    assert rows(path) == list(range(1, 1001))
    assert len(segments(spool)) == 1, "its writer lives and may go on"
    assert waiting_records(spool) == []
    writer.append(record(1001, run=writer.run))
    assert spool_state(spool).waiting_bytes == len(frame(record(1001, run=writer.run)))
    writer.close()
    drainer.round()
    assert rows(path) == list(range(1, 1002))
    assert segments(spool) == []


def test_a_spool_that_is_removed_counts_once_whatever_of_it_was_drained(spool: Path, path: Path) -> None:
    writer, drainer = write(spool, 1, 101), Drainer(spool, path)
    drainer.round()
    writer.append(record(101, run=writer.run))
    shutil.rmtree(spool)
    drainer.round()
    assert spool_state(spool).waiting_bytes == 0
    assert writer.look()
    assert spool_state(spool).waiting_bytes > 0
    drainer.round()
    assert rows(path) == list(range(1, 102))
    writer.append(record(102, run=writer.run))
    drainer.round()
    assert rows(path) == list(range(1, 103))
    assert spool_state(spool).waiting_bytes == 0


DIES_AFTER_THE_COMMIT = """
import os, signal, sys
from pathlib import Path
from freehold.ledger.drainer import Drainer
from freehold.ledger.journal import Journal
add = Journal.add
def add_and_die(self, records, readings=()):
    add(self, records, readings)
    os.kill(os.getpid(), signal.SIGKILL)
Journal.add = add_and_die
Drainer(Path(sys.argv[1]), Path(sys.argv[2])).round()
"""


def rows_if_made(path: Path) -> list[int]:
    with contextlib.suppress(sqlite3.OperationalError):
        return rows(path) if path.exists() else []
    return []


@pytest.mark.parametrize("moved", [False, True])
def test_a_file_that_is_taken_away_is_made_again(spool: Path, path: Path, *, moved: bool) -> None:
    writer, drainer = SpoolWriter(spool), Drainer(spool, path, every_s=0.02)
    drainer.start()
    try:
        writer.append(record(1))
        wait_until(lambda: rows_if_made(path) == [1])
        for name in path.parent.glob(f"{path.name}*"):
            if moved:
                name.rename(name.with_name(f"old-{name.name}"))
            else:
                name.unlink()
        writer.append(record(2))
        wait_until(lambda: rows_if_made(path) == [2])
        assert spool_state(spool).drain.errors_total >= 1, (
            "whoever looks at the metrics sees that something was amiss"
        )
    finally:
        writer.close()
        drainer.stop(5)
    assert rows(path) == [2]


def test_a_death_between_the_commit_and_the_forgetting_counts_nothing_twice(spool: Path, path: Path) -> None:
    write(spool, 1, 101).close()
    died = subprocess.run([sys.executable, "-c", DIES_AFTER_THE_COMMIT, spool, path], check=False, timeout=30)
    assert died.returncode == -signal.SIGKILL
    assert rows(path) == list(range(1, 101))
    assert len(waiting_records(spool)) == 100, "the spool has them still"
    with contextlib.closing(Journal(path, read_only=True)) as journal:
        (((), total),) = roll_up(journal.tallies(Span(), waiting_records(spool)), ())
    assert total.requests == 100, "a reader does not count them twice either"
    Drainer(spool, path).round()
    assert rows(path) == list(range(1, 101))
    assert segments(spool) == []


def test_the_torn_end_of_a_killed_writer_is_dropped_and_counted(spool: Path, path: Path) -> None:
    write(spool, 1, 4).close()
    (segment,) = segments(spool)
    torn = frame(record(4))[:-5]
    with segment.path.open("ab") as file:
        file.write(torn)
    Drainer(spool, path).round()
    assert rows(path) == [1, 2, 3]
    assert segments(spool) == []


def test_a_half_visible_record_of_a_living_writer_is_waited_for(spool: Path, path: Path) -> None:
    writer, drainer = write(spool, 1, 3), Drainer(spool, path)
    data = frame(record(3, run=writer.run))
    with segments(spool)[0].path.open("ab", buffering=0) as file:
        file.write(data[:20])
        drainer.round()
        assert rows(path) == [1, 2]
        file.write(data[20:])
    drainer.round()
    assert rows(path) == [1, 2, 3]
    assert spool_state(spool).drain.torn_bytes_total == 0


def test_several_writers_and_what_they_left_are_drained_together(spool: Path, path: Path) -> None:
    for first in (1, 11, 21):
        write(spool, first, first + 10).close()
    write(spool, 31, 41)
    drainer = Drainer(spool, path, every_s=0.01)
    drainer.start()
    assert drainer.stop(10)
    assert sorted(rows(path)) == list(range(1, 41))


def test_a_locked_file_is_waited_for_without_losing_anything(
    spool: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_BUSY_S", 0.05)
    Journal(path).close()
    writer, drainer = write(spool, 1, 11), Drainer(spool, path, every_s=0.02)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        drainer.start()
        wait_until(lambda: spool_state(spool).drain.errors_total > 1, what="a failed round")
        state = spool_state(spool)
        assert "locked" in state.drain.last_error
        assert state.waiting_bytes > 0
        assert writer.append(record(11, run=writer.run)), "who writes records waits for nobody"
        holder.execute("ROLLBACK")
    wait_until(lambda: len(rows(path)) == 11, what="the spool to be drained")
    assert drainer.stop(10)
    assert spool_state(spool).drain.last_error == ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 512 KiB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    told = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(told, check=False, capture_output=True).returncode != 0:
        pytest.skip("may not mount a file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with pytest.raises(OSError) as full, ballast.open("wb", buffering=0) as file:  # noqa: PT011, PT012
        while True:
            file.write(bytes(512))
    assert full.value.errno == errno.ENOSPC
    return ballast


def test_a_full_disk_keeps_the_records_in_the_spool(spool: Path, small_disk: Path) -> None:
    path = small_disk / JOURNAL_NAME
    Journal(path).close()
    ballast = fill(small_disk)
    write(spool, 1, 2001).close()
    drainer = Drainer(spool, path, every_s=0.02)
    drainer.start()
    wait_until(lambda: spool_state(spool).drain.errors_total, what="a failed round")
    assert len(waiting_records(spool)) == 2000
    ballast.unlink()
    wait_until(lambda: not segments(spool), what="the spool to be drained")
    assert drainer.stop(10)
    assert rows(path) == list(range(1, 2001))


def test_a_full_spool_disk_costs_records_and_leaves_no_half_ones(small_disk: Path, path: Path) -> None:
    writer = SpoolWriter(small_disk)
    taken = sum(writer.append(record(seq, run=writer.run)) for seq in range(1, 8001))
    assert 0 < taken < 8000
    assert writer.dropped_total == 8000 - taken
    assert writer.last_error == "No space left on device"
    writer.close()
    drainer = Drainer(small_disk, path)
    drainer.round()
    assert rows(path) == list(range(1, taken + 1))


def test_readings_keep_the_last_of_each_day(spool: Path, path: Path) -> None:
    drainer = Drainer(spool, path)
    for day, tokens in ((1, 5), (1, 9), (2, 12)):
        drainer.note([EngineReading("m-0", 7, day, tokens, read_us=tokens)])
        drainer.round()
    with contextlib.closing(Journal(path, read_only=True)) as journal:
        assert journal.readings() == [EngineReading("m-0", 7, 1, 9, 9), EngineReading("m-0", 7, 2, 12, 12)]


def test_the_file_adds_up_as_records_do(path: Path) -> None:
    mixed = [
        record(1, prompt_tokens=4, cached_tokens=1),
        record(2, outcome=Outcome.ABANDONED, basis=Basis.ESTIMATED, lost=2),
        record(3, outcome=Outcome.FAILED, basis=Basis.NONE, status=503, completion_tokens=None),
        record(4, basis=Basis.UNKNOWN, completion_tokens=None, time_us=5_000_000_000),
        record(
            5,
            outcome=Outcome.FAILED,
            basis=Basis.NONE,
            status=400,
            completion_tokens=None,
            time_us=5_000_000_000,
        ),
    ]
    with contextlib.closing(Journal(path)) as journal:
        assert journal.add(mixed[:2]) == 2
        assert journal.add(mixed[:3]) == 1
        by = roll_up(journal.tallies(Span(), mixed), ["hour"])
        alone = roll_up(journal.tallies(Span(until_us=1), mixed[3:]), ["hour"])
        assert journal.add(mixed) == 2
        assert roll_up(journal.tallies(Span()), ["hour"]) == by
    assert alone == []
    ((_, first), (_, second)) = by
    assert (
        first.requests,
        first.interrupted,
        first.failed,
        first.completion_tokens,
        first.estimated_tokens,
    ) == (3, 1, 1, 2, 2)
    assert (first.prompt_tokens, first.cached_tokens, first.lost, first.unknown) == (4, 1, 2, 1)
    assert (second.requests, second.unknown, second.failed, second.rejected) == (2, 1, 0, 1)


def test_a_file_that_is_no_ledger_is_said_in_words(path: Path) -> None:
    path.write_bytes(b"not a database, not at all" * 100)
    with pytest.raises(Permanent, match="not a database"):
        Journal(path)
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(Permanent, match="version 99"):
        Journal(path)


def test_a_folder_that_cannot_be_written_is_a_failure_that_may_pass(tmp_path: Path) -> None:
    with pytest.raises(Temporary):
        Journal(tmp_path / "nowhere" / JOURNAL_NAME)
