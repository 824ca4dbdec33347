"""The parent's end of a gateway: starts the process, keeps it up to date, restarts it when it dies.

The parent opens the listening socket and keeps it, so that a gateway that is started again loses no waiting
connection. Only the newest snapshot and the agent's newest report matter: a gateway that reads slowly skips older ones.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from freehold.core.clock import monotonic_s
from freehold.core.errors import FreeholdError
from freehold.core.events import AgentMetrics, GatewayStats, Snapshot
from freehold.gateway.process.messages import (
    LINE_BYTES_MAX,
    AgentMessage,
    Down,
    DrainedMessage,
    DrainMessage,
    EndpointsMessage,
    SettingsMessage,
    StatsMessage,
    line,
    ups,
)
from freehold.gateway.settings import Settings
from freehold.telemetry.logs import get_logger

_UNSENT_BYTES_MAX = (
    1024 * 1024
)  # More than this unread: wait until it reads again, then send the newest snapshot only.
_AGAIN_S_MIN, _AGAIN_S_MAX = 0.1, 10.0  # A restart costs about 0.2 s, so the first is at once; then doubling.
_STDERR_BYTES_MAX = 1024 * 1024  # Tracebacks before logging is set up; more is of no use to anybody.
_OVERSLEPT_S = 3.0  # A look each second that comes this late was held up here, not there.
_LAST_WORDS_S = 1.0  # Long enough for error events to clients that read, when the engines are killed.
_STEADY_S = 60.0  # After this long, the restart back-off begins at its minimum again.
SILENT_S = 15.0
"""A gateway that reports nothing for this long (it reports each second) is stalled and is replaced, seconds.
Source: our own choice: many times the longest pause that a loaded machine of two cores gave it."""


class WorkerProcess:
    """One gateway process, as its parent sees it.

    `on_start` gets the pid of each one that is started.
    """

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        *,
        stderr_path: Path,
        on_start: Callable[[int], object] = bool,
        silent_s: float = SILENT_S,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._stderr_path = stderr_path
        self._on_start = on_start
        self._silent_s = silent_s
        self._newest: dict[type[Down], Down] = {}
        """What a gateway must know that is started again: the last message of each kind."""
        self._unsent: dict[type[Down], Down] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._heard_s = 0.0
        self._stopping = False
        self._stop_asked = asyncio.Event()
        self._log = get_logger("gateway.link")
        self.stats: GatewayStats | None = None
        self.restarts = 0
        self.on_end: Callable[[], object] = bool
        """Called when a process has ended, before another one is started."""
        self.finished_all: bool | None = None
        """After a drain: whether every stream was finished within the grace; None: not known."""

    def __repr__(self) -> str:
        return f"<WorkerProcess pid {self.pid}, {self.restarts} restarts{', stopping' * self._stopping}>"

    @property
    def pid(self) -> int | None:
        """Return the gateway's process id; None: it does not run."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else None

    def send(self, news: Snapshot | AgentMetrics) -> None:
        """Give the gateway a newer snapshot, or what the node's agent counts, now or as soon as it can take it."""
        message = EndpointsMessage(news) if isinstance(news, Snapshot) else AgentMessage(news)
        self._newest[type(message)] = self._unsent[type(message)] = message
        self._flush()

    def retune(self, settings: Settings) -> None:
        """Give the gateway other settings, also the one that follows should it have to be started again."""
        self._settings = settings
        self._say(SettingsMessage(settings))

    async def run(self) -> None:
        """Keep a gateway running until `stop` was called and it has ended."""
        again_s = _AGAIN_S_MIN
        while True:
            started_s = monotonic_s()
            try:
                await self._run_once()
            except (OSError, FreeholdError) as exc:
                # A full disk or no process to be had: it may pass, and the engines must not go down with it.
                self._log.error("gateway_not_started", why=str(exc))
            self.on_end()
            if self._stopping:
                return
            self.restarts += 1
            again_s = (
                _AGAIN_S_MIN if monotonic_s() - started_s > _STEADY_S else min(again_s * 2, _AGAIN_S_MAX)
            )
            self._log.error(
                "gateway_ended", code=self._process.returncode if self._process else None, again_s=again_s
            )
            if await self._stops_within(again_s):
                return

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._stop_asked.wait()
        except TimeoutError:
            return False

    def stop(self) -> None:
        """Let the gateway drain and end; `run` returns when it has. New connections are refused from now on."""
        self._stopping = True
        self._stop_asked.set()
        self._listener.close()
        self._say(DrainMessage())

    def kill(self) -> None:
        """End the gateway in a moment, after it has reported to its clients that answers are not complete."""
        self.stop()
        asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._signal, signal.SIGKILL)

    async def _run_once(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                await self._spawn(theirs)
            except BaseException:
                ours.close()
                raise
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES_MAX)
        self._say(SettingsMessage(self._settings))
        self._unsent = dict(self._newest)
        self._flush()
        watch = asyncio.create_task(self._watch())
        try:
            await self._listen(reader)
            await self._wait_end()
        finally:
            watch.cancel()
            self._writer.close()
            self._writer = None

    async def _spawn(self, link: socket.socket) -> None:
        with self._stderr() as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "freehold.gateway.run"),
                *("--listen-fd", str(self._listener.fileno()), "--link-fd", str(link.fileno())),
                pass_fds=(self._listener.fileno(), link.fileno(), *self._shared_fds()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                # Its own session: Ctrl-C is for the parent, which then drains it in order.
                start_new_session=True,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
        self._heard_s = monotonic_s()
        self._on_start(self._process.pid)

    def _shared_fds(self) -> tuple[int, ...]:
        """Return what this worker has in common with others, if there are any."""
        settings = self._settings
        return () if settings.board_fd < 0 else (settings.board_fd, *settings.wake_fds)

    def _stderr(self) -> BinaryIO:
        """Open the file for what a gateway writes outside its log; it is truncated beyond a bound."""
        try:
            truncate = self._stderr_path.exists() and self._stderr_path.stat().st_size > _STDERR_BYTES_MAX
            return self._stderr_path.open("wb" if truncate else "ab")
        except OSError:
            return Path(os.devnull).open("ab")

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        async for message in ups(reader):
            self._heard_s = monotonic_s()
            if isinstance(message, StatsMessage):
                self.stats = message.stats
            elif isinstance(message, DrainedMessage):
                self.finished_all = message.whole
            self._flush()

    async def _watch(self) -> None:
        """Replace a gateway that lives but no longer turns its loop; a drain is given its grace on top."""
        looked_s = monotonic_s()
        while True:
            if monotonic_s() - looked_s > _OVERSLEPT_S:
                # It was this process that stood still: what the gateway reported meanwhile is still unread.
                self._heard_s = monotonic_s()
            looked_s = monotonic_s()
            limit_s = self._silent_s + (self._settings.drain_grace_s if self._stopping else 0.0)
            silent_s = monotonic_s() - self._heard_s
            if silent_s > limit_s:
                self._log.error("gateway_stalled", silent_s=round(silent_s, 1))
                self._signal(signal.SIGKILL)
                return
            await asyncio.sleep(1.0)

    async def _wait_end(self) -> None:
        """Wait for the process whose line has closed; one that lingers is killed."""
        assert self._process is not None
        try:
            async with asyncio.timeout(2.0):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def _flush(self) -> None:
        while self._unsent and self._writer is not None:
            if self._writer.transport.get_write_buffer_size() >= _UNSENT_BYTES_MAX:
                return
            self._say(self._unsent.pop(next(iter(self._unsent))))

    def _say(self, message: Down) -> None:
        if self._writer is not None:
            self._writer.write(line(message))

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
