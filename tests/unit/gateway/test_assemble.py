"""A stream put together is the answer that the engine would have given whole, wherever the stream is cut."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.engines.base import ApiError
from freehold.gateway.answers.assemble import assembler_for

CHAT, TEXT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
PATHS = (CHAT, TEXT, RESPONSES, MESSAGES)
Events = list[dict[str, Any]]


def chat(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": "m",
        "choices": list(choices),
    } | more


def delta(index: int = 0, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": fields, "finish_reason": finish}


def whole_chat(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": list(choices),
    } | more


def call(index: int, **fields: Any) -> dict[str, Any]:
    return {"index": index} | fields


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
LOGPROB_A = {
    "token": "a",
    "logprob": -0.5,
    "bytes": [97],
    "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}],
}
LOGPROB_B = {"token": "b", "logprob": -1.5, "bytes": [98], "top_logprobs": []}

KNOWN: dict[str, tuple[str, Events, dict[str, Any]]] = {
    "text": (
        CHAT,
        [chat(delta(role="assistant", content=None)), chat(delta(content="Hel")), chat(delta(content="lo ✓")),
         chat(delta(finish="stop")), chat(usage=USAGE, timings={"ms": 1})],
        whole_chat({"index": 0, "message": {"role": "assistant", "content": "Hello ✓"}, "finish_reason": "stop"},
                   usage=USAGE, timings={"ms": 1}),
    ),
    "role repeated in each delta": (
        CHAT,
        [chat(delta(role="assistant", content="a")), chat(delta(role="assistant", content="b")), chat(delta(finish="length"))],
        whole_chat({"index": 0, "message": {"role": "assistant", "content": "ab"}, "finish_reason": "length"}),
    ),
    "n=2, interleaved": (
        CHAT,
        [chat(delta(1, role="assistant", content="x")), chat(delta(0, role="assistant", content="a")),
         chat(delta(0, content="b"), delta(1, content="y")), chat(delta(1, "stop")), chat(delta(0, "length"))],
        whole_chat({"index": 0, "message": {"role": "assistant", "content": "ab"}, "finish_reason": "length"},
                   {"index": 1, "message": {"role": "assistant", "content": "xy"}, "finish_reason": "stop"}),
    ),
    "reasoning": (
        CHAT,
        [chat(delta(role="assistant", reasoning_content="hm")), chat(delta(reasoning_content="m")), chat(delta(content="4")),
         chat(delta(finish="stop"))],
        whole_chat({"index": 0, "message": {"role": "assistant", "content": "4", "reasoning_content": "hmm"}, "finish_reason": "stop"}),
    ),
    "two tool calls by index": (
        CHAT,
        [chat(delta(role="assistant", content=None)),
         chat(delta(tool_calls=[call(0, id="t0", type="function", function={"name": "f", "arguments": ""})])),
         chat(delta(tool_calls=[call(0, function={"arguments": '{"a"'})])),
         chat(delta(tool_calls=[call(1, id="t1", type="function", function={"name": "g", "arguments": "{"})])),
         chat(delta(tool_calls=[call(0, function={"arguments": ":1}"}), call(1, function={"arguments": "}"})])),
         chat(delta(finish="tool_calls"))],
        whole_chat({"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": None, "tool_calls": [
            {"id": "t0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
            {"id": "t1", "type": "function", "function": {"name": "g", "arguments": "{}"}}]}}),
    ),
    "logprobs": (
        CHAT,
        [chat(delta(role="assistant", content="") | {"logprobs": None}),
         chat(delta(content="a") | {"logprobs": {"content": [LOGPROB_A], "refusal": None}}),
         chat(delta(content="b") | {"logprobs": {"content": [LOGPROB_B], "refusal": None}}),
         chat(delta(finish="stop") | {"logprobs": None})],
        whole_chat({"index": 0, "message": {"role": "assistant", "content": "ab"}, "finish_reason": "stop",
                    "logprobs": {"content": [LOGPROB_A, LOGPROB_B], "refusal": None}}),
    ),
    "text completion": (
        TEXT,
        [{"id": "t", "object": "text_completion", "created": 1, "model": "m", "choices": [
            {"index": 0, "text": part, "logprobs": {"tokens": [part], "token_logprobs": [-1.0]}, "finish_reason": end}]}
         for part, end in (("a", None), ("b", "length"))],
        {"id": "t", "object": "text_completion", "created": 1, "model": "m", "choices": [
            {"index": 0, "text": "ab", "logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1.0, -1.0]}, "finish_reason": "length"}]},
    ),
    "responses": (
        RESPONSES,
        [{"type": "response.created", "response": {"id": "r", "status": "in_progress", "output": []}},
         {"type": "response.output_text.delta", "delta": "Hi"},
         {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": [{"type": "message"}]}}],
        {"id": "r", "status": "completed", "output": [{"type": "message"}]},
    ),
    "responses, cut by its token limit": (
        RESPONSES,
        [{"type": "response.incomplete", "response": {"id": "r", "status": "incomplete"}}],
        {"id": "r", "status": "incomplete"},
    ),
    "anthropic text and tool use": (
        MESSAGES,
        [{"type": "message_start", "message": {"id": "a", "type": "message", "role": "assistant", "model": "m", "content": [],
                                               "stop_reason": None, "usage": {"input_tokens": 3, "output_tokens": 1}}},
         {"type": "ping"},
         {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
         {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
         {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
         {"type": "content_block_stop", "index": 0},
         {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}},
         {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a": [1,'}},
         {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": " 2]}"}},
         {"type": "content_block_stop", "index": 1},
         {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 9}},
         {"type": "message_stop"}],
        {"id": "a", "type": "message", "role": "assistant", "model": "m", "stop_reason": "tool_use", "stop_sequence": None,
         "content": [{"type": "text", "text": "Hello"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1, 2]}}],
         "usage": {"input_tokens": 3, "output_tokens": 9}},
    ),
    "anthropic tool without arguments": (
        MESSAGES,
        [{"type": "message_start", "message": {"id": "a", "content": []}},
         {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}},
         {"type": "content_block_stop", "index": 0}, {"type": "message_stop"}],
        {"id": "a", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
    ),
}  # fmt: skip


def stream(events: Events, *, eol: bytes = b"\n", done: bool = True) -> bytes:
    lines = [b": keep-alive" + eol + eol]
    for event in events:
        name = b"event: " + event["type"].encode() + eol if "type" in event else b""
        lines.append(name + b"data: " + json.dumps(event, ensure_ascii=False).encode() + eol + eol)
    return b"".join(lines) + (b"data: [DONE]" + eol + eol if done else b"")


def assembled(path: str, data: bytes, places: list[int], *, choices: int = 0) -> bytes | ApiError:
    assembler = assembler_for(path, choices=choices)
    assert assembler is not None
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    for a, b in itertools.pairwise(ends):
        assembler.feed(data[a:b])
    assert assembler.size_bytes == len(data)
    return assembler.result()


CUTS = st.lists(st.integers(0, 2500), max_size=30)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
@given(places=CUTS)
def test_the_whole_answer_is_the_same_wherever_the_stream_is_cut(
    name: str, eol: bytes, places: list[int]
) -> None:
    path, events, expected = KNOWN[name]
    result = assembled(path, stream(events, eol=eol), places)
    assert isinstance(result, bytes), result
    assert json.loads(result) == expected


@pytest.mark.parametrize("name", KNOWN)
def test_one_usage_is_the_same_where_each_answer_has_its_own(name: str) -> None:
    path, events, expected = KNOWN[name]
    assert json.loads(assembled(path, stream(events), [], choices=1)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("name", KNOWN)
def test_byte_by_byte_gives_the_same(name: str) -> None:
    path, events, expected = KNOWN[name]
    data = stream(events, done=False)
    assert json.loads(assembled(path, data, list(range(len(data))))) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("name", KNOWN)
def test_a_stream_that_ends_early_is_an_error_at_every_event(name: str) -> None:
    path, events, _ = KNOWN[name]
    ends = [
        i
        for i, e in enumerate(events)
        if e.get("type") in {"response.completed", "response.incomplete", "message_stop"}
    ]
    finished_at = (
        ends[0]
        if ends
        else max(i for i, e in enumerate(events) if any(c["finish_reason"] for c in e["choices"]))
    )
    for count in range(finished_at):
        result = assembled(path, stream(events[:count], done=False), [])
        assert isinstance(result, ApiError)
        assert result.status == 502


ERRORS: dict[str, tuple[str, bytes, int, str]] = {
    "llama.cpp": (CHAT, b'data: {"error":{"code":500,"message":"boom","type":"server_error"}}\n\n', 500, "HTTP status 500"),
    "its own status": (CHAT, b'data: {"error":{"code":400,"message":"too long"}}\n\n', 400, "too long"),
    "a word as code": (TEXT, b'data: {"error":{"code":"oops","message":"boom"}}\n\n', 500, "HTTP status 500"),
    "nonsense status": (TEXT, b'data: {"error":{"code":99999,"message":"boom"}}\n\n', 500, "HTTP status 500"),
    "anthropic": (MESSAGES, b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"boom"}}\n\n', 500, "HTTP status 500"),
    "responses": (RESPONSES, b'event: error\ndata: {"type":"error","code":"server_error","message":"boom"}\n\n', 500, "HTTP status 500"),
    "not JSON": (CHAT, b"data: {oops\n\n", 502, "broken event"),
    "not an object": (CHAT, b"data: [1]\n\n", 502, "broken event"),
    "bad utf-8": (CHAT, b'data: {"x":"\xff"}\n\n', 502, "broken event"),
    "nested too deep": (CHAT, b"data: " + b"[" * 100_000 + b"\n\n", 502, "broken event"),
    "choices of the wrong type": (CHAT, b'data: {"choices":7}\n\n', 502, "out of order"),
    "a delta that is null": (CHAT, b'data: {"choices":[{"index":0,"delta":null}]}\n\n', 502, "out of order"),
    "delta before its block": (MESSAGES, b'data: {"type":"content_block_delta","index":3,"delta":{}}\n\n', 502, "out of order"),
    "tool arguments that are no JSON": (MESSAGES, stream([
        {"type": "message_start", "message": {"content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "input": {}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{oops"}},
        {"type": "content_block_stop", "index": 0}, {"type": "message_stop"}]), 502, "out of order"),
    "a tool block that never stops": (MESSAGES, stream([
        {"type": "message_start", "message": {"content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "input": {}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{"}},
        {"type": "message_stop"}]), 502, "ended early"),
    "nothing": (CHAT, b"", 502, "ended early"),
    "only the end": (CHAT, b"data: [DONE]\n\n", 502, "ended early"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_in_the_stream_is_the_answer(name: str) -> None:
    path, data, status, words = ERRORS[name]
    good = [event for p, events, _ in KNOWN.values() if p == path for event in events][:1]
    for before in (
        (b"", stream(good, done=False))
        if name not in {"nothing", "only the end"} and path == CHAT
        else (b"",)
    ):
        error = assembled(path, before + data, [])
        assert isinstance(error, ApiError)
        assert error.status == status
        assert words in error.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["choices", "index", "delta", "message", "type", "content", "tool_calls", "usage", "response", "error",
                         "content_block", "partial_json", "finish_reason", "text", "_input"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
TYPED = st.builds(
    lambda kind, event: event | {"type": kind} if isinstance(event, dict) else event,
    st.sampled_from(["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
                     "message_stop", "response.completed", "error"]),
    JSON,
)  # fmt: skip


@given(st.sampled_from(PATHS), st.lists(TYPED | JSON, max_size=6))
def test_any_events_give_an_answer_or_an_error_and_raise_nothing(path: str, events: list[Any]) -> None:
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    result = assembled(path, data, [])
    assert isinstance(result, ApiError) or isinstance(json.loads(result), dict)


@given(st.sampled_from(PATHS), st.binary(max_size=80))
def test_any_bytes_give_an_answer_or_an_error_and_raise_nothing(path: str, data: bytes) -> None:
    assert isinstance(assembled(path, data + b"\n", []), ApiError)


@pytest.mark.parametrize(("choices", "together"), [(2, (3, 4, 7)), (1, (6, 4, 10)), (0, (3, 2, 5))])
def test_answers_that_have_a_usage_each(choices: int, together: tuple[int, int, int]) -> None:
    assembler = assembler_for(CHAT, choices=choices)
    assert assembler is not None
    for event in (
        chat(delta(0, "stop", content="a")), chat(usage=USAGE | {"details": 1}),
        chat(delta(1, "stop", content="b")), chat(usage=USAGE | {"details": 2}),
    ):  # fmt: skip
        assembler.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    result = assembler.result()
    assert isinstance(result, bytes)
    usage = json.loads(result)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == together
    assert usage["details"] == 2


def test_paths_that_do_not_stream_have_no_assembler() -> None:
    assert assembler_for("/v1/embeddings") is None
    assert assembler_for("/v1/rerank") is None
