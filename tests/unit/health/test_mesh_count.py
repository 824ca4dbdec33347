"""Counters on virtual time: two nodes, a wire that does what it is told, and every datagram accounted for."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.health.mesh.count import (
    JUMP_MOST,
    MARGIN,
    OUTAGE_RUN,
    DatagramCounts,
    Incoming,
    Outgoing,
    Windows,
)
from freehold.health.mesh.frame import RECEIPT_BITS, MeshFrame
from freehold.health.mesh.stream import LIVES_MOST, NOT_ASKED, RTTS_MOST, Stream
from freehold.health.model.view import Peer


@dataclass
class Side:
    """One node's stream to the other."""

    boot: int
    stream: Stream = field(init=False)
    came: int = 0

    def __post_init__(self) -> None:
        self.stream = Stream(self.boot, 0.0)

    def frame(self, now_s: float) -> MeshFrame:
        number = self.stream.out.take_number()
        return MeshFrame(
            sender=1,
            receiver=2,
            boot=self.boot,
            sequence=number,
            sent_ns=int(now_s * 1e9),
            receipt=self.stream.receipt(now_s),
        )

    def take(self, frame: MeshFrame, now_s: float, *, ours: bool = False) -> None:
        self.stream.receive(frame, now_s, ours=ours)

    def sample(self, now_s: float) -> Peer:
        return self.stream.sample("peer", now_s, host=NOT_ASKED, reported={})


def exchange(
    a: Side,
    b: Side,
    *,
    ticks: range,
    lost_out: frozenset[int] = frozenset(),
    lost_back: frozenset[int] = frozenset(),
) -> None:
    """Let both send at each tick, ten a second; a wire of 1 ms loses the ticks that it is told to."""
    for tick in ticks:
        now_s = tick / 10
        there, here = a.frame(now_s), b.frame(now_s)
        if tick not in lost_out:
            b.take(there, now_s + 0.001)
        if tick not in lost_back:
            a.take(here, now_s + 0.001)


def conserved(side: Side) -> None:
    out = side.stream.out
    tally = out.tally
    echoed = tally.settled - tally.lost
    assert out.next_number == echoed + tally.lost + tally.outage + tally.unknown + out.in_flight


FATES = st.lists(
    st.sampled_from(["both", "both", "both", "out", "back", "none", "late", "twice"]),
    min_size=30,
    max_size=200,
)


@given(FATES, st.integers(0, 200), st.integers(0, 200))
def test_every_datagram_is_echoed_lost_in_an_outage_unknown_or_in_flight(
    fates: list[str], restart_a: int, restart_b: int
) -> None:
    a, b = Side(1), Side(2)
    held: list[tuple[int, MeshFrame]] = []
    for tick, fate in enumerate(fates):
        now_s = tick / 10
        if tick == restart_a:
            a = Side(11)
        if tick == restart_b:
            b = Side(22)
        there, here = a.frame(now_s), b.frame(now_s)
        if fate in {"both", "out", "twice"}:
            b.take(there, now_s)
        if fate in {"both", "back", "twice"}:
            a.take(here, now_s)
        if fate == "twice":
            b.take(there, now_s)
        if fate == "late":
            held.append((tick, there))
        held = [(at, frame) for at, frame in held if at > tick - 5 or b.take(frame, now_s)]
        conserved(a)
        conserved(b)


@settings(max_examples=30)
@given(st.frozensets(st.integers(40, 390), max_size=30), st.frozensets(st.integers(40, 390), max_size=30))
def test_loss_is_counted_exactly_and_by_direction(
    lost_out: frozenset[int], lost_back: frozenset[int]
) -> None:
    a, b = Side(1), Side(2)
    exchange(a, b, ticks=range(500), lost_out=lost_out, lost_back=lost_back)
    for side, out, back in ((a, lost_out, lost_back), (b, lost_back, lost_out)):
        assert side.stream.out.tally.lost + side.stream.out.tally.outage == len(out)
        assert side.stream.back.tally.lost + side.stream.back.tally.outage == len(back)
        assert side.stream.out.tally.unknown <= 1
    assert a.sample(50.0).lost_out == sum(1 for _ in lost_out) - a.stream.out.tally.outage


