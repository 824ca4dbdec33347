"""What the client suite asks, and how it reads answers, engines' own counts and the ledger; what must be so is said in the suite."""

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pydantic

from e2e.box import Stack, replica_http
from freehold.engines import all_engines
from freehold.engines.shared.metrics_page import read_metrics

MODEL = "smollm2-135m"
CONTEXT = 2048
PATIENCE_S = 120.0
"""For one answer: vLLM compiles functions for the first log probabilities, which takes up to 34 s (docs/engines.md)."""
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
SAME: Any = {"temperature": 0, "extra_body": {"cache_prompt": False}}
"""What makes two answers of one model the same, on whichever replica: llama.cpp's cache would be of another batch's arithmetic."""
PARIS = "7042"
"""The number of the token " Paris" in SmolLM2's vocabulary."""
STREAMS = 4
LONG = {"model": MODEL, "messages": QUESTION, "max_tokens": 1500, "ignore_eos": True}
"""Keeps an engine busy for ten seconds and more unless somebody ends it."""
PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "look_up",
        "strict": True,
        "description": "Look up a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Place(pydantic.BaseModel):
    """The shape that answers are asked for in."""

    model_config = pydantic.ConfigDict(extra="forbid")
    city: str = pydantic.Field(max_length=8)
    people: int = pydantic.Field(ge=0, le=99)


PLACE: Any = {
    "type": "json_schema",
    "json_schema": {"name": "place", "strict": True, "schema": Place.model_json_schema()},
}


def chat(client: openai.OpenAI, **more: Any) -> Any:
    """Ask QUESTION, or what `more` says."""
    return client.chat.completions.create(**{"model": MODEL, "messages": QUESTION, **SAME, **more})


def alike(one: list[float], other: list[float]) -> float:
    """Return the cosine of two embeddings."""
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return float(dot / (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5)


def text_of(chunks: list[Any]) -> str:
    """Return the text of a streamed chat."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def message(client: openai.OpenAI, **more: Any) -> Any:
    """Ask in Anthropic's shape; what is refused is raised as the library raises it."""
    body = {"model": MODEL, "max_tokens": 4, "temperature": 0, "messages": QUESTION, **more}
    return client.post("/messages", cast_to=object, body=body)


def events_of(answer: httpx2.Response) -> list[Any]:
    """Return the data of a whole stream of events."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]


def engine_counts(stack: Stack) -> dict[str, float]:
    """Return what MODEL's replicas say of themselves on their own pages, added up, by our names."""
    sums: dict[str, float] = {}
    for replica in stack.replicas():
        if replica["model"] == MODEL:
            engine = all_engines()[replica["engine"]]
            page = replica_http(replica["url"]).get(str(engine.metrics_path)).text
            for name, value in read_metrics(page, engine.metrics).items():
                sums[name] = sums.get(name, 0.0) + value
    return sums


def running(stack: Stack) -> float:
    """Return how many requests for MODEL the engines work on."""
    return engine_counts(stack)["running_requests"]


def progress(stack: Stack) -> float:
    """Return a count that moves with every step of the engines."""
    counts = engine_counts(stack)
    return counts.get("decode_steps_total", counts["generated_tokens_total"])


def aborts(raw: httpx2.Client) -> float:
    """Return how many clients left, by the gateway's count."""
    page = raw.get("/metrics").text
    found = re.findall(
        rf'^freehold_gateway_client_aborts_total\{{model="{MODEL}"\}} (\S+)$', page, re.MULTILINE
    )
    return float(found[0]) if found else 0.0


def recorded(stack: Stack) -> tuple[int, int, int]:
    """Return the ledger's requests, prompt tokens and completion tokens of MODEL."""
    rows = {row["model"]: row for row in stack.box.run("usage", "--json").said["usage"]}
    return tuple(rows[MODEL][name] for name in ("requests", "prompt_tokens", "completion_tokens"))  # type: ignore[return-value]


@contextlib.contextmanager
def streams_at_once(client: openai.OpenAI, count: int) -> Iterator[list[Any]]:
    """Let so many streams run while the block does, and give their chunks, complete when it has ended."""
    got: list[list[Any]] = [[] for _ in range(count)]

    def ask(number: int) -> None:
        asked: Any = SAME | {"extra_body": {"ignore_eos": True}, "max_tokens": 24 + number}
        question = [{"role": "user", "content": f"Tell me story {number}."}]
        got[number] = list(
            chat(client, messages=question, stream=True, stream_options={"include_usage": True}, **asked)
        )

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield got
    finally:
        for thread in threads:
            thread.join()
