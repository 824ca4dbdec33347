"""The gateway's address book: models and their endpoints from the newest snapshot, with load, suspicion and pools.

A snapshot is taken over whole, in one call, between two requests. A target that stays keeps its connections and its
count of requests; one that goes takes no more and closes what is idle. Nothing here asks the control plane anything.
"""

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from freehold.core.events import Endpoint, ModelEntry, ReplicaState, Snapshot
from freehold.engines import all_engines
from freehold.engines.base import Engine
from freehold.gateway import route
from freehold.gateway.admission import Admission
from freehold.gateway.heads import request_start
from freehold.gateway.limit import Gate
from freehold.gateway.meters import ModelMeters
from freehold.gateway.settings import Settings

if TYPE_CHECKING:
    from freehold.gateway.upstream import UpstreamConnection

IDLE_CONNECTIONS_MAX = 64
"""Idle connections kept per endpoint. Source: our own bound; the bar's 32 closed-loop clients with room to spare."""


class Target:
    """One endpoint as the data plane sees it: address, load, suspicion, idle connections (last in, first out)."""

    __slots__ = ("_failures", "_idle", "_starts", "as_it_is", "authority", "endpoint", "engine", "gate", "gone", "host",
                 "id", "port", "prefix", "renamed", "slots", "suspect_until_s", "tls")  # fmt: skip

    def __init__(self, endpoint: Endpoint, engine: Engine, *, context_tokens: int = 0) -> None:
        parts = urlsplit(endpoint.url)
        self.endpoint = endpoint
        self.engine = engine
        self.id = endpoint.id
        self.slots = endpoint.slots
        self.tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.tls else 80)
        self.authority = parts.netloc
        self.prefix = parts.path.rstrip("/")
        self.gate = Gate(slots=endpoint.slots, token_budget=endpoint.slots * context_tokens)
        """Who may be here at once."""
        self.suspect_until_s = 0.0
        self.gone = False
        self._failures = 0
        self.renamed = endpoint.upstream_model not in {"", endpoint.model}
        self.as_it_is = not self.renamed and not engine.stream_to_abort
        self._idle: list[UpstreamConnection] = []
        self._starts: dict[str, bytes] = {}

    def __repr__(self) -> str:
        suspected = f", suspect until {self.suspect_until_s:.1f}" if self.suspect_until_s else ""
        return f"<Target {self.id} {self.in_flight} active, {len(self._idle)} idle{suspected}>"

    @property
    def in_flight(self) -> int:
        """Return the requests under way here."""
        return self.gate.in_flight

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

    def take_idle(self) -> "UpstreamConnection | None":
        """Return the connection used last, or None."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closing:
                return connection
        return None

    def keep(self, connection: "UpstreamConnection") -> None:
        """Keep a connection whose answer was read to its end, or close it when there is no use for it."""
        if self.gone or len(self._idle) >= IDLE_CONNECTIONS_MAX:
            connection.close()
        else:
            self._idle.append(connection)

    def forget(self, connection: "UpstreamConnection") -> None:
        """Drop a connection that the engine closed while it was idle."""
        if connection in self._idle:
            self._idle.remove(connection)

    def failed(self, now_s: float) -> None:
        """Suspect this endpoint for a while: it did not answer."""
        self._failures += 1
        self.suspect_until_s = now_s + route.suspicion_s(self._failures)

    def busy(self, until_s: float) -> None:
        """Prefer others until `until_s`: it said that it is busy, which is no failure."""
        self.suspect_until_s = max(self.suspect_until_s, until_s)

    def succeeded(self) -> None:
        """Clear suspicion: an answer came."""
        if self.suspect_until_s:
            self._failures = 0
            self.suspect_until_s = 0.0

    def retire(self) -> None:
        """Close idle connections and keep none from now on; requests under way go on."""
        self.gone = True
        while self._idle:
            self._idle.pop().close()


class Model:
    """One model that clients can name, with the targets that take its requests now."""

    __slots__ = ("admission", "engine", "entry", "meters", "targets", "turn")

    def __init__(self, entry: ModelEntry, engine: Engine, *, meters: ModelMeters, settings: Settings) -> None:
        self.entry = entry
        self.engine = engine
        self.meters = meters
        self.targets: list[Target] = []
        self.turn = 0
        self.admission = Admission(self, settings)

    @property
    def in_flight(self) -> int:
        """Return the requests that were started and are not over."""
        return self.admission.line.under_way

    def take(self, now_s: float, tried: Collection[str], cost_tokens: int) -> Target | None:
        """Return the least loaded target not yet tried that has room, with a place there taken; None: there is none.

        One that is suspected is chosen only where all are: while others are merely full, it is better to wait.
        """
        if len(self.targets) == 1 and not tried:
            target = self.targets[0]
            return target if target.gate.enter(cost_tokens) else None
        self.turn += 1
        chosen = route.choose(self._open(now_s, tried, cost_tokens), now_s, turn=self.turn)
        if chosen is not None:
            chosen.gate.enter(cost_tokens)
        return chosen

    def _open(self, now_s: float, tried: Collection[str], cost_tokens: int) -> list[Target]:
        untried = [target for target in self.targets if target.id not in tried]
        trusted = [target for target in untried if target.suspect_until_s <= now_s]
        return [target for target in trusted or untried if target.gate.has_room(cost_tokens)]


class Directory:
    """Models and targets of the newest snapshot."""

    def __init__(self, meters_for: Callable[[str], ModelMeters], settings: Settings) -> None:
        self._meters_for = meters_for
        self._settings = settings
        self.snapshot = Snapshot(generation=-1)
        self.models: dict[str, Model] = {}
        self._targets: dict[Endpoint, Target] = {}

    def __repr__(self) -> str:
        return f"<Directory generation {self.snapshot.generation}, {len(self._targets)} targets>"

    def retune(self, settings: Settings) -> None:
        """Let every queue go on by other bounds."""
        self._settings = settings
        for model in self.models.values():
            model.admission.retune(settings)

    def apply(self, snapshot: Snapshot) -> bool:
        """Take over a snapshot and return True, or False where it is older than the one in use."""
        if snapshot.generation < self.snapshot.generation:
            return False
        self.snapshot = snapshot
        engines = all_engines()
        self._apply_targets(snapshot, engines)
        known = self.models
        self.models = {
            entry.name: known.get(entry.name)
            or Model(
                entry, engines[entry.engine], meters=self._meters_for(entry.name), settings=self._settings
            )
            for entry in snapshot.models
        }
        for entry in snapshot.models:
            model = self.models[entry.name]
            model.entry, model.engine = entry, engines[entry.engine]
        for model in (gone for name, gone in known.items() if name not in self.models):
            model.targets = []  # what is under way goes on, what waits is told
            model.admission.targets_changed()
        for name, model in self.models.items():
            model.targets = [t for t in self._targets.values() if t.endpoint.model == name]
            model.admission.targets_changed()
        return True

    def _apply_targets(self, snapshot: Snapshot, engines: dict[str, Engine]) -> None:
        # An endpoint that differs in anything (incarnation, key, slots) is another target, with connections of its own.
        ready = [endpoint for endpoint in snapshot.endpoints if endpoint.state is ReplicaState.READY]
        for endpoint in self._targets.keys() - set(ready):
            self._targets.pop(endpoint).retire()
        context = {entry.name: entry.max_context_tokens for entry in snapshot.models}
        for endpoint in ready:
            if endpoint not in self._targets:
                engine, tokens = engines[endpoint.engine], context.get(endpoint.model, 0)
                self._targets[endpoint] = Target(endpoint, engine, context_tokens=tokens)

    def targets(self) -> Iterable[Target]:
        """Return every target in use."""
        return self._targets.values()

    def ready_counts(self) -> dict[str, int]:
        """Return how many targets each model has."""
        return {name: len(model.targets) for name, model in self.models.items()}

    def outlives_its_parent(self) -> bool:
        """Return whether some endpoint would still answer if the control plane were gone."""
        return any(not target.engine.managed for target in self._targets.values())
