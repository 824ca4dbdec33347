"""A file replaced whole: whoever reads it sees what it was or what it is, and never half of either.

The one way in which Freehold writes small files that others read while it runs. It takes no lock: where several write, who
writes is for them to settle. It deliberately keeps neither rights nor links of the old file; a file of the user's is no business of it.
"""

import contextlib
import os
from pathlib import Path

_OWNER_ONLY = 0o600  # rw------- of chmod(2): what Freehold keeps is its user's alone


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put a whole new file of mode 0600 in the place of `path`; raises OSError, and then the old one stands and no other lies about.

    Durable: the disk has it when this returns, its name too. Else it survives the process and not the machine. Written by root, it keeps
    the owner that the file had: the one who has to read it.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _keep_owner(path, descriptor)
            file.write(data)
            if durable:
                file.flush()
                os.fsync(descriptor)
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def _keep_owner(path: Path, descriptor: int) -> None:
    if os.geteuid() == 0:
        with contextlib.suppress(FileNotFoundError):
            was = path.stat()
            os.fchown(descriptor, was.st_uid, was.st_gid)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
