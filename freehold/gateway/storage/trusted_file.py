"""Files whose content grants access: whether others could have written or replaced one, and whether it has changed.

It reads no content. A message continues a sentence that begins with the file.
"""

import os
import stat
from pathlib import Path

from freehold.core.errors import Permanent
from freehold.core.trust import OTHERS_MAY_WRITE, why_distrusted

Mark = tuple[int, int, int, int, int]
"""What changes when a file does: device, inode, modification and status change in nanoseconds, size in bytes."""


def mark_of(path: Path) -> Mark | None:
    """Return what differs between versions of a file; None: there is none, or it cannot be reached."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def check_file(found: os.stat_result, owner: int) -> None:
    """Raise Permanent if a file that is open is not a regular one that only `owner` and root can write."""
    if not stat.S_ISREG(found.st_mode):
        raise Permanent("is not a regular file")
    if why := why_distrusted(found, owner):
        chmod = found.st_mode & OTHERS_MAY_WRITE
        raise Permanent(why, hint="chmod 600" if chmod else "chown it to the user that runs the gateway")


def check_folders(path: Path, owner: int) -> None:
    """Raise Permanent if others may replace the file, or the link that leads to it."""
    for folder in {path.parent, Path(os.path.realpath(path)).parent}:
        if why := why_distrusted(folder.stat(), owner):
            raise Permanent(f"is in the folder {folder}, which {why}", hint=f"chmod go-w {folder}")
