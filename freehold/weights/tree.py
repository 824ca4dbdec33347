"""A folder of weights as a list of files, and the one hash that stands for all of them.

The tree hash is the SHA-256 of a text in the form of `sha256sum`: for every file one line, its SHA-256 in lower-case
hexadecimal digits, two spaces, its path from the folder with `/` between parts, a line feed; the lines sorted by the bytes
of the path. So it depends on names and contents only: not on times, rights, owners or empty folders. The text
itself is what publishers put beside their files as SHA256SUMS.

Pure but for `walk` and `hash_folder`, which read a folder and change nothing. Symbolic links are rejected, not followed:
their target may be any file, and may change later.
"""

import hashlib
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from os import scandir
from pathlib import Path

from freehold.core.errors import Permanent
from freehold.weights.transfer import FetchStage, Reporter, hash_file

MOST_FILES = 10_000
"""Files that a folder may have. Source: our own bound; the largest published models have some hundred."""

NAME_BYTES_MAX = 255
"""Longest part of a path, bytes. Source: NAME_MAX of Linux file systems."""

PATH_BYTES_MAX = 1024
"""Longest path in a folder, bytes. Source: a quarter of Linux's PATH_MAX, which leaves room for the store's own folders."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Endings of files that may hold a Python pickle, which runs code when it is loaded. Source: what PyTorch's and
transformers' savers name them."""

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def is_pickle(path: str) -> bool:
    """Return whether loading a file of this name may run code."""
    return path.lower().endswith(PICKLES)


def is_hidden(path: str) -> bool:
    """Return whether a part of the path begins with a dot: such files do not belong to a folder of weights."""
    return any(part.startswith(".") for part in path.split("/"))


def wanted(path: str, include: Sequence[str]) -> bool:
    """Return whether a file belongs to a folder source: it matches a pattern, or without patterns it is not a pickle.

    Hidden files (a part of the path begins with a dot) never do. A pattern without `/` is for the file's name, one with
    `/` for its whole path; `*` matches any letters.
    """
    if is_hidden(path):
        return False
    name = path.rpartition("/")[2]
    if include:
        return any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in include)
    return not is_pickle(path)


def path_mistake(path: str) -> str:
    """Return why a path cannot be in a folder of weights, or an empty text."""
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        return "it is not a plain path below the folder"
    if "\\" in path or not path.isprintable():
        return "it has a backslash or an unprintable character"
    if len(path.encode("utf-8", "replace")) > PATH_BYTES_MAX:
        return f"it is longer than {PATH_BYTES_MAX} bytes"
    if any(len(part.encode("utf-8", "replace")) > NAME_BYTES_MAX for part in parts):
        return f"a part of it is longer than {NAME_BYTES_MAX} bytes"
    return ""


def names_mistake(paths: Iterable[str]) -> str:
    """Return what is wrong with the paths of a folder taken together, or an empty text."""
    listed = sorted(paths)
    if not listed:
        return "it has no file that matches"
    if len(listed) > MOST_FILES:
        return f"it has {len(listed):,} files, more than {MOST_FILES:,}"
    for path in listed:
        if reason := path_mistake(path):
            return f"the file {path!r} is rejected: {reason}"
    return _clash(listed)


def _clash(paths: Sequence[str]) -> str:
    """Return which two paths exclude each other, also on a file system without upper and lower case."""
    folded = sorted((path.casefold(), path) for path in paths)
    for (one, first), (two, second) in pairwise(folded):
        if one == two:
            return f"{first!r} and {second!r} are one file where upper and lower case are the same"
    files = {key for key, _ in folded}
    for key, path in folded:
        if any(above in files for above in _folders_of(key)):
            return f"{path!r} is below a path that is a file"
    return ""


def _folders_of(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def manifest(hashes: Mapping[str, str]) -> str:
    """Return the text whose SHA-256 is the tree hash, from SHA-256 by path."""
    lines = sorted((path.encode(), sha256) for path, sha256 in hashes.items())
    return "".join(f"{sha256}  {path.decode()}\n" for path, sha256 in lines)


def tree_hash(hashes: Mapping[str, str]) -> str:
    """Return the hash of a folder from SHA-256 by path, in hexadecimal digits."""
    return hashlib.sha256(manifest(hashes).encode()).hexdigest()


def read_manifest(text: str) -> dict[str, str] | str:
    """Return SHA-256 by path from a text as `sha256sum` writes it, or what is wrong with it; `./` before a path is dropped."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            return f"line {number} is not a line of sha256sum"
        path = match[2].removeprefix("./")
        if path in found:
            return f"line {number} names {path!r} a second time"
        found[path] = match[1]
    return names_mistake(found) or found


def walk(folder: Path, include: Sequence[str] = ()) -> dict[str, int]:
    """Return the size in bytes of each wanted file below `folder`, by path; raises `Permanent` for a rejected file.

    A link or a special file among them is rejected, so that nothing outside the folder can become part of it.
    """
    found: dict[str, int] = {}
    refused: list[str] = []
    for path, mode, size_bytes in _entries(folder, ""):
        if stat.S_ISREG(mode):
            if wanted(path, include):
                found[path] = size_bytes
        elif wanted(path, include):
            refused.append(path)
    if refused:
        said = ", ".join(repr(path) for path in sorted(refused)[:3])
        hint = "put the files themselves there; for a hub's cache write hf://OWNER/NAME@REVISION, which takes them from it"
        raise Permanent(f"{folder} has links or special files, which are rejected: {said}", hint=hint)
    if mistake := names_mistake(found):
        raise Permanent(f"{folder}: {mistake}", hint="name another folder, or choose with ?include=PATTERN,…")
    return found


def _entries(folder: Path, below: str) -> Iterator[tuple[str, int, int]]:
    """Yield path, mode and size of every entry except folders; hidden folders are skipped."""
    if len(below) > PATH_BYTES_MAX:
        raise Permanent(
            f"{folder} is too deep in its folder", hint=f"paths have at most {PATH_BYTES_MAX} bytes"
        )
    with scandir(folder) as entries:
        for entry in entries:
            path = below + entry.name
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    yield from _entries(folder / entry.name, path + "/")
            else:
                seen = entry.stat(follow_symlinks=False)
                yield path, seen.st_mode, seen.st_size


def hash_folder(folder: Path, report: Reporter, include: Sequence[str] = ()) -> dict[str, str]:
    """Return SHA-256 by path of every wanted file below `folder`; raises `Permanent` or OSError."""
    sizes = walk(folder, include)
    return hash_files(folder, sizes, report)


def hash_files(folder: Path, sizes: Mapping[str, int], report: Reporter) -> dict[str, str]:
    """Return SHA-256 by path of the named files, reporting their joint progress; raises OSError."""
    total_bytes, before_bytes = sum(sizes.values()), 0
    found: dict[str, str] = {}
    for path, size_bytes in sorted(sizes.items()):
        found[path] = hash_file(folder / path, _WholeReporter(report, before_bytes, total_bytes))
        before_bytes += size_bytes
    return found


class _WholeReporter(Reporter):
    """Reports the progress of one file as a part of the whole."""

    def __init__(self, whole: Reporter, before_bytes: int, whole_bytes: int) -> None:
        super().__init__(None)
        self._whole = whole
        self._before_bytes = before_bytes
        self._whole_bytes = whole_bytes

    def __call__(
        self, stage: FetchStage, done_bytes: int = 0, *, total_bytes: int | None = None, detail: str = ""
    ) -> None:
        """Report the progress of the whole."""
        del total_bytes
        self._whole(stage, self._before_bytes + done_bytes, total_bytes=self._whole_bytes, detail=detail)
