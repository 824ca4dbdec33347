"""A target whose slots are unknown is learned from whatever shape its answers have, so that it is not held back for good."""

import asyncio
import json
import threading
from pathlib import Path

import pytest

from gateway_rig.client import post
from gateway_rig.engines import ANSWER, STREAM_HEAD, Call, Engines, chunk, delta, whole
from gateway_rig.process import Gateway, model, running

BODY = {"model": "m", "messages": [1], "max_tokens": 5}
AT_ONCE = 24
BUSY = whole({"error": {"message": "busy"}}, status=503)
CHUNKED_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
LONG = {"object": "list", "data": [{"embedding": [0.123456] * 12000}]}


def in_two(data: bytes) -> list[bytes]:
    at = data.index(b"\r\n\r\n") + 4
    return [data[:at], data[at:]]


SHAPES: dict[str, list[bytes]] = {
    "one read": [whole(ANSWER)],
    "head, then body": in_two(whole(ANSWER)),
    "chunked": [CHUNKED_JSON + chunk(json.dumps(ANSWER).encode()) + b"0\r\n\r\n"],
    "many reads": [whole(LONG)],
    "put together": [STREAM_HEAD + chunk(delta("a", "stop")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"],
    "the last on its connection": [whole(ANSWER, extra="connection: close\r\n")],
}


class Seen:
    """An engine that takes a while for each answer, and the most of them that were under way at once."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.busy = False
        self.here = self.most = 0

    async def answer(self, call: Call) -> None:
        self.here += 1
        self.most = max(self.most, self.here)
        await asyncio.sleep(0.03)
        self.here -= 1
        for piece in [BUSY] if self.busy else self.pieces:
            call.send(piece)
            await asyncio.sleep(0.001)


def together(gateway: Gateway, count: int, *, each: int) -> None:
    def ask() -> None:
        with gateway.client() as client:
            for _ in range(each):
                client.ask(post(BODY))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("shape", SHAPES)
def test_an_engine_of_unknown_slots_is_found_to_be_large(
    shape: str, engines: Engines, tmp_path: Path
) -> None:
    engine, seen = engines.new(), Seen(SHAPES[shape])
    engine.answer = seen.answer
    kind = "llama-cpp" if shape == "put together" else "external"
    models = [model("m", engine, engine=kind)]
    with running(tmp_path, models, queue_max_wait_s=60, queue_overload_wait_s=60) as gateway:
        together(gateway, AT_ONCE, each=6)
        assert gateway.metric("freehold_gateway_endpoint_limit") > 8
    assert seen.most == AT_ONCE


@pytest.mark.parametrize("shape", SHAPES)
def test_a_limit_that_fell_while_the_engine_was_busy_rises_again(
    shape: str, engines: Engines, tmp_path: Path
) -> None:
    engine, seen = engines.new(), Seen(SHAPES[shape])
    engine.answer = seen.answer
    kind = "llama-cpp" if shape == "put together" else "external"
    models = [model("m", engine, engine=kind, slots=16)]
    with running(tmp_path, models, queue_max_wait_s=60, queue_overload_wait_s=60) as gateway:
        seen.busy = True
        together(gateway, 16, each=2)
        fell = gateway.metric("freehold_gateway_endpoint_limit")
        seen.busy = False
        together(gateway, 16, each=10)
        assert gateway.metric("freehold_gateway_endpoint_limit") > fell
    assert fell < 8
