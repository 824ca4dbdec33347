"""Request heads that came before: a client sends the same one with each request, but for the length of its body.

What the strict parser made of a head it would make of the same bytes again, so a request that comes whole in one read
behind a head that is known is taken without it. Only the digits of its Content-Length may differ, and its API key: both are cut
out of what is compared, where they stand. No key is kept, so clients that differ in their key alone share a head. The key is
checked for each request; one that is not accepted is for the parser. Heads that are never the same twice (an id or a trace of their own), or that mean anything unusual,
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


class KnownHead:
    """A head that came before, and what it came to: the bytes on both sides of its key, with a place for the digits of its length."""

    __slots__ = ("_before_key", "_behind_key", "_is_keyed", "_key_bytes", "_key_is_first", "_path", "_size_bytes",
                 "_url")  # fmt: skip

    def __init__(
        self, parts: tuple[bytes, bytes, bytes], request: Request, *, key_at: int, length_at: int
    ) -> None:
        before, between, behind = parts[0], parts[1], parts[2] + b"\r\n\r\n"
        self._key_bytes = 0 if key_at < 0 else KEY_CHARS - len(_MARK)
        self._size_bytes = len(before) + self._key_bytes + len(between) + len(behind)
        self._key_is_first = key_at < length_at
        if self._key_is_first:
            self._before_key, self._behind_key = before, _form(between, behind)
        else:
            self._before_key, self._behind_key = _form(before, between), behind
        self._url, self._path = request.url, request.path
        self._is_keyed = request.key_digest is not None

    def __repr__(self) -> str:
        return f"<KnownHead of {self._path}>"

    def request(self, data: bytes) -> Request | None:
        """Return the request that `data` is, exactly and whole, behind such a head; None: it is not.

        Its key is for the caller to check: with an unknown one, the bytes in the key's place may mean anything.
        """
        size = len(data) - self._size_bytes
        # So many of these are the digits of the length; where a digit more or less is the question, the parser answers it.
        body_bytes = size - (
            1 if size < 11 else 2 if size < 102 else 3 if size < 1003 else 4 if size < 10_004 else 5
        )
        before, behind = self._before_key, self._behind_key
        if self._key_is_first:
            behind %= body_bytes
        else:
            before %= body_bytes
        key_at = len(before)
        key_end = key_at + self._key_bytes
        if not (data.startswith(before) and data.startswith(behind, key_end)):
            return None
        if not self._is_keyed and key_end > key_at and not data[key_at:key_end].isalnum():
            return None
        request = Request()
        request.method, request.keep_alive = b"POST", True
        request.url, request.path = self._url, self._path
        if self._is_keyed:
            request.key_digest = hash_of(data[key_at - len(_MARK) : key_end])
        request.id_line = fresh_id_line()
        request.body = data[key_end + len(behind) :]
        return request


def _form(before: bytes, behind: bytes) -> bytes:
    """Return the form of two parts with a number between them."""
    return b"%b%%d%b" % (before.replace(b"%", b"%%"), behind.replace(b"%", b"%%"))


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
            # A gateway without keys does not read them, and they are cut out all the same.
            if key and not (len(key) == KEY_CHARS and key[len(_MARK) :].isalnum()):
                return
        elif hash_of(key) != request.key_digest or data.count(key, 0, end) != 1:
            return  # what is cut out must be the key that was read, and no copy of it may be left
        if len(self._known) >= HEADS_MAX:
            self._known.clear()
        parts = _parts(data, at, at + len(length), end=end)
        self._known[b"\0".join(parts)] = KnownHead(parts, request, key_at=key_at, length_at=at)


def _parts(data: bytes, at: int, after: int, *, end: int) -> tuple[bytes, bytes, bytes]:
    """Return a head without the digits from `at` to `after` and without its key, in the parts around them; no key: the first is empty."""
    key_at = data.find(_MARK, 0, end)
    if key_at < 0:
        return b"", data[:at], data[after:end]
    key_end = key_at + KEY_CHARS
    key_at += len(_MARK)
    if key_at < at:
        return data[:key_at], data[key_end:at], data[after:end]
    return data[:at], data[after:key_at], data[key_end:end]
