"""What no engine would answer as it was asked is a 400, prompts are counted by engines, and coding agents' requests arrive whole."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from agent_requests import CLAUDE_CODE, CLAUDE_CODE_HEAD, CODEX
from gateway_rig.client import CHAT, Client, post
from gateway_rig.engines import STREAM_HEAD, Engine, chunk, delta, event, says, whole
from gateway_rig.process import Gateway, model, running

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
HI: list[Any] = [{"role": "user", "content": "hi"}]
NAMED = {"type": "function", "function": {"name": "look_up"}}


@pytest.fixture(scope="module")
def gateway(the_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    models = [
        model("m", the_engine),
        model("cpp", the_engine, engine="llama-cpp", slots=4),
        model("vllm", the_engine, engine="vllm", slots=4),
    ]
    with running(tmp_path_factory.mktemp("honour"), models) as gateway:
        yield gateway
        assert gateway.metric("freehold_bugs_total") == 0


# A tool that must be called

FORCED: list[tuple[str, Any]] = [
    (CHAT, "required"),
    (CHAT, NAMED),
    (CHAT, {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}),
    (RESPONSES, "required"),
    (RESPONSES, {"type": "function", "name": "look_up"}),
    (MESSAGES, {"type": "any"}),
    (MESSAGES, {"type": "tool", "name": "look_up"}),
]
FREE: list[tuple[str, Any]] = [
    (CHAT, "auto"), (CHAT, "none"), (CHAT, None), (MESSAGES, {"type": "auto"}), (MESSAGES, {"type": "none"}),
]  # fmt: skip


def choosing(name: str, path: str, choice: Any, *, stream: bool = False) -> bytes:
    said = {"input": "hi"} if path == RESPONSES else {"messages": HI}
    return post({"model": name, "tools": [{}], "tool_choice": choice, "stream": stream, **said}, path=path)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "choice"), [case for case in FORCED if case[0] != CHAT])
def test_a_tool_that_the_engine_would_not_force_is_refused(
    path: str, choice: Any, client: Client, engine: Engine, *, stream: bool
) -> None:
    answer = client.ask(choosing("cpp", path, choice, stream=stream))
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert "may answer in text" in answer.error["message"]
    if path != MESSAGES:
        assert (answer.error["code"], answer.error["param"]) == ("not_supported_by_engine", "tool_choice")
    assert not engine.calls


PLACES = {
    "type": "object",
    "properties": {"at": {"$ref": "#/$defs/place"}, "next": {"$ref": "#"}},
    "$defs": {"place": {"type": "string"}},
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "wait"}},
    {"type": "function", "function": {"name": "look_up", "parameters": PLACES}},
]
USED = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


def forced(choice: Any, **more: Any) -> bytes:
    body = {
        "model": "cpp",
        "messages": HI,
        "tools": TOOLS,
        "tool_choice": choice,
        "stop": "}",
        "grammar": "root ::= x",
    }
    return post(body | more)


def streams(engine: Engine, text: str, finish: str = "stop") -> None:
    """Let an engine answer every request with this text, cut in two, and its usage."""
    usage = event(
        {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [],
            "usage": USED,
        }
    )
    parts = (delta(text[:5]), delta(text[5:]), delta("", finish), usage, b"data: [DONE]\n\n")
    says(engine, STREAM_HEAD + b"".join(map(chunk, parts)) + b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("choice", "names"),
    [("required", ["wait", "look_up"]), (NAMED, ["look_up"]), (FORCED[2][1], ["look_up"])],
)
def test_a_call_is_asked_for_by_a_schema(
    choice: Any, names: list[str], client: Client, engine: Engine
) -> None:
    streams(engine, '{"name": "look_up", "arguments": {}}')
    assert client.ask(forced(choice)).status == 200
    (call,) = engine.calls
    asked = call.json
    assert (asked["tool_choice"], asked["tools"]) == ("none", TOOLS)
    assert asked.keys().isdisjoint({"stop", "grammar"})
    schema = asked["response_format"]["json_schema"]["schema"]
    defined = schema["$defs"]
    assert [
        defined[each["$ref"].removeprefix("#/$defs/")]["properties"]["name"]["const"]
        for each in schema["anyOf"]
    ] == names
    place = f"call{names.index('look_up')}"
    root = f"#/$defs/{place}/properties/arguments"
    arguments = defined[place]["properties"]["arguments"]
    assert arguments["properties"] == {"at": {"$ref": root + "/$defs/place"}, "next": {"$ref": root}}
    assert defined[place]["required"] == ["name", "arguments"]


def test_the_text_comes_back_as_a_call(client: Client, engine: Engine) -> None:
    streams(engine, '{ "name": "look_up",\n "arguments": {"at": "Paris"} }')
    answer = client.ask(forced(NAMED)).json
    (choice,) = answer["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert call["id"]
    assert (call["type"], call["function"]) == (
        "function",
        {"name": "look_up", "arguments": '{"at":"Paris"}'},
    )
    assert answer["usage"] == USED


@pytest.mark.parametrize("asks_usage", [False, True])
def test_a_stream_of_a_call_is_whole(client: Client, engine: Engine, *, asks_usage: bool) -> None:
    streams(engine, '{"name": "look_up", "arguments": {"at": "Paris"}}')
    more = {"stream_options": {"include_usage": True}} if asks_usage else {}
    answer = client.ask(forced(NAMED, stream=True, **more))
    assert answer.header("content-type") == "text/event-stream"
    *lines, end = [line[6:] for line in answer.body.split(b"\n\n") if line]
    assert end == b"[DONE]"
    begun, done, *used = [json.loads(line) for line in lines]
    (call,) = begun["choices"][0]["delta"]["tool_calls"]
    assert (call["index"], call["function"]["arguments"]) == (0, '{"at":"Paris"}')
    assert done["choices"] == [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]
    assert [each["usage"] for each in used] == [USED] * asks_usage


def test_a_call_that_the_limit_cut_is_none(client: Client, engine: Engine) -> None:
    streams(engine, '{"name": "look_up", "argum', "length")
    (choice,) = client.ask(forced(NAMED)).json["choices"]
    assert (choice["finish_reason"], choice["message"]) == ("length", {"role": "assistant", "content": None})


def test_a_finished_text_that_is_no_call_is_an_error(client: Client, engine: Engine) -> None:
    streams(engine, "It is Paris.")
    assert client.ask(forced(NAMED)).status == 502


@pytest.mark.parametrize(
    "change",
    [
        {"tools": []},
        {"tools": None},
        {"tools": [{}]},
        {"tool_choice": {"type": "function", "function": {"name": "x"}}},
    ],
)
def test_a_call_of_a_tool_that_is_not_there_is_refused(
    change: dict[str, Any], client: Client, engine: Engine
) -> None:
    answer = client.ask(forced(change.get("tool_choice", "required"), **change))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (
        400,
        "invalid_tool_choice",
        "tool_choice",
    )
    assert not engine.calls


# Shapes that are too much


def schema(inner: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": inner}}


def nested(depth: int) -> Any:
    value: Any = {"type": "string"}
    for _ in range(depth):
        value = {"items": value}
    return value


DEEP_PATTERN = {"type": "string", "pattern": "(" * 2000 + "a" + ")" * 2000}
TOO_MUCH: dict[str, tuple[str, Any]] = {
    "grammar": (CHAT, {"grammar": "root ::= " + "(" * 400_000 + '"a"' + ")" * 400_000}),
    "short grammar": (CHAT, {"grammar": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000}),
    "grammar of a text": ("/v1/completions", {"prompt": "a", "grammar": "root ::= " + "(" * 5000}),
    "closed in texts": (CHAT, {"grammar": "root ::= " + '(")" ' * 2000}),
    "regex": (CHAT, {"structured_outputs": {"regex": "(" * 2000}}),
    "repetitions": (CHAT, {"grammar": "root ::= " + '"a"? ' * 1001}),
    "nested schema": (CHAT, {"response_format": schema(nested(100))}),
    "schema of llama.cpp": (CHAT, {"json_schema": nested(100)}),
    "schema of responses": (RESPONSES, {"text": {"format": {"type": "json_schema", "schema": nested(100)}}}),
    "schema of messages": (MESSAGES, {"output_config": {"format": {"type": "json_schema", "schema": nested(100)}}}),
    "large schema": (CHAT, {"response_format": schema({"enum": ["x" * 300_000]})}),
    "pattern": (CHAT, {"response_format": schema(DEEP_PATTERN)}),
    "tool": (CHAT, {"tools": [{"type": "function", "function": {"name": "t", "parameters": nested(100)}}]}),
    "tool of messages": (MESSAGES, {"tools": [{"name": "t", "input_schema": DEEP_PATTERN}]}),
    "tool choice": (CHAT, {"tool_choice": {"type": "function", "function": nested(300)}}),
    "tools": (CHAT, {"tools": [{"type": "function", "function": {"name": "t", "description": "x" * 1_100_000}}]}),
}  # fmt: skip


@pytest.mark.parametrize("name", ["m", "cpp", "vllm"])
@pytest.mark.parametrize("case", TOO_MUCH)
def test_a_shape_that_would_end_an_engine_is_refused(
    name: str, case: str, client: Client, engine: Engine
) -> None:
    path, body = TOO_MUCH[case]
    said = {"input": "hi"} if path == RESPONSES else {"messages": HI}
    answer = client.ask(post({"model": name, **said, **body}, path=path))
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    (key,) = body.keys() - {"prompt"}
    assert key in answer.error["message"]
    if path != MESSAGES:
        assert (answer.error["code"], answer.error["param"]) == ("constraint_too_large", key)
    assert not engine.calls


def test_an_escape_hides_no_bracket(client: Client, engine: Engine) -> None:
    hidden = json.dumps(schema({"type": "string", "pattern": "x" * 2000})).replace(
        "x" * 2000, "\\u0028" * 2000
    )
    for shape in (hidden, hidden.replace('"pattern"', '"\\u0070attern"')):
        body = f'{{"model":"m","messages":[1],"response_format":{shape}}}'.encode()
        assert client.ask(post(body)).error["code"] == "constraint_too_large"
    assert not engine.calls


def test_large_tools_of_an_agent_pass(client: Client, engine: Engine) -> None:
    words = 'Use it as "f(x)" or {"a": [1]} \\ (see (1)). ' * 200
    properties = {
        f"p{each}": {"type": "string", "description": words, "pattern": "^(a|b)+$"} for each in range(4)
    }
    tools = [
        {
            "type": "function",
            "function": {"name": f"t{each}", "description": words, "parameters": {"properties": properties}},
        }
        for each in range(20)
    ]
    assert (
        client.ask(
            post({"model": "m", "messages": HI, "tools": tools, "response_format": schema(nested(20))})
        ).status
        == 200
    )
    assert len(engine.calls) == 1


@pytest.mark.parametrize(("path", "choice"), FREE)
def test_a_tool_that_may_be_called_is_asked_for(
    path: str, choice: Any, client: Client, engine: Engine
) -> None:
    client.ask(choosing("cpp", path, choice, stream=True))
    assert [call.json["tool_choice"] for call in engine.calls] == [choice]


@pytest.mark.parametrize("name", ["m", "vllm"])
@pytest.mark.parametrize(("path", "choice"), FORCED)
def test_an_engine_that_forces_tools_is_asked(
    name: str, path: str, choice: Any, client: Client, engine: Engine
) -> None:
    assert client.ask(choosing(name, path, choice)).status == 200
    assert engine.calls[0].json["tool_choice"] == choice


# Formats that the engine would drop


@pytest.mark.parametrize("stream", [False, True])
def test_the_format_of_a_response_stands_where_the_engine_keeps_it(
    client: Client, engine: Engine, *, stream: bool
) -> None:
    shape = {"name": "x", "schema": {"type": "string"}, "strict": True}
    body = {
        "model": "cpp",
        "input": "hi",
        "stream": stream,
        "text": {"format": {"type": "json_schema", **shape}},
    }
    client.ask(post(body, path=RESPONSES))
    assert engine.calls[0].json["response_format"] == {"type": "json_schema", "json_schema": shape}


@pytest.mark.parametrize("text", [{"format": {"type": "text"}}, {"verbosity": "low"}, {}, None, 5])
def test_a_response_of_plain_text_stays_as_it_is(text: Any, client: Client, engine: Engine) -> None:
    body = {"model": "cpp", "input": "hi", "stream": True, "text": text}
    client.ask(post(body, path=RESPONSES))
    assert engine.calls[0].json == body


def test_a_format_that_the_engine_would_drop_is_refused(client: Client, engine: Engine) -> None:
    format_ = {"type": "json_schema", "schema": {"type": "string"}}
    body = {"max_tokens": 5, "messages": HI, "output_config": {"format": format_}}
    answer = client.ask(post(body | {"model": "cpp"}, path=MESSAGES))
    assert (answer.status, answer.json["type"], answer.error["type"]) == (
        400,
        "error",
        "invalid_request_error",
    )
    assert "output_config" in answer.error["message"]
    assert not engine.calls
    assert client.ask(post(body | {"model": "vllm"}, path=MESSAGES)).status == 200


# Conversations that are none

EMPTY: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": None}, "messages"),
    (MESSAGES, {"messages": []}, "messages"),
    (MESSAGES, {}, "messages"),
    (MESSAGES + "/count_tokens", {}, "messages"),
    (RESPONSES, {"input": []}, "input"),
]


@pytest.mark.parametrize("name", ["m", "cpp", "vllm"])
@pytest.mark.parametrize(("path", "said", "param"), EMPTY)
def test_an_empty_conversation_is_refused(
    name: str, path: str, said: dict[str, Any], param: str, client: Client, engine: Engine
) -> None:
    answer = client.ask(post({"model": name, "max_tokens": 5} | said, path=path))
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert param in answer.error["message"]
    if path.startswith(MESSAGES):
        assert answer.json["type"] == "error"
    else:
        assert (answer.error["code"], answer.error["param"]) == ("missing_required_parameter", param)
    assert not engine.calls


@pytest.mark.parametrize("name", ["m", "cpp", "vllm"])
@pytest.mark.parametrize("said", [{"tools": [5]}, {"tool_choice": 5}, {"response_format": 5}, {"stop": {}}])
def test_a_value_that_no_api_has_reaches_no_engine(
    name: str, said: dict[str, Any], client: Client, engine: Engine
) -> None:
    usual = {"model": name, "messages": [{"role": "user", "content": "hello"}]}
    answer = client.ask(post(usual | said, path=CHAT))
    assert (answer.status, answer.error["code"]) == (400, "invalid_type")
    assert answer.error["param"].startswith(next(iter(said)))
    assert not engine.calls


def test_blanks_in_an_empty_conversation_do_not_hide_it(client: Client, engine: Engine) -> None:
    assert client.ask(post(b'{"model":"m","messages":[ \n\t ]}')).status == 400
    assert not engine.calls


@pytest.mark.parametrize("name", ["m", "cpp", "vllm"])
def test_an_earlier_answer_cannot_be_continued_by_its_id(name: str, client: Client, engine: Engine) -> None:
    body = {"model": name, "input": "and then?", "previous_response_id": "resp_1"}
    answer = client.ask(post(body, path=RESPONSES))
    assert (answer.status, answer.error["code"]) == (400, "unsupported_parameter")
    assert answer.error["param"] == "previous_response_id"
    assert "whole conversation in 'input'" in answer.error["message"]
    assert not engine.calls
    client.ask(post(body | {"previous_response_id": None}, path=RESPONSES))
    assert len(engine.calls) == 1


# Counting

COUNTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions/input_tokens": {"messages": HI},
    "/v1/responses/input_tokens": {"input": "hi"},
    "/v1/messages/count_tokens": {"messages": HI},
}


@pytest.mark.parametrize("name", ["m", "cpp"])
@pytest.mark.parametrize("path", COUNTS)
def test_a_prompt_is_counted_by_the_engine(name: str, path: str, client: Client, engine: Engine) -> None:
    says(engine, whole({"input_tokens": 17}))
    body: dict[str, Any] = {"model": name, **COUNTS[path]}
    answer = client.ask(post(body, path=path + "?beta=true"))
    assert (answer.status, answer.json) == (200, {"input_tokens": 17})
    (call,) = engine.calls
    assert (call.path, call.json) == (path, body)


def test_an_engine_that_does_not_count_is_not_asked(client: Client, engine: Engine) -> None:
    body = {"model": "vllm", "messages": HI}
    answer = client.ask(post(body, path="/v1/chat/completions/input_tokens"))
    assert (answer.status, answer.error["code"]) == (400, "not_supported_by_engine")
    assert not engine.calls


# Too long


def test_how_long_a_prompt_is_and_may_be_reaches_the_client(client: Client, engine: Engine) -> None:
    error = {"code": 400, "message": "request (6031 tokens) exceeds the available context size (2048 tokens)",
             "type": "exceed_context_size_error", "n_prompt_tokens": 6031, "n_ctx": 2048}  # fmt: skip
    says(engine, whole({"error": error}, status=400))
    for name in ("cpp", "m"):
        told = client.ask(post({"model": name, "messages": HI})).error
        assert (told["code"], told["n_prompt_tokens"], told["n_ctx"]) == (
            "context_length_exceeded",
            6031,
            2048,
        )
    told = client.ask(post({"model": "cpp", "messages": HI}, path=MESSAGES)).json
    assert set(told["error"]) == {"type", "message"}


# Requests of coding agents


def test_what_claude_code_sends_arrives_whole(client: Client, engine: Engine) -> None:
    client.ask(
        post(CLAUDE_CODE, path=MESSAGES + "?beta=true", extra=CLAUDE_CODE_HEAD + "x-api-key: none\r\n")
    )
    (call,) = engine.calls
    assert (call.path, call.json) == (MESSAGES, CLAUDE_CODE)
    assert call.header("anthropic-version") == "2023-06-01"
    assert call.header("anthropic-beta") == "claude-code-20250219,interleaved-thinking-2025-05-14"
    assert call.header("x-api-key") is None


def test_what_claude_code_counts_arrives_whole(client: Client, engine: Engine) -> None:
    body = {name: CLAUDE_CODE[name] for name in ("model", "system", "tools", "messages")}
    says(engine, whole({"input_tokens": 40}))
    answer = client.ask(post(body, path=MESSAGES + "/count_tokens?beta=true", extra=CLAUDE_CODE_HEAD))
    assert (answer.status, answer.json) == (200, {"input_tokens": 40})
    assert engine.calls[0].json == body


def test_what_codex_sends_arrives_whole(client: Client, engine: Engine) -> None:
    client.ask(post(CODEX, path=RESPONSES, extra="accept: text/event-stream\r\noriginator: codex_cli_rs\r\n"))
    (call,) = engine.calls
    assert json.loads(call.body) == CODEX
