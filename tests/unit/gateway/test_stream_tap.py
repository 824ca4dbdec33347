"""The usage chunk is taken out exactly, wherever the bytes are cut, and an answer is written down before it ends."""

import itertools
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from freehold.gateway.answers.stream_tap import StreamTap, WholeTap, tap_for
from freehold.gateway.answers.usage import Usage
from freehold.gateway.exchange.upstream import UpstreamConnection
from freehold.gateway.wire.body import BodyFields, ask_usage, read_body
from freehold.gateway.wire.frame import ChunkedFrame
from freehold.gateway.wire.headers import AnswerHead, read_head
from freehold.gateway.wire.request import Request
from gateway_rig.engines import chunk, delta, event

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHAT = "/v1/chat/completions"
DONE = b"data: [DONE]\n\n"
USAGE = {
    "prompt_tokens": 31,
    "completion_tokens": 5,
    "total_tokens": 36,
    "prompt_tokens_details": {"cached_tokens": 30},
}
USAGE_EVENT = event({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": USAGE})
NASTY = (
    "a",
    " the",
    '"prompt_tokens"',
    '"usage":{',
    "data: [DONE]\n\n",
    "0\r\n\r\n",
    "}\n\n",
    "é✓",
    '"choices":[]',
    "\\",
)


@dataclass
class Listener:
    """What an exchange is to a connection, and a client that keeps its bytes."""

    request: Request
    got: bytes = b""
    noted_at: list[int] = field(default_factory=list)
    """How much the client had when the answer was written down."""
    over: bool = False
    passing: Any = None
    wants_payload = False
    engine_keeps_alive = True

    def takes_whole(self, _head: AnswerHead) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.got += data

    def on_head(self, _connection: UpstreamConnection, head: AnswerHead) -> None:
        self.passing, self.head = tap_for(
            head, self.request, write=self.write, on_last=lambda _: self.noted_at.append(len(self.got))
        )

    def on_body(self, data: bytes) -> None:
        self.passing.total_bytes += len(data)
        self.passing.last = data
        self.write(data)

    def on_end(self) -> None:
        self.over = True


class Place:
    """What a target and a transport are to a connection."""

    id = "m-0"

    def keep(self, _connection: UpstreamConnection) -> None: ...


def through(
    reads: list[bytes], *, hides: bool = True, path: str = CHAT, http11: bool = True, choices: int = 0
) -> Listener:
    """Pass what was read from an engine through its connection and a meter."""
    request = Request()
    request.choices = choices
    request.path, request.hides_usage, request.stream, request.http11 = path, hides, True, http11
    listener, connection = Listener(request), UpstreamConnection(cast("Any", Place()))
    connection.sink = cast("Any", listener)
    for data in reads:
        connection.data_received(data)
    return listener


def unchunked(data: bytes) -> bytes:
    frame = ChunkedFrame()
    used, pieces = frame.payload(data)
    assert frame.done
    assert used == len(data)
    return b"".join(pieces)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


places = st.lists(st.integers(0, 2**16), max_size=12)


@given(st.lists(st.sampled_from(NASTY), max_size=12), places, places, st.booleans(), st.booleans())
@example(["a"] * 12, [], [], True, False)
def test_what_a_caller_gets_who_did_not_ask(
    texts: list[str],
    chunk_cuts: list[int],
    read_cuts: list[int],
    one_by_one: bool,  # noqa: FBT001
    crlf: bool,  # noqa: FBT001
) -> None:
    events = [delta(text) for text in texts] + [delta("", "stop")]
    end = [USAGE_EVENT, DONE]
    if crlf:
        events, end = ([each.replace(b"\n\n", b"\r\n\r\n") for each in part] for part in (events, end))
    payload = b"".join(events + end)
    chunks = events + end if one_by_one else cut(payload, chunk_cuts)
    body = [chunk(each) for each in chunks if each] + [b"0\r\n\r\n"]
    reads = [HEAD, *body] if one_by_one else cut(HEAD + b"".join(body), read_cuts)
    listener = through(reads)
    assert unchunked(listener.got) == b"".join([*events, end[1]])
    assert listener.passing.usage == Usage(31, 30, 5)
    assert listener.over
    (noted_at,) = listener.noted_at
    assert b"\ndata: [DONE]" not in listener.got[:noted_at]


@given(st.lists(st.sampled_from(NASTY), max_size=8), places, st.booleans())
def test_a_caller_who_asked_gets_every_byte(texts: list[str], read_cuts: list[int], http11: bool) -> None:  # noqa: FBT001
    payload = b"".join([*map(delta, texts), USAGE_EVENT, DONE])
    listener = through(cut(HEAD + b"".join(map(chunk, (payload[:9], payload[9:]))) + b"0\r\n\r\n", read_cuts),
                       hides=False, http11=http11)  # fmt: skip
    assert (unchunked(listener.got) if http11 else listener.got) == payload
    assert listener.passing.usage == Usage(31, 30, 5)
    assert len(listener.noted_at) == 1


def test_reads_that_hold_whole_chunks_pass_as_they_are() -> None:
    body = b"".join(map(chunk, (delta("a"), delta("b"), DONE))) + b"0;x=y\r\ntrailer: 1\r\n\r\n"
    listener = through([HEAD, body])
    assert listener.got == body


def test_token_chunks_are_passed_on_after_one_look() -> None:
    listener = through([HEAD, *[chunk(delta("a"))] * 20])
    assert listener.passing.events == 1
    assert listener.passing.chunks == 19
    assert listener.passing.counted()[1] == 19, "the first event has the role and no token"


def test_a_chunk_of_two_events_is_looked_at_although_it_begins_as_usual() -> None:
    both = delta("a") + USAGE_EVENT
    same_length = delta("a" * (1 + len(both) - len(delta("a"))))
    assert len(same_length) == len(both)
    listener = through([HEAD, chunk(same_length), chunk(same_length), chunk(both), chunk(DONE), b"0\r\n\r\n"])
    assert unchunked(listener.got) == same_length * 2 + delta("a") + DONE


def test_usage_in_a_chunk_with_choices_is_read_and_not_hidden() -> None:
    last = event({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}], "usage": USAGE})
    listener = through([HEAD, chunk(last), chunk(DONE), b"0\r\n\r\n"], path="/v1/completions")
    assert unchunked(listener.got) == last + DONE
    assert listener.passing.end() == Usage(31, 30, 5)


