"""Engines' bytes without sockets: no exception, at most one answer to a client, and no cut that a client takes for an end."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_rig.client import Answer, Client, CutError, ask, post
from gateway_rig.engines import ANSWER, STREAM_HEAD, chunk, delta, event, whole
from gateway_rig.memory import MemoryClient, MemoryGateway, Wire
from gateway_rig.spoiling import PIECES, cut, fuzz, spoil

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
PARTS = (delta("a"), delta("b" * 40), delta("", "stop"),
         event({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": USAGE}), DONE)  # fmt: skip
EVENTS = b"".join(PARTS)
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
FRAMED = (
    whole(ANSWER | {"usage": USAGE}),
    JSON_HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk(b'{"choices":') + chunk(b"[]}") + b"0\r\n\r\n",
    STREAM_HEAD + b"".join(map(chunk, PARTS)) + b"0\r\n\r\n",
    STREAM_HEAD + chunk(EVENTS[:70]) + chunk(EVENTS[70:]) + b"0\r\nx: y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b" % (len(EVENTS), EVENTS),
    b"HTTP/1.1 100 Continue\r\n\r\n" + whole(ANSWER),
)  # fmt: skip
"""Answers whose framing says where they end."""
OTHERS = (
    JSON_HEAD + b"\r\n" + b'{"choices":[]}',
    b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + EVENTS,
    whole({"error": {"message": "no"}}, status=400),
    whole({"error": {"message": "busy"}}, status=503, extra="retry-after: 1\r\n"),
    b"HTTP/1.1 204 No Content\r\n\r\n",
)
BITS = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b";", b"0", b"-", b"\xff", b"\r\n\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n",
     b"-1\r\n", b"fffffffffffffffff\r\n", b"content-length: 5\r\n", b"content-length: 0\r\n", b"transfer-encoding: chunked\r\n",
     b"transfer-encoding: gzip\r\n", b"connection: close\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 101 X\r\n\r\n",
     b"HTTP/1.1 100 X\r\n\r\n" * 10, b"HTTP/2 ", b"data: [DONE]\n\n", b"data: ", b"x" * 70_000, b"X: y\r\n" * 3000]
) | st.binary(max_size=8)  # fmt: skip
STREAMING = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
USAGE_TOO = {"stream_options": {"include_usage": True}}
SIGNS = (
    b"[DONE]",
    b'"error"',
    b'"finish_reason":"',
    b'"finish_reason": "',
    b'"choices":[]',
    b'"choices": []',
)
"""What tells a client that an answer is over."""
ENDS: tuple[Exception | None, ...] = (None, ConnectionResetError())


class Transcript(Client):
    """What came on a connection, read strictly; `reset`: it ended in one."""

    def __init__(self, raw: bytes) -> None:
        self.unread = raw

    def _more(self) -> None:
        raise CutError(self.unread, reset=False)


class Engine:
    """An engine that answers each connection's first request with these bytes, in these pieces, and then ends."""

    def __init__(self, rig: MemoryGateway, pieces: list[bytes], *, end: tuple[Exception | None, ...]) -> None:
        self._rig = rig
        self._pieces = pieces
        self._end = end
        self.asked = 0
        rig.on_connect = self._connect

    def _connect(self, wire: Wire) -> None:
        wire.on_write = lambda: self._answer(wire)

    def _answer(self, wire: Wire) -> None:
        self.asked += 1
        wire.on_write = None
        self._step(wire, list(self._pieces))

    def _step(self, wire: Wire, pieces: list[bytes]) -> None:
        """Send one piece a turn, so that everything between two of them happens."""
        if pieces:
            wire.send(pieces.pop(0))
            wire.steps += 1
            self._rig.loop.call_soon(self._step, wire, pieces)
        elif self._end:
            wire.end(self._end[0])


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryGateway]:
    rig = MemoryGateway(monkeypatch)
    yield rig
    rig.close()
    assert not rig.gateway.connections


def converse(rig: MemoryGateway, request: bytes, engine: Engine) -> MemoryClient:
    """Ask once; return the client once nothing more happens."""
    rig.renew()
    client = rig.client()
    client.send(request)
    assert engine.asked
    return client


def the_answer(client: MemoryClient, *, until_close: bool = False) -> Answer | None:
    """Return what a strict client makes of what came: one whole answer, or None for one that was cut."""
    transcript = Transcript(bytes(client.wire.written))
    try:
        answer = transcript.read_answer()
    except CutError:
        return None
    assert not transcript.unread, f"more than one answer: {transcript.unread[:200]!r}"
    # Where a close is the only sign of the end, an answer may rest on it alone.
    framed = answer.header("content-length") is not None or answer.header("transfer-encoding") is not None
    assert framed or until_close or client.wire.closed
    return answer


