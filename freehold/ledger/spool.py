"""The spool: files in memory (tmpfs) that a gateway appends its records to and that outlive it.

Appending is one `os.write` to tmpfs, so no request waits for a disk. A process writes its own files (`<run>.<number>.spool`),
each locked (flock) for as long as its writer lives, so that whoever drains them knows whether more can come, however
the writer died. The size of all files together is bounded; a record that finds no room is dropped and counted, and the
next record says how many were. What is removed under a living writer, as systemd-logind removes an ordinary user's
files in /dev/shm at the last logout (RemoveIPC, logind.conf(5)), it writes again from the file that it still holds.
Draining, and whether it falls behind, is `drainer`'s business.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from freehold.core.clock import monotonic_s
from freehold.core.errors import Permanent
from freehold.ledger.records.record import LedgerRecord, frame

SPOOL_BYTES_MAX = 64 * 1024 * 1024
"""All spool files of a stack together. Source: our own bound; some 400,000 records, over an hour at 100 requests/s."""
SEGMENT_BYTES_MAX = 4 * 1024 * 1024
"""One spool file. Source: our own choice: a sixteenth, so that draining gives room back in small steps."""
_AGAIN_S = 1.0  # How often a full or failing spool is tried again: dropping must stay cheap.
_NAME = re.compile(r"([0-9a-f]{16})\.(\d{6})\.spool")
_SHM = Path("/dev/shm")  # noqa: S108 - the one tmpfs that every Linux has for all users; what we make there is ours alone


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One spool file."""

    run: int
    number: int
    path: Path

    def size_bytes(self) -> int:
        """Return its size; 0: it is gone."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def has_writer(self) -> bool:
        """Return whether its writer may still append to it."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(fd)

    def read(self, at: int, limit_bytes: int) -> bytes:
        """Return up to `limit_bytes` from offset `at`; nothing when it is gone."""
        try:
            with self.path.open("rb") as file:
                file.seek(at)
                return file.read(limit_bytes)
        except FileNotFoundError:
            return b""


def spool_folder(state_path: Path, shm: Path = _SHM) -> Path:
    """Return the folder for the spool of the stack with this state folder: on tmpfs, or in the state folder.

    The folder on tmpfs is `freehold-<uid>/<16 digits of the state folder's path>`. Makes nothing.
    """
    owned = shm / f"freehold-{os.geteuid()}"
    if not shm.is_dir() or not os.access(shm, os.W_OK) or not _may_be_ours(owned):
        return state_path / "spool"
    return owned / sha256(os.fsencode(state_path.resolve())).hexdigest()[:16]


def _may_be_ours(path: Path) -> bool:
    """Return whether a folder is ours, or can be made so: everybody may write to the folder that it lies in."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def make_folder(folder: Path) -> None:
    """Make a spool folder that only we can enter; raise Permanent where that cannot be."""
    try:
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, exist_ok=True, parents=True)
            if not _may_be_ours(each):
                raise Permanent(f"{each} belongs to another user", hint="remove it, or ask its owner to")
            each.chmod(0o700)
    except OSError as exc:
        raise Permanent(f"cannot make the ledger's spool {folder}: {exc.strerror}") from exc


def remove_folder(folder: Path) -> None:
    """Remove a spool folder that holds no records any more; one that does stays."""
    if not segments(folder):
        for name in [*folder.glob("*.new"), *folder.glob("drain.json*")]:
            name.unlink(missing_ok=True)
        for each in (folder, folder.parent):
            with contextlib.suppress(OSError):  # another stack's folder lies there too, or it was never made
                each.rmdir()


def segments(folder: Path) -> list[Segment]:
    """Return the spool files, those of one process in the order of writing."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(folder):  # noqa: PTH208 - ten times as quick as iterdir, and gateways call it
            match = _NAME.fullmatch(name)
            if match:
                found.append(Segment(int(match[1], 16), int(match[2]), folder / name))
    return sorted(found)


