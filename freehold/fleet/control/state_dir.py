"""The state directory: the running controller, processes left by an earlier one, and the control socket.

One controller per directory, ensured by a file lock: the kernel releases it when its holder ends, for whatever reason,
so there are no stale locks. Serving does not need this directory; it holds no secrets, and of history only the ledger.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from filelock import FileLock, Timeout

from freehold.core.clock import SYSTEM_CLOCK, Clock
from freehold.core.errors import Permanent
from freehold.core.trust import OTHERS_MAY_WRITE, why_distrusted
from freehold.core.whole_file import replace_file
from freehold.fleet.processes import proc_files
from freehold.fleet.processes.proc_files import ProcessMark

SOCKET_PATH_BYTES = 100
"""Longest path used for a unix socket as it is. Source: sun_path has 108 bytes on Linux (unix(7)), 104 on macOS."""
_LOCK_POLL_S = 0.05
"""Between two checks of a lock or a process. Source: own choice, below what a person notices."""
_CLAIM_S = 1.0
"""Longest wait for a lock whose holder is not known. Source: own choice; both its causes pass in milliseconds."""
_T = TypeVar("_T")
_LOCK, _RUNNING, _RECORD, _SOCKET = "controller.lock", "controller.json", "processes.json", "control.sock"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """The controller that holds the directory."""

    pid: int = 0
    """0: it holds the lock but has not written its pid yet."""
    since_wall_s: float = 0.0
    config_path: str = ""
    mark: ProcessMark | None = None


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """A process of an earlier controller that still runs."""

    name: str
    """As it was recorded: `gateway`, or a replica's id."""
    mark: ProcessMark


def locked_directories() -> dict[Path, int]:
    """Return the directories that controllers of this user (of all users, for root) have locked, with their process ids.

    They are found by the lock file that each holds open, so also where somebody removed it. Without /proc there are none.
    """
    found = {}
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # the process has ended, or belongs to somebody else
            path = Path(descriptor.readlink().as_posix().removesuffix(" (deleted)"))
            if path.name == _LOCK:
                found[path.parent] = int(descriptor.parts[2])
    return found


