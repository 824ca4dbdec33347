"""A file replaced whole: new or old, mode 0600, and nothing left over when the disk takes nothing."""

import os
from pathlib import Path

import pytest

from freehold.core.whole_file import replace_file


@pytest.mark.parametrize("durable", [True, False])
def test_the_new_content_stands_alone_and_is_its_users(tmp_path: Path, *, durable: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text("a much longer old one")
    path.chmod(0o644)
    replace_file(path, b"new", durable=durable)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_what_a_dead_process_of_the_same_number_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / f".a.{os.getpid()}.new").write_text("half of somebody's")
    replace_file(tmp_path / "a", b"new")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("a", b"new")]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("theirs")
    (tmp_path / f".a.{os.getpid()}.new").symlink_to(other)
    with pytest.raises(OSError, match="symbolic links"):
        replace_file(tmp_path / "a", b"new")
    assert other.read_text() == "theirs"


def test_a_disk_that_takes_nothing_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a", "old")]
