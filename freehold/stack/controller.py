"""The controller: wires the fleet, the gateway link and the control socket of one stack, and ends them in order.

The end follows the path of a request backwards: the gateway stops accepting and finishes its streams, then the engines
are stopped. A second signal skips the wait. Nothing is decided here: `fleet/decisions` decides.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec

from freehold.core.clock import wall_s
from freehold.core.errors import Permanent
from freehold.core.events import ReplicaStatus, Snapshot
from freehold.engines import all_engines
from freehold.fleet.control.peer import Peer
from freehold.fleet.control.server import ControlServer, until_finished
from freehold.fleet.control.state_dir import Running, StateDir
from freehold.fleet.control.state_keeper import StateKeeper
from freehold.fleet.processes.start_progress import StartWatch
from freehold.fleet.run import Fleet
from freehold.gateway.process.listener import url_of
from freehold.gateway.process.worker_set import WorkerSet
from freehold.ledger.drainer import Drainer
from freehold.ledger.journal import JOURNAL_NAME
from freehold.ledger.records.reconcile import EngineReading
from freehold.ledger.spool import remove_folder
from freehold.stack.health_bridge import NAME as AGENT
from freehold.stack.health_bridge import NodeWatch, mark_healthy
from freehold.stack.reload import Levers, Reloader
from freehold.stack.resolve import Resolved
from freehold.stack.status import GatewayStatus, StackStatus, with_ejected
from freehold.stack.users import roles_of
from freehold.telemetry.logs import get_logger

_LAST_DRAIN_S = 5.0
"""How long the end of a stack waits for the ledger's disk. Source: our own choice: one round takes milliseconds, and the next
start drains what is left in the spool."""
OnStatus = Callable[[StackStatus], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The state folder and the listener of a stack, opened before it runs."""

    state: StateDir
    """Claimed by this process."""
    listener: socket.socket
    url: str
    """Where clients reach the listener; kept, since a drain closes the listener while the status still shows it."""

    @classmethod
    def of(cls, state: StateDir, listener: socket.socket, *, tls: bool) -> Self:
        """Return both with the listener's address."""
        url = url_of(listener, tls=tls)
        return cls(state=state, listener=listener, url=url)


def _is_daemon() -> bool:
    """Return whether this process leads a session without a terminal, so that SIGHUP does not mean a closed terminal."""
    if os.getsid(0) != os.getpid():
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return True
    return False


