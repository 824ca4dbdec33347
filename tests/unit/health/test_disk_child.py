"""The disk reading child's own steps, in this process: what it writes, reads and says."""

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.health.collectors.disk_child import (
    BLOCK_BYTES,
    ParentPipe,
    open_other,
    open_probe,
    read_once,
    report_place,
    report_space,
    write_once,
)

SIZE_BYTES = 16 * BLOCK_BYTES


class Ears:
    """A pipe with a line writer at its end."""

    def __init__(self) -> None:
        self._out, into = os.pipe()
        self.into = into
        os.set_blocking(self._out, False)
        self.out = ParentPipe(into)

    def lines(self) -> list[str]:
        try:
            return os.read(self._out, 1 << 16).decode().splitlines()
        except BlockingIOError:
            return []

    def leave(self) -> None:
        os.close(self._out)


@pytest.fixture
def ears() -> Iterator[Ears]:
    made = Ears()
    yield made
    os.close(made.into)


def test_the_file_is_written_once_whole_and_random(tmp_path: Path, ears: Ears) -> None:
    path = tmp_path / "probe"
    try:
        os.close(open_probe(str(path), SIZE_BYTES, ears.out))
    except OSError as exc:
        pytest.skip(f"no O_DIRECT here: {exc}")
    first = path.read_bytes()
    assert len(first) == SIZE_BYTES
    assert len({first[i : i + BLOCK_BYTES] for i in range(0, SIZE_BYTES, BLOCK_BYTES)}) == 16
    assert path.stat().st_mode & 0o777 == 0o600
    os.close(open_probe(str(path), SIZE_BYTES, ears.out))
    assert path.read_bytes() == first
    assert ears.lines() == ["make"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["probe"]


def test_a_file_of_another_size_is_made_anew_and_a_link_is_not_followed(tmp_path: Path, ears: Ears) -> None:
    path, other = tmp_path / "probe", tmp_path / "other"
    other.write_bytes(b"precious")
    path.symlink_to(other)
    try:
        os.close(open_probe(str(path), SIZE_BYTES, ears.out))
    except OSError as exc:
        pytest.skip(f"no O_DIRECT here: {exc}")
    assert other.read_bytes() == b"precious"
    assert not path.is_symlink()
    assert path.stat().st_size == SIZE_BYTES


def test_where_we_may_not_write_the_largest_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    for name, blocks in (("small", 2), ("blobs/weights", 40), ("other", 30)):
        (tmp_path / name).write_bytes(bytes(blocks * BLOCK_BYTES))
    (tmp_path / "link").symlink_to("/dev/zero")
    read_only = OSError(errno.EROFS, "Read-only file system")
    fd, size_bytes = open_other(str(tmp_path), SIZE_BYTES, read_only)
    if fd is None:
        pytest.skip("no O_DIRECT here")
    assert size_bytes == 40 * BLOCK_BYTES
    assert Path(f"/proc/self/fd/{fd}").readlink() == tmp_path / "blobs/weights"
    os.close(fd)
    assert open_other(str(tmp_path), 100 * BLOCK_BYTES, read_only) == (None, 0)
    assert open_other(str(tmp_path), SIZE_BYTES, OSError(errno.ENOSPC, "full")) == (None, 0)
    assert open_other(str(tmp_path / "gone"), SIZE_BYTES, read_only) == (None, 0)


def test_no_file_is_left_where_there_is_no_room(tmp_path: Path, ears: Ears) -> None:
    with pytest.raises(OSError, match="probe file's size") as found:
        open_probe(str(tmp_path / "probe"), 1 << 60, ears.out)
    assert found.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_read_is_announced_and_timed(tmp_path: Path, ears: Ears) -> None:
    path = tmp_path / "plain"
    path.write_bytes(bytes(SIZE_BYTES))
    fd = os.open(path, os.O_RDONLY)
    read_once(fd, mmap.mmap(-1, BLOCK_BYTES), size_bytes=SIZE_BYTES, out=ears.out)
    os.close(fd)
    began, ended = ears.lines()
    assert began.split()[0] == "s"
    assert ended.split()[0] == "r"
    assert 0 <= float(ended.split()[1]) < 1


def test_a_read_that_fails_says_its_errno(tmp_path: Path, ears: Ears) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    read_once(fd, mmap.mmap(-1, BLOCK_BYTES), size_bytes=SIZE_BYTES, out=ears.out)
    os.close(fd)
    assert ears.lines()[1].startswith("e EISDIR ")


def test_place_and_space_are_reported(tmp_path: Path, ears: Ears) -> None:
    link = tmp_path / "a link"
    link.symlink_to(tmp_path, target_is_directory=True)
    report_place(str(link), ears.out)
    report_space(str(link), ears.out)
    place, space = ears.lines()
    device = tmp_path.stat().st_dev
    assert place == f"at {os.major(device)} {os.minor(device)} {tmp_path.resolve()}"
    assert len(space.split()) == 5


def test_a_full_pipe_drops_lines_and_a_parent_that_is_gone_ends_it(ears: Ears) -> None:
    for _ in range(5000):
        ears.out.write("x" * 100)
    assert ears.lines()
    ears.leave()
    with pytest.raises(SystemExit):
        ears.out.write("hello?")


def test_a_write_is_announced_timed_and_leaves_one_small_file(tmp_path: Path, ears: Ears) -> None:
    path = tmp_path / "write"
    write_once(str(path), ears.out)
    first = path.read_bytes()
    (tmp_path / "write.new").write_bytes(b"of one that was killed in the middle")
    write_once(str(path), ears.out)
    assert [line.split()[0] for line in ears.lines()] == ["S", "w", "S", "w"]
    assert len(first) == BLOCK_BYTES
    assert path.read_bytes() != first  # anew, on blocks of its own: else a full disk would never be found
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["write"]


def test_a_write_follows_no_link_and_spares_what_it_points_to(tmp_path: Path, ears: Ears) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    (tmp_path / "write").symlink_to(other)
    (tmp_path / "write.new").symlink_to(other)
    write_once(str(tmp_path / "write"), ears.out)
    assert other.read_bytes() == b"precious"
    assert not (tmp_path / "write").is_symlink()


def test_a_write_that_fails_says_its_errno(tmp_path: Path, ears: Ears) -> None:
    write_once(str(tmp_path / "nowhere" / "write"), ears.out)
    (tmp_path / "write.new").mkdir()
    write_once(str(tmp_path / "write"), ears.out)
    assert [line.split()[:2] for line in ears.lines() if line.startswith("x")] == [
        ["x", "ENOENT"],
        ["x", "EISDIR"],
    ]