ASKS = st.sampled_from([ask("m"), ask("m", stream=True)])
SECRET = b"/secret/path"
ODD_EVENTS = st.sampled_from(
    [*PARTS, *PARTS, delta("a").replace(b"\n", b"\r\n"), delta("a").replace(b"data: ", b"data:"), b"id: 1\nretry: 5\n" + delta("a"),
     DONE.strip(), b"data:[DONE]\r\n\r\n", b": " + DONE, b"event: x\n" + DONE, b": ping\n\n", b":\n\n", b"\n\n", b"\r", b"data\n\n", b"data: \n\n",
     b"data: null\n\n", b"data: {\n\n", b"data: {\ndata: }\n\n", b"\xef\xbb\xbf" + delta("a"), b"data: \xff\0\n\n", b"data: " + b"x" * 70_000 + b"\n\n",
     b'data: {"choices":[]}\n\n', b'data: {"usage":null}\n\n', event({"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": 1e99}}),
     b'data: {"error":{"message":"%b","code":500}}\n\n' % SECRET, b'event: error\ndata: {"error":{"message":"%b","code":500}}\n\n' % SECRET,
     b'id: 1\ndata: {"error":{"message":"%b","code":500}}\n\n' % SECRET,
     b'error: {"code":500,"message":"%b"}\n\n' % SECRET, b'data: {"object":"error","message":"%b","code":500}\n\n' % SECRET]
)  # fmt: skip
"""Events as engines send them and as none should; an error of an engine's own names a path of its machine."""


@fuzz(300)
@given(which=st.integers(0, len(FRAMED) - 1), places=PIECES, request=ASKS)
def test_whole_answers_come_whole_wherever_they_are_cut(
    rig: MemoryGateway, which: int, places: list[int], request: bytes
) -> None:
    engine = Engine(rig, cut(FRAMED[which], places), end=())
    client = converse(rig, request, engine)
    answer = the_answer(client)
    assert answer is not None
    assert answer.status == 200
    assert client.at_rest
    assert (DONE in answer.body) == (DONE in FRAMED[which])
    client.leave()


@fuzz(500)
@given(which=st.integers(0, len(FRAMED) - 1), share=st.floats(0, 0.9999), places=PIECES, request=ASKS,
       end=st.sampled_from(ENDS))  # fmt: skip
def test_a_cut_is_never_taken_for_an_end(
    rig: MemoryGateway, which: int, share: float, places: list[int], request: bytes, end: Exception | None
) -> None:
    given_ = FRAMED[which][: int(share * len(FRAMED[which]))]
    client = converse(rig, request, Engine(rig, cut(given_, places), end=(end,)))
    answer = the_answer(client)
    assert client.at_rest
    if answer is not None and answer.status == 200:
        # The last event came, and only the end of the framing is missing; else the stream says itself that it failed.
        assert DONE in given_ or b'"error"' in answer.body
        assert DONE in given_ or DONE not in answer.body
    client.leave()


@fuzz(600)
@given(which=st.integers(0, len(FRAMED + OTHERS) - 1), places=PIECES, request=ASKS, data=st.data(),
       end=st.sampled_from(ENDS))  # fmt: skip
def test_spoiled_answers(
    rig: MemoryGateway, which: int, places: list[int], request: bytes, data: st.DataObject,
    end: Exception | None,
) -> None:  # fmt: skip
    raw = data.draw(spoil((FRAMED + OTHERS)[which], BITS))
    client = converse(rig, request, Engine(rig, cut(raw, places), end=(end,)))
    the_answer(client)
    assert client.at_rest
    client.leave()


@fuzz(500)
@given(events=st.lists(ODD_EVENTS, max_size=8), whole_chunks=st.booleans(), ends=st.booleans(), places=PIECES,
       usage=st.booleans(), end=st.sampled_from(ENDS))  # fmt: skip
def test_streams_of_odd_events(
    rig: MemoryGateway, events: list[bytes], places: list[int], end: Exception | None,
    *, whole_chunks: bool, ends: bool, usage: bool,
) -> None:  # fmt: skip
    """One answer, nothing of what is the engine's own, and no end that a client does not see."""
    sent = b"".join(events)
    body = b"".join(map(chunk, events if whole_chunks else [sent] * bool(sent)))
    raw = STREAM_HEAD + body + b"0\r\n\r\n" * ends
    client = converse(
        rig, post(STREAMING | USAGE_TOO if usage else STREAMING), Engine(rig, cut(raw, places), end=(end,))
    )
    answer = the_answer(client)
    assert client.at_rest
    if answer is not None:
        # What is not an event may pass as it came.
        assert SECRET not in answer.body or not all(each.endswith((b"\n\n", b"\r\n\r\n")) for each in events)
        assert answer.status in {200, 502, 503}
        assert answer.status != 200 or any(sign in answer.body for sign in SIGNS) or PARTS[3] in events
    client.leave()


@fuzz(300)
@given(raw=st.binary(max_size=400), places=PIECES, request=ASKS, end=st.sampled_from(ENDS))
def test_noise(
    rig: MemoryGateway, raw: bytes, places: list[int], request: bytes, end: Exception | None
) -> None:
    client = converse(rig, request, Engine(rig, cut(raw, places), end=(end,)))
    answer = the_answer(client)
    assert answer is not None
    assert answer.status in {502, 503}
    assert client.at_rest
    client.leave()


@fuzz(200)
@given(which=st.integers(0, len(FRAMED) - 1), share=st.floats(0, 1), places=PIECES, request=ASKS)
def test_a_client_that_leaves_ends_the_engines_work(
    rig: MemoryGateway, which: int, share: float, places: list[int], request: bytes
) -> None:
    """After an unfinished answer its connection is closed, after a whole one it may be kept."""
    raw = FRAMED[which][: int(share * len(FRAMED[which]))]
    client = converse(rig, request, Engine(rig, cut(raw, places), end=()))
    client.leave()
    (wire,) = rig.engine_wires
    assert wire.closed or raw == FRAMED[which]
    assert client.connection.exchange is None
