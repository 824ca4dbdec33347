"""The gateway's address book: models and their endpoints from the newest snapshot, with load, standing and pools.

A snapshot is taken over whole, in one call, between two requests. A target that stays keeps its connections and its
count of requests; one that goes takes no more and closes what is idle. Nothing here asks the control plane anything.
"""

from collections.abc import Callable, Collection, Iterable
from math import inf
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from freehold.core.events import Endpoint, ModelEntry, ReplicaState, Snapshot
from freehold.engines import all_engines
from freehold.engines.base import Engine
from freehold.gateway.answers import continuation
from freehold.gateway.counters.request_metrics import ModelMetrics
from freehold.gateway.counters.shared_counters import SharedCounters
from freehold.gateway.endpoints import balance, outlier_detection
from freehold.gateway.endpoints.outlier_detection import OutlierState
from freehold.gateway.endpoints.prefix_key import key_of
from freehold.gateway.queue.admission import Admission, QueuedRequest
from freehold.gateway.queue.concurrency_limit import ConcurrencyLimit
from freehold.gateway.queue.shared_admission import SharedAdmission
from freehold.gateway.queue.shared_concurrency_limit import SharedConcurrencyLimit
from freehold.gateway.settings import Settings
from freehold.gateway.wire.body import raw_keys
from freehold.gateway.wire.headers import request_start

if TYPE_CHECKING:
    from freehold.gateway.exchange.upstream import UpstreamConnection
    from freehold.gateway.fallback.exchange import Overflow

IDLE_CONNECTIONS_MAX = 64
"""Idle connections kept per endpoint. Source: our own bound; the bar's 32 closed-loop clients with room to spare."""


class UpstreamTarget:
    """One endpoint as the data plane sees it: address, load, standing, idle connections (last in, first out)."""

    __slots__ = ("_idle", "_starts", "adapters", "as_it_is", "authority", "endpoint", "engine", "gate", "gone", "host",
                 "id", "port", "prefix", "renamed", "slots", "standing", "tls")  # fmt: skip

    def __init__(
        self,
        endpoint: Endpoint,
        engine: Engine,
        *,
        context_tokens: int = 0,
        board: SharedCounters | None = None,
    ) -> None:
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
        self.gate = self._gate(endpoint.kv_tokens or endpoint.slots * context_tokens, board)
        """Who may be here at once."""
        self.standing = OutlierState()
        """Whether it answers."""
        self.gone = False
        self.renamed = endpoint.upstream_model not in {"", endpoint.model}
        self.as_it_is = not self.renamed and not engine.stream_to_abort and not endpoint.adapters
        self.adapters = {each.name: raw_keys(each.keys) for each in endpoint.adapters}
        """What a body that asks for one of its adapters says there."""
        self._idle: list[UpstreamConnection] = []
        self._starts: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return (
            f"<UpstreamTarget {self.id} {self.in_flight} active, {len(self._idle)} idle, {self.standing!r}>"
        )

    def _gate(self, token_budget: int, board: SharedCounters | None) -> ConcurrencyLimit:
        if board is None:
            return ConcurrencyLimit(slots=self.slots, token_budget=token_budget)
        # The address too: another incarnation at another address is another engine, and has room of its own.
        row = board.row(f"endpoint {self.id} {self.endpoint.incarnation} {self.endpoint.url}")
        return SharedConcurrencyLimit(row, slots=self.slots, token_budget=token_budget)

    @property
    def in_flight(self) -> int:
        """Return the requests under way here, whoever sent them."""
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

    def retire(self) -> None:
        """Close idle connections and keep none from now on; requests under way go on."""
        self.gone = True
        self.gate.retire()
        while self._idle:
            self._idle.pop().close()


