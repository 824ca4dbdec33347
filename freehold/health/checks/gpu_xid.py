"""Which GPUs the driver reported in the kernel's log, and whether the fault is the GPU's or its program's.

XIDs of a program's own mistakes leave the GPU healthy; messages name the numbers on which sources disagree. Other checks judge
what NVML measures, and diagnosis finds what caused an incident; nothing here reads.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter

from freehold.core.findings import Verdict
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.gpus import has_no_gpu
from freehold.health.judge.kernel_window import BLIND_S, SILENCE_S, unread
from freehold.health.judge.rule_result import RuleResult
from freehold.health.judge.xid import (
    BURST_XID_13_S,
    REPEATED_TIMES,
    gpu_events,
    judge_gpu,
    judge_switch,
)
from freehold.health.kernel_log.events import KernelEvent, Kind, pci_key, read_events, uuids
from freehold.health.model.probe import Expected
from freehold.health.model.view import Gpus, View

DECLARED = declared(__name__)
WINDOW_S = DECLARED.limit("window_s")


def _judge(views: Sequence[View], _expected: Expected) -> Iterable[tuple[str, RuleResult]]:
    """Return the result of each GPU that is known or named by a line, and of each NVSwitch that a line names."""
    now = views[-1]
    lines = [line for view in views if view.kernel for line in view.kernel.lines]
    events = [event for event in read_events(lines) if event.at_s > now.at_s - WINDOW_S]
    gpus = next((view.gpus for view in reversed(views) if view.gpus), None)
    names = _names(gpus, events)
    against = _attributed(gpu_events(events), names)
    numbers = {device: _numbers(seen) for device, seen in against.items()}
    judged = {
        device: judge_gpu(seen, elsewhere=_elsewhere(device, numbers)) for device, seen in against.items()
    }
    quiet = unread(views) or judge_gpu(())
    for device in names:
        judged.setdefault(device, quiet)
    found = {f"gpu:{names.get(device) or device or 'unknown'}": each for device, each in judged.items()}
    found |= _switches(events, against)
    if not names and not any(each.verdict > Verdict.HEALTHY for each in judged.values()):
        found.setdefault("gpu", _without_gpus(gpus, quiet))
    return sorted(found.items(), key=itemgetter(0))


def _names(gpus: Gpus | None, events: Sequence[KernelEvent]) -> dict[str, str]:
    """Return the GPUs that are known, by PCI address, with their UUID (empty: not known)."""
    named = {event.device: "" for event in events if event.kind is Kind.GPU_UUID} | uuids(events)
    if gpus:
        named |= {pci_key(address): named.get(pci_key(address), "") for address in gpus.pci_addresses}
        named |= {pci_key(gpu.pci): gpu.uuid or named.get(pci_key(gpu.pci), "") for gpu in gpus.gpus}
    return {address: uuid for address, uuid in named.items() if address}


def _attributed(
    by_device: Mapping[str, list[KernelEvent]], names: Mapping[str, str]
) -> dict[str, list[KernelEvent]]:
    """Leave out PCIe errors at an address that is not a GPU's."""
    pcie = {Kind.AER_UNCORRECTED, Kind.AER_UNRECOVERED}
    kept = {
        device: [event for event in events if event.kind not in pcie or device in names]
        for device, events in by_device.items()
    }
    return {device: events for device, events in kept.items() if events}


def _numbers(events: Sequence[KernelEvent]) -> frozenset[int]:
    return frozenset(event.number for event in events if event.kind is Kind.XID and event.number is not None)


def _elsewhere(device: str, numbers: Mapping[str, frozenset[int]]) -> frozenset[int]:
    return frozenset().union(*(seen for other, seen in numbers.items() if other != device))


def _without_gpus(gpus: Gpus | None, quiet: RuleResult) -> RuleResult:
    if quiet.verdict is Verdict.UNKNOWN:
        return quiet
    if gpus and has_no_gpu(gpus):
        return result.not_applicable("no_gpu", "no NVIDIA GPU on the bus")
    return result.unknown("gpus_unknown", "which GPUs there are was not read")


def _switches(
    events: Sequence[KernelEvent], against: Mapping[str, list[KernelEvent]]
) -> Iterator[tuple[str, RuleResult]]:
    off_bus_s = [
        event.at_s
        for seen in against.values()
        for event in seen
        if event.kind is Kind.OFF_BUS or event.number in {79, 167}
    ]
    switches: dict[str, list[KernelEvent]] = {}
    for event in events:
        if event.kind is Kind.SXID:
            switches.setdefault(event.fields["switch"], []).append(event)
    return (
        (f"link:nvswitch{name}", judge_switch(seen, off_bus_s=off_bus_s)) for name, seen in switches.items()
    )


PROBE = DECLARED.probe_of(
    _judge,
    first={
        "repeated_times": (REPEATED_TIMES, "NVSentinel: XID 13 and 31 twice on one GPU"),
        "incident_silence_s": (SILENCE_S, "NVIDIA Fleet Intelligence, NVSentinel: 3 min"),
        "xid_13_burst_s": (BURST_XID_13_S, "NVSentinel: 15 s for XID 13"),
        "blind_s": (BLIND_S, "our own choice: ten minutes after records were lost"),
    },
)
