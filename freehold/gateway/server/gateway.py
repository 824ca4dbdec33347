"""The gateway itself: what its connections share, which requests it takes, its clock tick and its drain.

Every request is decided here from memory alone: the snapshot, the settings, the counters. Whether it may start, waits
or is refused for want of room is its model's `admission`; this file does not hold requests back and never waits.
"""

import asyncio
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from freehold.core.clock import wall_s
from freehold.core.events import EndpointLoad, GatewayStats, Snapshot
from freehold.gateway.answers import stream_tap
from freehold.gateway.answers.stream_log import PackBudget
from freehold.gateway.counters.request_metrics import GatewayMetrics
from freehold.gateway.endpoints.balance import RetryBudget
from freehold.gateway.endpoints.pool import Directory, ServedModel
from freehold.gateway.exchange.access_log import AccessLog
from freehold.gateway.exchange.exchange import Exchange
from freehold.gateway.exchange.ledger_record import LedgerWriter
from freehold.gateway.exchange.write_batch import WriteBatch
from freehold.gateway.fallback.exchange import OutwardExchange, may_leave
from freehold.gateway.fallback.registry import Fallbacks
from freehold.gateway.process.descriptors import CONNECTIONS_MAX
from freehold.gateway.queue.body_memory import BodyMemory
from freehold.gateway.queue.shared_admission import part_of
from freehold.gateway.server import builtin_routes
from freehold.gateway.server.agent_page import AgentPage
from freehold.gateway.server.authenticate import Authenticator
from freehold.gateway.server.client_connection import ClientConnection
from freehold.gateway.server.worker_group import WorkerGroup
from freehold.gateway.settings import Settings
from freehold.gateway.wire import errors
from freehold.gateway.wire.body import read_body, refuse_adapter_keys
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.head_cache import HeadCache
from freehold.gateway.wire.media_urls import refuse_addresses
from freehold.gateway.wire.request import ENGINE_PATHS, Request
from freehold.telemetry.logs import get_logger

if TYPE_CHECKING:
    from freehold.telemetry.logs import Logger

_TICK_S = 0.5  # One coarse timer for every time limit of every connection: limits are seconds, half of one is exact enough.


