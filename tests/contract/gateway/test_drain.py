"""The end of a gateway: SIGTERM finishes what is under way, refuses the rest in words, and never cuts unsaid."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from gateway_rig.client import ask, get
from gateway_rig.engines import STREAM_HEAD, Call, Engine, chunk, delta, healthy
from gateway_rig.process import Gateway, model, running
from waiting import wait_until


async def never(call: Call) -> None:
    await call.gone.wait()


# The end


@contextlib.contextmanager
def draining(folder: Path, engine: Engine, grace_s: float = 20.0) -> Iterator[tuple[Gateway, asyncio.Event]]:
    """Give a gateway in front of an engine whose streams go on until the event is set."""
    go_on = asyncio.Event()

    async def answer(call: Call) -> None:
        call.send(STREAM_HEAD + chunk(delta("a")))
        await go_on.wait()
        call.send(chunk(delta("b")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    engine.answer = answer
    with running(folder, [model("m", engine)], drain_grace_s=grace_s) as gateway:
        yield gateway, go_on
        engine.do(go_on.set)


def refused(gateway: Gateway) -> bool:
    try:
        with gateway.client():
            return False
    except ConnectionRefusedError:
        return True


def test_sigterm_finishes_streams_closes_idle_connections_and_refuses_new_ones(
    engine: Engine, tmp_path: Path
) -> None:
    with draining(tmp_path, engine) as (gateway, go_on), contextlib.ExitStack() as stack:
        streaming, idle, fresh, asking, late = (stack.enter_context(gateway.client()) for _ in range(5))
        assert idle.ask(get("/livez")).status == 200
        streaming.send(ask("m", stream=True))
        streaming.read_head()
        assert streaming.read_chunk() == delta("a")
        asking.send(get("/readyz")[:-2])
        late.send(ask("m")[:-5])
        wait_until(lambda: gateway.metric("freehold_gateway_connections") >= 5)
        gateway.terminate()
        assert idle.ended()
        assert fresh.ended()
        wait_until(lambda: refused(gateway), what="new connections to be refused")
        asking.send(b"\r\n")
        answer = asking.read_answer()
        assert (answer.status, answer.json, answer.header("connection")) == (
            503,
            {"status": "shutting_down"},
            "close",
        )
        late.send(ask("m")[-5:])
        answer = late.read_answer()
        assert (answer.status, answer.error["code"]) == (503, "draining")
        assert answer.header("retry-after")
        assert gateway.process.poll() is None
        engine.do(go_on.set)
        assert streaming.read_chunk() == delta("b")
        assert streaming.read_chunk() == b"data: [DONE]\n\n"
        assert streaming.read_chunk() == b""
        assert streaming.ended()
        assert gateway.process.wait(5) == 0


def test_when_the_grace_is_over_streams_end_with_an_error_in_band(engine: Engine, tmp_path: Path) -> None:
    with draining(tmp_path, engine, grace_s=0.3) as (gateway, _), contextlib.ExitStack() as stack:
        streaming, waiting = (stack.enter_context(gateway.client()) for _ in range(2))
        streaming.send(ask("m", stream=True))
        streaming.read_head()
        streaming.read_chunk()
        engine.answer = never
        waiting.send(ask("m"))
        wait_until(lambda: len(engine.calls) == 2)
        gateway.terminate()
        assert b"shutting down" in streaming.read_chunk()
        assert streaming.read_chunk() == b""
        answer = waiting.read_answer()
        assert (answer.status, answer.error["code"]) == (503, "draining")
        assert gateway.process.wait(5) == 0
        assert all(call.gone.is_set() for call in engine.calls)


def test_a_drain_with_nothing_under_way_is_quick(engine: Engine, tmp_path: Path) -> None:
    with running(tmp_path, [model("m", engine)]) as gateway, gateway.client() as client:
        assert client.ask(ask("m")).status == 200
        started_s = time.monotonic()
        gateway.terminate()
        assert gateway.process.wait(5) == 0
        assert time.monotonic() - started_s < 1.0


def test_what_waits_in_the_queue_is_served_within_the_grace(engine: Engine, tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slowly(call: Call) -> None:
        await go_on.wait()
        await healthy(call)

    engine.answer = slowly
    with running(tmp_path, [model("m", engine, slots=1)]) as gateway, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.client()) for _ in range(3)]
        for client in clients:
            client.send(ask("m"))
        wait_until(lambda: gateway.metric("freehold_gateway_queue_requests", model="m") == 2)
        gateway.terminate()
        wait_until(lambda: refused(gateway), what="the drain")
        engine.do(go_on.set)
        assert [client.read_answer().status for client in clients] == [200] * 3
        assert gateway.process.wait(5) == 0


def test_what_still_waits_when_the_grace_is_over_is_refused_and_logged(
    engine: Engine, tmp_path: Path
) -> None:
    engine.answer = never
    path = tmp_path / "access.log"
    settings = {"drain_grace_s": 0.3, "access_log": {"path": str(path)}}
    with (
        running(tmp_path, [model("m", engine, slots=1)], **settings) as gateway,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(gateway.client()) for _ in range(3)]
        for client in clients:
            client.send(ask("m"))
        wait_until(lambda: gateway.metric("freehold_gateway_queue_requests", model="m") == 2)
        gateway.terminate()
        answers = [client.read_answer() for client in clients]
        assert [(answer.status, answer.error["code"]) for answer in answers] == [(503, "draining")] * 3
        assert gateway.process.wait(5) == 0
    logged = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["end"] for line in logged] == ["draining"] * 3
    assert sum(line["wait_s"] > 0 if "wait_s" in line else False for line in logged) >= 2
