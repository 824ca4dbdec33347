"""The mesh's sockets on Linux: one that receives, four that send, and what the kernel reports of each datagram.

The kernel knows when a datagram arrived (SO_TIMESTAMPNS), how many the full socket dropped (SO_RXQ_OVFL) and why a
datagram came back (IP_RECVERR), so that a process which reads only ten times a second still measures the network and not
itself. Four source ports take different ways through a fabric that spreads flows. Large datagrams carry "do not
fragment" and ignore what the kernel believes of the path, so that a black hole for them shows.

Nothing blocks, every loop has a bound, and no datagram is ever answered from here. It knows no frames.
"""

import errno
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

from freehold.core.clock import Clock
from freehold.core.errors import Permanent
from freehold.health.collectors.mesh_host import family_of

SOURCE_PORTS = 4
"""Paths of an ECMP fabric that are tried in turn (our own choice, of 4 to 8)."""
READS_MOST = 1024
"""Datagrams taken in one go: more than the receive buffer holds, so it is only a bound."""
ERRORS_MOST = 64
"""ICMP errors taken in one go; the kernel itself limits them to one a second per host."""
BUFFER_BYTES = 1 << 20
"""Asked for; the kernel caps it at net.core.rmem_max. The default holds some 400 datagrams, 5 s of 8 peers."""
DATAGRAM_MOST = 9_216
"""More than a jumbo frame; the rest of a larger datagram, which is none of ours, is cut off."""
WAITED_MOST_S = 60.0
"""A kernel stamp older than this says that the wall clock jumped, not that the datagram waited."""

# linux asm-generic/socket.h
_SO_TIMESTAMPNS = 35
_SO_RXQ_OVFL = 40
_ANCILLARY_BYTES = socket.CMSG_SPACE(16) + socket.CMSG_SPACE(4)
_STAMP = struct.Struct("@ll")
_DROPS = struct.Struct("@I")
_EXTENDED = struct.Struct("@IBBBBII")
"""linux/errqueue.h: struct sock_extended_err."""
_ERROR_BYTES = 512
"""Room for sock_extended_err and the offender's address."""
_DISCOVER_PROBE = 3
"""linux/in.h: IP_PMTUDISC_PROBE: set DF and ignore the path's MTU as the kernel believes it."""
_OPTIONS = {
    # level, RECVERR, MTU_DISCOVER: linux/in.h and linux/in6.h
    socket.AF_INET: (socket.IPPROTO_IP, 11, 10),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25, 23),
}


@dataclass(frozen=True, slots=True)
class ReceivedDatagram:
    """One datagram that came."""

    data: bytes
    at_s: float
    """When it arrived at the host, by the monotonic clock."""
    drops: int
    """How many this socket had dropped before it, ever, because it was full."""
    host: str = ""
    """The address that it says it comes from."""


@dataclass(frozen=True, slots=True)
class Returned:
    """One datagram that did not arrive, as the kernel reports."""

    address: tuple[str, int]
    error: int
    """errno: ECONNREFUSED, EHOSTUNREACH, EMSGSIZE…"""


class Receiver:
    """The socket that datagrams come to."""

    def __init__(self, host: str, port: int, clock: Clock) -> None:
        """Bind it; Permanent when the address cannot be had."""
        self._clock = clock
        self._drops = 0
        self._socket = _bound(host, port)
        for option, value in ((socket.SO_RCVBUF, BUFFER_BYTES), (_SO_TIMESTAMPNS, 1), (_SO_RXQ_OVFL, 1)):
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, option, value)

    @property
    def port(self) -> int:
        """Return the port that it is bound to."""
        return int(self._socket.getsockname()[1])

    def take(self) -> Iterator[ReceivedDatagram]:
        """Give what has come, oldest first, at most 1,024."""
        now_s = self._clock.monotonic_s()
        wall_minus_s = self._clock.wall_s() - now_s
        for _ in range(READS_MOST):
            try:
                data, ancillary, _, source = self._socket.recvmsg(DATAGRAM_MOST, _ANCILLARY_BYTES)
            except OSError:  # nothing more; reading an error clears it
                return
            at_s = now_s
            for _, kind, value in ancillary:
                if kind == _SO_TIMESTAMPNS:
                    seconds, nanoseconds = _STAMP.unpack(value)
                    stamp_s = seconds + nanoseconds / 1e9 - wall_minus_s
                    if now_s - WAITED_MOST_S < stamp_s <= now_s:  # outside of that the wall clock jumped
                        at_s = stamp_s
                elif kind == _SO_RXQ_OVFL:
                    self._drops = _DROPS.unpack(value)[0]
            yield ReceivedDatagram(data, at_s, self._drops, source[0])

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def _bound(host: str, port: int) -> socket.socket:
    made = socket.socket(family_of(host), socket.SOCK_DGRAM)
    made.setblocking(False)
    try:
        made.bind((host, port))
    except OSError as exc:
        made.close()
        raise Permanent(f"health mesh: cannot bind UDP {host}:{port}: {exc.strerror}") from exc
    return made


class Senders:
    """The four sockets that send to peers of one address family."""

    def __init__(self, family: socket.AddressFamily, source: str) -> None:
        """Open them; `source` is the address to send from, empty for the kernel's choice."""
        any_address = "::" if family is socket.AF_INET6 else "0.0.0.0"  # noqa: S104 - a source address, never a target
        self._sockets = [_bound(source or any_address, 0) for _ in range(SOURCE_PORTS)]
        self._poll = select.poll()
        level, receive_errors, discover = _OPTIONS[family]
        for made in self._sockets:
            self._poll.register(made, 0)
            with suppress(OSError):
                made.setsockopt(level, receive_errors, 1)
                made.setsockopt(level, discover, _DISCOVER_PROBE)

    def send(self, turn: int, data: bytes, address: tuple[str, int]) -> int:
        """Send from one of the ports; return 0, or errno. An error that was waiting is taken by `returned`."""
        try:
            self._sockets[turn % SOURCE_PORTS].sendto(data, address)
        except OSError as exc:
            return exc.errno or errno.EIO
        return 0

    def returned(self) -> list[Returned]:
        """Return what came back since the last call, at most 64 per port."""
        if not self._poll.poll(0):
            return []
        return [found for made in self._sockets for found in _errors(made)]

    def close(self) -> None:
        """Close them."""
        for made in self._sockets:
            with closing(made):
                self._poll.unregister(made)


def _errors(made: socket.socket) -> Iterator[Returned]:
    for _ in range(ERRORS_MOST):
        try:
            _, ancillary, _, address = made.recvmsg(0, _ERROR_BYTES, socket.MSG_ERRQUEUE)
        except OSError:
            return
        for _, _, value in ancillary:
            if address and len(value) >= _EXTENDED.size:
                yield Returned((address[0], address[1]), _EXTENDED.unpack_from(value)[0])
