"""The keys file on disk: read whole, changed under a lock, replaced whole, so that no reader ever sees half of it.

The gateway only reads it; `freehold key` is what writes. It keeps hashes and no key, with mode 0600 all the same:
write access to it grants access to the gateway, so a file that others may write or replace is not trusted.
"""

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from freehold.core.errors import Permanent, Temporary
from freehold.core.whole_file import replace_file
from freehold.gateway.callers.keys import BadKeysError, KeyRecord, KeysFile, read_keys, write_keys
from freehold.gateway.storage.trusted_file import Mark, check_file, check_folders, mark_of

FILE_BYTES_MAX = 16 * 1024 * 1024
"""Longest keys file, bytes. Source: own bound; KEYS_MAX records with all their limits take about 5 MB."""
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOCK_S = 10.0  # A change takes milliseconds: a lock held longer than this is held by something stuck.


class KeyStore:
    """One keys file, which may not exist yet. What is wrong with it continues the sentence "the keys file …"."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"<KeyStore {self.path}>"

    def mark(self) -> Mark | None:
        """Return what differs between versions of the file; None: there is none, or it cannot be reached."""
        return mark_of(self.path)

    def read(self) -> KeysFile:
        """Return the keys, none where there is no file yet; raise Permanent for a file that cannot be trusted."""
        return self._read(os.geteuid())

    def _read(self, owner: int) -> KeysFile:
        try:
            # Not blocking, so that a pipe in the file's place delays nothing.
            with os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                check_file(os.fstat(file.fileno()), owner)
                check_folders(self.path, owner)
                data = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return KeysFile()
        except OSError as exc:
            raise Permanent(f"cannot be read: {exc.strerror}") from exc
        if len(data) > FILE_BYTES_MAX:
            raise Permanent(f"is larger than {FILE_BYTES_MAX} bytes")
        try:
            return read_keys(data)
        except BadKeysError as exc:
            raise Permanent(f"is broken: {exc}") from exc

    def change(self, change: Callable[[tuple[KeyRecord, ...]], tuple[KeyRecord, ...]]) -> KeysFile:
        """Replace the keys by what `change` makes of them, one process at a time, and return them.

        What `change` raises leaves the file as it was. Raises Permanent where the file is broken or cannot be written,
        Temporary where another process holds its lock.
        """
        target = Path(os.path.realpath(self.path))  # a link stays one: what it points to is replaced
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A lock that cannot be made (/proc) looks to FileLock like one that another process holds.
            os.close(os.open(f"{target}.lock", _LOCK_FLAGS, 0o600))
            with FileLock(f"{target}.lock", mode=0o600, timeout=_LOCK_S):
                before = self._read(_owner(target))
                after = KeysFile(keys=change(before.keys))
                if after != before:
                    data = write_keys(after)
                    assert read_keys(data) == after, "no file is written that could not be read"
                    replace_file(target, data)
                return after
        except Timeout as exc:
            raise Temporary(f"another process holds {target}.lock") from exc
        except OSError as exc:
            raise Permanent(f"cannot be written: {exc.strerror}") from exc


def _owner(path: Path) -> int:
    """Return the uid whose gateway a change is for: root changes a file for its owner, every other user his own."""
    return path.stat().st_uid if os.geteuid() == 0 and path.exists() else os.geteuid()
