"""The agent's process: readers, runner and snapshot of one node, beside the controller and not inside it.

`python -m freehold.health.agent.process` is started by the controller (`link`), which sends on standard input what to watch and
which engines there are, a JSON line each, and reads a snapshot a line on standard output. With `--settings FILE` it runs by
itself. What can hang is in children of its own; when it hangs all the same, the controller starts another. It writes the
snapshot and its metrics into the state folder from a thread, since that disk is one of those it watches. It acts on
nothing: restarting an engine is the fleet's business. End of standard input ends it.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path

import msgspec

from freehold.core.clock import monotonic_s, wall_s
from freehold.core.whole_file import replace_file
from freehold.health.agent.messages import (
    LINE_BYTES_MOST,
    ORDERS,
    AgentReport,
    Engines,
    HealthSettings,
    Order,
    Watch,
)
from freehold.health.agent.runner import Runner, RunnerSetup
from freehold.health.agent.sources import sources_for
from freehold.health.agent.state_files import StateFiles
from freehold.health.collectors.engines import EnginesReader
from freehold.health.collectors.kernel_files import text_of
from freehold.health.incidents.history import History
from freehold.health.incidents.tracker import IncidentTracker
from freehold.health.model.snapshot import FILE_NAME, METRICS_NAME, HealthSnapshot, encode
from freehold.health.model.view import View
from freehold.health.registry import all_probes
from freehold.telemetry import logs

UNSENT_BYTES_MOST = 1024 * 1024
"""More than this unread by the controller: snapshots are left out until it reads again. Source: our own bound."""
END_S = 5.0
"""How long the end may take before the process goes all the same: a reader's child may hang. Source: our own choice."""
_log = logs.get_logger("health.agent")


class NodeAgent:
    """One node's agent; `send` takes each report as a line, and must not wait."""

    def __init__(self, settings: HealthSettings, *, with_engines: bool) -> None:
        self._settings = settings
        self._engines = EnginesReader() if with_engines else None
        self._writing: asyncio.Task[None] | None = None
        self._complaint = ""
        self.send: asyncio.WriteTransport | None = None
        self._tracker = IncidentTracker(
            node=settings.name,
            started_s=wall_s(),
            boot=text_of(Path("/proc/sys/kernel/random/boot_id")),
            gpus=settings.gpu != "off",
        )
        self._files: StateFiles | None = None
        if settings.state_dir:
            self._files = StateFiles(Path(settings.state_dir), on_history=self._learned)
        self._shown: dict[str, tuple[str, ...]] = {}
        setup = RunnerSetup(
            node=settings.name,
            expected=settings.expected,
            admit=self._tracker.admit,
            on_view=self._seen,
            conclude=self._concluded,
            on_snapshot=self._send,
        )
        self.runner = Runner(sources_for(settings, self._engines), all_probes(), setup)

    async def open(self) -> None:
        """Take over the state of the agent before this one; takes some seconds at most."""
        if self._files is not None:
            found = await self._files.open()
            if found is not None:
                self._tracker.resume(*found)
            else:
                self._tracker.forget_the_past()

    async def close(self) -> None:
        """Wait until what is to be kept was written."""
        if self._files is not None:
            self._files.turn(self._tracker.take_lines())
            await self._files.close()

    def obey(self, order: Order) -> None:
        """Take over which engines there are."""
        if isinstance(order, Engines) and self._engines is not None:
            self._engines.targets = order.targets

    def _seen(self, view: View) -> None:
        names = self._tracker.gpus
        self._tracker.add(view)
        if (
            self._tracker.gpus != names
        ):  # lines that an operator has set healthy may be known as such only now
            self.runner.readmit()
        if self._tracker.is_due(view.monotonic_s):
            self.runner.report_soon()
        if self._files is not None:
            self._files.turn(self._tracker.take_lines())

    def _learned(self, history: History) -> None:
        if self._tracker.learn(history):
            self.runner.readmit()
            self.runner.report_soon()

    def _concluded(self, snapshot: HealthSnapshot, now_s: float) -> HealthSnapshot:
        concluded = self._tracker.conclude(snapshot, now_s)
        self.runner.meters.show_incidents(concluded.incidents, self._tracker.diagnoses_total)
        shown = {
            one.id: (one.state, one.hypothesis, one.component, one.action) for one in concluded.incidents
        }
        for one in concluded.incidents:
            if one.hypothesis and shown[one.id] != self._shown.get(one.id):
                _log.warning(
                    "incident",
                    id=one.id,
                    state=str(one.state),
                    hypothesis=one.hypothesis,
                    component=one.component,
                    action=str(one.action),
                    said=one.summary,
                )
        self._shown = dict(shown)
        return concluded

    def _send(self, snapshot: HealthSnapshot) -> None:
        metrics = self.runner.meters.text()
        if self.send is not None and self.send.get_write_buffer_size() < UNSENT_BYTES_MOST:
            report = AgentReport(snapshot=snapshot, metrics=metrics.decode(), monotonic_s=monotonic_s())
            self.send.write(msgspec.json.encode(report) + b"\n")
        if self._settings.state_dir and (self._writing is None or self._writing.done()):
            work = self._write(encode(snapshot), metrics)
            self._writing = asyncio.get_running_loop().create_task(work)

    async def _write(self, line: bytes, metrics: bytes) -> None:
        """Put both into the state folder; a disk that takes nothing is logged once, and one that hangs delays nothing."""
        folder = Path(self._settings.state_dir)
        try:
            await asyncio.to_thread(replace_file, folder / FILE_NAME, line + b"\n", durable=False)
            await asyncio.to_thread(replace_file, folder / METRICS_NAME, metrics, durable=False)
        except OSError as exc:
            if str(exc) != self._complaint:
                _log.warning("snapshot not written", why=str(exc))
            self._complaint = str(exc)
        else:
            self._complaint = ""


