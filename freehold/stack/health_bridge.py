"""The bridge between the agent of a node and the fleet: replicas to the agent, stalled engines to the fleet, metrics to the gateway.

The fleet restarts an engine only if the same process has been stalled, or has worked for no client, for RESTART_S. Any other busy
engine is never reported. This module decides nothing else.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from freehold.core.clock import wall_s
from freehold.core.events import EndpointLoad, ReplicaState, ReplicaStatus, Snapshot
from freehold.core.findings import Finding, Verdict
from freehold.engines.base import HttpCheck
from freehold.fleet.run import Fleet
from freehold.gateway.process.worker_set import WorkerSet
from freehold.health.agent.history_file import HistoryFile
from freehold.health.agent.link import AgentLink, AgentListeners
from freehold.health.agent.messages import HealthSettings
from freehold.health.checks.engine_progress import STILL_S
from freehold.health.incidents.history import FILE_NAME, Mark
from freehold.health.model.snapshot import HealthSnapshot, SettledFinding
from freehold.health.model.targets import EngineTarget
from freehold.stack.status import StackStatus

NAME = "agent"
"""The agent's name in records and logs."""
SEND_S = 1.0
"""Interval between two messages to the agent. Source: the gateway reports its figures once a second."""
RESTART_S = 30.0
"""How long an engine must be stalled before it is restarted. Source: our own choice: by then the gateway uses other
replicas, and a process that was stopped for a moment runs again."""
SUSPECT_S = 120.0
"""The same if every replica is stalled just after the agent itself was frozen, as on a machine that was suspended. Source: our
own choice: an engine that was only frozen works again long before, and one that lost its GPU does not."""
_RESTARTED = frozenset({"stalled", "no_client"})
"""Reasons of the progress check for which an engine is restarted."""
_EXITED = frozenset({ReplicaState.BACKOFF, ReplicaState.CRASH_LOOP})


def targets_from_status(status: StackStatus | None) -> tuple[EngineTarget, ...]:
    """Return the engines of a running stack, from its status; empty without a stack."""
    return tuple(
        EngineTarget(
            replica=replica.id,
            engine=replica.engine,
            model=replica.model,
            url=replica.url,
            pid=replica.pid or 0,
            state=replica.state,
            exit_text=replica.reason if replica.state in _EXITED else "",
        )
        for replica in (status.replicas if status else ())
    )


