"""What tests of continued streams share: requests, engines that die or go on, and what a client has of their events."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from gateway_rig.client import CHAT
from gateway_rig.engines import STREAM_HEAD, Call, chunk, delta
from gateway_rig.process import model

TEXT = "/v1/completions"
TOKENS = 16


def two(engines: Any, *, engine: str = "llama-cpp", **more: Any) -> dict[str, Any]:
    return model("m", *engines, engine=engine) | more


def body(path: str = CHAT, **more: Any) -> dict[str, Any]:
    said = {"prompt": "hi"} if path == TEXT else {"messages": [{"role": "user", "content": "hi"}]}
    return {"model": "m", "stream": True, **said, **more}


def events(answer: bytes) -> list[dict[str, Any]]:
    """Return the JSON events of a stream that is well formed and has its end."""
    assert answer.endswith(b"data: [DONE]\n\n"), answer[-300:]
    blocks = answer.removesuffix(b"data: [DONE]\n\n").split(b"\n\n")
    assert blocks.pop() == b""
    assert all(re.match(rb"data: \{|: ", block) for block in blocks), answer
    return [json.loads(block[5:]) for block in blocks if block.startswith(b"data:")]


def text_of(parts: list[dict[str, Any]]) -> str:
    choices = [choice for part in parts for choice in part["choices"]]
    return "".join(c["text"] if "text" in c else c["delta"].get("content") or "" for c in choices)


def whole(first: int = 0, end: int = TOKENS) -> str:
    return "".join(f" w{index}" for index in range(first, end))


async def dies(call: Call) -> None:
    """Begin an answer, and be gone in the middle of an event."""
    first = delta("one ")
    call.send(STREAM_HEAD + chunk(first) + chunk(delta("two \n")[:40]))
    call.end()


def goes_on(*texts: str) -> Callable[[Call], Awaitable[None]]:
    async def answer(call: Call) -> None:
        parts = [*map(delta, texts), delta("", "stop"), b"data: [DONE]\n\n"]
        call.send(STREAM_HEAD + b"".join(map(chunk, parts)) + b"0\r\n\r\n")

    return answer


def in_turn(*answers: Callable[[Call], Awaitable[None]]) -> Callable[[Call], Awaitable[None]]:
    left = list(answers)

    async def answer(call: Call) -> None:
        await left.pop(0)(call)

    return answer
