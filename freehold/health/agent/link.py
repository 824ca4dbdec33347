"""The controller's end of an agent: starts the process, sends it the engines, receives its snapshots.

An agent that dies is started again, with a pause that doubles; one that sends nothing is killed first. A process that does not
die of that (it waits in the kernel) is left behind and one more is started: then no further one, so that stuck processes
do not pile up. Its metrics are checked, passed on to the page that shows them, and withdrawn when the agent ends. Nothing here judges.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from freehold.core.clock import monotonic_s
from freehold.core.events import AgentMetrics
from freehold.health.agent.messages import (
    LINE_BYTES_MOST,
    AgentReport,
    Engines,
    HealthSettings,
    Order,
    Watch,
    read_report,
)
from freehold.health.agent.metrics import NAMESPACE
from freehold.health.model.snapshot import HealthSnapshot
from freehold.health.model.targets import EngineTarget
from freehold.telemetry.appended import why_not
from freehold.telemetry.declared import DECLARED
from freehold.telemetry.logs import get_logger

SILENT_S = 60.0
"""An agent that sends nothing for this long (it reports every 10 s) hangs. Source: our own choice, six of its periods."""
AGAIN_S_MIN, AGAIN_S_MAX = 1.0, 60.0
"""Between its end and its next start, doubling. Source: our own choice: nothing is served by it."""
STEADY_S = 300.0
"""An agent that ran this long starts the pause anew. Source: our own choice."""
END_S = 7.0
"""How long its end may take before it is killed: its own limit (`agent.END_S`) and some."""
KILLED_S = 2.0
"""How long a killed one may take: only a wait in the kernel lasts longer. Source: our own choice."""
_OVERSLEPT_S = 3.0  # A look each second that comes this late was held up here, not there.
_TAKEN = frozenset(row.name for row in DECLARED)
STUCK_MOST = 2
"""Agents that do not die and are left behind, before no other is started. Source: docs/decisions/0011-health.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentListeners:
    """Callbacks of an agent; none of them may wait."""

    on_snapshot: Callable[[HealthSnapshot], object] = bool
    """Each snapshot of the node."""
    on_metrics: Callable[[AgentMetrics], object] = bool
    """Its metrics, with each snapshot, and once more without a text when it ends."""
    on_start: Callable[[int], object] = bool
    """The pid of each that is started."""


