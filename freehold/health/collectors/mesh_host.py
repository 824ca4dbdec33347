"""A silent peer's host, asked otherwise: does it answer TCP, is it a neighbour, and is our own link up.

A process that is stopped sends nothing, but its kernel still answers. So one TCP connection attempt distinguishes a
host that is up from one that is not: connected and refused both mean up. By default the attempt goes to the mesh's own
port number, where no process listens on TCP, because connections to a stopped listener would pile up there.

Own link and MTU come from /proc/net/route and /sys/class/net; no netlink and no program is started. It asks only when a
peer is silent, never in between, and judges nothing.
"""

import asyncio
import errno
import ipaddress
import socket
from contextlib import closing
from pathlib import Path

from freehold.health.model.view import State

CONNECT_S = 1.0
"""How long a host has to answer: hosts of one farm answer in a millisecond; the kernel's first SYN repeat comes after 1 s."""
PROC_NET = Path("/proc/net")
SYS_NET = Path("/sys/class/net")
IP_MTU = {socket.AF_INET: (socket.IPPROTO_IP, 14), socket.AF_INET6: (socket.IPPROTO_IPV6, 24)}
"""linux/in.h, linux/in6.h: IP_MTU, IPV6_MTU; of a connected socket: the MTU that the kernel knows for the path."""
_COMPLETE = 0x2
"""linux/if_arp.h: ATF_COM, the neighbour has a hardware address."""
_GONE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL}


async def ask_host(address: tuple[str, int]) -> State:
    """Return OK where the host answered (connected or refused), LOST where it is unreachable, HUNG after one second."""
    family = family_of(address[0])
    with closing(socket.socket(family, socket.SOCK_STREAM)) as asked:
        asked.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().sock_connect(asked, address)
        except TimeoutError:
            return State.LOST if neighbour_state(address[0]) is State.LOST else State.HUNG
        except OSError as exc:
            return _state_of(exc)
    return State.OK


def _state_of(exc: OSError) -> State:
    if exc.errno in {errno.ECONNREFUSED, errno.ECONNRESET}:
        return State.OK
    return State.LOST if exc.errno in _GONE else State.UNKNOWN


def family_of(host: str) -> socket.AddressFamily:
    """Return the address family of an IP address in text."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def path_mtu(address: tuple[str, int]) -> int:
    """Return the MTU that the kernel knows for the path, in bytes; 0 when it has no route there."""
    family = family_of(address[0])
    try:
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as asked:
            asked.connect(address)
            return asked.getsockopt(*IP_MTU[family])
    except OSError:
        return 0


def neighbour_state(host: str) -> State:
    """Return OK for a resolved neighbour, LOST for one that does not answer, ABSENT for none. IPv4 only, else UNKNOWN."""
    try:
        lines = (PROC_NET / "arp").read_text().splitlines()[1:]
    except OSError:
        return State.UNKNOWN
    for words in map(str.split, lines):
        if words and words[0] == host:
            return State.OK if int(words[2], 16) & _COMPLETE else State.LOST
    return State.UNKNOWN if ":" in host else State.ABSENT


def interface_to(host: str) -> str:
    """Return the name of the interface on the way to an address, by the longest prefix; empty when there is none.

    Reads the main IPv4 table; policy routing and IPv6 are not followed.
    """
    if ":" in host:
        return ""
    try:
        lines = (PROC_NET / "route").read_text().splitlines()[1:]
    except OSError:
        return ""
    wanted = int.from_bytes(ipaddress.IPv4Address(host).packed, "little")
    best = max((row for row in map(_route, lines) if wanted & row[1] == row[2]), default=(-1, 0, 0, ""))
    return best[3]


def _route(line: str) -> tuple[int, int, int, str]:
    words = line.split()
    mask = int(words[7], 16)
    return mask.bit_count(), mask, int(words[1], 16), words[0]


def link_state(interface: str) -> State:
    """Return OK with a carrier, LOST for an interface that is down, without carrier or gone, UNKNOWN without a name."""
    if not interface:
        return State.UNKNOWN
    try:
        return State.OK if (SYS_NET / interface / "carrier").read_text().strip() == "1" else State.LOST
    except FileNotFoundError:
        return State.LOST if SYS_NET.exists() else State.UNKNOWN
    except OSError:  # EINVAL: it is switched off
        return State.LOST
