import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import Permanent
from freehold.weights.transfer import Reporter
from freehold.weights.tree import (
    MOST_FILES,
    hash_folder,
    manifest,
    names_mistake,
    path_mistake,
    read_manifest,
    tree_hash,
    walk,
    wanted,
)

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "sub/B.txt": b"b",
    "sub/a b.txt": b"a",
    "Zed": b"z",
}
SHELL = r"""cd "$1" && find . -type f ! -path '*/.*' ! -iname '*.bin' -printf '%P\0' | LC_ALL=C sort -z |
xargs -0 sha256sum | sha256sum"""
QUIET = Reporter(None)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def test_the_tree_hash_is_what_the_shell_says(tmp_path: Path) -> None:
    put(tmp_path, FILES | {".git/HEAD": b"x", ".gitattributes": b"x", "sub/.cache/x": b"x", "old.bin": b"x"})
    done = subprocess.run(
        ["bash", "-c", SHELL, "-", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert tree_hash(hash_folder(tmp_path, QUIET)) == done.stdout.split()[0]


def test_the_tree_hash_is_of_names_and_contents_alone(tmp_path: Path) -> None:
    one, two = put(tmp_path / "one", FILES), put(tmp_path / "two", dict(reversed(FILES.items())))
    (two / "empty").mkdir()
    (two / "Zed").chmod(0o600)
    assert (
        hash_folder(one, QUIET)
        == hash_folder(two, QUIET)
        == {path: sha(data) for path, data in FILES.items()}
    )
    (two / "Zed").rename(two / "zed")
    assert tree_hash(hash_folder(one, QUIET)) != tree_hash(hash_folder(two, QUIET))


def test_lines_are_sorted_by_the_bytes_of_the_path() -> None:
    paths = ["b", "a/b", "a", "Z", "a.b", "é"]
    lines = manifest(dict.fromkeys(paths, "0" * 64)).splitlines()
    assert [line[66:] for line in lines] == ["Z", "a", "a.b", "a/b", "b", "é"]


@given(
    st.dictionaries(
        st.sampled_from(["a", "b/c", "b/d", "E.json", "ü"]), st.sampled_from(["0" * 64, "a" * 64])
    )
)
def test_a_manifest_is_read_as_it_was_written(hashes: dict[str, str]) -> None:
    assert read_manifest(manifest(hashes)) == (hashes or "it has no file that matches")


def test_a_manifest_in_the_other_forms_of_sha256sum() -> None:
    digits = "ab" * 32
    assert read_manifest(f"{digits} *./a/b\n{digits}  c\n") == {"a/b": digits, "c": digits}


@pytest.mark.parametrize(
    "line", ["nonsense", "12  a", f"{'ab' * 32}  ../a", f"{'ab' * 32}  /etc/passwd", f"{'ab' * 32}  a\\b"]
)
def test_a_manifest_that_is_none_is_told(line: str) -> None:
    assert isinstance(read_manifest(f"{'ab' * 32}  good\n{line}\n"), str)


@pytest.mark.parametrize(
    "path", ["../a", "/a", "a/../b", "a//b", "a/", "", "a\nb", "a\\b", "./a", "x" * 256, "a/" * 600 + "b"]
)
def test_a_path_that_leaves_the_folder_or_is_odd_is_refused(path: str) -> None:
    assert path_mistake(path)


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        ([], "no file"),
        (["Config.json", "config.json"], "one file where upper and lower case are the same"),
        (["sub/a", "SUB"], "a path that is a file"),
        ([f"f{number}" for number in range(MOST_FILES + 1)], "more than"),
    ],
)
def test_names_that_cannot_be_together(paths: list[str], told: str) -> None:
    assert told in names_mistake(paths)


@pytest.mark.parametrize("target", ["/etc/passwd", "Zed", "../outside", "sub"])
def test_a_link_is_refused_wherever_it_points(tmp_path: Path, target: str) -> None:
    put(tmp_path, FILES)
    (tmp_path / "link.json").symlink_to(target)
    with pytest.raises(Permanent, match=r"link\.json") as caught:
        walk(tmp_path)
    assert "hf://" in caught.value.hint
    (tmp_path / "link.json").rename(tmp_path / ".link")
    assert walk(tmp_path) == {path: len(data) for path, data in FILES.items()}


@pytest.mark.parametrize(
    ("path", "include", "yes"),
    [
        ("a/model.safetensors", ["*.safetensors"], True),
        ("a/model.safetensors", ["b/*.safetensors"], False),
        ("a/model.safetensors", ["a/*"], True),
        ("pytorch_model.bin", [], False),
        ("pytorch_model.BIN", [], False),
        ("pytorch_model.bin", ["*.bin"], True),
        (".gitattributes", ["*"], False),
        ("a/.cache/x.json", ["*.json"], False),
        ("README.md", [], True),
    ],
)
def test_which_files_are_wanted(path: str, include: list[str], *, yes: bool) -> None:
    assert wanted(path, include) is yes


def test_a_folder_without_end_is_refused(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(12):
        deep /= "d" * 100
    deep.mkdir(parents=True)
    with pytest.raises(Permanent, match="too deep"):
        walk(tmp_path)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    put(tmp_path, FILES)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff.json")).write_bytes(b"x")
    with pytest.raises(Permanent, match="odd"):
        walk(tmp_path)
