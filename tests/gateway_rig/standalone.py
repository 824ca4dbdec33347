"""A gateway process in front of fixed endpoints without a parent, for tests and benchmarks: `python -P standalone.py FILE`.

FILE is JSON: the address to listen on, the models with their endpoints, and the gateway's settings. All else is the process
as shipped.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from freehold.core.events import AdapterAsk, Endpoint, ModelEntry, ReplicaState, Snapshot
from freehold.gateway import run
from freehold.gateway.process.listener import listen
from freehold.gateway.settings import Settings


class StandaloneModel(msgspec.Struct, frozen=True):
    """One model of a standalone gateway."""

    name: str
    endpoints: tuple[str, ...]
    engine: str = "external"
    kind: str = ""
    slots: int = 0
    kv_tokens: int = 0
    max_context_tokens: int = 0
    stall_s: float = 0.0
    affinity: bool = True
    resume: str = "auto"
    adapters: tuple[AdapterAsk, ...] = ()
    media_urls: bool = True
    allow_keys: tuple[str, ...] = ()
    reuse_on_ask: bool = False

    def snapshot_parts(self) -> tuple[ModelEntry, list[Endpoint]]:
        """Return this model's part of a snapshot."""
        entry = ModelEntry(
            name=self.name,
            engine=self.engine,
            created_s=0,
            max_context_tokens=self.max_context_tokens,
            stall_s=self.stall_s,
            affinity=self.affinity,
            resume=self.resume,
            adapters=tuple(each.name for each in self.adapters),
            media_urls=self.media_urls,
            allow_keys=self.allow_keys,
        )
        return entry, [
            Endpoint(id=f"{self.name}-{i}", model=self.name, url=url, engine=self.engine, state=ReplicaState.READY,
                     kind=self.kind, slots=self.slots, kv_tokens=self.kv_tokens, adapters=self.adapters,
                     reuse_on_ask=self.reuse_on_ask)
            for i, url in enumerate(self.endpoints)
        ]  # fmt: skip


class Standalone(msgspec.Struct, frozen=True):
    """What FILE holds."""

    listen: str
    models: tuple[StandaloneModel, ...]
    settings: Settings = Settings()


async def serve(config: Standalone) -> None:
    """Serve until SIGTERM."""
    host, _, port = config.listen.rpartition(":")
    listener = listen(host.strip("[]"), int(port))
    child = run.GatewayProcess(run.new_gateway(config.settings), listener)
    parts = [model.snapshot_parts() for model in config.models]
    child.gateway.apply(
        Snapshot(
            generation=1,
            models=tuple(entry for entry, _ in parts),
            endpoints=tuple(endpoint for _, endpoints in parts for endpoint in endpoints),
        )
    )
    child.gateway.has_parent = False
    await child.serve()


if __name__ == "__main__":
    found = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Standalone)
    with asyncio.Runner(loop_factory=run.new_event_loop) as runner:
        runner.run(serve(found))
