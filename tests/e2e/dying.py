"""Kill the replica under a number of streams of the real model, and see what their callers get."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from e2e.box import Box, Stack

MODEL = "smollm2-135m"
TOKENS = 48
LIMIT_S = 120.0
_SUBJECTS = (
    "the sea",
    "a bakery",
    "bicycles",
    "the moon",
    "an old map",
    "tea",
    "rain",
    "a violin",
    "bread",
    "glass",
)
_TASKS = ("Write two sentences about {}.", "List three facts about {}, one per line.", "Write Python code about {}.",
          "Explain {} to a child.")  # fmt: skip
PROMPT = _TASKS[0].format(_SUBJECTS[0])
"""One of what they ask."""


def config(box: Box, source: Path, *, streams: int) -> Path:
    """Write a freehold.yaml with two replicas that have room for all streams each, and return its path."""
    lines = source.read_text().splitlines()
    where = [line for line in lines if line.strip().startswith(("source:", "sha256:"))]
    options = f"{{n_ctx: {streams * 2 * 256}, n_parallel: {streams * 2}}}"
    model = [
        "version: 1",
        "models:",
        f"  - name: {MODEL}",
        *where,
        "    engine: llama-cpp",
        "    replicas: 2",
    ]
    return box.write("\n".join([*model, f"    engine_options: {options}", ""]), "dying.yaml")


@dataclass(kw_only=True)
class Caller:
    """One stream as its caller saw it; times on the monotonic clock."""

    number: int
    text: str = ""
    finish: str | None = None
    whole: bool = False
    resumed: bool = False
    failure: str = ""
    began_s: float = 0.0
    at_s: list[float] = field(default_factory=list)
    """When each event came."""

    def gap_s(self, killed_s: float) -> float:
        """Return the longest silence that began or went on after the kill."""
        pairs = zip(self.at_s, self.at_s[1:], strict=False)
        return max((after - before for before, after in pairs if after > killed_s), default=0.0)


def _request(number: int, host: str, *, tokens: int) -> bytes:
    text = _TASKS[number % len(_TASKS)].format(_SUBJECTS[number // len(_TASKS) % len(_SUBJECTS)])
    body = json.dumps({"model": MODEL, "stream": True, "temperature": 0, "max_tokens": tokens, "cache_prompt": False,
                       "messages": [{"role": "user", "content": text}]}).encode()  # fmt: skip
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def ask(url: str, caller: Caller, *, tokens: int = TOKENS) -> None:
    """Ask once and listen to the end."""
    parts = urlsplit(url)
    caller.began_s = time.monotonic()
    try:
        async with asyncio.timeout(LIMIT_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(_request(caller.number, parts.netloc, tokens=tokens))
            # Every event is one line, and no line of chunked framing looks like one.
            async for line in reader:
                caller.at_s += [time.monotonic()] * line.startswith(b"data:")
                if _take(caller, line.strip()):
                    break
            writer.close()
    except (OSError, TimeoutError) as exc:
        caller.failure = repr(exc)


def _take(caller: Caller, line: bytes) -> bool:
    """Take one line of an answer and return whether it was the last."""
    if line.startswith(b": x-freehold-resumed"):
        caller.resumed = True
    if line == b"data: [DONE]":
        caller.whole = caller.finish is not None
        return True
    if line.startswith(b"data:"):
        said: dict[str, Any] = json.loads(line[5:])
        if "error" in said:
            caller.failure = str(said["error"])
            return True
        for choice in said["choices"]:
            caller.text += choice["delta"].get("content") or ""
            caller.finish = choice["finish_reason"] or caller.finish
    return line.startswith(b"HTTP/1.1") and b" 200 " not in line


async def undisturbed(url: str, streams: int) -> list[Caller]:
    """Return what twice `streams` callers at once get when nothing happens."""
    callers = [Caller(number=number) for number in range(2 * streams)]
    await asyncio.gather(*(ask(url, caller) for caller in callers))
    return callers


async def disturbed(stack: Stack, streams: int, *, after: int) -> tuple[list[Caller], float]:
    """Return what the same callers get when a replica is killed, and when it was: after so many events, on average."""
    victim = stack.replicas()[0]
    callers = [Caller(number=number) for number in range(2 * streams)]
    asked = [asyncio.create_task(ask(stack.url, caller)) for caller in callers]
    while sum(len(caller.at_s) for caller in callers) < after * len(callers):  # noqa: ASYNC110 -- a level
        await asyncio.sleep(0.01)
    killed_s = time.monotonic()
    psutil.Process(victim["pid"]).kill()
    await asyncio.gather(*asked)
    return callers, killed_s


def same(one: list[Caller], other: list[Caller]) -> int:
    """Return how many callers got the same text in two runs."""
    return sum(a.text == b.text for a, b in zip(one, other, strict=True))
