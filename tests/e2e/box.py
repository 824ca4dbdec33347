"""A box: one Freehold of a test's own, with its own folders and environment, and a mark on every process of it.

The mark is an environment variable that all children inherit, engines too, so that what a test leaves behind is found
wherever it hid, and only what this test started is ever ended.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import httpx2
import msgspec
import psutil

from freehold.core.events import socket_path
from freehold.fleet.environments.lookup import engines_root
from freehold.ledger.spool import spool_folder
from freehold.stack.status import running_status
from waiting import wait_until

MARK = "LC_E2E_BOX"
"""Variable that every process of a stack carries; engines inherit only names that they may (LC_ is one)."""
FREEHOLD = str(Path(sys.executable).parent / "freehold")
EXAMPLE = Path(__file__).parents[2] / "examples" / "01-one-box" / "freehold.yaml"
READY_S = 40.0
"""A start with the real model takes 2 to 3 s on two idle cores; tests share them with others."""
GONE_S = 12.0
"""Engines get 10 s from SIGTERM to SIGKILL (fleet.stop_grace); after that nothing may live."""
FAKE_PLUGIN = {
    "METADATA": "Metadata-Version: 2.1\nName: fake-engine-for-tests\nVersion: 0\n",
    "entry_points.txt": "[freehold.engines]\nfake = freehold.testing.fake_engine_adapter:FAKE_ENGINE\n",
}
"""What makes the fake engine an installed engine of another package: a folder on PYTHONPATH with these files."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> Any:
        """Return the last line of the standard output, which is JSON."""
        return json.loads(self.out.splitlines()[-1])


