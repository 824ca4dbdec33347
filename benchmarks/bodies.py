"""What large bodies of many shapes do to others: the longest wait of a probe meanwhile, and the memory that they take.

`python benchmarks/bodies.py [llama-cpp]`: half a minute; with an engine's name the gateway treats the stand-in behind it as
that engine, for which most bodies are written anew. Bars: no probe waits longer than 0.1 s, memory grows by at most four
times the body, and 64,000 keys are answered 400 within 0.1 s. Exit code: 0 all hold, 3 one does not.
"""

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from gateway_rig.client import get, post
from gateway_rig.engines import Engines
from gateway_rig.large_bodies import KEYS_64000, SHAPES
from gateway_rig.process import Gateway, model, running

LATE_S, GROWTH_MAX, RUNS = 0.1, 4.0, 4


def probe(gateway: Gateway, done: Event, worst_s: Connection) -> None:
    """Ask again and again, in a process of its own: the sender of the body and the engine keep this one busy."""
    worst = 0.0
    with gateway.client() as client:
        client.ask(get("/livez"))
        worst_s.send(worst)
        while not done.is_set():
            started_s = time.perf_counter()
            client.ask(get("/livez"))
            worst = max(worst, time.perf_counter() - started_s)
    worst_s.send(worst)


def slowest_probe_s(gateway: Gateway, work: Callable[[], object]) -> float:
    """Return the longest time that a probe took while the work was done."""
    done, (here, there) = multiprocessing.Event(), multiprocessing.Pipe()
    process = multiprocessing.Process(target=probe, args=(gateway, done, there))
    process.start()
    here.recv()
    work()
    done.set()
    worst_s: float = here.recv()
    process.join()
    return worst_s


def growth_bytes(gateway: Gateway, work: Callable[[], object]) -> int:
    folder = Path(f"/proc/{gateway.process.pid}")
    (folder / "clear_refs").write_text("5")  # the peak starts anew (proc(5))
    before = gateway.rss_bytes()
    work()
    (peak,) = (line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 - before


def send(gateway: Gateway, body: bytes) -> int:
    with gateway.client() as client:
        return client.ask(post(body)).status


def measure(gateway: Gateway) -> bool:
    """Print a row for each shape and return whether all bars hold; the best of some runs counts, since others use the machine too."""
    holds = True
    for name, body in SHAPES.items():
        growth = growth_bytes(gateway, lambda body=body: send(gateway, body)) / len(body)
        status = send(gateway, body)
        waits_s = [slowest_probe_s(gateway, lambda body=body: send(gateway, body)) for _ in range(RUNS)]
        holds = holds and min(waits_s) <= LATE_S and growth <= GROWTH_MAX
        print(
            f"{name:36} {status} probe {min(waits_s) * 1e3:4.0f} ms (worst run {max(waits_s) * 1e3:4.0f}), memory {growth:3.1f} x",
            flush=True,
        )
    took_s = []
    for _ in range(RUNS):
        started_s = time.perf_counter()
        status = send(gateway, KEYS_64000)
        took_s.append(time.perf_counter() - started_s)
    print(f"{'64,000 keys':36} {status} in {min(took_s) * 1e3:.0f} ms")
    return holds and min(took_s) <= LATE_S and status == 400


def main() -> int:
    engines = Engines()
    kind = sys.argv[1] if len(sys.argv) > 1 else "external"
    entry = model("m", engines.new(), engine=kind) | {"media_urls": False}
    try:
        with running(Path(tempfile.mkdtemp(prefix="bodies-")), [entry]) as gateway:
            return 0 if measure(gateway) else 3
    finally:
        engines.stop()


if __name__ == "__main__":
    sys.exit(main())
