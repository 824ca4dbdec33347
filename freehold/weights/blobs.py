"""Where verified weights live: `blobs/<sha256>/<file or folder name>`, with a record beside each; and the quarantine.

A blob is one file, or a folder with its tree hash for SHA-256; the record of a folder has the hash and stamp of each file.

A blob appears by one rename of a folder that holds the complete file and its record, both already on the disk: there
is no moment in which half a blob has its final name. It is read-only and never written again.

The quick check compares size, modification and change time with the record. Every write through the file system,
also one by mmap or with the modification time set back, moves the change time, which no program can set; so an
equal stamp means the bytes that were hashed, as far as the file system knows. A record is sealed with a key of this store
(HMAC), which binds it to its hash: a record that was not written here, or for another blob, is not believed, and the
blob is hashed. Folders that others may write, and files of other users, are rejected. It does not detect decay below
the file system (a disk that returns other bytes), or a write in the same few milliseconds as the record itself;
`verify` hashes everything and does. A stamp that differs for a harmless reason (a restored backup, a chmod) only
costs one more hash.

This module takes no lock and fetches nothing: the store does.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import msgspec

from freehold.core import clock
from freehold.core.errors import Permanent
from freehold.core.trust import why_distrusted
from freehold.core.whole_file import sync_folder
from freehold.weights.source import safe_name
from freehold.weights.transfer import Fetched
from freehold.weights.tree import is_hidden

RECORD = ".record.json"
"""Name of the record; no blob can have it, since `safe_name` gives no leading dot."""

TREE = "tree"
"""Name of the folder in a fetch's scratch folder in which a folder comes together."""

QUARANTINE_KEPT = 4
"""Refused files kept for inspection, newest first. Source: our choice; weights are large and evidence is rarely read."""

SEAL_KEY = "seal.key"
"""Name of the file below the store's root with the key that seals records; mode 0600."""
_KEY_BYTES = 32  # as long as the hash: more adds nothing. Source: RFC 2104, section 3

_T = TypeVar("_T")
_PRIVATE = 0o600  # rw------- of chmod(2): only the owner may read rejected bytes
_PRIVATE_FOLDER = 0o700  # rwx------ of chmod(2)
_FOLDER = 0o755  # rwxr-xr-x of chmod(2), whatever the umask: no other user may swap what is in it
_RECORD_MODE = 0o644  # rw-r--r-- of chmod(2), whatever the umask
_MEND = {
    True: "run `chmod -R go-w {}`",
    False: "run `chown -R -h $(id -u) {}` if you know who wrote it, or remove it",
}
"""The command that mends a store, by whether its files belong to this user. They are hashed again at their next use."""
_READ_ONLY = (
    0o444  # r--r--r-- of chmod(2): every user of the store may read it, none can write it by accident
)


class Stamp(msgspec.Struct, frozen=True):
    """What the file system reports of an unchanged blob."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int = 0


class KnownFile(msgspec.Struct, frozen=True):
    """One file of a folder."""

    path: str
    """From the folder, with `/` between parts."""
    sha256: str
    stamp: Stamp | None


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The input and the method of a conversion; two equal origins give the same bytes."""

    source_sha256: str
    converter: str
    """Name of the program, with its own hash."""
    versions: tuple[tuple[str, str], ...]
    """Name and version of everything that its result depends on, sorted."""
    options: tuple[tuple[str, str], ...]


class BlobRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record of a blob, or of one that is being fetched (then without a stamp)."""

    name: str
    source: str
    fetched_at: str
    """When, ISO 8601 in UTC."""
    stamp: Stamp | None = None
    files: tuple[KnownFile, ...] = ()
    """Of a folder, sorted by path; empty: it is one file."""
    made: tuple[Origin, ...] = ()
    """The conversions on this machine that gave these bytes; empty: it was fetched."""
    seal: str = ""
    """HMAC-SHA-256 over the blob's hash and all other fields, by the store's key."""


class QuarantineNote(msgspec.Struct, frozen=True, kw_only=True):
    """The note beside a quarantined file."""

    name: str
    source: str
    expected_sha256: str
    got_sha256: str
    size_bytes: int
    refused_at: str
    reason: str


class WeightsState(StrEnum):
    """The state of a stored file or folder."""

    VERIFIED = "verified"  # the quick check holds
    CHANGED = "changed"  # the quick check fails: hashed again before the next use
    INCOMPLETE = "incomplete"  # a fetch was interrupted; the next one resumes
    QUARANTINED = "quarantined"  # rejected; never used


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeights:
    """One line of `freehold model list`."""

    name: str
    sha256: str
    """The hash that it is stored under: the expected one."""
    size_bytes: int
    source: str
    fetched_at: str
    """ISO 8601 in UTC; empty: unknown."""
    state: WeightsState
    path: Path


class Blobs:
    """The folders of the store below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "blobs"
        self._incoming = root / "incoming"
        self._quarantine = root / "quarantine"

    def present(self, sha256: str) -> Path | None:
        """Return the blob if it matches a record that this store wrote, else None; two small reads and some stats.

        Raises `Permanent` if another user could have written it.
        """
        self._require_ours(sha256)
        record = self._believed(sha256)
        if record is None or record.name != safe_name(record.name):
            return None
        path = self._blobs / sha256 / record.name
        if record.files:
            return path if _as_recorded(path, record.files) else None
        return path if record.stamp is not None and record.stamp == stamp_of(path) else None

    def record(self, sha256: str) -> BlobRecord | None:
        """Return the record of a blob; None: there is none that can be read."""
        return read_json(self._blobs / sha256 / RECORD, BlobRecord)

    def _believed(self, sha256: str) -> BlobRecord | None:
        """Return the record if this store's seal is on it, or if root wrote it for other users; None: it proves nothing."""
        record, path = self.record(sha256), self._blobs / sha256 / RECORD
        if record is None or path.is_symlink():
            return None
        if path.stat().st_uid != os.geteuid():
            return record  # root's: `_require_ours` rejects every other user's
        return record if hmac.compare_digest(record.seal, self._sealed(sha256, record).seal) else None

    def _sealed(self, sha256: str, record: BlobRecord) -> BlobRecord:
        plain = msgspec.json.encode(msgspec.structs.replace(record, seal=""))
        mac = hmac.new(self._seal_key(), sha256.encode() + b"\n" + plain, hashlib.sha256)
        return msgspec.structs.replace(record, seal=mac.hexdigest())

    def _seal_key(self) -> bytes:
        """Return the store's key, made at its first use; one that others may write is replaced, and no old record is believed."""
        path = self._root / SEAL_KEY
        with contextlib.suppress(FileNotFoundError):
            if not why_distrusted(path.lstat()) and len(key := path.read_bytes()) == _KEY_BYTES:
                return key
        descriptor, fresh = tempfile.mkstemp(dir=self._root)  # two makers at once: the last one's holds
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        Path(fresh).replace(path)
        return path.read_bytes()

    def _require_ours(self, sha256: str) -> None:
        """Raise `Permanent` if another user could have written a blob, its record or a folder that they are in."""
        self._require_private(
            self._root, self._blobs, self._blobs / sha256, *(self._blobs / sha256).rglob("*")
        )

    def _require_private(self, *paths: Path) -> None:
        for path in paths:
            try:
                seen = path.stat(follow_symlinks=path in (self._root, self._blobs))
            except (FileNotFoundError, NotADirectoryError):
                continue
            why = "" if stat.S_ISLNK(seen.st_mode) else why_distrusted(seen)  # a link is never loaded
            if why:
                message = f"{path} {why}, so these weights cannot be trusted"
                hint = _MEND[seen.st_uid in {0, os.geteuid()}].format(shlex.quote(str(self._root)))
                raise Permanent(message, hint=hint)

    def _open_incoming(self, sha256: str) -> Path:
        """Make the scratch folder of a fetch and return it; no other user reaches what is in it, whatever the mode of its files.

        Raises `Permanent` if another user could have put something into it.
        """
        folder = self._incoming / sha256
        self._root.mkdir(parents=True, exist_ok=True, mode=_FOLDER)
        self._require_private(self._root, self._incoming, folder)
        for each in (self._incoming, folder):
            each.mkdir(exist_ok=True, mode=_PRIVATE_FOLDER)
        self._incoming.chmod(_PRIVATE_FOLDER)  # an older release let everybody in
        return folder

    def suspect(self, sha256: str) -> Path | None:
        """Return the file or folder stored under a hash whatever its state; None: there is none.

        Raises `Permanent` if another user could have written it.
        """
        self._require_ours(sha256)
        try:
            found = [entry for entry in (self._blobs / sha256).iterdir() if entry.name != RECORD]
        except FileNotFoundError:
            return None
        real = (each for each in sorted(found) if not each.is_symlink())
        return next(
            (each for each in real if each.is_file() or (each.is_dir() and any(each.iterdir()))), None
        )

    def recognise(
        self, sha256: str, blob: Path, *, stamp: Stamp | None = None, files: tuple[KnownFile, ...] = ()
    ) -> None:
        """Record that `blob` has been hashed and is correct; stamps are from before the hash.

        So the next quick check detects a write in between. A folder has `files` and no stamp of its own.
        """
        believed, was = self._believed(sha256), self.record(sha256)
        old = was or BlobRecord(name=blob.name, source="", fetched_at=_now())
        made = believed.made if believed else ()
        new = msgspec.structs.replace(old, name=blob.name, stamp=stamp, files=files, made=made)
        if (new := self._sealed(sha256, new)) != was:
            _write(self._blobs / sha256 / RECORD, new)

    def add_origin(self, sha256: str, made: tuple[Origin, ...]) -> None:
        """Record that a stored blob also has these origins."""
        old = self.record(sha256)
        assert old is not None, "a sound blob has a record"
        new = tuple(dict.fromkeys((*old.made, *made)))
        if new != old.made:
            changed = self._sealed(sha256, msgspec.structs.replace(old, made=new))
            _write(self._blobs / sha256 / RECORD, changed)

    def made_by(self, origin: Origin) -> list[str]:
        """Return the hashes of conversions with exactly this origin, sorted."""
        return [
            sha256
            for sha256 in self.hashes()
            if (record := self._believed(sha256)) is not None and origin in record.made
        ]

    def scratch(self, sha256: str, name: str, source: str) -> Path:
        """Return the scratch folder of a fetch of `sha256`, with the partial files of an earlier one."""
        folder = self._open_incoming(sha256)
        _write(folder / RECORD, BlobRecord(name=name, source=source, fetched_at=""))
        return folder

    def begun(self, sha256: str) -> bool:
        """Return whether an unfinished fetch has bytes that a later one can resume from."""
        return size_of(self._incoming / sha256 / "data") > 0 or size_of(self._incoming / sha256 / TREE) > 0

    def drop_scratch(self, sha256: str) -> None:
        """Remove the scratch folder of an unfinished fetch."""
        shutil.rmtree(self._incoming / sha256, ignore_errors=True)

    def commit(
        self, sha256: str, fetched: Fetched, *, name: str, source: str, made: tuple[Origin, ...] = ()
    ) -> Path:
        """Give a file or folder of the right hash its final name, once it and its record are on the disk; return its path."""
        assert fetched.sha256 == sha256, "only a file with the expected hash is committed"
        # A fetch whose hash nobody knew had another scratch folder.
        ready = self._open_incoming(sha256) / "ready"
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir(mode=_FOLDER)
        blob = fetched.path.rename(ready / name)
        record = BlobRecord(name=name, source=source, fetched_at=_now(), made=made)
        if fetched.files:
            known = tuple(KnownFile(path, digits, None) for path, digits in sorted(fetched.files.items()))
            record = msgspec.structs.replace(record, files=freeze_all(blob, known))
            for folder in (blob, *(each for each in blob.rglob("*") if each.is_dir())):
                folder.chmod(_FOLDER)
            sync_tree(blob)
        else:
            _sync_file(blob)
            record = msgspec.structs.replace(record, stamp=freeze(blob))
        _write(ready / RECORD, self._sealed(sha256, record))
        sync_folder(ready)
        self._blobs.mkdir(exist_ok=True, mode=_FOLDER)
        shutil.rmtree(
            self._blobs / sha256, ignore_errors=True
        )  # an emptied folder; a file in it was quarantined
        ready.rename(self._blobs / sha256)
        sync_folder(self._blobs)
        self.drop_scratch(sha256)
        return self._blobs / sha256 / name

    def quarantine(self, expected_sha256: str, file: Path, *, got_sha256: str, reason: str) -> Path:
        """Move a rejected file to the quarantine with a note; return its path. Keeps only the newest few."""
        record = self.record(expected_sha256) or read_json(
            self._incoming / expected_sha256 / RECORD, BlobRecord
        )
        note = QuarantineNote(
            name=record.name if record else file.name,
            source=record.source if record else "",
            expected_sha256=expected_sha256,
            got_sha256=got_sha256,
            size_bytes=size_of(file),
            refused_at=_now(),
            reason=reason,
        )
        folder = self._quarantine / (got_sha256 or f"unreadable-{expected_sha256}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        moved = file.rename(folder / safe_name(note.name))
        moved.chmod(_PRIVATE_FOLDER if moved.is_dir() else _PRIVATE)
        _write(folder / RECORD, note)
        shutil.rmtree(self._blobs / expected_sha256, ignore_errors=True)
        self.drop_scratch(expected_sha256)
        self._trim_quarantine()
        return moved

    def hashes(self) -> list[str]:
        """Return the hashes of all stored blobs, sorted."""
        return sorted(folder.name for folder in _folders(self._blobs))

    def stored(self) -> list[StoredWeights]:
        """Return everything in the store: blobs, unfinished fetches, rejected files, each sorted by hash."""
        return [*self._stored_blobs(), *self._stored_incoming(), *self._stored_quarantine()]

    def _stored_blobs(self) -> Iterator[StoredWeights]:
        for sha256 in self.hashes():
            blob, record = self.suspect(sha256), self.record(sha256)
            if blob is not None:
                state = WeightsState.VERIFIED if self.present(sha256) else WeightsState.CHANGED
                yield _line(sha256, blob, record, state)

    def _stored_incoming(self) -> Iterator[StoredWeights]:
        for folder in _folders(self._incoming):
            path = folder / TREE if (folder / TREE).is_dir() else folder / "data"
            yield _line(folder.name, path, read_json(folder / RECORD, BlobRecord), WeightsState.INCOMPLETE)

    def _stored_quarantine(self) -> Iterator[StoredWeights]:
        for folder in _folders(self._quarantine):
            note = read_json(folder / RECORD, QuarantineNote)
            if note is not None:
                yield StoredWeights(
                    name=note.name,
                    sha256=note.expected_sha256,
                    size_bytes=note.size_bytes,
                    source=note.source,
                    fetched_at=note.refused_at,
                    state=WeightsState.QUARANTINED,
                    path=folder / safe_name(note.name),
                )

    def _trim_quarantine(self) -> None:
        newest_first = sorted(
            _folders(self._quarantine), key=lambda folder: folder.stat().st_mtime_ns, reverse=True
        )
        for folder in newest_first[QUARANTINE_KEPT:]:
            shutil.rmtree(folder, ignore_errors=True)


def _line(sha256: str, path: Path, record: BlobRecord | None, state: WeightsState) -> StoredWeights:
    return StoredWeights(
        name=record.name if record else path.name,
        sha256=sha256,
        size_bytes=size_of(path),
        source=record.source if record else "",
        fetched_at=record.fetched_at if record else "",
        state=state,
        path=path,
    )


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; 0 where there is nothing."""
    if path.is_dir() and not path.is_symlink():
        return sum(size_of(each) for each in path.iterdir())
    stamp = stamp_of(path)
    return stamp.size_bytes if stamp else 0


def freeze(blob: Path) -> Stamp | None:
    """Make a file read-only and return its stamp; None: it is gone."""
    if blob.stat().st_mode & 0o777 != _READ_ONLY:
        blob.chmod(_READ_ONLY)
    return stamp_of(blob)


def freeze_all(folder: Path, files: tuple[KnownFile, ...]) -> tuple[KnownFile, ...]:
    """Make the files of a folder read-only and return them with their stamps."""
    return tuple(KnownFile(each.path, each.sha256, freeze(folder / each.path)) for each in files)


def _as_recorded(folder: Path, files: tuple[KnownFile, ...]) -> bool:
    """Return whether a folder has exactly these files, unchanged: an engine may load any file that it finds."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    known = {each.path: each.stamp for each in files}
    found = 0
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if is_hidden(name) or (path.is_dir() and not path.is_symlink()):
            continue
        stamp = known.get(name)
        if stamp is None or stamp != stamp_of(path):
            return False
        found += 1
    return found == len(known)


def stamp_of(path: Path) -> Stamp | None:
    """Return size, times and inode of a file itself, not of a link's target; None: it does not exist."""
    try:
        seen = path.stat(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Stamp(seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)


def _now() -> str:
    return datetime.fromtimestamp(clock.wall_s(), UTC).isoformat(timespec="seconds")


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(entry for entry in parent.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []


def read_json(path: Path, kind: type[_T]) -> _T | None:
    """Return the value in a small file; None: there is no file, or it is not of this kind."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def _write(path: Path, value: msgspec.Struct) -> None:
    """Replace a small file by one rename, so that it is never seen half written."""
    new = path.with_name(path.name + ".new")
    with open(new, "wb", opener=lambda name, flags: os.open(name, flags, _RECORD_MODE)) as file:
        file.write(msgspec.json.format(msgspec.json.encode(value)))
    _sync_file(new)
    new.replace(path)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_tree(folder: Path) -> None:
    """Flush everything below a folder, and the folder itself, to the disk."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            sync_tree(path)
        else:
            _sync_file(path)
    sync_folder(folder)
