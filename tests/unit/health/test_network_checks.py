"""network_link and rdma on scripted views."""

from collections.abc import Iterable, Mapping

import msgspec
import pytest

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.checks import network_link, rdma
from freehold.health.model.probe import Expected
from freehold.health.model.view import Interface, Network, RdmaPort, Reading, State, View


def card(
    *,
    carrier: int | None = 1,
    ups: int | None = 1,
    changes: int = 2,
    speed: int | None = 25000,
    wanted: bool = True,
    **counters: int,
) -> Interface:
    def reading(value: int | None) -> Reading:
        return (
            Reading(state=State.TRANSIENT, detail="Invalid argument")
            if value is None
            else Reading(value=value)
        )

    return Interface(
        name="eth0",
        operstate={1: "up", 0: "down"}.get(-1 if carrier is None else carrier, "unknown"),
        carrier=reading(carrier),
        carrier_ups=reading(ups),
        carrier_changes=reading(changes),
        speed_mbit_s=Reading(state=State.UNSUPPORTED) if speed is None else Reading(value=speed),
        wanted_up=wanted,
        counters={"rx_packets": 0, "tx_packets": 0, **counters},
    )


def link(*each: Interface, expected: Expected | None = None, step_s: float = 10.0) -> Finding:
    views = [
        View(at_s=i * step_s, monotonic_s=i * step_s, network=Network(interfaces=(one,)))
        for i, one in enumerate(each)
    ]
    (finding,) = network_link.PROBE.check(views, expected or Expected())
    return finding


NAMED = Expected(link_mbit_s={"eth0": 25000})


def test_a_link_at_its_speed_is_healthy() -> None:
    finding = link(card(), card(), expected=NAMED)
    assert (finding.verdict, finding.component) == (Verdict.HEALTHY, "link:eth0")
    assert "25000 Mbit/s" in finding.message


def test_a_virtual_card_without_a_speed_is_not_compared() -> None:
    assert link(card(speed=None), expected=NAMED).verdict is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("interface", "expected", "verdict", "reason"),
    [
        (card(carrier=0, ups=1), Expected(), Verdict.UNHEALTHY, "link_down"),
        (card(carrier=0, ups=0), Expected(), Verdict.NOT_APPLICABLE, "not_used"),
        (card(carrier=0, ups=0), NAMED, Verdict.UNHEALTHY, "link_down"),
        (card(carrier=0, ups=None), Expected(), Verdict.NOT_APPLICABLE, "not_used"),
        (card(carrier=None, wanted=False), Expected(), Verdict.NOT_APPLICABLE, "not_used"),
        (card(carrier=None, wanted=False), NAMED, Verdict.UNHEALTHY, "link_down"),
        (card(carrier=None), Expected(), Verdict.UNKNOWN, "cannot_read"),
    ],
)
def test_no_link(interface: Interface, expected: Expected, verdict: Verdict, reason: str) -> None:
    finding = link(interface, expected=expected)
    assert (finding.verdict, finding.reason) == (verdict, reason)


@pytest.mark.parametrize("state", [State.HUNG, State.DENIED, State.TRANSIENT, State.UNKNOWN])
def test_a_link_of_which_something_could_not_be_read_is_not_called_healthy(state: State) -> None:
    unread = msgspec.structs.replace(card(), speed_mbit_s=Reading(state=state, detail="why"))
    finding = link(unread)
    assert (finding.verdict, finding.reason) == (Verdict.UNKNOWN, "cannot_read")
    assert "speed (why)" in finding.message


def test_a_link_that_comes_and_goes_is_told_although_it_is_up_now() -> None:
    assert link(card(changes=2), card(changes=4)).verdict is Verdict.HEALTHY
    finding = link(card(changes=2), card(changes=5))
    assert (finding.verdict, finding.reason) == (Verdict.DEGRADED, "link_flapping")


def test_a_link_that_is_slower_than_it_should_be_or_was() -> None:
    assert link(card(speed=10000), expected=NAMED).reason == "link_slow"
    assert link(card(speed=25000), card(speed=10000)).reason == "link_slow"
    long_ago = msgspec.structs.replace(card(speed=10000), fastest_mbit_s=25000)
    assert link(long_ago, long_ago).reason == "link_slow"
    assert link(card(speed=10000), card(speed=25000)).verdict is Verdict.HEALTHY


def test_errors_count_by_their_growth_and_share() -> None:
    def grow(packets: int, **errors: int) -> Finding:
        return link(
            card(rx_packets=1000, **dict.fromkeys(errors, 50)),
            card(rx_packets=1000 + packets, **{k: 50 + v for k, v in errors.items()}),
        )

    assert grow(100_000, rx_errors=9).verdict is Verdict.HEALTHY
    assert grow(1_000_000, rx_errors=90).verdict is Verdict.HEALTHY
    finding = grow(100_000, rx_errors=20, rx_crc_errors=20)
    assert (finding.reason, finding.action) == ("link_errors", Action.CHECK_CABLE)
    assert grow(100_000, rx_missed_errors=20).action is Action.WATCH
    assert grow(1000, rx_dropped=20).reason == "link_drops"
    assert grow(10_000, rx_dropped=20).verdict is Verdict.HEALTHY


def test_an_interface_that_should_be_here_and_is_not() -> None:
    (finding,) = network_link.PROBE.check([View(at_s=0, monotonic_s=0, network=Network())], NAMED)
    assert (finding.verdict, finding.component, finding.reason) == (Verdict.UNHEALTHY, "link:eth0", "missing")


