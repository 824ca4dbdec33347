"""Engines' bytes without sockets: no exception, at most one answer to a client, and no cut that a client takes for an end."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_rig.client import Answer, Client, CutError, ask
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
