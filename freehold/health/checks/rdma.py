"""Whether each RDMA port is active and its error counters stay within what NVSentinel allows.

The limits are facts of the catalog (`rdma_counters`). A counter that cannot be read is reported as such: it is neither zero nor a fault. Ethernet
links below RoCE are also judged by `network_link`; nothing here reads.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from freehold.catalog.load_xids import rdma_counters
from freehold.catalog.xid_facts import RdmaCounter
from freehold.core.findings import Action, Evidence, Verdict
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.rule_result import RuleResult, missing, worst_result
from freehold.health.judge.series import growth
from freehold.health.model.probe import Expected
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


def _judge(views: Sequence[View], expected: Expected) -> Iterable[tuple[str, RuleResult]]:
    """Return the result of each port, and of each that should be here and is not (`DEVICE/PORT` or `DEVICE`)."""
    network = views[-1].network
    if network is None:
        return [("link", result.unknown("not_read", "the network was not read"))]
    wanted = set(expected.rdma_ports or ())
    nothing = result.not_applicable("no_ports", "this node has no RDMA device")
    found = {f"link:{port.device}/{port.port}": _port(views, port, wanted) for port in network.rdma}
    found |= missing(wanted - {name for port in network.rdma for name in _names(port)})
    return (found or {"link": nothing}).items()


def _names(port: RdmaPort) -> set[str]:
    return {port.device, f"{port.device}/{port.port}"}


def _port(views: Sequence[View], port: RdmaPort, wanted: set[str]) -> RuleResult:
    past = [
        (view.monotonic_s, each)
        for view in views
        if view.network
        for each in view.network.rdma
        if (each.device, each.port) == (port.device, port.port)
    ]
    at_s = views[-1].at_s
    name = f"{port.device}/{port.port}"
    found = [
        *_down(port, past, named=bool(_names(port) & wanted)),
        *_flapping(name, past),
        *_counters(name, past, at_s),
    ]
    return worst_result(found, _quiet(name, port))


def _is_up(port: RdmaPort) -> bool:
    return (port.state, port.physical_state) == _UP


def _quiet(name: str, port: RdmaPort) -> RuleResult:
    if port.denied and not port.counters:
        message = f"{name} is active; its {len(port.denied)} error counters may not be read"
        return result.unknown("counters_denied", message)
    blind = f"; {', '.join(port.denied)} may not be read" if port.denied else ""
    return result.healthy("active", f"{name} is active, its counters are quiet{blind}")


def _down(port: RdmaPort, past: _Past, *, named: bool) -> Iterator[RuleResult]:
    if _is_up(port):
        return
    name = f"{port.device}/{port.port}"
    state = f"{name} is {port.state or '?'} ({port.physical_state or '?'})"
    seen_up = port.was_up or any(_is_up(each) for _, each in past)
    had_link = seen_up or port.counters.get("link_downed", 0) > 0
    if not named and not had_link:
        yield result.not_applicable("not_used", f"{state} and no link is expected there")
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
        yield result.unhealthy("port_flapping", message, Action.CHECK_CABLE)


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
        yield result.unhealthy("fatal_counter", message, Action.CHECK_CABLE, (seen,))
    elif _above(limit.warn_per_s, grown):
        reason = "ack_timeouts" if limit.name == _BOTH_ENDS else "high_counter"
        yield result.degraded(reason, message, Action.WATCH, (seen,))


def _above(limit_per_s: float | None, grown: tuple[float, float]) -> bool:
    """Return whether a count that grew did so faster than the limit; a limit of 0 forbids any growth."""
    count, elapsed_s = grown
    if not limit_per_s:
        return limit_per_s is not None
    return count / max(elapsed_s, RATE_LEAST_S, EVENTS_LEAST / limit_per_s) > limit_per_s


_SOURCE = "NVIDIA/NVSentinel defaults (catalog: rdma_counters)"
PROBE = DECLARED.probe_of(
    _judge,
    first={
        f"{limit.name}_{kind}": (rate, _SOURCE)
        for limit in rdma_counters().values()
        for kind in ("fatal_per_s", "warn_per_s")
        if (rate := getattr(limit, kind)) is not None
    },
)
