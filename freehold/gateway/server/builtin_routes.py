"""What the gateway answers by itself: models, health, metrics. No engine and no control plane is asked.

`/livez` reports that this process runs its loop; `/readyz` reports whether a balancer should send requests here: some model
has a ready replica and no drain is on; `/health` is the same question with the details for a person.
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from freehold.core.events import Snapshot
from freehold.gateway.endpoints.directory import Directory
from freehold.gateway.endpoints.model import ServedModel
from freehold.gateway.server.gateway import Gateway
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request import ENGINE_PATHS, Caller, Request

JSON = "application/json"
Answer = tuple[int, bytes, str]
"""Status, body, content type."""
_TLS_TROUBLE = (
    "the TLS files cannot be used; the last good ones stay in use; freehold logs gateway has the reason"
)


def models_for(gateway: Gateway, caller: Caller | None) -> list[str]:
    """Return the names of the models that a caller may use, all of them if no key is needed."""
    known = gateway.directory
    return [name for name in (*known.models, *known.adapters) if caller is None or caller.may_use(name)]


def models(gateway: Gateway, request: Request) -> Answer:
    """Return the list of the caller's models, in OpenAI's shape with vLLM's `max_model_len`."""
    rows = [_model_row(gateway.directory, name) for name in models_for(gateway, request.caller)]
    return 200, msgspec.json.encode({"object": "list", "data": rows}), JSON


def _one_model(gateway: Gateway, name: str, caller: Caller | None) -> Answer | Rejection:
    """Return one model, or the 404, also for one that is not the caller's to use."""
    known = models_for(gateway, caller)
    if name not in known:
        return errors.model_not_found(name, known)
    return 200, msgspec.json.encode(_model_row(gateway.directory, name)), JSON


def _model_row(directory: Directory, name: str) -> dict[str, Any]:
    """Return a model, or an adapter with its model as the parent, as vLLM shows them."""
    adapted = directory.adapters.get(name)
    entry = (adapted or directory.models[name]).entry
    row: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": entry.created_s,
        "owned_by": "freehold",
        "root": name,
        "parent": None if adapted is None else entry.name,
        "permission": [],
    }
    return row | ({"max_model_len": entry.max_context_tokens} if entry.max_context_tokens else {})


def live(gateway: Gateway, request: Request) -> Answer:
    """Return 200: the loop turns."""
    del gateway, request
    return 200, b'{"status":"ok"}', JSON


def ready(gateway: Gateway, request: Request) -> Answer:
    """Return 200 when requests should come here, 503 otherwise, with the reason."""
    del request
    status = _status(gateway)
    return (200 if status in {"ok", "degraded"} else 503), msgspec.json.encode({"status": status}), JSON


def health(gateway: Gateway, request: Request) -> Answer:
    """Return the same verdict with what it rests on: replicas and queue of the caller's models, snapshot, requests under way.

    It needs no key, so without one models and costs are shown where `/metrics` needs none either.
    """
    directory, caller = gateway.directory, request.caller
    context, group, snapshot = gateway.context, gateway.group, directory.snapshot
    shown = caller is not None or gateway.authenticator is None or _is_open(gateway, request)
    names = [name for name in directory.models if shown and (caller is None or caller.may_use(name))]
    body = {
        "status": _status(gateway),
        "models": {name: _model_health(directory.models[name], snapshot) for name in names},
        "snapshot": {"generation": snapshot.generation, "age_s": round(gateway.snapshot_age_s(), 1)},
        "control_plane": "connected" if gateway.has_parent else "gone",
        "workers": {
            "live": 1 if group is None else group.counters.living,
            "wanted": context.settings.workers,
        },
        "ledger": {"status": "off"} if context.ledger is None else context.ledger.health(),
    }
    if gateway.authenticator is not None:
        body["keys"] = {
            "active": gateway.authenticator.active,
            "trouble": gateway.authenticator.trouble or None,
        }
    if gateway.tls_files is not None:
        body["tls"] = {"trouble": _TLS_TROUBLE if gateway.tls_files.trouble else None}
    if gateway.fallbacks is not None:
        body["fallback"] = gateway.fallbacks.health(spent=shown)
    return ready(gateway, request)[0], msgspec.json.encode(body), JSON


