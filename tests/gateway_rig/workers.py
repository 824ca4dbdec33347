"""Several gateway processes that share one port, under the parent that they have in a real stack."""

import asyncio
import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from freehold.core.events import Endpoint, ModelEntry, ReplicaState, Snapshot
from freehold.gateway.process.listener import listen
from freehold.gateway.process.worker_set import WorkerSet
from freehold.gateway.settings import Settings
from gateway_rig.client import Client, get
from gateway_rig.engines import Engine
from waiting import wait_until


class Workers:
    """A gateway of several workers in front of one endpoint of model `m`."""

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        *,
        slots: int,
        workers: int,
        new_client: Callable[[int], Client] = Client,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self._new_client = new_client
        self.count = workers
        listener = listen("127.0.0.1", 0)
        self.port = int(listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def start() -> WorkerSet:
            links = WorkerSet(
                Settings(workers=workers, log_path="worker.log", **settings), listener, log_dir=folder
            )
            self.tell(links, engine, slots)
            return links

        self.links = asyncio.run_coroutine_threadsafe(start(), self._loop).result(10)
        self.running: Future[None] = asyncio.run_coroutine_threadsafe(self.links.run(), self._loop)
        self.wait_living()

    def tell(self, links: WorkerSet, engine: Engine, slots: int) -> None:
        entry = ModelEntry(name="m", engine="external", created_s=7)
        endpoint = Endpoint(id="m-0", model="m", url=engine.url, engine="external", state=ReplicaState.READY,
                            slots=slots)  # fmt: skip
        links.send(Snapshot(generation=1, models=(entry,), endpoints=(endpoint,)))

    def wait_living(self) -> None:
        """Wait until all workers live and know their endpoints."""
        wait_until(self._all_ready, timeout_s=20, what="all workers to be ready")

    def _all_ready(self) -> bool:
        stats = [link.stats for link in self.links._links]
        spoken = all(s is not None and s.snapshot_generation >= 1 for s in stats)
        return spoken and self.health()["workers"] == {"live": self.count, "wanted": self.count}

    def client(self) -> Client:
        return self._new_client(self.port)

    def health(self) -> Any:
        with self.client() as client:
            return client.ask(get("/health")).json

    def metric(self, name: str, **labels: str) -> float:
        with self.client() as client:
            text = client.ask(get("/metrics")).body.decode()
        samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def served(self) -> list[int]:
        """Return how many requests each worker says it has answered."""
        return [link.stats.requests_total if link.stats else 0 for link in self.links._links]

    def logged(self, what: str) -> list[dict[str, Any]]:
        texts = [path.read_text() for path in self.folder.glob("gateway*.log")]
        rows = [json.loads(row) for text in texts for row in text.splitlines() if row.startswith("{")]
        return [row for row in rows if row["event"] == what]

    def signal(self, index: int, number: signal.Signals) -> int:
        pid = self.links._links[index].pid
        assert pid is not None
        os.kill(pid, number)
        return pid

    def kill(self, index: int) -> None:
        """Kill one with -9 and wait until another has taken its place."""
        before = self.links.restarts
        self.signal(index, signal.SIGKILL)
        wait_until(lambda: self.links.restarts > before)
        self.links._links[index].stats = None
        self.wait_living()

    def stop(self) -> bool:
        """End all in order and return whether every stream was finished."""
        self._loop.call_soon_threadsafe(self.links.stop)
        self.running.result(15)
        return bool(self.links.finished_all)

    def close(self) -> None:
        if not self.running.done():
            self._loop.call_soon_threadsafe(self.links.kill)
            self.running.result(15)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextlib.contextmanager
def working(
    folder: Path, engine: Engine, *, slots: int = 4, workers: int = 2, **settings: Any
) -> Iterator[Workers]:
    """Run workers for the block; fails at its end if one logged a bug."""
    crew = Workers(folder, engine, slots=slots, workers=workers, **settings)
    try:
        yield crew
    finally:
        crew.close()
    assert not crew.logged("bug")