class StateDir:
    """A directory for one controller at a time; made with mode 0700, one that is there already is left as it is.

    Raises Permanent when the directory cannot be made, belongs to another user, or is writable by others, for root too.
    """

    def __init__(self, path: Path, clock: Clock = SYSTEM_CLOCK) -> None:
        self.path = path
        self._clock = clock
        self._lock = FileLock(path / _LOCK, mode=0o600, fallback_to_soft=False, thread_local=False)

    def claim(self, *, config_path: str) -> Running | None:
        """Claim the directory; return None, or the controller that holds it already.

        The claim lasts until `release`, until this object is deleted, or until the process ends.
        """
        self._make()
        try:
            # Locked without a holder on file: the last one is ending, or a new one has not written its pid yet.
            self._lock.acquire(timeout=0 if self.holder() else _CLAIM_S, poll_interval=_LOCK_POLL_S)
        except Timeout:
            return self.holder() or Running()
        me = Running(
            pid=os.getpid(),
            since_wall_s=self._clock.wall_s(),
            config_path=config_path,
            mark=proc_files.mark(os.getpid()),
        )
        self._write(_RUNNING, msgspec.json.encode(me))
        return None

    def claim_again(self, *, config_path: str) -> Running | None:
        """Claim the directory again after it was removed, and the locked file with it; returns as `claim` does."""
        self._lock.release()
        other = self.claim(config_path=config_path)
        if other is None:
            with contextlib.suppress(OSError):
                self.logs.mkdir(mode=0o700, exist_ok=True)
        return other

    def whole(self) -> bool:
        """Return whether the directory still names this process and has the control socket."""
        running = self._read(_RUNNING, Running)
        return running is not None and running.pid == os.getpid() and (self.path / _SOCKET).exists()

    def release(self) -> None:
        """Release the directory; do nothing if this process does not hold it."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):
                (self.path / _RUNNING).unlink()
            self._lock.release()

    @property
    def logs(self) -> Path:
        """Return the folder of the logs."""
        return self.path / "logs"

    def holder(self) -> Running | None:
        """Return the running controller, or None; the file of one that has ended does not count."""
        running = self._read(_RUNNING, Running)
        return running if running and running.mark and self._is_ours(running.mark) else None

    def hidden_holder(self) -> Running | None:
        """Return the controller that has locked the directory though its files here were removed; None: there is none."""
        pid = locked_directories().get(self.path.resolve())
        found = None if pid is None else proc_files.mark(pid)
        return None if found is None else Running(pid=found.pid, mark=found)

    def wait_free(self, timeout_s: float) -> bool:
        """Wait until no controller holds the directory; return False if one still does after `timeout_s`."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        while self.holder() is not None and self._clock.monotonic_s() < deadline_s:
            threading.Event().wait(_LOCK_POLL_S)
        return self.holder() is None

    def record(self, name: str, pid: int | None) -> None:
        """Record that this process runs for the controller under that name; None: it has ended."""
        found = None if pid is None else proc_files.mark(pid)
        recorded = {other: mark for other, mark in self._recorded().items() if other != name}
        self._write(_RECORD, msgspec.json.encode({**recorded, name: found} if found else recorded))

    def leftovers(self) -> list[Leftover]:
        """Return the recorded processes that still run, for the controller that claimed the directory to end."""
        recorded = self._recorded().items()
        return [Leftover(name=name, mark=mark) for name, mark in recorded if self._is_ours(mark)]

    def end_leftovers(self, *, grace_s: float = 5.0) -> list[str]:
        """End recorded processes that still run, with the groups they lead: SIGTERM, `grace_s`, SIGKILL. Blocks.

        Returns their names. The caller must hold the directory, or know that no controller does.
        """
        found = self.leftovers()
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline_s = self._clock.monotonic_s() + grace_s
            for leftover in found:
                proc_files.end(leftover.mark, number)
            while self.leftovers() and self._clock.monotonic_s() < deadline_s:
                threading.Event().wait(_LOCK_POLL_S)
        return [leftover.name for leftover in found]

    def _is_ours(self, mark: ProcessMark) -> bool:
        """Return whether a process lives and is of the folder's owner: else a user could have root end any process by its record."""
        if not proc_files.is_alive(mark):
            return False
        return os.geteuid() != 0 or proc_files.user(mark.pid) == self.path.stat().st_uid

    def _recorded(self) -> dict[str, ProcessMark]:
        return self._read(_RECORD, dict[str, ProcessMark]) or {}

    @contextlib.contextmanager
    def socket_path(self) -> Iterator[str]:
        """Yield a path of the control socket that is short enough to bind or connect to, for as long as it is open.

        A long path is reached through /proc/self/fd (Linux).
        """
        plain = str(self.path / _SOCKET)
        if len(os.fsencode(plain)) <= SOCKET_PATH_BYTES:
            yield plain
            return
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{fd}/{_SOCKET}"
        finally:
            os.close(fd)

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            seen = self.path.stat()
        except OSError as exc:
            raise Permanent(f"cannot use the state directory {self.path}: {exc.strerror}") from exc
        if seen.st_uid != os.geteuid():
            raise Permanent(f"{self.path} belongs to another user", hint="choose another state directory")
        if seen.st_mode & OTHERS_MAY_WRITE:
            # Any user that can write here could replace the control socket.
            raise Permanent(
                f"{self.path} can be written by others",
                hint=f"chmod go-w {self.path}, or name a folder in it",
            )

    def _write(self, name: str, content: bytes) -> None:
        """Replace a file in one step, so that a reader never sees half of it."""
        try:
            replace_file(self.path / name, content, durable=False)
        except OSError as exc:
            raise Permanent(f"cannot write to the state directory {self.path}: {exc.strerror}") from exc

    def _read(self, name: str, kind: type[_T]) -> _T | None:
        """Return what a file holds; None: there is none, or a user other than the folder's owner and root could have written it."""
        with contextlib.suppress(OSError, msgspec.MsgspecError), (self.path / name).open("rb") as file:
            if not why_distrusted(os.fstat(file.fileno()), self.path.stat().st_uid):
                return msgspec.json.decode(file.read(), type=kind)
        return None
