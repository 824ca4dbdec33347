import errno
import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

import msgspec
import pytest

from freehold.core.errors import Permanent
from freehold.weights.blobs import QUARANTINE_KEPT, RECORD, Blobs, WeightsState, freeze, stamp_of
from freehold.weights.transfer import Fetched

DATA = b"weights" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path):
    return Blobs(tmp_path)


def commit(blobs: Blobs, data: bytes = DATA, name: str = "model.gguf"):
    sha256 = hashlib.sha256(data).hexdigest()
    scratch = blobs.scratch(sha256, name, "file:///model.gguf")
    (scratch / "data").write_bytes(data)
    return blobs.commit(
        sha256, Fetched(path=scratch / "data", sha256=sha256), name=name, source="file:///model.gguf"
    )


def rewrite(path: Path, data: bytes, *, keep_times: bool = False):
    seen = path.stat()
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)
    if keep_times:
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def test_a_committed_blob_is_present_named_and_read_only(blobs: Blobs, tmp_path: Path) -> None:
    path = commit(blobs)
    assert path == tmp_path / "blobs" / SHA256 / "model.gguf"
    assert blobs.present(SHA256) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert path.read_bytes() == DATA
    assert not any((tmp_path / "incoming").iterdir())


def test_a_hash_that_is_not_there_is_not_present(blobs: Blobs) -> None:
    assert blobs.present(SHA256) is None
    assert blobs.suspect(SHA256) is None
    assert blobs.stored() == []


def test_only_the_right_hash_is_committed(blobs: Blobs) -> None:
    scratch = blobs.scratch(SHA256, "model.gguf", "x")
    (scratch / "data").write_bytes(b"other")
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(AssertionError):
        blobs.commit(SHA256, Fetched(path=scratch / "data", sha256=other), name="model.gguf", source="x")


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_write_is_seen_also_with_size_and_times_put_back(blobs: Blobs, *, keep_times: bool) -> None:
    path = commit(blobs)
    rewrite(path, DATA[::-1], keep_times=keep_times)
    assert blobs.present(SHA256) is None
    assert blobs.suspect(SHA256) == path
    assert [line.state for line in blobs.stored()] == [WeightsState.CHANGED]


@pytest.mark.parametrize(
    "record", [b"", b"{", b'{"name": "../../../etc/passwd", "source": "", "fetched_at": ""}']
)
def test_a_damaged_record_makes_the_blob_suspect_not_trusted(blobs: Blobs, record: bytes) -> None:
    path = commit(blobs)
    (path.parent / RECORD).write_bytes(record)
    assert blobs.present(SHA256) is None
    assert blobs.suspect(SHA256) == path


def test_a_harmless_change_is_recorded_and_the_source_kept(blobs: Blobs) -> None:
    path = commit(blobs)
    path.chmod(0o644)
    assert blobs.present(SHA256) is None
    blobs.recognise(SHA256, path, stamp=freeze(path))
    assert blobs.present(SHA256) == path
    assert blobs.stored()[0].source == "file:///model.gguf"


def test_a_write_between_hash_and_record_is_seen(blobs: Blobs) -> None:
    path = commit(blobs)
    before = freeze(path)
    rewrite(path, DATA[::-1])
    blobs.recognise(SHA256, path, stamp=before)
    assert blobs.present(SHA256) is None


def test_quarantine_moves_the_file_away_with_a_note(blobs: Blobs, tmp_path: Path) -> None:
    path = commit(blobs)
    kept = blobs.quarantine(SHA256, path, got_sha256="00" * 32, reason="decayed")
    assert kept.read_bytes() == DATA
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not path.exists()
    assert blobs.present(SHA256) is None
    (line,) = blobs.stored()
    assert (line.state, line.sha256, line.name) == (WeightsState.QUARANTINED, SHA256, "model.gguf")
    assert "decayed" in (kept.parent / RECORD).read_text()


def test_quarantine_is_bounded(blobs: Blobs, tmp_path: Path) -> None:
    for number in range(QUARANTINE_KEPT + 3):
        path = commit(blobs, data=bytes([number]))
        blobs.quarantine(path.parent.name, path, got_sha256=f"{number:064x}", reason="x")
    assert len(list((tmp_path / "quarantine").iterdir())) == QUARANTINE_KEPT