class ServedModel:
    """One model that clients can name, with the targets that take its requests now."""

    __slots__ = (
        "_odd_until_s",
        "_ring",
        "admission",
        "continues",
        "engine",
        "entry",
        "meters",
        "overflow",
        "price",
        "targets",
        "turn",
    )

    def __init__(
        self,
        entry: ModelEntry,
        engine: Engine,
        *,
        meters: ModelMetrics,
        settings: Settings,
        board: SharedCounters | None = None,
    ) -> None:
        self.entry = entry
        self.engine = engine
        self.continues = continuation.continues(entry.resume, engine.continues)
        """How a stream whose engine died is continued; None: it is not."""
        self.meters = meters
        self.targets: list[UpstreamTarget] = []
        self.turn = 0
        self._ring: balance.Ring | None = None
        """Homes of conversations; None: it makes no difference where they go."""
        self._odd_until_s = 0.0
        """Until then some target is ejected, on trial or busy; infinity while one is ejected."""
        self.admission = (
            Admission(self, settings) if board is None else SharedAdmission(self, settings, board)
        )
        self.price = settings.prices.get(entry.name)
        """What its tokens are charged; None: nobody said."""
        self.overflow: Overflow | None = None
        """Where its requests may go when there is no room here; None: nowhere."""

    @property
    def in_flight(self) -> int:
        """Return the requests that were started and are not over."""
        return self.admission.line.under_way

    def give(self, targets: list[UpstreamTarget]) -> None:
        """Take over the targets of a new snapshot."""
        self.targets = targets
        self._look()
        many = len(targets) > 1 and self.entry.affinity
        self._ring = balance.Ring({target.id: target.slots for target in targets}) if many else None

    def take(self, applicant: QueuedRequest, now_s: float) -> UpstreamTarget | None:
        """Return the best target not yet tried that has room, with a place there taken; None: there is none.

        One that is ejected or busy is chosen only where all are: while others are merely full, it is better to wait.
        """
        cost_tokens, targets = applicant.cost_tokens, self.targets
        adapter = applicant.request.adapter
        if len(targets) == 1 and not applicant.tried and not adapter:
            return targets[0] if targets[0].gate.enter(cost_tokens) else None
        if adapter:  # while replicas are replaced, some may not have it yet
            targets = [target for target in targets if adapter in target.adapters]
        if applicant.tried or self._odd_until_s > now_s:
            targets = self._standing(targets, applicant.tried, now_s)
        chosen = self._choose([t for t in targets if t.gate.has_room(cost_tokens)], applicant)
        if chosen is not None:
            chosen.gate.enter(cost_tokens)
            if chosen.standing.begin(now_s):
                applicant.on_trial = True
        return chosen

    def has_adapter(self, name: str) -> bool:
        """Return whether any target has an adapter; the empty name is the model itself, which all have."""
        return not name or any(name in target.adapters for target in self.targets)

    def has_room(self, now_s: float, cost_tokens: int) -> bool:
        """Return whether `take` would find a target for a request that was not tried anywhere yet."""
        targets = self._standing(self.targets, (), now_s) if self._odd_until_s > now_s else self.targets
        return any(target.gate.has_room(cost_tokens) for target in targets)

    def _choose(self, targets: list[UpstreamTarget], applicant: QueuedRequest) -> UpstreamTarget | None:
        if self._ring is not None and targets:
            key = applicant.prefix_key
            if key is None:
                key = applicant.prefix_key = key_of(applicant.request.path, applicant.request.body)
            if key:
                cost, prompt = (
                    applicant.cost_tokens,
                    self.admission.estimate.prompt_tokens(len(applicant.request.body)),
                )
                found = balance.choose_by_key(
                    targets, self._ring, key=key, cost_tokens=cost, prompt_tokens=prompt
                )
                if found is not None:
                    self.meters.went(home=found[1])
                    return found[0]
        self.turn += 1
        return balance.choose(targets, turn=self.turn)

    def _standing(
        self, among: list[UpstreamTarget], tried: Collection[UpstreamTarget], now_s: float
    ) -> list[UpstreamTarget]:
        """Return which of these may be asked at all: whoever stands well, else the busy ones, else the least bad."""
        untried = [target for target in among if target not in tried]
        kept = [target for target in outlier_detection.kept(among, now_s) if target in untried]
        ready = [target for target in kept if target.standing.busy_until_s <= now_s]
        return ready or kept or sorted(untried, key=outlier_detection.badness)[:1]

    def failed(
        self, target: UpstreamTarget, failure: outlier_detection.Failure, now_s: float
    ) -> outlier_detection.Reason | None:
        """Count a failure of a target, and return for what reason it is ejected now, if it is; the only one never is."""
        if target.gone or len(self.targets) < 2:
            return None
        reason = target.standing.note(failure, [each.standing for each in self.targets], now_s)
        if reason is not None:
            self._odd_until_s = inf
            self.meters.ejected(reason)
        return reason

    def busy(self, target: UpstreamTarget, until_s: float) -> None:
        """Prefer others until `until_s`: this one said that it is busy, which is no failure."""
        standing = target.standing
        standing.busy_until_s = max(standing.busy_until_s, until_s)
        self._odd_until_s = max(self._odd_until_s, until_s)

    def succeeded(self, target: UpstreamTarget, now_s: float) -> None:
        """Count an answer of a target."""
        if target.standing.succeeded(now_s):
            self._look()

    def _look(self) -> None:
        standings = [target.standing for target in self.targets]
        ejected = any(standing.until_s for standing in standings)
        busy_s = max((standing.busy_until_s for standing in standings), default=0.0)
        self._odd_until_s = inf if ejected else busy_s


