"""One engine alone on the stage: started by the fleet's own launcher, behind a real gateway where that is asked for, and ended.

A replica that does not become ready is no exception of the program but an answer (`Permanent` with the engine's own last words):
the others still have their turn. The gateway runs with its ledger's spool, as it would in service; nothing of it is kept.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import msgspec

from freehold.bench.analysis.results import Through
from freehold.bench.measure.client import BenchTarget
from freehold.core.clock import monotonic_s
from freehold.core.errors import Permanent
from freehold.core.events import ReplicaState, ReplicaStatus, Snapshot, socket_path
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan
from freehold.fleet.probe import base_url, http_client
from freehold.fleet.run import Fleet
from freehold.gateway.process.listener import listen
from freehold.gateway.process.worker_set import WorkerSet
from freehold.gateway.settings import Settings
from freehold.ledger.spool import make_folder, spool_folder

_LOOK_S = 0.05
"""Between two looks at a starting replica. Source: our own choice."""
_GATEWAY_S = 20.0
"""Longest that a gateway may take to serve a snapshot. Source: our own bound: it takes 0.3 s."""
_FAILED = frozenset({ReplicaState.BACKOFF, ReplicaState.CRASH_LOOP, ReplicaState.STOPPED})
_VERSION_PAGES = {"/version": "version", "/props": "build_info"}
"""Where engines report their version, and in which field: vLLM, SGLang and our Transformers child; llama.cpp."""
_PAGE_S = 5.0
"""Deadline of such a page. Source: our own choice."""
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A ready engine."""

    targets: Mapping[Through, BenchTarget]
    pid: int
    """Of the engine, which leads its process group."""
    ready_s: float
    argv: tuple[str, ...]
    versions: dict[str, str] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def staged(
    plan: ReplicaPlan, folder: Path, *, gateway: Settings | None, ready_timeout_s: float
) -> AsyncIterator[Stage]:
    """Run one replica until the block ends, logs in `folder`; with `gateway` settings behind a gateway too.

    Raises Permanent when it does not become ready, with its last words.
    """
    settings = FleetSettings(log_dir=folder, ready_timeout_s=ready_timeout_s)
    front = _Front(gateway, folder) if gateway is not None else None
    fleet = Fleet([plan], settings, on_snapshot=front.send if front else lambda _: None)
    began_s = monotonic_s()
    running = asyncio.create_task(fleet.run(), name=f"fleet of {plan.id}")
    try:
        status = await _ready(fleet, plan, ready_timeout_s)
        ready_s = monotonic_s() - began_s
        targets: dict[Through, BenchTarget] = {"direct": _target(status.url, plan.name_upstream)}
        if front is not None:
            targets["gateway"] = await front.serving(plan.model)
        assert status.pid is not None, "a ready managed replica has a process"
        versions = await _versions(status.url)
        yield Stage(
            targets=targets, pid=status.pid, ready_s=ready_s, argv=_argv(status.pid), versions=versions
        )
    finally:
        if front is not None:
            await front.close()
        fleet.request_stop(drained=True)
        await running


def _target(url: str, model: str) -> BenchTarget:
    if path := socket_path(url):
        return BenchTarget(host="localhost", port=80, socket=path, model=model)
    host, _, port = url.removeprefix("http://").rpartition(":")
    return BenchTarget(host=host, port=int(port), model=model)


async def _ready(fleet: Fleet, plan: ReplicaPlan, timeout_s: float) -> ReplicaStatus:
    deadline_s = monotonic_s() + timeout_s
    while True:
        status = next(iter(fleet.statuses()), None)
        if status is not None and status.state is ReplicaState.READY:
            return status
        if status is not None and status.state in _FAILED:
            raise Permanent(f"{plan.engine.name} did not start: {status.reason}", hint=status.hint)
        if monotonic_s() > deadline_s:
            raise Permanent(f"{plan.engine.name} was not ready within {timeout_s:g} s")
        await asyncio.sleep(_LOOK_S)


def _argv(pid: int) -> tuple[str, ...]:
    """Return how a process was started, by the kernel's word; empty: it is gone."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        return tuple(word for word in words if word)
    return ()


async def _versions(url: str) -> dict[str, str]:
    found: dict[str, str] = {}
    async with http_client(url) as client:
        for page, name in _VERSION_PAGES.items():
            with contextlib.suppress(httpx2.HTTPError, msgspec.MsgspecError):
                answer = await client.get(base_url(url) + page, timeout=_PAGE_S)
                reported = msgspec.json.decode(answer.content) if answer.status_code == 200 else None
                if isinstance(reported, dict):
                    found |= {
                        key: str(reported[key])
                        for key in (name, "transformers", "torch")
                        if isinstance(reported.get(key), str)
                    }
    return found


class _Front:
    """A gateway of the bench's own."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._spool = spool_folder(folder)
        make_folder(self._spool)
        self._listener = listen(HOST, 0)
        self._links = WorkerSet(
            msgspec.structs.replace(settings, spool_path=str(self._spool), generation=1),
            self._listener,
            log_dir=folder,
        )
        self._generation = 0
        self._task = asyncio.create_task(self._links.run(), name="gateway of the bench")

    def __repr__(self) -> str:
        return f"<_Front {self._links}>"

    def send(self, snapshot: Snapshot) -> None:
        """Pass a snapshot on."""
        self._generation = snapshot.generation
        self._links.send(snapshot)

    async def serving(self, model: str) -> BenchTarget:
        """Return where it is once it has the newest snapshot; raises Permanent when that takes too long."""
        deadline_s = monotonic_s() + _GATEWAY_S
        while True:
            stats = self._links.stats
            if stats is not None and stats.snapshot_generation >= self._generation:
                return BenchTarget(host=HOST, port=self._listener.getsockname()[1], model=model)
            if monotonic_s() > deadline_s:
                raise Permanent("the gateway did not come up")
            await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        """End it and remove what it wrote."""
        self._links.stop()
        await self._task
        self._listener.close()
        await asyncio.to_thread(shutil.rmtree, self._spool, ignore_errors=True)
        with contextlib.suppress(OSError):  # another stack's spool lies there too
            self._spool.parent.rmdir()
