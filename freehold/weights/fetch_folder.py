"""Fetch a folder: list its files first, then fetch a few at once, each by its own kind of source.

A fetched file stays: a resumed folder starts with the first missing file, at the byte where
its kind of source can resume. If the source names a file's hash (a hub does for large files, a list of hashes for all), a
wrong file is reported by name as soon as it is fetched; in the end the tree hash decides. It does not check the tree hash,
which is for the store.
"""

import hashlib
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import assert_never

import msgspec

from freehold.core.errors import Permanent
from freehold.weights.blobs import TREE, KnownFile, size_of, stamp_of
from freehold.weights.fetch_file import resolved
from freehold.weights.source import (
    FileFolder,
    FileLike,
    FileSource,
    FolderLike,
    GgufParts,
    HttpsFolder,
    HubFolder,
    Member,
)
from freehold.weights.transfer import Fetched, FetchJob, FetchStage, Progress, Reporter, require_space
from freehold.weights.tree import names_mistake, read_manifest, tree_hash, walk

AT_ONCE = 4
"""Files of one folder that are fetched at the same time. Source: our choice; two or three connections fill most lines, and
a hub counts requests."""

_DONE = "done.jsonl"  # a line for each complete file, appended: cheap even for ten thousand
_PARTS = "parts"
_SUMS_BYTES_MAX = 1 << 22  # a list of 10,000 files with long paths is less

FetchFile = Callable[[FileLike, FetchJob], Fetched]


class WrongFile(Permanent):
    """A file differs from the hash that its own source names; the folder with everything fetched is at `folder`."""

    def __init__(self, message: str, *, hint: str, folder: Path) -> None:
        super().__init__(message, hint=hint)
        self.folder = folder


class _StoppedError(Exception):
    """Another file of the folder has failed, so this fetch ends too."""


def fetch(source: FolderLike, job: FetchJob, fetch_file: FetchFile) -> Fetched:
    """Return the folder in the scratch folder with its tree hash; raises what fetching one of its files does, or `WrongFile`."""
    members = _listed(source, job, fetch_file)
    if mistake := names_mistake(member.path for member in members):
        raise Permanent(f"{source}: {mistake}", hint="choose files with ?include=PATTERN,…")
    folder = _Folder(
        members,
        job,
        fetch_file=fetch_file,
        moving=FetchStage.COPYING if _is_here(source) else FetchStage.FETCHING,
    )
    return folder.run()


def _is_here(source: FolderLike) -> bool:
    return isinstance(source, FileFolder) or (
        isinstance(source, GgufParts) and isinstance(source.first, FileSource)
    )


def _listed(source: FolderLike, job: FetchJob, fetch_file: FetchFile) -> list[Member]:
    match source:
        case HubFolder():
            from freehold.weights.fetch_hub import listing  # noqa: PLC0415 - its client is loaded when used

            return listing(source, job.report)
        case FileFolder():
            return _listed_here(source, job)
        case HttpsFolder():
            return _listed_by_sums(source, job, fetch_file)
        case GgufParts():
            return [Member(path=name, source=part) for name, part in source.parts().items()]
        case _:
            assert_never(source)


def _listed_here(source: FileFolder, job: FetchJob) -> list[Member]:
    folder = resolved(FileSource(path=source.path), job.base_dir).absolute()
    if not folder.is_dir():
        raise Permanent(
            f"{folder} is not a folder", hint="a file:// source with a / at its end must be a folder"
        )
    return [
        Member(path=path, source=FileSource(path=str(folder / path)), size_bytes=size_bytes)
        for path, size_bytes in walk(folder, source.include).items()
    ]


def _listed_by_sums(source: HttpsFolder, job: FetchJob, fetch_file: FetchFile) -> list[Member]:
    """Return the files of the list at the URL; raises `Permanent` at once when the list has another tree hash."""
    scratch = job.scratch / "sums"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    got = fetch_file(
        source.file(source.url.rpartition("/")[2]), replace(job, want_sha256="", scratch=scratch)
    )
    if size_of(got.path) > _SUMS_BYTES_MAX:
        raise Permanent(f"{source} is too long for a list of hashes", hint="check the address")
    hashes = read_manifest(got.path.read_text(encoding="utf-8", errors="replace"))
    if isinstance(hashes, str):
        raise Permanent(f"{source}: {hashes}", hint="it must be what sha256sum writes")
    if job.want_sha256 not in ("", tree_hash(hashes)):
        raise Permanent(
            f"{source} lists other files than the hash asks for: its tree hash is {tree_hash(hashes)}",
            hint="compare sha256 with the publisher's",
        )
    return [Member(path=path, source=source.file(path), sha256=sha256) for path, sha256 in hashes.items()]


