"""One endpoint as the data plane sees it: its address, its load, whether it answers, and its idle connections. Pure.

It opens no connection: `exchange.upstream` does, and gives back those whose answer was read to the end.
"""

from urllib.parse import urlsplit

from freehold.core.events import Endpoint, socket_path
from freehold.engines.base import Engine, PrefixCache
from freehold.gateway.counters.shared_counters import SharedCounters
from freehold.gateway.endpoints.outlier_detection import OutlierState
from freehold.gateway.endpoints.slot_owners import SlotOwners
from freehold.gateway.queue.concurrency_limit import ConcurrencyLimit
from freehold.gateway.queue.shared_concurrency_limit import SharedConcurrencyLimit
from freehold.gateway.wire.body import raw_keys
from freehold.gateway.wire.headers import request_start
from freehold.gateway.wire.ports import EngineConnection

IDLE_CONNECTIONS_MAX = 64
"""Idle connections kept per endpoint. Source: our own bound; the benchmark's 32 closed-loop clients with room to spare."""


class UpstreamTarget:
    """One endpoint; its idle connections are used last in, first out."""

    __slots__ = ("_idle", "_starts", "adapters", "as_it_is", "authority", "endpoint", "engine", "gate", "gone", "host",
                 "id", "outlier", "owners", "port", "prefix", "renamed", "slots", "socket", "tls")  # fmt: skip

    def __init__(
        self,
        endpoint: Endpoint,
        engine: Engine,
        *,
        context_tokens: int = 0,
        counters: SharedCounters | None = None,
    ) -> None:
        parts = urlsplit(endpoint.url)
        self.endpoint = endpoint
        self.engine = engine
        self.id = endpoint.id
        self.slots = endpoint.slots
        self.socket = socket_path(endpoint.url)
        """Path of its Unix socket; empty: it has a host and a port."""
        self.tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.tls else 80)
        self.authority = parts.netloc or "localhost"
        self.prefix = "" if self.socket else parts.path.rstrip("/")
        self.gate = self._gate(endpoint.kv_tokens or endpoint.slots * context_tokens, counters)
        """How many requests may be here at once."""
        self.outlier = OutlierState()
        """Whether it answers."""
        self.gone = False
        self.renamed = endpoint.upstream_model not in {"", endpoint.model}
        self.owners = SlotOwners(endpoint.slots if counters is None else 0)
        """Whose tokens its slots hold, for an engine that needs that to be known."""
        apart = engine.prefix_cache is not PrefixCache.SHARED
        self.as_it_is = not (self.renamed or engine.stream_to_abort or endpoint.adapters or apart)
        """Bodies go there unchanged."""
        self.adapters = {each.name: raw_keys(each.keys) for each in endpoint.adapters}
        """The keys of a body that asks for one of its adapters."""
        self._idle: list[EngineConnection] = []
        self._starts: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"<UpstreamTarget {self.id} {self.in_flight} active, {len(self._idle)} idle, {self.outlier!r}>"

    def _gate(self, token_budget: int, counters: SharedCounters | None) -> ConcurrencyLimit:
        if counters is None:
            return ConcurrencyLimit(slots=self.slots, token_budget=token_budget)
        # The address too: another incarnation at another address is another engine, and has room of its own.
        row = counters.row(f"endpoint {self.id} {self.endpoint.incarnation} {self.endpoint.url}")
        return SharedConcurrencyLimit(row, slots=self.slots, token_budget=token_budget)

    @property
    def in_flight(self) -> int:
        """Return the requests under way here, of all workers."""
        return self.gate.present()

    @property
    def idle_count(self) -> int:
        """Return how many connections wait for work."""
        return len(self._idle)

    def request_start(self, path: str) -> bytes:
        """Return a request's head for this target up to the number that is its body's length."""
        start = self._starts.get(path)
        if start is None:
            start = request_start(self._path(path), self.authority, self.endpoint.api_key)
            self._starts[path] = start
        return start

    def _path(self, path: str) -> str:
        """Return the engine's path for a gateway path: an endpoint `https://host/x/v1` serves `/x/v1/...`."""
        if self.prefix.endswith("/v1") and path.startswith("/v1/"):
            return self.prefix + path[3:]
        return self.prefix + path

    def take_idle(self) -> EngineConnection | None:
        """Return the connection used last, or None."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closing:
                return connection
        return None

    def keep(self, connection: EngineConnection) -> None:
        """Keep a connection whose answer was read to its end, or close it when the pool is full or retired."""
        if self.gone or len(self._idle) >= IDLE_CONNECTIONS_MAX:
            connection.close()
        else:
            self._idle.append(connection)

    def forget(self, connection: EngineConnection) -> None:
        """Drop a connection that the engine closed while it was idle."""
        if connection in self._idle:
            self._idle.remove(connection)

    def retire(self) -> None:
        """Close idle connections and keep none from now on; requests under way continue."""
        self.gone = True
        self.gate.retire()
        while self._idle:
            self._idle.pop().close()
