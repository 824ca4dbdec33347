"""Clients' bytes without sockets, thousands of them a second: no exception, no request unanswered or answered twice,
bounded memory, and a request that two parsers could read differently ends the connection.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.events import PRIVATE_KEYS
from freehold.gateway.server.request_reader import HEAD_BYTES_MAX
from gateway_rig.client import Answer, Client, CutError, ask, get, post
from gateway_rig.engines import ANSWER, STREAM_HEAD, STREAMED, chunk, whole
from gateway_rig.keys import Keys
from gateway_rig.memory import MemoryClient, MemoryGateway, Wire
from gateway_rig.spoiling import PIECES, cut, fuzz, spoil

MAX_BODY_BYTES = 5000
HELD_BYTES_MAX = 400 * 1024
"""Far below what would hurt: one read of asyncio's (256 KiB), what may wait (64 KiB), and a body."""
MODES = ("open", "keys")
BODY = b'{"model":"m"}'


def joined(pairs: list[tuple[bytes, bytes]], *blanks: bytes) -> bytes:
    """Return a JSON object of keys and values as they are spelt."""
    before, behind = blanks or (b"", b"")
    each = [b'%b"%b"%b:%b%b' % (before, key, behind, before, value) for key, value in pairs]
    return b"{" + (behind + b",").join(each) + b"}"


class Transcript(Client):
    """What came on a connection, read strictly."""

    def __init__(self, raw: bytes) -> None:
        self.unread = raw

    def _more(self) -> None:
        raise CutError(self.unread, reset=False)


def answers(raw: bytes) -> list[Answer]:
    """Return the answers; nothing but whole answers may have come."""
    transcript, found = Transcript(raw), []
    while transcript.unread:
        # An answer to HEAD is a head alone: the next answer, or nothing, comes at once.
        rest = transcript.unread.partition(b"\r\n\r\n")[2]
        found.append(transcript.read_answer(head_only=not rest or rest.startswith(b"HTTP/1.1 ")))
    return found


