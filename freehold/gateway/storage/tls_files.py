"""The certificate that the listener shows, its key, and the CA of clients: read, and read again when a file changes.

Files that do not fit together, as in the middle of a renewal, change nothing: the last good ones stay in use. A changed
certificate counts for connections from then on; those that are open keep theirs. It opens no connection.
"""

import ssl
from collections.abc import Callable
from pathlib import Path

from freehold.core.errors import Permanent
from freehold.gateway.settings import TlsSettings
from freehold.gateway.storage.background_loop import BackgroundLoop
from freehold.gateway.storage.key_store import KeyStore, Mark
from freehold.telemetry.logs import get_logger

LOOK_EVERY_S = 0.5
"""Seconds between two looks. Source: our own choice: a renewal has days, a test that waits for it has not."""
_NEXT = "openssl x509 -noout -subject -enddate -in FILE shows a certificate"


def server_context(tls: TlsSettings) -> ssl.SSLContext:
    """Return what a TLS handshake of this listener needs: TLS 1.2 or newer, HTTP/1.1; raise Permanent for unusable files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.certificate, tls.key, password="")  # never asks a terminal for one
    except (OSError, ValueError) as exc:
        why = getattr(exc, "reason", None) or getattr(exc, "strerror", None) or exc
        raise Permanent(f"cannot use {tls.certificate} with {tls.key}: {why}", hint=_NEXT) from exc
    if tls.client_ca:
        context.verify_mode = ssl.CERT_OPTIONAL
        try:
            context.load_verify_locations(tls.client_ca)
        except (OSError, ValueError) as exc:
            why = getattr(exc, "reason", None) or getattr(exc, "strerror", None) or exc
            raise Permanent(f"cannot use {tls.client_ca}: {why}", hint=_NEXT) from exc
    return context


class TlsFiles:
    """Watches the files of `tls`; `on_change` gets each new context, in the thread that looks."""

    def __init__(self, tls: TlsSettings, on_change: Callable[[ssl.SSLContext], object]) -> None:
        self._tls = tls
        self._on_change = on_change
        self._log = get_logger("gateway.tls")
        self._stores = [KeyStore(Path(path)) for path in (tls.certificate, tls.key, tls.client_ca) if path]
        self._seen = self._marks()
        self._trouble = ""
        self.first = server_context(tls)
        self._beside = BackgroundLoop("tls", self.look, period_s=LOOK_EVERY_S)

    def __repr__(self) -> str:
        return f"<TlsFiles {self._tls.certificate}{', ' * bool(self._trouble)}{self._trouble}>"

    def look(self) -> None:
        """Read the files if one has changed, or if they could not be used at the last look."""
        marks = self._marks()
        if marks == self._seen and not self._trouble:
            return
        self._seen = marks
        try:
            context = server_context(self._tls)
        except Permanent as exc:
            if exc.message != self._trouble:
                self._log.error("tls_files_unusable", why=exc.message, doing="the last good ones stay in use")
            self._trouble = exc.message
            return
        self._trouble = ""
        self._on_change(context)
        self._log.info("tls_files_loaded", certificate=self._tls.certificate)

    def _marks(self) -> list[Mark | None]:
        return [store.mark() for store in self._stores]
