"""One peer of the mesh: its stream and ours, restarts of either side, round trips, and the `Peer` that a view gets.

Everything is counted since the start, and `sample` returns the difference to the sample before, so no event
between two views is lost or seen twice. A peer's new start is known by its boot number, and what was on its way then is
"not known", never lost. It does no I/O and knows no clock: `now_s` is the running module's monotonic one.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from freehold.health.mesh.count import MARGIN, OUTAGE_RUN, Incoming, Outgoing, Windows
from freehold.health.mesh.frame import NOTHING_RECEIVED, MeshFrame, Receipt
from freehold.health.model.view import Peer, State

RTTS_MOST = 200
"""Round trips kept per view, as `view.Peer` says."""
LIVES_MOST = 8
"""Earlier starts of a peer's agent that are remembered; our own bound, each is two numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerHost:
    """What was learned of a peer's host and the way to it, outside the mesh."""

    control: State = State.UNKNOWN
    """OK: it answered TCP; LOST: unreachable; HUNG: no answer."""
    interface: str = ""
    link: State = State.UNKNOWN


NOT_ASKED = PeerHost()


@dataclass(slots=True)
class Stream:
    """Both directions to one peer, restarts of either side included."""

    own_boot: int
    began_s: float
    out: Outgoing = field(default_factory=Outgoing)
    back: Incoming = field(default_factory=Incoming)
    boot: int = 0
    """The peer's; 0: nothing received yet."""
    restarts: int = 0
    heard_s: float = 0.0
    """When its last datagram came; 0: never."""
    reports: bytes = b""
    rtts_s: deque[float] = field(default_factory=lambda: deque(maxlen=RTTS_MOST))
    _lives: dict[int, int] = field(default_factory=dict)
    """Earlier starts of the peer, with the highest number that came of each."""
    _echo_ns: int = 0
    _arrived_s: float = 0.0
    _known_again: bool = False
    refused: int = 0
    unreachable: int = 0
    foreign: int = 0
    """From its address, but none of this mesh's."""
    unconfirmed: int = 0
    """Of ours, when the peer last spoke."""
    lost_lately: int = 0
    """What a report says on this peer: lost within 60 s, and the loss of an outage that continues."""
    windows: Windows = field(default_factory=Windows)
    _sampled: tuple[int, ...] = (0,) * 9

    def receive(self, frame: MeshFrame, now_s: float, *, ours: bool = False) -> None:
        """Take a frame that arrived at the host at `now_s`; `ours`: this host dropped some before it."""
        if frame.boot != self.boot:
            if self._is_past(frame):
                return
            self._meet(frame.boot)
        if self.back.accept(frame.sequence, ours=ours):
            self.heard_s = now_s  # a copy of an old one is not a sign of life
            self._echo_ns, self._arrived_s = frame.sent_ns, now_s
            self.reports = frame.reports
        if frame.receipt.boot == self.own_boot:
            self._confirm(frame.receipt, now_s)
        self.unconfirmed = self.out.unconfirmed

    def receipt(self, now_s: float) -> Receipt:
        """Return the receipt for the peer's own stream."""
        if self.back.top < 0:
            return NOTHING_RECEIVED
        return Receipt(
            boot=self.boot,
            top=self.back.top,
            bits=self.back.bits,
            echo_ns=self._echo_ns,
            held_us=max(0, int((now_s - self._arrived_s) * 1e6)),
        )

    def silent_s(self, now_s: float) -> float:
        """Return the seconds since its last datagram, or since the mesh began."""
        return max(0.0, now_s - (self.heard_s or self.began_s))

    def _is_past(self, frame: MeshFrame) -> bool:
        """Return whether it is of an earlier start: late, or a recording that was sent again.

        A start whose numbers continue did not end: what seemed to follow it was such a recording, of a start before ours.
        """
        top = self._lives.get(frame.boot)
        return top is not None and frame.sequence <= top + MARGIN

    def _meet(self, boot: int) -> None:
        if self.boot:
            self.restarts += 1
            self._lives[self.boot] = self.back.top
            self._lives.pop(boot, None)
            while len(self._lives) > LIVES_MOST:
                del self._lives[next(iter(self._lives))]
        self.boot = boot
        self.back.restart()
        self._known_again = False

    def _confirm(self, receipt: Receipt, now_s: float) -> None:
        if not self._known_again:
            self.out.restart(receipt)
            self._known_again = True
        if self.out.confirm(receipt):
            self.rtts_s.append(max(0.0, now_s - receipt.echo_ns / 1e9 - receipt.held_us / 1e6))

    def sample(self, name: str, now_s: float, *, host: PeerHost, reported: Mapping[str, int]) -> Peer:
        """Return what happened since the last sample, and how things stand."""
        out, back = self.out.tally, self.back.tally
        windows = self.windows.take(now_s, out, back)
        overdue = self.out.unconfirmed if self.out.unconfirmed >= OUTAGE_RUN else 0
        self.lost_lately = windows[0].lost_out + windows[0].lost_back + overdue
        new = self._since_last()
        rtts_s = tuple(self.rtts_s)
        self.rtts_s.clear()
        return Peer(
            name=name,
            sent=new[0],
            lost_out=new[1],
            lost_back=new[2],
            lost_unknown=new[3],
            outage=new[4],
            refused=new[5],
            unreachable=new[6],
            restarts=new[7],
            foreign=new[8],
            longest_gap=max(out.take_longest(), back.take_longest()),
            rtt_s=rtts_s,
            silent_s=self.silent_s(now_s),
            unconfirmed=self.unconfirmed,
            large_run_out=out.large_run,
            large_run_back=back.large_run,
            control=host.control,
            interface=host.interface,
            link=host.link,
            windows=windows,
            reported=dict(reported),
        )

    def _since_last(self) -> tuple[int, ...]:
        out, back = self.out.tally, self.back.tally
        ever = (
            self.out.next_number,
            out.lost,
            back.lost,
            out.unknown + back.unknown,
            out.outage + back.outage,
            self.refused,
            self.unreachable,
            self.restarts,
            self.foreign,
        )
        before, self._sampled = self._sampled, ever
        return tuple(now - then for now, then in zip(ever, before, strict=True))