class AgentLink:
    """One agent as its controller sees it."""

    def __init__(
        self,
        settings: HealthSettings,
        *,
        stderr_path: Path,
        listeners: AgentListeners,
        silent_s: float = SILENT_S,
    ) -> None:
        self._settings = settings
        self._stderr_path = stderr_path
        self._listeners = listeners
        self._metrics = AgentMetrics()
        self._refused = ""
        self._silent_s = silent_s
        self._targets: tuple[EngineTarget, ...] = ()
        self._process: asyncio.subprocess.Process | None = None
        self._stuck: list[asyncio.subprocess.Process] = []
        self._stopping = asyncio.Event()
        self._received_s = 0.0
        self._log = get_logger("health.link")
        self.snapshot: HealthSnapshot | None = None
        """The agent's last snapshot."""
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Return the agent's process id; None: it does not run."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def send_targets(self, targets: Sequence[EngineTarget]) -> None:
        """Send the agent the engines, if they have changed."""
        if tuple(targets) != self._targets:
            self._targets = tuple(targets)
            self._send(Engines(self._targets))

    async def run(self) -> None:
        """Keep an agent running until `stop` was called and it has ended."""
        again_s = AGAIN_S_MIN
        self._listeners.on_metrics(self._metrics)
        while not self._stopping.is_set():
            began_s = monotonic_s()
            try:
                await self._run_once()
            except OSError as exc:
                self._log.error("agent_not_started", why=str(exc))
            if self._stopping.is_set():
                return
            self.restarts += 1
            again_s = AGAIN_S_MIN if monotonic_s() - began_s > STEADY_S else min(again_s * 2, AGAIN_S_MAX)
            self._log.error("agent_ended", again_s=again_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again_s):
                    await self._stopping.wait()

    def stop(self) -> None:
        """Let the agent end; `run` returns when it has, or has been given up."""
        self._stopping.set()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def _run_once(self) -> None:
        self._stuck = [process for process in self._stuck if process.returncode is None]
        if len(self._stuck) >= STUCK_MOST:
            self._log.error("agents_stuck", pids=[process.pid for process in self._stuck])
            return
        await self._start()
        watch = asyncio.create_task(self._watch())
        listening = asyncio.create_task(self._listen())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({watch, listening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._silence()
            await self._end()
            for task in (watch, listening, stopping):
                task.cancel()

    async def _start(self) -> None:
        with self._stderr() as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "freehold.health.agent.process"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                limit=LINE_BYTES_MOST,
                start_new_session=True,  # Ctrl-C is for the controller, which then ends it in order
                # One arena: memory that a thread of the pool once used is not kept beside the main one.
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "MALLOC_ARENA_MAX": "1"},
            )
        self._received_s = monotonic_s()
        self._listeners.on_start(self._process.pid)
        self._send(Watch(self._settings))
        self._send(Engines(self._targets))

    def _stderr(self) -> BinaryIO:
        """Open the file for the little that it says outside its log, begun anew at each start; or nothing."""
        try:
            return self._stderr_path.open("wb")
        except OSError:
            return Path(os.devnull).open("wb")

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # a line without end: it is not our agent that speaks
            while line := await self._process.stdout.readline():
                self._received_s = monotonic_s()
                report = read_report(line)
                if report is not None:
                    self.snapshot = report.snapshot
                    self._pass_on(report)
                    self._listeners.on_snapshot(report.snapshot)

    def _pass_on(self, report: AgentReport) -> None:
        """Pass its metrics on; a text that could spoil the page is logged once and left out."""
        why = why_not(report.metrics, prefix=f"{NAMESPACE}_", taken=_TAKEN)
        if why and why != self._refused:
            self._log.error("agent_metrics_refused", why=why)
        self._refused = why
        self._metrics = AgentMetrics(text="" if why else report.metrics, told_monotonic_s=report.monotonic_s)
        self._listeners.on_metrics(self._metrics)

    def _silence(self) -> None:
        """Withdraw its metrics: no agent runs now."""
        self._metrics = msgspec.structs.replace(self._metrics, text="")
        self._listeners.on_metrics(self._metrics)

    async def _watch(self) -> None:
        """Kill an agent that lives and says nothing."""
        looked_s = monotonic_s()
        while monotonic_s() - self._received_s < self._silent_s:
            if monotonic_s() - looked_s > _OVERSLEPT_S:
                # It was this process that stood still: what the agent said meanwhile is still unread.
                self._received_s = monotonic_s()
            looked_s = monotonic_s()
            await asyncio.sleep(min(1.0, self._silent_s / 4))
        self._log.error("agent_silent", silent_s=self._silent_s, pid=self.pid)
        self._signal(signal.SIGKILL)

    async def _end(self) -> None:
        """End the process in order, else kill it; one that does not die of that is left behind."""
        process = self._process
        assert process is not None
        if process.stdin is not None:
            process.stdin.close()
        for grace_s in (END_S, KILLED_S):
            try:
                async with asyncio.timeout(grace_s):
                    await process.wait()
            except TimeoutError:
                self._signal(signal.SIGKILL)
            else:
                return
        self._stuck.append(process)

    def _send(self, order: Order) -> None:
        process = self._process
        if process is not None and process.returncode is None and process.stdin is not None:
            with contextlib.suppress(OSError, RuntimeError):  # it has just ended
                process.stdin.write(msgspec.json.encode(order) + b"\n")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
