"""Measure what callers get when more of them come than the model can answer: through Freehold, and from llama.cpp bare.

    python benchmarks/overload.py            all of it, about three minutes
    python benchmarks/overload.py --quick    shorter turns, coarse

One replica of SmolLM2-135M with four slots and one compute thread, `freehold up` with default settings. Callers come as
a Poisson stream whatever happens to those before them, ask for 16 streamed tokens, and leave after 8 s. Capacity is what
six callers that never pause get from the engine directly, before and after. Goodput counts whole answers whose first
token came within 2 s. In the quantiles of TTFT a caller who left before a token stands with all of its patience, 8 s.
Exit code: 0 all bars hold, 3 one does not, 1 it could not be measured. It does not measure what the gateway itself costs
(benchmarks/gateway does), nor fairness between callers (benchmarks/hold.py and tests/simulation do).
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from callers import MODEL, PATIENCE_S, Caller, Turn, ask, capacity, turn
from stack import Bar, CannotMeasureError, stack

CONFIG = f'{MODEL}gateway: {{listen: "127.0.0.1:0"}}\n'
HEADER = (
    f"{'':22} {'asked':>5} {'whole':>6} {'refused':>8} {'left':>5} {'failed':>7} {'goodput':>8} {'TTFT50':>7}"
    f" {'TTFT99':>7} {'ref.50':>7} {'ref.99':>7}    (TTFT in s, refusals in ms beyond their wait)"
)


async def burst(
    name: str, url: str, per_s: float, *, seconds: float, capacity_per_s: float
) -> tuple[Turn, float]:
    """Do the same, and return also after how many seconds a newcomer is served as if nothing had been."""
    loading = asyncio.create_task(turn(name, url, per_s, seconds=seconds, capacity_per_s=capacity_per_s))
    started_s = time.monotonic()
    await asyncio.sleep(seconds)
    while True:
        since_s = time.monotonic() - started_s - seconds
        newcomer = await ask(url, Caller(at_s=0.0))
        if newcomer.fate == "whole" and newcomer.ttft_s is not None and newcomer.ttft_s <= QUICK_S:
            return await loading, since_s
        if since_s > 2 * PATIENCE_S:
            return await loading, since_s
        await asyncio.sleep(0.1)


QUICK_S = 0.5  # A first token that did not wait: the engine takes 0.05 to 0.3 s on such a machine.


def bars(half: Turn, twice: Turn, four: Turn, quick_s: float) -> list[Bar]:
    found = [Bar(name="refused at 0.5x", value=half.count("refused"), limit=0)]
    for load in (twice, four):
        percent = {"unit": " %"}
        found += [
            Bar(name=f"goodput, {load.name}", value=100 * load.goodput, limit=90, at_least=True, **percent),
            Bar(name=f"TTFT p99 of the admitted, {load.name}", value=load.ttft_s(0.99), limit=2, unit=" s"),
            Bar(name=f"refusals p50, {load.name}", value=1e3 * load.refusal_s(0.5), limit=5, unit=" ms"),
            Bar(name=f"refusals p99, {load.name}", value=1e3 * load.refusal_s(0.99), limit=50, unit=" ms"),
            Bar(name=f"abandoned, {load.name}", value=100 * load.abandoned, limit=5, **percent),
        ]
    for load in (half, twice, four):
        found.append(Bar(name=f"failed, {load.name}", value=load.count("failed"), limit=0))
    return [*found, Bar(name="quick again after the burst", value=quick_s, limit=2, unit=" s")]


async def measure(gateway: str, engine: str, scale: float) -> list[Bar]:
    await capacity(engine, 5.0)  # warm
    before = await capacity(engine, 12 * scale)
    print(f"capacity, direct: {before:.2f} answers/s\n{HEADER}", flush=True)
    seconds, turns = 20 * scale, []
    for times in (0.5, 2):
        turns.append(
            await turn(f"freehold {times}x", gateway, times * before, seconds=seconds, capacity_per_s=before)
        )
        print(turns[-1].row(), flush=True)
    last, quick_s = await burst("freehold 4x", gateway, 4 * before, seconds=seconds, capacity_per_s=before)
    print(last.row(), flush=True)
    after = await capacity(engine, 8 * scale)
    for times in (2, 4):
        bare = await turn(
            f"llama.cpp bare {times}x", engine, times * before, seconds=seconds, capacity_per_s=after
        )
        print(bare.row(), flush=True)
    print(
        f"capacity, direct, afterwards: {after:.2f} answers/s; goodput of Freehold is over the mean of both"
    )
    for each in (*turns, last):
        each.capacity_per_s = statistics.fmean((before, after))
    return bars(*turns, last, quick_s)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="turns of half the length")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder, stack(Path(folder), CONFIG) as running:
            engine = running.status()["replicas"][0]["url"]
            found = asyncio.run(measure(running.url, engine, 0.5 if options.quick else 1.0))
    except (CannotMeasureError, subprocess.TimeoutExpired) as exc:
        print(f"cannot measure: {exc}", file=sys.stderr)
        return 1
    print("\n".join(map(str, found)))
    return 0 if all(bar.holds for bar in found) else 3


if __name__ == "__main__":
    sys.exit(main())
