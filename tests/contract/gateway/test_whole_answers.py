"""An answer is whole or it is a death: what only stops, is cut or is not JSON is not passed on as an answer."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator

import pytest

from freehold.gateway.answers.stream_tap import HELD_ANSWER_BYTES_MAX
from gateway_rig.client import CHAT, Answer, CutError, ask, post
from gateway_rig.engines import ANSWER, STREAM_HEAD, Call, Engine, Engines, chunk, delta, whole
from gateway_rig.process import Gateway, model, running
from waiting import wait_until

TYPE = b"content-type: text/event-stream\r\n"
STREAM_PATHS = (CHAT, "/v1/completions", "/v1/messages", "/v1/responses")
TRACE = b'{"error": {"message": "/secret/path Traceback (most recent call last)", "code": 500}}'
TEXT = json.dumps(ANSWER).encode()
WITH_USAGE = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}


def sends(*data: bytes, then: str = "") -> Callable[[Call], Awaitable[None]]:
    async def answer(call: Call) -> None:
        for part in data:
            call.send(part)
            await asyncio.sleep(0.01)  # so that they are read one by one
        if then:
            getattr(call, then)()

    return answer


BROKEN: dict[str, Callable[[Call], Awaitable[None]]] = {
    "short of its length": sends(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + TEXT, then="end"),
    "a chunk is missing": sends(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(TEXT), then="end"
    ),
    "not JSON": sends(whole(b"<html>welcome</html>")),
    "half JSON": sends(whole(TEXT[:-5])),
    "half JSON in chunks": sends(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(TEXT[:-5]) + b"0\r\n\r\n"
    ),
    "half JSON until close": sends(b"HTTP/1.0 200 OK\r\n\r\n" + TEXT[:-5], then="end"),
    "empty": sends(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
}
STOPPED: dict[str, Callable[[Call], Awaitable[None]]] = {
    "an early end": sends(STREAM_HEAD + chunk(delta("a")) + b"0\r\n\r\n"),
    "a broken event": sends(STREAM_HEAD + chunk(delta("a") + b"data: {oops\n\n") + b"0\r\n\r\n"),
}
"""Of engines that are always asked for a stream, of which the answer is put together."""
CASES = BROKEN | STOPPED


@pytest.fixture(scope="module")
def pairs(engines: Engines) -> dict[str, list[Engine]]:
    """Give two engines a case, so that no suspicion is left over from another one."""
    return {name: [engines.new(), engines.new()] for name in CASES}


@pytest.fixture(scope="module")
def gateway(
    the_engine: Engine, pairs: dict[str, list[Engine]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    models = [model("m", the_engine), model("cpp", the_engine, engine="llama-cpp")]
    models += [
        model(name, *both, engine="llama-cpp" if name in STOPPED else "external")
        for name, both in pairs.items()
    ]
    with running(tmp_path_factory.mktemp("whole"), models) as gateway:
        yield gateway
        assert gateway.metric("freehold_gateway_in_flight") == 0
        assert gateway.metric("freehold_bugs_total") == 0


def test_half_a_last_event_is_kept_back(gateway: Gateway, engine: Engine) -> None:
    """A client that reads `[DONE]` reads no further, so no error may come behind it."""
    engine.answer = sends(STREAM_HEAD + chunk(delta("a")) + b"20\r\ndata: [DONE]", then="end")
    with gateway.client() as client:
        body = client.ask(post(WITH_USAGE)).body
    assert b'"error"' in body
    assert b"[DONE]" not in body


@pytest.mark.parametrize("usage", [True, False])
def test_a_last_event_without_its_blank_line_comes(gateway: Gateway, engine: Engine, *, usage: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + TYPE + b"\r\n"
    engine.answer = sends(head + delta("a", "stop"), b"data: [DONE]", then="end")
    request = WITH_USAGE | {"stream_options": {"include_usage": usage}}
    with gateway.client() as client:
        assert client.ask(post(request)).body.endswith(b"data: [DONE]")


@pytest.mark.parametrize("name", CASES)
def test_an_answer_that_is_not_whole_is_asked_of_another_replica(
    name: str, gateway: Gateway, pairs: dict[str, list[Engine]]
) -> None:
    pairs[name][0].answer = CASES[name]
    with gateway.client() as client:
        for _ in range(4):
            answer = client.ask(ask(name))
            assert (answer.status, answer.json["choices"][0]["message"]["content"]) == (200, "ab")
    assert pairs[name][0].calls


@pytest.mark.parametrize("name", CASES)
def test_where_no_other_replica_is_the_client_gets_an_error(
    name: str, gateway: Gateway, engine: Engine
) -> None:
    engine.answer = CASES[name]
    with gateway.client() as client:
        answer = client.ask(ask("cpp" if name in STOPPED else "m"))
    assert (answer.status, answer.error["code"]) == (503, "engine_failed")


def test_an_answer_that_is_too_long_to_keep_back_is_passed_on(gateway: Gateway, engine: Engine) -> None:
    long = {**ANSWER, "more": "x" * (2 * HELD_ANSWER_BYTES_MAX)}
    engine.answer = sends(whole(long))
    with gateway.client() as client:
        assert client.ask(ask("m")).json == long


@pytest.mark.parametrize("path", STREAM_PATHS)
@pytest.mark.parametrize("how", ["chunked", "length", "until close"])
def test_a_stream_that_only_stops_is_not_taken_for_whole(
    how: str, path: str, gateway: Gateway, engine: Engine
) -> None:
    text = b"".join(delta("a") for _ in range(3))
    heads = {
        "chunked": STREAM_HEAD + chunk(text) + b"0\r\n\r\n",
        "length": b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (TYPE, len(text)) + text,
        "until close": b"HTTP/1.0 200 OK\r\n" + TYPE + b"\r\n" + text,
    }
    engine.answer = sends(heads[how], then="end" if how == "until close" else "")
    with gateway.client() as client:
        client.send(ask("m", path=path, stream=True))
        if how == "until close":
            with pytest.raises(CutError):
                client.read_to_end()
        else:
            assert "not complete" in client.read_answer().body.decode()


@pytest.mark.parametrize(
    "end",
    [
        delta("b", "stop"),
        b"data: [DONE]\n\n",
        b"data: [DONE]\n",
        b'data: {"error": {"message": "out of memory", "code": 500}}\n\n',
        delta("b", "stop")
        + b'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}\n\n',
    ],
)
def test_a_stream_with_any_kind_of_end_is_passed_on_as_it_is(
    end: bytes, gateway: Gateway, engine: Engine
) -> None:
    engine.answer = sends(STREAM_HEAD + chunk(delta("a")) + chunk(end) + b"0\r\n\r\n")
    with gateway.client() as client:
        body = client.ask(ask("m", stream=True)).body
    assert b"not complete" not in body
    assert body.startswith(delta("a"))


def test_one_finished_answer_of_two_is_not_the_end(gateway: Gateway, engine: Engine) -> None:
    parts = (delta("a"), delta("a"), delta("a", "stop"), delta("b"), delta("b"))
    engine.answer = sends(STREAM_HEAD, *map(chunk, parts), b"0\r\n\r\n")
    with gateway.client() as client:
        assert b"not complete" in client.ask(ask("m", stream=True)).body


@pytest.mark.parametrize("status", [500, 501, 503])
def test_what_an_engine_reports_of_its_own_failure_is_in_the_log_only(
    status: int, gateway: Gateway, engine: Engine
) -> None:
    engine.answer = sends(whole(json.loads(TRACE), status=status))
    with gateway.client() as client:
        answer = client.ask(ask("m"))
    assert answer.status == status
    assert_only_logged(gateway, answer)


@pytest.mark.parametrize("path", STREAM_PATHS)
@pytest.mark.parametrize("name", ["m", "cpp"])
@pytest.mark.parametrize("wants", ["stream", "whole"])
def test_nor_is_what_it_reports_inside_its_stream(
    wants: str, name: str, path: str, gateway: Gateway, engine: Engine
) -> None:
    events = (b"data: " + TRACE + b"\n\n", b"event: error\n" + b"data: " + TRACE + b"\n\n")
    for trace in events:
        begin = chunk(delta("a")) if wants == "stream" else b""
        engine.answer = sends(STREAM_HEAD + begin, chunk(trace[:30]), chunk(trace[30:]), b"0\r\n\r\n")
        with gateway.client() as client:
            answer = client.ask(ask(name, path=path, stream=wants == "stream"))
        if name == "cpp" or wants == "stream":
            assert b"error" in answer.body
            assert_only_logged(gateway, answer)


def assert_only_logged(gateway: Gateway, answer: Answer) -> None:
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body
    request = answer.header("x-request-id")

    def logged() -> list[str]:
        return [row["detail"] for row in gateway.logged("engine_error") if row["request"] == request]

    assert "/secret/path" in wait_until(logged, what="the engine's text in the log")[0]
