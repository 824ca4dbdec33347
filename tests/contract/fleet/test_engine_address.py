"""Nothing but the stack reaches an engine, and nothing but the engine is taken for it. Tried with another user's processes."""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from freehold.core.events import ReplicaState as State
from freehold.core.events import Snapshot, socket_path
from freehold.engines import llama_cpp, vllm
from freehold.engines.base import Command, Engine
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan
from freehold.fleet.environments.lookup import Environment
from freehold.fleet.processes import cage, proc_files
from freehold.fleet.processes.cage_rules import scratch_folder
from freehold.fleet.processes.launch_process import Ports
from freehold.fleet.run import Fleet
from freehold.testing.fake_engine_adapter import FAKE_ENGINE
from freehold.weights.convert import Converted
from waiting import until

TO_NOBODY = """
import encodings.idna, http.client, http.server, json, os, socket, socketserver, sys, threading, urllib.request
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
"""
"""First with everything imported: another user may not be able to read the interpreter's libraries."""
STARTS = 100
LISTENS = "0A"
"""Source: TCP_LISTEN, linux/include/net/tcp_states.h."""
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="a second user's process needs root to be started")
INTRUDE = """
path, *ports = sys.argv[1:]
def tried(do):
    try:
        do()
        return "yes"
    except (OSError, http.client.HTTPException) as exc:
        return type(exc).__name__
folder = os.path.dirname(path)
print(json.dumps([[
    tried(lambda: socket.socket(socket.AF_UNIX).connect(path)),
    tried(lambda: os.listdir(folder)),
    tried(lambda: os.unlink(folder + "/engine.sock")),
    tried(lambda: os.rename(folder, folder + "-away")),
    tried(lambda: socket.socket(socket.AF_UNIX).bind(folder + "/mine.sock")),
], [port for port in ports
    if tried(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=1)) == "yes"
]]))
"""


def as_nobody(code: str, *words: str) -> "subprocess.Popen[str]":
    """Start a program as another user, with a pipe of what it prints."""
    argv = [sys.executable, "-I", "-S", "-c", TO_NOBODY + code, *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def ports_of(pid: int) -> list[str]:
    """Return the ports of 127.0.0.1 on which an engine's processes listen."""
    own = proc_files.sockets(proc_files.family(pid))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [str(int(row[1][-4:], 16)) for row in rows if row[9] in own and row[3] == LISTENS]


def intrude(url: str, pid: int) -> tuple[list[str], list[str], int]:
    """Return what another user can do to an engine, which of its ports answer HTTP, and how many it has."""
    ports = ports_of(pid)
    with as_nobody(INTRUDE, socket_path(url), *ports) as intruder:
        assert intruder.stdout is not None
        found, answering = json.loads(intruder.stdout.read())
    return found, answering, len(ports)


@pytest.fixture(autouse=True)
def shared_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Let scratch folders lie in a folder where every user may write, as `/tmp` usually is."""
    tmp_path_factory.getbasetemp()  # made before the folder for temporary files is another one
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield


async def ready(fleet: Fleet, wait_s: float) -> str:
    await until(
        lambda: fleet.statuses() and fleet.statuses()[0].state is State.READY,
        what="ready",
        timeout_s=wait_s,
    )
    return fleet.statuses()[0].url


def tried_by_another_user(plan: ReplicaPlan, folder: Path, wait_s: float) -> int:
    """Check that another user reaches no engine once it is ready; return how many ports it listens on, none of them for requests."""

    async def run() -> int:
        fleet = Fleet([plan], FleetSettings(log_dir=folder), on_snapshot=lambda _: None)
        running = asyncio.create_task(fleet.run())
        url = await ready(fleet, wait_s)
        pid = fleet.statuses()[0].pid
        assert pid is not None
        found, answering, ports = await asyncio.to_thread(intrude, url, pid)
        assert found == ["PermissionError"] * 5
        assert not answering
        fleet.request_stop(drained=True)
        await running
        assert not Path(socket_path(url)).parent.exists()
        return ports

    return asyncio.run(run())


@root_only
@pytest.mark.real_model
def test_no_engine_answers_another_user(tmp_path: Path, weights_path: Path) -> None:
    plan = ReplicaPlan(
        id="m-0", model="m", engine=llama_cpp.ENGINE, weights=weights_path, options={"n_ctx": 512}
    )
    assert tried_by_another_user(plan, tmp_path, 30.0) == 0


@root_only
@pytest.mark.timeout(300)
@pytest.mark.skipif(not os.environ.get("ENGINES"), reason="a minute of a real server: make engines")
def test_nor_does_vllm(tmp_path: Path, vllm_environment: Environment, vllm_weights: Converted) -> None:
    plan = ReplicaPlan(
        id="m-0",
        model="m",
        engine=vllm.ENGINE,
        weights=vllm_weights.path,
        options={"max_model_len": 512, "enforce_eager": True, "cpu_kv_cache_gib": 1, "cpu_threads": 1},
        environment=vllm_environment.path,
    )
    # torch.distributed listens for itself (docs/threat-model.md); no HTTP, so no request.
    assert tried_by_another_user(plan, tmp_path, 250.0) > 0


SQUAT = """
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked", self.path, flush=True)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    do_POST = do_GET
    def log_message(self, *_words):
        pass
class UnixServer(http.server.ThreadingHTTPServer):
    address_family = socket.AF_UNIX
    def server_bind(self):
        socketserver.TCPServer.server_bind(self)
servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)]
os.umask(0)
for folder in sys.argv[1:]:
    os.mkdir(folder)
    servers.append(UnixServer(folder + "/engine.sock", Handler))