class Engine:
    """An engine that answers every whole request at once and keeps what came."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.unread: dict[Wire, int] = {}

    def connect(self, wire: Wire) -> None:
        wire.on_write = lambda: self._look(wire)

    def _look(self, wire: Wire) -> None:
        data = bytes(wire.written[self.unread.get(wire, 0) :])
        head, border, rest = data.partition(b"\r\n\r\n")
        if not border:
            return
        (length,) = re.findall(rb"(?i)\r\ncontent-length: (\d+)", head)
        if len(rest) >= int(length):
            self.unread[wire] = self.unread.get(wire, 0) + len(head) + 4 + int(length)
            self.requests.append(data[: len(head) + 4 + int(length)])
            streams = b'"stream":true' in data.replace(b" ", b"")
            wire.send(STREAM_HEAD + chunk(STREAMED) + b"0\r\n\r\n" if streams else whole(ANSWER))

    def check(self) -> None:
        """Check that only whole, canonical requests came."""
        for request in self.requests:
            head = request.partition(b"\r\n\r\n")[0]
            assert re.match(rb"POST /v1/((chat/)?completions|messages) HTTP/1\.1\r\nhost: 127", head)
            assert b"transfer-encoding" not in head.lower()
            assert b"\nauthorization" not in head.lower()
        assert all(self.unread.get(wire, 0) == len(wire.written) for wire in self.unread)


class Front:
    """A gateway with its engine, new for each example, and a key where one is asked for."""

    def __init__(self, rig: MemoryGateway, bearer: str) -> None:
        self.rig = rig
        self.bearer = bearer
        self.engine = Engine()

    def converse(self, pieces: list[bytes]) -> MemoryClient:
        """Send the pieces one after another, as far as the gateway takes them."""
        self.engine = Engine()
        self.rig.on_connect = self.engine.connect
        self.rig.renew()
        client = self.rig.client()
        for piece in pieces:
            client.send(piece)
            assert client.held_bytes <= HELD_BYTES_MAX
            assert client.at_rest, f"it rests with something under way: {client.connection!r}"
        self.engine.check()
        return client


@pytest.fixture(params=MODES)
def front(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    keys = Keys(tmp_path)
    keys.add("caller", requests_per_minute=10**9, tokens_per_minute=10**9, concurrency=10**6)
    asked = request.param == "keys"
    rig = MemoryGateway(monkeypatch, max_body_bytes=MAX_BODY_BYTES, **(keys.settings if asked else {}))
    yield Front(rig, keys.bearer("caller") if asked else "")
    rig.close()
    assert not rig.gateway.connections


def valid(front: Front, number: int, kind: int) -> bytes:
    """Return a well-formed request with an id of its own."""
    extra = f"{front.bearer}X-Request-Id: id-{number}\r\n"
    chunked = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n{extra}Transfer-Encoding: chunked\r\n\r\n".encode()
    )
    kinds = (
        ask("m", extra=extra), ask("m", stream=True, extra=extra), ask("m", path="/v1/messages", extra=extra),
        ask("none", extra=extra), get("/livez", extra=extra), get("/v1/models/m", extra=extra),
        get("/none", extra=extra), post(b"[" * 200, extra=extra), post(b"x" * (MAX_BODY_BYTES - 10), extra=extra),
        chunked + b'6;a=b\r\n{"mode\r\n7\r\nl":"m"}\r\n0\r\nX: y\r\n\r\n',
        get("/livez", extra=extra + "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    )  # fmt: skip
    return kinds[kind % len(kinds)]


KINDS = st.lists(st.integers(0, 10), min_size=1, max_size=12)
BITS = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"-", b"\xff", b"\r\n\r\n", b"0\r\n\r\n",
     b"fffffffffffffffff\r\n", b"-1\r\n", b"1\r\n", b"HTTP/1.0", b"HTTP/2.0", b"Host: x\r\n", b"Content-Length: 5\r\n",
     b"content-length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
     b"Upgrade: x\r\nConnection: upgrade\r\n", b"Authorization: Bearer fh-x\r\n", b"X-Api-Key: \r\n", b"GET ", b"HEAD ",
     b"CONNECT ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"/", b"%", b"a" * 5000, b"X: y\r\n" * 120]
) | st.binary(max_size=8)  # fmt: skip
AMBIGUOUS = (
    b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: gzip\r\n\r\n", b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", b"Content-Length: -1\r\n\r\n",
    b"Content-Length: 0x3\r\n\r\nabc", b"Content-Length: 3, 3\r\n\r\nabc", b"Content-Length: \r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", b"Transfer-Encoding: chunked\r\n\r\n1\r\nab",
    b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", b"Transfer-Encoding: chunked\r\n\r\n0\n\n",
    b"Transfer-Encoding : chunked\r\n\r\n", b"X: a\r\n b\r\n\r\n", b"X\0: a\r\n\r\n", b"Host: other\r\n\r\n",
    b"X: " + b"a" * (2 * HEAD_BYTES_MAX) + b"\r\n\r\n", b"X: y\r\n" * 20_000 + b"\r\n",
)  # fmt: skip
"""Ends of heads after which nobody can say for sure where the next request begins, and heads without end."""


@fuzz(200)
@given(kinds=KINDS, places=PIECES)
def test_every_whole_request_is_answered_once_and_in_order(
    front: Front, kinds: list[int], places: list[int]
) -> None:
    data = b"".join(valid(front, number, kind) for number, kind in enumerate(kinds))
    client = front.converse(cut(data, places))
    found = answers(client.leave())
    assert [answer.header("x-request-id") for answer in found] == [f"id-{n}" for n in range(len(kinds))]
    assert len(front.engine.requests) == sum(kind in {0, 1, 2, 9} for kind in kinds)


@fuzz(400)
@given(kinds=KINDS, places=PIECES, data=st.data())
def test_spoiled_requests(front: Front, kinds: list[int], places: list[int], data: st.DataObject) -> None:
    sound = b"".join(valid(front, number, kind) for number, kind in enumerate(kinds))
    sent = data.draw(spoil(sound, BITS))
    client = front.converse(cut(sent, places))
    raw = client.leave().replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    ids = Counter(answer.header("x-request-id") or "" for answer in answers(raw))
    for name, count in ids.items():
        assert not name.startswith("id-") or count <= sent.count(name.encode()), f"{name} {count} times"


@fuzz(200)
@given(
    kinds=st.lists(st.integers(0, 10), max_size=3), which=st.integers(0, len(AMBIGUOUS) - 1), places=PIECES
)
def test_doubt_about_framing_ends_the_connection(
    front: Front, kinds: list[int], which: int, places: list[int]
) -> None:
    before = b"".join(valid(front, number, kind) for number, kind in enumerate(kinds))
    doubtful = f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n{front.bearer}".encode() + AMBIGUOUS[which]
    client = front.converse(cut(before + doubtful + valid(front, 99, 0), places))
    assert client.wire.half_closed or client.wire.closed
    found = answers(client.leave())
    assert [answer.header("x-request-id") for answer in found[:-1]] == [f"id-{n}" for n in range(len(kinds))]
    assert 400 <= found[-1].status < 500
    assert found[-1].header("connection") == "close"
    assert not any(b"id-99" in request for request in front.engine.requests)


@fuzz(200)
@given(data=st.binary(max_size=600), places=PIECES)
def test_noise(front: Front, data: bytes, places: list[int]) -> None:
    client = front.converse(cut(data, places))
    assert all(400 <= answer.status <= 505 for answer in answers(client.leave()))
    assert not front.engine.requests


@fuzz(200)
@given(kind=st.integers(0, 10), keep=st.integers(1, 400))
def test_what_is_not_whole_is_not_answered(front: Front, kind: int, keep: int) -> None:
    """A client that leaves within its request leaves nothing behind."""
    sent = valid(front, 0, kind)[:-1][:keep]
    client = front.converse([sent])
    assert all(answer.status >= 400 for answer in answers(client.leave()))
    assert not front.engine.requests


KEYS = st.sampled_from(
    [b"model", b"model", b"model", b"Model", b"MODEL", b"m\\u006fdel", b"\\u004dodel", b"mode\\u006C", b"x", b"messages", b"stream",
     b"max_tokens", b"n", b"prompt", b"stream_options", b"chat_template", b"priority", b"p\\u0072iority", b"Priority", b"id_slot", b"rid",
     b"\\u0000", b"\xc3\xa9", b"model ", b'\\"model\\"']
)  # fmt: skip
VALUES = st.recursive(
    st.sampled_from(
        [b'"m"', b'"m"', b'"other"', b'"model"', b"null", b"true", b"1", b"-0", b"1e999", b"01", b"1" * 400, b'"\\ud800"', b'"\\u006dodel"',
         b'"\\"model\\":\\"other\\""', b'"\\\\"', b'"\xff"', b"NaN", b"", b'"', b"[" * 1200, b'"\t"']
    ),
    lambda inner: st.lists(inner, max_size=3).map(lambda each: b"[" + b",".join(each) + b"]")
    | st.lists(st.tuples(KEYS, inner), max_size=3).map(joined),
    max_leaves=6,
)  # fmt: skip
BLANKS = st.sampled_from([b"", b"", b" ", b"\n", b"\t\r ", b"\x0b", b"/**/"])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Give an object with keys that are nearly the same, in every spelling, between blanks."""
    pairs = draw(st.lists(st.tuples(KEYS, VALUES), max_size=5))
    if draw(st.booleans()):
        pairs.insert(draw(st.integers(0, len(pairs))), (b"model", b'"m"'))
    return draw(BLANKS) + joined(pairs, draw(BLANKS), draw(BLANKS)) + draw(BLANKS)


