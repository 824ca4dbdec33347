"""What the gateway answers by itself: models, health, metrics. No engine and no control plane is asked.

`/livez` says that this process runs its loop; `/readyz` says whether a balancer should send requests here: some model
has a ready replica and no drain is on; `/health` is the same question with the details for a person.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from freehold.gateway.refuse import Refusal, model_not_found
from freehold.gateway.targets import Model

if TYPE_CHECKING:
    from freehold.gateway.service import Gateway

JSON = "application/json"
Answer = tuple[int, bytes, str]
"""Status, body, content type."""


def models(gateway: "Gateway") -> Answer:
    """Return the list of models, in OpenAI's shape with vLLM's `max_model_len`."""
    rows = [_model_row(model) for model in gateway.directory.models.values()]
    return 200, msgspec.json.encode({"object": "list", "data": rows}), JSON


def one_model(gateway: "Gateway", name: str) -> Answer | Refusal:
    """Return one model, or the 404."""
    model = gateway.directory.models.get(name)
    if model is None:
        return model_not_found(name, list(gateway.directory.models))
    return 200, msgspec.json.encode(_model_row(model)), JSON


def _model_row(model: Model) -> dict[str, Any]:
    entry = model.entry
    row: dict[str, Any] = {
        "id": entry.name,
        "object": "model",
        "created": entry.created_s,
        "owned_by": "freehold",
        "root": entry.name,
        "parent": None,
        "permission": [],
    }
    return row | ({"max_model_len": entry.max_context_tokens} if entry.max_context_tokens else {})


def live(gateway: "Gateway") -> Answer:
    """Return 200: the loop turns."""
    del gateway
    return 200, b'{"status":"ok"}', JSON


def ready(gateway: "Gateway") -> Answer:
    """Return 200 when requests should come here, 503 otherwise, with the reason."""
    status = _status(gateway)
    return (200 if status in {"ok", "degraded"} else 503), msgspec.json.encode({"status": status}), JSON


def health(gateway: "Gateway") -> Answer:
    """Return the same verdict with what it rests on: replicas and queue per model, snapshot, requests under way."""
    snapshot = gateway.directory.snapshot
    wanted = {
        name: sum(r.model == name for r in snapshot.replicas or snapshot.endpoints)
        for name in gateway.directory.models
    }
    body = {
        "status": _status(gateway),
        "models": {
            name: {
                "ready": count,
                "wanted": wanted[name],
                "in_flight": gateway.directory.models[name].admission.totals()[0],
                "queue": _queue(gateway.directory.models[name]),
            }
            for name, count in gateway.directory.ready_counts().items()
        },
        "snapshot": {"generation": snapshot.generation, "age_s": round(gateway.snapshot_age_s(), 1)},
        "control_plane": "connected" if gateway.has_parent else "gone",
        "workers": _workers(gateway),
    }
    return ready(gateway)[0], msgspec.json.encode(body), JSON


def _workers(gateway: "Gateway") -> dict[str, int]:
    crew = gateway.crew
    return {"live": 1 if crew is None else crew.living, "wanted": gateway.settings.workers}


def _queue(model: Model) -> dict[str, Any]:
    line = model.admission.line
    _, waiting, tokens = model.admission.totals()
    limit = sum(target.gate.limit for target in model.targets)
    return {
        "waiting": waiting,
        "tokens": tokens,
        "limit": limit,
        "overloaded": line.overloaded,
    }


def _status(gateway: "Gateway") -> str:
    counts = gateway.directory.ready_counts()
    if gateway.draining:
        return "shutting_down"
    if not any(counts.values()):
        return "starting" if gateway.directory.snapshot.generation < 0 or not counts else "unavailable"
    return "ok" if all(counts.values()) else "degraded"


def metrics(gateway: "Gateway") -> Answer:
    """Return the Prometheus text."""
    metrics = gateway.meters.metrics if gateway.crew is None else gateway.crew.metrics(gateway)
    body, content_type = metrics.render()
    return 200, body, content_type


LOCAL: dict[str, Callable[["Gateway"], Answer]] = {
    "/v1/models": models,
    "/livez": live,
    "/readyz": ready,
    "/health": health,
    "/metrics": metrics,
}