class SpoolWriter:
    """The writing end, for one process. `append` never waits."""

    def __init__(
        self, folder: Path, *, max_bytes: int = SPOOL_BYTES_MAX, segment_bytes: int = SEGMENT_BYTES_MAX
    ) -> None:
        self.run = secrets.randbits(62)
        self.folder = folder
        self.dropped_total = 0
        self.records_total = 0
        self.removed_total = 0
        """How often its file was removed under it."""
        self.last_error = ""
        self.lost = ""
        """Why its file, which was removed, cannot be written again now; empty: it need not be."""
        self._max_bytes = max_bytes
        self._segment_bytes = min(segment_bytes, max_bytes)
        self._fd = -1
        self._size_bytes = 0
        self._number = 0
        self._again_s = 0.0

    def __repr__(self) -> str:
        return f"<SpoolWriter {self.run:016x} {self.records_total} written, {self.dropped_total} dropped>"

    def append(self, record: LedgerRecord) -> bool:
        """Write one record; returns False when it was dropped, and counted, instead."""
        return self.append_all([frame(record)])

    def append_all(self, frames: list[bytes]) -> bool:
        """Write some records (as `record.frame` makes them) with one write; returns whether the first is written.

        Where they cannot be written together each is tried alone: what is dropped is no more than has to be.
        """
        several = len(frames) > 1
        data = b"".join(frames) if several else frames[0]
        fits = self._fd >= 0 and self._size_bytes + len(data) <= self._segment_bytes
        # A file that is begun is filled first: there may be no room for another.
        begins = not fits and not (several and self._fd >= 0)
        if (fits or (begins and self._next_segment(len(data)))) and self._write(data):
            self.records_total += len(frames)
            return True
        if several:
            first, *_ = [self.append_all([each]) for each in frames]
            return first
        self.dropped_total += 1
        return False

    def look(self) -> bool:
        """Write the file again if it was removed, and return whether that was done; to be called now and then.

        Whoever drains it reads again what was drained before: a record's identity sees to it that it counts once.
        """
        if self._fd < 0 or os.fstat(self._fd).st_nlink:
            return False
        self.removed_total += not self.lost
        try:
            # Made and looked at first: where all users may write, another user may have put another in its place.
            make_folder(self.folder)
            self._begin(os.pread(self._fd, self._size_bytes, 0))
        except Permanent:
            self.lost = "its folder was removed and cannot be made again"
        except OSError as exc:
            self.lost = f"it was removed and cannot be written again: {exc.strerror}"
        else:
            self.lost = ""
        return not self.lost

    def close(self) -> None:
        """Let go of the file: from now on nothing more can come."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, data: bytes) -> bool:
        try:
            written = os.write(self._fd, data)
        except OSError as exc:
            self._fail(exc)
            written = 0
        if written == len(data):
            self._size_bytes += written
            self.last_error = ""
            return True
        if written:
            self._fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            self._take_back()
        return False

    def _take_back(self) -> None:
        """Cut a half-written record off, so that the next one begins on a border."""
        try:
            os.ftruncate(self._fd, self._size_bytes)
        except OSError as exc:
            self._fail(exc)
            self.close()  # a reader knows the torn end of a file for what it is

    def _fail(self, exc: OSError) -> None:
        self.last_error = exc.strerror or str(exc)

    def _next_segment(self, record_bytes: int) -> bool:
        """Begin another file, if there is room for it; else close up, try again a little later, and return False."""
        now_s = monotonic_s()
        if now_s < self._again_s:
            return False
        self._again_s = now_s + _AGAIN_S
        self.look()  # a full file that has no name any more must not be let go
        if self.lost:
            return False
        self.close()
        try:
            self._find_room(record_bytes)
            self._begin_in_folder()
        except OSError as exc:
            self._fail(exc)
            return False
        self._again_s = 0.0
        return True

    def _find_room(self, record_bytes: int) -> None:
        used_bytes = sum(segment.size_bytes() for segment in segments(self.folder))
        if used_bytes + max(record_bytes, min(self._segment_bytes, self._max_bytes // 4)) > self._max_bytes:
            raise OSError(errno.ENOSPC, f"the spool holds {used_bytes} bytes that were not drained")

    def _begin_in_folder(self) -> None:
        try:
            self._begin()
        except FileNotFoundError:
            with contextlib.suppress(Permanent):  # then the next line says why
                make_folder(self.folder)
            self._begin()

    def _begin(self, data: bytes = b"") -> None:
        """Go on in another file, which begins with `data`; raises OSError, and then the old one is in use still."""
        self._number += 1
        path = self.folder / f"{self.run:016x}.{self._number:06d}.spool"
        fresh = path.with_suffix(".new")
        fd = os.open(fresh, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_whole(fd, data)
            # It gets its name when it is locked: a drainer never sees a file without a writer that will yet have one.
            fresh.rename(path)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        self.close()
        self._fd, self._size_bytes = fd, len(data)


def _write_whole(fd: int, data: bytes) -> None:
    if data and os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
