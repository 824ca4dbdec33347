"""Message heads: what is read of an engine's answer, what passes to the client, what is sent to an engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.wire.frame import BadFramingError, ChunkedFrame, SizedFrame, UntilCloseFrame
from freehold.gateway.wire.headers import HEAD_BYTES_MAX, read_head, request_start, status_line


def head(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join((start, *lines))


FRAMINGS = {
    "chunked": ([b"Transfer-Encoding: chunked"], ChunkedFrame),
    "chunked, any case": ([b"transfer-encoding: CHUNKED"], ChunkedFrame),
    "sized": ([b"Content-Length: 5"], SizedFrame),
    "the same length twice": ([b"Content-Length: 5", b"content-length: 5"], SizedFrame),
    "chunked wins over a length": ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], ChunkedFrame),
    "until close": ([b"Content-Type: text/plain"], UntilCloseFrame),
    "no header at all": ([], UntilCloseFrame),
}


@pytest.mark.parametrize("name", FRAMINGS)
def test_the_framing_follows_from_the_head(name: str) -> None:
    lines, kind = FRAMINGS[name]
    assert type(read_head(head(*lines)).frame()) is kind


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_are_done_at_once(status: int) -> None:
    assert read_head(head(start=b"HTTP/1.1 %d X" % status)).frame().done


KEEP_ALIVE = {
    (b"HTTP/1.1 200 OK", b"X: y"): True,
    (b"HTTP/1.1 200 OK", b"Connection: close"): False,
    (b"HTTP/1.1 200 OK", b"Connection: Close"): False,
    (b"HTTP/1.1 200 OK", b"Connection: keep-alive, close"): False,
    (b"HTTP/1.0 200 OK", b"X: y"): False,
    (b"HTTP/1.0 200 OK", b"Connection: keep-alive"): True,
    (b"HTTP/1.1 200 OK", b"Connection: keep-alive"): True,
}


@pytest.mark.parametrize("case", KEEP_ALIVE)
def test_keep_alive(case: tuple[bytes, bytes]) -> None:
    assert read_head(head(case[1], start=case[0])).keep_alive is KEEP_ALIVE[case]


def test_a_stream_that_says_nothing_of_caches_is_not_cached() -> None:
    """WHATWG HTML 9.2.3: a stream of events is of the moment."""
    stream = b"Content-Type: text/event-stream; charset=utf-8"
    assert read_head(head(stream)).start.count(b"cache-control: no-cache\r\n") == 1
    assert b"cache-control: no-store\r\n" in read_head(head(stream, b"Cache-Control: no-store")).start
    assert read_head(head(stream, b"Cache-Control: no-store")).start.count(b"cache-control") == 1
    assert b"cache-control" not in read_head(head(b"Content-Type: application/json")).start


BAD = {
    "no HTTP": b"SSH-2.0-OpenSSH", "empty": b"", "HTTP/2": b"HTTP/2 200 OK", "HTTP/1.2": b"HTTP/1.2 200 OK",
    "no status": b"HTTP/1.1", "short status": b"HTTP/1.1 20 OK", "long status": b"HTTP/1.1 2000 OK", "word status": b"HTTP/1.1 abc OK",
    "signed status": b"HTTP/1.1 +20 OK", "status below 100": b"HTTP/1.1 099 X",
    "status with NUL": b"HTTP/1.1 200 O\0K", "bare LF in the status line": b"HTTP/1.1 200 OK\nX: y",
    "no colon": head(b"nonsense"), "no name": head(b": x"), "obs-fold": head(b"X: a", b" b"), "tab fold": head(b"X: a", b"\tb"),
    "space before colon": head(b"Content-Length : 5"), "tab before colon": head(b"Content-Length\t: 5"),
    "space in a name": head(b"Content Length: 5"),
    "bare LF in a value": head(b"Content-Type: a\nSet-Cookie: b"), "bare CR in a value": head(b"Content-Type: a\rSet-Cookie: b"),
    "NUL in a value": head(b"Content-Type: a\0b"), "empty line": head(b"", b"X: y"),
    "unknown coding": head(b"Transfer-Encoding: gzip"), "stacked coding": head(b"Transfer-Encoding: gzip, chunked"),
    "empty coding": head(b"Transfer-Encoding:"),
    "negative length": head(b"Content-Length: -1"), "signed length": head(b"Content-Length: +1"), "hex length": head(b"Content-Length: 0x1"),
    "length list": head(b"Content-Length: 1, 1"), "empty length": head(b"Content-Length:"), "huge length": head(b"Content-Length: " + b"9" * 19),
    "two lengths": head(b"Content-Length: 1", b"Content-Length: 2"), "length in other digits": head("Content-Length: ٣".encode()),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_broken_head_is_refused(name: str) -> None:
    with pytest.raises(BadFramingError):
        read_head(BAD[name])


@given(st.binary(max_size=80) | st.lists(st.binary(max_size=20), max_size=5).map(lambda parts: head(*parts)))
def test_any_bytes_give_a_clean_head_or_a_refusal(raw: bytes) -> None:
    try:
        read = read_head(raw)
    except BadFramingError:
        return
    assert 100 <= read.status <= 999
    for line in read.start.split(b"\r\n"):
        assert b"\r" not in line
        assert b"\n" not in line


def test_only_the_allow_list_passes_to_the_client() -> None:
    lines = [
        b"Content-Type:  text/event-stream; charset=utf-8 ", b"Server: llama.cpp", b"Access-Control-Allow-Origin: *",
        b"Keep-Alive: timeout=5", b"x-ratelimit-limit-requests: 5", b"Cache-Control: no-cache", b"Set-Cookie: a=b",
        b"OpenAI-Processing-Ms: 3", b"X-Request-Id: theirs",
    ]  # fmt: skip
    read = read_head(head(*lines))
    assert read.start == (
        b"HTTP/1.1 200 OK\r\n"
        b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nopenai-processing-ms: 3\r\n"
    )
    assert read.event_stream


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"7", 7.0), (b"Wed, 21 Oct 2026 07:28:00 GMT", None), (b"-1", None), (b"", None), (b"1.5", None)],
)
def test_retry_after_in_seconds_is_read(value: bytes, seconds: float | None) -> None:
    assert read_head(head(b"Retry-After: " + value)).retry_after_s == seconds


def test_the_clients_head_says_the_framing_that_the_client_can_follow() -> None:
    chunked, sized, open_ended = (
        read_head(head(*lines)) for lines in ([b"Transfer-Encoding: chunked"], [b"Content-Length: 5"], [])
    )
    assert chunked.start == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
    assert chunked.start_unchunked == b"HTTP/1.1 200 OK\r\n"
    assert sized.start_unchunked == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n"
    assert open_ended.start == b"HTTP/1.1 200 OK\r\n"


def test_an_unknown_status_still_has_a_status_line() -> None:
    assert status_line(200) == b"HTTP/1.1 200 OK\r\n"
    assert status_line(499) == b"HTTP/1.1 499 Client Closed Request\r\n"
    assert status_line(777) == b"HTTP/1.1 777 Status\r\n"


def test_the_engines_head_has_its_own_key_or_none() -> None:
    assert request_start("/v1/x", "127.0.0.1:9", "") == (
        b"POST /v1/x HTTP/1.1\r\nhost: 127.0.0.1:9\r\ncontent-type: application/json\r\ncontent-length: "
    )
    assert b"authorization: Bearer sk-1\r\n" in request_start("/v1/x", "h", "sk-1")


def test_the_bound_on_a_head_leaves_room_for_what_engines_send() -> None:
    assert HEAD_BYTES_MAX >= 8192
