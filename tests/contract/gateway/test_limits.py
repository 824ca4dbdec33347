"""Bounds and time limits of the gateway, reached on purpose: slow clients, slow engines, too much."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway_rig.client import Client, ask, get, post
from gateway_rig.engines import (
    ANSWER,
    STREAM_HEAD,
    Call,
    Engine,
    chunk,
    delta,
    healthy,
    never,
    streaming_then,
    whole,
)
from gateway_rig.keys import Keys
from gateway_rig.process import Gateway, model, running
from waiting import wait_until

TICK_S = 0.5
"""The gateway looks at its time limits this often, seconds."""
LIMIT_S = 0.5
LATE_S = LIMIT_S + 2 * TICK_S + 1.0
"""By when a limit must have struck, with room for a loaded machine, seconds."""


@pytest.fixture(scope="module")
def gateway(the_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Give a gateway with short limits everywhere."""
    models = [
        model("m", the_engine),
        model("cpp", the_engine, engine="llama-cpp"),
        model("full", the_engine, slots=2),
        model("short", the_engine) | {"max_context_tokens": 2048},
    ]
    short = dict.fromkeys(
        ("header_s", "body_s", "idle_s", "connect_s", "first_byte_s", "between_bytes_s", "client_stall_s"),
        LIMIT_S,
    )
    with running(tmp_path_factory.mktemp("limits"), models, queue_max_requests=1, **short) as gateway:
        yield gateway
        assert gateway.metric("freehold_bugs_total") == 0
        assert gateway.metric("freehold_gateway_in_flight") == 0


def within(client: Client, *, least_s: float = LIMIT_S - TICK_S) -> float:
    """Wait for the gateway to end the connection; return the seconds that took, checked against the limit."""
    started_s = time.monotonic()
    client.unread += client.everything()
    took_s = time.monotonic() - started_s
    assert least_s <= took_s <= LATE_S
    return took_s


# Slow clients


def test_a_connection_that_says_nothing_is_closed(client: Client) -> None:
    within(client)
    assert not client.unread


def test_an_idle_connection_is_closed_without_a_word(client: Client) -> None:
    assert client.ask(get("/livez")).status == 200
    within(client)
    assert not client.unread


@pytest.mark.parametrize("start", [b"GET", b"GET /livez HTTP/1.1\r\nHost: h\r\nX: ", b"\r\n"])
def test_a_head_that_does_not_come_is_408(start: bytes, client: Client) -> None:
    client.send(start)
    within(client)
    assert client.unread.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in client.unread


@pytest.mark.parametrize("start", [b"G", b"GET /livez HTTP/1.1\r\n"])
@pytest.mark.parametrize("first", [get("/livez"), ask("m"), ask("m", stream=True)])
def test_half_a_request_behind_an_answered_one_is_408(first: bytes, start: bytes, client: Client) -> None:
    client.send(first + start)
    assert client.read_answer().status == 200
    within(client)
    assert client.unread.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("first", [b"", get("/livez")])
@pytest.mark.parametrize("drop", [b"X: y\r\n", b"\r\n"])
def test_drops_of_a_head_do_not_buy_time(drop: bytes, first: bytes, tmp_path: Path) -> None:
    """With a limit of more than a tick: one of less is over at the next tick whatever comes."""
    with running(tmp_path, [], header_s=1.2) as gateway, gateway.client() as client:
        client.send(first + (b"GET /livez HTTP/1.1\r\n" if drop.strip() else drop))
        started_s = time.monotonic()
        if first:
            assert client.read_answer().status == 200
        client.socket.settimeout(0.05)
        while time.monotonic() - started_s < 1.2 + 2 * TICK_S + 1.0:
            client.send(drop)
            with contextlib.suppress(TimeoutError):
                assert client.read_head().status == 408
                return
        pytest.fail("the head never ended and nobody minded")


def test_a_body_that_does_not_come_is_408_with_its_request_id(client: Client, engine: Engine) -> None:
    client.send(ask("m", extra="x-request-id: mine\r\n")[:-5])
    within(client)
    assert client.unread.startswith(b"HTTP/1.1 408 ")
    assert b"x-request-id: mine\r\n" in client.unread
    assert not engine.received


