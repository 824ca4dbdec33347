"""The gateway itself: what its connections share, its snapshots and settings, its clock tick and its drain.

Everything is answered from memory: the snapshot, the settings, the counters. What becomes of a request is decided in
`routing`; this file holds no request back and never waits for one.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from functools import partial
from typing import Protocol, TypeVar

from freehold.core.clock import wall_s
from freehold.core.events import EndpointLoad, GatewayStats, Snapshot
from freehold.gateway.counters.request_metrics import read_at_scrape
from freehold.gateway.endpoints.directory import Directory
from freehold.gateway.endpoints.model import ModelAdmission, ServedModel
from freehold.gateway.exchange.context import ExchangeContext
from freehold.gateway.exchange.crash_retry import CrashRetry
from freehold.gateway.exchange.exchange import Exchange
from freehold.gateway.exchange.shared_quarantine import SharedQuarantine
from freehold.gateway.fallback.registry import Fallbacks
from freehold.gateway.queue.admission import Admission
from freehold.gateway.queue.body_memory import BodyMemory
from freehold.gateway.queue.queue import QueueBounds
from freehold.gateway.queue.shared_admission import SharedAdmission
from freehold.gateway.server import gauges
from freehold.gateway.server.agent_page import AgentPage
from freehold.gateway.server.authenticate import REVOKED, Authenticator
from freehold.gateway.server.descriptors import CONNECTIONS_MAX
from freehold.gateway.server.head_cache import HeadCache
from freehold.gateway.server.keyless import KeylessConnections
from freehold.gateway.server.worker_group import WorkerGroup
from freehold.gateway.settings import Settings
from freehold.gateway.storage.tls_files import TlsFiles
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request import Caller
from freehold.telemetry.metrics import Reading

_TICK_S = 0.5  # One coarse timer for every time limit of every connection: limits are seconds, half of one is exact enough.

T = TypeVar("T")


class OpenConnection(Protocol):
    """A client's connection; `client_connection.ClientConnection` is one."""

    exchange: Exchange | None
    """The request that is being answered; None: there is none."""

    @property
    def busy(self) -> bool:
        """Return whether a request is under way, or coming in."""

    def check(self, now_s: float) -> None:
        """Enforce the time limits."""

    def drain(self) -> None:
        """Close, now or after the answer."""


