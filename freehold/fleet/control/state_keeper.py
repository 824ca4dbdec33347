"""A thread that maintains a claimed state folder: it records processes, and checks that the folder is there.

A disk may be slow or failing: serving continues meanwhile. Of one name only the newest record is written,
names in the order in which they last changed, and the rest is written at the end. A folder that
was removed is made again, so that `freehold down` finds the stack; the content of its logs is lost. It ends
nothing and restarts nothing: it reports what has happened.
"""

import threading
from collections.abc import Callable

from freehold.core.errors import Permanent
from freehold.fleet.control.state_dir import Running, StateDir
from freehold.telemetry.logs import get_logger

_LOOK_S = (
    2.0  # Between two checks of the folder. Our own choice: a person does not type `down` sooner after `rm`.
)
_FLUSH_S = 5.0  # Longest wait for a disk at the end; the next `up` finds by itself which processes still run.


class StateKeeper:
    """Keeps the folder of a controller that has claimed it, from `start` to `close`.

    `on_restored` is called after the folder was made again, `on_taken` once with the controller that holds it instead; both in the
    thread.
    """

    def __init__(
        self,
        state: StateDir,
        *,
        config_path: str,
        on_restored: Callable[[], object],
        on_taken: Callable[[Running], object],
    ) -> None:
        self._state = state
        self._config_path = config_path
        self._on_restored, self._on_taken = on_restored, on_taken
        self._log = get_logger("controller")
        self._changed = threading.Condition()
        self._due: dict[str, int | None] = {}
        self._living: dict[str, int] = {}
        self._closing = self._taken = False
        self._complaint = ""
        # A daemon: a disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="state-keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def record(self, name: str, pid: int | None) -> None:
        """Record that this process runs under that name, or that it has ended (None); returns at once."""
        with self._changed:
            self._due.pop(name, None)
            self._due[name] = pid
            self._changed.notify()

    def close(self) -> bool:
        """Write pending records and end; return False when the disk took longer than a few seconds. Blocks."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_FLUSH_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._due and not self._closing:
                    self._changed.wait(_LOOK_S)
                due, self._due = self._due, {}
                closing = self._closing
            self._write(due)
            if closing and not self._due:
                return
            if not closing:
                self._look()

    def _write(self, due: dict[str, int | None]) -> None:
        for name, pid in due.items():
            self._living.pop(name, None)
            if pid is not None:
                self._living[name] = pid
            if not self._taken:
                self._try(lambda name=name, pid=pid: self._state.record(name, pid))  # type: ignore[misc]

    def _look(self) -> None:
        if not self._taken and not self._state.whole():
            self._try(self._restore)

    def _restore(self) -> None:
        other = self._state.claim_again(config_path=self._config_path)
        if other is not None:
            self._taken = True
            self._log.error("state_folder_taken", path=str(self._state.path), pid=other.pid)
            self._on_taken(other)
            return
        for name, pid in self._living.items():
            self._state.record(name, pid)
        self._log.warning("state_folder_restored", path=str(self._state.path))
        self._on_restored()

    def _try(self, act: Callable[[], object]) -> None:
        """Call `act`; a failing disk is logged once and does not end the stack."""
        try:
            act()
        except Permanent as exc:
            if str(exc) != self._complaint:
                self._log.warning("not_recorded", why=str(exc))
            self._complaint = str(exc)
        else:
            self._complaint = ""
