"""The controller's agent: what it is told to watch, which engines there are, and what the fleet is told of those that hang.

The agent sees and the fleet acts; this passes words between them, and what the agent counts to the gateway's page. Only an engine that has been stalled for a while, by the same
process, is named to the fleet; one that is busy never is.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from freehold.core.clock import wall_s
from freehold.core.events import EndpointLoad, ReplicaState, ReplicaStatus, Snapshot
from freehold.core.findings import Finding, Verdict
from freehold.engines.base import HttpCheck
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.run import Fleet
from freehold.gateway.process.worker_set import WorkerSet
from freehold.health.agent.link import AgentLink, Hearers
from freehold.health.agent.messages import EngineTarget, HealthSettings, MeshNode, MeshOptions
from freehold.health.agent.runner import Source
from freehold.health.agent.sources import sources_for
from freehold.health.checks.engine_progress import STILL_S
from freehold.health.collectors.disks import DiskOptions
from freehold.health.collectors.engines import EnginesReader
from freehold.health.model.probe import Expected
from freehold.health.model.snapshot import Believed, HealthSnapshot
from freehold.spec.model import HealthExpectSpec
from freehold.spec.shapes import parse_listen, parse_peer
from freehold.stack.config import Config
from freehold.stack.status import StackStatus
from freehold.weights.store import store_root

NAME = "agent"
"""What it is called in records and logs."""
LOG_NAME = "health.log"
LOOK_FILE, LOOK_WRITE_FILE = ".freehold-disk-look", ".freehold-disk-look-write"
LOOK_BYTES = 4 << 20
"""4 MiB: written in a moment, and still more than one block. Source: our own choice."""
LOOK_READ_S = 0.05
"""Between two reads of a short look, so that some forty are made. Source: our own choice."""
LOOK_WRITE_S = 0.2
"""Between two writes of it, so that some nine are made. Source: our own choice: six make a median."""
TELL_S = 1.0
"""Between two looks at what the agent should know of the engines. Source: the gateway's own pace of figures."""
RESTART_S = 30.0
"""How long an engine must have been stalled before it is replaced. Source: our own choice: the gateway has turned to other
replicas by then, and a person who stopped it for a moment has let go."""
SUSPECT_S = 120.0
"""The same where every replica is called stalled just after the agent itself had stood still, as a whole machine does that was
suspended. Source: our own choice: what was merely frozen has gone on long before, and what lost its GPU over it has not."""
_EXITED = frozenset({ReplicaState.BACKOFF, ReplicaState.CRASH_LOOP})


def health_settings(
    config: Config, *, state_path: Path | None = None, log_path: Path | None = None
) -> HealthSettings:
    """Return what an agent of this configuration watches; without a state folder it writes no snapshot."""
    spec = config.spec.health
    network = spec.network
    peers = tuple(found for text in network.peers if (found := parse_peer(text)) is not None)
    listen = parse_listen(network.listen)
    mesh = None
    if peers and listen is not None:
        mesh = MeshOptions(
            peers=tuple(MeshNode(name=peer.name, host=peer.host, port=peer.port) for peer in peers),
            key_path=str(config.base_dir / Path(network.key_file).expanduser()),
            host=listen.host,
            port=listen.port,
        )
    return HealthSettings(
        node=network.node,
        state_dir=str(state_path or ""),
        log_path=str(log_path or ""),
        volumes=watched_folders(spec.storage.path),
        write=spec.storage.write,
        gpu=spec.gpu,
        mesh=mesh,
        expected=expected_of(spec.expect),
    )


def expected_of(spec: HealthExpectSpec) -> Expected:
    """Return what a node should have by `health.expect`."""
    return Expected(
        gpus=spec.gpus,
        gpu_model=spec.gpu_model or None,
        driver_version=spec.driver or None,
        rdma_ports=spec.rdma_ports or None,
        link_mbit_s=spec.link_mbit_s,
    )


def watched_folders(path: str) -> tuple[str, ...]:
    """Return the folders whose disks are watched, by `health.storage.path`."""
    if path == "off":
        return ()
    if path != "auto":
        return (path,)
    store = store_root(os.environ)
    return (str(store),) if store.is_dir() else ()  # without weights there is nothing to read from a disk


@contextlib.contextmanager
def looking_sources(
    settings: HealthSettings, engines: EnginesReader | None = None, *, write_interval_s: float = LOOK_WRITE_S
) -> Iterator[list[Source]]:
    """Give the sources of a look that lasts seconds: disks are read and written more often, in small files that are removed again."""
    options = DiskOptions(
        file=LOOK_FILE,
        size_bytes=LOOK_BYTES,
        interval_s=LOOK_READ_S,
        write_file=LOOK_WRITE_FILE,
        write_interval_s=write_interval_s,
    )
    try:
        yield sources_for(settings, engines, options)
    finally:
        for folder in settings.volumes:
            for name in (LOOK_FILE, f"{LOOK_WRITE_FILE}.new", LOOK_WRITE_FILE):
                with contextlib.suppress(OSError):
                    (Path(folder) / name).unlink()


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
) -> Iterator[tuple[ReplicaStatus, Believed]]:
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


def _from_a_gap(snapshot: HealthSnapshot, believed: Believed) -> bool:
    """Return whether a stall was believed so soon after the agent stood still that the stillness seen must be that gap's."""
    return 0 <= believed.since_s - snapshot.woke_s < STILL_S


class NodeWatch:
    """The agent of one stack's node."""

    def __init__(
        self,
        config: Config,
        state: StateDir,
        *,
        fleet: Fleet,
        gateway: WorkerSet,
        on_start: Callable[[str, int], object],
    ) -> None:
        self._fleet, self._gateway = fleet, gateway
        settings = health_settings(config, state_path=state.path, log_path=state.logs / LOG_NAME)
        self.link = AgentLink(
            settings,
            stderr_path=state.logs / "health.stderr.log",
            hearers=Hearers(
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
            self.link.tell(targets(self._fleet.snapshot, loads, self._fleet.proofs()))
            await asyncio.sleep(TELL_S)

    def _heard(self, snapshot: HealthSnapshot) -> None:
        for replica, finding in hanging(snapshot, self._fleet.statuses(), wall_s()):
            self._fleet.stalled(replica.id, pid=replica.pid or 0, reason=finding.message)
        for replica in recovered(snapshot, self._fleet.statuses()):
            self._fleet.recovered(replica.id, pid=replica.pid or 0)