class _Folder:
    """A folder that is being fetched."""

    def __init__(
        self, members: list[Member], job: FetchJob, *, fetch_file: FetchFile, moving: FetchStage
    ) -> None:
        self._members = members
        self._job = job
        self._fetch_file = fetch_file
        self._tree = job.scratch / TREE
        self._done = _read_done(job.scratch / _DONE, self._tree)
        self._lock = threading.Lock()
        self._told = _FolderProgress(job.report, _total(members), moving)

    def run(self) -> Fetched:
        """Return the complete folder once every file is fetched."""
        self._forget_others()
        missing = [member for member in self._members if member.path not in self._done]
        for path in self._done:
            self._told.done_bytes[path] = size_of(self._tree / path)
        begun_bytes = size_of(self._job.scratch / _PARTS)
        require_space(self._job.scratch, sum(member.size_bytes or 0 for member in missing) - begun_bytes)
        self._fetch_all(missing)
        hashes = {path: known.sha256 for path, known in self._done.items()}
        return Fetched(path=self._tree, sha256=tree_hash(hashes), files=hashes)

    def _forget_others(self) -> None:
        """Remove files of an earlier fetch that no longer belong: the source may have changed."""
        expected = {member.path: member.sha256 for member in self._members}
        for path, known in list(self._done.items()):
            if expected.get(path, "-") not in ("", known.sha256):
                del self._done[path]
        self._tree.mkdir(exist_ok=True)
        for file in self._tree.rglob("*"):
            if not file.is_dir() and file.relative_to(self._tree).as_posix() not in self._done:
                file.unlink()

    def _fetch_all(self, missing: list[Member]) -> None:
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="weights")
        futures = [pool.submit(self._fetch, member) for member in missing]
        try:
            _, unfinished = wait(futures, return_when=FIRST_EXCEPTION)
            if unfinished:
                self._told.stop()
        finally:
            self._told.stop()
            pool.shutdown(cancel_futures=True)
        _raise_first(futures)

    def _fetch(self, member: Member) -> None:
        scratch = self._job.scratch / _PARTS / hashlib.sha256(member.path.encode()).hexdigest()[:16]
        scratch.mkdir(parents=True, exist_ok=True)
        job = replace(
            self._job, want_sha256=member.sha256, scratch=scratch, report=self._told.of(member.path)
        )
        got = self._fetch_file(member.source, job)
        target = self._tree / member.path
        with self._lock:
            target.parent.mkdir(parents=True, exist_ok=True)
            got.path.rename(target)
            self._check(member, target, got.sha256)
            known = KnownFile(member.path, got.sha256, stamp_of(target))
            self._done[member.path] = known
            with (self._job.scratch / _DONE).open("ab") as file:
                file.write(msgspec.json.encode(known) + b"\n")

    def _check(self, member: Member, target: Path, got_sha256: str) -> None:
        if member.sha256:
            wrong = member.sha256 != got_sha256
        else:
            wrong = bool(member.git_sha1) and member.git_sha1 != git_sha1(target)
        if wrong:
            raise WrongFile(
                f"{member.source} is not the file that its source lists: it has SHA-256 {got_sha256}"
                + (f", expected {member.sha256}" if member.sha256 else ""),
                hint="fetch it again; if that gives the same, ask the publisher",
                folder=self._tree,
            )


def _raise_first(futures: list[Future[None]]) -> None:
    """Raise the error that ended the fetch, not the stops of other files that followed it."""
    errors = [future.exception() for future in futures if future.done() and not future.cancelled()]
    failed = [error for error in errors if error is not None]
    for error in sorted(failed, key=lambda error: isinstance(error, _StoppedError)):
        raise error


class _FolderProgress:
    """The joint progress of several files, and the flag that stops all of them."""

    def __init__(self, report: Reporter, total_bytes: int | None, moving: FetchStage) -> None:
        self._report = report
        self._total_bytes = total_bytes
        self._moving = moving
        self._lock = threading.Lock()
        self._stopped = False
        self.done_bytes: dict[str, int] = {}

    def of(self, path: str) -> Reporter:
        """Return the reporter for one file's fetch."""
        return Reporter(lambda progress: self._tell(path, progress))

    def stop(self) -> None:
        """End each fetch at its next progress report."""
        self._stopped = True

    def _tell(self, path: str, progress: Progress) -> None:
        if self._stopped:
            raise _StoppedError
        with self._lock:
            self.done_bytes[path] = max(self.done_bytes.get(path, 0), progress.done_bytes)
            stage = progress.stage if progress.stage is FetchStage.RETRYING else self._moving
            detail = progress.detail if stage is FetchStage.RETRYING else ""
            done_bytes = sum(self.done_bytes.values())
            self._report(stage, done_bytes, total_bytes=self._total_bytes, detail=detail)


def git_sha1(path: Path) -> str:
    """Return git's hash of a file's content: a check against accidents, for files without a SHA-256."""
    data = path.read_bytes()  # files that a hub keeps in git itself have at most 10 MB
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _total(members: list[Member]) -> int | None:
    sizes = [member.size_bytes for member in members]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _read_done(path: Path, tree: Path) -> dict[str, KnownFile]:
    """Return the files that an earlier fetch completed and that have not changed since."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    known = [each for line in lines if (each := _known_file(line)) is not None]
    return {
        each.path: each
        for each in known
        if each.stamp is not None and each.stamp == stamp_of(tree / each.path)
    }


def _known_file(line: bytes) -> KnownFile | None:
    """Return the file of a line; None: the process ended while it was written."""
    try:
        return msgspec.json.decode(line, type=KnownFile)
    except msgspec.DecodeError:
        return None
