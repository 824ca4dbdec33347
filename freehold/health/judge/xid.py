"""What the driver's lines on one GPU, or on one NVSwitch, say of it: the XID rules, with disputes told and not decided.

The catalog says what a number is; this says what follows from it when it comes once, again, or with others. An
application's error is never the hardware's for itself. What the driver took back (recovery action none) or what a
reload of the driver ended no longer counts. Nothing here weighs other evidence: that is diagnosis.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from freehold.catalog.load_xids import nvlink_bits, recovery_actions, xid
from freehold.catalog.xid_facts import Xid, XidClass
from freehold.core.findings import Action, Verdict
from freehold.health.judge.kernel_window import SILENCE_S, event_evidence, how_often, incidents
from freehold.health.judge.rule_result import RuleResult, strongest_result
from freehold.health.kernel_log import nvlink5
from freehold.health.kernel_log.events import KernelEvent, Kind
from freehold.health.kernel_log.kinds import HARMLESS

REPEATED_TIMES = 2
"""Incidents on one device within the window that make a fault a repeated one (NVSentinel's XID 13 and 31 rules)."""
BURST_XID_13_S = 15.0
"""XID 13 comes once per SM: lines closer than this are one (NVSentinel)."""
_XID_13 = 13  # NVIDIA's Xid catalogue: GR_EXCEPTION
_XID_74 = 74
"""NVIDIA's Xid catalogue: NVLINK_ERROR."""
_THERMAL_START, _THERMAL_END = 10004, 10005  # NVIDIA Fabric Manager User Guide, other notable SXids
_REGISTERS = 7
"""Of an XID 74 line (NVIDIA's WORKFLOW_NVLINK_ERR)."""

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
    """Return the worst that a GPU's events say. `elsewhere`: XIDs that other GPUs had in the window as well."""
    nothing = RuleResult(Verdict.HEALTHY, "no_xid", "no XID in the window")
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
    yield from (
        _judge_xid(xid(number), seen, elsewhere) for number, seen in numbers.items() if not _is_bus(number)
    )


def _is_bus(number: int) -> bool:
    return xid(number).kind is XidClass.BUS


def _recovery(event: KernelEvent) -> RuleResult:
    code = event.number or 0
    known = recovery_actions().get(code)
    name = known.name.replace("_", " ") if known else f"code {code}, which no catalogue knows"
    return RuleResult(
        verdict=Verdict.UNHEALTHY,
        reason="recovery_action",
        message=f"the driver itself asks for: {name}",
        action=known.action if known else Action.DRAIN,
        evidence=event_evidence([event]),
    )


def _off_bus(events: list[KernelEvent]) -> RuleResult:
    times = incidents(events)
    again = times >= REPEATED_TIMES
    return RuleResult(
        verdict=Verdict.UNHEALTHY,
        reason="off_bus_again" if again else "off_bus",
        message=f"the GPU fell off the bus {how_often(times)}: card, slot, riser or power",
        action=Action.INSPECT_HARDWARE if again else Action.CORDON,
        evidence=event_evidence(events),
    )


def _init_failed(events: list[KernelEvent]) -> RuleResult:
    return RuleResult(
        verdict=Verdict.UNHEALTHY,
        reason="init_failed",
        message="the driver could not start the GPU",
        action=Action.INSPECT_HARDWARE if incidents(events) >= REPEATED_TIMES else Action.REBOOT,
        evidence=event_evidence(events),
    )


def _pcie(events: list[KernelEvent]) -> RuleResult:
    broken = any(
        event.kind is Kind.AER_UNRECOVERED or event.fields.get("severity") == "fatal" for event in events
    )
    return RuleResult(
        verdict=Verdict.UNHEALTHY if broken else Verdict.DEGRADED,
        reason="pcie_fatal" if broken else "pcie_error",
        message="uncorrected PCIe errors at the GPU's address: card, slot, riser or power",
        action=Action.CORDON if broken else Action.WATCH,
        evidence=event_evidence(events),
    )


def _judge_xid(fact: Xid, events: list[KernelEvent], elsewhere: frozenset[int]) -> RuleResult:
    if fact.kind in HARMLESS:
        return _said(fact, events, Verdict.HEALTHY, reason="harmless_xid", action=Action.NONE)
    times = _times(fact, events)
    if fact.kind in _PROGRAM_FIRST:
        return _program_first(fact, events, times, on_others=fact.number in elsewhere)
    if fact.number == _XID_74 and _is_signal(events):
        return _said(fact, events, Verdict.UNHEALTHY, reason="nvlink_signal", action=Action.CHECK_CABLE)
    if fact.number in nvlink5.NUMBERS:
        return _nvlink5(fact, events, again=times >= REPEATED_TIMES)
    if fact.kind in {XidClass.UNKNOWN, XidClass.VERDICT}:
        return _said(fact, events, Verdict.DEGRADED, reason="unknown_xid", action=Action.WATCH)
    action = fact.repeated if times >= REPEATED_TIMES else fact.action
    return _said(fact, events, _verdict(action), reason=f"{fact.kind}_xid", action=action)


def _nvlink5(fact: Xid, events: list[KernelEvent], *, again: bool) -> RuleResult:
    """Judge by what the lines' words say; where they say nothing, by the XID and the word Fatal alone."""
    found = nvlink5.worst(fact, events, again=again)
    judged = _said(fact, events, found.verdict, reason=found.reason, action=found.action)
    return replace(judged, message=f"{judged.message}; {found.words}")


def _program_first(fact: Xid, events: list[KernelEvent], times: int, *, on_others: bool) -> RuleResult:
    """Judge what a program's own mistake can cause: the GPU is well until it alone has it again."""
    hardware_possible = fact.repeated not in {Action.RESTART_ENGINE, Action.NONE}
    if times >= REPEATED_TIMES and hardware_possible and not on_others:
        action = Action.WATCH if fact.kind is XidClass.APP else fact.repeated
        return _said(fact, events, Verdict.DEGRADED, reason="repeats_on_this_gpu", action=action)
    if fact.kind is XidClass.APP:
        return _said(fact, events, Verdict.HEALTHY, reason="application_error", action=Action.NONE)
    return _said(fact, events, Verdict.DEGRADED, reason=f"{fact.kind}_xid", action=fact.action)


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


def _is_signal(events: list[KernelEvent]) -> bool:
    """Return whether every line's registers hold nothing but the bits of poor signal integrity (reseat, cable)."""
    signal = {
        (rule.register, bit)
        for rule in nvlink_bits()
        if rule.leads_to == "signal_integrity"
        for bit in rule.bits
    }
    held = [_bits(event) for event in events]
    return all(bits and bits <= signal for bits in held)


def _bits(event: KernelEvent) -> set[tuple[int, int]]:
    words = [int(event.fields.get(f"reg{index}", "0x0"), 16) for index in range(_REGISTERS)]
    return {
        (index, bit)
        for index, word in enumerate(words)
        for bit in range(word.bit_length())
        if word >> bit & 1
    }


_LEADS = {
    "application_error": "an error of the program on it, not the GPU's for itself",
    "repeats_on_this_gpu": "again on this GPU and on no other: try the same work elsewhere, and other work here",
    "nvlink_signal": "poor signal integrity: reseat, check the cable",
    "nvlink_corrected": "corrected, nothing was lost",
    "nvlink_peer": "the other end of the link went first",
    "nvlink_taken_down": "somebody took the link down",
    "nvlink_program": "the program on it ends, the link stays",
    "harmless_xid": "never a cause for itself",
    "unknown_xid": "no catalogue says what to do",
}


def _said(
    fact: Xid, events: list[KernelEvent], verdict: Verdict, *, reason: str, action: Action
) -> RuleResult:
    name = f"XID {fact.number}" + (f" ({fact.mnemonic})" if fact.mnemonic else "")
    parts = [f"{name} {how_often(incidents(events))}", _LEADS.get(reason, ""), fact.note]
    if fact.disputed:
        parts.append(f"sources disagree: {fact.disagreement}")
    return RuleResult(
        verdict=verdict,
        reason=reason,
        message="; ".join(part for part in parts if part),
        action=action,
        evidence=event_evidence(events),
    )


def judge_switch(events: Sequence[KernelEvent], *, off_bus_s: Sequence[float] = ()) -> RuleResult:
    """Return what the SXids of one NVSwitch say; one beside a GPU that fell off the bus is a witness, not the cause."""
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
    return RuleResult(
        verdict=verdict,
        reason=reason,
        message=f"SXid {numbers}: {leads[reason]}",
        action=action,
        evidence=event_evidence(events),
    )
