"""Message heads: an engine's answer head read once and kept, the client's answer head and the engine's request head built.

Pure, and cached where the same bytes come again and again. Of an engine's headers only those that mean something to a
client pass (an allow list): hop-by-hop fields, CORS grants, server names and a provider's own rate limits do not.
"""

from dataclasses import dataclass
from functools import lru_cache

from freehold.gateway.wire.frame import BadFramingError, BodyFrame, ChunkedFrame, SizedFrame, UntilCloseFrame

HEAD_BYTES_MAX = 32768
"""Longest head of an engine's answer, bytes. Source: our own bound; four times nginx's default buffer of 8 KiB."""

_PASSED = frozenset(
    {b"content-type", b"cache-control", b"retry-after", b"retry-after-ms", b"openai-processing-ms", b"openai-version",
     b"x-accel-buffering"}
)  # fmt: skip
_REASONS = {
    100: "Continue", 200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 304: "Not Modified",
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 413: "Content Too Large", 414: "URI Too Long", 415: "Unsupported Media Type", 422: "Unprocessable Content",
    429: "Too Many Requests", 431: "Request Header Fields Too Large", 499: "Client Closed Request",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Gateway Timeout", 505: "HTTP Version Not Supported", 529: "Overloaded",
}  # fmt: skip


# What a header name is made of. Source: RFC 9110 5.6.2, `token`.
_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

_PRINTABLE = bytes(range(32, 127))


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What the gateway needs of an engine's answer head."""

    status: int
    chunked: bool
    length_bytes: int | None
    """Content-Length; None: chunked, or until close."""
    keep_alive: bool
    event_stream: bool
    plain: bool
    """It is a 200, not a stream, and the connection is kept: as most answers that come whole."""
    retry_after_s: float | None
    start: bytes
    """The client's head for this answer, up to where per-request lines (id, date, connection) follow."""
    start_unchunked: bytes
    """The same for a client of HTTP/1.0, which gets the body without chunks and the end by a close."""

    def frame(self) -> BodyFrame:
        """Return a fresh follower of this answer's body."""
        if self.chunked:
            return ChunkedFrame()
        if self.length_bytes is not None or self.status in {204, 304}:
            return SizedFrame(self.length_bytes or 0)
        return UntilCloseFrame()


def may_become_head(raw: bytes) -> bool:
    """Return whether bytes without a blank line may be the beginning of an answer head."""
    return raw[:7] == b"HTTP/1."[: len(raw)] and raw.count(b"\n") == raw.count(b"\r\n")


@lru_cache(maxsize=512)
def read_head(raw: bytes) -> AnswerHead:
    """Return the answer head in `raw` (up to and without the blank line); raise BadFramingError on nonsense."""
    lines = raw.split(b"\r\n")
    if not len(lines) - 1 == raw.count(b"\r") == raw.count(b"\n") or b"\0" in raw:
        # A bare CR or LF inside a value that is passed on would be a header that the engine injects.
        raise BadFramingError("bare CR, LF or NUL in an engine's answer")
    version, status = _status_line(lines[0])
    fields = _Fields()
    for line in lines[1:]:
        fields.take(line)
    if fields.event_stream and not any(line.startswith(b"cache-control") for line in fields.passed):
        # A cache or proxy between here and the client that keeps a stream would deliver it late, or twice (WHATWG HTML 9.2.3).
        fields.passed.append(b"cache-control: no-cache\r\n")
    passed = status_line(status) + b"".join(fields.passed)
    keep_alive = b"close" not in fields.connection and (
        version == b"HTTP/1.1" or b"keep-alive" in fields.connection
    )
    return AnswerHead(
        status=status,
        chunked=fields.chunked,
        length_bytes=None if fields.chunked else fields.length_bytes,
        keep_alive=keep_alive,
        event_stream=fields.event_stream,
        plain=status == 200 and keep_alive and not fields.event_stream,
        retry_after_s=fields.retry_after_s,
        start=passed + fields.framing(),
        start_unchunked=passed + (b"" if fields.chunked else fields.framing()),
    )


def _status_line(line: bytes) -> tuple[bytes, int]:
    version, _, rest = line.partition(b" ")
    code = rest[:3]
    three_digits = len(code) == 3 and code.isdigit() and code[:1] != b"0" and rest[3:4] in {b"", b" "}
    if version not in {b"HTTP/1.1", b"HTTP/1.0"} or not three_digits:
        raise BadFramingError("not an HTTP/1.x answer")
    return version, int(code)


class _Fields:
    """The header fields of one answer, taken line by line."""

    def __init__(self) -> None:
        self.passed: list[bytes] = []
        self.chunked = False
        self.length_bytes: int | None = None
        self.connection: list[bytes] = []
        self.event_stream = False
        self.retry_after_s: float | None = None

    def take(self, line: bytes) -> None:
        name, colon, value = line.partition(b":")
        if not colon or not name or name.translate(None, _TOKEN):
            raise BadFramingError("bad header line in an engine's answer")
        name, value = name.lower(), value.strip(b" \t")
        # With a control character in it, a strict client would refuse the whole answer for a line it can do without.
        if name in _PASSED and not value.translate(None, _PRINTABLE):
            self.passed.append(b"%b: %b\r\n" % (name, value))
        if name == b"transfer-encoding":
            self._take_coding(value)
        elif name == b"content-length":
            self._take_length(value)
        elif name == b"connection":
            self.connection += [option.strip() for option in value.lower().split(b",")]
        elif name == b"content-type":
            self.event_stream = value.lower().startswith(b"text/event-stream")
        elif name == b"retry-after" and value.isdigit():
            self.retry_after_s = float(value)

    def framing(self) -> bytes:
        """Return the header line with the body's length or coding, or nothing."""
        if self.chunked:
            return b"transfer-encoding: chunked\r\n"
        return b"" if self.length_bytes is None else b"content-length: %d\r\n" % self.length_bytes

    def _take_coding(self, value: bytes) -> None:
        if value.lower() != b"chunked":
            raise BadFramingError("unknown transfer coding in an engine's answer")
        self.chunked = True

    def _take_length(self, value: bytes) -> None:
        # 18 digits: every length that fits in 63 bits, and none that could be a trick.
        if not value.isdigit() or len(value) > 18 or self.length_bytes not in {None, int(value)}:
            raise BadFramingError("bad Content-Length in an engine's answer")
        self.length_bytes = int(value)


@lru_cache(maxsize=128)
def status_line(status: int) -> bytes:
    """Return `HTTP/1.1 <status> <reason>` with CRLF."""
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n".encode()


def request_start(path: str, authority: str, api_key: str) -> bytes:
    """Return an engine's request head up to the number that is its body's length."""
    key = f"authorization: Bearer {api_key}\r\n" if api_key else ""
    head = f"POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n{key}content-length: "
    return head.encode()