def test_the_clock_of_a_pipelined_request_starts_when_it_is_awaited(engine: Engine, tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def answer(call: Call) -> None:
        if call.json["stream"]:
            call.send(STREAM_HEAD)
            await go_on.wait()
            call.send(b"0\r\n\r\n")
        else:
            call.send(whole(ANSWER))

    engine.answer = answer
    second = ask("m")
    with (
        running(tmp_path, [model("m", engine)], header_s=1.6, body_s=1.6) as gateway,
        contextlib.ExitStack() as stack,
    ):
        cuts = {stack.enter_context(gateway.client()): cut for cut in (10, len(second) - 5)}
        for client, cut in cuts.items():
            client.send(ask("m", stream=True) + second[:cut])
        assert nothing_comes(
            next(iter(cuts)), for_s=1.6 + TICK_S
        )  # the first request's own limits are over by now
        engine.do(go_on.set)
        for client in cuts:
            client.read_answer()
        assert nothing_comes(next(iter(cuts)), for_s=TICK_S + 0.1)  # and one more look at the clock
        for client, cut in cuts.items():
            client.send(second[cut:])
            assert client.read_answer().json == ANSWER


def nothing_comes(client: Client, *, for_s: float) -> bool:
    client.socket.settimeout(for_s)
    try:
        client.read_exactly(1)
    except TimeoutError:
        return True
    finally:
        client.socket.settimeout(10)
    return False


# Slow engines


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ["m", "cpp"])
def test_an_engine_that_does_not_begin_is_504(
    name: str, client: Client, engine: Engine, *, stream: bool
) -> None:
    engine.answer = never
    started_s = time.monotonic()
    answer = client.ask(ask(name, stream=stream))
    assert (answer.status, answer.error["code"]) == (504, "timeout")
    assert time.monotonic() - started_s < LATE_S
    wait_until(engine.calls[0].gone.is_set)
    assert client.ask(get("/livez")).status == 200


def test_an_engine_that_stops_in_a_stream_is_told_in_band(client: Client, engine: Engine) -> None:
    engine.answer = streaming_then(lambda _: None)
    client.send(ask("m", stream=True))
    client.read_head()
    assert client.read_chunk() == delta("a")
    assert b"did not answer in time" in client.read_chunk()
    assert client.read_chunk() == b""
    assert client.ended()
    wait_until(engine.calls[0].gone.is_set)


def test_an_engine_that_stops_inside_a_chunk_is_told_in_band(client: Client, engine: Engine) -> None:
    engine.answer = streaming_then(lambda call: call.send(b"40\r\nda"))
    client.send(ask("m", stream=True))
    client.read_head()
    client.read_chunk()
    text = b""
    while (more := client.read_chunk()) != b"":
        text += more
    assert b'"error"' in text
    assert b"[DONE]" not in text


def test_a_streaming_engine_that_stops_under_a_plain_request_is_504(client: Client, engine: Engine) -> None:
    engine.answer = streaming_then(lambda _: None)
    assert client.ask(ask("cpp")).status == 504


