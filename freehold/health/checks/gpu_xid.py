"""Which GPUs the driver complained of in the kernel's log, and whether that is the GPU's fault or its program's.

XIDs of a program's own mistakes leave the GPU healthy; numbers on which sources disagree say so. What NVML measures is
for other probes, and what caused an incident is for diagnosis; nothing here reads.
"""

from collections.abc import Iterator, Mapping, Sequence

from freehold.core.findings import Finding, Verdict
from freehold.health.judge.gpus import has_none
from freehold.health.judge.rule_result import BLIND_S, SILENCE_S, Judged, unread
from freehold.health.judge.xid import (
    BURST_XID_13_S,
    REPEATED_TIMES,
    gpu_events,
    judge_gpu,
    judge_switch,
)
from freehold.health.kernel_log.events import KernelEvent, Kind, pci_key, read_events, uuids
from freehold.health.model.probe import Expected, Probe, Threshold
from freehold.health.model.view import Gpus, View

WINDOW_S = 86_400.0
"""NVSentinel's rules on repeated XIDs look back 24 hours."""

_REASONS = {
    "no_xid": "the log was read and says nothing against it",
    "harmless_xid": "only XIDs that are never a cause: nothing to do",
    "application_error": "a program's mistake (XID 13, 31, 43 and the like): look at the engine",
    "unit_xid": "a copy or video unit failed: restart the program; the GPU if it comes back",
    "ambiguous_xid": "sources point to opposite sides: restart the program; reset the GPU if it comes back",
    "repeats_on_this_gpu": "again on this GPU alone: try the same work on another GPU, and other work here",
    "recovery_action": "the driver's own verdict: do what it asks for",
    "off_bus": "the GPU is gone from the bus: cordon at once, reboot or power-cycle",
    "off_bus_again": "gone again: hardware (card, slot, riser or power)",
    "init_failed": "the driver could not start the GPU: reboot; hardware if it comes back",
    "pcie_error": "uncorrected PCIe errors that were not fatal: watch replays and width",
    "pcie_fatal": "fatal PCIe errors: cordon, inspect card and slot",
    "memory_xid": "GPU memory: reset so that rows are remapped; replace when that fails",
    "firmware_xid": "GSP, PMU or SEC2: compare driver versions, reset; reboot if it comes back",
    "driver_xid": "the driver: compare versions, reset if it comes back",
    "link_xid": "NVLink or C2C: reset; inspect if the same link has it again",
    "nvlink_signal": "poor signal on an NVLink: reset the GPU where the link is down; reseat, check the cable",
    "nvlink_non_fatal": "an NVLink error that was not fatal: watch",
    "nvlink_corrected": "an NVLink error that was corrected: nothing to do",
    "nvlink_program": "an NVLink error that ends the program: do what XID 154 asks for; without one restart the program",
    "nvlink_peer": "an NVLink went down from its other end: reset the GPU, and look at the GPU or switch there",
    "nvlink_taken_down": "an NVLink was taken down by software, a person or the host: reset the GPU unless it was meant",
    "power_xid": "power supply of the card: check the cable",
    "hardware_xid": "hardware: drain, inspect if it comes back",
    "configuration_xid": "a setting or a version: fix it",
    "unknown_xid": "an XID that no catalogue explains: watch",
    "switch_fatal": "an NVSwitch link failed: reboot to reset the fabric",
    "switch_witness": "an NVSwitch saw a GPU leave: look at that GPU",
    "switch_thermal": "an NVSwitch is too warm: look at cooling",
    "switch_non_fatal": "an NVSwitch corrected or noted something: nothing to do",
    "not_read": "the kernel's log was not read: say why and give the right to (dmesg_restrict, CAP_SYSLOG)",
    "records_lost": "the kernel overwrote records before they were read: wait",
    "gpus_unknown": "which GPUs there are was not read",
    "no_gpu": "this machine has no NVIDIA GPU",
}


def check(views: Sequence[View], _expected: Expected) -> Sequence[Finding]:
    """Return one finding per GPU known or complained of, and one per NVSwitch that said anything."""
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
    return [
        each.finding(PROBE.name, part, node=now.node, at_s=now.at_s) for part, each in sorted(found.items())
    ]


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
    """Leave out PCIe errors at an address that is no GPU's."""
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


def _without_gpus(gpus: Gpus | None, quiet: Judged) -> Judged:
    if quiet.verdict is Verdict.UNKNOWN:
        return quiet
    if gpus and has_none(gpus):
        return Judged(verdict=Verdict.NOT_APPLICABLE, reason="no_gpu", message="no NVIDIA GPU on the bus")
    return Judged(verdict=Verdict.UNKNOWN, reason="gpus_unknown", message="which GPUs there are was not read")


def _switches(
    events: Sequence[KernelEvent], against: Mapping[str, list[KernelEvent]]
) -> Iterator[tuple[str, Judged]]:
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


PROBE = Probe(
    name="gpu_xid",
    summary="Sees what the NVIDIA driver says of each GPU in the kernel's log; the first sign of most GPU faults.",
    reads=("kernel", "gpus"),
    window_s=WINDOW_S,
    newest=("gpus",),
    reasons=_REASONS,
    thresholds=(
        Threshold(name="window_s", value=WINDOW_S, source="NVSentinel: repeated XIDs within 24 h"),
        Threshold(
            name="repeated_times", value=REPEATED_TIMES, source="NVSentinel: XID 13 and 31 twice on one GPU"
        ),
        Threshold(
            name="incident_silence_s", value=SILENCE_S, source="NVIDIA Fleet Intelligence, NVSentinel: 3 min"
        ),
        Threshold(name="xid_13_burst_s", value=BURST_XID_13_S, source="NVSentinel: 15 s for XID 13"),
        Threshold(
            name="blind_s", value=BLIND_S, source="our own choice: ten minutes after records were lost"
        ),
    ),
    check=check,
    confirm=1,
    clear=3,
)
