"""The view as others read it: `Snapshot` for the gateway, `ReplicaStatus` for people.

Pure. It adds nothing: an unknown value stays None, and a key is in an endpoint only, never in a status.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from freehold.core.events import AdapterAsk, Endpoint, ModelEntry, ReplicaState, ReplicaStatus, Snapshot
from freehold.engines.base import Capacity
from freehold.fleet.decisions.meter import tokens_per_s
from freehold.fleet.decisions.plan import ReplicaPlan
from freehold.fleet.decisions.state import FleetView, Replica

_SHOWN = frozenset(
    {
        ReplicaState.STARTING,
        ReplicaState.READY,
        ReplicaState.ASLEEP,
        ReplicaState.DRAINING,
        ReplicaState.STOPPING,
    }
)


def build_snapshot(
    view: FleetView,
    plans: Sequence[ReplicaPlan],
    *,
    generation: int,
    wall_offset_s: float,
    wanted: Sequence[ReplicaPlan] | None = None,
) -> Snapshot:
    """Return the snapshot of a view; `wall_offset_s` plus monotonic seconds is Unix time (fixed per controller).

    `plans` are those of the view's replicas; models are those of `wanted`, where that differs.
    """
    by_id = {plan.id: plan for plan in plans}
    order = list(dict.fromkeys(plan.model for plan in (*(wanted or ()), *plans)))
    known = sorted(
        ((by_id[replica.id], replica) for replica in view.replicas),
        key=lambda pair: order.index(pair[0].model),
    )
    return Snapshot(
        generation=generation,
        models=tuple(_models(_served(plans, wanted), view, round(wall_offset_s + view.born_s)).values()),
        endpoints=tuple(
            _endpoint(plan, replica)
            for plan, replica in known
            if replica.url and (not replica.managed or replica.state in _SHOWN)
        ),
        replicas=tuple(_status(plan, replica, wall_offset_s) for plan, replica in known),
        ends=tuple(replica.end for _, replica in known if replica.end is not None),
    )


def _served(plans: Sequence[ReplicaPlan], wanted: Sequence[ReplicaPlan] | None) -> Sequence[ReplicaPlan]:
    """Return the plans that describe the models: a model that is being removed is left out, though its replicas drain."""
    if wanted is None:
        return plans
    names = {plan.model for plan in wanted}
    return [*wanted, *(plan for plan in plans if plan.model in names)]


def _models(plans: Sequence[ReplicaPlan], view: FleetView, created_s: int) -> Mapping[str, ModelEntry]:
    """Return each model once, in the user's order; the replica with the shortest known context sets the limit."""
    models: dict[str, ModelEntry] = {}
    reported = {replica.id: replica.capacity for replica in view.replicas}
    for plan in plans:
        known = models.get(plan.model)
        tokens = _capacity(plan, reported.get(plan.id)).max_context_tokens
        limits = [limit for limit in (tokens, known.max_context_tokens if known else 0) if limit]
        first = known or ModelEntry(
            name=plan.model,
            engine=plan.engine.name,
            created_s=created_s,
            stall_s=plan.stall_s or plan.engine.stall_s,
            affinity=plan.affinity,
            resume=plan.resume,
            media_urls=plan.media_urls,
            allow_keys=plan.allow_keys,
            adapters=tuple(adapter.name for adapter in plan.adapters),
        )
        models[plan.model] = msgspec.structs.replace(first, max_context_tokens=min(limits, default=0))
    return models


def _capacity(plan: ReplicaPlan, reported: Capacity | None) -> Capacity:
    """Return a replica's capacity: as configured, else as the server reported it."""
    engine, options = plan.engine, plan.options
    said = Capacity(
        slots=engine.slots(options),
        kv_tokens=engine.kv_tokens(options) if engine.kv_tokens else 0,
        max_context_tokens=engine.max_context_tokens(options),
    )
    return said.filled(reported or Capacity())


def _endpoint(plan: ReplicaPlan, replica: Replica) -> Endpoint:
    capacity = _capacity(plan, replica.capacity)
    return Endpoint(
        id=plan.id,
        model=plan.model,
        url=replica.url,
        engine=plan.engine.name,
        state=replica.state,
        slots=capacity.slots,
        kv_tokens=capacity.kv_tokens,
        incarnation=replica.incarnation,
        upstream_model=plan.upstream_model,
        api_key=replica.key or plan.api_key,
        adapters=tuple(_asks(plan)),
        kind=capacity.kind,
        reuse_on_ask=plan.reuse_on_ask,
    )


def _asks(plan: ReplicaPlan) -> Iterator[AdapterAsk]:
    """Yield the request keys that select each adapter on this replica: another replica may number them differently."""
    ask = plan.engine.ask_adapter
    for place, adapter in enumerate(plan.adapters):
        assert ask is not None, (
            f"{plan.engine.name} takes no adapters; the configuration's check refuses them"
        )
        keys = ask(plan.name_upstream, place, adapter)
        yield AdapterAsk(name=adapter.name, keys=msgspec.json.encode(keys).decode())


def _status(plan: ReplicaPlan, replica: Replica, wall_offset_s: float) -> ReplicaStatus:
    process = replica.process
    ready = process is not None and process.ready_s is not None and replica.state is ReplicaState.READY
    return ReplicaStatus(
        id=plan.id,
        model=plan.model,
        engine=plan.engine.name,
        state=replica.state,
        url=replica.url,
        pid=process.pid if process else None,
        started_wall_s=wall_offset_s + process.ordered_s if process else None,
        ready_wall_s=wall_offset_s + (process.ready_s or 0.0) if process and ready else None,
        restarts=max(0, replica.incarnation - replica.base - 1),
        tokens_per_s=tokens_per_s(replica.meter),
        tokens_total=replica.meter.readings[-1][1] if replica.meter.readings else None,
        last_end=replica.ended,
        last_end_wall_s=None if replica.ended_s is None else wall_offset_s + replica.ended_s,
        reason=replica.reason,
        hint=replica.hint,
        gpus=plan.gpus,
        adapters=tuple(adapter.name for adapter in plan.adapters),
    )
