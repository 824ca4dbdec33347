"""The socket that clients connect to, opened by the parent of a gateway so that it outlives the gateway's process.

It deliberately does not accept: that is the gateway's.
"""

import socket

BACKLOG = 4096
"""Connections that the kernel keeps waiting. Source: Linux's own default for somaxconn since 5.4."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises OSError where the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0
            )  # so `::` is every address, IPv4 too
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket, *, tls: bool) -> str:
    """Return where clients reach a listener."""
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{name}:{port}"