def test_a_run_of_19_is_loss_and_one_of_20_an_outage() -> None:
    for length, lost, outage in ((19, 19, 0), (20, 0, 20), (45, 0, 45)):
        a, b = Side(1), Side(2)
        exchange(a, b, ticks=range(200), lost_out=frozenset(range(50, 50 + length)))
        peer = a.sample(20.0)
        assert (peer.lost_out, peer.outage, peer.longest_gap, peer.lost_back) == (lost, outage, length, 0)


def test_a_datagram_that_comes_after_it_was_given_up_is_not_lost_twice() -> None:
    a, b = Side(1), Side(2)
    exchange(a, b, ticks=range(20))
    held = a.frame(2.0)
    exchange(a, b, ticks=range(21, 60))
    assert b.sample(6.0).lost_back == 1
    b.take(held, 6.1)
    exchange(a, b, ticks=range(62, 90))
    assert b.stream.back.late == 1
    assert b.sample(9.0).lost_back == 0
    assert a.stream.out.tally.lost == 1


def test_reordering_and_duplicates_lose_nothing() -> None:
    a, b = Side(1), Side(2)
    for tick in range(0, 100, 2):
        first, second = a.frame(tick / 10), a.frame(tick / 10)
        for frame in (second, first, second):
            b.take(frame, tick / 10)
        a.take(b.frame(tick / 10), tick / 10)
    assert b.stream.back.tally.lost == a.stream.out.tally.lost == 0
    assert b.stream.back.reordered == 49  # the very first begins the stream
    assert b.stream.back.duplicates == 50


def test_a_process_that_was_stopped_and_reads_later_has_lost_nothing() -> None:
    a, b = Side(1), Side(2)
    exchange(a, b, ticks=range(50))
    waiting = [
        a.frame(5.0 + tick / 10) for tick in range(100)
    ]  # b is stopped for 10 s; its socket keeps them
    assert a.stream.silent_s(15.0) > 10
    for frame in waiting:
        b.take(frame, 15.0)
    exchange(a, b, ticks=range(150, 200))
    peer = a.sample(20.0)
    assert (peer.lost_out, peer.lost_back, peer.outage, peer.lost_unknown) == (0, 0, 0, 0)


def test_what_the_hosts_own_full_socket_dropped_is_no_loss_of_the_network() -> None:
    a, b = Side(1), Side(2)
    exchange(a, b, ticks=range(50))
    for _ in range(10):
        a.frame(5.0)
    b.take(a.frame(6.0), 6.0, ours=True)
    exchange(a, b, ticks=range(70, 120))
    assert a.sample(12.0).lost_out == b.sample(12.0).lost_back == 0


def test_a_restart_of_the_peer_is_recognised_and_loses_nothing() -> None:
    a, b = Side(1), Side(2)
    exchange(a, b, ticks=range(50))
    for tick in range(50, 62):
        a.frame(tick / 10)  # nobody there
    stray = b.frame(4.9)
    b = Side(3)
    exchange(a, b, ticks=range(62, 120))
    a.take(stray, 12.0)
    peer = a.sample(12.0)
    assert peer.restarts == 1
    assert a.stream.boot == 3
    assert (peer.lost_out, peer.lost_back, peer.outage) == (0, 0, 0)
    assert 12 <= peer.lost_unknown <= 12 + MARGIN + 2
    assert b.stream.out.tally.lost == 0


def test_a_recording_of_a_life_before_ours_does_not_silence_a_peer() -> None:
    recorded = Side(7).frame(0.0)
    a, b = Side(1), Side(2)
    exchange(a, b, ticks=range(50))
    a.take(recorded, 5.0)
    exchange(a, b, ticks=range(50, 100))
    assert a.stream.boot == 2
    assert a.stream.silent_s(10.0) < 1.0
    for at_s in (10.0, 10.1, 10.2):
        a.take(recorded, at_s)
    assert a.stream.boot == 2
    assert (a.stream.back.tally.lost, a.stream.out.tally.lost) == (0, 0)


def test_a_copy_of_an_old_datagram_is_no_sign_of_life() -> None:
    a, b = Side(1), Side(2)
    recorded = [b.frame(tick / 10) for tick in range(30)]
    for tick, frame in enumerate(recorded):
        a.take(frame, tick / 10)
    for tick, frame in enumerate(recorded):
        a.take(frame, 10 + tick / 10)
    assert a.stream.silent_s(13.0) == pytest.approx(10.1)