def test_what_is_unfinished_is_listed_with_its_size(blobs: Blobs) -> None:
    (blobs.scratch(SHA256, "model.gguf", "https://host/model.gguf") / "data").write_bytes(b"half")
    (line,) = blobs.stored()
    assert (line.state, line.name, line.size_bytes) == (WeightsState.INCOMPLETE, "model.gguf", 4)


def test_an_emptied_folder_does_not_stand_in_the_way(blobs: Blobs) -> None:
    commit(blobs).unlink()
    assert blobs.present(SHA256) is None
    assert blobs.suspect(SHA256) is None
    assert commit(blobs).read_bytes() == DATA


def test_all_is_on_the_disk_before_a_blob_has_its_name(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    sync = os.fsync

    def noted(handle: int) -> None:
        synced.append(
            (Path(f"/proc/self/fd/{handle}").readlink().name, (tmp_path / "blobs" / SHA256).exists())
        )
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    path = commit(blobs)
    before = [name for name, named in synced if not named]
    assert before[-3:] == [path.name, f"{RECORD}.new", "ready"]
    assert synced[-1] == ("blobs", True), "and the name itself last"


def test_a_disk_that_does_not_take_it_gives_no_blob(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        commit(blobs)
    monkeypatch.undo()
    assert blobs.present(SHA256) is None
    assert blobs.hashes() == []


# What another user, or another store, could have put there


def test_a_swapped_blob_with_a_swapped_record_is_not_believed(blobs: Blobs, tmp_path: Path) -> None:
    commit(blobs)
    theirs = commit(blobs, b"another model")
    other = tmp_path / "blobs" / hashlib.sha256(b"another model").hexdigest()
    shutil.rmtree(tmp_path / "blobs" / SHA256)
    other.rename(tmp_path / "blobs" / SHA256)
    assert blobs.present(SHA256) is None
    assert blobs.suspect(SHA256) == tmp_path / "blobs" / SHA256 / theirs.name


def test_a_record_that_this_store_did_not_write_is_not_believed(blobs: Blobs) -> None:
    path = commit(blobs)
    rewrite(path, DATA[::-1])
    record = blobs.record(SHA256)
    assert record is not None
    forged = msgspec.structs.replace(record, stamp=stamp_of(path))
    (path.parent / RECORD).write_bytes(msgspec.json.encode(forged))
    assert blobs.present(SHA256) is None


def test_another_file_of_the_same_size_and_times_is_another_file(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.write_bytes(DATA)
    first, second = stamp_of(one), stamp_of(two)
    assert first is not None
    assert second is not None
    assert first.inode != second.inode


@pytest.mark.parametrize("place", [".", "blobs", f"blobs/{SHA256}"])
def test_a_store_that_others_may_write_is_rejected(blobs: Blobs, tmp_path: Path, place: str) -> None:
    commit(blobs)
    (tmp_path / place).chmod(0o777)
    with pytest.raises(Permanent, match="can be written by others") as caught:
        blobs.present(SHA256)
    assert caught.value.hint == f"run `chmod -R go-w {tmp_path}`"
    subprocess.run(["chmod", "-R", "go-w", tmp_path], check=True)
    assert blobs.suspect(SHA256) is not None, "the one command mends it"


@pytest.mark.parametrize("place", ["incoming", f"incoming/{SHA256}"])
def test_a_fetch_into_a_folder_that_others_may_write_is_rejected(
    blobs: Blobs, tmp_path: Path, place: str
) -> None:
    blobs.scratch(SHA256, "model.gguf", "")
    (tmp_path / place).chmod(0o775)
    with pytest.raises(Permanent, match="can be written by others"):
        blobs.scratch(SHA256, "model.gguf", "")
    with pytest.raises(Permanent, match="can be written by others"):
        commit(blobs)


def test_nobody_else_reaches_a_fetch_that_runs(blobs: Blobs, tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        (tmp_path / "incoming").mkdir(mode=0o755)
        blobs.scratch(SHA256, "model.gguf", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "incoming").stat().st_mode) == 0o700
    path = commit(blobs)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_blob_of_another_user_is_rejected_also_by_root(blobs: Blobs) -> None:
    os.chown(commit(blobs), 12345, -1)
    for look in (blobs.present, blobs.suspect):
        with pytest.raises(Permanent, match="belongs to another user"):
            look(SHA256)


def test_no_mask_lets_others_write_to_the_store(blobs: Blobs, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = commit(blobs)
    finally:
        os.umask(before)
    assert blobs.present(SHA256) == path
    assert stat.S_IMODE((tmp_path / "seal.key").stat().st_mode) == 0o600
