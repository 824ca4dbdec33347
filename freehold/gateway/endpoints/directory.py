"""The gateway's address book: models and their endpoints from the newest snapshot. Pure.

A snapshot replaces the one before it whole, in one call, between two requests. A target that stays keeps its connections and
its count of requests; one that leaves takes no more and closes what is idle. Nothing here asks the control plane.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from freehold.core.events import Endpoint, ModelEntry, ReplicaState, Snapshot
from freehold.engines import all_engines
from freehold.engines.base import Engine
from freehold.gateway.answers.price import Price
from freehold.gateway.counters.request_metrics import ModelMetrics
from freehold.gateway.counters.shared_counters import SharedCounters
from freehold.gateway.endpoints.model import ModelAdmission, ServedModel, continues
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.queue.queue import QueueBounds


class Directory:
    """Models and targets of the newest snapshot; `new_admission` makes the queue of a new model."""

    def __init__(
        self,
        metrics_for: Callable[[str], ModelMetrics],
        new_admission: Callable[[ServedModel], ModelAdmission],
        *,
        prices: Mapping[str, Price],
        counters: SharedCounters | None = None,
    ) -> None:
        self._metrics_for = metrics_for
        self._new_admission = new_admission
        self._prices = prices
        self._counters = counters
        self.snapshot = Snapshot(generation=-1)
        self.models: dict[str, ServedModel] = {}
        self.adapters: dict[str, ServedModel] = {}
        """By an adapter's name the model that has it."""
        self._targets: dict[Endpoint, UpstreamTarget] = {}

    def __repr__(self) -> str:
        return f"<Directory generation {self.snapshot.generation}, {len(self._targets)} targets>"

    def retune(self, bounds: QueueBounds, prices: Mapping[str, Price]) -> None:
        """Use other bounds and prices from now on, in every queue."""
        self._prices = prices
        for model in self.models.values():
            model.admission.retune(bounds)
            model.price = prices.get(model.entry.name)

    def apply(self, snapshot: Snapshot) -> bool:
        """Use a snapshot and return True, or False where it is older than the one in use."""
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
            model.continues = continues(entry.resume, model.engine.continues)
        self.adapters = {
            name: self.models[entry.name] for entry in snapshot.models for name in entry.adapters
        }
        for model in (gone for name, gone in known.items() if name not in self.models):
            model.targets = []  # what is under way continues, what waits is rejected
            model.admission.targets_changed()
        for name, model in self.models.items():
            model.give([t for t in self._targets.values() if t.endpoint.model == name])
            model.admission.targets_changed()
        return True

    def _new_model(self, entry: ModelEntry, engine: Engine) -> ServedModel:
        return ServedModel(
            entry,
            engine,
            metrics=self._metrics_for(entry.name),
            price=self._prices.get(entry.name),
            new_admission=self._new_admission,
        )

    def _apply_targets(self, snapshot: Snapshot, engines: dict[str, Engine]) -> None:
        # An endpoint that differs in anything (incarnation, key, slots) is another target, with connections of its own.
        ready = [endpoint for endpoint in snapshot.endpoints if endpoint.state is ReplicaState.READY]
        for endpoint in self._targets.keys() - set(ready):
            self._targets.pop(endpoint).retire()
        context = {entry.name: entry.max_context_tokens for entry in snapshot.models}
        for endpoint in ready:
            if endpoint not in self._targets:
                engine = _with_habits(engines[endpoint.engine], engines.get(endpoint.kind))
                tokens = context.get(endpoint.model, 0)
                self._targets[endpoint] = UpstreamTarget(
                    endpoint, engine, context_tokens=tokens, counters=self._counters
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


def _with_habits(engine: Engine, kind: Engine | None) -> Engine:
    """Return an external server's engine with the habits of its kind: how it is asked, and when an error is its model's."""
    if kind is None:
        return engine
    return replace(
        engine,
        stream_to_abort=kind.stream_to_abort,
        usage_per_answer=kind.usage_per_answer,
        blames_model=kind.blames_model,
        request_keys=kind.request_keys,
    )