class Directory:
    """Models and targets of the newest snapshot."""

    def __init__(
        self,
        meters_for: Callable[[str], ModelMetrics],
        settings: Settings,
        board: SharedCounters | None = None,
    ) -> None:
        self._meters_for = meters_for
        self._board = board
        self._settings = settings
        self.snapshot = Snapshot(generation=-1)
        self.models: dict[str, ServedModel] = {}
        self.adapters: dict[str, ServedModel] = {}
        """By an adapter's name the model that has it."""
        self._targets: dict[Endpoint, UpstreamTarget] = {}

    def __repr__(self) -> str:
        return f"<Directory generation {self.snapshot.generation}, {len(self._targets)} targets>"

    def retune(self, settings: Settings) -> None:
        """Let every queue go on by other bounds."""
        self._settings = settings
        for model in self.models.values():
            model.admission.retune(settings)
            model.price = settings.prices.get(model.entry.name)

    def apply(self, snapshot: Snapshot) -> bool:
        """Take over a snapshot and return True, or False where it is older than the one in use."""
        if snapshot.generation < self.snapshot.generation:
            return False
        self.snapshot = snapshot
        engines = all_engines()
        self._apply_targets(snapshot, engines)
        known = self.models
        self.models = {
            entry.name: known.get(entry.name) or self._new_model(entry, engines[entry.engine])
            for entry in snapshot.models
        }
        for entry in snapshot.models:
            model = self.models[entry.name]
            model.entry, model.engine = entry, engines[entry.engine]
            model.continues = continuation.continues(entry.resume, model.engine.continues)
        self.adapters = {
            name: self.models[entry.name] for entry in snapshot.models for name in entry.adapters
        }
        for model in (gone for name, gone in known.items() if name not in self.models):
            model.targets = []  # what is under way goes on, what waits is told
            model.admission.targets_changed()
        for name, model in self.models.items():
            model.give([t for t in self._targets.values() if t.endpoint.model == name])
            model.admission.targets_changed()
        return True

    def _new_model(self, entry: ModelEntry, engine: Engine) -> ServedModel:
        meters = self._meters_for(entry.name)
        return ServedModel(entry, engine, meters=meters, settings=self._settings, board=self._board)

    def _apply_targets(self, snapshot: Snapshot, engines: dict[str, Engine]) -> None:
        # An endpoint that differs in anything (incarnation, key, slots) is another target, with connections of its own.
        ready = [endpoint for endpoint in snapshot.endpoints if endpoint.state is ReplicaState.READY]
        for endpoint in self._targets.keys() - set(ready):
            self._targets.pop(endpoint).retire()
        context = {entry.name: entry.max_context_tokens for entry in snapshot.models}
        for endpoint in ready:
            if endpoint not in self._targets:
                engine, tokens = engines[endpoint.engine], context.get(endpoint.model, 0)
                self._targets[endpoint] = UpstreamTarget(
                    endpoint, engine, context_tokens=tokens, board=self._board
                )

    def targets(self) -> Iterable[UpstreamTarget]:
        """Return every target in use."""
        return self._targets.values()

    def ready_counts(self) -> dict[str, int]:
        """Return how many targets each model has."""
        return {name: len(model.targets) for name, model in self.models.items()}

    def outlives_its_parent(self) -> bool:
        """Return whether some endpoint would still answer if the control plane were gone."""
        return any(not target.engine.managed for target in self._targets.values())
