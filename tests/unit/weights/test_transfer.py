import errno
import hashlib
import io
from pathlib import Path

import pytest

from freehold.core.errors import Permanent, Temporary
from freehold.weights.transfer import (
    BLOCK_BYTES,
    DiskFull,
    FetchStage,
    Progress,
    Reporter,
    Sink,
    disk_errors,
    hash_file,
    pour,
    require_space,
)

DATA = bytes(range(256)) * (BLOCK_BYTES // 100)
SHA256 = hashlib.sha256(DATA).hexdigest()


def test_a_sink_goes_on_where_a_former_one_ended(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with Sink(path) as sink:
        sink.write(DATA[:1000])
    with Sink(path) as sink:
        sink.keep(Reporter(None))
        assert sink.done_bytes == 1000
        sink.write(DATA[1000:])
        assert sink.sha256() == SHA256
    assert path.read_bytes() == DATA


def test_a_restarted_sink_forgets(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"something else, and longer than what comes")
    with Sink(path) as sink:
        sink.keep(Reporter(None))
        sink.restart()
        sink.write(b"short")
        assert sink.sha256() == hashlib.sha256(b"short").hexdigest()
    assert path.read_bytes() == b"short"


def test_pour_and_hash_agree_and_report_the_end(tmp_path: Path) -> None:
    seen: list[Progress] = []
    path = tmp_path / "data"
    fetched = pour(
        io.BytesIO(DATA), path, stage=FetchStage.COPYING, total_bytes=len(DATA), report=Reporter(seen.append)
    )
    assert fetched.sha256 == SHA256 == hash_file(path, Reporter(seen.append))
    assert Progress(stage=FetchStage.COPYING, done_bytes=len(DATA), total_bytes=len(DATA)) in seen
    assert seen[-1] == Progress(stage=FetchStage.CHECKING, done_bytes=len(DATA), total_bytes=len(DATA))


def test_reports_of_one_stage_are_few_and_new_stages_are_all_told() -> None:
    seen: list[Progress] = []
    report = Reporter(seen.append)
    for number in range(1000):
        report(FetchStage.FETCHING, number, total_bytes=5000)
    report(FetchStage.CHECKING)
    report(FetchStage.FETCHING, 5000, total_bytes=5000)
    assert [progress.stage for progress in seen[-2:]] == [FetchStage.CHECKING, FetchStage.FETCHING]
    assert len(seen) < 100


def test_no_room_is_known_before_the_first_byte(tmp_path: Path) -> None:
    with pytest.raises(DiskFull) as caught:
        require_space(tmp_path, 1 << 60)
    assert "FREEHOLD_CACHE_DIR" in caught.value.hint
    require_space(tmp_path, 1)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EFBIG, DiskFull),
        (errno.EACCES, Permanent),
        (errno.EROFS, Permanent),
        (errno.EIO, Permanent),
        (errno.EMFILE, Temporary),
        (errno.ENOTDIR, Permanent),
    ],
)
def test_the_disks_errors_get_names(tmp_path: Path, number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, disk_errors(tmp_path):
        raise OSError(number, "words")
    assert type(caught.value) is kind
    assert isinstance(caught.value.__cause__, OSError)