def mark_healthy(state_path: Path, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write an operator's mark into the history and return it, or an error; the time and the user are not the client's to choose. Blocks."""
    try:
        asked = msgspec.convert(request.get("mark"), Mark)
        mark = msgspec.structs.replace(asked, set_healthy_s=wall_s(), by=str(request["by"]))
        HistoryFile(state_path / FILE_NAME).mark(mark)
    except msgspec.ValidationError as exc:
        return {"error": f"not a mark: {exc}"}
    except OSError as exc:
        return {"error": f"cannot write {state_path / FILE_NAME}: {exc.strerror or exc}"}
    return {"mark": msgspec.to_builtins(mark)}


def targets(
    snapshot: Snapshot,
    loads: Mapping[str, EndpointLoad] | None,
    proofs: Mapping[str, HttpCheck] | None = None,
) -> tuple[EngineTarget, ...]:
    """Return what the agent needs of each replica; `loads` is None before the gateway's first report.

    `proofs` are the requests that prove replicas alive, by id; without one the engine's usual request is used.
    """
    endpoints = {endpoint.id: endpoint for endpoint in snapshot.endpoints}
    stall_s = {model.name: model.stall_s for model in snapshot.models}
    found = []
    for replica in snapshot.replicas:
        endpoint = endpoints.get(replica.id)
        load = None if loads is None else loads.get(replica.id, EndpointLoad(0, 0))
        found.append(
            EngineTarget(
                replica=replica.id,
                engine=replica.engine,
                model=(endpoint.upstream_model if endpoint else "") or replica.model,
                url=endpoint.url if endpoint else "",
                pid=replica.pid or 0,
                state=replica.state,
                key=endpoint.api_key if endpoint else "",
                running=load.requests if load else None,
                progress=load.bytes if load else None,
                exit_text=replica.reason if replica.state in _EXITED else "",
                stall_s=stall_s.get(replica.model, 0.0),
                proof=(proofs or {}).get(replica.id),
            )
        )
    return tuple(found)


def stalled_replicas(
    snapshot: HealthSnapshot, replicas: Iterable[ReplicaStatus], now_s: float
) -> list[tuple[ReplicaStatus, Finding]]:
    """Return the replicas whose present process has been stalled long enough to be restarted.

    The time that the agent itself was frozen does not count.
    """
    there = [replica for replica in replicas if replica.pid is not None]
    found = list(_stalled(snapshot, there))
    suspect = len(found) == len(there) and all(_from_a_gap(snapshot, each) for _, each in found)
    least_s = SUSPECT_S if suspect else RESTART_S
    return [
        (replica, each.finding)
        for replica, each in found
        if now_s - max(each.since_s, snapshot.woke_s) >= least_s
    ]


def recovered_replicas(snapshot: HealthSnapshot, replicas: Iterable[ReplicaStatus]) -> list[ReplicaStatus]:
    """Return the replicas whose progress check is healthy."""
    well = _of_progress(snapshot, Verdict.HEALTHY)
    return [replica for replica in replicas if f"engine:{replica.id}" in well]


def _of_progress(snapshot: HealthSnapshot, verdict: Verdict) -> dict[str, SettledFinding]:
    """Return the findings of the progress check with this verdict, by component."""
    findings = (each for each in snapshot.findings if each.finding.probe == "engine_progress")
    return {each.finding.component: each for each in findings if each.finding.verdict is verdict}


def _stalled(
    snapshot: HealthSnapshot, replicas: Iterable[ReplicaStatus]
) -> Iterator[tuple[ReplicaStatus, SettledFinding]]:
    """Yield the replicas whose present process has a confirmed finding for which it is restarted."""
    sick = _of_progress(snapshot, Verdict.UNHEALTHY)
    for replica in replicas:
        confirmed = sick.get(f"engine:{replica.id}")
        if confirmed is None or confirmed.finding.reason not in _RESTARTED:
            continue
        if replica.started_wall_s is not None and confirmed.since_s > replica.started_wall_s:
            yield replica, confirmed


def _from_a_gap(snapshot: HealthSnapshot, confirmed: SettledFinding) -> bool:
    """Return whether a stall was confirmed so soon after the agent was frozen that it may be an effect of the freeze."""
    return 0 <= confirmed.since_s - snapshot.woke_s < STILL_S


class NodeWatch:
    """The agent of the node that a stack runs on."""

    def __init__(
        self,
        settings: HealthSettings,
        logs: Path,
        *,
        fleet: Fleet,
        gateway: WorkerSet,
        on_start: Callable[[str, int], object],
    ) -> None:
        self._fleet, self._gateway = fleet, gateway
        self.link = AgentLink(
            settings,
            stderr_path=logs / "health.stderr.log",
            listeners=AgentListeners(
                on_snapshot=self._on_snapshot,
                on_metrics=gateway.send,
                on_start=lambda pid: on_start(NAME, pid),
            ),
        )

    async def run(self) -> None:
        """Keep the agent running and send it the replicas until `stop`."""
        sending = asyncio.create_task(self._send())
        try:
            await self.link.run()
        finally:
            sending.cancel()

    def stop(self) -> None:
        """Stop the agent."""
        self.link.stop()

    async def _send(self) -> None:
        while True:
            stats = self._gateway.stats
            loads = None if stats is None else stats.loads
            self.link.send_targets(targets(self._fleet.snapshot, loads, self._fleet.proofs()))
            await asyncio.sleep(SEND_S)

    def _on_snapshot(self, snapshot: HealthSnapshot) -> None:
        for replica, finding in stalled_replicas(snapshot, self._fleet.statuses(), wall_s()):
            self._fleet.stalled(replica.id, pid=replica.pid or 0, reason=finding.message)
        for replica in recovered_replicas(snapshot, self._fleet.statuses()):
            self._fleet.recovered(replica.id, pid=replica.pid or 0)
