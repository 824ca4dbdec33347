"""A bounded queue and one thread that writes lines to a file or stream: whoever logs never waits for a disk.

The idea: `offer` appends to a deque (no lock that a signal handler could find held, no waiting) or counts a drop, and wakes
the thread where it rests; the thread opens, writes and rotates. A hung or failing target therefore costs records, never time, and the loss is
counted, and written down once the target works again.

Whoever has no time to format gives `render` and offers something cheaper; with `linger_s` the thread sleeps a little
between two writes, so that a busy caller does not wake it for each line.

What it deliberately does not do: it promises no record on disk, writes one file per process only (rotation by two
writers would lose lines), and knows nothing of what a line means.
"""

import contextlib
import os
import queue
import select
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

BATCH_LINES = 256
"""Most lines of one write: bounds the memory a hung write holds besides the queue."""
Item = TypeVar("Item")
"""What is offered: a line, or what it is rendered from."""


class HasFileno(Protocol):
    """An open file, as far as it is needed here."""

    def fileno(self) -> int:
        """Return the file descriptor."""
        ...


class StreamTarget:
    """An open stream, for example standard error; it is never closed here."""

    def __init__(self, stream: HasFileno) -> None:
        self._fd = stream.fileno()

    def open(self, incoming_bytes: int) -> int:  # noqa: ARG002 - a stream takes any amount
        """Return the descriptor to write to."""
        return self._fd

    def close(self) -> None:
        """Leave the stream to its owner."""


class FileTarget:
    """A file that is renamed to `NAME.1` (and that to `NAME.2` …) before it would grow beyond `max_bytes`.

    Only a single batch that is larger than `max_bytes` makes a file larger than that.
    """

    def __init__(self, path: Path, *, max_bytes: int, backups: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._backups = backups
        self._fd = -1

    def open(self, incoming_bytes: int) -> int:
        """Return the descriptor to append `incoming_bytes` to; raises OSError. May block as long as the disk does."""
        if self._fd >= 0 and not self._is_here():
            self.close()  # somebody removed or moved it: what comes now is looked for under the old name
        if self._fd < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size_bytes = os.fstat(self._fd).st_size
        if size_bytes and size_bytes + incoming_bytes > self._max_bytes:
            self._rotate()
            return self.open(0)
        return self._fd

    def _is_here(self) -> bool:
        try:
            return self._path.stat().st_ino == os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file; a later `open` opens it again."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):  # a failing disk reports its failure once more on close
                os.close(fd)

    def bound(self, *, max_bytes: int, backups: int) -> None:
        """Change the bounds from the next write on; may be called from any thread."""
        self._max_bytes, self._backups = max_bytes, backups

    def _rotate(self) -> None:
        self.close()
        for index in range(self._backups, 0, -1):
            older = self._numbered(index - 1)
            if older.exists():
                older.replace(self._numbered(index))
        if not self._backups:
            self._path.unlink()

    def _numbered(self, index: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{index}") if index else self._path


class LineWriter(Generic[Item]):
    """The queue and its thread. `offer` may be called from any thread and from a signal handler.

    `render` makes a line that ends in a newline of what was offered, on the thread; it must be total.
    """

    def __init__(
        self,
        target: StreamTarget | FileTarget,
        *,
        queue_records: int,
        render: Callable[[Item], bytes],
        linger_s: float = 0.0,
    ) -> None:
        self._target = target
        self._queue_records = queue_records
        self._render = render
        self._linger_s = linger_s
        self._ending = threading.Event()
        self._items: deque[Item] = deque()
        self._rests = True
        """The thread waits to be woken; whoever offers the next line does that."""
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # taken only on a loss; reentrant for the sake of signal handlers
        self._lost = 0
        self._closed = False
        self._torn = False
        self._pending_lines = 0
        self.last_error = ""
        self._thread = threading.Thread(target=self._run, name="freehold-log-writer", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<LineWriter waiting={len(self._items)} lost={self._lost} closed={self._closed}>"

    @property
    def dropped_total(self) -> int:
        """Lines that will never be written: the queue was full, the write failed, or the writer was closed."""
        return self._lost

    def offer(self, item: Item) -> bool:
        """Queue a line, or what makes one; return False when it was dropped instead. Never blocks."""
        items = self._items
        if self._closed or len(items) >= self._queue_records:
            self._lose(1)
            return False
        items.append(item)
        if self._rests:
            self._rests = False
            self._wake.put(None)
        return True

    def finish(self) -> None:
        """Take no more and let the thread write what is queued, without waiting for it."""
        if not self._closed:
            self._closed = True
            self._ending.set()
            self._wake.put(None)

    def close(self, timeout_s: float) -> bool:
        """Write what is queued for at most `timeout_s` seconds; return whether all of it was written."""
        self.finish()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._lose(len(self._take(self._queue_records)) + self._pending_lines)
            return False
        return True

    def _lose(self, lines: int) -> None:
        with self._lock:
            self._lost += lines

    def _run(self) -> None:
        reported = 0
        while batch := self._next_batch():
            lost = self._lost
            if self._write(_loss_note(lost - reported), batch):
                reported = lost
        self._target.close()

    def _next_batch(self) -> list[bytes]:
        """Wait for a line and return what is there up to a batch; nothing: no line follows."""
        while not self._items and not self._closed:
            self._rests = True
            if not self._items:  # what came just before woke nobody
                self._wake.get()
                if self._linger_s:
                    self._ending.wait(self._linger_s)
            self._rests = False
        return self._take(BATCH_LINES)

    def _take(self, most: int) -> list[bytes]:
        """Take so many lines at most. By this thread, or by one that has waited for it in vain."""
        lines: list[bytes] = []
        take, render = self._items.popleft, self._render
        with contextlib.suppress(IndexError):
            while len(lines) < most:
                lines.append(render(take()))
        return lines

    def _write(self, note: bytes, batch: list[bytes]) -> bool:
        """Write the note and all lines, or count the lines that were not; return whether it worked."""
        self._pending_lines = len(batch)
        data = (b"\n" if self._torn else b"") + note + b"".join(batch)
        written = 0
        try:
            fd = self._target.open(len(data))
            while written < len(data):
                written += _write_some(fd, data[written:])
        except OSError as exc:
            self._fail(exc, lines=min(len(batch), data.count(b"\n", written)))
        if written:
            self._torn = data[written - 1 : written] != b"\n"
        self._pending_lines = 0
        return written == len(data)

    def _fail(self, exc: OSError, *, lines: int) -> None:
        self.last_error = f"{type(exc).__name__}: {exc}"
        self._lose(lines)
        self._target.close()


def _loss_note(lines: int) -> bytes:
    """Return the line that tells a reader of the log about a gap in it; nothing for no gap."""
    return b'{"level":"warning","event":"log records dropped","count":%d}\n' % lines if lines else b""


def _write_some(fd: int, data: bytes) -> int:
    """Write what the target takes, at least one byte; waits, also for a descriptor that somebody made non-blocking."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        select.select([], [fd], [])
        return 0
