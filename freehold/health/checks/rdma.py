"""Whether each RDMA port is active and its error counters stay within what NVSentinel allows.

The limits are facts of the catalog (`rdma_counters`). A counter that cannot be read is reported as such: it is neither zero nor a fault. Ethernet
links below RoCE are also judged by `network_link`; nothing here reads.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from freehold.catalog.load_xids import rdma_counters
from freehold.catalog.xid_facts import RdmaCounter
from freehold.core.findings import Action, Evidence, Finding, Verdict
from freehold.health.judge.declaration import declared
from freehold.health.judge.rule_result import RuleResult, worst_result
from freehold.health.judge.series import growth
from freehold.health.model.probe import Expected, Threshold
from freehold.health.model.view import RdmaPort, View

DECLARED = declared(__name__)

DROP_S = DECLARED.limit("drop_s")
FLAPS_MOST = DECLARED.count("flaps_most_count")
RATE_LEAST_S = DECLARED.limit("rate_least_s")
EVENTS_LEAST = DECLARED.limit("events_least_count")
RECENT_S = DECLARED.limit("recent_s")
_BOTH_ENDS = "local_ack_timeout_err"
_UP = ("ACTIVE", "LinkUp")


_Past = Sequence[tuple[float, RdmaPort]]


def check(views: Sequence[View], expected: Expected) -> Sequence[Finding]:
    """Return one finding per port, and one for each that should be here and is not (`DEVICE/PORT` or `DEVICE`)."""
    network = views[-1].network
    if network is None:
        nothing = RuleResult(Verdict.UNKNOWN, "not_read", "the network was not read")
        return [nothing.finding(PROBE.name, "link", views[-1])]
    wanted = set(expected.rdma_ports or ())
    found = [_port(views, port, named=bool(_names(port) & wanted)) for port in network.rdma]
    here = {name for port in network.rdma for name in _names(port)}
    for name in sorted(wanted - here):
        judged = RuleResult(
            Verdict.UNHEALTHY, "missing", f"{name} should be here and is not", Action.INSPECT_HARDWARE
        )
        found.append(judged.finding(PROBE.name, f"link:{name}", views[-1]))
    if not found:
        nothing = RuleResult(Verdict.NOT_APPLICABLE, "no_ports", "this node has no RDMA device")
        return [nothing.finding(PROBE.name, "link", views[-1])]
    return found


def _names(port: RdmaPort) -> set[str]:
    return {port.device, f"{port.device}/{port.port}"}


def _port(views: Sequence[View], port: RdmaPort, *, named: bool) -> Finding:
    past = [
        (view.monotonic_s, each)
        for view in views
        if view.network
        for each in view.network.rdma
        if (each.device, each.port) == (port.device, port.port)
    ]
    at_s = views[-1].at_s
    name = f"{port.device}/{port.port}"
    found = [*_down(port, past, named=named), *_flapping(name, past), *_counters(name, past, at_s)]
    return worst_result(found, _quiet(name, port)).finding(PROBE.name, f"link:{name}", views[-1])


def _is_up(port: RdmaPort) -> bool:
    return (port.state, port.physical_state) == _UP


def _quiet(name: str, port: RdmaPort) -> RuleResult:
    if port.denied and not port.counters:
        message = f"{name} is active; its {len(port.denied)} error counters may not be read"
        return RuleResult(Verdict.UNKNOWN, "counters_denied", message)
    blind = f"; {', '.join(port.denied)} may not be read" if port.denied else ""
    return RuleResult(Verdict.HEALTHY, "active", f"{name} is active, its counters are quiet{blind}")


def _down(port: RdmaPort, past: _Past, *, named: bool) -> Iterator[RuleResult]:
    if _is_up(port):
        return
    name = f"{port.device}/{port.port}"
    state = f"{name} is {port.state or '?'} ({port.physical_state or '?'})"
    seen_up = port.was_up or any(_is_up(each) for _, each in past)
    had_link = seen_up or port.counters.get("link_downed", 0) > 0
    if not named and not had_link:
        yield RuleResult(Verdict.NOT_APPLICABLE, "not_used", f"{state} and no link is expected there")
        return
    down_s = _down_for(past)
    long = down_s >= DROP_S or down_s >= past[-1][0] - past[0][0]
    yield RuleResult(
        Verdict.UNHEALTHY if long else Verdict.DEGRADED,
        "port_down",
        f"{state}, for {down_s:.0f} s" if down_s else state,
        Action.CHECK_CABLE,
    )


def _down_for(past: _Past) -> float:
    """Return for how many seconds of the window it has been down until now."""
    since_s = past[-1][0]
    for at_s, port in reversed(past):
        if _is_up(port):
            break
        since_s = at_s
    return past[-1][0] - since_s


def _flapping(name: str, past: _Past) -> Iterator[RuleResult]:
    ups = [_is_up(port) for _, port in past]
    falls = sum(1 for earlier, later in pairwise(ups) if earlier and not later)
    if falls >= FLAPS_MOST:
        message = f"{name} went down {falls} times"
        yield RuleResult(Verdict.UNHEALTHY, "port_flapping", message, Action.CHECK_CABLE)


def _counters(name: str, past: _Past, at_s: float) -> Iterator[RuleResult]:
    recent = [(when_s, port) for when_s, port in past if when_s >= past[-1][0] - RECENT_S]
    for span in (past, recent):
        for limit in rdma_counters().values():
            grown = growth((when_s, port.counters.get(limit.name)) for when_s, port in span)
            if grown and grown[0]:
                yield from _over(name, limit, grown, at_s=at_s)


def _over(name: str, limit: RdmaCounter, grown: tuple[float, float], *, at_s: float) -> Iterator[RuleResult]:
    count, elapsed_s = grown
    growth_shown = f"{count:.0f} in {elapsed_s:.0f} s"
    seen = Evidence(
        what=limit.name, value=growth_shown, source="/sys/class/infiniband", at_s=at_s, baseline="0"
    )
    message = f"{name}: {limit.name} grew by {growth_shown}"
    if _above(limit.fatal_per_s, grown):
        yield RuleResult(Verdict.UNHEALTHY, "fatal_counter", message, Action.CHECK_CABLE, (seen,))
    elif _above(limit.warn_per_s, grown):
        reason = "ack_timeouts" if limit.name == _BOTH_ENDS else "high_counter"
        yield RuleResult(Verdict.DEGRADED, reason, message, Action.WATCH, (seen,))


def _above(limit_per_s: float | None, grown: tuple[float, float]) -> bool:
    """Return whether a count that grew did so faster than the limit; a limit of 0 forbids any growth."""
    count, elapsed_s = grown
    if not limit_per_s:
        return limit_per_s is not None
    return count / max(elapsed_s, RATE_LEAST_S, EVENTS_LEAST / limit_per_s) > limit_per_s


def _thresholds() -> Iterator[Threshold]:
    source = "NVIDIA/NVSentinel defaults (catalog: rdma_counters)"
    for limit in rdma_counters().values():
        if limit.fatal_per_s is not None:
            yield Threshold(name=f"{limit.name}_fatal_per_s", value=limit.fatal_per_s, source=source)
        if limit.warn_per_s is not None:
            yield Threshold(name=f"{limit.name}_warn_per_s", value=limit.warn_per_s, source=source)


PROBE = DECLARED.probe(check, first=tuple(_thresholds()))
