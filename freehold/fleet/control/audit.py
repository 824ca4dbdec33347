"""The audit log of a stack: a line for each act on keys, configuration, replicas and health: who, what, when, from where.

Controller and commands append to one file, each line under a lock and flushed to the disk; `freehold logs audit` shows it. Of more
than the bound the oldest lines are lost. It deliberately prevents no act: a full disk must not keep a leaked key alive.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from freehold.core.clock import wall_s
from freehold.core.plain_text import json_line
from freehold.fleet.control.peer import Peer
from freehold.telemetry.writer import FileTarget

NAME = "audit.log"
"""The file in the folder of the logs."""
REJECTED = "rejected"
"""The act of a request that was rejected. It has a file of its own, so that rejected requests push no act out of the log."""
REJECTED_NAME = "audit-rejected.log"
MAX_BYTES = 4 * 1024 * 1024
"""Size of one file. Source: own choice: some 15,000 acts."""
BACKUPS = 7
"""Older files kept besides. Source: own choice: 32 MiB in all, years of a busy team."""
TEXT_CHARS_MAX = 500
"""Longest text of a field. Source: own choice, that of a reason of `health set-healthy`."""


def append(logs: Path, act: str, *, peer: Peer, detail: Mapping[str, object]) -> None:
    """Append an act to the log in this folder and flush it to the disk; raises OSError. Of `detail` texts, numbers and booleans are kept, without `op`."""
    kept = {
        name: value[:TEXT_CHARS_MAX] if isinstance(value, str) else value
        for name, value in detail.items()
        if isinstance(value, str | int | float) and name != "op"
    }
    head = {
        "at": datetime.fromtimestamp(wall_s(), UTC).isoformat(timespec="microseconds"),
        "level": "warning" if act == REJECTED else "info",
        "logger": "audit",
        "event": act,
        "by": peer.who(),
        "origin": peer.origin(),
    }
    line = (
        json_line(msgspec.json.encode(head | {name: kept[name] for name in kept.keys() - head.keys()}))
        + b"\n"
    )
    for folder in (logs.parent, logs):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(logs):
        target = FileTarget(
            logs / (REJECTED_NAME if act == REJECTED else NAME), max_bytes=MAX_BYTES, backups=BACKUPS
        )
        try:
            _write(target.open(len(line)), line, owner=logs.stat())
        finally:
            target.close()


def _write(descriptor: int, line: bytes, *, owner: os.stat_result) -> None:
    """Append the whole line or none of it."""
    size = os.fstat(descriptor).st_size
    try:
        while line:  # a disk that is nearly full takes a part
            line = line[os.write(descriptor, line) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
    if os.geteuid() == 0:  # the stack's own user must be able to append, too
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
