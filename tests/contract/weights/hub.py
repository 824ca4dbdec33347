"""A stand-in for a Hugging Face hub: the part of its HTTP API that downloading files needs, on loopback.

`HEAD` and `GET /{repo}/resolve/{revision}/{file}` with the hub's own headers for commit, ETag and errors, and
`GET /api/models/{repo}/revision/{revision}?blobs=true` with every file's size and hash; what a hub answers was read from
the client library's own code.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote

from contract.weights.origin import running

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = {"main", COMMIT}
LIST = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/?]+)(\?.*)?")
LARGE_BYTES = 1000
"""Files from here on are in the hub's large store (LFS), which knows their SHA-256; a smaller one has git's own name."""
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
    listed: dict[str, bytes] = field(default_factory=dict)
    """What the list says of a file, if it is not what is sent."""
    hold_at: int | None = None
    """Body bytes after which every GET of a file waits for `let_go`."""
    held: str = ""
    """A file whose GET waits for `let_go` before its body."""
    let_go: threading.Event = field(default_factory=threading.Event)
    at_once: int = 0
    most_at_once: int = 0
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
        if listing := LIST.fullmatch(self.path):
            self._list(unquote(listing["repo"]), unquote(listing["revision"]))
            return
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

    def _list(self, repo: str, revision: str) -> None:
        if repo == "org/gated":
            self._error(403, "GatedRepo")
        elif repo != "org/repo":
            self._error(404, "RepoNotFound")
        elif revision not in REVISIONS:
            self._error(404, "RevisionNotFound")
        else:
            files = self.hub.files | self.hub.listed
            siblings = [self._sibling(name, data) for name, data in files.items()]
            body = {
                "id": repo,
                "sha": COMMIT,
                "siblings": siblings,
                "private": False,
                "downloads": 0,
                "tags": [],
            }
            data = json.dumps(body).encode() if self.hub.is_hub else b"<html>"
            self._head(200, {"Content-Length": str(len(data)), "Content-Type": "application/json"})
            self.wfile.write(data)

    def _sibling(self, name: str, data: bytes) -> dict[str, object]:
        git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        small = {"rfilename": name, "size": len(data), "blobId": git}
        return small | ({"lfs": lfs} if len(data) >= LARGE_BYTES else {})

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
        hub = self.hub
        hub.at_once += 1
        hub.most_at_once = max(hub.most_at_once, hub.at_once)
        try:
            self._send(data)
        finally:
            hub.at_once -= 1

    def _send(self, data: bytes) -> None:
        if self.hub.held and self.path.endswith(self.hub.held):
            self.hub.let_go.wait(20)
        if self.hub.hold_at is not None:
            held, data = data[: self.hub.hold_at], data[self.hub.hold_at :]
            self.wfile.write(held)
            self.hub.sent_bytes += len(held)
            self.hub.let_go.wait(20)
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
        try:
            yield hub
        finally:
            hub.let_go.set()
