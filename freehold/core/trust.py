"""Whether another user could have written a file or folder: the rule for what grants access or vouches for bytes.

It holds for root too. It judges one entry and not the folders above it; a caller checks each folder that it depends on.
"""

import os
import stat

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
"""The mode bits (chmod(2)) with which a group or every user may write."""


def why_distrusted(seen: os.stat_result, owner: int | None = None) -> str:
    """Return why others could have written this, as the end of the sentence "PATH …"; empty: only `owner` (None: this user) and root could.

    In a folder with the sticky bit, others can neither rename nor remove an entry of the owner.
    """
    trusted = os.geteuid() if owner is None else owner
    if seen.st_uid not in {trusted, 0}:
        return f"belongs to another user (uid {seen.st_uid})"
    sticky = stat.S_ISDIR(seen.st_mode) and seen.st_mode & stat.S_ISVTX
    return "can be written by others" if seen.st_mode & OTHERS_MAY_WRITE and not sticky else ""
