"""Request heads that came before: a client sends the same one with each request, but for the length of its body.

What the strict parser made of a head it would make of the same bytes again, so a request that comes whole in one read
behind a head that is known is taken without it. Only the digits of its Content-Length may differ: they are cut out of what
is compared, where they stand. The key is checked again for each request. Heads that are never
the same twice (an id or a trace of their own), or that mean anything unusual, are not kept: the parser reads them.
"""

from freehold.gateway.server.request_ids import fresh_id_line
from freehold.gateway.wire.request import Request

HEADS_MAX = 256
"""Heads that are kept. Source: our own choice: as many kinds of clients and keys at once are rare; half a megabyte at most."""
HEAD_BYTES_MAX = 2048
"""Longest head that is kept, bytes. Source: our own choice; those of the official SDKs have some 700."""
_LENGTH = b"\r\nContent-Length: "
_LENGTH_LOWER = _LENGTH.lower()
_DIGITS_MAX = 9  # More is more than one read, and more than any body may have.


class KnownHead:
    """A head that came before, in front of the digits of its length and behind them, and what it came to."""

    __slots__ = ("_before", "_behind", "_key", "_key_digest", "_path", "_url")

    def __init__(self, before: bytes, behind: bytes, request: Request) -> None:
        self._before, self._behind = before, behind + b"\r\n\r\n"
        self._url, self._path = request.url, request.path
        self._key, self._key_digest = request.key, request.key_digest

    def __repr__(self) -> str:
        return f"<KnownHead of {self._path}>"

    def request(self, data: bytes) -> Request | None:
        """Return the request that `data` is, exactly and whole, behind such a head; None: it is not."""
        if not data.startswith(self._before):
            return None
        at = len(self._before)
        after = data.find(b"\r", at, at + _DIGITS_MAX + 1)
        if after < 0 or not data.startswith(self._behind, after):
            return None
        digits, end = data[at:after], after + len(self._behind)
        if not digits.isdigit() or end + int(digits) != len(data):
            return None
        request = Request()
        request.method, request.keep_alive = b"POST", True
        request.url, request.path = self._url, self._path
        request.key, request.key_digest = self._key, self._key_digest
        request.id_line = fresh_id_line()
        request.body = data[end:]
        return request


class HeadCache:
    """The heads that one gateway's clients sent lately."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, KnownHead] = {}

    def __repr__(self) -> str:
        return f"<HeadCache {len(self._known)}>"

    def find(self, data: bytes) -> KnownHead | None:
        """Return the head that `data` seems to begin with; None: it is not known."""
        end = data.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
        at = data.find(_LENGTH, 0, max(0, end))
        if at < 0:
            at = data.find(_LENGTH_LOWER, 0, max(0, end))
        if at < 0:
            return None
        at += len(_LENGTH)
        return self._known.get(data[:at] + data[data.find(b"\r", at) : end])

    def learn(self, data: bytes, request: Request) -> None:
        """Keep the head of a request that the parser made of `data`, if it came whole in it and means nothing unusual."""
        end = data.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
        length = b"%d" % request.length_bytes
        at = max(data.find(name + length + b"\r\n", 0, end + 2) for name in (_LENGTH, _LENGTH_LOWER))
        if end < 0 or at < 0 or end + 4 + request.length_bytes != len(data) or not request.is_usual:
            return
        at += len(_LENGTH)
        if len(self._known) >= HEADS_MAX:
            self._known.clear()
        before, behind = data[:at], data[at + len(length) : end]
        self._known[before + behind] = KnownHead(before, behind, request)
