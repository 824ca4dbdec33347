"""The result of the driver's lines on one GPU or one NVSwitch: each line's judgement, and whether the fault came again or with others.

What a single line means is judged in `kernel_log.xid_judgement`. An application's error is never the hardware's on its own; disputes
between sources are named in the message, not decided. What the driver took back (recovery action none), and what a
reload of the driver ended, no longer counts. Nothing here weighs other evidence: diagnosis does.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from freehold.catalog.load_xids import recovery_actions, xid
from freehold.catalog.xid_facts import Xid, XidClass
from freehold.core.findings import Action, Verdict
from freehold.health.judge import rule_result as result
from freehold.health.judge.kernel_window import SILENCE_S, event_evidence, how_often, incidents
from freehold.health.judge.rule_result import RuleResult, strongest_result
from freehold.health.kernel_log.events import KernelEvent, Kind
from freehold.health.kernel_log.xid_judgement import SIGNAL, XidJudgement

REPEATED_TIMES = 2
"""Incidents on one device within the window that make a fault a repeated one (NVSentinel's XID 13 and 31 rules)."""
BURST_XID_13_S = 15.0
"""XID 13 comes once per SM: lines closer than this are one (NVSentinel)."""
_XID_13 = 13  # NVIDIA's Xid catalogue: GR_EXCEPTION
_XID_74 = 74
"""NVIDIA's Xid catalogue: NVLINK_ERROR."""
_THERMAL_START, _THERMAL_END = 10004, 10005  # NVIDIA Fabric Manager User Guide, other notable SXids

_PROGRAM_FIRST = frozenset({XidClass.APP, XidClass.UNIT, XidClass.AMBIGUOUS})
_DEGRADED = frozenset(
    {Action.WATCH, Action.FIX_CONFIGURATION, Action.RESTART_ENGINE, Action.DRAIN, Action.FREE_SPACE}
)
_GPU_KINDS = frozenset(
    {
        Kind.XID,
        Kind.RECOVERY_ACTION,
        Kind.OFF_BUS,
        Kind.GPU_INIT_FAILED,
        Kind.AER_UNCORRECTED,
        Kind.AER_UNRECOVERED,
    }
)


def gpu_events(events: Sequence[KernelEvent]) -> dict[str, list[KernelEvent]]:
    """Return what still counts against each GPU, by PCI address (empty: the line names none), oldest first."""
    by_device: defaultdict[str, list[KernelEvent]] = defaultdict(list)
    for event in sorted(events, key=lambda each: (each.at_s, each.sequence)):
        if event.kind is Kind.DRIVER_LOADED:
            for device, kept in by_device.items():
                by_device[device] = [each for each in kept if _outlives_reload(each)]
        elif event.kind is Kind.RECOVERY_ACTION and event.number == 0:
            by_device[event.device].clear()
        elif event.kind in _GPU_KINDS:
            by_device[event.device].append(event)
    return {device: kept for device, kept in by_device.items() if kept}


def _outlives_reload(event: KernelEvent) -> bool:
    if event.kind is Kind.XID and event.number is not None:
        return xid(event.number).kind is XidClass.BUS
    return event.kind in {Kind.OFF_BUS, Kind.AER_UNRECOVERED}


def judge_gpu(events: Sequence[KernelEvent], *, elsewhere: frozenset[int] = frozenset()) -> RuleResult:
    """Return the worst result of a GPU's events. `elsewhere`: XIDs that other GPUs had in the window as well."""
    nothing = result.healthy("no_xid", "no XID in the window")
    return strongest_result(_judgements(events, elsewhere), nothing)


def _judgements(events: Sequence[KernelEvent], elsewhere: frozenset[int]) -> Iterator[RuleResult]:
    numbers: defaultdict[int, list[KernelEvent]] = defaultdict(list)
    kinds: defaultdict[Kind, list[KernelEvent]] = defaultdict(list)
    for event in events:
        kinds[event.kind].append(event)
        if event.kind is Kind.XID and event.number is not None and "caused_by" not in event.fields:
            numbers[event.number].append(event)
    if kinds[Kind.RECOVERY_ACTION]:
        yield _recovery(kinds[Kind.RECOVERY_ACTION][-1])
    lost = [
        *kinds[Kind.OFF_BUS],
        *(each for number in numbers for each in numbers[number] if _is_bus(number)),
    ]
    if lost:
        yield _off_bus(lost)
    if kinds[Kind.GPU_INIT_FAILED]:
        yield _init_failed(kinds[Kind.GPU_INIT_FAILED])
    pcie = [*kinds[Kind.AER_UNCORRECTED], *kinds[Kind.AER_UNRECOVERED]]
    if pcie:
        yield _pcie(pcie)
    yield from (_judge_xid(seen, elsewhere) for number, seen in numbers.items() if not _is_bus(number))


def _is_bus(number: int) -> bool:
    return xid(number).kind is XidClass.BUS


def _recovery(event: KernelEvent) -> RuleResult:
    code = event.number or 0
    known = recovery_actions().get(code)
    name = known.name.replace("_", " ") if known else f"code {code}, which no catalogue knows"
    return result.unhealthy(
        "recovery_action",
        f"the driver itself asks for: {name}",
        known.action if known else Action.DRAIN,
        event_evidence([event]),
    )


def _off_bus(events: list[KernelEvent]) -> RuleResult:
    times = incidents(events)
    again = times >= REPEATED_TIMES
    return result.unhealthy(
        "off_bus_again" if again else "off_bus",
        f"the GPU fell off the bus {how_often(times)}: card, slot, riser or power",
        Action.INSPECT_HARDWARE if again else Action.CORDON,
        event_evidence(events),
    )


def _init_failed(events: list[KernelEvent]) -> RuleResult:
    return result.unhealthy(
        "init_failed",
        "the driver could not start the GPU",
        Action.INSPECT_HARDWARE if incidents(events) >= REPEATED_TIMES else Action.REBOOT,
        event_evidence(events),
    )


def _pcie(events: list[KernelEvent]) -> RuleResult:
    broken = any(
        event.kind is Kind.AER_UNRECOVERED or event.fields.get("severity") == "fatal" for event in events
    )
    return RuleResult(
        Verdict.UNHEALTHY if broken else Verdict.DEGRADED,
        "pcie_fatal" if broken else "pcie_error",
        "uncorrected PCIe errors at the GPU's address: card, slot, riser or power",
        Action.CORDON if broken else Action.WATCH,
        event_evidence(events),
    )


def _judge_xid(events: list[KernelEvent], elsewhere: frozenset[int]) -> RuleResult:
    """Judge the lines of one XID number: by the worst of what they mean, and by whether it came again."""
    found = max((event.judgement for event in reversed(events)), key=_gravity)
    fact, again = found.fact, _times(found.fact, events) >= REPEATED_TIMES
    if fact.kind in _PROGRAM_FIRST:
        hardware_possible = fact.repeated not in {Action.RESTART_ENGINE, Action.NONE}
        if again and hardware_possible and fact.number not in elsewhere:
            action = Action.WATCH if fact.kind is XidClass.APP else fact.repeated
            repeats = replace(found, reason="repeats_on_this_gpu", says=_REPEATS)
            return _result(repeats, events, Verdict.DEGRADED, action)
    action = found.repeated if again else found.action
    return _result(found, events, found.verdict or _verdict(action), action)


def _gravity(judgement: XidJudgement) -> int:
    """Return the order of judgements on one XID number; XID 74 points to the cable only where all lines are poor signal."""
    if judgement.fact.number == _XID_74:
        return int(judgement.reason != SIGNAL)
    return list(Verdict).index(judgement.verdict) if judgement.verdict else 0


def _verdict(action: Action) -> Verdict:
    if action is Action.NONE:
        return Verdict.HEALTHY
    return Verdict.DEGRADED if action in _DEGRADED else Verdict.UNHEALTHY


def _times(fact: Xid, events: list[KernelEvent]) -> int:
    """Return the incidents that count as the same fault: for XID 13 at one GPC and TPC, for links on one link."""
    if fact.number == _XID_13:
        return _most(events, ("gpc", "tpc"), BURST_XID_13_S)
    if fact.kind is XidClass.LINK and any("link" in event.fields for event in events):
        return _most(events, ("link",), SILENCE_S)
    return incidents(events)


def _most(events: list[KernelEvent], names: tuple[str, ...], silence_s: float) -> int:
    places: defaultdict[tuple[str, ...], list[KernelEvent]] = defaultdict(list)
    for event in events:
        if all(name in event.fields for name in names):
            places[tuple(event.fields[name] for name in names)].append(event)
    return max((incidents(seen, silence_s=silence_s) for seen in places.values()), default=1)


_REPEATS = "again on this GPU and on no other: try the same work elsewhere, and other work here"


def _result(
    judgement: XidJudgement, events: list[KernelEvent], verdict: Verdict, action: Action
) -> RuleResult:
    fact = judgement.fact
    name = f"XID {fact.number}" + (f" ({fact.mnemonic})" if fact.mnemonic else "")
    disputed = f"sources disagree: {fact.disagreement}" if fact.disputed else ""
    parts = (f"{name} {how_often(incidents(events))}", judgement.says, fact.note, disputed, judgement.words)
    message = "; ".join(part for part in parts if part)
    return RuleResult(verdict, judgement.reason, message, action, event_evidence(events))


def judge_switch(events: Sequence[KernelEvent], *, off_bus_s: Sequence[float] = ()) -> RuleResult:
    """Return the result of the SXids of one NVSwitch; next to a GPU that fell off the bus they are a witness, not the cause."""
    fatal = [event for event in events if event.fields.get("severity") == "fatal"]
    own = [event for event in fatal if not any(abs(event.at_s - at_s) <= SILENCE_S for at_s in off_bus_s)]
    if own:
        return _switch(own, Verdict.UNHEALTHY, "switch_fatal", Action.REBOOT)
    if fatal:
        return _switch(fatal, Verdict.HEALTHY, "switch_witness", Action.NONE)
    if events[-1].number != _THERMAL_END and any(event.number == _THERMAL_START for event in events):
        return _switch(list(events), Verdict.DEGRADED, "switch_thermal", Action.CHECK_FACILITY)
    return _switch(list(events), Verdict.HEALTHY, "switch_non_fatal", Action.NONE)


def _switch(events: list[KernelEvent], verdict: Verdict, reason: str, action: Action) -> RuleResult:
    numbers = ", ".join(str(number) for number in sorted({event.number or 0 for event in events}))
    leads = {
        "switch_fatal": "fatal: links of this switch are down until it is reset",
        "switch_witness": "at the other end of a GPU that fell off the bus",
        "switch_thermal": "the switch is too warm and may slow its links: look at cooling",
        "switch_non_fatal": "not fatal",
    }
    return RuleResult(verdict, reason, f"SXid {numbers}: {leads[reason]}", action, event_evidence(events))
