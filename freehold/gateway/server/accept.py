"""Accept connections when several workers share one listening socket, so that each gets about as many as the others.

A connection wakes all workers. A worker with more connections than another waits a moment, then accepts what is still
waiting. So a few connections that stay for hours do not end up at one worker, and a worker that is busy, stopped or dead delays
no client. There is one queue, in the kernel, which outlives every worker. It deliberately accepts one connection at a time:
a worker that accepted all would leave none to the others.
"""

import asyncio
import socket
from collections.abc import Callable

from freehold.gateway.server.gateway import Gateway
from freehold.gateway.server.worker_group import WorkerGroup

_COURTESY_S = 0.002
"""How long a connection is left to a worker that has fewer. Source: our own choice: a busy loop turns in a millisecond or
two, and no client notices two when connecting."""
_AGAIN_S = 0.1  # No more descriptors, or memory: it may pass; the queue in the kernel is bounded.


class Acceptor:
    """Takes connections for one of several workers."""

    def __init__(
        self,
        new_connection: Callable[[], asyncio.BaseProtocol],
        gateway: Gateway,
        *,
        group: WorkerGroup,
        listener: socket.socket,
    ) -> None:
        self._new_connection = new_connection
        self._gateway = gateway
        self._counters = group.counters
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._held_back: asyncio.TimerHandle | None = None
        self._joining: set[asyncio.Task[None]] = set()
        self._loop.add_reader(listener.fileno(), self._came)

    def __repr__(self) -> str:
        return (
            f"<Acceptor {len(self._gateway.connections)} here, {self._counters.connections_least} elsewhere>"
        )

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
            connected, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError, InterruptedError):
            return  # another worker was quicker, or the client is gone again
        except OSError as exc:
            self._gateway.context.log.warning("cannot_accept", why=exc.strerror)
            self._pause(_AGAIN_S)
            return
        connected.setblocking(False)
        task = self._loop.create_task(self._join(connected))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def _join(self, connected: socket.socket) -> None:
        await self._loop.connect_accepted_socket(self._new_connection, connected)
