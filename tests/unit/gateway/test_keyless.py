"""Who leaves when there is no room for connections without a key: the oldest, an address's own first."""

from freehold.gateway.server.keyless import KeylessConnections


class Connection:
    """A connection that notes that it was evicted."""

    def __init__(self, room: KeylessConnections, connections: set["Connection"], address: str) -> None:
        self.evicted = False
        self._connections = connections
        connections.add(self)
        room.add(self, address, connections_max=40)

    def evict(self) -> None:
        self.evicted = True
        self._connections.discard(self)


def test_one_address_pushes_out_its_own_oldest_and_nobody_elses() -> None:
    connections: set[Connection] = set()
    room = KeylessConnections(connections)
    other = Connection(room, connections, "b")
    many = [Connection(room, connections, "a") for _ in range(25)]
    assert [each.evicted for each in many] == [True] * 15 + [False] * 10
    assert not other.evicted
    assert room.evicted_total == 15


def test_many_addresses_leave_a_quarter_to_callers_with_a_key() -> None:
    connections: set[Connection] = set()
    room = KeylessConnections(connections)
    many = [Connection(room, connections, f"a{number}") for number in range(100)]
    assert [each.evicted for each in many] == [True] * 70 + [False] * 30


def test_a_newcomer_has_a_place_when_callers_have_all_the_others() -> None:
    connections: set[Connection] = set()
    room = KeylessConnections(connections)
    for number in range(39):
        room.discard(Connection(room, connections, f"a{number}"))  # it showed its key
    first, second = (Connection(room, connections, "b") for _ in range(2))
    assert (first.evicted, second.evicted) == (True, False)
    third = Connection(room, connections, "c")
    assert (second.evicted, third.evicted) == (True, False)


def test_what_is_forgotten_twice_is_forgotten() -> None:
    connections: set[Connection] = set()
    room = KeylessConnections(connections)
    one = Connection(room, connections, "a")
    room.discard(one)
    room.discard(one)
    assert repr(room) == "<KeylessConnections 0 from 0 addresses>"


def test_an_ipv6_host_is_its_network_and_an_ipv4_one_is_itself() -> None:
    connections: set[Connection] = set()
    room = KeylessConnections(connections)
    fours = [Connection(room, connections, f"::ffff:10.0.0.{number}") for number in range(11)]
    many = [Connection(room, connections, f"2001:db8::{number:x}%eth0") for number in range(11)]
    neighbour = Connection(room, connections, "2001:db8:0:1::1")
    assert [each.evicted for each in (*fours, neighbour)] == [False] * 12
    assert [each.evicted for each in many] == [True] + [False] * 10
    for each in (*fours, *many):
        room.discard(each)
    room.discard(neighbour)
    assert repr(room) == "<KeylessConnections 0 from 0 addresses>"