print(servers[0].server_port, flush=True)
for server in servers[1:]:
    threading.Thread(target=server.serve_forever).start()
servers[0].serve_forever()
"""
LOADING = "import time; print('loading', flush=True); time.sleep(60)"
ENGINE = replace(FAKE_ENGINE, command=lambda _place: Command(argv=(sys.executable, "-c", LOADING)))
AT_ONCE = 10


@contextlib.contextmanager
def squatting(*folders: str) -> Iterator[int]:
    """Give the port of another user's program that answers everything, there and in folders; at its end it was asked nothing."""
    with as_nobody(SQUAT, *folders) as squatter:
        assert squatter.stdout is not None
        try:
            yield int(squatter.stdout.readline())
        finally:
            squatter.kill()
        assert squatter.stdout.read() == ""


async def never_ready(engine: Engine, folder: Path, words: str) -> None:
    """Start engines until each was refused with such words; none is ever published as ready."""
    plans = [ReplicaPlan(id=f"m-{i}", model="m", engine=engine) for i in range(AT_ONCE)]
    snapshots: list[Snapshot] = []
    refused: set[str] = set()

    def all_refused() -> bool:
        refused.update(each.id for each in fleet.statuses() if words in each.reason)
        return len(refused) == AT_ONCE

    fleet = Fleet(plans, FleetSettings(log_dir=folder), on_snapshot=snapshots.append)
    running = asyncio.create_task(fleet.run())
    try:
        await until(all_refused, what=f"{AT_ONCE} times: {words}")
    finally:
        fleet.request_stop(now=True)
        await running
    assert not [each for snapshot in snapshots for each in snapshot.endpoints if each.state is State.READY]


@root_only
def test_a_squatter_on_the_port_is_never_ready_and_is_asked_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred starts of engines that load while another user's program answers on the port that they were given."""
    with squatting() as port:
        monkeypatch.setattr(Ports, "take", lambda _self: port)
        for start in range(0, STARTS, AT_ONCE):
            words = f"another process listens on port {port}"
            asyncio.run(never_ready(ENGINE, tmp_path / str(start), words))


@root_only
def test_nor_is_one_that_knew_the_path_of_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred starts in folders that another user's program has made, although it could not guess their names."""
    known = [secrets.token_hex(16) for _ in range(STARTS)]
    left = iter(known)
    monkeypatch.setattr(secrets, "token_hex", lambda _size: next(left, "f" * 32))
    engine = replace(ENGINE, unix_socket=True)
    with squatting(*map(scratch_folder, known)):
        for start in range(0, STARTS, AT_ONCE):
            words = "the program could not be started"
            asyncio.run(never_ready(engine, tmp_path / str(start), words))


def test_an_engines_socket_fits_however_deep_the_folders_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for root in ("/tmp", "/" + "deep/" * 30):
        monkeypatch.setattr(tempfile, "tempdir", root)
        assert len(f"{scratch_folder('0' * 32)}/engine.sock") < 104


def test_what_listens_is_found_with_its_processes() -> None:
    with socket.socket() as listener, socket.socket(socket.AF_INET6) as other:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
        assert not proc_files.listeners(port)
        listener.listen()
        (inode,) = proc_files.listeners(port)
        assert inode in proc_files.sockets([os.getpid()])
        assert inode not in proc_files.sockets([os.getppid()])
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::", port))
        other.listen()
        assert proc_files.listeners(port) == {inode}, "the kernel hands connections to the exact address"
        listener.close()
        (elsewhere,) = proc_files.listeners(port)
        assert elsewhere != inode


def test_a_folder_above_that_others_may_change_is_not_used(tmp_path: Path) -> None:
    rules = {"folder": str(tmp_path / "own"), "scratch": str(tmp_path / "shared" / "freehold-0")}
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(PermissionError, match="can be written by others: set TMPDIR"):
        cage.make_folders(rules)
    shared.chmod(0o1777)
    cage.make_folders(rules)
    assert Path(rules["scratch"]).stat().st_mode & 0o777 == 0o700
    with pytest.raises(FileExistsError):
        cage.make_folders(rules)