def test_the_answers_of_one_request_that_have_a_usage_each_are_added_up() -> None:
    parts = [
        chunk(delta("a")),
        chunk(USAGE_EVENT),
        chunk(delta("b")),
        chunk(USAGE_EVENT),
        chunk(DONE),
        b"0\r\n\r\n",
    ]
    for choices, prompt in ((2, 31), (1, 62)):  # two answers to a prompt, or one to each of two
        listener = through([HEAD, *parts], choices=choices)
        assert unchunked(listener.got) == delta("a") + delta("b") + DONE
        assert listener.passing.end() == Usage(prompt, 30 if choices == 2 else 60, 10)
    assert through([HEAD, *parts]).passing.end() == Usage(
        31, 30, 5
    )  # an engine that counts all in the last one
    assert through([HEAD, *parts[:3]], choices=2).passing.end() == Usage(31, 30, 5)


def test_a_stream_with_a_length_loses_it_when_the_usage_chunk_is_taken_out() -> None:
    payload = delta("a") + USAGE_EVENT + DONE
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(payload)
    listener = through([head + payload])
    assert unchunked(listener.got) == delta("a") + DONE
    assert b"content-length" not in listener.head.start
    assert b"transfer-encoding: chunked" in listener.head.start
    old = through([head + payload], http11=False)
    assert old.got == delta("a") + DONE
    assert b"content-length" not in old.head.start_unchunked