@fuzz(400)
@given(body=bodies(), path=st.sampled_from(["/v1/chat/completions", "/v1/messages"]), places=PIECES)
def test_every_parser_finds_the_same_model_in_what_an_engine_gets(
    front: Front, body: bytes, path: str, places: list[int]
) -> None:
    """By the first key, by the last, and in any spelling, as Go reads it; and nothing that is the engine's own."""
    client = front.converse(cut(post(body, path=path, extra=front.bearer), places))
    (answer,) = answers(client.leave())
    assert answer.status in {200, 400, 404, 413, 429, 503}
    assert (answer.status == 200) == bool(front.engine.requests)
    for request in front.engine.requests:
        pairs = json.loads(request.partition(b"\r\n\r\n")[2], object_pairs_hook=list)
        assert [value for key, value in pairs if key.lower() == "model"] == ["m"]
        assert all(value is None for key, value in pairs if key in PRIVATE_KEYS)


NAMES = st.sampled_from(
    [b"Host", b"host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"Expect", b"X", b"Trailer", b"TE",
     b"Content-Length ", b"X\x00", b" X"]
)  # fmt: skip
FIELDS = st.sampled_from(
    [b"h", b"h:80", b"localhost", b"u@h", b"a b", b"h/", b"h,h", b"h:99999", b"13", b"0", b"+13", b"13, 13", b"0xd", b"chunked", b"Chunked",
     b"chunked;x", b"gzip, chunked", b"identity", b"close", b"keep-alive", b"100-continue", b"", b" 13", b"13 ", b"\x0b13"]
)  # fmt: skip
TARGETS = st.sampled_from(
    [b"/v1/chat/completions", b"http://h/v1/chat/completions", b"https://h:1/v1/chat/completions?x", b"http://u@h/v1/chat/completions",
     b"http:/v1/chat/completions", b"//h/v1/chat/completions", b"*", b"h:80", b"/v1/chat/completions#x", b"/v1/chat/completions?\r"]
)  # fmt: skip
SIZES = st.sampled_from(
    [
        b"d",
        b"D",
        b"0d",
        b"d;x=y",
        b"d ;x",
        b"0xd",
        b"ffffffffffffffff",
        b"1000000000000000d",
        b"-d",
        b"",
        b"d\n",
    ]
)
ENDS = st.sampled_from([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\n\n", b"0\r\n", b"", b"0;x\r\n\r\n"])


@st.composite
def heads_and_bodies(draw: st.DrawFn) -> bytes:
    """Give a request with any fields in any spelling, and a body that may or may not be what they say."""
    fields = draw(st.lists(st.tuples(NAMES, FIELDS), max_size=3)) + draw(
        st.sampled_from([[(b"Content-Length", b"13")], [(b"Transfer-Encoding", b"chunked")], []])
    )
    if draw(st.booleans()):
        fields.insert(0, (b"Host", b"h"))
    start = (
        b"POST "
        + draw(TARGETS)
        + draw(st.sampled_from([b" HTTP/1.1", b" HTTP/1.1", b" HTTP/1.0", b" HTTP/1.2", b"  HTTP/1.1"]))
    )
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]))
    chunked = draw(SIZES) + b"\r\n" + BODY + b"\r\n" + draw(ENDS)
    lines = b"".join(b"%b: %b%b" % (name, value, end) for name, value in fields)
    return start + b"\r\n" + lines + b"\r\n" + draw(st.sampled_from([BODY, chunked]))


