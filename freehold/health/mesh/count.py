"""What became of the datagrams between this node and one peer, by direction, from numbers and receipts alone.

The idea: a datagram's fate is decided by *later numbers*, not by a timer: once the receiver has one that is 16 higher,
what is still missing is lost. So a process that was stopped or starved for seconds loses nothing by it: when it comes
back it reads what its socket kept, in order, and so does its peer. Decisions fall in the order of the numbers, so
runs are known: 20 or more in a row are an outage and counted apart.

Per peer this keeps integers, a set of 128 bits and 121 snapshots for the windows, however long a peer is gone. It does
no I/O and knows no clock: `now_s` is any clock that does not go back.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

from freehold.health.mesh.frame import RECEIPT_BITS, Receipt, is_large
from freehold.health.model.view import LossWindow

MARGIN = 16
"""How many numbers later a missing datagram is given up: 1.6 s at 10 a second; our own choice: no path reorders by that."""
OUTAGE_RUN = 20
"""A run of 20 lost ones, 2 s at 10 a second, is an outage and not loss: at 20 % random loss the longest run of 2,000 was 4
(our own measurement)."""
JUMP_MOST = 6_000
"""Ten minutes at 10 a second, the longest window: a stream that jumps by more is counted from there on, which bounds the work."""
_RECEIPT_MASK = (1 << RECEIPT_BITS) - 1
WINDOWS_S = (60, 120, 300, 600)
"""60, 300 and 600 s are what the bounds were computed for; 120 s shows whether a loss went on."""
BUCKET_S = 5
"""How far apart the snapshots are that windows begin at: a window of 60 s covers 60 to 65 s."""


@dataclass(slots=True)
class DatagramCounts:
    """One direction's decided datagrams, ever. decided = settled + outage + unknown + open run."""

    settled: int = 0
    """Came, or lost in a run that ended before it was an outage."""
    lost: int = 0
    outage: int = 0
    unknown: int = 0
    large: int = 0
    """Of `settled`."""
    large_lost: int = 0
    """Of `lost`."""
    run: int = 0
    """Lost in a row up to now."""
    longest: int = 0
    """Longest run since `take_longest`."""
    large_run: int = 0
    """Large ones lost in a row up to now."""
    _run_large: int = 0

    @property
    def open(self) -> int:
        """Return how many lost ones are neither loss nor outage yet."""
        return self.run if self.run < OUTAGE_RUN else 0

    def came(self, *, large: bool) -> None:
        """Count one that came, which ends a run."""
        if self.run:
            self._end_run()
        self.settled += 1
        if large:
            self.large += 1
            self.large_run = 0

    def missing(self, *, large: bool) -> None:
        """Count one that did not come."""
        self.run += 1
        self._run_large += large
        self.large_run += large
        self.longest = max(self.longest, self.run)
        if self.run == OUTAGE_RUN:
            self.outage += self.run
        elif self.run > OUTAGE_RUN:
            self.outage += 1

    def not_known(self, count: int) -> None:
        """Count some whose fate cannot be known; a run ends there."""
        self._end_run()
        self.unknown += count

    def take_longest(self) -> int:
        """Return the longest run since the last call."""
        longest, self.longest = self.longest, self.run
        return longest

    def _end_run(self) -> None:
        if self.run < OUTAGE_RUN:
            self.lost += self.run
            self.settled += self.run
            self.large += self._run_large
            self.large_lost += self._run_large
        self.run = self._run_large = 0


def _decide(tally: DatagramCounts, begin: int, top: int, bits: int) -> int:
    """Decide what is 16 below the top and not decided yet; return the first number that still is not."""
    number = begin
    while number <= top - MARGIN:
        large = is_large(number)
        if bits >> (top - number) & 1:
            tally.came(large=large)
        else:
            tally.missing(large=large)
        number += 1
    return number


