"""Framing at the front: a malformed request ends there, and nothing of it or behind it reaches an engine.

A real gateway process stands in front of an engine that keeps every byte it gets. Each malformed request is followed by
a well-formed one that a careless parser would find behind it; it must never come out at the engine.
"""

import pytest

from gateway_rig.client import Client, ask, get
from gateway_rig.engines import ANSWER, Engine
from gateway_rig.malformed import BODY, CHUNKED, HIDDEN, LINE, SIZED, TOP, lines
from gateway_rig.process import Gateway
from waiting import wait_until

HOSTS = [
    b"a b",
    b"u@h",
    b"h/x",
    b"h,i",
    b"h:99999",
    b"h:-1",
    b"h:8o",
    b"h:80:80",
    b":80",
    b"[::1",
    b"::1",
    b"h?x",
    b"h#x",
    b"h\\x",
]
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
    "absolute form of another scheme": b"POST ftp://h/v1/chat/completions HTTP/1.1\r\nHost: h\r\n" + SIZED,
    "absolute form with a user": b"POST http://u@h/v1/chat/completions HTTP/1.1\r\nHost: h\r\n" + SIZED,
    "absolute form without a host": b"POST http:///v1/chat/completions HTTP/1.1\r\nHost: h\r\n" + SIZED,
    "absolute form without a Host field": b"POST http://h/v1/chat/completions HTTP/1.1\r\n" + SIZED,
    "authority form": b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
    "asterisk form": b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "no slash": b"POST v1/chat/completions HTTP/1.1\r\nHost: h\r\n" + SIZED,
    "non-ASCII target": b"POST /v1/\xff HTTP/1.1\r\nHost: h\r\n" + SIZED,
    "NUL in the target": b"POST /v1/\0 HTTP/1.1\r\nHost: h\r\n" + SIZED,
    "tab in the target": b"POST /v1/a\tb HTTP/1.1\r\nHost: h\r\n" + SIZED,
    # RFC 9110 7.2 and RFC 3986 3.2: a host and perhaps a port; a user or a list is not one
    **{f"Host: {value.decode()}": LINE + b"Host: " + value + b"\r\n" + SIZED for value in HOSTS},
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
    # RFC 6585 5: a single field may be too large, not only all of them together
    "a value of 64 KiB": lines(b"X: " + b"a" * 65_536, b"Content-Length: 13"),
    "a value of 17 KiB": lines(b"X: " + b"a" * 17_408, b"Content-Length: 13"),
    "a name of 32 KiB": lines(b"a" * 32_768 + b": x", b"Content-Length: 13"),
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


@pytest.mark.parametrize("coding", [b"gzip", b"identity", b"gzip, chunked"])
def test_an_upgrade_does_not_loosen_the_framing(
    coding: bytes, client: Client, engine: Engine, gateway: Gateway
) -> None:
    client.send(
        TOP
        + b"Connection: upgrade\r\nUpgrade: websocket\r\n"
        + b"Transfer-Encoding: "
        + coding
        + b"\r\n\r\n"
        + HIDDEN
    )
    assert the_refusal(client, engine, gateway) == 400


def test_what_came_whole_before_a_malformed_request_is_answered(
    client: Client, engine: Engine, gateway: Gateway
) -> None:
    client.send(get("/livez") + ask("m") + MALFORMED["length, then chunked"] + HIDDEN)
    assert client.read_answer().json == {"status": "ok"}
    assert client.read_answer().json == ANSWER
    assert client.read_answer().status == 400
    assert client.ended()
    assert len(engine.calls) == 1


def test_nothing_above_was_a_bug(gateway: Gateway) -> None:
    assert gateway.metric("freehold_bugs_total") == 0
    wait_until(
        lambda: gateway.metric("freehold_gateway_connections") == 1, what="every connection to be closed"
    )
    assert gateway.metric("freehold_gateway_in_flight") == 0
