"""The agent's files: the last snapshot of the agent before it, and the history that both it and operators write.

All reading and writing is done in threads, one at a time, since the disk may be one that hangs or is full: then lines wait,
within a bound, and nothing waits for them. The format of the files is `history`'s and `snapshot`'s; nothing here judges.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from freehold.core.clock import wall_s
from freehold.health.agent.history_file import HistoryFile
from freehold.health.evidence.kernel_signs import PastFault
from freehold.health.incidents.history import FILE_NAME, History
from freehold.health.model.snapshot import FILE_NAME as SNAPSHOT_NAME
from freehold.health.model.snapshot import HealthSnapshot, decode
from freehold.telemetry.logs import get_logger

OPEN_S = 5.0
"""How long the start waits for the files. Source: our own choice: a sound disk takes milliseconds, and looking must not wait for one
that is not."""
WAITING_MOST = 500
"""Lines that wait for the disk, the newest. Source: our own bound: some hundred incidents."""
_log = get_logger("health.state_files")


class StateFiles:
    """The files of one state folder; methods are for the event loop's own thread."""

    def __init__(self, folder: Path, *, on_history: Callable[[History], object]) -> None:
        """`on_history` gets the history whenever its file has changed."""
        self._folder = folder
        self._keeper = HistoryFile(folder / FILE_NAME)
        self._on_history = on_history
        self._stamp: tuple[int, int, int] | None = None
        self._waiting: list[PastFault] = []
        self._working: asyncio.Task[None] | None = None
        self._complaint = ""

    async def open(self) -> tuple[HealthSnapshot | None, History] | None:
        """Return the last snapshot of the agent before and the history; None: the disk did not give them in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OPEN_S):
                return await asyncio.to_thread(self._read)
        _log.warning("history not read", why=f"the disk did not answer within {OPEN_S:g} s")
        return None

    def turn(self, lines: Sequence[PastFault]) -> None:
        """Let lines be written, and look whether the file has changed; returns at once."""
        self._waiting = [*self._waiting, *lines][-WAITING_MOST:]
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._working is not None:
            await asyncio.wait({self._working})

    async def _work(self) -> None:
        lines, self._waiting = self._waiting, []
        try:
            if lines:
                await asyncio.to_thread(self._keeper.add, lines, now_s=wall_s())
                lines = []
            history = await asyncio.to_thread(self._changed)
        except OSError as exc:
            self._complain(str(exc))
        else:
            self._complaint = ""
            if history is not None:
                self._on_history(history)
        finally:
            self._waiting = [*lines, *self._waiting][-WAITING_MOST:]

    def _read(self) -> tuple[HealthSnapshot | None, History]:
        try:
            history = self._changed() or History()
        except OSError as exc:
            self._complain(str(exc))
            history = History()
        return read_snapshot(self._folder), history

    def _changed(self) -> History | None:
        stamp = self._keeper.stamp()
        if stamp == self._stamp:
            return None
        history = self._keeper.load()
        self._stamp = stamp
        return history

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            _log.warning("history not kept", why=why)
        self._complaint = why


def read_snapshot(folder: Path) -> HealthSnapshot | None:
    """Return the snapshot in a state folder; None: there is none that can be read."""
    with contextlib.suppress(OSError):
        return decode((folder / SNAPSHOT_NAME).read_bytes())
    return None
