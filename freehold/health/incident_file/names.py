"""What an incident file calls the parts of a node, in the names that cases use: `gpu:0000:9b:00`, `disk:/models`, `link:eth0`. Nothing here reads values."""

import re
from collections.abc import Iterable, Iterator

from freehold.health.evidence.incident import IncidentEvent
from freehold.health.incident_file.schema import CounterEntry, GpuNames
from freehold.health.kernel_log.kinds import pci_key

_GPU = re.compile(r"gpu:|GPU-|\d+$|[0-9a-f]{4,8}:[0-9a-f]{2}:", re.IGNORECASE)
_PARTS = {"disk": "disk", "interface": "link", "peer": "peer", "replica": "engine", "host": "host"}
"""Keys of a counter and the kind of component that each names."""


def gpu_component(name: int | str) -> str:
    """Return a GPU's component: by its PCI address in one spelling, else as it is written."""
    rest = str(name).removeprefix("gpu:")
    return f"gpu:{pci_key(rest) or rest}"


def component_of(name: str) -> str:
    """Return a component; what looks like a GPU's index, UUID or address is that GPU."""
    return gpu_component(name) if _GPU.match(name) else name


def of_counter(counter: CounterEntry) -> str:
    """Return the component that a counter was read of; empty: it names none."""
    if counter.component is not None:
        return component_of(counter.component)
    if counter.gpu is not None:
        return gpu_component(counter.gpu)
    named = ((kind, getattr(counter, key)) for key, kind in _PARTS.items())
    return next((f"{kind}:{name}" for kind, name in named if name is not None), "")


def gpu_names(gpus: Iterable[GpuNames], events: Iterable[IncidentEvent]) -> dict[str, str]:
    """Return other names of a GPU (`gpu:SERIAL`, `gpu:0`) to its component: by address, where that is known."""
    names = dict(_listed(gpus))
    for event in events:
        if event.kind == "gpu_uuid":
            names.setdefault(f"gpu:{event.fields['uuid']}", event.component)
    return names


def _listed(gpus: Iterable[GpuNames]) -> Iterator[tuple[str, str]]:
    for gpu in gpus:
        index = "" if gpu.index is None else str(gpu.index)
        component = f"gpu:{pci_key(gpu.pci) or index}"
        yield from ((f"gpu:{name}", component) for name in (index, gpu.uuid, gpu.serial) if name)
