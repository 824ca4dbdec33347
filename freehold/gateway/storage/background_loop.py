"""Work that may wait for a disk, repeated in a background thread, so that no request waits for it.

A thread that hangs delays nothing, the end of the process included; `silent_s` shows that it hangs. The work must catch its own
errors: an exception ends the thread, which is then just as silent.
"""

import threading
from collections.abc import Callable

from freehold.core.clock import monotonic_s


class BackgroundLoop:
    """A daemon thread that does `work` every `period_s` seconds until `stop`."""

    def __init__(self, name: str, work: Callable[[], object], *, period_s: float) -> None:
        self._work = work
        self._period_s = period_s
        self._stopping = threading.Event()
        self._done_s = monotonic_s()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<BackgroundLoop {self._thread.name} every {self._period_s:g} s>"

    @property
    def silent_s(self) -> float:
        """Return the seconds since the work was last done to its end."""
        return monotonic_s() - self._done_s

    def stop(self, *, last_s: float = 0.0) -> None:
        """Let it do its work once more and end; wait for that at most `last_s` seconds."""
        self._stopping.set()
        self._thread.join(last_s)

    def _run(self) -> None:
        going_on = True
        while going_on:
            going_on = not self._stopping.wait(self._period_s)
            self._work()
            self._done_s = monotonic_s()
