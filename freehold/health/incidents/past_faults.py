"""Earlier faults of a live node: the history's file and its own diagnoses since, with the steps that were really taken.

An advice to reboot is not a reboot: one is known by the boot id, a reset by the driver's own lines.
So no fault counts as one that came back after a step that was not taken. Nothing here reads or writes a file: the agent takes
the lines that are to be written.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import msgspec

from freehold.core.findings import Action
from freehold.health.evidence.kernel_signs import DAY_S, PastFault
from freehold.health.incidents.conclusions import as_past
from freehold.health.incidents.history import History, Mark, boundary_s, latest_revisions, since
from freehold.health.incidents.node_readings import NodeReadings
from freehold.health.incidents.open_incident import OpenIncident
from freehold.health.kernel_log.events import KernelEvent, Kind

OWN_MOST = 500
"""Lines that are remembered whether or not a disk took them. Source: our own bound."""
_LASTING = frozenset({Action.REBOOT, Action.RESET_GPU})
"""Steps that cost something, and after which a fault that is back says something. Source: gpud, two reboots."""
RENEWED_MOST = 50
"""Times of the driver's renewal that are remembered. Source: our own bound: it is loaded some times a day at most."""


class FaultMemory:
    """One node's past."""

    def __init__(self, *, node: str, boot: str) -> None:
        self._node, self._boot = node, boot
        self.history = History()
        """The file as it was read last."""
        self._boundaries: dict[str, float] = {}
        self._own: list[PastFault] = []
        self._to_write: list[PastFault] = []
        self._renewed: list[tuple[float, str]] = []
        """When the driver was loaded anew or took back what it asked for, and of which GPU (empty: all)."""

    def learn(self, history: History) -> list[Mark]:
        """Take over the file as it is now; return the marks that are new in it."""
        fresh = [mark for mark in history.marks if mark not in self.history.marks]
        self.history, self._boundaries = history, history.boundaries()
        return fresh

    def is_past(self, names: Iterable[str], at_s: float) -> bool:
        """Return whether an operator has set healthy since then what goes by any of these names."""
        return any(at_s <= boundary_s(self._boundaries, name) for name in names)

    def note_renewals(self, events: Iterable[KernelEvent]) -> None:
        """Note when the driver began anew."""
        for event in events:
            taken_back = event.kind is Kind.RECOVERY_ACTION and event.number == 0
            if taken_back or event.kind is Kind.DRIVER_LOADED:
                self._renewed.append((event.at_s, f"gpu:{event.device}" if taken_back else ""))
        del self._renewed[:-RENEWED_MOST]

    def of(self, one: OpenIncident, readings: NodeReadings) -> Iterator[PastFault]:
        """Yield what counts for an incident of what was diagnosed before it, each with the step that was really taken.

        What is only measured comes and goes with the load: within a day it counts once, unless a step was taken between.
        """
        every = latest_revisions([*self.history.past, *self._own])
        counted: dict[tuple[str, str], float] = {}
        for past in since(every, boundaries=self._boundaries):
            if past.incident == one.id or past.at_s >= one.start_s:
                continue
            done = past if self._was_done(past, readings) else replace(past, action=Action.NONE)
            key = (past.subject, past.signature)
            again = past.at_s - counted.get(key, -float("inf")) < DAY_S
            if again and not past.signature.startswith("xid ") and done.action not in _LASTING:
                continue
            counted[key] = past.at_s
            yield done

    def _was_done(self, past: PastFault, readings: NodeReadings) -> bool:
        """Return whether its step was taken; a restart of an engine costs nothing: that it was tried is believed."""
        if past.action not in _LASTING or past.boot != self._boot:
            return True
        after = [gpu for at_s, gpu in self._renewed if at_s > past.at_s]
        mine = any(not gpu or readings.subject(readings.component(gpu)) == past.subject for gpu in after)
        return past.action == Action.RESET_GPU and mine

    def keep(self, one: OpenIncident, readings: NodeReadings, *, boot: str | None = None) -> None:
        """Remember what was made of an incident, and let it be written; `boot` is the one in which it was."""
        one.written = one.conclusion
        one.report = msgspec.structs.replace(one.report, revision=one.report.revision + 1)
        for past in as_past(one.diagnosis) if one.diagnosis else [_from_report(one)]:
            line = replace(
                past,
                subject=readings.subject(past.subject),
                node=self._node,
                incident=one.id,
                revision=one.report.revision,
                boot=self._boot if boot is None else boot,
            )
            self._to_write.append(line)
            self._own.append(line)
        del self._own[:-OWN_MOST]
        del self._to_write[:-OWN_MOST]

    def take_lines(self) -> list[PastFault]:
        """Return what is to be added to the file, once."""
        lines, self._to_write = self._to_write, []
        return lines


def _from_report(one: OpenIncident) -> PastFault:
    """Return what the agent before this one made of an incident, which it may not have written down."""
    report = one.report
    return PastFault(
        at_s=report.start_s,
        subject=report.component,
        signature=report.signature,
        action=str(report.action),
        hypothesis=report.hypothesis,
    )
