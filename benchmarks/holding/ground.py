"""What these measurements stand on: `freehold up` in front of the mock engine, with keys, under the shim or without.

The stack shares one core, the engine and the load client the other, as in benchmarks/gateway, whose programs these are.
"""

import hashlib
import json
import mmap
import os
import sqlite3
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from build import BIN, build, compiler
from processes import API_KEY, Running, run_client, start_mock, stop
from stack import CannotMeasureError, Stack, stack

STACK_CORE, LOAD_CORE = 0, 1
FEW_KEY = "fh-benchmarkbenchmarkbenchmarkbenchmarkfew5"
FEW_PER_MINUTE = 60
CONFIG = """\
version: 1
models:
  - name: m
    engine: external
    endpoints: ["http://127.0.0.1:{port}"]
    engine_options: {{slots: 4096}}
  - name: one
    engine: external
    endpoints: ["http://127.0.0.1:{port}"]
    upstream_model: m
    engine_options: {{slots: 1}}
gateway:
  listen: 127.0.0.1:0
  auth: keys
  keys_file: keys.json
  queue: {{max_wait: 2s, overload_wait: 2s}}
  timeouts: {{header: 10m, idle: 10m}}
"""
"""The limits on silence are raised, since idle connections are measured: as delivered, one is closed after 10 s where it
has never asked anything, else after 75 s."""


class Shim:
    """The shim of shim.c and its control."""

    _FIELDS = ("delay_ms", "full", "ahead_s", "touched")

    def __init__(self, folder: Path) -> None:
        build()
        self._library = BIN / "shim.so"
        self._folder = folder
        command = [compiler(), "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(self._library)]
        done = subprocess.run(
            [*command, str(Path(__file__).parent / "shim.c"), "-ldl"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CannotMeasureError(f"shim.c does not compile:\n{done.stderr}")
        self._path = folder.parent / f"{folder.name}.shim"
        self._path.write_bytes(bytes(8 * len(self._FIELDS)))
        with self._path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    @property
    def env(self) -> dict[str, str]:
        """The environment of processes under the shim."""
        own = {"SHIM_CONTROL": str(self._path), "SHIM_FOLDER": str(self._folder.resolve())}
        return {**os.environ, **own, "LD_PRELOAD": str(self._library)}

    def set(self, field: Literal["delay_ms", "full", "ahead_s"], value: int) -> None:
        """Change it for all processes at once."""
        struct.pack_into("q", self._map, 8 * self._FIELDS.index(field), value)

    @property
    def touched(self) -> int:
        """Disk calls that were delayed or failed so far."""
        return int(struct.unpack_from("q", self._map, 8 * self._FIELDS.index("touched"))[0])

    def close(self) -> None:
        """Forget the control file."""
        self._map.close()
        self._path.unlink()


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A stack that runs, and its engine."""

    stack: Stack
    mock: Running
    port: int

    @property
    def gateway_pid(self) -> int:
        """The gateway's process."""
        return int(self.stack.status()["gateway"]["pid"])

    def load(self, **arguments: object) -> dict[str, Any]:
        """Let the load client run; every answer must be whole."""
        report = run_client("load", LOAD_CORE, port=self.port, **arguments)
        if report["whole"] != report["started"]:
            raise CannotMeasureError(f"answers were wrong: {report}")
        return report

    def latency(self, seconds: float = 2.0) -> dict[str, Any]:
        """A light load of four callers: `wait_us_p50` and `wait_us_p99` of its report are what counts."""
        return self.load(conns=4, secs=seconds, warm_ms=250, think_us=1000, prompt="bench:bytes=1024")

    def rows(self) -> tuple[int, int]:
        """Rows of whole answers in the ledger file, and how many of them are there a second time."""
        path = self.stack.folder / "state" / "ledger.sqlite"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            sql = "SELECT count(*), count(DISTINCT request_id) FROM requests WHERE outcome = 'complete'"
            count, distinct = db.execute(sql).fetchone()
        return int(count), int(count - distinct)


def _key(name: str, key: str, limits: dict[str, int]) -> dict[str, object]:
    digest = hashlib.blake2b(key.encode(), digest_size=32, person=b"freehold-key-v1").hexdigest()
    return {"id": name, "name": name, "hash": digest, "created_s": 1, "limits": limits}


def write_keys(folder: Path, **limits: int) -> None:
    """Make the load client's key, whose limits are never reached but for those given, and one that may ask once a second."""
    names = ("requests_per_minute", "tokens_per_minute", "concurrency", "monthly_tokens")
    found = [_key("bench", API_KEY, dict.fromkeys(names, 10**12) | limits)]
    found.append(_key("few", FEW_KEY, {"requests_per_minute": FEW_PER_MINUTE}))
    path = folder / "keys.json"
    path.write_text(json.dumps({"version": 1, "keys": found}))
    path.chmod(0o600)


@contextmanager
def ground(shim: Shim | None = None, folder: Path | None = None, *, config: str = CONFIG) -> Iterator[Ground]:
    """Run a stack in front of a mock engine; `config` has a place for the engine's port."""
    build()
    with tempfile.TemporaryDirectory() as made:
        home = folder or Path(made)
        write_keys(home)
        mock = start_mock(home, LOAD_CORE)
        try:
            env = None if shim is None else shim.env
            with stack(home, config.format(port=mock.port), env=env, core=STACK_CORE) as running:
                yield Ground(stack=running, mock=mock, port=running.port)
        finally:
            stop(mock.process)


@contextmanager
def shimmed() -> Iterator[tuple[Ground, Shim]]:
    """Run such a stack under the shim."""
    with tempfile.TemporaryDirectory() as made:
        home = Path(made) / "home"
        home.mkdir()
        shim = Shim(home)
        try:
            with ground(shim, home) as stage:
                yield stage, shim
        finally:
            shim.close()
