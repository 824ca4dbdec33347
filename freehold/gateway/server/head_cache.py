"""Request heads that came before: a client sends the same one with each request, but for the length of its body.

What the strict parser made of a head it would make of the same bytes again, so a request that comes whole in one read
behind a head that is known is taken without it. Only the digits of its Content-Length may differ, and its API key: both are cut
out of what is compared, where they stand. No key is kept, so clients that differ in their key alone share a head. The key is
checked for each request. Heads that are never the same twice (an id or a trace of their own), or that mean anything unusual,
are not kept: the parser reads them.
"""

from freehold.gateway.callers.keys import KEY_CHARS, KEY_PREFIX, hash_of
from freehold.gateway.server.request_ids import fresh_id_line
from freehold.gateway.wire.request import Request

HEADS_MAX = 256
"""Heads that are kept. Source: our own choice: as many kinds of clients and keys at once are rare; half a megabyte at most."""
HEAD_BYTES_MAX = 2048
"""Longest head that is kept, bytes. Source: our own choice; those of the official SDKs have some 700."""
_LENGTH = b"\r\nContent-Length: "
_LENGTH_LOWER = _LENGTH.lower()
_MARK = KEY_PREFIX.encode()
_DIGITS_MAX = 9  # More is more than one read, and more than any body may have.


class KnownHead:
    """A head that came before, in three parts around the digits of its length and its key, and what it came to."""

    __slots__ = ("_before", "_behind", "_between", "_is_keyed", "_key_at", "_path", "_url")

    def __init__(self, parts: tuple[bytes, bytes, bytes], request: Request, *, key_at: int) -> None:
        self._before, self._between, self._behind = parts[0], parts[1], parts[2] + b"\r\n\r\n"
        self._key_at = key_at
        """Where its key stands; below 0: it has none."""
        self._url, self._path = request.url, request.path
        self._is_keyed = request.key_digest is not None

    def __repr__(self) -> str:
        return f"<KnownHead of {self._path}>"

    def request(self, data: bytes) -> Request | None:
        """Return the request that `data` is, exactly and whole, behind such a head; None: it is not."""
        if not data.startswith(self._before):
            return None
        at, key = len(self._before), b""
        if self._key_at == at:
            key = data[at : at + KEY_CHARS]
            at += KEY_CHARS
            if not data.startswith(self._between, at):
                return None
            at += len(self._between)
        after = data.find(b"\r", at, at + _DIGITS_MAX + 1)
        if after < 0:
            return None
        digits = data[at:after]
        if self._key_at >= 0 and not key:
            if not data.startswith(self._between, after):
                return None
            at = after + len(self._between)
            after = at + KEY_CHARS
            key = data[at:after]
        end = after + len(self._behind)
        if not data.startswith(self._behind, after) or not digits.isdigit() or end + int(digits) != len(data):
            return None
        if key and not _is_key(key):
            return None
        request = Request()
        request.method, request.keep_alive = b"POST", True
        request.url, request.path = self._url, self._path
        if self._is_keyed:
            request.key_digest = hash_of(key)
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
        return self._known.get(b"\0".join(_parts(data, at, data.find(b"\r", at), end=end)))

    def learn(self, data: bytes, request: Request) -> None:
        """Keep the head of a request that the parser made of `data`, if it came whole in it and means nothing unusual."""
        end = data.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
        length = b"%d" % request.length_bytes
        at = max(data.find(name + length + b"\r\n", 0, end + 2) for name in (_LENGTH, _LENGTH_LOWER))
        if end < 0 or at < 0 or end + 4 + request.length_bytes != len(data) or not request.is_usual:
            return
        at += len(_LENGTH)
        key_at = data.find(_MARK, 0, end)
        key = data[key_at : key_at + KEY_CHARS] if key_at >= 0 else b""
        if request.key_digest is None:
            if key and not _is_key(
                key
            ):  # a gateway without keys does not read them, and they are cut out all the same
                return
        elif hash_of(key) != request.key_digest or data.count(key, 0, end) != 1:
            return  # what is cut out must be the key that was read, and no copy of it may be left
        if len(self._known) >= HEADS_MAX:
            self._known.clear()
        parts = _parts(data, at, at + len(length), end=end)
        self._known[b"\0".join(parts)] = KnownHead(parts, request, key_at=key_at)


def _parts(data: bytes, at: int, after: int, *, end: int) -> tuple[bytes, bytes, bytes]:
    """Return a head without the digits from `at` to `after` and without its key, in the parts around them; no key: the second is empty."""
    key_at = data.find(_MARK, 0, end)
    if key_at < 0:
        return data[:at], b"", data[after:end]
    key_end = key_at + KEY_CHARS
    if key_at < at:
        return data[:key_at], data[key_end:at], data[after:end]
    return data[:at], data[after:key_at], data[key_end:end]


def _is_key(text: bytes) -> bool:
    return len(text) == KEY_CHARS and text.startswith(_MARK) and text[len(_MARK) :].isalnum()
