"""Kernel lines as events of an incident, with what they name as components.

Reading a line is `kernel_log.events`' business; a line that reports nothing bad is not an event. Nothing here judges.
"""

from collections.abc import Sequence

import msgspec

from freehold.health.evidence.incident import IncidentEvent
from freehold.health.kernel_log.events import KernelEvent, Kind, read_events
from freehold.health.model.view import KernelLine

SILENT = frozenset({Kind.GPU_UUID, Kind.DRIVER_LOADED})
"""Kinds that report nothing bad. Source: the meaning of those lines: which GPU is at which address, which driver was loaded."""


def kernel_events(lines: Sequence[KernelLine]) -> list[IncidentEvent]:
    """Return kernel lines as events of an incident; lines that report nothing bad are not events.

    Events of links and file servers, and of UUIDs, are still to be `settled`, once all lines are known.
    """
    read = [event for event in read_events(list(lines)) if event.kind is not Kind.DRIVER_LOADED]
    return [as_event(event) for event in with_disk_names(read)]


def with_disk_names(events: Sequence[KernelEvent]) -> list[KernelEvent]:
    """Return the events with a disk's name in place of its ATA port's, where the same lines have both."""
    disks = _scsi_names(events)
    return [msgspec.structs.replace(event, device=disks.get(event.device, event.device)) for event in events]


def _scsi_names(events: Sequence[KernelEvent]) -> dict[str, str]:
    """Return which disk an ATA port is: the one whose error the kernel reports right after the port's."""
    names: dict[str, str] = {}
    port, at_s = "", 0.0
    for event in events:
        if event.kind is not Kind.DISK_ERROR:
            continue
        if event.device.startswith("ata"):
            port, at_s = event.device, event.at_s
        elif port and event.device.startswith("sd") and event.at_s - at_s <= _SAME_ERROR_S:
            names.setdefault(port, event.device)
    return names


_SAME_ERROR_S = 5.0
"""The kernel reports one failed command of a SATA disk as the port's and then the disk's. Source: our own choice for how far apart."""


def as_event(event: KernelEvent) -> IncidentEvent:
    """Return a kernel event as one of an incident."""
    return IncidentEvent(
        at_s=event.at_s,
        kind=str(event.kind),
        component=_component(event),
        number=event.number,
        text=event.text,
        fields=event.fields,
    )


def _component(event: KernelEvent) -> str:
    kind = str(event.kind)
    if kind in {"xid", "recovery_action", "off_bus", "gpu_init_failed", "gpu_uuid"}:
        return f"gpu:{event.device}"
    if kind.startswith(("disk", "file_system", "read_only")):
        return f"disk:{event.device}"
    if kind.startswith("nic"):
        return f"link:{event.fields.get('interface') or event.fields.get('address') or event.device}"
    if kind.startswith("server"):
        return f"server:{event.device}"
    if kind.startswith("driver") or kind == "reset_required":
        return f"gpu:{event.device}" if event.device else "driver"
    if kind in {"oom_kill", "hung_task", "crash"}:
        return f"process:{event.fields.get('name', '')}"
    names = {
        "sxid": "nvswitch",
        "api_mismatch": "driver",
        "fabric_misfit": "nvswitch",
        "shutdown": "node",
        "too_hot": "host",
        "warm": "cpu",
        "lockup": "cpu",
        "kernel_bug": "kernel",
    }
    return f"pci:{event.device}" if kind.startswith("aer") else names.get(kind, "memory")
