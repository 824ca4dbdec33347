"""Engines that refuse, that break the protocol and that break off: what their clients see instead."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from freehold.gateway.answers.stream_tap import HELD_ANSWER_BYTES_MAX
from gateway_rig.client import Client, CutError, ask, get
from gateway_rig.engines import (
    ANSWER,
    STREAM_HEAD,
    Call,
    Engine,
    chunk,
    healthy,
    says,
    whole,
)
from gateway_rig.process import Gateway, model, running
from waiting import wait_until


@pytest.fixture(scope="module")
def gateway(the_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    models = [
        model("m", the_engine),
        model("cpp", the_engine, engine="llama-cpp", slots=4),
        model("plain", the_engine, engine="transformers"),
    ]
    with running(tmp_path_factory.mktemp("behaviour"), models) as gateway:
        yield gateway
        assert gateway.metric("freehold_gateway_in_flight") == 0
        assert gateway.metric("freehold_bugs_total") == 0


MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses", "/v1/rerank", "/v1/messages"])
def test_a_path_that_the_models_engine_has_not_is_refused_and_the_engine_is_not_asked(
    path: str, client: Client, engine: Engine
) -> None:
    answer = client.ask(ask("plain", path=path))
    assert answer.status == 400
    assert f"The model plain does not serve {path}." == answer.error["message"]
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error.get("code") == (None if path == "/v1/messages" else "not_supported_by_engine")
    assert engine.calls == []


# Errors of engines


ERRORS: dict[str, tuple[bytes, int, str | None, str]] = {
    "a caller's mistake": (whole({"error": {"message": "bad temperature", "type": "invalid_request_error", "param": "temperature"}}, status=400),
                           400, None, "bad temperature"),
    "vLLM's shape": (whole({"object": "error", "message": "bad", "type": "BadRequestError", "code": 400}, status=400), 400, None, "bad"),
    "validation": (whole({"detail": [{"msg": "x"}]}, status=422), 422, None, "HTTP status 422"),
    "not there": (whole({"error": {"message": "no such adapter", "code": "not_found"}}, status=404), 404, "not_found", "no such adapter"),
    "the model's output": (whole({"error": {"code": 500, "message": "cannot parse tool call"}}, status=500), 500, None, "HTTP status 500"),
    "wrong key": (whole({"error": {"message": "Invalid API key sk-secret"}}, status=401), 502, "engine_failed", "credentials"),
    "forbidden": (whole({"error": "no"}, status=403), 502, "engine_failed", "credentials"),
    "throttled": (whole({"error": {"message": "slow down"}}, status=429, extra="retry-after: 7\r\n"), 503, "engine_overloaded", "slow down"),
    "busy": (whole({"error": {"message": "Loading model"}}, status=503), 503, "engine_overloaded", "HTTP status 503"),
    "html": (whole(b"<html>nginx</html>", status=404), 404, None, "HTTP status 404"),
    "broken UTF-8": (whole(b'{"error":"\xff"}', status=400), 400, None, "HTTP status 400"),
    "nested": (whole(b"[" * 50_000, status=400), 400, None, "HTTP status 400"),
    "empty": (whole(b"", status=400), 400, None, "HTTP status 400"),
    "chunked": (b"HTTP/1.1 400 X\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b'{"error":') + chunk(b'"split"}') + b"0\r\n\r\n",
                400, None, "split"),
    "an absurd Retry-After": (whole({"error": "x"}, status=503, extra="retry-after: " + "9" * 400 + "\r\n"), 503, "engine_overloaded", "HTTP status 503"),
}  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ERRORS)
def test_an_engines_error_in_openais_terms(
    name: str, client: Client, engine: Engine, *, stream: bool
) -> None:
    data, status, code, words = ERRORS[name]
    says(engine, data)
    answer = client.ask(ask("m", stream=stream))
    assert (answer.status, answer.error["code"]) == (status, code)
    assert words in answer.error["message"]
    assert "sk-secret" not in answer.body.decode()
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert client.ask(get("/livez")).status == 200


@pytest.mark.parametrize("name", ERRORS)
def test_the_same_in_anthropics_terms(name: str, client: Client, engine: Engine) -> None:
    data, status, _, words = ERRORS[name]
    says(engine, data)
    answer = client.ask(ask("m", path="/v1/messages"))
    assert answer.status == status
    assert answer.json["type"] == "error"
    assert set(answer.error) == {"type", "message"}
    assert words in answer.error["message"]


@pytest.mark.parametrize(
    ("sent", "asked"), [("", 1), ("retry-after: 7\r\n", 7), ("retry-after: 900\r\n", 60)]
)
@pytest.mark.parametrize("status", [429, 503])
def test_capacity_is_503_with_retry_after(
    status: int, sent: str, asked: int, client: Client, engine: Engine
) -> None:
    says(engine, whole({"error": "busy"}, status=status, extra=sent))
    answer = client.ask(ask("m"))
    assert answer.status == 503
    assert answer.header("retry-after") == str(asked)
    assert answer.header("retry-after-ms") == str(asked * 1000)


TOO_LONG = {
    "vLLM": {"message": "This model's maximum context length is 10 tokens. However, you requested 20", "code": 400},
    "OpenAI": {"message": "too many", "code": "context_length_exceeded"},
    "llama.cpp": {"code": 400, "message": "the request exceeds the available context size", "type": "exceed_context_size_error",
                  "n_prompt_tokens": 20, "n_ctx": 10},
}  # fmt: skip


@pytest.mark.parametrize(("name", "words"), [*(("m", words) for words in TOO_LONG), ("cpp", "llama.cpp")])
def test_a_context_that_is_too_short_has_openais_own_code(
    name: str, words: str, sdk: openai.OpenAI, engine: Engine
) -> None:
    says(engine, whole({"error": TOO_LONG[words]}, status=400))
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.chat.completions.create(model=name, messages=MESSAGES)
    assert raised.value.code == "context_length_exceeded"


def test_the_official_client_raises_its_own_classes(sdk: openai.OpenAI, engine: Engine) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        sdk.chat.completions.create(model="none", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    says(engine, whole({"error": "x"}, status=503))
    with pytest.raises(openai.InternalServerError) as busy:
        sdk.chat.completions.create(model="m", messages=MESSAGES)
    assert (busy.value.status_code, busy.value.code) == (503, "engine_overloaded")
    assert busy.value.request_id


def test_413_reaches_a_client_that_is_still_sending(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        sdk.completions.create(model="m", prompt="x" * (17 * 1024 * 1024))
    assert raised.value.status_code == 413


# Engines that break the protocol


NONSENSE: dict[str, bytes] = {
    "no HTTP": b"hello\r\n\r\n", "no HTTP, no end": b"hello there, this is no web server\r\n", "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "zeros": bytes(100), "TLS alert": bytes.fromhex("15030100020246"), "HTTP/2 frame": bytes.fromhex("00000c04000000000000"),
    "HTTP/2 in words": b"HTTP/2 200\r\n\r\n", "HTTP/0.9": b"<html>hello</html>", "bad status": b"HTTP/1.1 abc OK\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}", "a header without colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
    "header injection": b"HTTP/1.1 200 OK\r\nContent-Type: a\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\n{}",
    "folded header": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "space before colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}", "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "endless line": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
    "huge head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 8_000 + b"Content-Length: 2\r\n\r\n{}",
    "switching protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
    "no chunk size": STREAM_HEAD + b"zz\r\n", "chunk too long": STREAM_HEAD + b"1\r\nabc\r\n", "chunk with LF": STREAM_HEAD + b"1\na\n",
    "huge chunk size": STREAM_HEAD + b"11111111111111111\r\n", "endless chunk line": STREAM_HEAD + b"1;" + b"x" * 1000,
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE)
@pytest.mark.parametrize("then", ["keep", "end", "reset"])
def test_nonsense_from_an_engine_is_503_at_once(
    name: str, then: str, gateway: Gateway, engine: Engine
) -> None:
    says(engine, NONSENSE[name], then=then)
    with gateway.client() as client:
        client.socket.settimeout(2)
        answer = client.ask(ask("m", stream=True))
        assert (answer.status, answer.error["code"]) == (503, "engine_failed")
        assert answer.header("retry-after") == "1"
        assert client.ask(get("/livez")).status == 200
    engine.answer = healthy
    with gateway.client() as client:
        assert client.ask(ask("m")).json == ANSWER


def test_interim_answers_are_skipped(client: Client, engine: Engine) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    for parts in (
        (interim + whole(ANSWER),),
        (interim, whole(ANSWER)),
        tuple(bytes([b]) for b in interim + whole(ANSWER)),
    ):
        says(engine, *parts)
        answer = client.ask(ask("m"))
        assert (answer.json, answer.interim) == (ANSWER, [])


def test_a_flood_of_interim_answers_ends(client: Client, engine: Engine) -> None:
    says(engine, b"HTTP/1.1 100 C\r\n\r\n" * 20_000)
    assert client.ask(ask("m")).status == 503


def test_bytes_past_an_answers_end_are_dropped_with_their_connection(client: Client, engine: Engine) -> None:
    says(engine, whole(ANSWER) + whole({"for": "somebody else"}))
    for _ in range(3):
        assert client.ask(ask("m")).json == ANSWER
    assert engine.connections == 3


def test_bytes_on_an_idle_connection_are_nobodys_answer(client: Client, engine: Engine) -> None:
    assert client.ask(ask("m")).json == ANSWER
    (line,) = engine.lines
    engine.do(lambda: line.transport.write(whole({"for": "nobody"})))
    wait_until(lambda: not engine.lines, what="the gateway to drop the connection")
    assert client.ask(ask("m")).json == ANSWER


def test_an_answer_without_length_ends_with_its_connection(client: Client, engine: Engine) -> None:
    says(
        engine,
        b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + json.dumps(ANSWER).encode(),
        then="end",
    )
    answer = client.ask(ask("m"))
    assert (answer.json, answer.header("connection")) == (ANSWER, "close")


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body(status: int, client: Client, engine: Engine) -> None:
    says(engine, b"HTTP/1.1 %d X\r\n\r\n" % status)
    client.send(ask("m"))
    assert client.read_head().status == status


# Answers that break off


# Longer than what is kept back until it is whole.
HALF = b'"' + b"x" * (HELD_ANSWER_BYTES_MAX + 1000)
HALVES = {
    "short of its length": (b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + HALF, "end"),
    "short of its length, reset": (b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + HALF, "reset"),
    "without its last chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(HALF),
        "end",
    ),
    "inside a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n300000\r\n" + HALF, "end"),
    "until close, reset": (b"HTTP/1.1 200 OK\r\n\r\n" + HALF, "reset"),
}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("name", HALVES)
def test_half_an_answer_is_never_taken_for_a_whole_one(
    name: str, version: str, client: Client, engine: Engine
) -> None:
    data, then = HALVES[name]
    go_on = asyncio.Event()

    async def answer(call: Call) -> None:
        call.send(data)
        await go_on.wait()
        getattr(call, then)()

    engine.answer = answer
    client.send(ask("m", version=version))
    client.read_until(b"x" * 10)
    engine.do(go_on.set)
    if "length" in name or (version == "1.1" and "chunk" in name):
        assert client.everything().count(b"x") <= len(
            HALF
        )  # by its framing, the client sees that more was due
    else:
        with pytest.raises(CutError):
            client.read_to_end()  # no framing says where the end is, so it has to be a reset


def test_the_official_client_raises_for_half_an_answer(sdk: openai.OpenAI, engine: Engine) -> None:
    says(
        engine,
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        then="end",
    )
    with pytest.raises(openai.InternalServerError):  # the client got none of it
        sdk.chat.completions.create(model="m", messages=MESSAGES)
