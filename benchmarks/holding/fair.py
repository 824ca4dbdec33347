"""One greedy key beside three modest ones on the real model: whether the modest ones are served as if it were not there."""

import asyncio
import os
import tempfile
from pathlib import Path

from callers import MODEL, TOKENS, Turn, capacity, turn
from stack import Bar, Stack, freehold, stack

GREEDY = 3.0  # times what the engine can give
SECONDS = 40.0  # shorter, and chance alone makes one of three ask for more than its share
CONFIG = f'{MODEL}gateway: {{listen: "127.0.0.1:0", auth: keys, keys_file: keys.json}}\n'
NAMES = ("greedy", "modest-1", "modest-2", "modest-3")


async def beside(url: str, keys: dict[str, str], modest: float, *, capacity_per_s: float) -> dict[str, Turn]:
    """Let all four come at once, each at its own rate."""
    rates = {name: (GREEDY if name == "greedy" else modest) * capacity_per_s for name in NAMES}
    coming = [
        turn(
            f"{name} {modest}x",
            url,
            rates[name],
            seconds=SECONDS,
            capacity_per_s=capacity_per_s,
            key=keys[name],
        )
        for name in NAMES
    ]
    return dict(zip(NAMES, await asyncio.gather(*coming), strict=True))


def jain(shares: list[float]) -> float:
    """Jain's index of fairness: 1 where all got the same, 1/n where one got everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares)) if any(shares) else 0.0


def show(turns: dict[str, Turn]) -> None:
    for name, one in turns.items():
        good = sum(caller.good for caller in one.callers)
        print(f"  {name:9} asked {len(one.callers):4}, whole {one.count('whole'):4}, good {good:4}, refused "
              f"{one.count('refused'):4}, left {one.count('left'):3}, failed {one.count('failed')}; "
              f"TTFT p50 {one.ttft_s(0.5):.2f} s, p99 {one.ttft_s(0.99):.2f} s")  # fmt: skip


async def both(running: Stack, keys: dict[str, str]) -> list[Bar]:
    url, engine = running.url, running.status()["replicas"][0]["url"]
    await capacity(engine, 5.0)  # warm
    rate = await capacity(engine, 12.0)
    print(f"  capacity, direct: {rate:.2f} answers/s", flush=True)
    first = await beside(url, keys, 0.2, capacity_per_s=rate)
    show(first)
    rate = await capacity(engine, 8.0)
    print(f"  capacity, direct: {rate:.2f} answers/s", flush=True)
    second = await beside(url, keys, 0.5, capacity_per_s=rate)
    show(second)
    modest = [caller for name, one in first.items() if name != "greedy" for caller in one.callers]
    good = 100 * sum(caller.good for caller in modest) / len(modest)
    failed = sum(one.count("failed") for turns in (first, second) for one in turns.values())
    tokens = [float(one.count("whole") * TOKENS) for one in second.values()]
    return [
        Bar(name="modest requests within the SLO, at 0.2x", value=good, limit=95, at_least=True, unit=" %"),
        Bar(name="Jain index of served tokens, at 0.5x", value=jain(tokens), limit=0.95, at_least=True),
        Bar(name="failed, of all four", value=failed, limit=0),
    ]


def measure() -> list[Bar]:
    with tempfile.TemporaryDirectory() as made:
        home = Path(made)
        config = home / "freehold.yaml"
        config.write_text(CONFIG)
        keys = {name: str(freehold("key", "create", name, "--config", config)["key"]) for name in NAMES}
        with stack(home, CONFIG, env=dict(os.environ)) as running:
            return asyncio.run(both(running, keys))
