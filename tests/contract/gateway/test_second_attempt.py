"""An attempt that failed leaves nothing behind: the next one's answer is passed on as if it were the first."""

import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from freehold.ledger.drainer import waiting_records
from freehold.ledger.spool import make_folder
from gateway_rig.client import post
from gateway_rig.engines import ANSWER, STREAM_HEAD, Call, Engine, Engines, chunk, delta, event, whole
from gateway_rig.process import Gateway, model, running
from waiting import wait_until

CHAT_BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
CHUNKED_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
Answering = Callable[[Call], Awaitable[None]]


async def boom(call: Call) -> None:
    call.send(whole({"error": {"message": "boom"}}, status=500))


async def streams(call: Call) -> None:
    parts = (
        delta("a"),
        delta("b", "stop"),
        event({"id": "c", "choices": [], "usage": USAGE}),
        b"data: [DONE]\n\n",
    )
    call.send(STREAM_HEAD + b"".join(map(chunk, parts)) + b"0\r\n\r\n")


async def in_chunks(call: Call) -> None:
    call.send(CHUNKED_JSON + chunk(json.dumps(ANSWER | {"usage": USAGE}).encode()) + b"0\r\n\r\n")


async def head_then_body(call: Call) -> None:
    answer = whole(ANSWER | {"usage": USAGE})
    at = answer.index(b"\r\n\r\n") + 4
    call.send(answer[:at])
    await call.room()
    call.send(answer[at:])


def in_turn(*answers: Answering) -> Answering:
    left = list(answers)

    async def answer(call: Call) -> None:
        await left.pop(0)(call)

    return answer


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    make_folder(tmp_path / "spool")
    return tmp_path / "spool"


@pytest.fixture
def pair(engines: Engines) -> list[Engine]:
    return [engines.new(), engines.new()]


@pytest.fixture
def gateway(pair: list[Engine], spool: Path, tmp_path: Path) -> Iterator[Gateway]:
    with running(tmp_path, [model("m", *pair)], spool_path=str(spool)) as process:
        yield process


@pytest.mark.parametrize("then", [streams, in_chunks, head_then_body])
def test_what_follows_a_500_is_framed_and_counted_as_ever(
    then: Answering, gateway: Gateway, pair: list[Engine], spool: Path
) -> None:
    answer = in_turn(boom, then, then)
    for engine in pair:
        engine.answer = answer
    asked = post(CHAT_BODY | {"stream": then is streams})
    with gateway.client() as client:
        answers = [client.ask(asked) for _ in range(2)]  # the client is strict, the connection the same
    assert answers[0].body == answers[1].body
    assert b"usage" not in answers[0].body or then is not streams
    wait_until(
        lambda: len(list(waiting_records(spool))) == 2, timeout_s=5, what="both requests in the ledger"
    )
    for row in waiting_records(spool):
        assert (row.status, row.outcome, row.prompt_tokens, row.completion_tokens) == (200, "complete", 5, 2)


def test_a_stale_connection_on_the_last_attempt_is_no_failure(engines: Engines, tmp_path: Path) -> None:
    dead, cloud = [engines.new(), engines.new()], engines.new()

    async def resets(call: Call) -> None:
        call.reset()

    async def answers_once(call: Call) -> None:
        if call.number == 0:
            call.send(whole(ANSWER))
        else:
            call.reset()

    cloud.answer = answers_once
    for engine in dead:
        engine.answer = resets
    price = dict.fromkeys(("input_picousd", "cached_picousd", "output_picousd"), 1)
    there = {"name": "cloud", "url": f"{cloud.url}/v1", "price": price, "budget_picousd_per_day": 10**12}
    with running(tmp_path, [model("m", *dead)], fallbacks=[there]) as gateway, gateway.client() as client:
        assert [client.ask(post(CHAT_BODY)).status for _ in range(3)] == [200] * 3
        assert gateway.metric("freehold_gateway_fallback_skipped_total", reason="shut") == 0
