"""What the agent of a node costs: CPU and memory of its process and all its readers' children, as the controller starts it.

`python benchmarks/health_agent.py [--seconds 150] [--engines 2] [--peers 0] [--gpus 0]` starts an agent on this machine as `freehold up` does,
lets it watch the disk of --volume and some fake engines under steady work, and measures by /proc from 20 s after the start. With
--peers so many more agents run on other ports of the loopback, and all of them exchange the mesh's datagrams; the first one alone is
measured, and its PSS then counts less of the pages that all of them share. With --gpus NVML is the tests' own library (a C compiler builds it)
that answers as so many idle H100 do: what the reader's child costs then is ours, and none of the driver's time.
Bars: under 1 % of one core and under 60 MB (PSS: what is shared with other processes counts in part; RSS is shown beside).
Exit code: 0 within both bars, 3 not, 1 it could not be measured.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from freehold.health.agent.link import AgentLink, AgentListeners
from freehold.health.agent.messages import HealthSettings
from freehold.health.model.snapshot import HealthSnapshot
from freehold.health.model.targets import EngineTarget, MeshNode, MeshOptions
from freehold.testing.fake_engine_adapter import FAKE_ENGINE
from freehold.weights.store import store_root

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]
import nvml_shim  # noqa: E402

CPU_PERCENT_MOST = 1.0
MEMORY_MB_MOST = 60.0
WARM_UP_S = 20.0
"""Imports, the probe file of 64 MiB and the kernel log's past are paid once."""


LOOK_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one process has cost so far."""

    name: str
    cpu_s: float
    pss_mb: float
    rss_mb: float


def costs(pid: int) -> dict[int, Cost]:
    """Return what each process of an agent has cost so far, those that it has waited for included in its own."""
    found: dict[int, Cost] = {}
    with suppress(psutil.Error):
        agent = psutil.Process(pid)
        for process in [agent, *agent.children(recursive=True)]:
            with suppress(psutil.Error):
                times, memory = process.cpu_times(), process.memory_full_info()
                found[process.pid] = Cost(
                    name=" ".join(process.cmdline())[:60] if process.pid != pid else "agent",
                    cpu_s=times.user + times.system + times.children_user + times.children_system,
                    pss_mb=memory.pss / 1e6,
                    rss_mb=memory.rss / 1e6,
                )
    return found


@contextmanager
def fake_engine() -> Iterator[EngineTarget]:
    """Give a fake engine with one endless request under way."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "freehold.testing.fake_engine",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with subprocess.Popen([*command, "--model", "m"], start_new_session=True) as process:
        try:
            yield EngineTarget(
                replica=f"fake-{port}",
                engine="llama-cpp",
                model="m",
                url=f"http://127.0.0.1:{port}",
                pid=process.pid,
            )
        finally:
            process.kill()


async def keep_busy(target: EngineTarget) -> None:
    """Keep one streamed request under way."""
    body = json.dumps({"model": "m", "prompt": "hi", "max_tokens": 2000, "stream": True}).encode()

    def ask() -> None:
        request = urllib.request.Request(f"{target.url}/v1/completions", body)
        with suppress(OSError), urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()

    while True:
        await asyncio.to_thread(ask)
        await asyncio.sleep(0.2)


def free_udp_ports(number: int) -> list[int]:
    """Return so many ports of the loopback that were free a moment ago."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(number)
        ]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def node_settings(folder: Path, peers: int) -> list[HealthSettings]:
    """Return what each of the nodes is told: the measured one first, each the others' peer."""
    key = folder / "mesh.key"
    key.write_bytes(os.urandom(32))
    nodes = [
        MeshNode(name=f"node-{number}", host="127.0.0.1", port=port)
        for number, port in enumerate(free_udp_ports(peers + 1))
    ]
    found = []
    for node in nodes:
        state = folder / node.name
        state.mkdir()
        others = tuple(other for other in nodes if other is not node)
        mesh = MeshOptions(peers=others, key_path=str(key), host=node.host, port=node.port)
        found.append(
            HealthSettings(
                node=node.name,
                state_dir=str(state),
                log_path=f"{state}/health.log",
                mesh=mesh if others else None,
            )
        )
    return found


def idle_gpus(folder: Path, number: int) -> None:
    """Let the agent's children find so many GPUs, by the library path that they inherit."""
    os.environ["LD_LIBRARY_PATH"] = str(nvml_shim.build(folder / "nvml"))
    os.environ["NVML_SHIM_SCENARIO"] = str(folder / "scenario")
    nvml_shim.Scenario(folder / "scenario", gpus=number)


@asynccontextmanager
async def running_peers(settings: Sequence[HealthSettings]) -> AsyncIterator[None]:
    """Run the agents of other nodes."""
    links = [
        AgentLink(one, stderr_path=Path(one.state_dir) / "stderr", listeners=AgentListeners())
        for one in settings
    ]
    running = [asyncio.create_task(link.run()) for link in links]
    try:
        yield
    finally:
        for link in links:
            link.stop()
        await asyncio.wait(running) if running else None


async def measure(
    targets: Sequence[EngineTarget], volume: Path, seconds: float, *, peers: int = 0, gpus: int = 0
) -> dict[str, object]:
    told: list[HealthSnapshot] = []
    with tempfile.TemporaryDirectory() as folder:
        mine, *others = node_settings(Path(folder), peers)
        state = mine.state_dir
        settings = msgspec.structs.replace(mine, volumes=(str(volume),), gpu="nvml" if gpus else "auto")
        if gpus:
            idle_gpus(Path(folder), gpus)
        link = AgentLink(
            settings, stderr_path=Path(state) / "stderr", listeners=AgentListeners(on_snapshot=told.append)
        )
        link.send_targets(targets)
        async with running_peers(others):
            found = await _measured(link, targets, seconds)
        log = (Path(state) / "health.log").read_text()
    return found | {
        "peers": peers,
        "gpus": sum(each.finding.probe == "gpu_power" for each in told[-1].findings) if told and gpus else 0,
        "snapshots": len(told),
        "findings": len(told[-1].findings) if told else 0,
        "verdict": told[-1].verdict if told else "none",
        "incidents": [f"{one.state} {one.hypothesis} {one.component}" for one in told[-1].incidents],
        "bugs": log.count("mistake of our own"),
    }


async def _measured(link: AgentLink, targets: Sequence[EngineTarget], seconds: float) -> dict[str, object]:
    running = asyncio.create_task(link.run())
    work = [asyncio.create_task(keep_busy(target)) for target in targets]
    try:
        await asyncio.sleep(WARM_UP_S)
        assert link.pid is not None, "the agent does not run"
        before, began_s = costs(link.pid), asyncio.get_running_loop().time()
        most: dict[int, Cost] = {}
        while (waited_s := asyncio.get_running_loop().time() - began_s) < seconds:
            await asyncio.sleep(LOOK_S)
            most = max(most, costs(link.pid), key=lambda found: sum(c.pss_mb for c in found.values()))
        after = costs(link.pid)
        waited_s = asyncio.get_running_loop().time() - began_s
    finally:
        for task in work:
            task.cancel()
        link.stop()
        await running
    return _result(before, after, most, waited_s)


def _result(
    before: dict[int, Cost], after: dict[int, Cost], most: dict[int, Cost], waited_s: float
) -> dict[str, object]:
    used = {pid: cost.cpu_s - (before[pid].cpu_s if pid in before else 0.0) for pid, cost in after.items()}
    rows = [
        {
            "process": cost.name,
            "cpu_percent": round(100 * used[pid] / waited_s, 3),
            "pss_mb": round(cost.pss_mb, 1),
            "rss_mb": round(cost.rss_mb, 1),
        }
        for pid, cost in after.items()
    ]
    return {
        "seconds": round(waited_s, 1),
        "cpu_percent": round(100 * sum(used.values()) / waited_s, 3),
        "pss_mb_most": round(sum(cost.pss_mb for cost in most.values()), 1),
        "rss_mb_most": round(sum(cost.rss_mb for cost in most.values()), 1),
        "processes": rows,
        "load": psutil.getloadavg()[0],
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--peers", type=int, default=0)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--volume", type=Path, default=store_root(os.environ))
    args = parser.parse_args()
    assert FAKE_ENGINE.metrics_path == "/metrics"
    with ExitStack() as stack:
        targets = [stack.enter_context(fake_engine()) for _ in range(args.engines)]
        args.volume.mkdir(parents=True, exist_ok=True)
        result = asyncio.run(measure(targets, args.volume, args.seconds, peers=args.peers, gpus=args.gpus))
    print(json.dumps(result, indent=1, default=str))
    if not result["findings"] or result["bugs"]:
        return 1
    good = float(str(result["cpu_percent"])) < CPU_PERCENT_MOST
    good &= float(str(result["pss_mb_most"])) < MEMORY_MB_MOST
    return 0 if good else 3


if __name__ == "__main__":
    sys.exit(main())
