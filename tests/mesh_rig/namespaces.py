"""A farm of nodes in network namespaces: a bridge in one of its own, a veth to each node, nftables to lose packets.

Everything is made here and goes away with `close`; nothing of the machine's own network is touched.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NODE = Path(__file__).with_name("node.py")
KEY = "5e" * 32
MTU = 1500


def missing() -> str:
    """Return why no farm can be made here; empty when one can."""
    if not os.environ.get("FAULTS"):
        return "minutes of real faults, and times that want a quiet machine: make faults"
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [name for name in ("ip", "nft") if not shutil.which(name)]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: iproute2 nftables)"
    made = subprocess.run(["ip", "netns", "add", "fhprobe"], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    tried = subprocess.run(
        [*_inside("fhprobe"), "nft", "list", "ruleset"], capture_output=True, text=True, check=False
    )
    subprocess.run(["ip", "netns", "del", "fhprobe"], check=False)
    return f"nft does not work here: {tried.stderr.strip()}" if tried.returncode else ""


def _inside(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass
class Node:
    """One node: its namespace, its address, its program."""

    name: str
    namespace: str
    host: str
    out: Path
    process: subprocess.Popen[bytes] | None = None

    def looks(self) -> list[dict[str, Any]]:
        """Return all that its program has said so far."""
        text = self.out.read_text() if self.out.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def last(self) -> dict[str, Any]:
        """Return the newest; empty before the first."""
        looks = self.looks()
        return looks[-1] if looks else {}

    def finding(self, component: str) -> dict[str, str]:
        """Return what it says last of a component; empty when nothing."""
        return dict(self.last().get("findings", {}).get(component, {}))

    def reason(self, component: str) -> str:
        return self.finding(component).get("reason", "")

    def run(self, *words: str, text: str = "") -> str:
        """Run a command in its namespace and return what it prints."""
        done = subprocess.run(
            [*_inside(self.namespace), *words], input=text, check=True, capture_output=True, text=True
        )
        return done.stdout

    def signal(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def lose(self, *, permille: int, match: str = "", hook: str = "input") -> None:
        """Lose that many of a thousand UDP datagrams that match, counting them."""
        rule = f"meta l4proto udp {match} numgen random mod 1000 < {permille} counter drop"
        if permille >= 1000:
            rule = f"meta l4proto udp {match} counter drop"
        chain = f"type filter hook {hook} priority 0; {rule};"
        self.run("nft", "-f", "-", text=f"table inet lossy {{\nchain c_{hook} {{\n{chain}\n}}\n}}\n")

    def heal(self) -> None:
        self.run("nft", "flush", "ruleset")

    def dropped(self) -> int:
        """Return how many the rule has dropped: the truth to compare with."""
        listed = json.loads(self.run("nft", "-j", "list", "ruleset"))["nftables"]
        counters = [
            part["counter"]["packets"]
            for row in listed
            for part in row.get("rule", {}).get("expr", [])
            if "counter" in part
        ]
        return sum(counters)


@dataclass
class Farm:
    """Nodes `a`, `b`, `c`… that all see each other."""

    folder: Path
    names: Sequence[str] = ("a", "b", "c")
    quiet: bool = False
    look_s: float = 0.5
    nodes: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tag = secrets.token_hex(3)
        self.bridge = f"fh{self.tag}-br"

    def open(self) -> "Farm":
        """Make the namespaces and wires."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ip("netns", "add", self.bridge)
        ip("-n", self.bridge, "link", "add", "br0", "type", "bridge")
        ip("-n", self.bridge, "link", "set", "br0", "up")
        for index, name in enumerate(self.names):
            self._wire(name, f"10.77.0.{index + 1}")
        return self

    def _wire(self, name: str, host: str) -> None:
        namespace = f"fh{self.tag}-{name}"
        ip("netns", "add", namespace)
        self.nodes[name] = Node(name, namespace, host, self.folder / f"{self.tag}-{name}.jsonl")
        ip(
            "link",
            "add",
            "eth0",
            "netns",
            namespace,
            "type",
            "veth",
            "peer",
            f"p{name}",
            "netns",
            self.bridge,
        )
        ip("-n", self.bridge, "link", "set", f"p{name}", "master", "br0", "up")
        ip("-n", namespace, "addr", "add", f"{host}/24", "dev", "eth0")
        ip("-n", namespace, "link", "set", "eth0", "up")
        ip("-n", namespace, "link", "set", "lo", "up")

    def start(self, *names: str, pinned: str = "") -> None:
        """Start the programs of these nodes, of all when none is named."""
        for name in names or tuple(self.names):
            node = self.nodes[name]
            told = {
                "node": name,
                "key": KEY,
                "host": node.host,
                "quiet": self.quiet,
                "look_s": self.look_s,
                "peers": {other: self.nodes[other].host for other in self.names if other != name},
            }
            with node.out.open("ab") as out:
                node.process = subprocess.Popen(
                    [*_inside(node.namespace), *pinned.split(), sys.executable, NODE, json.dumps(told)],
                    stdout=out,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                )

    def wire_down(self, name: str) -> None:
        """Take the far end of a node's wire down, as a pulled cable does: it has no carrier."""
        ip("-n", self.bridge, "link", "set", f"p{name}", "down")

    def stop(self) -> None:
        """End the programs."""
        for node in self.nodes.values():
            if node.process and node.process.poll() is None:
                node.process.kill()
                node.process.wait()

    def close(self) -> None:
        """End the programs and take the namespaces away."""
        self.stop()
        for namespace in (*(node.namespace for node in self.nodes.values()), self.bridge):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
