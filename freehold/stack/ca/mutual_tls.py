"""TLS contexts from a node's file, for both ends of a connection between nodes. Each end must prove that the CA knows it.

A peer is any node of the CA: which one it is stands in the common name of its certificate. It opens no connection.
"""

import ssl
from pathlib import Path

from freehold.core.errors import Permanent
from freehold.core.trust import why_distrusted

_OTHERS_MAY_READ = 0o077
"""Mode bits (chmod(2)) that no private key has."""


def server_context(node_file: Path) -> ssl.SSLContext:
    """Return a context that shows the node's certificate and rejects clients without one of its CA. Raises Permanent for an unusable file."""
    return _context(ssl.PROTOCOL_TLS_SERVER, node_file)


def client_context(node_file: Path) -> ssl.SSLContext:
    """Return the same for connections that this node opens. The server's certificate must have the name or address that is connected to."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, node_file)


def _context(protocol: int, node_file: Path) -> ssl.SSLContext:
    check_private(node_file)
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # both ends are Freehold's
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(node_file, password="")  # without it, OpenSSL asks at the terminal
        context.load_verify_locations(node_file)
    except (OSError, ValueError) as exc:
        raise Permanent(
            f"{node_file} is damaged: {exc}", hint="freehold ca issue NAME makes a new one"
        ) from exc
    return context


def check_private(path: Path) -> None:
    """Raise Permanent if a file or folder of secrets is missing, or another user could read or write it."""
    try:
        seen = path.lstat()
    except OSError as exc:
        raise Permanent(f"cannot use {path}: {exc.strerror}") from exc
    why = why_distrusted(seen) or "can be read by others" * bool(seen.st_mode & _OTHERS_MAY_READ)
    if why:
        raise Permanent(f"{path} {why}", hint=f"chmod go-rwx {path}, if no other user has read its keys")
