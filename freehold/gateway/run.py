"""The gateway process: takes a listening socket and snapshots from its parent, serves, drains, ends.

It keeps serving with its last snapshot when its parent hangs or dies, as long as some endpoint does not die with that
parent; otherwise it drains and ends, so that nothing is left behind. This is the only file that knows uvloop, and one
of the few guards: an unexpected exception is logged and counted here, and the process keeps serving.
"""

import argparse
import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from freehold.gateway.process.listener import BACKLOG, url_of
from freehold.gateway.process.messages import (
    LINE_BYTES_MAX,
    AgentMessage,
    DrainedMessage,
    DrainMessage,
    EndpointsMessage,
    SettingsMessage,
    StatsMessage,
    downs,
    line,
)
from freehold.gateway.server import descriptors
from freehold.gateway.server.accept import Acceptor
from freehold.gateway.server.client_connection import ClientConnection
from freehold.gateway.server.gateway import Gateway
from freehold.gateway.server.worker_group import WorkerGroup
from freehold.gateway.settings import Settings
from freehold.telemetry import logs

try:
    from uvloop import new_event_loop
except ImportError:  # no uvloop on this platform: plain asyncio does the same, about a tenth slower
    new_event_loop = asyncio.new_event_loop  # type: ignore[assignment]

_STATS_EVERY_S = 1.0  # Often enough for `freehold status`, nothing to the loop.
# The cyclic collector's young threshold: requests free themselves by reference counting; what cycles remain are few.
_GC_YOUNG = 50_000


class GatewayProcess:
    """The gateway's process: its server, the link to its parent, and how it ends."""

    def __init__(self, gateway: Gateway, listener: socket.socket) -> None:
        self.gateway = gateway
        self.listener = listener
        self.stopping = asyncio.Event()
        gateway.listening = url_of(listener, tls=gateway.context.settings.tls is not None)

    async def serve(self) -> bool:
        """Serve until asked to stop, drain, and return whether every stream was finished."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_bug)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        gateway = self.gateway
        server: asyncio.Server | Acceptor
        tls = gateway.context.settings.tls
        if gateway.group is None and tls is None:
            server = await loop.create_server(
                lambda: ClientConnection(gateway), sock=self.listener, backlog=BACKLOG
            )
        else:
            server = Acceptor(
                lambda: ClientConnection(gateway), gateway, group=gateway.group, listener=self.listener
            )
            if tls is not None:
                server.secure(tls)
        self._allow_connections()
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_YOUNG)
        self.gateway.context.log.info("listening", address=self.gateway.listening)
        await self.stopping.wait()
        self.gateway.context.log.info("draining", in_flight=self.gateway.in_flight)
        server.close()
        whole = await self.gateway.drain()
        self.gateway.context.access_log.close()
        return whole

    def _allow_connections(self) -> None:
        """Take as many clients as descriptors allow, and log a warning where that is fewer than it should be."""
        limit = descriptors.raise_limit()
        self.gateway.connections_max = clients = descriptors.connections_for(limit)
        if clients < descriptors.CONNECTIONS_MAX:
            doing = (
                f"clients beyond that many are refused; a limit (ulimit -n) of {descriptors.WANTED} is enough"
            )
            self.gateway.context.log.warning(
                "few_descriptors", limit=limit, connections_max=clients, doing=doing
            )

    async def obey(self, reader: asyncio.StreamReader) -> None:
        """Follow the parent's messages; when the parent is gone, keep serving if some endpoint outlives it."""
        async for message in downs(reader):
            if isinstance(message, EndpointsMessage):
                self.gateway.apply(message.snapshot)
            elif isinstance(message, AgentMessage):
                self.gateway.agent.take(message.metrics)
            elif isinstance(message, SettingsMessage):
                self.gateway.retune(message.settings)
            elif isinstance(message, DrainMessage):
                self.stopping.set()
        self.gateway.has_parent = False
        self.gateway.agent.lose()
        if self.stopping.is_set():
            return
        if self.gateway.directory.outlives_its_parent():
            self.gateway.context.log.error("control_plane_gone", doing="serving on with the last snapshot")
        else:
            self.gateway.context.log.error("control_plane_gone", doing="ending: every endpoint went with it")
            self.stopping.set()

    async def report(self, writer: asyncio.StreamWriter) -> None:
        """Report statistics to the parent each second."""
        while self.gateway.has_parent:
            writer.write(line(StatsMessage(self.gateway.statistics())))
            await asyncio.sleep(_STATS_EVERY_S)

    def _on_bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Count and log an exception that reached the loop: one connection is lost, the process serves on."""
        del loop
        self.gateway.context.metrics.bug()
        exc = context.get("exception")
        self.gateway.context.log.error("bug", message=context.get("message"), exc_info=exc)


async def run_child(listener: socket.socket, link: socket.socket) -> None:
    """Run under a parent that talks over `link`."""
    reader, writer = await asyncio.open_connection(sock=link, limit=LINE_BYTES_MAX)
    start = await anext(downs(reader))
    assert isinstance(start, SettingsMessage)
    child = GatewayProcess(new_gateway(start.settings), listener)
    tasks = [_guarded(child, child.obey(reader)), _guarded(child, child.report(writer))]
    whole = await child.serve()
    for task in tasks:
        task.cancel()
    if child.gateway.has_parent:
        writer.write(line(StatsMessage(child.gateway.statistics())) + line(DrainedMessage(whole)))
        await writer.drain()


def new_gateway(settings: Settings) -> Gateway:
    """Return the gateway of this process, with its logs going where the settings say."""
    target = Path(settings.log_path) if settings.log_path else sys.stderr
    handle = logs.configure(target, level=settings.log_level)
    group = WorkerGroup(settings) if settings.workers > 1 else None
    return Gateway(settings, log_dropped=lambda: handle.dropped_total, group=group)


def _guarded(child: GatewayProcess, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    async def guard() -> None:
        try:
            await work
        except Exception:
            child.gateway.context.metrics.bug()
            child.gateway.context.log.exception("bug", message="a task of the gateway failed")

    return asyncio.get_running_loop().create_task(guard())


def main() -> int:
    """Run the gateway process and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m freehold.gateway.run", description="Freehold's gateway process."
    )
    parser.add_argument("--listen-fd", type=int, required=True, help="descriptor of the listening socket")
    parser.add_argument(
        "--link-fd", type=int, required=True, help="descriptor of the socket pair to the parent"
    )
    args = parser.parse_args()
    work = run_child(socket.socket(fileno=args.listen_fd), socket.socket(fileno=args.link_fd))
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
