"""A request reader that takes API keys: each request is identified when its head has come, before its body.

Only the official ways to present a key count: `Authorization: Bearer KEY` (RFC 6750; the scheme in any case) and
Anthropic's `x-api-key: KEY`. A gateway without keys does not use this file and pays nothing for it.
"""

from collections.abc import Callable

from freehold.gateway.callers.keys import hash_of
from freehold.gateway.server.authenticate import Authenticator
from freehold.gateway.server.gateway import Gateway
from freehold.gateway.server.request_reader import RequestReader
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request import FIELD_BYTES_MAX, IGNORED, KNOWN, Request, take_header


class KeyedReader(RequestReader):
    """Reads the requests of one client of a gateway with keys."""

    __slots__ = ("_authenticator", "_on_key")

    def __init__(
        self,
        gateway: Gateway,
        on_room: Callable[[], object],
        *,
        authenticator: Authenticator,
        on_key: Callable[[], object],
    ) -> None:
        """Begin; `on_key` is called for each head whose key is accepted."""
        super().__init__(gateway, on_room)
        self._authenticator = authenticator
        self._on_key = on_key

    def check_head(self, request: Request, version: str) -> Rejection | None:
        """Return why a head cannot be served, for want of a key as well, or None."""
        rejection = request.check_head(version) or self._authenticator.identify(request, self.certificate)
        if request.caller is not None:
            self._on_key()
        return rejection

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header, or a trailer; a key among headers is noted."""
        request = self.incoming
        if request is None or request.method:
            self.drop_trailer(name)
            return
        request.header_count += self._field_count(name, value) if self._head_bytes > FIELD_BYTES_MAX else 1
        if name in _MEANINGLESS:
            return
        read = _CREDENTIALS.get(name)
        if read is None:
            take_header(request, name, value)
            read = None if name in KNOWN else _BY_LOWER_NAME.get(name.lower())
        if read is not None:
            key = read(value)
            digest = hash_of(key) if key else b""
            if request.key_digest is None:
                request.key_digest = digest
            elif request.key_digest != digest:
                # Of two that differ one is a mistake, and which one cannot be known: neither is used.
                request.key_digest = b""


def _bearer(value: bytes) -> bytes:
    """Return the key in an Authorization header; empty: another scheme, or none."""
    if value.startswith(b"Bearer fh-"):
        return value[7:].rstrip(b" ")  # as nearly all come
    scheme, _, key = value.partition(b" ")
    return key.strip(b" ") if scheme.lower() == b"bearer" else b""


def _plain(value: bytes) -> bytes:
    return value.strip(b" \t")


_BY_LOWER_NAME = {b"authorization": _bearer, b"x-api-key": _plain}
_CREDENTIALS = _BY_LOWER_NAME | {name.title(): read for name, read in _BY_LOWER_NAME.items()}
_MEANINGLESS = IGNORED - _CREDENTIALS.keys()
