"""Requests that are valid but unusual: chunked, pipelined, upgraded, old. They work, and hide nothing from anybody."""

import fcntl
import json
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway_rig.client import CHAT, Client, ask, get, post
from gateway_rig.engines import ANSWER, STREAM_HEAD, STREAMED, Call, Engine, chunk
from gateway_rig.malformed import CHUNKED, HIDDEN, TOP
from gateway_rig.process import Gateway
from waiting import wait_until

# Valid but unusual


def test_chunked_requests_with_extensions_and_trailers_work(client: Client, engine: Engine) -> None:
    body = b'{"model":"m","x":"' + b"y" * 50 + b'"}'
    chunks = b'5;a=b;c="d e"\r\n' + body[:5] + b"\r\n" + b"%X\r\n" % (len(body) - 5) + body[5:] + b"\r\n"
    trailers = b"0;last\r\nX-Checksum: 1\r\n\r\n"
    for send in (client.send, client.send_slowly):
        engine.reset()
        send(CHUNKED + chunks + trailers)
        assert client.read_answer().json == ANSWER
        (call,) = engine.calls
        assert call.body == body
        assert call.header("content-length") == str(len(body))
        assert call.header("transfer-encoding") is None
        assert call.header("x-checksum") is None


@pytest.mark.parametrize(("own", "got"), [("", "no-cache"), ("cache-control: no-store\r\n", "no-store")])
def test_no_cache_on_the_way_keeps_a_stream(own: str, got: str, client: Client, engine: Engine) -> None:
    """RFC 9111 3: a 200 without Cache-Control may be kept."""
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\n" + own.encode() + b"\r\n")

    async def stream(call: Call) -> None:
        call.send(head + chunk(STREAMED) + b"0\r\n\r\n")

    engine.answer = stream
    assert client.ask(ask("m", stream=True)).header("cache-control") == got


@pytest.mark.parametrize("scheme", ["http://localhost:8000", "HTTP://h", "https://[::1]:1", "http://h:"])
def test_a_target_in_absolute_form_is_its_path(scheme: str, client: Client, engine: Engine) -> None:
    """RFC 9112 3.2.2: a server MUST accept it, and takes its authority in place of the Host."""
    assert client.ask(ask("m", path=f"{scheme}{CHAT}?x=http://y/")).json == ANSWER
    assert [call.path for call in engine.calls] == [CHAT]
    assert client.ask(get(f"{scheme}/livez")).status == 200
    for bare in ("", "/", "?x=y"):
        assert client.ask(get(scheme + bare)).error["code"] == "unknown_url"


