"""Connections that have not shown a key: a bounded room, in which the oldest one leaves for a newer one.

With keys, a connection counts as keyless until its first accepted key, and again once a key is rejected there. So connections
that only idle or drip cannot keep callers out: each newcomer gets a place and the time to send its key. It rejects nothing and
reads no bytes; a gateway without keys does not use it.
"""

from collections import OrderedDict
from collections.abc import Sized
from ipaddress import IPv6Address
from typing import Protocol

_ROOM = 3 / 4
"""Part of all connections that may be keyless; the rest is for callers with a key. Source: our own choice: with 20,000, a burst
of 15,000 newcomers has room before the first of them shows its key."""
_ROOM_OF_ADDRESS = 1 / 4
"""Part of all connections that one address may hold without a key. Source: our own choice: 5,000 of 20,000, more than the 4,096
that the kernel's queue hands over at once, so that callers behind one proxy do not push each other out."""


class Evictable(Protocol):
    """A connection; `client_connection.ClientConnection` is one."""

    def evict(self) -> None:
        """Leave now for a newer connection."""


class KeylessConnections:
    """The keyless connections of one process, by age; `connections` are all of them."""

    def __init__(self, connections: Sized) -> None:
        self._connections = connections
        self._address_of: OrderedDict[Evictable, str] = OrderedDict()
        self._by_address: dict[str, OrderedDict[Evictable, None]] = {}
        self.evicted_total = 0

    def __repr__(self) -> str:
        return f"<KeylessConnections {len(self._address_of)} from {len(self._by_address)} addresses>"

    def add(self, connection: Evictable, address: str, *, connections_max: int) -> None:
        """Take the newest connection, which counts among all already; the oldest ones leave where there is no room."""
        address = _network(address)
        self._address_of[connection] = address
        own = self._by_address.setdefault(address, OrderedDict())
        own[connection] = None
        if len(own) > max(1, int(connections_max * _ROOM_OF_ADDRESS)):
            self._evict(next(iter(own)))
        room = max(1, int(connections_max * _ROOM))
        while len(self._address_of) > 1 and (
            len(self._address_of) > room or len(self._connections) > connections_max
        ):
            self._evict(next(iter(self._address_of)))

    def discard(self, connection: Evictable) -> None:
        """Forget a connection: it showed a key, or has ended."""
        address = self._address_of.pop(connection, None)
        if address is None:
            return
        own = self._by_address[address]
        del own[connection]
        if not own:
            del self._by_address[address]

    def _evict(self, connection: Evictable) -> None:
        self.discard(connection)
        self.evicted_total += 1
        connection.evict()


def _network(address: str) -> str:
    """Return what counts as one address: of IPv6 the network of 64 bits, since a host has all of one (RFC 4291, 2.5.4)."""
    if ":" not in address or address.startswith("::ffff:"):
        return address
    return IPv6Address(address).packed[:8].hex()
