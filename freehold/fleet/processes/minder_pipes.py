"""The pipes of a minder: engine output to a bounded log and a tail, orders in, reports out.

Nothing here makes the minder's loop wait: a thread of its own writes to the disk, and a full pipe keeps its
report for later. Like the minder it imports little of the standard library and nothing of Freehold.
"""
# ruff: noqa: PTH103, PTH105, PTH120
# Why: importing pathlib would add a quarter to the minder's start-up.

from __future__ import annotations

import json
import os
import threading
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TAIL_LINES = 60
"""Last lines that an exit report carries. Source: a Python traceback of a deep stack fits."""
ERROR_LINES = 30
"""Of the lines before them, so many of the last that name an error. Source: vLLM 0.32 logs its cause 100 to 180 lines above its
last one, once per process that it went through."""
TAIL_BYTES = 256 * 1024
"""How far back such lines are looked for. Source: our own choice; vLLM prints some 30 KB when it does not start."""
TAIL_LINE_CHARS = 500
"""Longest of these lines; so a report stays below a pipe's 64 KiB (pipe(7)) and its writing never waits."""
READ_BYTES = 65536
"""One read of the engine's output. Source: a pipe's capacity, pipe(7)."""
REMARK = b"\x1e"
"""The byte before the minder's own lines in an engine's log, and taken out of what the engine prints. Source: ASCII, record separator."""
QUEUE_BYTES = 512 * 1024
"""Output that waits for the disk; more is dropped and counted. Source: own choice, keeps the minder small."""
ORDER_BYTES = 1024 * 1024
"""Longest line accepted on stdin."""
LOG_RETRY_S = 0.5
"""Pause after a failed write: a full disk needs no hammering."""


