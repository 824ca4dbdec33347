"""Metrics that are read at each scrape instead of being counted: the levels of queues, endpoints and replicas.

Names and meanings stand in `freehold.telemetry.declared`; nothing is counted here.
"""

from collections.abc import Callable, Iterator

from freehold.core.events import ReplicaState, Snapshot
from freehold.gateway.counters.request_metrics import read_at_scrape
from freehold.gateway.endpoints.directory import Directory
from freehold.gateway.endpoints.model import ServedModel
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.telemetry.metrics import Metrics, Reading, Values


def watch_directory(metrics: Metrics, directory: Directory) -> None:
    """Read the levels of models, endpoints and replicas."""

    def per_model(level: Callable[[ServedModel], float]) -> Reading:
        return lambda: {(name,): level(model) for name, model in directory.models.items()}

    def per_target(level: Callable[[UpstreamTarget], float]) -> Reading:
        return lambda: {(target.id,): level(target) for target in directory.targets()}

    readings: dict[str, Reading] = {
        "freehold_gateway_in_flight": per_model(lambda m: m.admission.line.under_way),
        "freehold_gateway_queue_requests": per_model(lambda m: m.admission.line.waiting),
        "freehold_gateway_queue_tokens": per_model(lambda m: m.admission.line.tokens),
        "freehold_gateway_queue_overloaded": per_model(lambda m: float(m.admission.line.overloaded)),
        "freehold_gateway_endpoint_limit": per_target(lambda t: t.gate.limit),
        "freehold_gateway_endpoint_ejected": per_target(lambda t: float(t.outlier.until_s > 0)),
        "freehold_gateway_upstream_connections": per_target(lambda t: t.gate.in_flight + t.idle_count),
        "freehold_gateway_snapshot_generation": lambda: {(): directory.snapshot.generation},
        "freehold_replica_state": lambda: dict(_states(directory.snapshot)),
        "freehold_replica_tokens_per_second": lambda: dict(_tokens_per_s(directory.snapshot)),
        "freehold_replica_restarts_total": lambda: {
            (r.model, r.id): r.restarts for r in directory.snapshot.replicas
        },
    }
    read_at_scrape(metrics, readings)


def _states(snapshot: Snapshot) -> Iterator[tuple[Values, float]]:
    for replica in snapshot.replicas:
        for state in ReplicaState:
            yield (replica.model, replica.id, state.value), float(replica.state is state)


def _tokens_per_s(snapshot: Snapshot) -> Iterator[tuple[Values, float]]:
    for replica in snapshot.replicas:
        if replica.tokens_per_s is not None:
            yield (replica.model, replica.id), replica.tokens_per_s
