"""The controller's agent: what it is told to watch, which engines there are, and what the fleet is told of those that hang.

The agent sees and the fleet acts; this passes words between them, and what the agent counts to the gateway's page. Only an engine that has been stalled for a while, by the same
process, is named to the fleet; one that is busy never is.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from freehold.core.clock import wall_s
from freehold.core.events import EndpointLoad, ReplicaState, ReplicaStatus, Snapshot
from freehold.core.findings import Finding, Verdict
from freehold.engines.base import HttpCheck
from freehold.fleet.run import Fleet
from freehold.gateway.process.worker_set import WorkerSet
from freehold.health.agent.link import AgentLink, AgentListeners
from freehold.health.agent.messages import HealthSettings
from freehold.health.checks.engine_progress import STILL_S
from freehold.health.model.snapshot import HealthSnapshot, SettledFinding
from freehold.health.model.targets import EngineTarget
from freehold.stack.status import StackStatus

NAME = "agent"
"""What it is called in records and logs."""
TELL_S = 1.0
"""Between two looks at what the agent should know of the engines. Source: the gateway's own pace of figures."""
RESTART_S = 30.0
"""How long an engine must have been stalled before it is replaced. Source: our own choice: the gateway has turned to other
replicas by then, and a person who stopped it for a moment has let go."""
SUSPECT_S = 120.0
"""The same where every replica is called stalled just after the agent itself had stood still, as a whole machine does that was
suspended. Source: our own choice: what was merely frozen has gone on long before, and what lost its GPU over it has not."""
_EXITED = frozenset({ReplicaState.BACKOFF, ReplicaState.CRASH_LOOP})


def targets_from_status(status: StackStatus | None) -> tuple[EngineTarget, ...]:
    """Return the engines of a running stack as its status tells of them; empty: none runs."""
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


def targets(
    snapshot: Snapshot,
    loads: Mapping[str, EndpointLoad] | None,
    proofs: Mapping[str, HttpCheck] | None = None,
) -> tuple[EngineTarget, ...]:
    """Return what an agent must know of each replica; `loads` None: the gateway has not spoken yet.

    `proofs` are the requests that show replicas alive, by id; one without has its engine's usual one.
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


def hanging(
    snapshot: HealthSnapshot, replicas: Iterable[ReplicaStatus], now_s: float
) -> list[tuple[ReplicaStatus, Finding]]:
    """Return the replicas whose present process has been stalled for long enough to be replaced.

    The time that the agent itself stood still does not count: nobody looked.
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


def recovered(snapshot: HealthSnapshot, replicas: Iterable[ReplicaStatus]) -> list[ReplicaStatus]:
    """Return the replicas that are seen to be well."""
    well = {
        each.finding.component
        for each in snapshot.findings
        if each.finding.probe == "engine_progress" and each.finding.verdict is Verdict.HEALTHY
    }
    return [replica for replica in replicas if f"engine:{replica.id}" in well]


def _stalled(
    snapshot: HealthSnapshot, replicas: Iterable[ReplicaStatus]
) -> Iterator[tuple[ReplicaStatus, SettledFinding]]:
    """Yield the replicas whose present process is believed to be stalled."""
    stalled = {
        each.finding.component: each
        for each in snapshot.findings
        if each.finding.probe == "engine_progress"
        and each.finding.reason == "stalled"
        and each.finding.verdict is Verdict.UNHEALTHY
    }
    for replica in replicas:
        believed = stalled.get(f"engine:{replica.id}")
        started_s = replica.started_wall_s
        if believed is not None and started_s is not None and believed.since_s > started_s:
            yield replica, believed


def _from_a_gap(snapshot: HealthSnapshot, believed: SettledFinding) -> bool:
    """Return whether a stall was believed so soon after the agent stood still that the stillness seen must be that gap's."""
    return 0 <= believed.since_s - snapshot.woke_s < STILL_S


class NodeWatch:
    """The agent of one stack's node."""

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
                on_snapshot=self._heard,
                on_metrics=gateway.show,
                on_start=lambda pid: on_start(NAME, pid),
            ),
        )

    async def run(self) -> None:
        """Keep the agent running and told until `stop`."""
        telling = asyncio.create_task(self._tell())
        try:
            await self.link.run()
        finally:
            telling.cancel()

    def stop(self) -> None:
        """Let the agent end."""
        self.link.stop()

    async def _tell(self) -> None:
        while True:
            stats = self._gateway.stats
            loads = None if stats is None else stats.loads
            self.link.send_targets(targets(self._fleet.snapshot, loads, self._fleet.proofs()))
            await asyncio.sleep(TELL_S)

    def _heard(self, snapshot: HealthSnapshot) -> None:
        for replica, finding in hanging(snapshot, self._fleet.statuses(), wall_s()):
            self._fleet.stalled(replica.id, pid=replica.pid or 0, reason=finding.message)
        for replica in recovered(snapshot, self._fleet.statuses()):
            self._fleet.recovered(replica.id, pid=replica.pid or 0)
