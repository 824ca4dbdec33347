"""Framing at the front: what is malformed ends there, what is merely unusual works.

A real gateway process stands in front of an engine that keeps every byte it gets. Each malformed request is followed by
a well-formed one that a careless parser would find behind it; it must never come out at the engine.
"""

import json
from collections.abc import Iterator

import pytest

from gateway_rig.client import CHAT, Client, ask, get, post
from gateway_rig.engines import ANSWER, Call, Engine, Engines, whole
from gateway_rig.process import Gateway, model, running
from waiting import wait_until

MAX_BODY_BYTES = 20_000


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    engines = Engines()
    yield engines
    engines.stop()


@pytest.fixture(scope="module")
def the_engine(engines: Engines) -> Engine:
    return engines.new()


@pytest.fixture(scope="module")
def gateway(the_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("framing")
    with running(folder, [model("m", the_engine)], max_body_bytes=MAX_BODY_BYTES) as gateway:
        yield gateway


@pytest.fixture
def engine(the_engine: Engine) -> Engine:
    the_engine.reset()
    return the_engine


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with gateway.client() as client:
        yield client


HIDDEN = ask("m", extra="x-request-id: hidden\r\n")
BODY = b'{"model":"m"}'
LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
TOP = LINE + b"Host: h\r\n"
SIZED = b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = TOP + b"Transfer-Encoding: chunked\r\n\r\n"


def lines(*fields: bytes, body: bytes = BODY) -> bytes:
    return TOP + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


MALFORMED: dict[str, bytes] = {
    # Two ways to say where the body ends
    "length, then chunked": lines(b"Content-Length: 13", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunked, then length": lines(b"Transfer-Encoding: chunked", b"Content-Length: 13", body=b"0\r\n\r\n"),
    "chunked and length 0": lines(b"Transfer-Encoding: chunked", b"Content-Length: 0", body=b"0\r\n\r\n"),
    "length and an unknown coding": lines(b"Content-Length: 13", b"Transfer-Encoding: xchunked"),
    # Lengths
    "the same length twice": lines(b"Content-Length: 13", b"Content-Length: 13"),
    "two lengths": lines(b"Content-Length: 13", b"Content-Length: 0"),
    "length list": lines(b"Content-Length: 13, 13"),
    "length with plus": lines(b"Content-Length: +13"),
    "length with minus": lines(b"Content-Length: -13"),
    "length in hex": lines(b"Content-Length: 0xd"),
    "length with underscore": lines(b"Content-Length: 1_3"),
    "length with a fraction": lines(b"Content-Length: 13.0"),
    "length with space inside": lines(b"Content-Length: 1 3"),
    "empty length": lines(b"Content-Length: "),
    "huge length": lines(b"Content-Length: 99999999999999999999"),
    "length of 2 to the 64": lines(b"Content-Length: 18446744073709551629"),
    "length in quotes": lines(b'Content-Length: "13"'),
    "length in other digits": lines("Content-Length: ¹³".encode()),
    # Line ends
    "bare LF after the request line": b"POST /v1/chat/completions HTTP/1.1\nHost: h\r\n" + SIZED,
    "bare LF after a header": LINE + b"Host: h\n" + SIZED,
    "bare LF ends the head": TOP + b"Content-Length: 13\r\n\n" + BODY,
    "bare LF everywhere": (TOP + b"Content-Length: 13\r\n\r\n").replace(b"\r\n", b"\n") + BODY,
    "bare CR in a value": lines(b"X: a\rTransfer-Encoding: chunked", b"Content-Length: 13"),
    "CR CR LF": LINE + b"Host: h\r\r\n" + SIZED,
    "obs-fold": lines(b"X: a", b" b", b"Content-Length: 13"),
    "obs-fold by tab": lines(b"X: a", b"\tb", b"Content-Length: 13"),
    "folded length": lines(b"Content-Length:", b" 13"),
    "folded coding": lines(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n"),
    "space before the first header": LINE + b" Host: h\r\n" + SIZED,
    # Names and values
    "space before the colon": lines(b"Content-Length : 13"),
    "tab before the colon": lines(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n"),
    "space in a name": lines(b"Content Length: 13"),
    "empty name": lines(b": x", b"Content-Length: 13"),
    "no colon": lines(b"nonsense", b"Content-Length: 13"),
    "NUL in a name": lines(b"X\0Y: a", b"Content-Length: 13"),
    "NUL in a value": lines(b"X: a\0b", b"Content-Length: 13"),
    "control in a value": lines(b"X: a\x01b", b"Content-Length: 13"),
    "DEL in a value": lines(b"X: a\x7fb", b"Content-Length: 13"),
    "non-ASCII in a name": lines("Ä: a".encode(), b"Content-Length: 13"),
    "brackets in a name": lines(b"X(y): a", b"Content-Length: 13"),
    # Codings
    "unknown coding": lines(b"Transfer-Encoding: gzip"),
    "stacked coding": lines(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunked twice in one": lines(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "chunked twice": lines(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunked, then identity": lines(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=b"0\r\n\r\n"),
    "identity coding": lines(b"Transfer-Encoding: identity"),
    "empty coding": lines(b"Transfer-Encoding:", body=b"0\r\n\r\n"),
    "coding in quotes": lines(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"),
    "coding with a parameter": lines(b"Transfer-Encoding: chunked;q=1", body=b"0\r\n\r\n"),
    "coding after a vertical tab": lines(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "coding in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"d\r\n" + BODY + b"\r\n0\r\n\r\n",
    # Chunks
    "chunk size with minus": CHUNKED + b"-d\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size with plus": CHUNKED + b"+d\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size with 0x": CHUNKED + b"0xd\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size overflows": CHUNKED + b"1000000000000000d\r\n" + BODY + b"\r\n0\r\n\r\n",
    "no chunk size": CHUNKED + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "an extension alone": CHUNKED + b";a=b\r\n" + BODY + b"\r\n0\r\n\r\n",
    "space before the chunk size": CHUNKED + b" d\r\n" + BODY + b"\r\n0\r\n\r\n",
    "space after the chunk size": CHUNKED + b"d \r\n" + BODY + b"\r\n0\r\n\r\n",
    "bare LF after the chunk size": CHUNKED + b"d\n" + BODY + b"\r\n0\r\n\r\n",
    "bare LF in a chunk extension": CHUNKED + b"d;a\nb\r\n" + BODY + b"\r\n0\r\n\r\n",
    "bare CR in a chunk extension": CHUNKED + b"d;a\rb\r\n" + BODY + b"\r\n0\r\n\r\n",
    "NUL in a chunk extension": CHUNKED + b"d;a\0\r\n" + BODY + b"\r\n0\r\n\r\n",
    "bare LF after chunk data": CHUNKED + b"d\r\n" + BODY + b"\n0\r\n\r\n",
    "no CRLF after chunk data": CHUNKED + b"d\r\n" + BODY + b"0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "bare LF in a trailer": CHUNKED + b"d\r\n" + BODY + b"\r\n0\r\nX: y\n\r\n",
    "bare LF ends the trailer": CHUNKED + b"d\r\n" + BODY + b"\r\n0\r\n\n",
    "coding in a trailer": CHUNKED + b"d\r\n" + BODY + b"\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n",
    "length in a trailer": CHUNKED + b"d\r\n" + BODY + b"\r\n0\r\nContent-Length: 13\r\n\r\n",
    "trailer without colon": CHUNKED + b"d\r\n" + BODY + b"\r\n0\r\nnonsense\r\n\r\n",
    # Host and target
    "no Host": LINE + SIZED,
    "two Hosts": TOP + b"Host: h\r\n" + SIZED,
    "two Hosts, one in small letters": TOP + b"host: other\r\n" + SIZED,
    "absolute form": b"POST http://h/v1/chat/completions HTTP/1.1\r\nHost: h\r\n" + SIZED,
    "authority form": b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
    "asterisk form": b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "no slash": b"POST v1/chat/completions HTTP/1.1\r\nHost: h\r\n" + SIZED,
    "non-ASCII target": b"POST /v1/\xff HTTP/1.1\r\nHost: h\r\n" + SIZED,
    "NUL in the target": b"POST /v1/\0 HTTP/1.1\r\nHost: h\r\n" + SIZED,
    "tab in the target": b"POST /v1/a\tb HTTP/1.1\r\nHost: h\r\n" + SIZED,
    # Versions and methods
    "HTTP/1.2": LINE.replace(b"1.1", b"1.2") + b"Host: h\r\n" + SIZED,
    "HTTP/2.0": LINE.replace(b"1.1", b"2.0") + b"Host: h\r\n" + SIZED,
    "HTTP/0.9": LINE.replace(b"1.1", b"0.9") + b"Host: h\r\n" + SIZED,
    "HTTP/1.10": LINE.replace(b"1.1", b"1.10") + b"Host: h\r\n" + SIZED,
    "http in small letters": LINE.replace(b"HTTP", b"http") + b"Host: h\r\n" + SIZED,
    "a method in small letters": b"post" + (TOP + SIZED)[4:],
    "an unknown method": b"BREW" + (TOP + SIZED)[4:],
    "a tab after the method": b"POST\t" + (TOP + SIZED)[5:],
    "no target": b"POST HTTP/1.1\r\nHost: h\r\n" + SIZED,
    # Other protocols
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "TLS hello": bytes.fromhex("16030100c8010000c40303") + b"r" * 32 + b"\0",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "noise": bytes(range(256)),
}  # fmt: skip
LARGE: dict[str, bytes] = {
    "one huge header": lines(b"X: " + b"a" * 90_000, b"Content-Length: 13"),
    "a huge name": lines(b"a" * 90_000 + b": x", b"Content-Length: 13"),
    "a huge target": b"POST /" + b"a" * 90_000 + b" HTTP/1.1\r\nHost: h\r\n" + SIZED,
    "many long headers": lines(*(b"X-%d: " % i + b"a" * 1000 for i in range(90)), b"Content-Length: 13"),
    "too many headers": lines(*(b"X-%d: a" % i for i in range(101)), b"Content-Length: 13"),
    "a head that never ends": TOP + b"X: " + b"a" * 300_000,
}


def the_refusal(client: Client, engine: Engine, gateway: Gateway) -> int:
    """Read an error answer, after which the connection closes; the hidden request has not come out anywhere."""
    answer = client.read_answer()
    assert answer.header("connection") == "close"
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.header("x-request-id")
    assert client.ended(), client.unread
    with gateway.client() as other:
        assert other.ask(ask("m", extra="x-request-id: after\r\n")).status == 200
    assert [call.header("x-request-id") for call in engine.calls] == ["after"]
    assert engine.received.count(b"POST ") == 1
    return answer.status


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_refused_and_nothing_of_it_reaches_an_engine(
    name: str, client: Client, engine: Engine, gateway: Gateway
) -> None:
    client.send(MALFORMED[name] + HIDDEN)
    assert the_refusal(client, engine, gateway) in {400, 505}


@pytest.mark.parametrize("name", MALFORMED)
def test_the_same_byte_by_byte(name: str, client: Client, engine: Engine, gateway: Gateway) -> None:
    client.send_slowly(MALFORMED[name] + HIDDEN)
    assert the_refusal(client, engine, gateway) in {400, 505}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("step", [1_000_000, 997])
def test_a_head_past_its_bounds_is_431(
    name: str, step: int, client: Client, engine: Engine, gateway: Gateway
) -> None:
    client.send_slowly(LARGE[name] + HIDDEN, step=step)
    assert the_refusal(client, engine, gateway) == 431


def test_what_came_whole_before_a_malformed_request_is_answered(
    client: Client, engine: Engine, gateway: Gateway
) -> None:
    client.send(get("/livez") + ask("m") + MALFORMED["length, then chunked"] + HIDDEN)
    assert client.read_answer().json == {"status": "ok"}
    assert client.read_answer().json == ANSWER
    assert client.read_answer().status == 400
    assert client.ended()
    assert len(engine.calls) == 1


# Valid but unusual


def test_chunked_requests_with_extensions_and_trailers_work(client: Client, engine: Engine) -> None:
    body = b'{"model":"m","x":"' + b"y" * 50 + b'"}'
    chunks = b'5;a=b;c="d e"\r\n' + body[:5] + b"\r\n" + b"%X\r\n" % (len(body) - 5) + body[5:] + b"\r\n"
    trailers = b"0;last\r\nX-Checksum: 1\r\nHost: other\r\ntraceparent: late\r\nx-request-id: late\r\n\r\n"
    for send in (client.send, client.send_slowly):
        engine.reset()
        send(CHUNKED + chunks + trailers)
        assert client.read_answer().json == ANSWER
        (call,) = engine.calls
        assert call.body == body
        assert call.header("content-length") == str(len(body))
        assert call.header("transfer-encoding") is None
        assert call.header("traceparent") is None
        assert call.header("x-request-id") != "late"


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


@pytest.mark.parametrize("coding", [b"gzip", b"identity", b"gzip, chunked"])
def test_an_upgrade_does_not_loosen_the_framing(
    coding: bytes, client: Client, engine: Engine, gateway: Gateway
) -> None:
    client.send(TOP + UPGRADES["WebSocket"].encode() + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + HIDDEN)
    assert the_refusal(client, engine, gateway) == 400


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


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/v1/models", "/metrics"])
def test_head_is_get_without_its_body(path: str, client: Client) -> None:
    assert client.ask(get(path)).status == 200
    head = client.ask(get(path, method="HEAD"))
    assert head.status == 200
    assert int(head.header("content-length") or 0) > 10
    assert client.ask(get("/livez")).json == {"status": "ok"}


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/v1/models/none", 404), (CHAT, 405)])
def test_refusals_of_head_have_no_body_either(path: str, status: int, client: Client) -> None:
    assert client.ask(get(path, method="HEAD")).status == status
    assert client.ask(get("/livez")).json == {"status": "ok"}


NOWHERE = [
    "/", "/v1", "/v1/", "/v1/chat/completions/", "/v1/%2e%2e/metrics", "/v1/../metrics", "/v1/chat/../../metrics", "//metrics",
    "/v1/chat%2fcompletions", "/V1/chat/completions", "/v1/chat/completions;x=1", "/v1/chat/completions%00", "/slots", "/props",
    "/v1/load_lora_adapter", "/tokenize", "/livez/", "/v1//chat/completions",
]  # fmt: skip


@pytest.mark.parametrize("path", NOWHERE)
def test_only_known_paths_exist_exactly_as_known(path: str, client: Client, engine: Engine) -> None:
    for request in (post({"model": "m"}, path=path), get(path)):
        answer = client.ask(request)
        assert answer.status == 404
        assert answer.error["code"] in {"unknown_url", "model_not_found"}
    assert not engine.received


@pytest.mark.parametrize("name", ["%2e%2e/metrics", "..", "../../metrics", "%00", "%ff", "m/", "m%2f"])
def test_model_ids_are_names_not_paths(name: str, client: Client) -> None:
    answer = client.ask(get(f"/v1/models/{name}"))
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


def test_query_strings_are_taken_off(client: Client, engine: Engine) -> None:
    assert client.ask(ask("m", path=CHAT + "?api-version=1&x=/v1/models")).json == ANSWER
    assert client.ask(get("/livez?x=y")).status == 200
    assert [call.path for call in engine.calls] == [CHAT]


def test_a_body_past_its_bound_is_413_by_its_length_before_it_comes(client: Client, engine: Engine) -> None:
    client.send(TOP + b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1))
    answer = client.read_answer()
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert client.ended()
    assert not engine.received


def test_a_body_at_its_bound_is_taken(client: Client, engine: Engine) -> None:
    body = b'{"model":"m","x":"'.ljust(MAX_BODY_BYTES - 2, b"y") + b'"}'
    assert client.ask(post(body)).status == 200
    assert engine.calls[0].body == body


def test_a_body_past_its_bound_is_413_by_its_growth(client: Client, engine: Engine) -> None:
    client.send(CHUNKED)
    client.send_slowly((b"400\r\n" + b"x" * 1024 + b"\r\n") * 1000, step=10_000)
    assert client.read_answer().status == 413
    assert client.ended()
    assert not engine.received


def test_413_is_said_in_the_clients_own_shape_and_with_its_id(client: Client) -> None:
    client.send(
        b"POST /v1/messages HTTP/1.1\r\nHost: h\r\nx-request-id: mine\r\nContent-Length: %d\r\n\r\n" % 10**6
    )
    answer = client.read_answer()
    assert (answer.status, answer.error["type"]) == (413, "request_too_large")
    assert answer.json["type"] == "error"
    assert answer.header("x-request-id") == "mine"


ENDLESS = {
    "trailers": (b"0\r\n", b"traceparent: " + b"a" * 1000 + b"\r\n"),
    "a trailer": (b"0\r\ntraceparent: ", b"a" * 1000),
    "a chunk extension": (b"1;", b"a" * 1000),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_framing_without_end_is_refused(name: str, client: Client, gateway: Gateway) -> None:
    start, more = ENDLESS[name]
    before = gateway.rss_bytes()
    client.send_slowly(CHUNKED + start + more * 20_000, step=100_000)
    assert client.read_answer().status == 431
    assert gateway.rss_bytes() - before < 3_000_000


def test_a_compressed_body_is_415(client: Client, engine: Engine) -> None:
    answer = client.ask(ask("m", extra="Content-Encoding: gzip\r\n"))
    assert (answer.status, answer.error["code"]) == (415, "unsupported_encoding")
    assert not engine.received


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", CHAT, "POST"), ("DELETE", CHAT, "POST"), ("OPTIONS", CHAT, "POST"), ("POST", "/v1/models", "GET, HEAD"),
     ("PUT", "/metrics", "GET, HEAD"), ("DELETE", "/v1/models/m", "GET, HEAD"), ("POST", "/livez", "GET, HEAD")],
)  # fmt: skip
def test_a_wrong_method_is_405_with_allow(
    method: str, path: str, allow: str, client: Client, engine: Engine
) -> None:
    answer = client.ask(get(path, method=method, extra="Content-Length: 0\r\n"))
    assert (answer.status, answer.header("allow")) == (405, allow)
    assert client.ask(get("/livez")).status == 200
    assert not engine.received


BODIES: dict[str, tuple[bytes, int, str | None, str | None]] = {
    "empty": (b"", 400, "invalid_json", None),
    "no JSON": (b"model=m", 400, "invalid_json", None),
    "cut short": (b'{"model":"m"', 400, "invalid_json", None),
    "not an object": (b"[1]", 400, "invalid_type", None),
    "null": (b"null", 400, "invalid_type", None),
    "no model": (b"{}", 400, "missing_required_parameter", "model"),
    "model of the wrong type": (b'{"model":7}', 400, "invalid_type", "model"),
    "stream of the wrong type": (b'{"model":"m","stream":"yes"}', 400, "invalid_type", "stream"),
    "unknown model": (b'{"model":"other"}', 404, "model_not_found", "model"),
    "nested beyond reason": (
        b'{"model":"m","x":' + b"[" * 9000 + b"]" * 9000 + b"}",
        400,
        "invalid_json",
        None,
    ),
    "broken UTF-8": (b'{"model":"m","x":"\xff"}', 400, "invalid_json", None),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_wrong_body_is_refused_and_the_connection_stays(name: str, client: Client, engine: Engine) -> None:
    body, status, code, param = BODIES[name]
    answer = client.ask(post(body))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, param)
    assert answer.error["type"] == "invalid_request_error"
    assert not engine.received
    assert client.ask(get("/livez")).status == 200


@pytest.mark.parametrize("name", BODIES)
def test_errors_under_messages_have_anthropics_shape(name: str, client: Client) -> None:
    body, status, _, _ = BODIES[name]
    answer = client.ask(post(body, path="/v1/messages"))
    assert answer.status == status
    kind = {400: "invalid_request_error", 404: "not_found_error"}[status]
    assert answer.json == {"type": "error", "error": {"type": kind, "message": answer.error["message"]}}


def test_nesting_just_below_the_bound_never_breaks_a_connection(engine: Engine, gateway: Gateway) -> None:
    async def answer(call: Call) -> None:
        call.send(whole(ANSWER))

    engine.answer = answer
    for depth in range(930, 1010, 2):
        body = b'{"model":"m","x":' + b"[" * depth + b"]" * depth + b"}"
        with gateway.client() as client:
            assert client.ask(post(body)).status in {200, 400}


def test_nothing_above_was_a_bug(gateway: Gateway) -> None:
    assert gateway.metric("freehold_bugs_total") == 0
    wait_until(
        lambda: gateway.metric("freehold_gateway_connections") == 1, what="every connection to be closed"
    )
    assert gateway.metric("freehold_gateway_in_flight") == 0
