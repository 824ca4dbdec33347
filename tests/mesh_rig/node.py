"""One node of a mesh as a program: a mesh and its probe, one JSON line per look. Started by `namespaces.Farm`."""

import asyncio
import json
import resource
import sys
from collections import deque

from freehold.core.clock import SYSTEM_CLOCK
from freehold.health.checks.network_loss import PROBE
from freehold.health.collectors.mesh import PORT, Mesh, MeshSettings
from freehold.health.model.probe import Expected
from freehold.health.model.targets import MeshNode
from freehold.health.model.view import Network, View


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def kernel_s() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_stime


def rss_bytes() -> int:
    with open("/proc/self/statm") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * resource.getpagesize()


def look(mesh: Mesh, views: deque[View], node: str) -> dict[str, object]:
    """Make a view, judge it, and return both as plain values."""
    now_s = SYSTEM_CLOCK.monotonic_s()
    peers = mesh.sample()
    views.append(View(at_s=SYSTEM_CLOCK.wall_s(), monotonic_s=now_s, node=node, network=Network(peers=peers)))
    findings = PROBE.check(list(views), Expected())
    return {
        "node": node,
        "at_s": now_s,
        "cpu_s": cpu_s(),
        "rss_bytes": rss_bytes(),
        "ignored": mesh.ignored,
        "findings": {
            found.component: {
                "verdict": found.verdict,
                "reason": found.reason,
                "message": found.message,
                "at_fault": next((e.value for e in found.evidence if e.what == "node at fault"), ""),
            }
            for found in findings
        },
        "peers": {
            peer.name: {
                "sent": peer.sent,
                "lost_out": peer.lost_out,
                "lost_back": peer.lost_back,
                "outage": peer.outage,
                "unknown": peer.lost_unknown,
                "refused": peer.refused,
                "unreachable": peer.unreachable,
                "silent_s": peer.silent_s,
                "control": peer.control,
                "rtt_s": sorted(peer.rtt_s)[len(peer.rtt_s) // 2] if peer.rtt_s else None,
                "large": (peer.windows[0].large_out, peer.windows[0].large_back),
                "settled": (peer.windows[0].settled_out, peer.windows[0].settled_back),
                "lost": (peer.windows[0].lost_out, peer.windows[0].lost_back),
            }
            for peer in peers
        },
    }


async def main() -> None:
    told = json.loads(sys.argv[1])
    settings = MeshSettings(
        node=told["node"],
        key=bytes.fromhex(told["key"]),
        peers=tuple(MeshNode(name=name, host=host, port=PORT) for name, host in told["peers"].items()),
        listen_host=told["host"],
        rate_hz=told.get("rate_hz", 10.0),
    )
    mesh = Mesh(settings)
    mesh.open()
    running = asyncio.create_task(mesh.run())
    views: deque[View] = deque(maxlen=16)
    while not running.done():
        await asyncio.sleep(told.get("look_s", 0.5))
        if told.get("quiet"):
            mesh.sample()
            print(
                json.dumps(
                    {
                        "cpu_s": cpu_s(),
                        "kernel_s": kernel_s(),
                        "at_s": SYSTEM_CLOCK.monotonic_s(),
                        "rss_bytes": rss_bytes(),
                    }
                ),
                flush=True,
            )
        else:
            print(json.dumps(look(mesh, views, settings.node)), flush=True)
    running.result()


if __name__ == "__main__":
    asyncio.run(main())