@fuzz(400)
@given(request=heads_and_bodies(), places=PIECES)
def test_another_parser_reads_what_an_engine_gets_in_the_same_way(
    front: Front, request: bytes, places: list[int]
) -> None:
    """h11 is written by others, from the grammar of RFC 9112."""
    line, _, rest = request.partition(b"\r\n")
    client = front.converse(cut(line + b"\r\n" + front.bearer.encode() + rest, places))
    raw = client.leave().replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    assert all(answer.status in {200, 400, 404, 405, 413, 505} for answer in answers(raw))
    for got in front.engine.requests:
        theirs = h11.Connection(h11.SERVER)
        # Both spaces are one separator (RFC 9112 3: a recipient MAY take words for what blanks part).
        theirs.receive_data(request.replace(b"  HTTP/", b" HTTP/", 1))
        event = theirs.next_event()
        assert isinstance(event, h11.Request)
        assert (
            len([name for name, _ in event.headers if name == b"host"]) == 1 or event.http_version == b"1.0"
        )
        body = b""
        while isinstance(event := theirs.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        assert got.partition(b"\r\n\r\n")[2] == body


def test_without_its_key_nothing_passes(front: Front) -> None:
    """The checks above would pass on refusals alone; this one would not."""
    client = front.converse([valid(front, 0, 0), ask("m")])
    statuses = [answer.status for answer in answers(client.leave())]
    assert statuses == ([200, 401] if front.bearer else [200, 200])
