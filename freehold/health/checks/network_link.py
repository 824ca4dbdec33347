"""Whether each network interface has its link, at its speed, without errors.

A port that never had a cable, or that is switched off, is not a fault unless the lock or the configuration names
it. Loss on the way to peers is judged by `network_loss`, RDMA ports by `rdma`; nothing here reads.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from freehold.core.findings import Action, Evidence
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.rule_result import RuleResult, missing, worst_result
from freehold.health.judge.series import failed, growth, number
from freehold.health.model.probe import Expected
from freehold.health.model.view import Interface, View

DECLARED = declared(__name__)
CHANGES_MOST = DECLARED.count("changes_most_count")
ERRORS_SHARE = DECLARED.limit("errors_share")
ERRORS_LEAST = DECLARED.count("errors_least_count")
DROPS_SHARE = DECLARED.limit("drops_share")


_ERRORS = ("rx_errors", "tx_errors", "rx_missed_errors", "rx_over_errors", "tx_carrier_errors")
_CABLE = ("rx_crc_errors", "tx_carrier_errors")


def _judge(views: Sequence[View], expected: Expected) -> Iterable[tuple[str, RuleResult]]:
    """Return the result of each interface that counts, and of each that should be here and is not."""
    network = views[-1].network
    if network is None:
        return [("link", result.unknown("not_read", "the network was not read"))]
    nothing = result.not_applicable("no_interfaces", "no interface with hardware behind it was found")
    found = {f"link:{link.name}": _interface(views, link, expected) for link in network.interfaces}
    found |= missing(expected.link_mbit_s.keys() - {link.name for link in network.interfaces})
    return (found or {"link": nothing}).items()


def _interface(views: Sequence[View], link: Interface, expected: Expected) -> RuleResult:
    past = [
        (view.monotonic_s, each)
        for view in views
        if view.network
        for each in view.network.interfaces
        if each.name == link.name
    ]
    judged = _without_link(link, named=link.name in expected.link_mbit_s)
    if judged is None:
        found = [*_flapping(link, past), *_slow(link, past, expected), *_losing(link, past)]
        judged = worst_result(found, _quiet(link))
    return replace(judged, evidence=tuple(_evidence(views, link)))


def _quiet(link: Interface) -> RuleResult:
    """Return the result for an interface without a fault: healthy only if all could be read that the kernel has."""
    rows = {"carrier": link.carrier, "carrier changes": link.carrier_changes, "speed": link.speed_mbit_s}
    unread = [f"{name} ({rows[name].detail or rows[name].state})" for name in failed(rows, rows)]
    if unread:
        return result.unknown("cannot_read", f"{link.name}: {', '.join(unread)} could not be read")
    return result.healthy("up", f"{link.name} is up{_speed(link)}")


def _speed(link: Interface) -> str:
    speed = number(link.speed_mbit_s)
    return "" if speed is None else f" at {speed:.0f} Mbit/s"


def _without_link(link: Interface, *, named: bool) -> RuleResult | None:
    """Return the result for an interface without a link; None: it has one."""
    carrier, ups = number(link.carrier), number(link.carrier_ups)
    if not link.wanted_up and not named:
        return result.not_applicable("not_used", f"{link.name} is switched off")
    if carrier == 1:
        return None
    down = carrier == 0 or link.operstate in {"down", "lowerlayerdown"} or not link.wanted_up
    if not down:
        return (
            None
            if link.operstate == "up"
            else result.unknown("cannot_read", f"{link.name}: {link.carrier.detail}")
        )
    if named or (ups is not None and ups > 0):
        return result.unhealthy("link_down", f"{link.name} has lost its link", Action.CHECK_CABLE)
    return result.not_applicable("not_used", f"{link.name} has never had a link")


def _flapping(link: Interface, past: Sequence[tuple[float, Interface]]) -> Iterator[RuleResult]:
    grown = growth((at_s, number(each.carrier_changes)) for at_s, each in past)
    if grown and grown[0] > CHANGES_MOST:
        message = f"the link of {link.name} came or went {grown[0]:.0f} times in {grown[1]:.0f} s"
        yield result.degraded("link_flapping", message, Action.CHECK_CABLE)


def _slow(
    link: Interface, past: Sequence[tuple[float, Interface]], expected: Expected
) -> Iterator[RuleResult]:
    now = number(link.speed_mbit_s)
    speeds = [speed for _, each in past if (speed := number(each.speed_mbit_s)) is not None]
    should = expected.link_mbit_s.get(link.name) or max([*speeds, link.fastest_mbit_s])
    if now is not None and should and now < should:
        message = f"{link.name} runs at {now:.0f} Mbit/s and should at {should:.0f}"
        yield result.degraded("link_slow", message, Action.CHECK_CABLE)


def _losing(link: Interface, past: Sequence[tuple[float, Interface]]) -> Iterator[RuleResult]:
    packets = _grew(past, ("rx_packets", "tx_packets"))
    errors, cable = _grew(past, _ERRORS), _grew(past, _CABLE)
    drops = _grew(past, ("rx_dropped", "tx_dropped"))
    if errors >= ERRORS_LEAST and errors >= ERRORS_SHARE * packets:
        message = f"{link.name} counted {errors:.0f} errors in {packets:.0f} packets"
        yield result.degraded("link_errors", message, Action.CHECK_CABLE if cable else Action.WATCH)
    if drops >= ERRORS_LEAST and drops >= DROPS_SHARE * (packets + drops):
        message = f"{link.name} dropped {drops:.0f} of {packets + drops:.0f} packets"
        yield result.degraded("link_drops", message, Action.WATCH)


def _grew(past: Sequence[tuple[float, Interface]], names: Sequence[str]) -> float:
    grown = (growth((at_s, each.counters.get(name)) for at_s, each in past) for name in names)
    return sum(each[0] for each in grown if each)


def _evidence(views: Sequence[View], link: Interface) -> Iterator[Evidence]:
    at_s = views[-1].at_s
    yield Evidence(
        what="operstate", value=link.operstate or "?", source="/sys/class/net", at_s=at_s, baseline="up"
    )
    rows = (("carrier", link.carrier, "1"), ("carrier changes since boot", link.carrier_changes, ""))
    for what, reading, normal in rows:
        if (value := number(reading)) is not None:
            yield Evidence(
                what=what, value=f"{value:.0f}", source="/sys/class/net", at_s=at_s, baseline=normal
            )
    for name in (*_ERRORS, "rx_crc_errors", "rx_dropped", "tx_dropped"):
        if count := link.counters.get(name):
            yield Evidence(what=f"{name} since boot", value=str(count), source="/sys/class/net", at_s=at_s)


PROBE = DECLARED.probe_of(_judge)