async def _lines() -> AsyncIterator[bytes]:
    """Yield the lines of standard input until its end."""
    reader = asyncio.StreamReader(limit=LINE_BYTES_MOST)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line


async def run_linked() -> None:
    """Run under a controller until it closes the line or SIGTERM comes."""
    loop = asyncio.get_running_loop()
    lines = _lines()
    first = ORDERS.decode(await anext(lines))
    assert isinstance(first, Watch), first
    handle = _log_to(first.settings)
    agent = NodeAgent(first.settings, with_engines=True)
    agent.runner.meters.watch_log(lambda: handle.dropped_total)
    agent.send, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout)

    async def obey() -> None:
        async for line in lines:
            agent.obey(ORDERS.decode(line))

    await _run(agent, asyncio.create_task(obey()))
    handle.close()


async def run_alone(settings: HealthSettings) -> None:
    """Run without a controller until SIGTERM: no engines, the snapshot in the state folder."""
    handle = _log_to(settings)
    agent = NodeAgent(settings, with_engines=False)
    agent.runner.meters.watch_log(lambda: handle.dropped_total)
    await _run(agent, asyncio.create_task(asyncio.Event().wait()))
    handle.close()


async def _run(agent: NodeAgent, until: "asyncio.Task[object]") -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, until.cancel)
    await agent.open()
    running = asyncio.create_task(agent.runner.run())
    # What was imported stays for ever: the collector need not look at it again, which costs time and touches memory.
    gc.collect()
    gc.freeze()
    await asyncio.wait({running, until}, return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    with contextlib.suppress(TimeoutError, asyncio.CancelledError):
        async with asyncio.timeout(END_S):
            try:
                await running
            finally:
                await agent.close()


def _log_to(settings: HealthSettings) -> logs.LogHandle:
    return logs.configure(Path(settings.log_path) if settings.log_path else sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Run the agent and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m freehold.health.agent.process", description="Freehold's agent on a node."
    )
    parser.add_argument("--settings", type=Path, help="JSON file: run alone, by these settings")
    args = parser.parse_args(argv)
    if args.settings is None:
        work = run_linked()
    else:
        try:
            settings = msgspec.json.decode(args.settings.read_bytes(), type=HealthSettings)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            parser.error(f"{args.settings}: {exc}")
        work = run_alone(settings)
    asyncio.run(_to_the_end(work))
    return 0


async def _to_the_end(work: Coroutine[object, object, None]) -> None:
    """End the process when the work has ended: the loop's own end waits for threads, and one may wait for a disk."""
    await work
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