class Gateway:
    """One gateway process."""

    def __init__(
        self,
        settings: Settings,
        *,
        log_dropped: Callable[[], int] = lambda: 0,
        crew: WorkerGroup | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.settings = settings
        self.now_s: Callable[[], float] = loop.time
        self.tick_s = loop.time()
        """The time of the last tick: exact enough for deadlines of seconds, and free."""
        self.meters = GatewayMetrics()
        self.crew = crew
        """The workers that share this address; None: there is only this one."""
        self.directory = Directory(self.meters.for_model, settings, crew.board if crew else None)
        self.budget = RetryBudget(loop.time())
        self.keeping = PackBudget()
        self.access = AccessLog(settings.access_log)
        self.callers = Authenticator(settings, crew.board if crew else None) if settings.keys_path else None
        """Who may ask; None: everybody."""
        self.fallbacks = Fallbacks(settings, self.meters) if settings.fallbacks else None
        """Endpoints of others; None: there are none."""
        self.known_heads = HeadCache()
        self.intake = BodyMemory(upload_room_bytes(settings))
        """Room for large bodies that are still coming in."""
        self.connections: set[ClientConnection] = set()
        self.connections_max = CONNECTIONS_MAX
        self.draining = False
        self.has_parent = True
        self.listening = ""
        self.log: Logger = get_logger("gateway")
        self.log_dropped = log_dropped
        self.date_line = b""
        self._date_s = 0
        self._snapshot_at_s = loop.time()
        self.recorder: LedgerWriter | None = None
        """Who writes requests into the ledger; None: nobody."""
        if settings.spool_path:
            self.recorder = LedgerWriter(Path(settings.spool_path), max_bytes=settings.spool_max_bytes)
            self.recorder.watch(self.meters.metrics)
        self.agent = AgentPage()
        """What the node's agent says, for `/metrics`."""
        self.outbox = WriteBatch(_nothing if self.recorder is None else self.recorder.write)
        """What leaves at the end of this turn of the loop."""
        self.meters.watch(self)
        if self.callers is not None:
            self.callers.start()
        if self.fallbacks is not None:
            self.fallbacks.start()
        if crew is not None:
            crew.join(self)
        self._tick()

    def __repr__(self) -> str:
        return (
            f"<Gateway {self.directory!r}, {len(self.connections)} connections{', draining' * self.draining}>"
        )

    # The control plane's side

    def apply(self, snapshot: Snapshot) -> None:
        """Take a newer snapshot over."""
        if self.directory.apply(snapshot):
            self._snapshot_at_s = self.now_s()
            if self.fallbacks is not None:
                self.fallbacks.attach(self.directory.models.values(), self.settings)

    def retune(self, settings: Settings) -> None:
        """Go on by other bounds, from the next request on: those that are here keep the time limits they came with."""
        self.settings = settings
        self.directory.retune(settings)
        self.intake.resize(upload_room_bytes(settings))
        if self.callers is not None:
            self.callers.prices = settings.prices
        self.access.change(settings.access_log)
        self.log.info("settings", generation=settings.generation)

    def snapshot_age_s(self) -> float:
        """Return the seconds since the snapshot in use arrived."""
        return self.now_s() - self._snapshot_at_s

    def statistics(self) -> GatewayStats:
        """Return what the parent is told each second."""
        return GatewayStats(
            listening=self.listening,
            in_flight=self.in_flight,
            requests_total=self.meters.requests_total,
            errors_total=self.meters.errors_total,
            snapshot_generation=self.directory.snapshot.generation,
            draining=self.draining,
            log_dropped_total=self.log_dropped(),
            settings_generation=self.settings.generation,
            loads=self._loads(),
            ejected=tuple(target.id for target in self.directory.targets() if target.standing.until_s),
        )

    def _loads(self) -> dict[str, EndpointLoad]:
        """Return what is under way at each endpoint, and how much of it has come."""
        requests: dict[str, int] = {}
        brought: dict[str, int] = {}
        for connection in self.connections:
            exchange = connection.exchange
            if exchange is not None and exchange.target is not None:
                name = exchange.target.id
                requests[name] = requests.get(name, 0) + 1
                brought[name] = brought.get(name, 0) + exchange.answer_bytes
        return {name: EndpointLoad(count, brought[name]) for name, count in requests.items()}

    @property
    def in_flight(self) -> int:
        """Return the requests that are being answered."""
        return sum(connection.exchange is not None for connection in self.connections)

    async def drain(self) -> bool:
        """Finish what is under way within the grace and return whether all of it was finished."""
        self.draining = True
        if self.fallbacks is not None:
            self.fallbacks.end_copies()
        for connection in list(self.connections):
            connection.drain()
        started_s = self.now_s()
        await self._until(lambda: not any(c.busy for c in self.connections), self.settings.drain_grace_s)
        whole = not self.in_flight
        for connection in list(self.connections):
            if connection.exchange is not None:
                connection.exchange.shut()
        # What is written still has to leave the process: what is left of the grace, and a second at least.
        left_s = self.settings.drain_grace_s - (self.now_s() - started_s)
        await self._until(lambda: not self.connections, max(1.0, left_s))
        whole = whole and not self.connections
        if self.recorder is not None:
            self.recorder.tick()
        await self._save()
        return whole

    async def _save(self) -> None:
        """Save what was spent, now that all has settled; a disk gets a second, which is not the loop's."""
        savers = [each.stop for each in (self.callers, self.fallbacks) if each is not None]
        await asyncio.gather(*map(asyncio.to_thread, savers))

    async def _until(self, condition: Callable[[], bool], limit_s: float) -> None:
        # A level looked at during shutdown only, so that no request pays for an event.
        deadline_s = self.now_s() + limit_s
        while not condition() and self.now_s() < deadline_s:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    # The clients' side

    def admit_connection(self, connection: ClientConnection) -> bool:
        """Count a new connection and return whether there is room for it."""
        self.connections.add(connection)
        return len(self.connections) <= self.connections_max

    def begin(self, client: ClientConnection, request: Request) -> Exchange | None:
        """Answer a request here, or return the exchange that will."""
        if request.path not in ENGINE_PATHS:
            self._answer_here(client, request)
            return None
        found = self._exchange_for(client, request)
        if isinstance(found, Rejection):
            client.refuse(found, request)
            return None
        return found

    def _answer_here(self, client: ClientConnection, request: Request) -> None:
        answer = self._local(request)
        if isinstance(answer, Rejection):
            client.refuse(answer, request)
        else:
            status, body, content_type = answer
            self.access.answered_here(request, status, len(body))
            client.reply(request, status, body=body, content_type=content_type)

    def _local(self, request: Request) -> builtin_routes.Answer | Rejection:
        path, method = request.path, request.method
        local = builtin_routes.LOCAL.get(path)
        one_model = path.startswith("/v1/models/") and len(path) > len("/v1/models/")
        if local is None and not one_model:
            return errors.not_found(path)
        if method not in {b"GET", b"HEAD"}:
            return errors.wrong_method(method.decode("ascii"), "GET, HEAD")
        if local is not None:
            return local(self, request.caller)
        return builtin_routes.one_model(self, builtin_routes.model_id_of(path), request.caller)

    def _exchange_for(self, client: ClientConnection, request: Request) -> Exchange | Rejection:
        if request.method != b"POST":
            return errors.wrong_method(request.method.decode("ascii"), "POST")
        asked = read_body(request.body)
        if isinstance(asked, Rejection):
            return asked
        model = self.directory.models.get(asked.model or "") or self._adapted(request, asked.model or "")
        if model is None and self.directory.snapshot.generation < 0:
            # A gateway that was just started (again) and has not been told yet: a 404 would be final for a client.
            return errors.unavailable("The gateway is starting.", code="model_not_ready")
        if model is None:
            return errors.model_not_found(asked.model or "", builtin_routes.models_for(self, request.caller))
        leaves = model.overflow is not None and may_leave(request)
        if refused := self._why_not(model, request, elsewhere=leaves):
            return refused
        if refused := _what_not(model, request):
            return refused
        request.stream, request.max_tokens = bool(asked.stream), asked.answer_tokens
        if model.engine.usage_per_answer:
            request.choices = asked.choices
        if request.stream:
            request.resumable = model.continues is not None
            stream_tap.ask_usage(request, asked.stream_options)
        exchange = (OutwardExchange if leaves else Exchange)(self, client, model=model, request=request)
        # Asked last: what is refused for another reason costs no caller anything, and from here on the exchange
        # is who gives back what the request is given.
        if self.callers is None:
            return exchange
        return self.callers.admit(request, asked.model or "", model=model.entry.name) or exchange

    def _adapted(self, request: Request, name: str) -> ServedModel | None:
        """Return the model whose adapter is asked for, and note which one it is; None: there is no such adapter."""
        model = self.directory.adapters.get(name)
        if model is not None:
            request.adapter = name
        return model

    def _why_not(self, model: ServedModel, request: Request, *, elsewhere: bool) -> Rejection | None:
        """Return why a model cannot be asked this now, whoever asks, or None; `elsewhere`: others may answer as well."""
        name = model.entry.name
        if request.path not in model.engine.paths:
            return errors.invalid(
                f"The model {name} does not serve {request.path}.", code="not_supported_by_engine"
            )
        adapter = request.adapter
        if adapter and model.engine.adapter_paths and request.path not in model.engine.adapter_paths:
            return errors.invalid(
                f"{adapter} is an adapter of {name}, and its engine takes none on {request.path}: it would answer without.",
                code="not_supported_by_engine",
            )
        if not elsewhere and not (model.targets and model.has_adapter(adapter)):
            return errors.not_ready(adapter or name)
        if self.draining:
            return errors.unavailable("The server is shutting down.", code="draining")
        if not request.timeout_s > 0:
            return errors.invalid(
                "x-freehold-timeout must be a number of seconds above 0.",
                param="x-freehold-timeout",
                code="invalid_header",
            )
        return None

    # Time

    def _tick(self) -> None:
        # The next tick is set first: whatever goes wrong in this one, time limits go on being enforced.
        self._ticking = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        self.tick_s = now_s = self.now_s()
        date_s = int(wall_s())
        if date_s != self._date_s:
            self._date_s = date_s
            self.date_line = f"date: {formatdate(date_s, usegmt=True)}\r\n".encode()
        self._go_through(self._upkeep(now_s))

    def _upkeep(self, now_s: float) -> Iterator[Callable[[], object]]:
        """Give what is to be done now and then: time limits first, since somebody waits for them."""
        for connection in list(self.connections):
            yield partial(connection.check, now_s)
        if self.recorder is not None:
            yield self.recorder.tick
        if self.callers is not None:
            yield self.callers.tick
        if self.fallbacks is not None:
            yield partial(self.fallbacks.tick, now_s)
        for model in list(self.directory.models.values()):
            yield partial(model.admission.line.tidy, now_s)
        if self.crew is not None:
            yield partial(self.crew.tick, self)
        yield self.keeping.turn

    def _go_through(self, work: Iterator[Callable[[], object]]) -> None:
        """Do one thing after the other; one that fails ends in the guard (`run`), and the rest is done after it."""
        try:
            for each in work:
                each()
        except Exception:
            asyncio.get_running_loop().call_soon(self._go_through, work)
            raise


def _nothing() -> None:
    """Do nothing before anything leaves: there is no ledger."""


def _what_not(model: ServedModel, request: Request) -> Rejection | None:
    """Return what in a body its model must not be asked, or None: what an engine would fetch, an adapter past its name."""
    refused = None if model.entry.media_urls else refuse_addresses(request.body)
    if refused is None and model.entry.adapters and not request.adapter:
        refused = refuse_adapter_keys(request.body, model.engine.adapter_keys)
    return refused


def upload_room_bytes(settings: Settings) -> int:
    """Return this process's part of the room for bodies."""
    return part_of(settings.upload_memory_bytes, index=settings.worker, workers=settings.workers)
