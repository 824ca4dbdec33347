"""`file://`: a file of this machine, cloned into the store where the file system can, copied where it cannot.

Never a hard link: the original and the store's blob would be one file, so that whoever changes the original would
change what the store calls verified. A read-only blob would also make the user's own file read-only. A clone
(`FICLONE`: Btrfs, XFS, bcachefs, overlay on them) costs no space and no time, and later writes separate the two. The hash is of
the store's own copy, so a source that changes meanwhile is detected.
"""

import fcntl
import os
import stat
from pathlib import Path
from typing import BinaryIO

from freehold.core.errors import Permanent
from freehold.weights.source import FileSource
from freehold.weights.transfer import Fetched, FetchJob, FetchStage, hash_file, pour

FICLONE = 0x40049409
"""The ioctl that makes one file share another's blocks. Source: linux/fs.h, `_IOW(0x94, 9, int)`."""


def fetch(source: FileSource, job: FetchJob) -> Fetched:
    """Return a copy of the file; raises `Permanent` when it cannot be read, `DiskFull` or OSError for the store."""
    with _opened(resolved(source, job.base_dir)) as original:
        return copy_in(original, job)


def copy_in(original: BinaryIO, job: FetchJob) -> Fetched:
    """Return a clone or copy of an open file in the scratch folder, hashed; raises `DiskFull` or OSError."""
    target = job.scratch / "data"
    if _clone(original, target):
        return Fetched(path=target, sha256=hash_file(target, job.report))
    size_bytes = os.fstat(original.fileno()).st_size
    return pour(original, target, stage=FetchStage.COPYING, total_bytes=size_bytes, report=job.report)


def resolved(source: FileSource, base_dir: Path) -> Path:
    """Return the absolute path: `~` is the user's home, a relative path starts at `base_dir`."""
    try:
        return base_dir / Path(source.path).expanduser()
    except RuntimeError as error:  # pathlib's way to say that there is no such user
        raise Permanent(f"{source}: {error}") from error


def _opened(path: Path) -> BinaryIO:
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise Permanent(
            f"cannot read {path}: {error.strerror}", hint="check the path and its rights"
        ) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise Permanent(f"{path} is not a regular file", hint="name the weights file itself")
    return file


def _clone(original: BinaryIO, target: Path) -> bool:
    with target.open("wb") as copy:
        try:
            fcntl.ioctl(copy.fileno(), FICLONE, original.fileno())
        except OSError:  # another disk, or a file system without clones
            return False
    return True
