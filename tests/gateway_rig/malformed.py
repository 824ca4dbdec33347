"""Requests written byte by byte, a hidden one that must never come out at the engine."""

from gateway_rig.client import ask

MAX_BODY_BYTES = 20_000
HIDDEN = ask("m", extra="x-request-id: hidden\r\n")
BODY = b'{"model":"m"}'
LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
TOP = LINE + b"Host: h\r\n"
SIZED = b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = TOP + b"Transfer-Encoding: chunked\r\n\r\n"


def lines(*fields: bytes, body: bytes = BODY) -> bytes:
    return TOP + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body