@dataclass(slots=True)
class Incoming:
    """The peer's stream as it comes here."""

    tally: DatagramCounts = field(default_factory=DatagramCounts)
    top: int = -1
    """-1: nothing came yet."""
    bits: int = 0
    late: int = 0
    """Came after their fate was decided; what is lost stays lost, and is not lost twice."""
    duplicates: int = 0
    reordered: int = 0
    _next: int = 0

    def accept(self, number: int, *, ours: bool = False) -> bool:
        """Take a datagram's number; return whether it is the newest. `ours`: this host dropped what is missing before it.

        What the host's own full socket dropped did come over the network, so it counts as come.
        """
        ahead = number - self.top
        if self.top < 0 or ahead > JUMP_MOST:
            self._begin(number)
        elif ahead > 0:
            self._advance(ahead, ours=ours)
        else:
            self._fill(number, -ahead)
            return False
        return True

    def restart(self) -> None:
        """Forget the stream: the peer begins a new one."""
        self.top, self.bits = -1, 0

    def _begin(self, number: int) -> None:
        self.tally.not_known(0)
        self.top, self.bits, self._next = number, 1, number

    def _advance(self, ahead: int, *, ours: bool) -> None:
        between = (1 << ahead) - 2 if ours else 0
        self.top += ahead
        self.bits = self.bits << ahead | between | 1
        self._next = _decide(self.tally, self._next, self.top, self.bits)
        self.bits &= _RECEIPT_MASK

    def _fill(self, number: int, behind: int) -> None:
        if number < self._next:
            self.late += 1
        elif self.bits >> behind & 1:
            self.duplicates += 1
        else:
            self.reordered += 1
            self.bits |= 1 << behind


@dataclass(slots=True)
class Outgoing:
    """Our stream to the peer, by its receipts."""

    tally: DatagramCounts = field(default_factory=DatagramCounts)
    next_number: int = 0
    top: int = -1
    """The highest of ours that it confirmed."""
    _next: int = 0

    @property
    def unconfirmed(self) -> int:
        """Return how many were sent after the highest confirmed one."""
        return self.next_number - 1 - self.top

    @property
    def in_flight(self) -> int:
        """Return how many are neither settled, nor in an outage, nor unknown."""
        return self.next_number - self._next + self.tally.open

    def take_number(self) -> int:
        """Return the next datagram's number."""
        number = self.next_number
        self.next_number += 1
        return number

    def confirm(self, receipt: Receipt) -> bool:
        """Take what the peer got; return whether it confirms anything new."""
        if not self.top < receipt.top < self.next_number:
            return False
        self.top = receipt.top
        self._skip_to(receipt.top - RECEIPT_BITS + 1)
        self._next = _decide(self.tally, self._next, receipt.top, receipt.bits)
        return True

    def restart(self, receipt: Receipt) -> None:
        """The peer began anew and knows only what `receipt` says: all before it is not known."""
        if receipt.top < self.next_number:
            self._skip_to(receipt.top)

    def _skip_to(self, number: int) -> None:
        if number > self._next:
            self.tally.not_known(number - self._next)
            self._next = number


@dataclass(slots=True)
class Windows:
    """Counts of the last minutes, from snapshots every 5 s of what was counted ever."""

    _times_s: list[float] = field(default_factory=list)
    _kept: list[tuple[int, ...]] = field(default_factory=list)

    def take(self, now_s: float, out: DatagramCounts, back: DatagramCounts) -> tuple[LossWindow, ...]:
        """Return a window per length of `WINDOWS_S`; shorter than that while the mesh is young."""
        counts = (*_counts(out), *_counts(back))
        if not self._kept or now_s - self._times_s[-1] >= BUCKET_S:
            self._times_s.append(now_s)
            self._kept.append(counts)
            old = bisect_right(self._times_s, now_s - WINDOWS_S[-1]) - 1
            del self._times_s[: max(0, old)], self._kept[: max(0, old)]
        return tuple(self._window(seconds, now_s, counts) for seconds in WINDOWS_S)

    def _window(self, seconds: int, now_s: float, counts: tuple[int, ...]) -> LossWindow:
        base = self._kept[max(0, bisect_right(self._times_s, now_s - seconds) - 1)]
        new = [now - then for now, then in zip(counts, base, strict=True)]
        return LossWindow(
            seconds=seconds,
            settled_out=new[0],
            lost_out=new[1],
            large_out=new[2],
            large_lost_out=new[3],
            settled_back=new[4],
            lost_back=new[5],
            large_back=new[6],
            large_lost_back=new[7],
        )


def _counts(tally: DatagramCounts) -> tuple[int, int, int, int]:
    return tally.settled, tally.lost, tally.large, tally.large_lost
