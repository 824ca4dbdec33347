"""Request heads that came before: a client sends the same one with each request, but for the length of its body.

What the strict parser made of a head it would make of the same bytes again, so a request that comes whole in one read
behind a head that is known is taken without it. Only the digits of its Content-Length may differ: they are cut out of what
is compared, where they stand. Whose request it is, and whether it is taken, is asked anew each time. Heads that are never
the same twice (an id or a trace of their own), or that mean anything unusual, are not kept: the parser reads them. Pure.
"""

from freehold.gateway.request import Request, fresh_id_line

HEADS_MAX = 256
"""Heads that are kept. Source: our own choice: as many kinds of clients and keys at once are rare; half a megabyte at most."""
HEAD_BYTES_MAX = 2048
"""Longest head that is kept, bytes. Source: our own choice; those of the official SDKs have some 700."""
_LENGTH = b"\r\nContent-Length: "
_LENGTH_LOWER = _LENGTH.lower()
_DIGITS_MAX = 9  # More is more than one read, and more than any body may have.


class _Known:
    """What a head came to."""

    __slots__ = ("key", "key_digest", "path", "url")

    def __init__(self, request: Request) -> None:
        self.url, self.path = request.url, request.path
        self.key, self.key_digest = request.key, request.key_digest


class KnownHeads:
    """The heads that one gateway's clients sent lately."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}

    def __repr__(self) -> str:
        return f"<KnownHeads {len(self._known)}>"

    def find(self, data: bytes) -> Request | None:
        """Return the request that `data` is, exactly and whole; None: the parser has to read it."""
        end = data.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
        at = data.find(_LENGTH, 0, end) if end > 0 else -1
        if at < 0:
            at = data.find(_LENGTH_LOWER, 0, end) if end > 0 else -1
            if at < 0:
                return None
        at += len(_LENGTH)
        after = data.find(b"\r\n", at)
        known = self._known.get(data[:at] + data[after:end])
        if known is None:
            return None
        digits = data[at:after]
        if not digits.isdigit() or len(digits) > _DIGITS_MAX or end + 4 + int(digits) != len(data):
            return None
        request = Request()
        request.method, request.keep_alive = b"POST", True
        request.url, request.path = known.url, known.path
        request.key, request.key_digest = known.key, known.key_digest
        request.id_line = fresh_id_line()
        request.body = data[end + 4 :]
        return request

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
        self._known[data[:at] + data[at + len(length) : end]] = _Known(request)