@pytest.mark.parametrize(
    "host", ["h", "h:80", "h:", "127.0.0.1:8000", "[::1]:8000", "a_b.c-d.example", " h "]
)
def test_a_host_with_or_without_a_port_is_taken(host: str, client: Client) -> None:
    assert client.ask(f"GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).status == 200


def test_a_field_of_16_kib_is_taken(client: Client) -> None:
    assert client.ask(get("/livez", extra="X: " + "a" * 16_000 + "\r\n")).status == 200


def test_pipelined_requests_are_answered_in_order(client: Client, engine: Engine) -> None:
    requests = [ask("m", extra=f"x-request-id: r{i}\r\n", stream=i % 3 == 0) for i in range(20)]
    client.send(b"".join(requests))
    answers = [client.read_answer() for _ in requests]
    assert [answer.header("x-request-id") for answer in answers] == [f"r{i}" for i in range(20)]
    assert [call.header("x-request-id") for call in engine.calls] == [f"r{i}" for i in range(20)]
    assert {answer.status for answer in answers} == {200}


def test_pipelined_requests_cut_anywhere_are_answered_in_order(client: Client) -> None:
    data = (
        get("/livez", extra="x-request-id: a\r\n")
        + ask("m", extra="x-request-id: b\r\n")
        + get("/v1/models/m")
    )
    for cut in range(1, len(data), 7):
        client.send(data[:cut])
        client.send(data[cut:])
        answers = [client.read_answer() for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 200]
        assert [answer.header("x-request-id") for answer in answers[:2]] == ["a", "b"]


def test_a_flood_of_pipelined_requests_is_bounded(client: Client, gateway: Gateway) -> None:
    client.send_slowly(get("/livez") * 8000, step=1_000_000)
    answers = client.everything()
    assert 30 <= answers.count(b'{"status":"ok"}') <= 8000
    assert gateway.metric("freehold_bugs_total") == 0


def test_a_flood_of_pipelined_upgrades_is_answered(client: Client, gateway: Gateway) -> None:
    count = 2000
    upgrade = get("/livez", extra="Connection: Upgrade\r\nUpgrade: h2c\r\n")
    client.send(upgrade * count)
    assert all(client.read_answer().status == 200 for _ in range(count))
    assert gateway.metric("freehold_bugs_total") == 0


def stands_still(receiving: socket.socket) -> Callable[[], bool]:
    """Return a condition: bytes wait to be read, and twenty looks in turn found the same number of them."""
    looks: deque[int] = deque(maxlen=20)

    def condition() -> bool:
        (unread_bytes,) = struct.unpack("i", fcntl.ioctl(receiving, termios.FIONREAD, bytes(4)))
        looks.append(unread_bytes)
        return len(looks) == looks.maxlen and 0 < min(looks) == max(looks)

    return condition


def test_pipelined_upgrades_keep_their_order_when_the_client_reads_late(gateway: Gateway) -> None:
    """What is held while the client does not read is longer than one slice, and each offered upgrade leaves a rest of its slice."""
    count = 2000
    upgrade = get("/livez", extra="Connection: Upgrade\r\nUpgrade: h2c\r\n")
    with Client(gateway.port, receive_bytes=4096) as client, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(client.send, upgrade * count)
        wait_until(stands_still(client.socket), what="the gateway to be paused by its client")
        assert [client.read_answer().status for _ in range(count)] == [200] * count
        sent.result()


def test_a_client_that_pipelines_and_does_not_read_is_held_not_buffered(
    client: Client, gateway: Gateway
) -> None:
    before = gateway.rss_bytes()
    client.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.send(get("/v1/models", extra="X: " + "a" * 600 + "\r\n") * 30_000)
    assert gateway.rss_bytes() - before < 2_000_000


def test_expect_100_continue(client: Client, engine: Engine) -> None:
    request = ask("m", extra="Expect: 100-continue\r\n")
    head, _, body = request.partition(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    assert client.read_head().status == 100
    assert not engine.calls
    client.send(body)
    assert client.read_answer().json == ANSWER


def test_expect_is_not_answered_for_a_body_that_will_be_refused(client: Client) -> None:
    client.send(TOP + b"Expect: 100-continue\r\nContent-Length: 100000\r\n\r\n")
    answer = client.read_answer()
    assert (answer.status, answer.interim) == (413, [])


def test_expect_in_its_turn_behind_another_request(client: Client) -> None:
    request = ask("m", extra="Expect: 100-continue\r\n")
    client.send(get("/livez") + request)
    first, second = client.read_answer(), client.read_answer()
    assert first.interim == []
    assert (first.json, second.json) == ({"status": "ok"}, ANSWER)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_waits_for_100_behind_another_request_gets_it_in_turn(
    client: Client, *, stream: bool
) -> None:
    head, _, body = ask("m", extra="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    client.send(ask("m", stream=stream) + head + b"\r\n\r\n")
    assert client.read_answer().interim == []
    assert client.read_head().status == 100
    client.send(body)
    assert client.read_answer().json == ANSWER


UPGRADES = {
    "Java's HttpClient": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n",
    "WebSocket": "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
}


@pytest.mark.parametrize("name", UPGRADES)
def test_an_upgrade_is_ignored_and_its_body_belongs_to_the_request(
    name: str, client: Client, engine: Engine
) -> None:
    hiding = {"model": "m", "prompt": HIDDEN.decode()}
    for send in (client.send, client.send_slowly):
        engine.reset()
        send(post(hiding, extra=UPGRADES[name]) + get("/livez"))
        assert client.read_answer().json == ANSWER
        assert client.read_answer().json == {"status": "ok"}
        assert [call.json for call in engine.calls] == [hiding]
        assert engine.calls[0].header("upgrade") is None


def test_an_upgrade_with_a_chunked_body(client: Client, engine: Engine) -> None:
    body = json.dumps({"model": "m", "prompt": HIDDEN.decode()}).encode()
    head = TOP + UPGRADES["WebSocket"].encode() + b"Transfer-Encoding: chunked\r\n\r\n"
    for send in (client.send, client.send_slowly):
        engine.reset()
        send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) + get("/livez"))
        assert client.read_answer().json == ANSWER
        assert client.read_answer().json == {"status": "ok"}
        assert [call.body for call in engine.calls] == [body]


def test_connect_with_a_body_hides_nothing(client: Client, engine: Engine) -> None:
    client.send(
        b"CONNECT /v1/models HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN
    )
    assert client.read_answer().status == 405
    assert client.ask(get("/livez")).json == {"status": "ok"}
    assert not engine.received


@pytest.mark.parametrize("path", ["/livez", "/nothing", CHAT])
def test_the_body_of_a_get_belongs_to_the_get(path: str, client: Client, engine: Engine) -> None:
    client.send(get(path, extra=f"Content-Length: {len(HIDDEN)}\r\n") + HIDDEN)
    assert client.read_answer().status in {200, 404, 405}
    assert client.ask(get("/livez")).json == {"status": "ok"}
    assert not engine.received


def test_an_http_1_0_client_gets_an_unchunked_answer_and_a_close(client: Client) -> None:
    client.send(ask("m", stream=True, version="1.0"))
    answer = client.read_answer()
    assert answer.header("transfer-encoding") is None
    assert answer.header("content-length") is None
    assert answer.header("connection") == "close"
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert answer.body.count(b"data: ") == 4


def test_an_http_1_0_client_may_leave_host_out_and_keep_alive_is_not_promised(gateway: Gateway) -> None:
    with gateway.client() as client:
        client.send(b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = client.read_answer()
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert client.ended()


def test_connection_close_is_obeyed(client: Client) -> None:
    assert client.ask(ask("m", extra="Connection: close\r\n")).header("connection") == "close"
    assert client.ended()


@pytest.mark.parametrize("lead", [b"\r\n", b"\r\n\r\n"])
def test_empty_lines_before_a_request_are_skipped(lead: bytes, client: Client) -> None:
    for _ in range(2):
        client.send(lead + get("/livez"))
        assert client.read_answer().status == 200


def test_nothing_above_was_a_bug(gateway: Gateway) -> None:
    assert gateway.metric("freehold_bugs_total") == 0
    wait_until(
        lambda: gateway.metric("freehold_gateway_connections") == 1, what="every connection to be closed"
    )
    assert gateway.metric("freehold_gateway_in_flight") == 0