def _is_open(gateway: Gateway, request: Request) -> bool:
    """Return whether metrics are read without a key: on the loopback, by no web page of another host."""
    return gateway.context.settings.metrics_open and not request.foreign


def _ejected(model: ServedModel) -> int:
    return sum(bool(target.outlier.until_s) for target in model.targets)


def _model_health(model: ServedModel, snapshot: Snapshot) -> dict[str, Any]:
    in_flight, waiting, tokens = model.admission.totals()
    return {
        "ready": len(model.targets),
        "wanted": sum(r.model == model.entry.name for r in snapshot.replicas or snapshot.endpoints),
        "ejected": _ejected(model),
        "in_flight": in_flight,
        "queue": {
            "waiting": waiting,
            "tokens": tokens,
            "limit": sum(target.gate.limit for target in model.targets),
            "overloaded": model.admission.line.overloaded,
        },
    }


def _status(gateway: Gateway) -> str:
    counts = gateway.directory.ready_counts()
    if gateway.context.draining:
        return "shutting_down"
    if not any(counts.values()) and not _answered_elsewhere(gateway):
        return "starting" if gateway.directory.snapshot.generation < 0 or not counts else "unavailable"
    trouble = gateway.authenticator is not None and bool(gateway.authenticator.trouble)
    trouble = trouble or (gateway.tls_files is not None and bool(gateway.tls_files.trouble))
    trouble = trouble or any(map(_ejected, gateway.directory.models.values()))
    return "ok" if all(counts.values()) and not trouble else "degraded"


def _answered_elsewhere(gateway: Gateway) -> bool:
    """Return whether another provider answers some model's requests while no replica is ready."""
    if gateway.fallbacks is None:
        return False
    found = map(gateway.fallbacks.of, gateway.directory.models.values())
    return any(route.covers_outage for routes in found for route in routes)


def metrics(gateway: Gateway, request: Request) -> Answer | Rejection:
    """Return the Prometheus text: of all workers, and after it the metrics of the node's agent."""
    caller, known = request.caller, gateway.directory
    if not _is_open(gateway, request):
        if caller is None:
            # Without keys, a web page whose name was made to point here (DNS rebinding) could read it.
            return errors.forbidden(
                "Metrics are read under a loopback name, such as http://127.0.0.1:PORT/metrics."
            )
        if not all(map(caller.may_use, (*known.models, *known.adapters))):
            return errors.forbidden("Metrics show every model, and this API key may not use all of them.")
    metrics = (
        gateway.context.metrics.metrics
        if gateway.group is None
        else gateway.group.metrics(gateway.context.metrics.metrics)
    )
    # Bound again, since a sum over workers would show the oldest report of any of them.
    gateway.agent.watch(metrics)
    body, content_type = metrics.render()
    return 200, body + gateway.agent.text(), content_type


_ROUTES: dict[str, Callable[[Gateway, Request], Answer | Rejection]] = {
    "/v1/models": models,
    "/livez": live,
    "/readyz": ready,
    "/health": health,
    "/metrics": metrics,
}


def answer(gateway: Gateway, request: Request) -> Answer | Rejection:
    """Return the gateway's own answer to a request for a path that no engine serves."""
    path = request.path
    if path == "*":  # of OPTIONS: a ping (RFC 9110 9.3.7)
        return 200, b"", JSON
    route = _ROUTES.get(path)
    one_model = path.startswith("/v1/models/") and len(path) > len("/v1/models/")
    if route is None and not one_model:
        return errors.not_found(path, ENGINE_PATHS | _ROUTES.keys())
    if request.method not in {b"GET", b"HEAD"}:
        return errors.wrong_method(request.method.decode("ascii"), "GET, HEAD")
    if route is not None:
        return route(gateway, request)
    name = unquote_to_bytes(path.removeprefix("/v1/models/")).decode("utf-8", "replace")
    return _one_model(gateway, name, request.caller)
