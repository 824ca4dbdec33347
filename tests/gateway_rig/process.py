"""The gateway's process, alone in front of fixed endpoints."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from gateway_rig.client import Client, get
from gateway_rig.engines import Engine
from waiting import wait_until

STOP_S = 10.0
STANDALONE = str(Path(__file__).with_name("standalone.py"))


class Gateway:
    """A gateway process in front of fixed endpoints."""

    def __init__(
        self,
        folder: Path,
        models: Sequence[dict[str, Any]],
        *,
        patch: str = "",
        listen: str = "127.0.0.1:0",
        new_client: Callable[[int], Client] = Client,
        **settings: Any,
    ) -> None:
        self._folder = folder
        self._new_client = new_client
        config = {"listen": listen, "models": list(models), "settings": settings}
        (folder / "gateway.json").write_text(json.dumps(config))
        self.log_path = folder / "gateway.log"
        # `patch` lowers a bound that would take too long to reach as it is; all else is the process as shipped.
        code = f"import runpy\n{patch}\nrunpy.run_path({STANDALONE!r}, run_name='__main__')"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, str(folder / "gateway.json")],
                stderr=log,
                stdout=log,
            )
        self.port = int(
            wait_until(self._address, timeout_s=20, what="the gateway to listen").rpartition(":")[2]
        )

    def _address(self) -> str:
        assert self.process.poll() is None, self.log_path.read_text()
        return next((row["address"] for row in self.logged("listening")), "")

    def logged(self, what: str) -> list[dict[str, Any]]:
        """Return the log records of one event."""
        rows = [json.loads(text) for text in self.log_path.read_text().splitlines() if text.startswith("{")]
        return [row for row in rows if row.get("event") == what]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rss_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def client(self) -> "Client":
        return self._new_client(self.port)

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels; 0 when there is none."""
        samples = (s for family in self.metrics() for s in family.samples)
        wanted = labels.items()
        return sum(s.value for s in samples if s.name == name and wanted <= s.labels.items())

    def metrics(self) -> list[Any]:
        with self.client() as client:
            text = client.ask(get("/metrics")).body.decode()
        return list(text_string_to_metric_families(text))

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """End it, and fail if it had a bug."""
        self.terminate()
        try:
            self.process.wait(STOP_S)
        finally:
            self.process.kill()
            self.process.wait()
        bugs = self.logged("bug")
        assert not bugs, bugs
        assert self.process.returncode == 0, self.log_path.read_text()


@contextlib.contextmanager
def running(
    folder: Path, models: Sequence[dict[str, Any]], *, patch: str = "", **settings: Any
) -> Iterator[Gateway]:
    """Run a gateway for the block; fails at its end if the process logged a bug or did not end in order."""
    gateway = Gateway(folder, models, patch=patch, **settings)
    try:
        yield gateway
    except BaseException:
        gateway.process.kill()
        gateway.process.wait()
        sys.stderr.write(gateway.log_path.read_text()[-4000:])
        raise
    gateway.stop()


def model(
    name: str, *engines: Engine, engine: str = "external", slots: int = 0, kv_tokens: int = 0
) -> dict[str, Any]:
    urls = [e.url for e in engines]
    return {"name": name, "endpoints": urls, "engine": engine, "slots": slots, "kv_tokens": kv_tokens}
