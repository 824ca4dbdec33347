"""The history's file, which the agent and an operator's command write: lines appended under a lock, the file written anew when it has grown.

What its lines hold and mean is in `incidents.history`; nothing here judges.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path

from freehold.core.whole_file import replace_file
from freehold.health.evidence.kernel_signs import PastFault
from freehold.health.incidents.history import MOST, History, Mark, history_lines, read_history, still_kept


class HistoryFile:
    """The file. Several processes may write it: each holds a lock file meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> History:
        """Return what the file holds; no file: nothing. Raises OSError when it cannot be read."""
        if not self.path.exists():
            return History()
        return read_history(self.path.read_text("utf-8", errors="replace"))

    def stamp(self) -> tuple[int, int, int] | None:
        """Return what changes when the file does; None: there is none. Raises OSError as `load`."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return (found.st_ino, found.st_size, found.st_mtime_ns)

    def mark(self, mark: Mark) -> None:
        """Append an operator's mark; as `add`."""
        self.add([mark], now_s=mark.set_healthy_s)

    def add(self, entries: Sequence[PastFault | Mark], *, now_s: float) -> None:
        """Append and make it durable; after `MOST` lines write the file anew. Raises OSError when the disk does not take it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self._append(history_lines(entries))
            if len((everything := self.load()).past) > MOST:
                replace_file(self.path, history_lines(still_kept(everything, now_s=now_s)).encode())

    def _append(self, lines: str) -> None:
        torn = self.path.exists() and self.path.read_bytes()[-1:] not in {b"", b"\n"}
        with _opened(self.path) as file:
            size = file.tell()
            try:
                data = (("\n" if torn else "") + lines).encode()
                while data:  # a disk that is nearly full takes a part
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock; a file system without locks goes without."""
        with _opened(self.path.with_suffix(".lock")) as lock:
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _opened(path: Path) -> FileIO:
    """Open a file to append to; a new one is its user's alone, since other users may pass through the state folder."""
    return FileIO(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")
