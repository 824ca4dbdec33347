"""Engines that die: retried unseen before the first byte, explained in band after it, and never hammered."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from freehold.core.events import Endpoint, ModelEntry, ReplicaState, Snapshot
from freehold.gateway.process.listener import listen
from freehold.gateway.process.worker_process import WorkerProcess
from freehold.gateway.settings import Settings
from freehold.testing.fake_engine import start_fake_engine
from gateway_rig.client import CHAT, Client, CutError, ask, get
from gateway_rig.engines import (
    ANSWER,
    STREAM_HEAD,
    Call,
    Engine,
    Engines,
    chunk,
    delta,
    event,
    healthy,
    whole,
)
from gateway_rig.process import Gateway, model, running
from waiting import until, wait_until

STREAM_PATHS = (CHAT, "/v1/completions", "/v1/messages", "/v1/responses")


async def ends(call: Call) -> None:
    call.end()


async def resets(call: Call) -> None:
    call.reset()


def sends(
    data: bytes, then: Callable[[Call], Awaitable[None]] = healthy
) -> Callable[[Call], Awaitable[None]]:
    async def answer(call: Call) -> None:
        call.send(data)
        if then is not healthy:
            await then(call)

    return answer


BAD_ANSWERS: dict[str, Callable[[Call], Awaitable[None]]] = {
    "closes": ends, "resets": resets, "a head and no body": sends(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", ends),
    "half a head": sends(b"HTTP/1.1 200 OK\r\nContent-", ends), "no HTTP": sends(b"hello\r\n\r\n"),
    "a stream without an event": sends(STREAM_HEAD, ends),
    "503": sends(whole({"error": "loading"}, status=503)), "429": sends(whole({"error": "busy"}, status=429)),
    "502": sends(whole(b"<html>", status=502)), "504": sends(whole(b"<html>", status=504)),
}  # fmt: skip
BAD_ACCEPTS: dict[str, Callable[[asyncio.Transport], None]] = {
    "closes at once": lambda transport: transport.close(),
    "resets at once": lambda transport: transport.abort(),
    "speaks first": lambda transport: transport.write(b"SSH-2.0-OpenSSH_9.6\r\n"),
}
BAD = [*BAD_ANSWERS, *BAD_ACCEPTS, "refuses connections"]


def spoil(engine: Engine, how: str) -> None:
    if how == "refuses connections":
        engine.close()
    elif how in BAD_ACCEPTS:
        engine.on_connect = BAD_ACCEPTS[how]
    else:
        engine.answer = BAD_ANSWERS[how]


@pytest.fixture(scope="module")
def fours(engines: Engines) -> dict[str, list[Engine]]:
    """Give four engines for each way to be bad, so that no suspicion is left over from another test."""
    return {how: [engines.new() for _ in range(4)] for how in [*BAD, "all", "storm", "killer"]}


@pytest.fixture(scope="module")
def gateway(
    the_engine: Engine, fours: dict[str, list[Engine]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    models = [model("m", the_engine), *(model(how, *four) for how, four in fours.items())]
    with running(tmp_path_factory.mktemp("failover"), models) as gateway:
        yield gateway
        assert gateway.metric("freehold_gateway_in_flight") == 0
        assert gateway.metric("freehold_bugs_total") == 0


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with gateway.client() as client:
        client.socket.settimeout(5)
        yield client


# Before the first byte


@pytest.mark.parametrize("how", BAD)
def test_with_one_engine_of_four_bad_200_of_200_succeed(
    how: str, gateway: Gateway, fours: dict[str, list[Engine]]
) -> None:
    bad, *good = fours[how]
    spoil(bad, how)
    retries = gateway.metric("freehold_gateway_retries_total", model=how)
    clients = [gateway.client() for _ in range(40)]
    for burst in range(5):
        for client in clients:
            client.send(ask(how, stream=burst % 2 == 0))
        for client in clients:
            answer = client.read_answer()
            assert answer.status == 200
            assert answer.body.endswith(b"data: [DONE]\n\n") or answer.json == ANSWER
    for client in clients:
        client.close()
    assert sum(len(engine.calls) for engine in good) == 200
    assert gateway.metric("freehold_gateway_retries_total", model=how) > retries
    assert gateway.metric("freehold_gateway_requests_total", model=how, code="200") == 200


@pytest.mark.parametrize("how", [*BAD_ANSWERS, *BAD_ACCEPTS])
def test_with_the_only_engine_bad_the_client_is_told_at_once(
    how: str, client: Client, engine: Engine
) -> None:
    spoil(engine, how)
    started_s = time.monotonic()
    answer = client.ask(ask("m"))
    assert time.monotonic() - started_s < 2
    assert answer.status in {502, 503, 504}
    assert answer.error["code"] in {"engine_failed", "engine_overloaded", None}
    assert client.ask(get("/livez")).status == 200


def test_a_connection_that_the_engine_closed_while_idle_is_no_failure(
    gateway: Gateway, engine: Engine
) -> None:
    async def once_per_connection(call: Call) -> None:
        if call.number:
            call.end()
        else:
            await healthy(call)

    engine.answer = once_per_connection
    # Suspicion from the tests before ends with the first success.
    with gateway.client() as client:
        failed = len(gateway.logged("endpoint_failed"))
        retries = gateway.metric("freehold_gateway_retries_total", model="m")
        for _ in range(100):
            assert client.ask(ask("m")).json == ANSWER
    assert 100 < len(engine.calls) <= 200
    assert len(gateway.logged("endpoint_failed")) == failed
    assert gateway.metric("freehold_gateway_retries_total", model="m") == retries


def test_an_engine_that_closes_after_each_answer_without_saying_so(gateway: Gateway, engine: Engine) -> None:
    async def answer(call: Call) -> None:
        await healthy(call)
        call.end()

    engine.answer = answer
    with gateway.client() as client:
        for _ in range(200):
            assert client.ask(ask("m")).json == ANSWER


def test_a_request_that_kills_engines_meets_three_at_most(
    gateway: Gateway, fours: dict[str, list[Engine]]
) -> None:
    killers = fours["killer"]
    # Warm pools first: a pooled connection that dies is tried again on a fresh one, which must not double the harm.
    clients = [gateway.client() for _ in range(8)]
    for client in clients:
        client.send(ask("killer"))
    for client in clients:
        assert client.read_answer().status == 200
    for killer in killers:
        killer.answer = resets
        killer.calls.clear()
    answer = clients[0].ask(ask("killer"))
    assert (answer.status, answer.error["code"]) == (503, "engine_failed")
    assert 1 <= sum(len(killer.calls) for killer in killers) <= 3
    for client in clients:
        client.close()


def test_when_all_say_that_they_are_busy_the_client_hears_when_to_come_again(
    gateway: Gateway, fours: dict[str, list[Engine]]
) -> None:
    for engine in fours["all"]:
        engine.answer = sends(whole({"error": "slow down"}, status=429, extra="retry-after: 3\r\n"))
    with gateway.client() as client:
        answer = client.ask(ask("all"))
    assert (answer.status, answer.header("retry-after")) == (503, "3")
    assert sum(len(engine.calls) for engine in fours["all"]) == 3


def test_a_storm_of_failures_is_not_doubled_by_retries(
    gateway: Gateway, fours: dict[str, list[Engine]]
) -> None:
    for engine in fours["storm"]:
        engine.answer = resets
    started_s = time.monotonic()
    with gateway.client() as client:
        for _ in range(400):
            assert client.ask(ask("storm")).status == 503
    allowed = 400 * 0.2 + 100 + 10 * (time.monotonic() - started_s)
    assert sum(len(engine.calls) for engine in fours["storm"]) <= 400 + allowed + 1


# After the first byte


SOME: dict[str, tuple[bytes, bytes]] = {
    CHAT: (delta("a"), delta("b")),
    "/v1/completions": (
        event({"choices": [{"index": 0, "text": "a"}]}),
        event({"choices": [{"index": 0, "text": "b"}]}),
    ),
    "/v1/messages": (
        b"event: message_start\n" + event({"type": "message_start"}),
        b"event: ping\n" + event({"type": "ping"}),
    ),
    "/v1/responses": (
        b"event: response.created\n" + event({"type": "response.created"}),
        event({"type": "x"}),
    ),
}


def dying(
    path: str, last: bytes, then: Callable[[Call], Awaitable[None]]
) -> tuple[Callable[[Call], Awaitable[None]], asyncio.Event]:
    """Return an engine that streams two events, waits, says `last` and then ends in some way."""
    go_on = asyncio.Event()

    async def answer(call: Call) -> None:
        call.send(STREAM_HEAD + b"".join(map(chunk, SOME[path])))
        await go_on.wait()
        call.send(last)
        await then(call)

    return answer, go_on


def read_some(client: Client, path: str, *, stream: bool = True, version: str = "1.1") -> None:
    client.send(ask("m", path=path, stream=stream, version=version))
    client.read_until(SOME[path][1])


@pytest.mark.parametrize("path", STREAM_PATHS)
@pytest.mark.parametrize("way", ["ends", "resets", "bad chunk size"])
def test_death_between_chunks_is_an_error_event_and_never_the_end(
    path: str, way: str, client: Client, engine: Engine, gateway: Gateway
) -> None:
    cuts = gateway.metric("freehold_gateway_cut_streams_total", model="m", reason="engine_lost")
    last, then = (
        (b"zz\r\n", healthy_after) if way == "bad chunk size" else (b"", resets if way == "resets" else ends)
    )
    engine.answer, go_on = dying(path, last, then)
    read_some(client, path)
    assert client.read_exactly(2) == b"\r\n"
    engine.do(go_on.set)
    said = client.read_chunk()
    assert client.read_chunk() == b""
    assert client.ask(get("/livez")).status == 200  # the connection is as good as the head said
    assert b"[DONE]" not in said
    assert said.endswith(b"\n\n")
    error = said.strip().removeprefix(b"event: error\n").removeprefix(b"data: ")
    assert b"not complete" in error
    if path == "/v1/messages":
        assert error.startswith(b'{"type":"error","error":{"type":"api_error","message":')
    elif path == "/v1/responses":
        assert error.startswith(b'{"type":"error",')
    else:
        assert error.startswith(b'{"error":{"message":')
    assert gateway.metric("freehold_gateway_cut_streams_total", model="m", reason="engine_lost") == cuts + 1


async def healthy_after(call: Call) -> None:
    """Keep the connection: it is the gateway that ends it."""
    await call.gone.wait()


@pytest.mark.parametrize("path", STREAM_PATHS)
def test_death_inside_a_chunk_ends_in_band_and_off_from_what_was_cut(
    path: str, client: Client, engine: Engine
) -> None:
    engine.answer, go_on = dying(path, b"40\r\ndata: {", ends)
    read_some(client, path)
    client.read_exactly(2)
    engine.do(go_on.set)
    text = b""
    while (more := client.read_chunk()) != b"":
        text += more
    assert text.startswith((b"data: {\n\n", b"\n\ndata: ", b'data: {"error', b"event: error"))
    assert b"error" in text.split(b"\n\n")[-2]
    assert b"[DONE]" not in text


def test_a_caller_who_did_not_ask_for_usage_sees_no_half_event(client: Client, engine: Engine) -> None:
    engine.answer, go_on = dying(CHAT, chunk(b'data: {"choices":['), ends)
    read_some(client, CHAT)
    client.read_exactly(2)
    engine.do(go_on.set)
    text = b""
    while (more := client.read_chunk()) != b"":
        text += more
    assert text.strip().startswith(b'data: {"error":')


@pytest.mark.parametrize(("last", "whole_event"), [(b"", True), (b"40\r\ndata: {", False)])
def test_an_http_1_0_client_sees_the_same(
    last: bytes, client: Client, engine: Engine, *, whole_event: bool
) -> None:
    engine.answer, go_on = dying(CHAT, last, ends)
    read_some(client, CHAT, version="1.0")
    engine.do(go_on.set)
    if whole_event:
        assert client.read_to_end().startswith(b'data: {"error":')
    else:
        with pytest.raises(CutError) as cut:
            client.read_to_end()
        assert cut.value.reset


def test_the_official_client_raises_for_a_broken_stream(gateway: Gateway, engine: Engine) -> None:
    messages: Any = [{"role": "user", "content": "hi"}]
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0) as sdk:
        for last in (b"", b"40\r\ndata: {"):
            engine.answer, go_on = dying(CHAT, last, ends)
            stream = sdk.chat.completions.create(model="m", messages=messages, stream=True)
            texts = [next(stream).choices[0].delta.content for _ in range(2)]
            engine.do(go_on.set)
            with pytest.raises(openai.APIError) as raised:
                next(stream)
            assert texts == ["a", "b"]
            assert last or "not complete" in raised.value.message


# Real processes


def test_a_killed_process_costs_its_streams_and_no_new_request(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        fakes = [
            stack.enter_context(start_fake_engine(tokens_per_s=20, answer_tokens=400, slots=64))
            for _ in range(2)
        ]
        entry = {"name": "m", "endpoints": [fake.url for fake in fakes], "slots": 64}
        gateway = stack.enter_context(running(tmp_path, [entry]))
        clients = [stack.enter_context(gateway.client()) for _ in range(10)]
        for client in clients:
            client.send(ask("m", stream=True))
        for client in clients:
            client.read_head()
            client.read_chunk()
        wait_until(
            lambda: [fake.stats()["running"] for fake in fakes] == [5, 5], what="both to have five streams"
        )
        fakes[0].kill()
        fakes[1].set(answer_tokens=1)
        with gateway.client() as other:
            for _ in range(20):
                assert other.ask(ask("m")).json["choices"][0]["message"]["content"] == " w0"
        wait_until(lambda: gateway.metric("freehold_gateway_cut_streams_total", model="m") == 5)
        broken = [client for client in clients if b"not complete" in client.everything_now()]
        assert len(broken) == 5


# What the control plane says


class Told:
    """A gateway under a parent that tells it snapshots."""

    def __init__(self, link: WorkerProcess, port: int) -> None:
        self.link = link
        self.port = port

    async def tell(self, generation: int, *endpoints: Endpoint, name: str = "m") -> None:
        entry = ModelEntry(name=name, engine="external", created_s=7)
        self.link.send(Snapshot(generation=generation, models=(entry,), endpoints=endpoints))
        await until(lambda: self._knows(generation), what=f"generation {generation}")

    async def _knows(self, generation: int) -> bool:
        known: int = (await self.ask(get("/health"))).json["snapshot"]["generation"]
        return known >= generation

    async def ask(self, data: bytes) -> Any:
        def run() -> Any:
            with Client(self.port) as client:
                return client.ask(data)

        return await asyncio.to_thread(run)


@contextlib.asynccontextmanager
async def told(folder: Path) -> Any:
    listener = listen("127.0.0.1", 0)
    link = WorkerProcess(Settings(), listener, stderr_path=folder / "log")
    running = asyncio.create_task(link.run())
    yield Told(link, listener.getsockname()[1])
    link.stop()
    await asyncio.wait_for(running, 10)
    assert link.restarts == 0
    assert link.finished_all


def endpoint(
    engine: Engine, *, number: int = 0, state: ReplicaState = ReplicaState.READY, **more: Any
) -> Endpoint:
    return Endpoint(id=f"m-{number}", model="m", url=engine.url, engine="external", state=state, **more)


def test_an_endpoints_own_key_model_name_and_path_are_used(engine: Engine, tmp_path: Path) -> None:
    async def run() -> None:
        async with told(tmp_path) as gateway:
            where = endpoint(engine, api_key="sk-engine", upstream_model="org/Model")
            await gateway.tell(1, where)
            data = ask("m", extra="Authorization: Bearer sk-caller\r\n")
            assert (await gateway.ask(data)).json == ANSWER
            (call,) = engine.calls
            assert call.header("authorization") == "Bearer sk-engine"
            assert call.json["model"] == "org/Model"
            assert b"sk-caller" not in engine.received
            prefixed = Endpoint(
                id="m-0", model="m", url=f"{engine.url}/proxy/v1", engine="external", state=ReplicaState.READY
            )
            await gateway.tell(2, prefixed)
            await gateway.ask(data)
            assert engine.calls[1].path == "/proxy/v1/chat/completions"
            assert engine.calls[1].header("authorization") is None
            # The same address with another key is another endpoint: the old connection's key is used no more.
            await gateway.tell(3, endpoint(engine, api_key="sk-new"))
            await gateway.ask(data)
            assert engine.calls[2].header("authorization") == "Bearer sk-new"

    asyncio.run(run())


def test_only_ready_endpoints_of_the_newest_snapshot_get_requests(engines: Engines, tmp_path: Path) -> None:
    old, new = engines.new(), engines.new()

    async def run() -> None:
        async with told(tmp_path) as gateway:
            assert (await gateway.ask(get("/readyz"))).json == {"status": "starting"}
            assert (await gateway.ask(ask("m"))).error["code"] == "model_not_ready"
            await gateway.tell(5, endpoint(old, state=ReplicaState.STARTING))
            answer = await gateway.ask(ask("m"))
            assert (answer.status, answer.error["code"], answer.header("retry-after")) == (
                503,
                "model_not_ready",
                "2",
            )
            assert (await gateway.ask(get("/readyz"))).status == 503
            await gateway.tell(6, endpoint(old))
            assert (await gateway.ask(get("/readyz"))).status == 200
            await gateway.ask(ask("m"))
            await gateway.tell(7, endpoint(old, state=ReplicaState.DRAINING), endpoint(new, number=1))
            await gateway.tell(4, endpoint(old))
            for _ in range(5):
                assert (await gateway.ask(ask("m"))).status == 200
            assert (len(old.calls), len(new.calls)) == (1, 5)
            await until(lambda: not old.lines, what="the idle connection to the old engine to be closed")

    asyncio.run(run())
