"""One model that clients can name, and which of its targets gets the next request. Pure.

It decides by load, by the prefix that a replica has in its cache, and by which targets answer. It does not
decide which requests wait for a full model: `queue.admission` does.
"""

from collections.abc import Callable, Collection
from math import inf

from freehold.core.events import CACHE_KEYS, PRIVATE_KEYS, ModelEntry
from freehold.engines.base import Continues, Engine
from freehold.gateway.answers.price import Price
from freehold.gateway.counters.request_metrics import ModelMetrics
from freehold.gateway.endpoints import balance, outlier_detection
from freehold.gateway.endpoints.prefix_key import key_of
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.queue.admission import Admission, QueuedRequest
from freehold.gateway.wire.request_tokens import TOKEN_BYTES_MAX

ModelAdmission = Admission[UpstreamTarget]
ModelRequest = QueuedRequest[UpstreamTarget]


def continues(chosen: str, by_engine: Continues | None) -> Continues | None:
    """Return how a model's engines continue an answer, from `resume` in freehold.yaml; None: they do not."""
    if chosen == "auto":
        return by_engine
    return None if chosen == "off" else Continues(chosen)


class ServedModel:
    """One model, with the targets that take its requests now."""

    __slots__ = ("_odd_until_s", "_ring", "admission", "continues", "engine", "entry", "known_keys", "metrics", "price",
                 "sure_bytes", "targets", "turn", "usage_per_answer")  # fmt: skip

    def __init__(
        self,
        entry: ModelEntry,
        engine: Engine,
        *,
        metrics: ModelMetrics,
        price: Price | None = None,
        new_admission: Callable[["ServedModel"], ModelAdmission],
    ) -> None:
        self.entry = entry
        self.engine = engine
        self.continues = continues(entry.resume, engine.continues)
        """How a stream whose engine died is continued; None: it is not."""
        self.metrics = metrics
        self.targets: list[UpstreamTarget] = []
        self.usage_per_answer = engine.usage_per_answer
        """Some target reports a usage for each of several answers."""
        self.known_keys: frozenset[str] = frozenset()
        """Keys that a request may have at its top; empty: all."""
        self.sure_bytes = inf
        """Bodies of up to so many bytes may fit the context; infinity: it is not known."""
        self.turn = 0
        self._ring: balance.Ring | None = None
        """Homes of conversations; None: all targets serve them equally well."""
        self._odd_until_s = 0.0
        """Until then some target is ejected, on trial or busy; infinity while one is ejected."""
        self.price = price
        """What its tokens are charged; None: it has no price."""
        self.admission = new_admission(self)

    def give(self, targets: list[UpstreamTarget]) -> None:
        """Use the targets of a new snapshot."""
        self.targets = targets
        self.usage_per_answer = any(target.engine.usage_per_answer for target in targets)
        self.known_keys = self._known_keys()
        self.sure_bytes = self.entry.max_context_tokens * TOKEN_BYTES_MAX or inf
        self._look()
        many = len(targets) > 1 and self.entry.affinity
        self._ring = balance.Ring({target.id: target.slots for target in targets}) if many else None

    def _known_keys(self) -> frozenset[str]:
        lists = [target.engine.request_keys for target in self.targets] or [self.engine.request_keys]
        known = frozenset.intersection(*lists)
        return known.union(PRIVATE_KEYS, CACHE_KEYS, self.entry.allow_keys) if known else known

    def take(self, request: ModelRequest, now_s: float) -> UpstreamTarget | None:
        """Return the best target not yet tried that has room, with a place there taken; None: there is none.

        One that is ejected or busy is chosen only where all are: while others are merely full, it is better to wait.
        """
        cost_tokens, targets = request.cost_tokens, self.targets
        adapter = request.request.adapter
        if len(targets) == 1 and not request.tried and not adapter:
            return targets[0] if targets[0].gate.enter(cost_tokens) else None
        if adapter:  # while replicas are replaced, some may not have it yet
            targets = [target for target in targets if adapter in target.adapters]
        if request.tried or self._odd_until_s > now_s:
            targets = self._standing(targets, request.tried, now_s)
        chosen = self._choose([t for t in targets if t.gate.has_room(cost_tokens)], request)
        if chosen is not None:
            chosen.gate.enter(cost_tokens)
            if chosen.outlier.begin(now_s):
                request.on_trial = True
        return chosen

    def standing(self, now_s: float) -> int:
        """Return how many targets are ready and not ejected."""
        return sum(not target.outlier.is_out(now_s) for target in self.targets)

    def has_adapter(self, name: str) -> bool:
        """Return whether any target has an adapter; the empty name is the model itself, which all have."""
        return not name or any(name in target.adapters for target in self.targets)

    def has_room(self, now_s: float, cost_tokens: int) -> bool:
        """Return whether `take` would find a target for a request that was not tried anywhere yet."""
        targets = self._standing(self.targets, (), now_s) if self._odd_until_s > now_s else self.targets
        return any(target.gate.has_room(cost_tokens) for target in targets)

    def _choose(self, targets: list[UpstreamTarget], request: ModelRequest) -> UpstreamTarget | None:
        if self._ring is not None and targets:
            body, key = request.request.body, request.prefix_key
            if key is None:
                key = request.prefix_key = key_of(request.request.path, body)
            if key:
                prompt = self.admission.estimate.prompt_tokens(len(body))
                found = balance.choose_by_key(
                    targets, self._ring, key=key, cost_tokens=request.cost_tokens, prompt_tokens=prompt
                )
                if found is not None:
                    self.metrics.went(home=found[1])
                    return found[0]
        self.turn += 1
        return balance.choose(targets, turn=self.turn)

    def _standing(
        self, among: list[UpstreamTarget], tried: Collection[UpstreamTarget], now_s: float
    ) -> list[UpstreamTarget]:
        """Return which of these may be asked at all: the healthy ones, else the busy ones, else the least bad one."""
        untried = [target for target in among if target not in tried]
        kept = [target for target in outlier_detection.kept(among, now_s) if target in untried]
        ready = [target for target in kept if target.outlier.busy_until_s <= now_s]
        return ready or kept or sorted(untried, key=outlier_detection.badness)[:1]

    def failed(
        self, target: UpstreamTarget, failure: outlier_detection.Failure, now_s: float
    ) -> outlier_detection.Reason | None:
        """Count a failure of a target; return why it is ejected now, or None. The only target is never ejected."""
        if target.gone or len(self.targets) < 2:
            return None
        reason = target.outlier.note(failure, [each.outlier for each in self.targets], now_s)
        if reason is not None:
            self._odd_until_s = inf
            self.metrics.ejected(reason)
        return reason

    def busy(self, target: UpstreamTarget, until_s: float) -> None:
        """Prefer other targets until `until_s`: this one answered that it is busy, which is not a failure."""
        outlier = target.outlier
        outlier.busy_until_s = max(outlier.busy_until_s, until_s)
        self._odd_until_s = max(self._odd_until_s, until_s)

    def succeeded(self, target: UpstreamTarget, now_s: float) -> None:
        """Count an answer of a target."""
        if target.outlier.succeeded(now_s):
            self._look()

    def _look(self) -> None:
        states = [target.outlier for target in self.targets]
        ejected = any(state.until_s for state in states)
        busy_s = max((state.busy_until_s for state in states), default=0.0)
        self._odd_until_s = inf if ejected else busy_s
