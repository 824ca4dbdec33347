"""Accept connections where several workers share one listening socket, so that each gets as many, and where TLS is on.

A connection wakes all workers. A worker with more connections than another waits a moment, then accepts what is still
waiting. So a few connections that stay for hours do not end up at one worker, and a worker that is busy, stopped or dead delays
no client. There is one queue, in the kernel, which outlives every worker. It deliberately accepts one connection at a time:
a worker that accepted all would leave none to the others.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial

from freehold.gateway.server.client_connection import ClientConnection, Handshake
from freehold.gateway.server.gateway import Gateway
from freehold.gateway.server.worker_group import WorkerGroup
from freehold.gateway.settings import TlsSettings
from freehold.gateway.storage.tls_files import TlsFiles

_COURTESY_S = 0.002
"""How long a connection is left to a worker that has fewer. Source: our own choice: a busy loop turns in a millisecond or
two, and no client notices two when connecting."""
_GOODBYE_S = 2.0
"""How long a client has to answer the end of TLS, seconds. Source: as long as a rejected client is still read from."""
_AGAIN_S = 0.1  # No more descriptors, or memory: it may pass; the queue in the kernel is bounded.


class Acceptor:
    """Takes connections for one of several workers."""

    def __init__(
        self,
        new_connection: Callable[[], ClientConnection],
        gateway: Gateway,
        *,
        group: WorkerGroup | None,
        listener: socket.socket,
    ) -> None:
        self._new_connection = new_connection
        self._gateway = gateway
        self._counters = group.counters if group is not None else None
        self._tls: ssl.SSLContext | None = None
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._held_back: asyncio.TimerHandle | None = None
        self._joining: set[asyncio.Task[None]] = set()
        self._loop.add_reader(listener.fileno(), self._came)

    def __repr__(self) -> str:
        elsewhere = f", {self._counters.connections_least} elsewhere" if self._counters is not None else ""
        return f"<Acceptor {len(self._gateway.connections)} here{elsewhere}>"

    def secure(self, tls: TlsSettings) -> None:
        """Speak TLS with each connection from now on; raises Permanent if a file cannot be used."""
        self._gateway.tls_files = files = TlsFiles(tls, self._renewed)
        self._tls = files.first

    def _renewed(self, context: ssl.SSLContext) -> None:
        self._tls = context  # from the thread that reads the files: one assignment

    def close(self) -> None:
        """Accept no more; waiting clients go to the other workers, or are refused when the last one closes."""
        if self._held_back is not None:
            self._held_back.cancel()
            self._held_back = None
        else:
            self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    def _came(self) -> None:
        here = len(self._gateway.connections) + len(self._joining)
        if self._counters is None:
            self._take()
            return
        self._counters.publish_connections(here)
        if 0 <= self._counters.connections_least < here:
            self._pause(_COURTESY_S)
        else:
            self._take()

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._held_back = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._held_back = None
        self._loop.add_reader(self._listener.fileno(), self._came)
        self._take()

    def _take(self) -> None:
        try:
            connected, address = self._listener.accept()
        except (BlockingIOError, ConnectionError, InterruptedError):
            return  # another worker was quicker, or the client is gone again
        except OSError as exc:
            self._gateway.context.log.warning("cannot_accept", why=exc.strerror)
            self._pause(_AGAIN_S)
            return
        connected.setblocking(False)
        if self._tls is not None:
            self._agree(connected, address)
            return
        task = self._loop.create_task(self._join(connected))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def _join(self, connected: socket.socket) -> None:
        await self._loop.connect_accepted_socket(self._new_connection, connected)

    def _agree(self, connected: socket.socket, address: object) -> None:
        """Begin TLS; the connection counts from now on."""
        connection = self._new_connection()
        agreeing = self._loop.create_task(
            self._loop.connect_accepted_socket(
                lambda: connection,
                connected,
                ssl=self._tls,
                ssl_handshake_timeout=self._gateway.context.settings.header_s,
                ssl_shutdown_timeout=_GOODBYE_S,
            )
        )
        agreeing.add_done_callback(partial(self._agreed, connected, connection))
        connection.await_tls(Handshake(agreeing.cancel, address))

    def _agreed(
        self, connected: socket.socket, connection: ClientConnection, agreeing: asyncio.Task[object]
    ) -> None:
        """Forget a connection without TLS: too slow, gone, evicted, of another protocol or with a certificate of another CA."""
        failure = None if agreeing.cancelled() else agreeing.exception()
        if not agreeing.cancelled() and failure is None:
            return
        connected.close()
        connection.connection_lost(None)
        self._gateway.tls_failed_total += 1
        if failure is not None and not isinstance(failure, OSError):
            raise failure
