"""Mutated requests against a real gateway process: it never dies, never hangs, never has a bug, and what reaches the engine is whole."""

import contextlib
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_rig.client import Client, CutError, ask, get, post
from gateway_rig.engines import Engine, Engines
from gateway_rig.process import Gateway, model, running
from gateway_rig.spoiling import PIECES, cut, fuzz, spoil
from waiting import wait_until

QUIET_S = 0.02
"""No answer for so long: the gateway waits for more, and the client goes."""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engines = Engines()
    yield engines.new()
    engines.stop()


@pytest.fixture(scope="module")
def gateway(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("fuzz"), [model("m", engine)], max_body_bytes=5000) as gateway:
        yield gateway
        assert gateway.metric("freehold_bugs_total") == 0
        wait_until(lambda: gateway.metric("freehold_gateway_in_flight") == 0)


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n"
VALID = [
    ask("m"), ask("m", stream=True), ask("m", path="/v1/messages"), ask("none"), ask("m", extra="Expect: 100-continue\r\n"),
    ask("m", extra="Connection: Upgrade\r\nUpgrade: h2c\r\n"), ask("m", version="1.0"), post(b"[" * 200), post(b"x" * 6000),
    HEAD + b'Transfer-Encoding: chunked\r\n\r\n6;a=b\r\n{"mode\r\n7\r\nl":"m"}\r\n0\r\nX: y\r\n\r\n', get("/livez"), get("/v1/models/m"),
    get("/metrics?x=1"), get("/v1/%2e%2e/metrics", extra="Content-Length: 3\r\n") + b"abc",
]  # fmt: skip
BITS = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"-", b"\xff", b"\r\n\r\n", b"0\r\n\r\n", b"HTTP/1.0", b"HTTP/2.0",
     b"Host: x\r\n", b"Content-Length: 5\r\n", b"content-length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
     b"Upgrade: x\r\nConnection: upgrade\r\n", b"GET ", b"CONNECT ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"/", b"%", b"a" * 5000]
) | st.binary(max_size=8)  # fmt: skip


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """Give a few requests in a row, with some places cut out, doubled or filled in."""
    return draw(spoil(b"".join(draw(st.lists(st.sampled_from(VALID), min_size=1, max_size=3))), BITS))


NAMES = st.sampled_from(
    [b"Host", b"host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect", b"X"]
)
VALUES = st.sampled_from(
    [b"h", b"0", b"13", b"chunked", b"close", b"keep-alive", b"upgrade", b"100-continue", b"gzip", b""]
)


@st.composite
def built(draw: st.DrawFn) -> bytes:
    """Give a request of well-formed lines that need not make sense together."""
    first = b" ".join(
        (
            draw(st.sampled_from([b"POST", b"GET", b"HEAD", b"CONNECT", b"OPTIONS"])),
            draw(st.sampled_from([b"/v1/chat/completions", b"/livez", b"*", b"http://h/livez", b"/"])),
            draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"])),
        )
    )
    lines = [b"%b: %b" % field for field in draw(st.lists(st.tuples(NAMES, VALUES), max_size=5))]
    body = draw(st.sampled_from([b"", b'{"model":"m"}', b'd\r\n{"model":"m"}\r\n0\r\n\r\n', ask("m")]))
    return b"\r\n".join((first, *lines, b"", b"")) + body


def converse(client: Client, data: bytes, places: list[int]) -> bytes:
    """Send in pieces, read what comes, leave when nothing more does; return all that came."""
    client.socket.settimeout(QUIET_S)
    try:
        for piece in cut(data, places):
            client.send(piece)
        return client.everything()
    except ConnectionError:  # refused before all was sent
        return client.everything()
    except TimeoutError:
        client.socket.settimeout(5)
        client.socket.shutdown(1)
        return client.everything()


class Transcript(Client):
    """What came on a connection that has ended."""

    def __init__(self, raw: bytes) -> None:
        self.unread = raw

    def _more(self) -> None:
        raise CutError(self.unread, reset=False)


def check_answers(raw: bytes) -> None:
    """Check that what came are answers of HTTP/1.1, one after the other, the last perhaps cut by the client's leaving."""
    transcript = Transcript(raw.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))
    with contextlib.suppress(CutError):
        while transcript.unread:
            assert transcript.unread[:9] == b"HTTP/1.1 "[: len(transcript.unread)]
            to_head = transcript.unread.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 ")
            transcript.read_answer(head_only=to_head)


def check_engine(engine: Engine) -> None:
    """Check that the engine got whole, canonical requests and nothing else."""
    for call in engine.calls:
        assert re.match(rb"POST /v1/((chat/)?completions|messages) HTTP/1\.1\r\nhost: 127", call.head)
        assert call.head.lower().count(b"content-length:") == 1
        assert call.header("content-length") == str(len(call.body))
        assert call.header("transfer-encoding") is None
        assert call.json["model"] == "m"
    assert not any(line.unread for line in engine.lines)
    engine.calls.clear()


def survives(gateway: Gateway, engine: Engine, data: bytes, places: list[int]) -> None:
    with gateway.client() as client:
        check_answers(converse(client, data, places))
    with gateway.client() as client:
        assert client.ask(get("/livez")).status == 200
    check_engine(engine)


@fuzz(150)
@given(data=spoiled(), places=PIECES)
def test_spoiled_requests(gateway: Gateway, engine: Engine, data: bytes, places: list[int]) -> None:
    survives(gateway, engine, data, places)


@fuzz(150)
@given(data=built(), places=PIECES)
def test_well_formed_lines_that_make_no_sense_together(
    gateway: Gateway, engine: Engine, data: bytes, places: list[int]
) -> None:
    survives(gateway, engine, data, places)


@fuzz(50)
@given(data=st.binary(max_size=300), places=PIECES)
def test_noise(gateway: Gateway, engine: Engine, data: bytes, places: list[int]) -> None:
    survives(gateway, engine, data, places)


def test_valid_requests_give_answers_here_too(gateway: Gateway, engine: Engine) -> None:
    """The checks above would pass on silence; this one would not."""
    for data in VALID:
        with gateway.client() as client:
            raw = converse(client, data, [])
        assert raw.startswith(b"HTTP/1.1 ")
        check_answers(raw)
    assert len(engine.calls) == 7
    check_engine(engine)
