"""The spool: bounded, counted, on tmpfs where there is one, and its files tell whether their writer lives."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from freehold.core.errors import Permanent
from freehold.ledger import spool
from freehold.ledger.drainer import spool_state, waiting_records
from freehold.ledger.records.record import Basis, LedgerRecord, Outcome, frame
from freehold.ledger.spool import SpoolWriter, make_folder, remove_folder, segments, spool_folder


def record(seq: int) -> LedgerRecord:
    return LedgerRecord(run=1, seq=seq, time_us=seq, request_id="r", key_id="", model="m", path="/p", endpoint="e", status=200,
                  outcome=Outcome.COMPLETE, basis=Basis.MEASURED, stream=False)  # fmt: skip


SIZE = len(frame(record(1)))


def test_records_lie_in_files_of_one_process_in_order(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, segment_bytes=3 * SIZE)
    assert all(writer.append(record(seq)) for seq in range(1, 8))
    assert [s.number for s in segments(tmp_path)] == [1, 2, 3]
    assert [r.seq for r in waiting_records(tmp_path)] == list(range(1, 8))
    assert spool_state(tmp_path).waiting_bytes == 7 * SIZE


def test_a_file_has_a_writer_until_it_closes_or_goes_on_to_the_next(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, segment_bytes=2 * SIZE)
    for seq in range(1, 4):
        writer.append(record(seq))
    assert [s.has_writer() for s in segments(tmp_path)] == [False, True]
    writer.close()
    assert not any(s.has_writer() for s in segments(tmp_path))


def test_a_full_spool_drops_and_counts_and_takes_again_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(spool, "monotonic_s", lambda: now_s)
    writer = SpoolWriter(tmp_path, max_bytes=8 * SIZE, segment_bytes=2 * SIZE)
    taken = [writer.append(record(seq)) for seq in range(1, 21)]
    assert taken == [True] * 8 + [False] * 12
    assert writer.dropped_total == 12
    assert "not drained" in writer.last_error
    for segment in segments(tmp_path):
        segment.path.unlink()
    assert not writer.append(record(21)), "room is looked for once a second, so that dropping stays cheap"
    now_s = 2.0
    assert writer.append(record(22))


def test_several_records_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (writes.append(len(data)), write(fd, data))[1])
    writer = SpoolWriter(tmp_path)
    assert writer.append_all([frame(record(seq)) for seq in range(1, 6)])
    assert writes == [5 * SIZE]
    assert writer.records_total == 5
    assert seqs(tmp_path) == [1, 2, 3, 4, 5]


def test_of_several_records_those_are_written_that_find_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    # A file system with room for three more: a longer write is cut, as tmpfs cuts it.
    room = [3 * SIZE + 1]

    def cut(fd: int, data: bytes) -> int:
        written = write(fd, data[: room[0]])
        room[0] -= written if written == len(data) else 0
        return written

    monkeypatch.setattr(os, "write", cut)
    writer = SpoolWriter(tmp_path)
    assert writer.append_all([frame(record(seq)) for seq in range(1, 6)])
    assert seqs(tmp_path) == [1, 2, 3]
    assert (writer.records_total, writer.dropped_total) == (3, 2)
    room[0] = 100 * SIZE
    assert not writer.lost
    assert writer.append(record(6))
    assert seqs(tmp_path) == [1, 2, 3, 6]


def test_of_several_records_those_are_written_that_the_last_file_has_room_for(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, max_bytes=8 * SIZE, segment_bytes=2 * SIZE)
    assert all(writer.append(record(seq)) for seq in range(1, 8))
    assert writer.append_all([frame(record(seq)) for seq in (8, 9, 10)])
    assert seqs(tmp_path) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (writer.records_total, writer.dropped_total) == (8, 2)


def test_several_records_go_on_in_the_next_file(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, segment_bytes=3 * SIZE)
    assert writer.append(record(1))
    assert writer.append_all([frame(record(seq)) for seq in range(2, 8)])
    assert [each.size_bytes() // SIZE for each in segments(tmp_path)] == [3, 3, 1]
    assert seqs(tmp_path) == [1, 2, 3, 4, 5, 6, 7]


def test_a_folder_that_cannot_be_made_costs_records_and_not_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(spool, "monotonic_s", lambda: now_s)
    (tmp_path / "file").write_text("")
    writer = SpoolWriter(tmp_path / "file" / "spool")
    assert not writer.append(record(1))
    assert writer.dropped_total == 1
    assert writer.last_error == "Not a directory"
    (tmp_path / "file").unlink()
    now_s = 2.0
    assert writer.append(record(2)), "it is made as soon as it can be"
    assert writer.last_error == ""


def seqs(folder: Path) -> list[int]:
    return [each.seq for each in waiting_records(folder)]


@pytest.mark.parametrize("what", ["file", "folder", "all"])
def test_what_was_written_is_written_again_when_somebody_removes_it(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "freehold-1" / "stack"
    make_folder(folder)
    writer = SpoolWriter(folder)
    assert all(writer.append(record(seq)) for seq in range(1, 4))
    assert not writer.look()
    if what == "file":
        segments(folder)[0].path.unlink()
    else:
        shutil.rmtree(folder if what == "folder" else folder.parent)
    assert writer.append(record(4)), "nobody has looked yet"
    assert seqs(folder) == []
    assert writer.look()
    assert not writer.look()
    assert writer.append(record(5))
    assert seqs(folder) == [1, 2, 3, 4, 5]
    assert [each.has_writer() for each in segments(folder)] == [True]
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert (writer.removed_total, writer.dropped_total, writer.lost) == (1, 0, "")


def test_a_removed_file_that_is_full_is_not_let_go(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    make_folder(folder)
    writer = SpoolWriter(folder, segment_bytes=3 * SIZE)
    for seq in (1, 2, 3):
        writer.append(record(seq))
    shutil.rmtree(folder)
    assert writer.append(record(4))
    assert seqs(folder) == [1, 2, 3, 4]
    assert writer.removed_total == 1


def test_a_removed_file_is_kept_until_it_can_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(spool, "monotonic_s", lambda: now_s)
    folder = tmp_path / "spool"
    make_folder(folder)
    writer = SpoolWriter(folder, segment_bytes=3 * SIZE)
    writer.append(record(1))
    shutil.rmtree(folder)
    folder.write_text("in the way")
    writer.look()
    assert writer.lost
    assert [writer.append(record(seq)) for seq in range(2, 6)] == [True, True, False, False]
    assert writer.removed_total == 1
    assert writer.dropped_total == 2
    folder.unlink()
    now_s = 2.0
    writer.look()
    assert not writer.lost
    assert writer.append(record(6))
    assert seqs(folder) == [1, 2, 3, 6]


def test_what_another_put_in_the_folders_place_is_not_written_to(tmp_path: Path) -> None:
    folder, theirs = tmp_path / "freehold-1" / "stack", tmp_path / "theirs"
    make_folder(folder)
    theirs.mkdir()
    writer = SpoolWriter(folder)
    writer.append(record(1))
    shutil.rmtree(folder.parent)
    folder.parent.symlink_to(theirs)
    writer.look()
    assert writer.lost
    assert str(tmp_path) not in writer.lost, "everybody may read /health"
    assert not segments(folder)


def test_the_folder_is_ours_alone(tmp_path: Path) -> None:
    shm, state = tmp_path / "shm", tmp_path / "state"
    shm.mkdir()
    folder = spool_folder(state, shm)
    assert folder.parent == shm / f"freehold-{os.geteuid()}"
    make_folder(folder)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent)] == [0o700, 0o700]
    assert spool_folder(tmp_path / "other", shm) != folder
    remove_folder(folder)
    assert list(shm.iterdir()) == []


def test_without_tmpfs_or_with_a_trap_on_it_the_state_folder_serves(tmp_path: Path) -> None:
    assert spool_folder(tmp_path, tmp_path / "no shm") == tmp_path / "spool"
    shm = tmp_path / "shm"
    shm.mkdir()
    (shm / f"freehold-{os.geteuid()}").symlink_to(tmp_path)
    assert spool_folder(tmp_path, shm) == tmp_path / "spool"


def test_a_folder_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Permanent, match="spool"):
        make_folder(tmp_path / "file" / "spool")


def test_a_folder_with_records_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    make_folder(folder)
    SpoolWriter(folder).append(record(1))
    remove_folder(folder)
    assert len(segments(folder)) == 1
