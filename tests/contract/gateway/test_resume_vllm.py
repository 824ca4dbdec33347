"""vLLM's way of dying in the middle of an answer: its API server outlives its engine and ends the stream in form."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway_rig.client import post
from gateway_rig.engines import STREAM_HEAD, Call, Engines, chunk
from gateway_rig.process import running
from gateway_rig.resuming import body, dies, events, goes_on, in_turn, text_of, two


def test_vllm_is_told_to_continue(engines: Engines, tmp_path: Path) -> None:
    pair = [engines.new(), engines.new()]
    answer = in_turn(dies, goes_on(" two"))
    for engine in pair:
        engine.answer = answer
    with (
        running(tmp_path, [two(pair, engine="external", resume="vllm")]) as gateway,
        gateway.client() as client,
    ):
        assert text_of(events(client.ask(post(body())).body)) == "one two"
    asked = next(call.json for engine in pair for call in engine.calls if len(call.json["messages"]) == 2)
    assert (asked["continue_final_message"], asked["add_generation_prompt"]) == (True, False)


VLLM_EVENT = (
    '{"id":"chatcmpl-8a","object":"chat.completion.chunk","created":1795495788,"model":"m","choices":[{"index":0,'
    '"delta":%s,"logprobs":null,"finish_reason":null,"token_ids":null}]}'
)
VLLM_ENGINE_DEAD = (
    b'data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", '
    b'"type": "InternalServerError", "param": null, "code": 500}}\n\n'
)
"""What vLLM 0.32.0 sends when its EngineCore is killed; its API server lives on for a while, and ends the stream well."""


def vllm_says(*deltas: str, dead: bytes = VLLM_ENGINE_DEAD) -> Callable[[Call], Awaitable[None]]:
    said = [b"data: %b\n\n" % (VLLM_EVENT % each).encode() for each in deltas]

    async def answer(call: Call) -> None:
        call.send(STREAM_HEAD + b"".join(map(chunk, said)))
        await asyncio.sleep(0.05)  # so that this is with the client
        call.send(b"".join(map(chunk, [dead, b"data: [DONE]\n\n"])) + b"0\r\n\r\n")

    return answer


@pytest.mark.parametrize("texts", [[], ["one"], ["one", " two"]])
def test_an_engine_that_says_that_it_is_dead_is_dead(
    texts: list[str], engines: Engines, tmp_path: Path
) -> None:
    pair = [engines.new(), engines.new()]
    said = ['{"role":"assistant","content":""}'] * bool(texts)
    answer = in_turn(vllm_says(*said, *(f'{{"content":"{text}"}}' for text in texts)), goes_on(" end"))
    for engine in pair:
        engine.answer = answer
    with (
        running(tmp_path, [two(pair, engine="external", resume="vllm")]) as gateway,
        gateway.client() as client,
    ):
        assert text_of(events(client.ask(post(body())).body)) == "".join(texts) + " end"
        assert gateway.metric("freehold_gateway_ejections_total", reason="lost") == 1


def test_where_nobody_can_go_on_a_dead_engine_is_an_error_and_no_end(
    engines: Engines, tmp_path: Path
) -> None:
    pair = [engines.new(), engines.new()]
    for engine in pair:
        engine.answer = vllm_says('{"role":"assistant","content":""}', '{"content":"{"}')
    with (
        running(tmp_path, [two(pair, engine="external", resume="vllm")]) as gateway,
        gateway.client() as client,
    ):
        said = client.ask(post(body(response_format={"type": "json_object"}))).body
        assert b'"code":"engine_failed"' in said
        assert b"[DONE]" not in said
        assert gateway.metric("freehold_gateway_cut_streams_total", reason="engine_lost") == 1


def test_what_is_wrong_with_the_request_alone_ends_as_the_engine_says(
    engines: Engines, tmp_path: Path
) -> None:
    pair = [engines.new(), engines.new()]
    error = VLLM_ENGINE_DEAD.replace(b"InternalServerError", b"BadRequestError").replace(b"500", b"400")
    for engine in pair:
        engine.answer = vllm_says('{"role":"assistant","content":""}', '{"content":"{"}', dead=error)
    with (
        running(tmp_path, [two(pair, engine="external", resume="vllm")]) as gateway,
        gateway.client() as client,
    ):
        assert error in client.ask(post(body())).body
        assert sum(len(engine.calls) for engine in pair) == 1
