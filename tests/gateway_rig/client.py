"""A client made of bytes, strict in what it reads, and the requests that it sends."""

import contextlib
import json
import re
import socket
from dataclasses import dataclass, field
from typing import Any, Self, cast

import msgspec

TIMEOUT_S = 10.0
"""Longest wait for anything in these tests, seconds: far above what any step takes on a loaded machine."""
CHAT = "/v1/chat/completions"


class CutError(Exception):
    """The answer ended before its framing said so; `raw` is what came."""

    def __init__(self, raw: bytes, *, reset: bool) -> None:
        super().__init__(f"cut after {len(raw)} bytes{' by a reset' if reset else ''}")
        self.raw = raw
        self.reset = reset


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    interim: list[int] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self.json["error"])


class Client:
    """One connection to the gateway; strict in what it reads."""

    def __init__(self, port: int, *, receive_bytes: int = 0, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket.settimeout(TIMEOUT_S)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def leave(self) -> None:
        """Go away as a killed process does: with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_slowly(self, data: bytes, *, step: int = 1) -> None:
        """Send byte by byte; stops when the gateway has closed."""
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(data), step):
                self.send(data[at : at + step])

    def ask(self, data: bytes) -> Answer:
        self.send(data)
        return self.read_answer(head_only=data.startswith(b"HEAD "))

    def _more(self) -> None:
        try:
            data = self.socket.recv(262144)
        except ConnectionError as exc:
            raise CutError(self.unread, reset=True) from exc
        if not data:
            raise CutError(self.unread, reset=False)
        self.unread += data

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.unread:
            self._more()
        data, _, self.unread = self.unread.partition(mark)
        return data + mark

    def read_exactly(self, size: int) -> bytes:
        while len(self.unread) < size:
            self._more()
        data, self.unread = self.unread[:size], self.unread[size:]
        return data

    def read_head(self) -> Answer:
        lines = self.read_until(b"\r\n\r\n")[:-4].split(b"\r\n")
        assert re.fullmatch(rb"HTTP/1\.1 [1-5]\d\d [ -~]+", lines[0]), lines[0]
        headers = []
        for line in lines[1:]:
            found = re.fullmatch(rb"([!#-'*+.^_`|~0-9a-z-]+): ([ -~]*)", line)
            assert found, line
            headers.append((found[1].decode(), found[2].decode()))
        return Answer(int(lines[0][9:12]), headers)

    def read_answer(self, *, head_only: bool = False) -> Answer:
        answer, interim = self.read_head(), []
        while answer.status < 200:
            interim.append(answer.status)
            answer = self.read_head()
        answer.interim = interim
        if head_only:
            return answer
        length = answer.header("content-length")
        if answer.header("transfer-encoding"):
            assert length is None
            answer.body = b"".join(iter(self.read_chunk, b""))
        elif length is not None:
            answer.body = self.read_exactly(int(length))
        else:
            answer.body = self.read_to_end()
        return answer

    def read_chunk(self) -> bytes:
        """Return one chunk's data; nothing is the end, and whatever trailers it has are read."""
        size = int(self.read_until(b"\r\n").partition(b";")[0], 16)
        if not size:
            while self.read_until(b"\r\n") != b"\r\n":
                pass
            return b""
        data = self.read_exactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    def read_to_end(self) -> bytes:
        """Read until an orderly close; a reset raises CutError."""
        while True:
            try:
                self._more()
            except CutError as cut:
                if cut.reset:
                    raise
                data, self.unread = self.unread, b""
                return data

    def ended(self) -> bool:
        """Return whether the gateway closes (either way) without sending anything more."""
        with contextlib.suppress(CutError):
            self._more()
        return not self.unread

    def everything_now(self) -> bytes:
        """Return what has come so far, without waiting for more."""
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError, CutError):
            while True:
                self._more()
        return self.unread

    def everything(self) -> bytes:
        """Read until the connection ends in any way; return all that came."""
        with contextlib.suppress(CutError):
            while True:
                self._more()
        return self.unread


def get(path: str, *, method: str = "GET", extra: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode()


def post(value: object, *, path: str = CHAT, extra: str = "", version: str = "1.1") -> bytes:
    """Return a request with a JSON body; `extra` is header lines, each with CRLF."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return (
        f"POST {path} HTTP/{version}\r\nHost: h\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body
    )


def ask(
    name: str = "m", *, stream: bool = False, path: str = CHAT, extra: str = "", version: str = "1.1"
) -> bytes:
    """Return a small well-formed completion request."""
    body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    return post(body, path=path, extra=extra, version=version)