def test_an_error_without_end_is_answered(client: Client, engine: Engine) -> None:
    async def answer(call: Call) -> None:
        call.send(b"HTTP/1.1 400 X\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not call.gone.is_set():
            call.send(chunk(b"x" * 10_000))
            await asyncio.sleep(0.001)

    engine.answer = answer
    assert client.ask(ask("m")).status == 400
    wait_until(engine.calls[0].gone.is_set)


# Too much


def test_requests_past_the_bound_are_refused_and_the_others_are_not(gateway: Gateway, engine: Engine) -> None:
    go_on = asyncio.Event()

    async def answer(call: Call) -> None:
        await go_on.wait()
        await healthy(call)

    engine.answer = answer
    clients = [gateway.client() for _ in range(3)]
    for client in clients:
        client.send(ask("full"))
    wait_until(lambda: gateway.metric("freehold_gateway_queue_requests", model="full") == 1)
    with gateway.client() as other:
        refused = other.ask(ask("full"))
        assert (refused.status, refused.error["code"], refused.header("retry-after")) == (
            503,
            "engine_overloaded",
            "1",
        )
        assert other.ask(get("/readyz")).status == 200
    engine.do(go_on.set)
    for client in clients:
        assert client.read_answer().json == ANSWER
        client.close()
    with gateway.client() as other:
        assert other.ask(ask("full")).json == ANSWER


def test_connections_past_the_bound_are_told_so_and_closed(engine: Engine, tmp_path: Path) -> None:
    patch = "import freehold.gateway.server.descriptors as files; files.CONNECTIONS_MAX = 3"
    with running(tmp_path, [model("m", engine)], patch=patch) as gateway:
        kept = [gateway.client() for _ in range(3)]
        for client in kept:
            assert client.ask(ask("m")).status == 200
        with gateway.client() as more:
            answer = more.read_answer()
            assert (answer.status, answer.error["code"]) == (503, "too_many_connections")
            assert answer.header("connection") == "close"
            assert more.ended()
        kept.pop().close()
        wait_until(lambda: gateway.client().ask(get("/livez")).status == 200)
        for client in kept:
            client.close()


def test_connections_without_a_key_keep_no_caller_out(engine: Engine, tmp_path: Path) -> None:
    """Dripping heads and idle ones fill the gateway from one address; a caller's own connections stay."""
    patch = "import freehold.gateway.server.descriptors as files; files.CONNECTIONS_MAX = 40"
    keys = Keys(tmp_path)
    keys.add("anna")
    with (
        running(tmp_path, [model("m", engine)], patch=patch, **keys.settings) as gateway,
        contextlib.ExitStack() as stack,
    ):
        anna = stack.enter_context(gateway.client())
        assert anna.ask(ask("m", extra=keys.bearer("anna"))).status == 200
        for number in range(120):
            filler = stack.enter_context(gateway.client())
            if number % 3 == 0:
                filler.send(b"GET /livez HTTP/1.1\r\nHo")
            elif number % 3 == 1:
                assert filler.ask(get("/livez")).status == 200
            else:
                assert filler.ask(ask("m", extra="Authorization: Bearer fh-wrong\r\n")).status == 401
        started_s = time.monotonic()
        newcomer = stack.enter_context(gateway.client())
        assert newcomer.ask(ask("m", extra=keys.bearer("anna"))).status == 200
        assert anna.ask(ask("m", extra=keys.bearer("anna"))).status == 200
        assert time.monotonic() - started_s < 1.0
        assert gateway.metric("freehold_gateway_connections") <= 13  # a quarter of 40, and three with a key
        assert gateway.metric("freehold_gateway_keyless_evicted_total") >= 110


def test_an_answer_too_large_to_put_together_is_refused_once(engine: Engine, tmp_path: Path) -> None:
    patch = "import freehold.gateway.exchange.attempt as attempt; attempt._ANSWER_BYTES_MAX = 10_000"

    async def answer(call: Call) -> None:
        call.send(STREAM_HEAD + b"".join(chunk(delta("x" * 1000)) for _ in range(100)))
        await call.gone.wait()

    engine.answer = answer
    with (
        running(tmp_path, [model("cpp", engine, engine="llama-cpp")], patch=patch) as gateway,
        gateway.client() as client,
    ):
        answer_ = client.ask(ask("cpp"))
        assert (answer_.status, answer_.error["code"]) == (502, "engine_failed")
        assert client.ask(get("/livez")).json == {"status": "ok"}
        wait_until(engine.calls[0].gone.is_set)


def test_a_text_that_cannot_fit_the_context_never_reaches_an_engine(client: Client, engine: Engine) -> None:
    """The engine would work on it for seconds after its client has left, or for minutes."""
    answer = client.ask(post({"model": "short", "messages": [{"role": "user", "content": "x" * 2048 * 257}]}))
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert answer.error["n_ctx"] == 2048
    assert not engine.calls


@pytest.mark.parametrize("name", ["short", "m"])
def test_a_picture_may_be_larger_than_any_text(name: str, client: Client, engine: Engine) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 2048 * 257}}
    client.ask(post({"model": name, "messages": [{"role": "user", "content": [picture]}]}))
    assert len(engine.calls) == 1


def test_where_the_context_is_not_known_the_engine_decides(client: Client, engine: Engine) -> None:
    client.ask(post({"model": "m", "messages": [{"role": "user", "content": "x" * 2048 * 257}]}))
    assert len(engine.calls) == 1