def test_a_long_event_is_passed_on_and_its_end_is_still_read() -> None:
    said = {
        "type": "response.completed",
        "response": {"output": "x" * 200_000, "usage": {"input_tokens": 3, "output_tokens": 4}},
    }
    last = b"event: response.completed\n" + event(said)
    raw = HEAD + chunk(last) + b"0\r\n\r\n"
    reads = [raw[at : at + 16384] for at in range(0, len(raw), 16384)]
    for hides in (True, False):
        listener = through(reads, path="/v1/responses", hides=hides)
        assert unchunked(listener.got) == last
        assert listener.passing.usage == Usage(3, None, 4)
        assert len(listener.noted_at) == 1


def test_the_parts_of_an_anthropic_stream_are_put_together() -> None:
    start = event(
        {
            "type": "message_start",
            "message": {"usage": {"input_tokens": 1, "cache_read_input_tokens": 30, "output_tokens": 9}},
        }
    )
    listener = through([HEAD, chunk(start)], path="/v1/messages")
    assert listener.passing.usage == Usage(31, 30, None), (
        "what a beginning message says of its answer is no count"
    )
    end = event({"type": "message_delta", "usage": {"output_tokens": 2}})
    stop = b"event: message_stop\n" + event({"type": "message_stop"})
    listener = through([HEAD, chunk(start), chunk(b"event: message_delta\n" + end), chunk(stop), b"0\r\n\r\n"],
                       path="/v1/messages", hides=False)  # fmt: skip
    assert listener.passing.usage == Usage(31, 30, 2)
    assert len(listener.noted_at) == 1


def test_a_stream_that_ends_without_its_last_event_is_not_whole() -> None:
    listener = through([HEAD, chunk(delta("a")), b"0\r\n\r\n"])
    assert listener.over
    assert not listener.passing.ended
    assert listener.noted_at == []


@given(places, st.booleans())
def test_an_answer_that_is_no_stream_is_read_at_its_end(read_cuts: list[int], huge: bool) -> None:  # noqa: FBT001
    answer = (
        b'{"data":[' + b"0.5," * (40_000 if huge else 4) + b'0],"usage":{"prompt_tokens":7,"total_tokens":7}}'
    )
    raw = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
    listener = through(cut(raw + answer, read_cuts))
    assert isinstance(listener.passing, WholeTap)
    assert listener.got == answer
    assert listener.passing.usage == Usage(7, None, 0)
    assert listener.noted_at[0] < len(answer)


def body_of(asked: bytes, *, path: str = CHAT) -> tuple[bytes, bool]:
    request = Request()
    request.path, request.body = path, asked
    read = read_body(asked)
    assert isinstance(read, BodyFields)
    ask_usage(request, read.stream_options)
    return request.body, request.hides_usage


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (b'{"model":"m"}', b'{"stream_options":{"include_usage":true},"model":"m"}'),
        (b' {"model":"m","stream_options":null}', b'{"model":"m","stream_options":{"include_usage":true}}'),
        (b'{"model":"m","stream_options":{"include_usage":false,"x":1}}', b'{"model":"m","stream_options":{"include_usage":true,"x":1}}'),
        (b'{"model":"m","stream_options":{"continuous_usage_stats":true}}', b'{"model":"m","stream_options":{"include_usage":true}}'),
    ],
)  # fmt: skip
def test_usage_is_asked_for(asked: bytes, sent: bytes) -> None:
    assert body_of(asked) == (sent, True)


@pytest.mark.parametrize(
    "asked", [b'{"model":"m","stream_options":{"include_usage":true}}', b'{"model":"m","stream_options":7}']
)
def test_a_body_that_asks_already_or_asks_nonsense_stays(asked: bytes) -> None:
    assert body_of(asked) == (asked, False)


def test_only_where_there_is_such_an_option() -> None:
    assert body_of(b'{"model":"m"}', path="/v1/messages") == (b'{"model":"m"}', False)


def test_every_meter_is_one() -> None:
    assert isinstance(through([HEAD]).passing, StreamTap)
    assert read_head(HEAD[:-4]).event_stream
