"""The keys file watched for changes, so that a key is good, or no longer, without a restart.

It is looked at by its times and inode four times a second, in a thread. A file that is broken, gone or not to be
trusted changes nothing: the last good keys stay, and the reason is reported. Nothing is reported twice.
"""

from collections.abc import Callable

from freehold.core.clock import monotonic_s
from freehold.core.errors import Permanent
from freehold.gateway.callers.keys import KeysFile
from freehold.gateway.storage.background_loop import BackgroundLoop
from freehold.gateway.storage.key_store import KeyStore
from freehold.gateway.storage.trusted_file import Mark

LOOK_EVERY_S = 0.25
"""Source: own choice; with the loop's own work a change holds well within the promised second."""
_UNSETTLED_S = 1.0
"""For so long a changed file is read again at each look: a second change may leave its times as they are, since file
systems count in steps of some milliseconds. Source: git knows the same of its index ("racy git")."""

OnChange = Callable[[KeysFile | None, str], object]
"""Is called with the keys, or None and why there are none to be had."""


class KeyWatch:
    """Looks at a keys file; `on_change` is called from the thread that looks."""

    def __init__(self, store: KeyStore, on_change: OnChange) -> None:
        self._store = store
        self._on_change = on_change
        self._seen: Mark | None = None
        self._again_until_s: float | None = 0.0
        self._last: tuple[KeysFile | None, str] | None = None
        self._beside: BackgroundLoop | None = None

    def __repr__(self) -> str:
        return f"<KeyWatch {self._store!r}>"

    @property
    def started(self) -> bool:
        """Return whether the thread looks."""
        return self._beside is not None

    @property
    def silent_s(self) -> float:
        """Return the seconds since the file was last looked at; a disk that hangs makes this grow."""
        return self._beside.silent_s if self._beside is not None else 0.0

    def start(self) -> None:
        """Look now, and from now on in a background thread."""
        self.look()
        self._beside = BackgroundLoop("keys", self.look, period_s=LOOK_EVERY_S)

    def stop(self) -> None:
        """Look no more."""
        if self._beside is not None:
            self._beside.stop()

    def look(self) -> None:
        """Read the file if it has changed, and report what is new."""
        mark, now_s = self._store.mark(), monotonic_s()
        if mark != self._seen:
            self._seen, self._again_until_s = mark, now_s + _UNSETTLED_S
        elif self._again_until_s is None:
            return
        elif now_s > self._again_until_s:
            self._again_until_s = None  # this look is the last one at this version
        news = self._read(mark)
        if news != self._last:
            self._last = news
            self._on_change(*news)

    def _read(self, mark: Mark | None) -> tuple[KeysFile | None, str]:
        if mark is None:
            return None, "is not there, or cannot be reached"
        try:
            return self._store.read(), ""
        except Permanent as exc:
            return None, exc.message
