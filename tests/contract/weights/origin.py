"""A real HTTP server on loopback that serves files to the weight store and misbehaves on request.

It counts requests and body bytes, so that a test can say what was fetched, and can hold a response in the middle,
so that a test can act there.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK_BYTES = 1 << 14


@dataclass
class Origin:
    """The files, what goes wrong with them, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    """Whether it honours Range."""
    chunked: bool = False
    """Whether bodies are sent in chunks, without a length."""
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Statuses with headers that the next GETs are answered with."""
    cuts: list[int] = field(default_factory=list)
    """After how many body bytes the next GETs are cut off."""
    headers: dict[str, str] = field(default_factory=dict)
    """Added to every answer; `Content-Length` and `Content-Range` replace the true ones."""
    hold_at: int | None = None
    """Body bytes after which every answer waits for `let_go`."""
    let_go: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    bodies: list[int] = field(default_factory=list)
    """Body bytes sent, per answer."""
    url: str = ""

    @property
    def sent_bytes(self) -> int:
        return sum(self.bodies)

    def gets(self) -> list[dict[str, str]]:
        return [headers for method, _, headers in self.requests if method == "GET"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    origin: Origin

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        origin = self.origin
        origin.requests.append((self.command, self.path, dict(self.headers.items())))
        if body and origin.failures:
            self._plain(*origin.failures.pop(0))
            return
        data = origin.files.get(self.path.partition("?")[0])
        if data is None:
            self._plain(404, {})
            return
        status, start = self._range(data)
        headers = {"Content-Length": str(len(data) - start)}
        if status == 416:
            headers = {"Content-Length": "0", "Content-Range": f"bytes */{len(data)}"}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if origin.chunked:
            headers = {"Transfer-Encoding": "chunked"}
        if tag := origin.etags.get(self.path.partition("?")[0]):
            headers["ETag"] = tag
        self._head(status, headers | origin.headers)
        if body and status != 416:
            self._send(data[start:])

    def _range(self, data: bytes) -> tuple[int, int]:
        asked = self.headers.get("Range")
        validator = self.headers.get("If-Range")
        if not asked or not self.origin.ranges:
            return 200, 0
        if validator and validator != self.origin.etags.get(self.path.partition("?")[0]):
            return 200, 0
        start = int(asked.removeprefix("bytes=").partition("-")[0])
        return (206, start) if start < len(data) else (416, len(data))

    def _plain(self, status: int, headers: dict[str, str]) -> None:
        self._head(status, {"Content-Length": "0"} | headers)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, data: bytes) -> None:
        origin = self.origin
        cut = origin.cuts.pop(0) if origin.cuts else None
        mine, sent_bytes = len(origin.bodies), 0
        origin.bodies.append(0)
        while sent_bytes < len(data) and (cut is None or sent_bytes < cut):
            if origin.hold_at is not None and sent_bytes >= origin.hold_at and not origin.let_go.wait(20):
                break
            block = data[sent_bytes : min(sent_bytes + BLOCK_BYTES, cut or len(data))]
            try:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if origin.chunked else block)
            except OSError:
                break
            sent_bytes += len(block)
            origin.bodies[mine] = sent_bytes
        if origin.chunked and sent_bytes == len(data):
            self.wfile.write(b"0\r\n\r\n")
        if sent_bytes < len(data) or "Content-Length" in origin.headers:
            self.close_connection = True


class Server(ThreadingHTTPServer):
    """Says nothing of clients that left: the tests end them on purpose."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free loopback port until the block ends; gives the base URL."""
    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving(origin: Origin) -> Iterator[Origin]:
    """Serve `origin` on a free loopback port until the block ends."""
    with running(type("Bound", (Handler,), {"origin": origin})) as origin.url:
        try:
            yield origin
        finally:
            origin.let_go.set()
