"""Streams whose engine dies: another replica goes on with them and the client sees one answer, or an honest error."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from freehold.testing.fake_engine import FakeEngine, start_fake_engine
from gateway_rig.client import CHAT, Client, post
from gateway_rig.engines import STREAM_HEAD, Call, Engine, Engines, chunk, delta, event
from gateway_rig.process import Gateway, running
from gateway_rig.resuming import TEXT, TOKENS, body, dies, events, goes_on, in_turn, text_of, two, whole
from waiting import wait_until


@pytest.fixture
def pair() -> Iterator[list[FakeEngine]]:
    with start_fake_engine(tokens_per_s=100) as one, start_fake_engine(tokens_per_s=100) as other:
        yield [one, other]


@pytest.fixture
def gateway(pair: list[FakeEngine], tmp_path: Path) -> Iterator[Gateway]:
    with running(tmp_path, [two(pair)], between_bytes_s=1.0, queue_max_wait_s=2.0) as process:
        yield process


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize(
    "fault", ["close_stream", "reset_stream", "crash_stream", "bad_chunk", "hang_stream"]
)
def test_another_replica_goes_on(path: str, fault: str, gateway: Gateway, pair: list[FakeEngine]) -> None:
    for engine in pair:
        engine.set(fault=fault, fault_count=1)
    pair[1].set(fault="none")
    with gateway.client() as client:
        answers = [
            client.ask(post(body(path, stream_options={"include_usage": True}), path=path)) for _ in range(2)
        ]
        resumed = next(answer for answer in answers if b"x-freehold-resumed" in answer.body)
        parts = events(resumed.body)
        assert text_of(parts) == whole()
        assert len({(part["id"], part["created"], part["model"]) for part in parts}) == 1
        assert [c["finish_reason"] for p in parts for c in p["choices"] if c["finish_reason"]] == ["stop"]
        roles = [c["delta"] for p in parts for c in p["choices"] if "role" in c.get("delta", {})]
        assert len(roles) == (path == CHAT)
        usage = parts[-1]["usage"]
        assert (usage["completion_tokens"], usage["total_tokens"]) == (
            TOKENS,
            TOKENS + usage["prompt_tokens"],
        )
        assert b": x-freehold-resumed tokens=3\n\n" in resumed.body
    assert gateway.metric("freehold_gateway_resumed_total", outcome="whole") == 1
    assert gateway.metric("freehold_gateway_cut_streams_total") == 0
    assert "hi" not in [row.get("detail") for row in gateway.logged("stream_resumes")]


@pytest.mark.parametrize("limit", range(1, 6))
def test_the_answer_gets_no_more_tokens_than_were_asked_for(
    limit: int, gateway: Gateway, pair: list[FakeEngine]
) -> None:
    for engine in pair:
        engine.set(fault="close_stream", fault_after_tokens=min(limit, 3), fault_count=1)
    with gateway.client() as client:
        parts = events(client.ask(post(body(max_tokens=limit))).body)
        assert text_of(parts) == whole(0, limit)
        finish = [choice["finish_reason"] for part in parts for choice in part["choices"]]
        assert finish[-1] == "length"
        assert not any(finish[:-1])


def says(*parts: bytes) -> Callable[[Call], Awaitable[None]]:
    """Return an engine that says so much and is gone."""

    async def answer(call: Call) -> None:
        call.send(STREAM_HEAD + b"".join(map(chunk, parts)))
        call.end()

    return answer


@pytest.mark.parametrize("deaths", [2, 3])
def test_more_than_one_death_in_an_answer(deaths: int, engines: Engines, tmp_path: Path) -> None:
    four = [engines.new() for _ in range(4)]
    texts = ["one", " two", " three"][:deaths]
    answer = in_turn(*(says(delta(text)) for text in texts), goes_on(" end"))
    for engine in four:
        engine.answer = answer
    with running(tmp_path, [two(four)]) as gateway, gateway.client() as client:
        said = client.ask(post(body(max_tokens=9))).body
        if deaths == 2:
            assert text_of(events(said)) == "one two end"
            asked = max((call.json for each in four for call in each.calls), key=lambda a: len(str(a)))
            assert (asked["messages"][-1]["content"], asked["max_tokens"]) == ("one two", 7)
        else:
            assert b'"code":"engine_failed"' in said
        outcome = "whole" if deaths == 2 else "cut"
        assert gateway.metric("freehold_gateway_resumed_total", outcome=outcome) == 1


def test_twenty_streams_of_a_killed_process(tmp_path: Path) -> None:
    fakes = [start_fake_engine(slots=40, tokens_per_s=50.0, answer_tokens=60) for _ in range(2)]
    with fakes[0] as one, fakes[1] as other, running(tmp_path, [two([one, other], slots=40)]) as gateway:
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0)
        texts: dict[int, str] = {}

        def ask(number: int) -> None:
            stream = client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            texts[number] = "".join(part.choices[0].delta.content or "" for part in stream)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        wait_until(lambda: one.stats()["tokens"] > 50, timeout_s=10, what="tokens from the first engine")
        one.kill()
        for thread in threads:
            thread.join(20)
        assert list(texts.values()) == [whole(0, 60)] * 20
        assert gateway.metric("freehold_gateway_resumed_total", outcome="whole") >= 5


def test_a_hundred_and_fifty_streams_that_die_at_once(engines: Engines, tmp_path: Path) -> None:
    three, many, left = [engines.new() for _ in range(3)], 150, [150]
    death = asyncio.Event()

    async def answer(call: Call) -> None:
        left[0] -= 1
        if left[0] < 0:  # the second that is asked dies before it is heard
            await (ends if left[0] >= -many else goes_on(" two"))(call)
            return
        call.send(STREAM_HEAD + chunk(delta("one")))
        await death.wait()
        call.reset()

    for engine in three:
        engine.answer = answer
    with running(tmp_path, [two(three, slots=many)]) as gateway, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.client()) for _ in range(many)]
        for client in clients:
            client.send(post(body()))
        heads = [client.read_head().status for client in clients]
        assert heads == [200] * many
        begun = [client.read_chunk() for client in clients]
        three[0].do(death.set)
        texts = [
            text_of(events(first + b"".join(iter(client.read_chunk, b""))))
            for first, client in zip(begun, clients, strict=True)
        ]
        assert texts == ["one two"] * many
        assert gateway.metric("freehold_gateway_resumed_total", outcome="whole") == many


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"grammar": "root ::= x"},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_is_more_than_text_ends_with_an_error(
    more: dict[str, Any], gateway: Gateway, pair: list[FakeEngine]
) -> None:
    for engine in pair:
        engine.set(fault="close_stream", fault_count=1)
    with gateway.client() as client:
        answer = client.ask(post(body(**more)))
        assert b'"code":"engine_failed"' in answer.body
        assert b"[DONE]" not in answer.body
    assert gateway.metric("freehold_gateway_resumed_total", outcome="not_possible") == 1


@pytest.mark.parametrize("how", [{"resume": "off"}, {"engine": "external"}], ids=["off", "unknown engine"])
def test_where_it_is_off_or_unknown_nothing_is_continued(
    how: dict[str, Any], pair: list[FakeEngine], tmp_path: Path
) -> None:
    with running(tmp_path, [two(pair, **how)]) as gateway, gateway.client() as client:
        for engine in pair:
            engine.set(fault="close_stream", fault_count=1)
        assert b'"code":"engine_failed"' in client.ask(post(body())).body


@pytest.fixture
def made(engines: Engines, tmp_path: Path) -> Iterator[tuple[Gateway, list[Engine]]]:
    pair = [engines.new(), engines.new()]
    with running(tmp_path, [two(pair)], queue_max_wait_s=0.5) as gateway:
        yield gateway, pair


def test_blanks_are_made_again_and_left_out(made: tuple[Gateway, list[Engine]]) -> None:
    gateway, pair = made
    answer = in_turn(dies, goes_on(" ", "two"))
    for engine in pair:
        engine.answer = answer
    with gateway.client() as client:
        parts = events(client.ask(post(body(max_tokens=9))).body)
    assert text_of(parts) == "one two"
    asked = next(call.json for engine in pair for call in engine.calls if len(call.json["messages"]) == 2)
    assert asked["messages"][-1] == {"role": "assistant", "content": "one"}
    assert asked["max_tokens"] == 8


def test_a_caller_who_is_told_usage_never_gets_half_an_event(made: tuple[Gateway, list[Engine]]) -> None:
    gateway, pair = made
    answer = in_turn(dies, goes_on(" two"))
    for engine in pair:
        engine.answer = answer
    with gateway.client() as client:
        parts = events(client.ask(post(body(stream_options={"include_usage": True}))).body)
    assert text_of(parts) == "one two"


async def refuses(call: Call) -> None:
    body_ = b'{"error":{"message":"too long"}}'
    call.send(b"HTTP/1.1 400 X\r\ncontent-length: %d\r\n\r\n" % len(body_) + body_)


async def ends(call: Call) -> None:
    call.end()


async def no_stream(call: Call) -> None:
    call.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")


def dies_after(*parts: bytes) -> Callable[[Call], Awaitable[None]]:
    """Return an engine that says so much, lets it be read, and is gone."""

    async def answer(call: Call) -> None:
        call.send(STREAM_HEAD + b"".join(map(chunk, parts)))
        await asyncio.sleep(0.05)  # what a reset throws away must have been read before
        call.reset()

    return answer


@pytest.mark.parametrize(
    "second",
    [dies_after(delta("\n\n")), dies_after(delta("two")[:40]), ends],
    ids=["blanks only", "part of an event", "nothing"],
)
def test_a_second_engine_that_dies_before_it_was_heard_leaves_no_trace(
    second: Callable[[Call], Awaitable[None]], engines: Engines, tmp_path: Path
) -> None:
    three = [engines.new() for _ in range(3)]
    answer = in_turn(dies_after(delta("one"), delta("\n\n")), second, goes_on("\n\n", "two"))
    for engine in three:
        engine.answer = answer
    with running(tmp_path, [two(three)]) as gateway, gateway.client() as client:
        said = client.ask(post(body())).body
        assert text_of(events(said)) == "one\n\ntwo"
        assert said.count(b": x-freehold-resumed tokens=2\n\n") == 1


@pytest.mark.parametrize("then", [refuses, ends, no_stream])
def test_when_the_others_do_not_go_on_the_stream_ends_in_band(
    then: Callable[[Call], Awaitable[None]], made: tuple[Gateway, list[Engine]]
) -> None:
    gateway, pair = made
    answer = in_turn(dies, then, then, then)
    for engine in pair:
        engine.answer = answer
    with gateway.client() as client:
        said = client.ask(post(body())).body
        assert said.startswith(delta("one "))
        assert json.loads(said.split(b"data: ")[-1])["error"]["code"] == "engine_failed"
        for engine in pair:
            engine.answer = goes_on("fine")
        assert text_of(events(client.ask(post(body())).body)) == "fine"  # on the same connection
    assert gateway.metric("freehold_gateway_resumed_total", outcome="cut") == 1
    gateway_idle(gateway)


def gateway_idle(gateway: Gateway) -> None:
    """Every place that was taken is free again."""
    with gateway.client() as client:
        for _ in range(3):
            assert client.ask(post(body())).status == 200
    assert gateway.metric("freehold_gateway_in_flight") == 0


def test_an_http_1_0_client_gets_the_same_answer(made: tuple[Gateway, list[Engine]]) -> None:
    gateway, pair = made
    answer = in_turn(dies, goes_on(" two"))
    for engine in pair:
        engine.answer = answer
    with gateway.client() as client:
        client.send(post(body(), version="1.0"))
        client.read_until(b"\r\n\r\n")
        assert text_of(events(client.read_to_end())) == "one two"


async def only_the_end_is_missing(call: Call) -> None:
    call.send(STREAM_HEAD + chunk(delta("all")) + chunk(delta("", "stop")))
    call.end()


async def only_the_chunked_end_is_missing(call: Call) -> None:
    call.send(STREAM_HEAD + chunk(delta("all")) + chunk(delta("", "stop")) + chunk(b"data: [DONE]\n\n"))
    call.end()


@pytest.mark.parametrize("how", [only_the_end_is_missing, only_the_chunked_end_is_missing])
def test_an_answer_that_only_lacks_its_end_gets_it(
    how: Callable[[Call], Awaitable[None]], made: tuple[Gateway, list[Engine]]
) -> None:
    gateway, pair = made
    for engine in pair:
        engine.answer = how
    with gateway.client() as client:
        for _ in range(2):
            assert text_of(events(client.ask(post(body())).body)) == "all"
    assert sum(len(engine.calls) for engine in pair) == 2
    assert gateway.metric("freehold_gateway_resumed_total", outcome="ended") == 2


def test_a_usage_that_is_owed_is_asked_for(made: tuple[Gateway, list[Engine]]) -> None:
    async def usage(call: Call) -> None:
        counted = {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9}
        parts = [
            delta("more"),
            delta("", "length"),
            event({"choices": [], "usage": counted}),
            b"data: [DONE]\n\n",
        ]
        call.send(STREAM_HEAD + b"".join(map(chunk, parts)) + b"0\r\n\r\n")

    gateway, pair = made
    answer = in_turn(only_the_end_is_missing, usage)
    for engine in pair:
        engine.answer = answer
    with gateway.client() as client:
        parts = events(client.ask(post(body(stream_options={"include_usage": True}))).body)
    assert text_of(parts) == "all"
    assert parts[-1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
    assert [c["finish_reason"] for p in parts for c in p["choices"] if c["finish_reason"]] == ["stop"]


def test_a_client_that_leaves_ends_the_wait_for_another_replica(tmp_path: Path, engines: Engines) -> None:
    only = engines.new()
    only.answer = dies
    with running(tmp_path, [two([only])], queue_max_wait_s=20.0) as gateway:
        client = Client(gateway.port)
        client.send(post(body()))
        client.read_until(delta("one "))
        wait_until(
            lambda: gateway.logged("stream_resumes"), timeout_s=5, what="the engine's death to be seen"
        )
        client.leave()
        wait_until(
            lambda: gateway.metric("freehold_gateway_resumed_total", outcome="abandoned") == 1,
            timeout_s=5,
            what="the gateway to see that the client left",
        )


def test_without_any_other_replica_the_wait_has_an_end(tmp_path: Path, engines: Engines) -> None:
    only = engines.new()
    only.answer = dies
    with running(tmp_path, [two([only])], queue_max_wait_s=0.3) as gateway, gateway.client() as client:
        began_s = time.monotonic()
        assert b'"code":"engine_failed"' in client.ask(post(body())).body
        assert time.monotonic() - began_s < 5


def test_a_plain_answer_put_together_from_a_stream_begins_anew(made: tuple[Gateway, list[Engine]]) -> None:
    gateway, pair = made
    answer = in_turn(dies, goes_on("fine"))
    for engine in pair:
        engine.answer = answer
    with gateway.client() as client:
        said = client.ask(post(body(stream=False))).json
    assert said["choices"][0]["message"]["content"] == "fine"
    assert all(len(call.json["messages"]) == 1 for engine in pair for call in engine.calls)


def test_after_an_error_in_band_a_pooled_connection_is_as_good_as_ever(
    pair: list[FakeEngine], tmp_path: Path
) -> None:
    with running(tmp_path, [two(pair, engine="external")]) as gateway, httpx2.Client() as pooled:
        for engine in pair:
            engine.set(fault="close_stream", fault_count=1)
        for _ in range(2):
            answer = pooled.post(f"{gateway.url}{CHAT}", json=body())
            assert "not complete" in answer.text
        assert "[DONE]" in pooled.post(f"{gateway.url}{CHAT}", json=body()).text
        assert gateway.metric("freehold_gateway_connections") <= 2  # this one and the reader of metrics


def test_a_stream_cut_by_a_drain_says_so(pair: list[FakeEngine], tmp_path: Path) -> None:
    pair[0].set(tokens_per_s=1)
    with running(tmp_path, [two(pair[:1])], drain_grace_s=0.5) as gateway, gateway.client() as client:
        client.send(post(body()))
        client.read_until(b" w0")
        gateway.terminate()
        assert b'"code":"draining"' in client.everything()
