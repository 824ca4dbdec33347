"""Start processes on a chosen core, end them, and read what they hold: CPU is read by the client, memory here.

Linux only: /proc, taskset and ss. Deliberately no psutil: the harness runs on the standard library alone.
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from build import BIN, CannotMeasureError

STOP_GRACE_S = 5.0
API_KEY = "fh-benchmarkbenchmarkbenchmarkbenchmark2345"  # also in client.c
SKMEM = re.compile(r"skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f\d+,w(\d+)")
SS_PID = re.compile(r"pid=(\d+)")


@dataclass(kw_only=True, slots=True)
class Cores:
    """Which core the proxies run on, and which one carries the mock engine and the client."""

    proxy: int
    load: int


@dataclass(kw_only=True, slots=True)
class Running:
    """One started process, its port and its log."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path


def need_tool(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if not found:
        raise CannotMeasureError(f"{name} not found: install it (Debian: apt-get install {package})")
    return found


def pinned(core: int, command: list[str]) -> list[str]:
    return [need_tool("taskset", "util-linux"), "-c", str(core), *command]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        yield from map(int, task.read_text().split())


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for one in found:
        found.extend(children(one))
    return found


def rss_bytes(pids: list[int]) -> int:
    """Resident memory of these processes, from smaps_rollup, which is exact where statm lags behind."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
    return total


def socket_bytes(pids: list[int]) -> int:
    """What the kernel holds in receive and send queues of these processes' TCP sockets."""
    command = [need_tool("ss", "iproute2"), "-tmnpOH"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    wanted, total = {str(pid) for pid in pids}, 0
    for line in lines:
        memory = SKMEM.search(line)
        if memory and wanted.intersection(SS_PID.findall(line)):
            total += int(memory[1]) + int(memory[2])
    return total


def spawn(
    command: list[str], *, log: Path, core: int, env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start in a session of its own, so that stop() reaches every process it made."""
    with log.open("wb") as out:
        return subprocess.Popen(
            pinned(core, command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, a grace, SIGKILL; to the whole group."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_GRACE_S)
            break
        except subprocess.TimeoutExpired:
            continue


def ask(port: int, path: str, body: dict[str, Any] | None = None, *, tls: bool = False) -> tuple[int, bytes]:
    """One request on its own connection; returns status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    if tls:
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE  # it signed its own
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=unchecked)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {API_KEY}"}
            connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def answers(port: int, *, tls: bool = False) -> bool:
    body = {"model": "m", "messages": [{"role": "user", "content": "bench:bytes=400"}], "stream": False}
    try:
        return ask(port, "/v1/chat/completions", body, tls=tls)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def wait_ready(
    process: subprocess.Popen[bytes], port: int, log: Path, *, deadline_s: float = 30.0, tls: bool = False
) -> None:
    """Until a completion comes back through `port`; raises CannotMeasureError with the log's end."""
    end = time.monotonic() + deadline_s
    while not answers(port, tls=tls):
        if process.poll() is not None or time.monotonic() > end:
            tail = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise CannotMeasureError("did not come up: " + " | ".join(tail))
        time.sleep(0.05)


def start_mock(folder: Path, core: int) -> Running:
    port = free_port()
    log = folder / f"mock-{port}.log"
    process = spawn([str(BIN / "mock"), str(port)], log=log, core=core)
    wait_ready(process, port, log, deadline_s=5)
    return Running(name="mock", port=port, process=process, log=log)


def run_client(way: str, core: int, *, program: str = "client", **arguments: object) -> dict[str, Any]:
    """Run the load client to its end; returns what it printed."""
    words = [f"{name}={value}" for name, value in arguments.items()]
    command = pinned(core, [str(BIN / program), way, *words])
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise CannotMeasureError(f"client {way} failed: {done.stderr.strip()}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


class Held:
    """A client that holds streams open and reads nothing more, for the length of a `with`."""

    def __init__(self, core: int, **arguments: object) -> None:
        """Keep what the client will be told."""
        words = [f"{name}={value}" for name, value in arguments.items()]
        self._command = pinned(core, [str(BIN / "client"), "hold", *words])
        self.ready = 0

    def __enter__(self) -> Self:
        """Return once every stream has had its first event, or the client has given up waiting."""
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ready = int(self._out().readline().split()[1])
        return self

    def __exit__(self, *_: object) -> None:
        """Let the streams go."""
        self._process.communicate(timeout=30)

    def _out(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout
