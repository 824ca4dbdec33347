"""Measure the packet-loss mesh on real nodes in network namespaces: what it finds, whom it names, what it costs.

    python benchmarks/health_mesh.py                     all: 0 %, 1 % and 5 % ten times each, stops, cost; 4 min
    python benchmarks/health_mesh.py --only loss --runs 3
    python benchmarks/health_mesh.py --only cost

Each run is three nodes of its own (namespaces, veth, a bridge), each a process with a mesh and the probe. One of them loses
a share of the UDP datagrams that come to it, by an nftables rule whose counter is the truth. A farm that loses nothing
must stay quiet on all three nodes; where one loses, a node must say so and name it, and no node may name another.
Many farms run side by side: they wait most of the time, and the mesh measures arrival by the kernel's stamps. Needs root,
iproute2 and nftables. Exit code: 0 all bars hold, 3 one does not, 1 none failed but one could not be measured.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from stack import Bar, quantile  # noqa: E402

from mesh_rig.namespaces import Farm, missing  # noqa: E402

SECONDS = 60.0
SETTLE_S = 4.0  # a lossless start: all heard each other, before the rule is laid
FOUND_1_BAR = 0.9
FOUND_5_BAR = 1.0
STOP_BAR_S = 5.0
CPU_BAR = 0.4  # per cent of a core: what the agent's whole budget of 1 % leaves to the mesh
RSS_BAR_MB = 60.0
BAD = {"degraded", "unhealthy"}
LOSING = "c"
STOP_KINDS = {"peer_stopped"}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("loss", "stop", "cost"), help="one part")
    parser.add_argument("--runs", type=int, default=10, help="farms per rate (default: 10)")
    parser.add_argument(
        "--peers", type=int, default=8, help="peers per node where cost is measured (default: 8)"
    )
    return parser.parse_args()


def wait(condition: Callable[[], bool], limit_s: float, what: str) -> float:
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > limit_s:
            raise TimeoutError(what)
        time.sleep(0.05)
    return time.monotonic() - began_s


def healthy(farm: Farm) -> bool:
    return all(
        finding["verdict"] == "healthy"
        for node in farm.nodes.values()
        for finding in (node.last().get("findings") or {"": {"verdict": "unknown"}}).values()
    )


# ---- loss ---------------------------------------------------------------------------------------------------------


@dataclass
class Told:
    """What one farm said within the minute."""

    percent: int
    dropped: int
    named: dict[str, float]
    """Node at fault → seconds until somebody first named it."""
    alarms: int
    """Looks of any node with a bad finding."""
    both: bool
    """Whether both other nodes alarmed on the losing one."""
    own: bool
    """Whether the losing node knew that it was itself."""


def lose(farm: Farm, percent: int) -> None:
    if percent:
        farm.nodes[LOSING].lose(permille=10 * percent)


def read(farm: Farm, percent: int, began: dict[str, float]) -> Told:
    named: dict[str, float] = {}
    alarmed_by: set[str] = set()
    own, alarms = False, 0
    for node in farm.nodes.values():
        for look in node.looks():
            after_s = look["at_s"] - began[farm.tag]
            if not 0 <= after_s <= SECONDS:
                continue
            for component, finding in look["findings"].items():
                if finding["verdict"] not in BAD:
                    continue
                alarms += 1
                alarmed_by.add(node.name + component)
                if finding["at_fault"] and finding["at_fault"] != "not known":
                    named[finding["at_fault"]] = min(after_s, named.get(finding["at_fault"], after_s))
                own |= node.name == LOSING and component == "network"
    both = {f"apeer:{LOSING}", f"bpeer:{LOSING}"} <= alarmed_by
    return Told(percent, farm.nodes[LOSING].dropped() if percent else 0, named, alarms, both, own)


def measure_loss(folder: Path, runs: int) -> list[Told]:
    farms = [(percent, Farm(folder, look_s=1.0).open()) for percent in (0, 1, 5) for _ in range(runs)]
    try:
        for _, farm in farms:
            farm.start()
        wait(lambda: all(healthy(farm) for _, farm in farms), 90, "all farms healthy")
        time.sleep(SETTLE_S)
        began = {}
        for percent, farm in farms:
            lose(farm, percent)
            began[farm.tag] = time.monotonic()
        time.sleep(SECONDS + 2)
        return [read(farm, percent, began) for percent, farm in farms]
    finally:
        for _, farm in farms:
            farm.close()


def loss_bars(told: Sequence[Told]) -> list[Bar]:
    by = {percent: [one for one in told if one.percent == percent] for percent in (0, 1, 5)}
    for percent, ones in by.items():
        times = sorted(one.named[LOSING] for one in ones if LOSING in one.named)
        print(
            f"  {percent} %: {len(ones)} runs, dropped {[one.dropped for one in ones]}, named right {len(times)}, "
            f"after {[round(value) for value in times]} s, both others alarmed {sum(one.both for one in ones)}, "
            f"knew itself {sum(one.own for one in ones)}"
        )
    wrong = sum(name != LOSING for one in told for name in one.named)
    share = {p: sum(LOSING in one.named for one in by[p]) / len(by[p]) for p in (1, 5)}
    return [
        Bar(name="false alarms at 0 % (looks of 30 nodes)", value=sum(one.alarms for one in by[0]), limit=0),
        Bar(name="runs that named a wrong node", value=wrong, limit=0),
        Bar(name="1 % found within 60 s, right node", value=share[1], limit=FOUND_1_BAR, at_least=True),
        Bar(name="5 % found within 60 s, right node", value=share[5], limit=FOUND_5_BAR, at_least=True),
    ]


# ---- a stopped peer ------------------------------------------------------------------------------------------------


def measure_stop(folder: Path, runs: int) -> list[float]:
    """Stop a node that was lossy before in half of the runs; return the seconds until both others say "stopped"."""
    farms = [Farm(folder, look_s=0.5).open() for _ in range(runs)]
    seconds: list[float] = []
    try:
        for farm in farms:
            farm.start()
        wait(lambda: all(healthy(farm) for farm in farms), 60, "all farms healthy")
        for farm in farms[::2]:
            lose(farm, 5)
        time.sleep(15)
        for farm in farms:
            farm.nodes[LOSING].signal(signal.SIGSTOP)
            others = [farm.nodes["a"], farm.nodes["b"]]
            seconds.append(
                wait(lambda o=others: all(n.reason(f"peer:{LOSING}") in STOP_KINDS for n in o), 20, "stopped")
            )
    except TimeoutError:
        seconds.append(float("inf"))
    finally:
        for farm in farms:
            farm.close()
    return seconds


# ---- cost ---------------------------------------------------------------------------------------------------------


def measure_cost(folder: Path, peers: int) -> dict[str, float]:
    """Return CPU in per cent of a core and RSS of one node's process with that many peers, all of them real."""
    names = [chr(ord("a") + index) for index in range(peers + 1)]
    farm = Farm(folder, names=names, look_s=1.0, quiet=True).open()
    try:
        farm.start()
        wait(lambda: all(node.last() for node in farm.nodes.values()), 60, "all nodes up")
        time.sleep(5)
        first = {name: node.last() for name, node in farm.nodes.items()}
        time.sleep(20)
        last = {name: node.last() for name, node in farm.nodes.items()}
    finally:
        farm.close()
    shares, kernel = (
        [
            100 * (last[name][what] - first[name][what]) / (last[name]["at_s"] - first[name]["at_s"])
            for name in names
        ]
        for what in ("cpu_s", "kernel_s")
    )
    rss = [look["rss_bytes"] / 1e6 for look in last.values()]
    print(f"  CPU of {len(names)} nodes, % of a core: {[round(share, 3) for share in sorted(shares)]}")
    print(f"  of that in the kernel: {[round(share, 3) for share in sorted(kernel)]}")
    return {"cpu": quantile(shares, 0.5), "rss_mb": max(rss)}


def main() -> int:
    options = parse()
    if reason := missing():
        print(f"cannot measure: {reason}")
        return 1
    bars: list[Bar] = []
    found: dict[str, Any] = {"load": os.getloadavg()}
    with tempfile.TemporaryDirectory() as folder:
        if options.only in {None, "cost"}:
            found["cost"] = cost = measure_cost(Path(folder), options.peers)
            bars += [
                Bar(
                    name=f"CPU per node, {options.peers} peers at 10 Hz, median",
                    value=cost["cpu"],
                    limit=CPU_BAR,
                    unit=" %",
                ),
                Bar(name="RSS of the process, most", value=cost["rss_mb"], limit=RSS_BAR_MB, unit=" MB"),
            ]
        if options.only in {None, "stop"}:
            found["stop_s"] = stops = measure_stop(Path(folder), options.runs)
            print(f"  told a stopped peer after {[round(value, 1) for value in stops]} s")
            bars.append(
                Bar(
                    name="stopped peer told from a lossy one, most",
                    value=max(stops),
                    limit=STOP_BAR_S,
                    unit=" s",
                )
            )
        if options.only in {None, "loss"}:
            told = measure_loss(Path(folder), options.runs)
            found["loss"] = [one.__dict__ for one in told]
            bars += loss_bars(told)
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    (results / "health_mesh.json").write_text(json.dumps(found, indent=1))
    print(*bars, sep="\n")
    return 0 if all(bar.holds for bar in bars) else 3


if __name__ == "__main__":
    sys.exit(main())
