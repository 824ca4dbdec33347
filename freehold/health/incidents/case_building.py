"""From one incident of a live node to the case that is diagnosed: its events, findings and engines, and the other incidents of the node.

Of readings before and after only the GPUs' are given: what is slow, lost or short is judged by probes over their own windows,
and one reading of a second says less. What is unhealthy on the machine since before is given too, since an engine that
fails later may be its victim; what is merely out of order (a clock, a disk that fills, a version) is not.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from freehold.catalog.load_evidence import Tier, load_evidence
from freehold.core.findings import Finding, Verdict
from freehold.health.evidence.case import IncidentCase
from freehold.health.evidence.correlations import ERROR_COUNTERS
from freehold.health.evidence.incident import IncidentEvent, group
from freehold.health.evidence.kernel_signs import PastFault
from freehold.health.evidence.link_events import settled
from freehold.health.evidence.log_patterns import finding_sign
from freehold.health.evidence.quantity import MeasuredQuantity, ReadingChange
from freehold.health.incidents.node_readings import NodeReadings
from freehold.health.incidents.open_incident import OpenIncident
from freehold.health.model.view import State

_MACHINE = ("gpu", "driver", "disk", "memory")
"""Components that an engine on this node needs. Source: our own choice: what a process of one node works on."""
_VICTIMS = ("engine:", "process:")
"""Components that suffer from the machine. Source: our own choice, as `cases` calls an engine's end a victim's."""
_GPU_KINDS = frozenset(
    {"xid", "recovery_action", "off_bus", "gpu_init_failed", "aer_uncorrected", "aer_unrecovered"}
)
"""Kernel events that the probe `gpu_xid` judges. Source: `judge.xid`."""
_STEADY = ERROR_COUNTERS | {MeasuredQuantity.ECC_MODE, MeasuredQuantity.UTILISATION, MeasuredQuantity.POWER}
"""Readings that mean something when they did not move, too. Source: `correlations`: clean counters, a GPU that is busy or idle."""


def apart_of(component: str, finding: Finding | None = None) -> str:
    """Return what something is about that neither explains nor comes from anything else; empty: it may belong to any incident.

    That is a wrong clock, a disk that is filling and not full yet, and a disk that no watched volume is on.
    """
    if finding is not None and finding.probe == "clock":
        return "clock"
    if finding is not None and finding.probe == "disk_space" and finding.verdict is Verdict.DEGRADED:
        return f"filling {component}"
    return component if is_unwatched_disk(component) else ""


def is_unwatched_disk(component: str) -> bool:
    """Return whether it is a disk, or a loop device, that no watched volume is on: those are called by their paths."""
    return component.startswith("disk:") and "/" not in component


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSituation:
    """What is known around an incident."""

    node: str
    readings: NodeReadings
    others: Sequence[OpenIncident]
    """All that goes on at the node."""
    minor: Sequence[IncidentEvent]
    """Kernel events that mean no trouble by themselves."""
    past: Iterable[PastFault]


def case_of(one: OpenIncident, situation: NodeSituation) -> IncidentCase:
    """Return the case that an incident is."""
    readings = situation.readings
    minor = [event for event in situation.minor if one.is_near(event.at_s)]
    named = [replace(event, component=readings.component(event.component)) for event in (*one.events, *minor)]
    mine = [event for event in named if event.kind == "finding" or apart_of(event.component) == one.apart]
    events = settled(mine)
    start = IncidentEvent(at_s=one.start_s, kind="finding")
    changes = _changes(one, readings)
    (incident,) = group(events or [start], node=situation.node, changes=changes, silence_s=float("inf"))
    in_events = {event.component for event in events if event.kind in _GPU_KINDS}
    return IncidentCase(
        incident=incident,
        findings=(
            # The probe on XIDs reports no more than the lines themselves, and its finding has no number to be counted by.
            *(
                found
                for found in one.was.values()
                if found.probe != "gpu_xid" or found.component not in in_events
            ),
            *_standing(one, situation.others),
            *readings.cool,
        ),
        engines=tuple(one.ends.values()),
        past=tuple(situation.past),
        names=readings.subjects(),
        aside=is_unwatched_disk(one.apart),
    )


def _changes(one: OpenIncident, readings: NodeReadings) -> tuple[ReadingChange, ...]:
    """Return what moved on the GPUs, and the counters that say something by not having moved.

    Of a GPU all of whose readings fail alike (it is lost) one is enough.
    """
    found: dict[tuple[str, str], ReadingChange] = {}
    for change in () if one.apart else readings.changes(one.before):
        if isinstance(change.after, State):
            found.setdefault((change.component, change.after), change)
        elif change.before is not None and (change.before != change.after or change.quantity in _STEADY):
            found[change.component, change.name] = change
    return tuple(found.values())


def _standing(one: OpenIncident, others: Iterable[OpenIncident]) -> Iterator[Finding]:
    """Yield what else is unhealthy on the machine, where engines or other programs suffer."""
    needs_it = any(part.startswith(_VICTIMS) for part in one.components())
    for other in others if needs_it else ():
        for key, finding in other.ill.items():
            if other is not one and key not in one.was and finding is not None and _may_be_the_cause(finding):
                yield finding


def _may_be_the_cause(finding: Finding) -> bool:
    if finding.verdict is not Verdict.UNHEALTHY or not finding.component.startswith(_MACHINE):
        return False
    said = f"{finding.reason} {finding.message}".replace("_", " ")
    sign = load_evidence().signs.get(finding_sign(finding.probe, said) or "")
    return sign is not None and sign.tier is not Tier.CONFIG