def test_earlier_lives_that_are_remembered_have_a_bound() -> None:
    a = Side(1)
    for boot in range(2, 100):
        a.take(Side(boot).frame(0.0), boot / 10)
    assert len(a.stream._lives) == LIVES_MOST


def test_our_own_restart_is_no_loss_for_the_peer() -> None:
    a, b = Side(1), Side(2)
    exchange(a, b, ticks=range(50))
    a = Side(9)
    exchange(a, b, ticks=range(50, 100))
    assert b.sample(10.0).restarts == 1
    assert b.stream.back.tally.lost == b.stream.out.tally.lost == a.stream.out.tally.lost == 0


def test_one_way_cut_shows_as_unconfirmed_while_the_peer_is_heard() -> None:
    a, b = Side(1), Side(2)
    exchange(a, b, ticks=range(100), lost_out=frozenset(range(50, 100)))
    peer = a.sample(10.0)
    assert peer.unconfirmed == 50
    assert peer.silent_s < 0.2
    assert a.stream.lost_lately == 50
    assert peer.lost_out == 0  # an outage that goes on


def test_a_very_long_absence_costs_no_memory_and_bounded_work() -> None:
    incoming = Incoming()
    incoming.accept(0)
    incoming.accept(JUMP_MOST + 1)
    assert incoming.tally.outage == 0
    incoming.accept(2 * JUMP_MOST)
    assert incoming.tally.outage > JUMP_MOST - 2 * OUTAGE_RUN
    assert incoming.bits < 1 << RECEIPT_BITS
    outgoing = Outgoing()
    outgoing.next_number = 10**6
    incoming.accept(2 * JUMP_MOST + 50)
    a = Side(1)
    assert outgoing.confirm(a.stream.receipt(0.0)) is True  # number 0 alone
    assert outgoing.in_flight == 10**6


def test_a_receipt_for_what_was_never_sent_is_not_taken() -> None:
    a, b = Side(1), Side(2)
    exchange(a, b, ticks=range(30))
    told = b.stream.receipt(3.0)
    ahead = Outgoing()
    assert ahead.confirm(told) is False
    assert ahead.top == -1


def test_round_trips_leave_out_what_a_process_waited_and_are_bounded() -> None:
    a, b = Side(1), Side(2)
    for tick in range(2 * RTTS_MOST):
        now_s = tick / 10
        b.take(a.frame(now_s), now_s + 0.002)
        a.take(b.frame(now_s + 0.09), now_s + 0.093)  # 88 ms later, 3 ms back
    peer = a.sample(100.0)
    assert len(peer.rtt_s) == RTTS_MOST
    assert all(abs(rtt_s - 0.005) < 1e-4 for rtt_s in peer.rtt_s)


def test_windows_forget_and_samples_are_differences() -> None:
    a, b = Side(1), Side(2)
    peer = a.sample(0.0)
    for begin in range(0, 9000, 10):
        lost = frozenset({1000, 1010, 1020})
        exchange(a, b, ticks=range(begin, begin + 10), lost_out=lost)
        peer = a.sample((begin + 10) / 10)
        if begin == 1200:
            assert [window.lost_out for window in peer.windows] == [3, 3, 3, 3]
        if begin == 2000:
            assert [window.lost_out for window in peer.windows] == [0, 3, 3, 3]
        assert peer.sent == 10
    assert [window.lost_out for window in peer.windows] == [0, 0, 0, 0]
    assert [600 <= peer.windows[0].settled_out <= 650, 6000 <= peer.windows[3].settled_out <= 6050] == [
        True,
        True,
    ]
    assert peer.windows[0].large_out == peer.windows[0].settled_out // 10


def test_windows_keep_no_more_snapshots_than_they_need() -> None:
    windows = Windows()
    for second in range(5000):
        windows.take(float(second), DatagramCounts(), DatagramCounts())
    assert len(windows._kept) <= 600 / 5 + 2


def test_a_receipt_made_with_an_older_time_than_the_arrival_has_waited_nothing() -> None:
    a, b = Side(1), Side(2)
    b.take(a.frame(1.0), 1.002)
    assert b.stream.receipt(1.001).held_us == 0