def _readings(replicas: Iterable[ReplicaStatus]) -> Iterator[EngineReading]:
    """Yield the engines' own counters of generated tokens, as last read."""
    now_s = wall_s()
    for replica in replicas:
        if replica.tokens_total is not None and replica.started_wall_s is not None:
            yield EngineReading(
                replica=replica.id,
                started_us=int(replica.started_wall_s * 1e6),
                day=int(now_s // 86400),
                tokens_total=int(replica.tokens_total),
                read_us=int(now_s * 1e6),
            )


class Controller:
    """One running stack."""

    def __init__(
        self,
        resolved: Resolved,
        opened: Opened,
        *,
        on_status: OnStatus,
        on_hurry: Callable[[], object],
    ) -> None:
        self._opened = opened
        self._on_status = on_status
        self._on_hurry = on_hurry
        self._log = get_logger("controller")
        self._started_wall_s = wall_s()
        self._stopping = asyncio.Event()
        self._signals = 0
        self._recorded_pids: dict[str, int | None] = {}
        state, blueprint = opened.state, resolved.blueprint
        self._config_name = resolved.config.name
        self._spool = Path(blueprint.gateway.spool_path)
        self._control = ControlServer(state, self._answer)
        self._control.allow(roles_of(resolved.config.spec))
        self._state_taken_by: Running | None = None
        loop = asyncio.get_running_loop()
        self._keeper = StateKeeper(
            state,
            config_path=self._config_name,
            on_restored=lambda: asyncio.run_coroutine_threadsafe(self._control.reopen(), loop),
            on_taken=lambda other: loop.call_soon_threadsafe(self._on_state_taken, other),
        )
        self._drainer = Drainer(self._spool, state.path / JOURNAL_NAME)
        self._gateway = WorkerSet(
            resolved.gateway, opened.listener, log_dir=state.logs, on_start=self._keeper.record
        )
        self._fleet = Fleet(resolved.replicas, blueprint.fleet, on_snapshot=self._on_snapshot)
        self._starts = StartWatch(state.logs, all_engines())
        self._agent = NodeWatch(
            blueprint.agent,
            state.logs,
            fleet=self._fleet,
            gateway=self._gateway,
            on_start=self._keeper.record,
        )
        self._reloader = Reloader(
            resolved,
            state,
            fleet=self._fleet,
            levers=Levers(
                apply=self._apply,
                in_force=self._gateway_generation,
                stopping=self._stopping.is_set,
            ),
        )
        self._reload_tasks: set[asyncio.Task[None]] = set()

    def status(self) -> StackStatus:
        """Return the state of gateway, replicas and configuration."""
        stats, pids = self._gateway.stats, self._gateway.pids
        return StackStatus(
            config=self._config_name,
            state_dir=str(self._opened.state.path),
            pid=os.getpid(),
            started_wall_s=self._started_wall_s,
            gateway=GatewayStatus(
                url=f"{self._opened.url}/v1",
                pid=pids[0] if pids else None,
                workers=self._gateway.workers,
                workers_live=len(pids),
                restarts=self._gateway.restarts,
                in_flight=stats.in_flight if stats else None,
                requests_total=stats.requests_total if stats else None,
                errors_total=stats.errors_total if stats else None,
                draining=self._stopping.is_set(),
            ),
            replicas=with_ejected(
                self._starts.with_progress(self._fleet.statuses()), stats.ejected if stats else ()
            ),
            in_force=self._reloader.status(),
        )

    def show(self) -> None:
        """Give the present status to the observer."""
        with contextlib.suppress(OSError):  # the terminal is gone, the stack keeps serving
            self._on_status(self.status())

    def stop(self) -> None:
        """Begin to stop in order; if called again, stop at once."""
        self._signals += 1
        self._stopping.set()
        if self._signals == 1:
            self.show()
            return
        if self._signals == 2:
            self._on_hurry()
        self._gateway.kill()
        self._fleet.request_stop(now=True)

    async def run(self) -> None:
        """Run the stack until it is stopped and every part has ended."""
        loop = asyncio.get_running_loop()
        on_sighup = self._on_sighup if _is_daemon() else self.stop
        for number, handler in (
            (signal.SIGTERM, self.stop),
            (signal.SIGINT, self.stop),
            (signal.SIGHUP, on_sighup),
        ):
            if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup SIGHUP stays ignored
                loop.add_signal_handler(number, handler)
        self._drainer.start()
        async with self._control:
            self._keeper.start()
            fleet = asyncio.create_task(self._fleet.run())
            gateway = asyncio.create_task(self._gateway.run())
            watch = asyncio.create_task(self._agent.run())
            starts = asyncio.create_task(self._starts.run(self._fleet.statuses))
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({fleet, gateway, stopping}, return_when=asyncio.FIRST_COMPLETED)
            self._stopping.set()
            self._gateway.stop()
            await gateway
            # The gateway has ended, so no request runs: the engines need no drain.
            self._fleet.request_stop(drained=True)
            self._agent.stop()
            await fleet
            starts.cancel()
            await watch
            # The client of the control socket that sent the stop receives the end before the socket closes.
            await asyncio.sleep(0)
            for name in (*self._gateway.names, AGENT):
                self._keeper.record(name, None)
            await asyncio.to_thread(self._keeper.close)
        if not await asyncio.to_thread(self._drainer.stop, _LAST_DRAIN_S):
            self._log.error(
                "ledger_not_drained", spool=str(self._spool), doing="the next start drains the rest"
            )
        if self._state_taken_by is not None:
            raise Permanent(
                f"the state folder {self._opened.state.path} was removed and pid {self._state_taken_by.pid} has it now",
                hint="--state-dir gives each stack a folder of its own",
            )
        remove_folder(self._spool)

    def _apply(self, resolved: Resolved) -> bool:
        """Give a blueprint to fleet and gateway; return False if the fleet's queue is full."""
        if not self._fleet.change(resolved.replicas, resolved.blueprint.fleet):
            return False
        self._gateway.retune(resolved.gateway)
        self._control.allow(roles_of(resolved.config.spec))
        return True

    def _gateway_generation(self) -> int:
        stats = self._gateway.stats
        return stats.settings_generation if stats is not None else 0

    def _on_sighup(self) -> None:
        """Reload on SIGHUP; the log and the status show the outcome."""

        async def reload() -> None:
            await self._control.record("reload", Peer(pid=0, uid=os.geteuid(), signal="SIGHUP"), {})
            async for _line in self._reloader.reload(wait=False):
                pass

        task = asyncio.get_running_loop().create_task(reload())
        self._reload_tasks.add(task)
        task.add_done_callback(self._reload_tasks.discard)

    def _on_state_taken(self, other: Running) -> None:
        """Stop in order: another process has the state folder, so no command reaches this stack."""
        self._state_taken_by = other
        self.stop()

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        self._gateway.send(snapshot)
        for replica in snapshot.replicas:
            # Recorded, so that the next `up` ends what this controller leaves behind.
            if self._recorded_pids.get(replica.id) != replica.pid:
                self._recorded_pids[replica.id] = replica.pid
                self._keeper.record(replica.id, replica.pid)
        for gone in self._recorded_pids.keys() - {replica.id for replica in snapshot.replicas}:
            del self._recorded_pids[gone]
            self._keeper.record(gone, None)
        self._drainer.note(_readings(snapshot.replicas))
        self.show()

    def _answer(self, request: dict[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        """Return the lines that answer one request on the control socket; its user may make it."""
        match request["op"]:
            case "status":
                return _once(lambda: msgspec.to_builtins(self.status()))
            case "health":
                return _once(lambda: {"snapshot": msgspec.to_builtins(self._agent.link.snapshot)})
            case "set_healthy":
                return _once(lambda: asyncio.to_thread(mark_healthy, self._opened.state.path, request))
            case "stop":
                self.stop()
                if request.get("now"):
                    self.stop()
                return until_finished(self._fleet)
            case "restart":
                return self._reloader.restart(str(request.get("name")), wait=bool(request.get("wait")))
            case "reload":
                dry_run, wait = bool(request.get("dry_run")), bool(request.get("wait"))
                return self._reloader.reload(dry_run=dry_run, wait=wait)
            case other:
                raise AssertionError(f"{other} is in the table of roles and nowhere else")


async def _once(answer: Callable[[], Any]) -> AsyncIterator[Mapping[str, Any]]:
    """Yield one line, which may have to be waited for."""
    found = answer()
    yield await found if asyncio.iscoroutine(found) else found
