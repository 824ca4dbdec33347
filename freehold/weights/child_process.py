"""A child process that fetches or converts weights: the last lines of its output, and how it is ended.

It starts nothing, and what the lines mean is known only to the file that starts the child.
"""

import subprocess
import threading
from collections import deque
from typing import IO

NO_SPACE = ("No space left on device", "Disk quota exceeded", "File too large")
"""What a program prints when the disk is full. Source: strerror of ENOSPC, EDQUOT and EFBIG."""
_END_S = 5.0  # how long a child may take to end after SIGTERM, and its output after it, seconds
_LINE_BYTES_MAX = 4096  # a longer line is kept in pieces


class LastLines:
    """The last lines of a child's output stream, kept in memory and read at once, so that the child never waits."""

    def __init__(self, stream: IO[bytes] | None, *, most: int) -> None:
        assert stream is not None, "the child writes to a pipe"
        self._stream = stream
        self._lines: deque[bytes] = deque(maxlen=most)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._stream as stream:
            self._lines.extend(iter(lambda: stream.readline(_LINE_BYTES_MAX), b""))

    def so_far(self) -> list[str]:
        """Return the lines so far, each with its line feed."""
        return [line.decode(errors="replace") for line in self._lines.copy()]

    def all(self) -> list[str]:
        """Return all kept lines, once the child has ended."""
        self._thread.join(_END_S)
        return self.so_far()


def wait(child: subprocess.Popen[bytes], wait_s: float) -> None:
    """Wait for the child's end, at most so long."""
    try:
        child.wait(wait_s)
    except subprocess.TimeoutExpired:
        return


def end(child: subprocess.Popen[bytes]) -> None:
    """End the child if it still runs: SIGTERM, and SIGKILL some seconds later."""
    if child.poll() is None:
        child.terminate()
        wait(child, _END_S)
    if child.poll() is None:
        child.kill()
    child.wait()
