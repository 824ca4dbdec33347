"""Hash a stored file or folder again: its hash now, and which files of a folder differ from the record.

It decides nothing and moves nothing: the store compares with the expected hash and acts.
"""

import errno
from dataclasses import dataclass
from pathlib import Path

from freehold.core.errors import Permanent
from freehold.weights.blobs import BlobRecord, KnownFile, Stamp, freeze, freeze_all
from freehold.weights.transfer import Reporter, hash_file
from freehold.weights.tree import hash_folder, tree_hash, walk

_MOST_NAMED = 3  # files in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehash:
    """The result of hashing a blob again."""

    sha256: str = ""
    """Empty: it could not be read."""
    reason: str = ""
    """What a wrong hash means; empty: the files show it."""
    stamp: Stamp | None = None
    files: tuple[KnownFile, ...] = ()


def rehash(blob: Path, report: Reporter) -> Rehash:
    """Return the hash of a stored file or folder now, with stamps from before; raises OSError except for an unreadable disk."""
    return _folder(blob, report) if blob.is_dir() else _file(blob, report)


def _file(blob: Path, report: Reporter) -> Rehash:
    stamp = freeze(blob)
    try:
        return Rehash(
            sha256=hash_file(blob, report), reason="its bytes have changed since it was stored", stamp=stamp
        )
    except OSError as error:
        return _unreadable(error)


def _folder(folder: Path, report: Reporter) -> Rehash:
    try:
        before = freeze_all(folder, tuple(KnownFile(path, "", None) for path in sorted(walk(folder, ("*",)))))
        hashes = hash_folder(folder, report, ("*",))
    except OSError as error:
        return _unreadable(error)
    except Permanent as error:  # a link among the files, or none left
        return Rehash(reason=error.message)
    files = tuple(KnownFile(each.path, hashes.get(each.path, ""), each.stamp) for each in before)
    return Rehash(sha256=tree_hash(hashes), files=files)


def _unreadable(error: OSError) -> Rehash:
    if error.errno != errno.EIO:
        raise error
    return Rehash(reason=f"the disk cannot read it: {error.strerror}")


def differing(record: BlobRecord | None, found: tuple[KnownFile, ...]) -> str:
    """Return which files of a folder differ from its record, as text."""
    was = {each.path: each.sha256 for each in record.files} if record else {}
    now = {each.path: each.sha256 for each in found}
    said = [
        f"{path} is {'missing' if path not in now else 'new' if path not in was else 'changed'}"
        for path in sorted(was.keys() | now.keys())
        if was.get(path) != now.get(path)
    ]
    return ", ".join(said[:_MOST_NAMED]) + (
        f" and {len(said) - _MOST_NAMED} more" if len(said) > _MOST_NAMED else ""
    )