class Log:
    """A log of bounded size behind a bounded queue and a writer thread: `offer` never waits and never fails.

    Two files, PATH and PATH.1, each at most half of `max_bytes`.
    """

    def __init__(self, path: str, max_bytes: int) -> None:
        self.dropped_bytes = 0
        self._path = path
        self._half_bytes = max(4096, max_bytes // 2)
        self._chunks: deque[bytes] = deque()
        self._queued_bytes = 0
        self._unnoted_bytes = 0
        self._closing = False
        self._wake = threading.Condition()
        self._pause = threading.Event()
        self._fd = -1
        self._size_bytes = 0
        self._thread = threading.Thread(target=self._write_forever, daemon=True)

    def open(self) -> None:
        """Start the writer thread; everything that touches the disk happens there."""
        self._thread.start()

    def offer(self, chunk: bytes) -> None:
        """Queue output, or drop and count it when the disk is too far behind."""
        with self._wake:
            if self._queued_bytes + len(chunk) > QUEUE_BYTES:
                self._drop(len(chunk))
                return
            self._chunks.append(chunk)
            self._queued_bytes += len(chunk)
            self._wake.notify()

    def close(self, wait_s: float) -> None:
        """Write what is queued if the disk lets us within `wait_s`."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._pause.set()
        self._thread.join(wait_s)

    def _drop(self, size_bytes: int) -> None:
        self.dropped_bytes += size_bytes
        self._unnoted_bytes += size_bytes

    def _write_forever(self) -> None:
        while (taken := self._take()) is not None:
            if not self._try_write(*taken) and not self._closing:
                self._pause.wait(LOG_RETRY_S)

    def _take(self) -> tuple[bytes, int] | None:
        """Return all that is queued and how many bytes are missing after it; None: closed and nothing left."""
        with self._wake:
            while not (self._chunks or self._unnoted_bytes or self._closing):
                self._wake.wait()
            if not self._chunks and self._closing:
                return None
            chunk, missing_bytes = b"".join(self._chunks), self._unnoted_bytes
            self._chunks.clear()
            self._queued_bytes = self._unnoted_bytes = 0
            return chunk, missing_bytes

    def _try_write(self, chunk: bytes, missing_bytes: int) -> bool:
        lost_bytes = max(0, len(chunk) - self._half_bytes)
        try:
            self._append(chunk[lost_bytes:])
        except OSError:
            self._shut()
            lost_bytes = len(chunk)
        with self._wake:
            self._unnoted_bytes += missing_bytes
            self._drop(lost_bytes)
            unnoted_bytes = self._unnoted_bytes
        if lost_bytes == len(chunk) and chunk:
            return False
        return not unnoted_bytes or self._note_gap(unnoted_bytes)

    def _note_gap(self, missing_bytes: int) -> bool:
        """Write into the log how many bytes are missing."""
        try:
            self._append(
                b"\n%b[freehold: %d bytes dropped here: the disk was too slow or full]\n"
                % (REMARK, missing_bytes)
            )
        except OSError:
            self._shut()
            return False
        with self._wake:
            self._unnoted_bytes -= missing_bytes
        return True

    def _append(self, chunk: bytes) -> None:
        self._rotate_for(len(chunk))
        while chunk:
            written = os.write(self._fd, chunk)
            self._size_bytes += written
            chunk = chunk[written:]

    def _rotate_for(self, size_bytes: int) -> None:
        if self._fd >= 0 and not self._is_here():
            self._shut()  # the file was removed or moved: later output belongs under the old name
        if self._fd < 0:
            os.makedirs(os.path.dirname(self._path) or ".", mode=0o700, exist_ok=True)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._size_bytes = os.fstat(self._fd).st_size
        if self._size_bytes and self._size_bytes + size_bytes > self._half_bytes:
            os.replace(self._path, self._path + ".1")
            self._shut()
            self._rotate_for(size_bytes)

    def _is_here(self) -> bool:
        try:
            here = os.stat(self._path)  # noqa: PTH116 - the path is text here, and asked for with each write
            return here.st_ino == os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return False

    def _shut(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class OutputTail:
    """The last output of the engine, kept as raw chunks and cut into lines only for a report."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size_bytes = 0

    def add(self, chunk: bytes) -> None:
        """Keep a chunk and drop the oldest beyond TAIL_BYTES."""
        self._chunks.append(chunk)
        self._size_bytes += len(chunk)
        while self._size_bytes - len(self._chunks[0]) > TAIL_BYTES:
            self._size_bytes -= len(self._chunks.popleft())

    def lines(self) -> list[str]:
        """Return at most ERROR_LINES that name an error and then at most TAIL_LINES, each cut to TAIL_LINE_CHARS."""
        text = b"".join(self._chunks).decode("utf-8", "replace")
        lines = [line[:TAIL_LINE_CHARS] for line in text.replace("\r", "\n").split("\n") if line.strip()]
        errors = [line for line in lines[:-TAIL_LINES] if "Error: " in line or "Exception: " in line]
        return errors[-ERROR_LINES:] + lines[-TAIL_LINES:]


class Reports:
    """JSON lines to the controller that never make the minder wait: reports that a full pipe does not accept are kept."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pending = b""
        os.set_blocking(fd, False)

    @property
    def pending(self) -> bool:
        """Return whether a report still waits for room in the pipe."""
        return bool(self._pending)

    def send(self, event: str, **fields: object) -> None:
        """Send one report, now or when there is room."""
        self._pending += json.dumps({"event": event, **fields}).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Write as much as the pipe accepts; without a reader, drop everything."""
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._fd, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self._pending = b""


class Orders:
    """Lines of JSON from the controller; `closed` once it is gone."""

    def __init__(self, fd: int) -> None:
        self.closed = False
        self._fd = fd
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """Return the complete orders of one read, which waits for input; invalid lines are skipped."""
        chunk = os.read(self._fd, READ_BYTES)
        self.closed = not chunk or len(self._rest) > ORDER_BYTES
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [order for order in map(_order, lines) if order]


def _order(line: bytes) -> dict[str, Any]:
    try:
        order = json.loads(line)
    except ValueError:
        return {}
    return order if isinstance(order, dict) else {}
