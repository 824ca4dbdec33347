"""The certificate that the listener shows, its key, and the CA of clients: read, and read again when a file changes.

Files that do not fit together, as in the middle of a renewal, change nothing: the last good ones stay in use. A changed
certificate counts for connections from then on; those that are open keep theirs. It opens no connection.
"""

import os
import ssl
import stat
from collections.abc import Callable
from pathlib import Path

from freehold.core.errors import Permanent
from freehold.gateway.settings import TlsSettings
from freehold.gateway.storage.background_loop import BackgroundLoop
from freehold.gateway.storage.trusted_file import Mark, check_file, check_folders, mark_of
from freehold.telemetry.logs import get_logger

LOOK_EVERY_S = 0.5
"""Seconds between two looks. Source: our own choice: a renewal has days, a test that waits for it has not."""
_PEM = {"certificate": "CERTIFICATE", "key": "PRIVATE KEY", "client_ca": "CERTIFICATE"}
"""What the files of `gateway.tls` hold, as a line of PEM names it (RFC 7468)."""
_SHOW = "openssl x509 -noout -subject -enddate -in"
_WITH_ALERT = frozenset({"CERTIFICATE_VERIFY_FAILED", "UNSUPPORTED_PROTOCOL", "NO_SHARED_CIPHER"})
"""Why a TLS client is rejected with an alert that names the reason (RFC 8446, 6.2), in OpenSSL's words."""


class _Handshake(ssl.SSLObject):
    """A handshake whose alert reaches the client: the event loop sends nothing any more once a handshake has failed.

    So it is reported as one that waits, until the client has answered the alert by leaving, or its time is over.
    """

    _failed: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failed is not None:
            raise self._failed
        try:
            super().do_handshake()
        except ssl.SSLError as exc:
            if exc.reason not in _WITH_ALERT:
                raise
            self._failed = exc
            raise ssl.SSLWantReadError from exc


def server_context(tls: TlsSettings) -> ssl.SSLContext:
    """Return what a TLS handshake of this listener needs: TLS 1.2 or newer, HTTP/1.1; raise Permanent for unusable files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _Handshake
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _check_files(tls)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password="")  # never asks a terminal for one
    except (OSError, ValueError) as exc:
        both = " with ".join(dict.fromkeys((tls.certificate, tls.key)))
        pair = f"openssl x509 -noout -pubkey -in {tls.certificate}; openssl pkey -pubout -in {tls.key}"
        hint = f"{pair}; both print the same if the files are whole and a pair"
        raise Permanent(f"cannot use {both}: {_why(exc)}", hint=hint) from exc
    if tls.client_ca:
        context.verify_mode = ssl.CERT_OPTIONAL
        try:
            context.load_verify_locations(tls.client_ca)
        except (OSError, ValueError) as exc:
            raise Permanent(
                f"cannot use {tls.client_ca}: {_why(exc)}", hint=f"{_SHOW} {tls.client_ca}"
            ) from exc
    return context


def _why(exc: Exception) -> object:
    if not isinstance(exc, ssl.SSLError):
        return getattr(exc, "strerror", None) or exc
    if exc.reason == "KEY_VALUES_MISMATCH":
        return "the key is that of another certificate"
    return exc.reason.replace("_", " ").lower() if exc.reason else "damaged or cut off"


def _check_files(tls: TlsSettings) -> None:
    """Raise Permanent for a file that is missing or not a regular file, that another user could have written, or a key that one could have read."""
    for name, holds in _PEM.items():
        path, option = getattr(tls, name), f"gateway.tls.{name}"
        if not path:
            continue
        try:
            found = Path(path).stat()
            check_file(found, os.geteuid())
            check_folders(Path(path), os.geteuid())
            data = Path(path).read_bytes()
        except OSError as exc:
            hint = f"namei -l {path} shows what is missing or closed; {option} names it"
            raise Permanent(f"cannot read {path}: {exc.strerror}", hint=hint) from exc
        except Permanent as exc:
            hint = (
                f"{exc.hint} {path}" if exc.hint else f"name a file in {option}, not a folder: ls -l {path}"
            )
            raise Permanent(f"{path} {exc.message}", hint=hint) from exc
        # As PostgreSQL has it for its server's key: a group may read what root owns.
        readers = stat.S_IROTH if found.st_uid == 0 else stat.S_IRGRP | stat.S_IROTH
        if path == tls.key and found.st_mode & readers:
            raise Permanent(f"{path} can be read by others", hint=f"chmod 600 {path}")
        if f"{holds}-----".encode() not in data:
            hint = f"{option} must have a line BEGIN {holds}; grep BEGIN {path} shows what it has"
            raise Permanent(f"{path} holds no {holds.lower()} in PEM form", hint=hint)
        if path == tls.key and b"ENCRYPTED" in data:
            hint = (
                f"openssl pkey -in {path} -out FILE writes it without the passphrase; name FILE in {option}"
            )
            raise Permanent(f"the key {path} has a passphrase, which nobody can type at a start", hint=hint)


class TlsFiles:
    """Watches the files of `tls`; `on_change` gets each new context, in the thread that looks."""

    def __init__(self, tls: TlsSettings, on_change: Callable[[ssl.SSLContext], object]) -> None:
        self._tls = tls
        self._on_change = on_change
        self._log = get_logger("gateway.tls")
        self._paths = [Path(path) for path in (tls.certificate, tls.key, tls.client_ca) if path]
        self._seen = self._marks()
        self.trouble = ""
        """Why the files cannot be used as they are now; empty: their newest version is in use."""
        self.first = server_context(tls)
        self._beside = BackgroundLoop("tls", self.look, period_s=LOOK_EVERY_S)

    def __repr__(self) -> str:
        return f"<TlsFiles {self._tls.certificate}{', ' * bool(self.trouble)}{self.trouble}>"

    def look(self) -> None:
        """Read the files if one has changed, or if they could not be used at the last look."""
        marks = self._marks()
        if marks == self._seen and not self.trouble:
            return
        self._seen = marks
        try:
            context = server_context(self._tls)
        except Permanent as exc:
            if exc.message != self.trouble:
                self._log.error("tls_files_unusable", why=exc.message, doing="the last good ones stay in use")
            self.trouble = exc.message
            return
        self.trouble = ""
        self._on_change(context)
        self._log.info("tls_files_loaded", certificate=self._tls.certificate)

    def _marks(self) -> list[Mark | None]:
        return [mark_of(path) for path in self._paths]