@dataclass(kw_only=True)
class Box:
    home: Path
    mark: str = field(default_factory=lambda: uuid4().hex)
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FREEHOLD_")}
        self.env = kept | {
            MARK: self.mark,
            "FREEHOLD_STATE_DIR": str(self.home / "state"),
            "XDG_STATE_HOME": str(self.home),
            # The probe file of 64 MiB is for tests of the disk; one that wants it says so.
            "FREEHOLD_HEALTH__STORAGE__PATH": "off",
            **self.env,
        }
        for name, text in FAKE_PLUGIN.items():
            path = self.home / "site" / "fake_engine_for_tests-0.dist-info" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.env["PYTHONPATH"] = str(self.home / "site")

    # Commands

    def run(self, *arguments: str, timeout_s: float = READY_S, **env: str) -> Ran:
        """Run a command to its end in the box's folder."""
        done = subprocess.run(
            [FREEHOLD, *arguments],
            cwd=self.home,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Ran(code=done.returncode, out=done.stdout, err=done.stderr)

    @contextlib.contextmanager
    def starting(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Give `freehold up --json …` as it runs in a terminal, killed at the end if it still runs."""
        process = subprocess.Popen(
            [FREEHOLD, "up", "--json", "--listen", "127.0.0.1:0", *arguments],
            cwd=self.home,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    @contextlib.contextmanager
    def foreground(self, *arguments: str) -> Iterator["Stack"]:
        """Give the same once it is ready."""
        with self.starting(*arguments) as process:
            assert process.stdout is not None
            yield Stack(box=self, process=process, first=_first_answer(process.stdout))

    def status(self) -> Any:
        """Return what `status --json` prints, without the cost of a process; None: nothing runs."""
        status = running_status(Path(self.env["FREEHOLD_STATE_DIR"]))
        return status and json.loads(msgspec.json.encode(status))

    # Files

    def write(self, text: str, name: str = "freehold.yaml") -> Path:
        path = self.home / name
        path.write_text(text)
        return path

    def fake_config(self, *, replicas: int = 1, more: str = "", **options: object) -> Path:
        """Write a freehold.yaml with a fake engine that Freehold starts; `more` is put at its end."""
        weights = b"no weights are needed"
        (self.home / "weights.bin").write_bytes(weights)
        self.env["FREEHOLD_CACHE_DIR"] = str(self.home / "cache")
        told = ", ".join(f"{name}: {value}" for name, value in options.items())
        return self.write(
            "version: 1\nmodels:\n  - name: fake\n    engine: fake\n    source: file://weights.bin\n"
            f"    sha256: {sha256(weights).hexdigest()}\n    replicas: {replicas}\n"
            f"    engine_options: {{{told}}}\n{more}"
        )

    # Processes

    def living(self) -> list[psutil.Process]:
        """Return every process that carries this box's mark, zombies left out."""
        return [process for process in psutil.process_iter() if _environment(process).get(MARK) == self.mark]

    def command_lines(self) -> list[str]:
        """Return how every process of this box was started, as any user of the machine can read it."""
        return [" ".join(process.cmdline()) for process in self.living()]

    def assert_nothing_left(self, timeout_s: float = GONE_S) -> None:
        try:
            wait_until(lambda: not self.living(), timeout_s=timeout_s)
        except AssertionError:
            left = [_words(process) for process in self.living()]
            raise AssertionError(f"after {timeout_s:g} s still there: {left}") from None

    def kill_all(self) -> list[str]:
        """End what lives, return what that was, and take the ledger's spool from the tmpfs."""
        found = [(process, _words(process)) for process in self.living()]
        for process, _ in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs([process for process, _ in found], timeout=5)
        shutil.rmtree(spool_folder(Path(self.env["FREEHOLD_STATE_DIR"])), ignore_errors=True)
        return [words for _, words in found]


@dataclass(kw_only=True)
class Stack:
    """A running stack whose controller is a child of the test."""

    box: Box
    process: "subprocess.Popen[bytes]"
    first: dict[str, Any]
    """What `up --json` answered."""

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, no path."""
        return str(self.first["status"]["gateway"]["url"]).removesuffix("/v1")

    def replicas(self) -> list[dict[str, Any]]:
        return list(self.box.status()["replicas"])

    def end(self) -> int:
        """Let `down` end it and return the exit code of `up`."""
        down = self.box.run("down", "--json")
        assert down.code == 0, down
        return self.process.wait(GONE_S)


def _first_answer(output: IO[bytes]) -> dict[str, Any]:
    said: list[str] = []
    for line in output:  # the test's own timeout is the deadline
        said.append(line.decode())
        if line.startswith(b"{"):
            answer: dict[str, Any] = json.loads(line)
            assert "status" in answer, said
            return answer
    raise AssertionError(f"freehold up ended without an answer: {said}")


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ() if process.status() != psutil.STATUS_ZOMBIE else {}
    except (psutil.Error, OSError):  # it has ended meanwhile, or is somebody else's
        return {}


def _words(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    return str(process.pid)


def listening() -> socket.socket:
    """Return a socket that listens on a port of 127.0.0.1 and answers nobody."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


def http(timeout_s: float = 30.0) -> httpx2.Client:
    """Return a client that goes through no proxy."""
    return httpx2.Client(trust_env=False, timeout=timeout_s)


def replica_http(url: str, timeout_s: float = 30.0) -> httpx2.Client:
    """Return a client of a replica itself, by its `url`; it asks for paths."""
    path = socket_path(url)
    transport = httpx2.HTTPTransport(uds=path) if path else None
    base = "http://localhost" if path else url
    return httpx2.Client(transport=transport, base_url=base, trust_env=False, timeout=timeout_s)


@contextlib.contextmanager
def serving(home: Path, text: str, **env: str) -> Iterator[Stack]:
    """Give the stack of a freehold.yaml once it is ready; at the end nothing of it lives."""
    box = Box(home=home, env=env)
    try:
        with box.foreground("--config", str(box.write(text))) as stack:
            yield stack
    finally:
        box.kill_all()


def data_here() -> dict[str, str]:
    """Return the variable that lets a box use the engines' environments of this machine."""
    return {"FREEHOLD_DATA_DIR": str(engines_root(os.environ).parent)}
