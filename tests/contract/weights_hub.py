"""A stand-in for a Hugging Face hub: the part of its HTTP API that downloading one file needs, on loopback.

`HEAD` and `GET /{repo}/resolve/{revision}/{file}` with the hub's own headers for commit, ETag and errors; what a
hub answers was read from the client library's own code.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from contract.weights_origin import running

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = {"main", COMMIT}
PATH = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Hub:
    """One repository `org/repo` with files, and one that is gated."""

    files: dict[str, bytes]
    is_hub: bool = True
    """False: it answers files, but without a hub's headers."""
    get_status: int = 200
    """What GETs of files are answered with, if not as they should be."""
    cuts: list[int] = field(default_factory=list)
    """After how many body bytes the next GETs are cut off."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    sent_bytes: int = 0
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.hub.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        match = PATH.fullmatch(self.path)
        repo, revision, file = match.groups() if match else ("", "", "")
        if repo == "org/gated":
            self._error(403, "GatedRepo")
        elif repo != "org/repo":
            self._error(404, "RepoNotFound")
        elif revision not in REVISIONS:
            self._error(404, "RevisionNotFound")
        elif file not in self.hub.files:
            self._error(404, "EntryNotFound")
        elif self.command == "GET" and self.hub.get_status != 200:
            self._error(self.hub.get_status, "")
        else:
            self._file(self.hub.files[file])

    def _error(self, status: int, code: str) -> None:
        self._head(status, {"X-Error-Code": code, "X-Error-Message": code, "Content-Length": "0"})

    def _file(self, data: bytes) -> None:
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        headers = {"Content-Length": str(len(data) - start)}
        if self.hub.is_hub:
            headers |= {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._head(206 if asked else 200, headers)
        if self.command == "GET":
            self._body(data[start:])

    def _body(self, data: bytes) -> None:
        cut = self.hub.cuts.pop(0) if self.hub.cuts else len(data)
        self.wfile.write(data[:cut])
        self.hub.sent_bytes += len(data[:cut])
        self.close_connection = cut < len(data)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def serving_hub(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` on a free loopback port until the block ends."""
    with running(type("Bound", (Handler,), {"hub": hub})) as hub.url:
        yield hub
