"""What one more gateway worker gives and costs: throughput and CPU time of one against two, in short turns.

`python benchmarks/workers.py`: a mock engine and a load client, which need cores of their own, so on two cores the
ratio of throughputs is held down by them; the ratio of CPU times per request is what sharing costs.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks" / "gateway")]

from build import build  # noqa: E402 - after the path
from processes import run_client, start_mock, stop  # noqa: E402

from gateway_rig.workers import Workers  # noqa: E402

LOAD_CORE = 1
"""Engine and client share one core, as in the gateway benchmark; workers run wherever there is room."""
LOADS: dict[str, dict[str, object]] = {
    "whole answers, 32 connections": {"prompt": "bench:bytes=1024", "conns": 32},
    "streams of 100 chunks, 32 connections": {
        "prompt": "bench:chunks=100",
        "stream": 1,
        "chunks": 100,
        "conns": 32,
    },
}


@contextlib.contextmanager
def gateways(folder: Path, port: int, counts: list[int]) -> Iterator[dict[int, Workers]]:
    """Run a gateway for each number of workers, all at once."""
    engine: Any = SimpleNamespace(url=f"http://127.0.0.1:{port}")
    found = {}
    for count in counts:
        (folder / str(count)).mkdir()
        found[count] = Workers(folder / str(count), engine, slots=64, workers=count)
    try:
        yield found
    finally:
        for workers in found.values():
            workers.close()


def turn(workers: Workers, load: dict[str, object], secs: float) -> tuple[float, float]:
    """Return requests a second and CPU microseconds per request of one turn."""
    pids = ",".join(map(str, workers.links.pids))
    said = run_client("load", LOAD_CORE, port=workers.port, secs=secs, warm_ms=300, cpu=pids, **load)
    requests = said["window_requests"]
    return requests / secs, said["cpu_sched_ns"] / 1000 / requests


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default 5)")
    parser.add_argument("--secs", type=float, default=2.0, help="seconds of a turn (default 2)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="what to compare")
    args = parser.parse_args()
    build()
    folder = Path(tempfile.mkdtemp(prefix="workers-"))
    mock = start_mock(folder, LOAD_CORE)
    try:
        measure(args, folder, mock.port)
    finally:
        stop(mock.process)
    return 0


def measure(args: argparse.Namespace, folder: Path, port: int) -> None:
    with gateways(folder, port, args.workers) as found:
        for name, load in LOADS.items():
            turns: dict[int, list[tuple[float, float]]] = {count: [] for count in found}
            for _ in range(args.rounds):
                for count, workers in found.items():
                    turns[count].append(turn(workers, load, args.secs))
            first = turns[args.workers[0]]
            for count, rows in turns.items():
                ratio = median(row[0] / base[0] for row, base in zip(rows, first, strict=True))
                cost = median(row[1] / base[1] for row, base in zip(rows, first, strict=True))
                rate, cpu_us = median(row[0] for row in rows), median(row[1] for row in rows)
                print(
                    f"{name}: {count} workers: {rate:.0f}/s ({ratio:.2f}x), {cpu_us:.0f} us CPU each ({cost:.2f}x)"
                )


if __name__ == "__main__":
    sys.exit(main())
