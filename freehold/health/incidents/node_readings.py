"""What a node's views hold for an incident besides events: which GPU is which, and what was read before it and is read now.

GPUs alone are compared: everything else that moves is judged by the probes, over their own windows. It keeps two older
readings and the newest, and judges nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from freehold.core.findings import Finding, Verdict
from freehold.health.checks.storage_errors import same_disk
from freehold.health.evidence.incident import SILENCE_S
from freehold.health.evidence.quantity import ReadingChange
from freehold.health.evidence.surroundings import EngineEnd
from freehold.health.evidence.view_changes import engine_end, gpu_changes
from freehold.health.kernel_log.events import KernelEvent, Kind, pci_key, uuids
from freehold.health.model.snapshot import GpuName
from freehold.health.model.view import EngineView, Gpus, View, Volume

APART_S = 60.0
"""Between the readings that are kept. Source: our own choice: a fault shows in counters some looks before a probe is sure of it."""
GPUS_MOST = 64
"""Names of GPUs that are kept, the newest. Source: our own bound: four times the largest node."""
_OF_ONE_PROCESS = frozenset({Kind.CRASH, Kind.HUNG_TASK, Kind.OOM_KILL})
"""Kinds whose line is about one process. Every user can have the kernel write one, under any name."""


class NodeReadings:
    """What is known of one node's devices; all of it is for one thread."""

    def __init__(self, gpus: Iterable[GpuName] = ()) -> None:
        self._by_pci = {gpu.pci: gpu for gpu in gpus}
        self._alias: dict[str, str] = {}
        self._kept: list[tuple[float, Gpus]] = []
        self._gpus: Gpus | None = None
        self._volumes: tuple[Volume, ...] = ()
        self._engines: tuple[EngineView, ...] = ()
        self._engine_pids: dict[int, float] = {}
        """When a process was last seen among an engine's, Unix seconds."""
        self._at_s = 0.0
        self.named = False
        """The GPUs were read, so that it is known which is which."""
        self.cool: tuple[Finding, ...] = ()
        """What is said of GPUs that are not hot."""
        self._name_all()

    @property
    def gpus(self) -> tuple[GpuName, ...]:
        """Return every GPU that was ever named here."""
        return tuple(self._by_pci.values())

    def add(self, view: View) -> None:
        """Take in a view."""
        self._at_s = view.at_s
        self._volumes = self._volumes if view.volumes is None else view.volumes
        if view.engines is not None:
            self._engines = view.engines
            fresh_s = view.at_s - SILENCE_S
            seen = {pid: at_s for pid, at_s in self._engine_pids.items() if at_s > fresh_s}
            now = (pid for each in view.engines for pid in (each.pid, *each.processes))
            self._engine_pids = seen | dict.fromkeys(now, view.at_s)
        if view.gpus is not None:
            self._gpus, self.named = view.gpus, True
            if not self._kept or view.at_s - self._kept[-1][0] >= APART_S or view.at_s < self._kept[-1][0]:
                self._kept = [*self._kept[-1:], (view.at_s, view.gpus)]
            self._learn(_named(view.gpus))
            self._name_all()

    def learn_names(self, events: Iterable[KernelEvent]) -> None:
        """Take in what the kernel's log says of which GPU stands where."""
        if named := uuids(events):
            self._learn(GpuName(pci=pci, uuid=uuid) for pci, uuid in named.items())
            self._name_all()

    def concerns_node(self, event: KernelEvent) -> bool:
        """Return whether an event is about the node or an engine of it; False: about a process of something else.

        If the whole machine ran out of memory, that is the node's, whichever process was killed for it.
        """
        if event.kind not in _OF_ONE_PROCESS or event.fields.get("limit") == "host":
            return True
        return int(event.fields["pid"]) in self._engine_pids

    def compare(self, findings: Iterable[Finding]) -> None:
        """Take over which GPUs are found to be cool: what the hot ones are compared with."""
        well = (f for f in findings if f.probe == "gpu_temperature" and f.verdict is Verdict.HEALTHY)
        self.cool = tuple(well)

    def component(self, name: str) -> str:
        """Return what findings call a component that the kernel, or a reading, calls by another name."""
        if name.startswith("disk:"):
            device = name.removeprefix("disk:")
            mine = (v.path for v in self._volumes if any(same_disk(device, d) for d in (v.device, *v.disks)))
            return f"disk:{next(mine, device)}"
        return self._alias.get(name, name)

    def subject(self, component: str) -> str:
        """Return what the history calls a component: a GPU by its serial number, where that was ever read."""
        return next((subject for name, subject in self.subjects() if name == component), component)

    def subjects(self) -> tuple[tuple[str, str], ...]:
        """Return, of each GPU with a serial number, what findings and what the history call it."""
        return tuple((f"gpu:{gpu.uuid}", f"gpu:{gpu.serial}") for gpu in self.gpus if gpu.uuid and gpu.serial)

    def before(self, start_s: float) -> Gpus | None:
        """Return GPU readings from before that time, or the oldest that are kept; None: there are none."""
        earlier = [gpus for at_s, gpus in self._kept if at_s <= start_s - APART_S / 2]
        return earlier[-1] if earlier else self._kept[0][1] if self._kept else None

    def changes(self, before: Gpus | None) -> tuple[ReadingChange, ...]:
        """Return what the GPUs' readings were then and are now."""
        found = gpu_changes(before, self._gpus)
        return tuple(replace(change, component=self.component(change.component)) for change in found)

    def ends(self, findings: Iterable[Finding]) -> tuple[EngineEnd, ...]:
        """Return how the engines that these findings are about have ended, or stand."""
        ill = {finding.component for finding in findings}
        return tuple(engine_end(e, self._at_s) for e in self._engines if f"engine:{e.replica}" in ill)

    def _learn(self, names: Iterable[GpuName]) -> None:
        for name in names:
            old = self._by_pci.get(name.pci)
            if old is not None and (old.uuid == name.uuid or not name.uuid):
                name = GpuName(pci=name.pci, uuid=old.uuid, serial=name.serial or old.serial)  # noqa: PLW2901
            self._by_pci[name.pci] = name
        self._by_pci = dict(list(self._by_pci.items())[-GPUS_MOST:])

    def _name_all(self) -> None:
        self._alias = {f"gpu:{gpu.pci}": f"gpu:{gpu.uuid}" for gpu in self.gpus if gpu.uuid}
        for gpu in self._gpus.gpus if self._gpus else ():
            known = self._by_pci.get(pci_key(gpu.pci))
            name = gpu.uuid or (known.uuid if known else "") or pci_key(gpu.pci)
            if name:
                self._alias |= {f"gpu:{gpu.index}": f"gpu:{name}", f"gpu:{gpu.pci}": f"gpu:{name}"}


def _named(gpus: Gpus) -> Iterator[GpuName]:
    for gpu in gpus.gpus:
        if pci := pci_key(gpu.pci):
            yield GpuName(pci=pci, uuid=gpu.uuid, serial=gpu.serial)
