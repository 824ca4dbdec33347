"""Large bodies that come in: what they may take of the gateway's memory, who waits for that, and how it ends."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway_rig.client import Client, ask, get, post
from gateway_rig.engines import ANSWER, Engine
from gateway_rig.keys import Keys
from gateway_rig.memory import MemoryClient, MemoryGateway
from gateway_rig.process import Gateway, model, running
from waiting import wait_until

MIB = 1024 * 1024
ROOM = 4 * MIB
BODY = 1 * MIB


def large(size_bytes: int = BODY, *, extra: str = "") -> bytes:
    """Return a request whose body has that size and more."""
    content = [{"role": "user", "content": "x" * size_bytes}]
    return post({"model": "m", "messages": content}, extra=extra)


def chunked(size_bytes: int = BODY, *, chunk_bytes: int = 65536, extra: str = "") -> bytes:
    head, _, body = large(size_bytes).partition(b"\r\n\r\n")
    head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length"))
    chunks = [body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks)
    return b"%b\r\nTransfer-Encoding: chunked\r\n%b\r\n%b0\r\n\r\n" % (head, extra.encode(), framed)


KINDS = {"length": large, "chunked": chunked}


@pytest.fixture
def gateway(engine: Engine, tmp_path: Path) -> Iterator[Gateway]:
    bounds = {"upload_memory_bytes": ROOM, "max_body_bytes": ROOM // 2, "queue_max_wait_s": 30.0}
    with running(tmp_path, [model("m", engine)], **bounds) as gateway:
        yield gateway
        assert held(gateway) == (0, 0)


def held(gateway: Gateway) -> tuple[float, float]:
    names = "freehold_gateway_upload_bytes", "freehold_gateway_uploads_waiting"
    return gateway.metric(names[0]), gateway.metric(names[1])


@contextlib.contextmanager
def clients(gateway: Gateway, count: int) -> Iterator[list[Client]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(gateway.client()) for _ in range(count)]


def send_what_fits(client: Client, data: bytes) -> int:
    """Send as much as is taken within a moment; return how much that was."""
    client.socket.settimeout(0.05)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < len(data):
            sent += client.socket.send(data[sent:])
    client.socket.settimeout(10)
    return sent


@pytest.mark.parametrize("kind", KINDS)
def test_unfinished_bodies_take_no_more_memory_than_they_may(kind: str, gateway: Gateway) -> None:
    data = KINDS[kind](ROOM // 2 - 1000)
    with gateway.client() as warm:
        assert warm.ask(data).status == 200
    before = gateway.rss_bytes()
    with clients(gateway, 40) as sending:
        sent = [send_what_fits(client, data[:-10]) for client in sending]
        assert held(gateway)[0] <= ROOM
        assert held(gateway)[1] == 38
        assert gateway.rss_bytes() - before < ROOM + 40 * 320 * 1024 + 4 * MIB
        with gateway.client() as tiny:
            started_s = time.monotonic()
            assert tiny.ask(ask("m")).json == ANSWER
            assert time.monotonic() - started_s < 1
        # Nobody is lost: each that is let in sends the rest, and is answered.
        waiting = dict(zip(sending, sent, strict=True))
        deadline_s = time.monotonic() + 60
        while waiting and time.monotonic() < deadline_s:
            for client in list(waiting):
                waiting[client] += send_what_fits(client, data[waiting[client] :])
                if waiting[client] == len(data):
                    assert client.read_answer().json == ANSWER
                    del waiting[client]
        assert not waiting


def test_a_body_in_tiny_chunks_takes_no_more_memory_than_its_bytes(gateway: Gateway) -> None:
    data = chunked(MIB, chunk_bytes=2)
    with gateway.client() as client:
        client.send(large())
        assert client.read_answer().status == 200
        before = gateway.rss_bytes()
        client.send(data[:-10])
        wait_until(lambda: held(gateway)[0] == ROOM // 2)
        with gateway.client() as other:
            assert other.ask(get("/livez")).status == 200
        assert gateway.rss_bytes() - before < 8 * MIB
        client.send(data[-10:])
        assert client.read_answer().json == ANSWER


def test_who_waits_in_vain_is_told_when_to_come_again(engine: Engine, tmp_path: Path) -> None:
    bounds = {"upload_memory_bytes": BODY, "queue_max_wait_s": 1.2, "body_s": 30.0}
    with (
        running(tmp_path, [model("m", engine)], **bounds) as gateway,
        gateway.client() as first,
        gateway.client() as second,
    ):
        first.send(large()[:-10])
        wait_until(lambda: held(gateway)[0] > BODY)
        second.send(large(extra="x-request-id: mine\r\n")[: 16 * 1024])
        started_s = time.monotonic()
        refused = second.read_answer()
        assert 0.6 <= time.monotonic() - started_s <= 4
        assert (refused.status, refused.error["code"]) == (503, "too_many_uploads")
        assert refused.header("x-request-id") == "mine"
        assert int(refused.header("retry-after") or 0) >= 1
        assert refused.header("connection") == "close"
        first.send(large()[-10:])
        assert first.read_answer().json == ANSWER


def test_a_client_is_asked_for_its_body_when_there_is_room(gateway: Gateway) -> None:
    with clients(gateway, 3) as (first, second, third):
        for client in (first, second):
            send_what_fits(client, large(ROOM // 2 - 1000)[:-10])
        head, _, body = large(extra="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
        third.send(head + b"\r\n\r\n")
        wait_until(lambda: held(gateway)[1] == 1)
        assert not third.everything_now()
        third.socket.settimeout(10)
        first.leave()
        assert third.read_head().status == 100
        third.send(body)
        assert third.read_answer().json == ANSWER


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_body_is_408_and_its_drops_buy_no_time(kind: str, engine: Engine, tmp_path: Path) -> None:
    with running(tmp_path, [model("m", engine)], body_s=1.2) as gateway, gateway.client() as client:
        data = KINDS[kind]()
        client.send(data[: BODY // 2])
        started_s, at = time.monotonic(), BODY // 2
        client.socket.settimeout(0.05)
        while time.monotonic() - started_s < 5:
            client.send(data[at : at + 10])
            at += 10
            with contextlib.suppress(TimeoutError):
                assert client.read_head().status == 408
                break
        else:
            pytest.fail("the body never ended and nobody minded")
        assert held(gateway) == (0, 0)


def test_one_key_has_no_more_bodies_than_requests_at_once_and_half_of_the_room(
    engine: Engine, tmp_path: Path
) -> None:
    keys = Keys(tmp_path)
    keys.add("pair", concurrency=2)
    keys.add("greedy")
    keys.add("modest")
    bounds = {"upload_memory_bytes": ROOM, "max_body_bytes": ROOM}
    with (
        running(tmp_path, [model("m", engine)], **bounds, **keys.settings) as gateway,
        clients(gateway, 6) as (one, two, three, *more),
    ):
        pair = large(MIB // 4, extra=keys.bearer("pair"))
        for client in (one, two):
            client.send(pair[:-10])
        wait_until(lambda: held(gateway)[0] > MIB // 2 - 1)
        three.send(pair[: 16 * 1024])  # before its body has come
        refused = three.read_answer()
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
        assert refused.error["message"] == "This API key may have 2 requests under way at once."
        for client in more:
            send_what_fits(client, large(extra=keys.bearer("greedy"))[:-10])
        wait_until(lambda: held(gateway)[1] == 2)
        with gateway.client() as modest:
            assert modest.ask(large(extra=keys.bearer("modest"))).json == ANSWER
        for client in (one, two):
            client.send(pair[-10:])
            assert client.read_answer().json == ANSWER


# Every way in which a body ends, without sockets


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryGateway]:
    rig = MemoryGateway(monkeypatch, upload_memory_bytes=BODY // 2, max_body_bytes=BODY // 2)
    rig.renew()
    yield rig
    rig.close()


def leaves(client: MemoryClient) -> None:
    client.leave()


def breaks(client: MemoryClient) -> None:
    client.send(b"x" * 70_000)  # which is no chunk's size, once it is no chunk's data


def grows_too_large(client: MemoryClient) -> None:
    client.send((b"10000\r\n" + b"x" * 65536 + b"\r\n") * 8)


def is_too_late(client: MemoryClient) -> None:
    client.connection.check(client.rig.loop.time() + 1000)


def is_aborted(client: MemoryClient) -> None:
    client.connection.abort()
    client.rig.settle(client.wire)


@pytest.mark.parametrize("ends", [leaves, breaks, grows_too_large, is_too_late, is_aborted])
@pytest.mark.parametrize("waits", [False, True])
def test_however_a_body_ends_its_room_is_free_again(
    ends: Callable[[MemoryClient], None], rig: MemoryGateway, *, waits: bool
) -> None:
    intake, before = rig.gateway.body_memory, rig.client()
    if waits:
        before.send(large(BODY // 4)[:-10])
        assert intake.held_bytes > BODY // 4
    client = rig.client()
    client.send(chunked(BODY // 4)[: BODY // 8])
    assert (intake.waiting, intake.held_bytes > 0) == (int(waits), True)
    before.leave()
    assert (intake.waiting, intake.held_bytes) == (0, BODY // 2)
    ends(client)
    assert (intake.waiting, intake.held_bytes) == (0, 0)
    client.leave()


def test_a_client_that_leaves_while_it_waits_is_forgotten(rig: MemoryGateway) -> None:
    intake, first, second = rig.gateway.body_memory, rig.client(), rig.client()
    first.send(large(BODY // 4)[:-10])
    second.send(chunked(BODY // 4)[: BODY // 8])
    assert intake.waiting == 1
    is_too_late(second)
    assert intake.waiting == 0
    assert b"HTTP/1.1 503 " in second.wire.written
    first.leave()
    second.leave()
    assert intake.held_bytes == 0


def test_a_body_behind_an_answer_asks_for_room_in_its_turn(rig: MemoryGateway) -> None:
    intake, first, second = rig.gateway.body_memory, rig.client(), rig.client()
    first.send(large(BODY // 2 - 1000)[:-10])
    second.send(get("/livez") + large(BODY // 8)[:-10])
    assert b"HTTP/1.1 200 " in second.wire.written
    assert intake.waiting == 1
    first.leave()
    assert (intake.waiting, intake.held_bytes > BODY // 8) == (0, True)
    second.send(b"x" * 10)  # whole now, and no JSON
    assert b"invalid_json" in second.wire.written
    assert intake.held_bytes == 0
    second.leave()


def test_small_bodies_never_ask(rig: MemoryGateway) -> None:
    first, second = rig.client(), rig.client()
    first.send(large(BODY // 4)[:-10])
    for data in (large(60_000), chunked(60_000)):
        second.send(data.replace(b'"m"', b'"?"'))
        assert (
            json.loads(second.wire.written.rpartition(b"\r\n\r\n")[2])["error"]["code"] == "model_not_found"
        )
    first.leave()
    second.leave()
