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

    __slots__ = ("_authenticator", "_digest", "_key", "_shown")

    def __init__(self, gateway: Gateway, on_room: Callable[[], object], authenticator: Authenticator) -> None:
        super().__init__(gateway, on_room)
        self._authenticator = authenticator
        # What was last shown here, and what it came to: pooled clients show the same with each request.
        self._shown = self._key = self._digest = b""

    def check_head(self, request: Request, version: str) -> Rejection | None:
        """Return why a head cannot be served, for want of a key as well, or None."""
        return request.check_head(version) or self._authenticator.identify(request, self.certificate)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header; a key among them is noted. Trailers, which come when the method is known, mean nothing."""
        request = self.incoming
        if request is None or request.method:
            return
        request.header_count += self._field_count(name, value) if self._head_bytes > FIELD_BYTES_MAX else 1
        if name in _MEANINGLESS:
            return
        read = _CREDENTIALS.get(name)
        if read is None:
            take_header(request, name, value)
            read = None if name in KNOWN else _BY_LOWER_NAME.get(name.lower())
        if read is not None:
            shown = name + value
            if shown != self._shown:
                self._shown, self._key = shown, read(value)
                self._digest = hash_of(self._key) if self._key else b""
            self._credential(request)

    def _credential(self, request: Request) -> None:
        if request.key is None:
            request.key, request.key_digest = self._key, self._digest
        elif request.key != self._key:
            # Of two that differ one is a mistake, and which one cannot be known: neither is used.
            request.key = request.key_digest = b""


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