class Gateway:
    """One gateway process."""

    def __init__(
        self,
        settings: Settings,
        *,
        log_dropped: Callable[[], int] = lambda: 0,
        group: WorkerGroup | None = None,
    ) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self.context = context = ExchangeContext(settings, loop.time)
        self.group = group
        """The workers that share this address; None: there is only this one."""
        self.directory = new_directory(context, loop, group)
        self._shared_quarantine: SharedQuarantine | None = None
        """What this worker and the others have blocked; None: there are no others."""
        if group is not None:
            context.quarantine = self._shared_quarantine = SharedQuarantine(group.counters, group.wake_others)
        context.crash_retry = CrashRetry(loop, lambda: self.directory.snapshot.ends, context.quarantine)
        counters = group.counters if group else None
        self.authenticator: Authenticator | None = None
        """Knows the API keys; None: no key is needed."""
        if settings.keys_path:
            self.authenticator = Authenticator(
                settings, counters=counters, end_requests=self._end_requests_of
            )
        self.fallbacks = Fallbacks(settings, context.metrics, loop) if settings.fallbacks else None
        """Other providers; None: there are none."""
        self.head_cache = HeadCache()
        self.body_memory = BodyMemory(settings.part_of(settings.upload_memory_bytes))
        """Room for large bodies that are still coming in."""
        self.connections: set[OpenConnection] = set()
        self.connections_max = CONNECTIONS_MAX
        self.keyless = KeylessConnections(self.connections) if settings.keys_path else None
        """Connections that have shown no key; None: no key is needed."""
        self._thread = ThreadPoolExecutor(1, "freehold-large-bodies")  # it starts with the first of them
        self.tls_files: TlsFiles | None = None
        """The files of the listener's TLS, once it speaks TLS."""
        self.tls_failed_total = 0
        """Connections that ended before TLS was agreed."""
        self.has_parent = True
        self.listening = ""
        self.log_dropped = log_dropped
        self.agent = AgentPage()
        """The metrics of the node's agent, for `/metrics`."""
        self._date_s = 0
        self._snapshot_at_s = loop.time()
        self._watch()
        if self.authenticator is not None:
            self.authenticator.start()
        if self.fallbacks is not None:
            self.fallbacks.start()
        if group is not None:
            group.join(context.metrics.metrics, self._pump)
        self._tick()

    def __repr__(self) -> str:
        draining = ", draining" * self.context.draining
        return f"<Gateway {self.directory!r}, {len(self.connections)} connections{draining}>"

    def _watch(self) -> None:
        metrics, keys = self.context.metrics.metrics, self.authenticator
        gauges.watch_directory(metrics, self.directory)
        readings: dict[str, Reading] = {
            "freehold_gateway_connections": lambda: {(): len(self.connections)},
            "freehold_gateway_upload_bytes": lambda: {(): self.body_memory.held_bytes},
            "freehold_gateway_uploads_waiting": lambda: {(): self.body_memory.waiting},
            "freehold_gateway_snapshot_age_seconds": lambda: {(): self.snapshot_age_s()},
            "freehold_log_dropped_total": lambda: {(): self.log_dropped()},
            "freehold_access_log_dropped_total": lambda: {(): self.context.access_log.dropped_total},
        }
        keyless = self.keyless
        if keyless is not None:
            readings["freehold_gateway_keyless_evicted_total"] = lambda: {(): keyless.evicted_total}
        if self.context.settings.tls is not None:
            readings["freehold_gateway_tls_failed_total"] = lambda: {(): self.tls_failed_total}
        if keys is not None:
            readings["freehold_gateway_keys"] = lambda: {(): keys.active}
            readings["freehold_gateway_keys_trouble"] = lambda: {(): bool(keys.trouble)}
        read_at_scrape(metrics, readings)

    def _pump(self) -> None:
        """Start requests that wait and read what is blocked: another worker has woken this one."""
        if self._shared_quarantine is not None:
            self._shared_quarantine.read_others(self.context.now_s())
        for model in self.directory.models.values():
            model.admission.pump()

    def in_thread(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Do work that would stop the loop for too long in a thread, one after the other: there is one."""
        return self._loop.run_in_executor(self._thread, work)

    # The control plane's side

    def apply(self, snapshot: Snapshot) -> None:
        """Use a newer snapshot."""
        if self.directory.apply(snapshot):
            self._snapshot_at_s = self.context.now_s()

    def retune(self, settings: Settings) -> None:
        """Use other settings from the next request on: requests under way keep the time limits they came with."""
        self.context.settings = settings
        self.directory.retune(queue_bounds(settings), settings.prices)
        self.body_memory.resize(settings.part_of(settings.upload_memory_bytes))
        if self.authenticator is not None:
            self.authenticator.prices = settings.prices
        self.context.access_log.change(settings.access_log)
        self.context.log.info("settings", generation=settings.generation)

    def snapshot_age_s(self) -> float:
        """Return the seconds since the snapshot in use arrived."""
        return self.context.now_s() - self._snapshot_at_s

    def statistics(self) -> GatewayStats:
        """Return the report that the parent gets each second."""
        context = self.context
        return GatewayStats(
            listening=self.listening,
            in_flight=self.in_flight,
            requests_total=context.metrics.requests_total,
            errors_total=context.metrics.errors_total,
            snapshot_generation=self.directory.snapshot.generation,
            draining=context.draining,
            log_dropped_total=self.log_dropped(),
            settings_generation=context.settings.generation,
            loads=self._loads(),
            ejected=tuple(target.id for target in self.directory.targets() if target.outlier.until_s),
        )

    def _loads(self) -> dict[str, EndpointLoad]:
        """Return the requests under way at each endpoint, and how much of their answers has come."""
        loads: dict[str, EndpointLoad] = {}
        for connection in self.connections:
            exchange = connection.exchange
            if exchange is not None and exchange.attempt is not None:
                name = exchange.attempt.target.id
                before = loads.get(name, EndpointLoad(0, 0))
                loads[name] = EndpointLoad(before.requests + 1, before.bytes + exchange.answer_bytes)
        return loads

    @property
    def in_flight(self) -> int:
        """Return the requests that are being answered."""
        return sum(connection.exchange is not None for connection in self.connections)

    def _end_requests_of(self, callers: AbstractSet[Caller]) -> None:
        """End the requests of revoked keys, streams with an error in band."""
        found = [
            each for each in self.connections if each.exchange and each.exchange.request.caller in callers
        ]
        self._shut(found, errors.unauthorized(REVOKED))
        self.context.log.info("requests_of_revoked_keys_ended", requests=len(found))

    @staticmethod
    def _shut(connections: Iterable[OpenConnection], rejection: Rejection) -> None:
        for connection in list(connections):
            if connection.exchange is not None:
                connection.exchange.shut(rejection)

    async def drain(self) -> bool:
        """Finish what is under way within the grace and return whether all of it was finished."""
        context = self.context
        context.draining = True
        if self.fallbacks is not None:
            self.fallbacks.end_copies()
        for connection in list(self.connections):
            connection.drain()
        started_s, grace_s = context.now_s(), context.settings.drain_grace_s
        await self._until(lambda: not any(c.busy for c in self.connections), grace_s)
        whole = not self.in_flight
        self._shut(self.connections, errors.unavailable("The server is shutting down.", code="draining"))
        # What is written still has to leave the process: what is left of the grace, and a second at least.
        left_s = grace_s - (context.now_s() - started_s)
        await self._until(lambda: not self.connections, max(1.0, left_s))
        whole = whole and not self.connections
        if context.ledger is not None:
            context.ledger.tick()
        await self._save()
        return whole

    async def _save(self) -> None:
        """Save what was spent, now that all has settled; a disk gets a second, in a thread of its own."""
        savers = [each.stop for each in (self.authenticator, self.fallbacks) if each is not None]
        await asyncio.gather(*map(asyncio.to_thread, savers))

    async def _until(self, condition: Callable[[], bool], limit_s: float) -> None:
        # Polled during shutdown only, so that no request pays for an event.
        deadline_s = self.context.now_s() + limit_s
        while not condition() and self.context.now_s() < deadline_s:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    # Time

    def _tick(self) -> None:
        # The next tick is set first: whatever fails in this one, time limits are still enforced.
        self._ticking = self._loop.call_later(_TICK_S, self._tick)
        self.context.tick_s = now_s = self.context.now_s()
        date_s = int(wall_s())
        if date_s != self._date_s:
            self._date_s = date_s
            self.context.date_line = f"date: {formatdate(date_s, usegmt=True)}\r\n".encode()
        self._run_all(self._upkeep(now_s))

    def _upkeep(self, now_s: float) -> Iterator[Callable[[], object]]:
        """Yield what each tick does: time limits first, since clients wait for them."""
        for connection in list(self.connections):
            yield partial(connection.check, now_s)
        if self.context.ledger is not None:
            yield self.context.ledger.tick
        if self.authenticator is not None:
            yield self.authenticator.tick
        if self.fallbacks is not None:
            yield partial(self.fallbacks.tick, now_s)
        for model in list(self.directory.models.values()):
            yield partial(model.admission.line.tidy, now_s)
        if self.group is not None:
            yield partial(self.group.tick, self.context.metrics.metrics, len(self.connections))
        yield self.context.pack_budget.turn
        yield partial(self.context.quarantine.tidy, now_s)

    def _run_all(self, work: Iterator[Callable[[], object]]) -> None:
        """Do one thing after the other; one that fails ends in the guard (`run`), and the rest is done after it."""
        try:
            for each in work:
                each()
        except Exception:
            self._loop.call_soon(self._run_all, work)
            raise


def queue_bounds(settings: Settings) -> QueueBounds:
    """Return this worker's part of the queue's bounds."""
    return QueueBounds(
        max_requests=settings.part_of(settings.queue_max_requests),
        max_tokens=settings.part_of(settings.queue_max_tokens),
        max_wait_s=settings.queue_max_wait_s,
        overload_wait_s=settings.queue_overload_wait_s,
    )


def new_directory(
    context: ExchangeContext, loop: asyncio.AbstractEventLoop, group: WorkerGroup | None = None
) -> Directory:
    """Return an empty directory whose models queue on this loop, together with the workers of `group`."""

    def new_admission(model: ServedModel) -> ModelAdmission:
        bounds = queue_bounds(context.settings)
        if group is None:
            return Admission(model, bounds, loop)
        wake_fds = context.settings.wake_fds
        return SharedAdmission(
            model,
            bounds,
            loop=loop,
            counters=group.counters,
            wake=lambda worker: os.eventfd_write(wake_fds[worker], 1),
        )

    prices = context.settings.prices
    counters = group.counters if group else None
    return Directory(context.metrics.for_model, new_admission, prices=prices, counters=counters)
