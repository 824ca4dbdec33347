"""Heads that came before: known by every byte but the digits of their length, and only where they mean nothing unusual."""

import pytest

from freehold.gateway.server import head_cache
from freehold.gateway.server.head_cache import HeadCache
from freehold.gateway.server.request_ids import fresh_id_line
from freehold.gateway.wire.request import Request, take_header

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\nAccept: */*\r\n\r\n"


def whole(body: bytes, head: bytes = HEAD) -> bytes:
    return head % len(body) + body


def parsed(body: bytes, *headers: tuple[bytes, bytes]) -> Request:
    """Return a request as the parser leaves it."""
    request = Request()
    request.method, request.url, request.keep_alive = b"POST", b"/v1/chat/completions", True
    request.body, request.length_bytes = body, len(body)
    for name, value in headers:
        take_header(request, name, value)
    request.name(fresh_id_line)
    return request


def find(known: HeadCache, data: bytes) -> Request | None:
    """Return what a connection finds that has met no head yet."""
    head = known.find(data)
    return None if head is None else head.request(data)


@pytest.fixture
def known() -> HeadCache:
    known = HeadCache()
    known.learn(whole(b"12345"), parsed(b"12345"))
    return known


def test_a_known_head_is_known_with_a_body_of_any_length(known: HeadCache) -> None:
    for body in (b"12345", b"", b"x" * 3000, b"\r\n\r\nContent-Length: 7\r\n"):
        found = find(known, whole(body))
        assert found is not None
        assert (found.body, found.path, found.method) == (body, "/v1/chat/completions", b"POST")
        assert found.keep_alive
        assert found.id_line.startswith(b"x-request-id: req-")
    assert len({find(known, whole(b"")).id_line for _ in range(3)}) == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("at", [b"Host", b"Accept"])
def test_a_key_that_a_gateway_without_keys_is_shown_does_not_make_a_head_new(at: bytes) -> None:
    """SDKs always send a key, and such a gateway does not read it."""
    known = HeadCache()
    heads = [
        HEAD.replace(at, b"Authorization: Bearer fh-%b\r\n%b" % (bytes([letter]) * 40, at))
        for letter in b"ab"
    ]
    known.learn(whole(b"12345", heads[0]), parsed(b"12345"))
    for head in heads:
        found = find(known, whole(b"1234567890", head))
        assert found is not None
        assert (found.body, found.key_digest) == (b"1234567890", None)
    assert find(known, whole(b"", heads[0].replace(b"aa", b"a:", 1))) is None


@pytest.mark.parametrize(
    "data",
    [
        whole(b"12345")[:-1],
        whole(b"12345") + b"P",
        whole(b"12345").replace(b"*/*", b"*/ *"),
        whole(b"12345").replace(b": 5", b": +5"),
        whole(b"12345").replace(b": 5", b":  5"),
        whole(b"12345").replace(b": 5", b": 5 "),
        whole(b"12345").replace(b": 5", b": "),
        whole(b"12345").replace(b": 5", b": 0000000005"),
        whole(b"12345").replace(b": 5\r\n", b": 5\r\n "),
        whole(b"12345").replace(b"Content-Length: 5\r\n", b""),
        whole(b"12345").replace(b"Host: h\r\nContent-Length: 5\r\n", b"Content-Length: 5\r\nHost: h\r\n"),
        whole(b"12345").replace(b"Host", b"Content-Length: 5\r\nHost"),
        b"\r\n" + whole(b"12345"),
        b"",
        b"\r\n\r\n",
    ],
)
def test_anything_else_is_for_the_parser(known: HeadCache, data: bytes) -> None:
    assert find(known, data) is None
    met = known.find(whole(b"12345"))
    assert met is not None
    assert met.request(data) is None


@pytest.mark.parametrize(
    "header",
    [
        (b"x-request-id", b"one"),
        (b"traceparent", b"00-1-2-3"),
        (b"transfer-encoding", b"chunked"),
        (b"expect", b"100-continue"),
        (b"content-encoding", b"gzip"),
        (b"origin", b"http://localhost"),
        (b"x-freehold-timeout", b"3"),
        (b"x-freehold-fallback", b"never"),
    ],
)
def test_what_means_anything_unusual_is_not_kept(header: tuple[bytes, bytes]) -> None:
    known = HeadCache()
    known.learn(whole(b"12345"), parsed(b"12345", header))
    assert find(known, whole(b"12345")) is None


def test_only_as_many_are_kept_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_cache, "HEADS_MAX", 3)
    known, heads = HeadCache(), [HEAD.replace(b"h\r\n", b"h%d\r\n" % n, 1) for n in range(4)]
    for head in heads:
        known.learn(whole(b"12345", head), parsed(b"12345"))
    assert "<HeadCache 1>" in repr(known)


def test_a_long_head_is_not_kept() -> None:
    known, head = HeadCache(), HEAD.replace(b"*/*", b"a" * head_cache.HEAD_BYTES_MAX)
    known.learn(whole(b"12345", head), parsed(b"12345"))
    assert find(known, whole(b"12345", head)) is None
