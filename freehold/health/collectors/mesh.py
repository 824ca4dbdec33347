"""The packet-loss mesh of one node: ten times a second a datagram to every peer, and what came of them as `Peer` values.

The process wakes ten times a second and sends one datagram to each peer; with every third it takes what has come.
There are no replies and no event per packet: the kernel's arrival stamps make up for reading late, and what a peer got is in its own
next datagram (`mesh.frame`). So a mesh of 8 peers costs some milliseconds of CPU a second and cannot be used as an amplifier.

It takes frames that carry the mesh's key and were meant for this node; anything else is counted and ignored.
It judges nothing (`checks.network_loss` does) and never gives up a peer.
"""

import asyncio
import errno
import ipaddress
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from freehold.core.clock import SYSTEM_CLOCK, Clock
from freehold.core.problems import Problem
from freehold.health.collectors.mesh_host import (
    ask_host,
    family_of,
    interface_to,
    link_state,
    path_mtu,
)
from freehold.health.collectors.mesh_socket import ReceivedDatagram, Receiver, Senders
from freehold.health.mesh.frame import (
    KEY_BYTES_MIN,
    MeshFrame,
    decode,
    encode,
    is_large,
    node_id,
    pack_reports,
    report_id,
    unpack_reports,
)
from freehold.health.mesh.stream import NOT_ASKED, PeerHost, Stream
from freehold.health.model.targets import MeshNode
from freehold.health.model.view import Peer, State

PORT = 8742
"""UDP; our own choice, below the ephemeral range and free in IANA's list as far as we know."""
RATE_HZ = 10.0
"""Datagrams a second to each peer (our own choice): 600 a minute find 1 % of loss with 94 %."""
RATES_HZ = (1.0, 50.0)
"""Slower shows nothing within a minute, faster costs more than it shows."""
PEERS_MOST = 32
"""A farm has 2 to 8 nodes; beyond this the caller chooses which to watch, since cost grows with each peer."""
LARGE_BYTES_MOST = 9000
"""Jumbo frames; a loopback's 64 KiB are not a path's MTU."""
HEADERS_BYTES = {socket.AF_INET: 28, socket.AF_INET6: 48}
"""IP and UDP (RFC 791, 8200, 768), without options."""
ASK_AFTER_S = 1.0
"""Silence after which a peer's host is asked otherwise: ten datagrams at 10 a second, and long before any verdict."""
ASK_EVERY_S = 2.0
"""Then so often, so that an answer is never older than a verdict may be."""
ASK_FIRST = 10
"""After so many questions (20 s) a host is asked seldom: it stays silent, and nothing waits for the answer."""
ASK_SELDOM_S = 15.0
"""How often then."""
READ_EVERY = 2.5
"""Intervals after which what came is read, so with every third tick: reading in batches costs less, and the kernel's
stamps show when each arrived. Receipts are 0.3 s old by that, far from the 2 s of an outage."""
MIND_EVERY_S = 0.5
"""How often it is looked whether a peer has fallen silent: half of the silence that is waited for."""
LEARN_EVERY_S = 60.0
"""How often the path's MTU and interface are looked up anew, and a name that did not resolve."""
UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
ANOTHERS = {*UNREACHABLE, errno.ECONNREFUSED, errno.EMSGSIZE}
"""ICMP errors of a datagram; the kernel reports them at the next one, whatever its receiver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshSettings:
    """What one node's mesh needs to know."""

    node: str
    key: bytes
    """At least 16 bytes, the same on all nodes."""
    peers: tuple[MeshNode, ...]
    listen_host: str = "0.0.0.0"  # noqa: S104 - peers come from other machines; the key keeps strangers out
    listen_port: int = PORT
    rate_hz: float = RATE_HZ
    """Datagrams a second and peer, 1 to 50; the same on all nodes, since runs are judged by their number."""


def settings_problems(settings: MeshSettings, where: str) -> list[Problem]:
    """Return every mistake in them; `where` is how the user's file calls the place."""
    names = [peer.name for peer in settings.peers]
    low, high = RATES_HZ
    rules = (
        (len(settings.key) >= KEY_BYTES_MIN, f"the mesh's secret is shorter than {KEY_BYTES_MIN} bytes", ""),
        (len(names) <= PEERS_MOST, f"{len(names)} peers, at most {PEERS_MOST}", "watch a part of them"),
        (len(set(names)) == len(names), "two peers have the same name", "each node needs a name of its own"),
        (settings.node not in names, f"{settings.node!r} is this node and its own peer", "leave it out"),
        (
            low <= settings.rate_hz <= high,
            f"rate_hz is {settings.rate_hz:g}, but {low:g} to {high:g} is possible",
            "",
        ),
    )
    return [Problem(where=where, message=message, hint=hint) for holds, message, hint in rules if not holds]