def test_links_that_were_not_read_are_unknown_and_none_is_not_applicable() -> None:
    for probe in (network_link.PROBE, rdma.PROBE):
        (unread,) = probe.check([View(at_s=0, monotonic_s=0)], Expected())
        (none,) = probe.check([View(at_s=0, monotonic_s=0, network=Network())], Expected())
        assert (unread.verdict, none.verdict) == (Verdict.UNKNOWN, Verdict.NOT_APPLICABLE)


def port(*, up: bool = True, denied: tuple[str, ...] = (), **counters: int) -> RdmaPort:
    state = ("ACTIVE", "LinkUp") if up else ("DOWN", "Polling")
    return RdmaPort(
        device="mlx5_0", port=1, state=state[0], physical_state=state[1], counters=counters, denied=denied
    )


WENT_DOWN_LONG_AGO = msgspec.structs.replace(port(up=False), was_up=True)


def ib(ports: Iterable[RdmaPort], *, expected: Expected | None = None, step_s: float = 10.0) -> Finding:
    views = [
        View(at_s=i * step_s, monotonic_s=i * step_s, network=Network(rdma=(one,)))
        for i, one in enumerate(ports)
    ]
    (finding,) = rdma.PROBE.check(views, expected or Expected())
    return finding


PORT = Expected(rdma_ports=("mlx5_0/1",))


def test_an_active_port_with_quiet_counters_is_healthy() -> None:
    finding = ib([port(symbol_error=7, link_downed=1)] * 5, expected=PORT)
    assert (finding.verdict, finding.component) == (Verdict.HEALTHY, "link:mlx5_0/1")


def rising(name: str, per_step: float, steps: int = 7) -> list[RdmaPort]:
    return [port(**{name: int(i * per_step)}) for i in range(steps)]


@pytest.mark.parametrize(
    ("name", "per_step", "verdict", "reason"),
    [
        ("link_downed", 0.2, Verdict.UNHEALTHY, "fatal_counter"),  # once in a minute
        ("rnr_nak_retry_err", 0.2, Verdict.UNHEALTHY, "fatal_counter"),
        ("symbol_error", 0.2, Verdict.HEALTHY, "active"),  # one is no 120 an hour
        ("symbol_error", 2, Verdict.UNHEALTHY, "fatal_counter"),
        ("link_error_recovery", 0.5, Verdict.HEALTHY, "active"),
        ("link_error_recovery", 3, Verdict.DEGRADED, "high_counter"),
        ("port_rcv_errors", 90, Verdict.HEALTHY, "active"),
        ("port_rcv_errors", 110, Verdict.DEGRADED, "high_counter"),
        ("local_ack_timeout_err", 11, Verdict.DEGRADED, "ack_timeouts"),
        ("port_rcv_packets", 1e6, Verdict.HEALTHY, "active"),
    ],
)
def test_counters_are_judged_by_nvsentinels_limits(
    name: str, per_step: float, verdict: Verdict, reason: str
) -> None:
    finding = ib(rising(name, per_step))
    assert (finding.verdict, finding.reason) == (verdict, reason)


def test_a_bad_minute_is_seen_after_a_quiet_time() -> None:
    quiet = [port(port_rcv_errors=0)] * 50
    assert ib([*quiet, *rising("port_rcv_errors", 150)]).reason == "high_counter"


def test_a_counter_that_was_reset_counts_what_came_since() -> None:
    assert ib([port(link_downed=5), port(link_downed=0)]).verdict is Verdict.HEALTHY
    assert ib([port(link_downed=5), port(link_downed=1)]).reason == "fatal_counter"


def test_counters_that_may_not_be_read_are_unknown_and_not_zero() -> None:
    assert ib([port(denied=("symbol_error",))] * 2).reason == "counters_denied"
    assert ib([port(denied=("symbol_error",), link_downed=0)] * 2).verdict is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("ports", "expected", "verdict", "reason"),
    [
        ([port(up=False)] * 3, Expected(), Verdict.NOT_APPLICABLE, "not_used"),
        ([port(up=False)] * 3, PORT, Verdict.UNHEALTHY, "port_down"),
        ([port(up=False, link_downed=2)] * 3, Expected(), Verdict.UNHEALTHY, "port_down"),
        ([WENT_DOWN_LONG_AGO] * 3, Expected(), Verdict.UNHEALTHY, "port_down"),
        ([port(), port(up=False), port(up=False)], Expected(), Verdict.DEGRADED, "port_down"),
        ([port(), *[port(up=False)] * 26], Expected(), Verdict.UNHEALTHY, "port_down"),
        ([port(), port(up=False)] * 3 + [port()], Expected(), Verdict.UNHEALTHY, "port_flapping"),
        ([port(), port(up=False), port()], Expected(), Verdict.HEALTHY, "active"),
    ],
)
def test_ports_that_are_down(
    ports: list[RdmaPort], expected: Expected, verdict: Verdict, reason: str
) -> None:
    finding = ib(ports, expected=expected)
    assert (finding.verdict, finding.reason) == (verdict, reason)


@pytest.mark.parametrize("names", [("mlx5_1/1",), ("mlx5_0/1", "mlx5_1")])
def test_a_port_that_should_be_here_and_is_not(names: tuple[str, ...]) -> None:
    view = View(at_s=0, monotonic_s=0, network=Network(rdma=(port(),)))
    found: Mapping[str, Verdict] = {
        finding.component: finding.verdict for finding in rdma.PROBE.check([view], Expected(rdma_ports=names))
    }
    assert found["link:mlx5_0/1"] is Verdict.HEALTHY
    assert found[f"link:{names[-1]}"] is Verdict.UNHEALTHY