@dataclass(slots=True)
class _Remote:
    settings: MeshNode
    id: int
    stream: Stream
    address: tuple[str, int] | None = None
    senders: Senders | None = None
    """None until the address is known."""
    large_bytes: int = 0
    host: PeerHost = NOT_ASKED
    interface: str = ""
    drops: int = 0
    asked_s: float = 0.0
    asked_times: int = 0
    learned_s: float | None = None


@dataclass
class Mesh:
    """One node's mesh: `open`, then `run` in a task; `sample` whenever a view is made; `close` at the end."""

    settings: MeshSettings
    clock: Clock = SYSTEM_CLOCK
    ignored: int = 0
    """Datagrams that were none of this mesh's, ever."""
    _remotes: list[_Remote] = field(default_factory=list)
    _reports: bytes = b""
    _senders: dict[socket.AddressFamily, Senders] = field(default_factory=dict)
    _receiver: Receiver | None = None
    _asking: asyncio.Task[None] | None = None
    _minded_s: float = -MIND_EVERY_S
    _received_s: float = -MIND_EVERY_S
    _ended: asyncio.Future[None] | None = None
    _next_tick: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self._id = node_id(self.settings.node)
        self._boot = secrets.randbits(63) | 1
        self._remotes = [
            _Remote(peer, node_id(peer.name), Stream(self._boot, 0.0)) for peer in self.settings.peers
        ]
        self._by_id = {remote.id: remote for remote in self._remotes}
        names = (self.settings.node, *(peer.name for peer in self.settings.peers))
        self._names = {report_id(node_id(name)): name for name in names}

    @property
    def port(self) -> int:
        """Return the UDP port that it listens on, once open; before that the one asked for."""
        return self._receiver.port if self._receiver else self.settings.listen_port

    def open(self) -> None:
        """Bind the receiving socket; Permanent when that cannot be had."""
        self._receiver = Receiver(self.settings.listen_host, self.settings.listen_port, self.clock)

    async def run(self) -> None:
        """Send and receive until cancelled; a fault of ours ends it with that exception."""
        loop = asyncio.get_running_loop()
        now_s = self.clock.monotonic_s()
        for remote in self._remotes:
            remote.stream.began_s = now_s
        self._ended = loop.create_future()
        self._tick_and_again(loop, loop.time())
        try:
            await self._ended
        finally:
            if self._next_tick:
                self._next_tick.cancel()

    def sample(self) -> tuple[Peer, ...]:
        """Return one `Peer` each, with what happened since the last sample."""
        self._receive()
        now_s = self.clock.monotonic_s()
        peers = tuple(self._peer(remote, now_s) for remote in self._remotes)
        lost = sorted((remote.stream.lost_lately, report_id(remote.id)) for remote in self._remotes)
        self._reports = pack_reports([(node, count) for count, node in reversed(lost)])
        return peers

    def close(self) -> None:
        """Close the sockets; `run` must have ended."""
        if self._asking:
            self._asking.cancel()
        for senders in self._senders.values():
            senders.close()
        if self._receiver:
            self._receiver.close()

    # ---- ten times a second ------------------------------------------------------------------------------------

    def _tick_and_again(self, loop: asyncio.AbstractEventLoop, planned_s: float) -> None:
        """Tick and plan the next one: a timer of the loop costs a third less than a task that sleeps (measured)."""
        try:
            self._tick()
        except BaseException as exc:
            assert self._ended
            self._ended.set_exception(exc)
            raise
        # What was missed is not made up for: no bursts after a stop.
        next_s = max(planned_s + 1 / self.settings.rate_hz, loop.time())
        self._next_tick = loop.call_at(next_s, self._tick_and_again, loop, next_s)

    def _tick(self) -> None:
        now_s = self.clock.monotonic_s()
        if now_s - self._received_s > READ_EVERY / self.settings.rate_hz:
            self._receive()
            now_s = self.clock.monotonic_s()
        for turn, remote in enumerate(self._remotes):
            if remote.senders:
                self._send(remote, turn, now_s)
        if now_s - self._minded_s >= MIND_EVERY_S:
            self._minded_s = now_s
            self._ask_about_silence(now_s)

    def _receive(self) -> None:
        assert self._receiver, "open it first"
        self._received_s = self.clock.monotonic_s()
        for arrival in self._receiver.take():
            self._take(arrival, decode(arrival.data, self.settings.key))
        self._take_returned()

    def _take(self, arrival: ReceivedDatagram, frame: MeshFrame | None) -> None:
        remote = self._by_id.get(frame.sender) if frame else None
        if not frame or not remote or frame.receiver != self._id:
            self._ignore(arrival.host)
            return
        ours = arrival.drops != remote.drops
        remote.drops = arrival.drops
        remote.stream.receive(frame, arrival.at_s, ours=ours)

    def _ignore(self, host: str) -> None:
        """Count a datagram that is none of ours; one from a peer's address may say that its settings differ from these."""
        self.ignored += 1
        for remote in self._remotes:
            remote.stream.foreign += remote.address is not None and remote.address[0] == host

    def _send(self, remote: _Remote, turn: int, now_s: float) -> None:
        number = remote.stream.out.take_number()
        frame = MeshFrame(
            sender=self._id,
            receiver=remote.id,
            boot=self._boot,
            sequence=number,
            sent_ns=int(now_s * 1e9),
            receipt=remote.stream.receipt(now_s),
            reports=self._reports,
        )
        size = remote.large_bytes if is_large(number) else 0
        # The second term moves large ones, which are every tenth, over all ports.
        port = number + number // 10 + turn
        assert remote.senders
        assert remote.address
        error = remote.senders.send(port, encode(frame, self.settings.key, size=size), remote.address)
        if error:
            self._send_again(remote, port, frame, error)

    def _send_again(self, remote: _Remote, port: int, frame: MeshFrame, error: int) -> None:
        """Send once more where the error may have been an earlier datagram's, or this one was too large for the link.

        Any other error, a filter's EPERM or a full queue's ENOBUFS, is this datagram's own loss and stays one.
        """
        self._take_returned()
        if error not in ANOTHERS:
            return
        if error == errno.EMSGSIZE:
            remote.learned_s = None
        assert remote.senders
        assert remote.address
        if remote.senders.send(port, encode(frame, self.settings.key), remote.address) in UNREACHABLE:
            remote.stream.unreachable += 1

    def _take_returned(self) -> None:
        for senders in self._senders.values():
            for returned in senders.returned():
                for remote in self._remotes:
                    if remote.address == returned.address:
                        _count_returned(remote, returned.error)

    def _senders_to(self, host: str) -> Senders:
        family = family_of(host)
        if family not in self._senders:
            listen = self.settings.listen_host
            own = family_of(listen) is family and not ipaddress.ip_address(listen).is_unspecified
            self._senders[family] = Senders(family, listen if own else "")
        return self._senders[family]

    # ---- seldom ------------------------------------------------------------------------------------------------

    def _peer(self, remote: _Remote, now_s: float) -> Peer:
        stream = remote.stream
        silent = stream.silent_s(now_s) >= ASK_AFTER_S
        if silent:
            link = link_state(remote.interface)
            host = replace(remote.host, interface=remote.interface, link=link)
        else:
            host = replace(NOT_ASKED, interface=remote.interface)
        reports = unpack_reports(stream.reports)
        reported = {self._names[node]: lost for node, lost in reports if node in self._names}
        return stream.sample(remote.settings.name, now_s, host=host, reported=reported)

    def _ask_about_silence(self, now_s: float) -> None:
        if self._asking and not self._asking.done():
            return
        if self._asking:
            self._asking.result()
        due = [remote for remote in self._remotes if self._is_due(remote, now_s)]
        unknown = [
            remote
            for remote in self._remotes
            if remote.learned_s is None or now_s - remote.learned_s >= LEARN_EVERY_S
        ]
        self._asking = asyncio.create_task(self._ask(due, unknown)) if due or unknown else None

    def _is_due(self, remote: _Remote, now_s: float) -> bool:
        if remote.stream.silent_s(now_s) < ASK_AFTER_S:
            remote.asked_times, remote.host = 0, NOT_ASKED
            return False
        every_s = ASK_EVERY_S if remote.asked_times < ASK_FIRST else ASK_SELDOM_S
        return remote.asked_times == 0 or now_s - remote.asked_s >= every_s

    async def _ask(self, due: Sequence[_Remote], unknown: Sequence[_Remote]) -> None:
        for remote in unknown:
            await self._learn(remote)
        await asyncio.gather(*(self._ask_one(remote) for remote in due))

    async def _ask_one(self, remote: _Remote) -> None:
        remote.asked_s, remote.asked_times = self.clock.monotonic_s(), remote.asked_times + 1
        if remote.address:
            remote.host = PeerHost(control=await ask_host(remote.address))
        else:
            remote.host = PeerHost(control=State.ABSENT)

    async def _learn(self, remote: _Remote) -> None:
        remote.learned_s = self.clock.monotonic_s()
        remote.address = await _resolve(remote.settings) or remote.address
        if not remote.address:
            return
        remote.senders = self._senders_to(remote.address[0])
        mtu = path_mtu(remote.address)
        remote.large_bytes = max(0, min(mtu, LARGE_BYTES_MOST) - HEADERS_BYTES[family_of(remote.address[0])])
        remote.interface = interface_to(remote.address[0]) or remote.interface


def _count_returned(remote: _Remote, error: int) -> None:
    if error == errno.ECONNREFUSED:
        remote.stream.refused += 1
    elif error in UNREACHABLE:
        remote.stream.unreachable += 1
    elif error == errno.EMSGSIZE:
        remote.learned_s = None


async def _resolve(peer: MeshNode) -> tuple[str, int] | None:
    with suppress(ValueError):
        return str(ipaddress.ip_address(peer.host)), peer.port  # no resolver and no thread for it
    try:
        found = await asyncio.get_running_loop().getaddrinfo(peer.host, peer.port, type=socket.SOCK_DGRAM)
    except OSError:
        return None
    return str(found[0][4][0]), peer.port
