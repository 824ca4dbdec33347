"""Diagnoses of several incidents in a row: each knows those before it as its past, and the foremost is the one to act on first.

Nothing here weighs evidence: see `evidence.diagnose`.
"""

from collections.abc import Sequence
from dataclasses import replace

from freehold.core.findings import Action
from freehold.health.evidence.case import IncidentCase
from freehold.health.evidence.diagnose import Diagnosis, diagnose
from freehold.health.evidence.incident import IncidentEvent
from freehold.health.evidence.kernel_signs import DAY_S, PastFault

_BEFORE_MOST = 500
"""Earlier faults of the same file that an incident is compared with. Source: our own choice: a day of incidents."""
_RANK = {action: index for index, action in enumerate(Action)}


def diagnose_all(cases: Sequence[IncidentCase]) -> list[Diagnosis]:
    """Return a diagnosis per case, oldest first; each knows those before it as its past."""
    done: list[Diagnosis] = []
    before: list[PastFault] = []
    for case in cases:
        start_s = case.incident.start_s
        before = [one for one in before if start_s - one.at_s <= DAY_S][-_BEFORE_MOST:]
        diagnosis = diagnose(replace(case, past=(*case.past, *before)))
        done.append(diagnosis)
        # Whether the step was ever taken is not known.
        before.extend(replace(one, action=Action.NONE) for one in as_past(diagnosis))
    return done


def as_past(diagnosis: Diagnosis) -> list[PastFault]:
    """Return what the history keeps of a diagnosis: the fault, and each XID by itself, so that repetitions are found."""
    incident = diagnosis.incident
    if not diagnosis.problem:
        return []
    main = PastFault(
        at_s=incident.start_s, subject=diagnosis.component, signature=diagnosis.signature, action=str(diagnosis.action),
        hypothesis=str(diagnosis.hypothesis), node=incident.node,
    )  # fmt: skip
    xids = {(one.component, one.number, _place(one)): one for one in incident.events if one.kind == "xid"}
    others = [
        PastFault(
            at_s=event.at_s, subject=component, signature=f"xid {number}", place=place, node=incident.node
        )
        for (component, number, place), event in sorted(xids.items(), key=str)
        if (component, f"xid {number}") != (main.subject, main.signature) or place
    ]
    same = [one for one in others if (one.subject, one.signature) == (main.subject, main.signature)]
    if not same:
        return [main, *others]
    return [replace(main, place=same[0].place), *(one for one in others if one is not same[0])]


def _place(event: IncidentEvent) -> str:
    return ", ".join(f"{key} {event.fields[key]}" for key in ("gpc", "tpc") if key in event.fields)


def foremost(diagnoses: Sequence[Diagnosis]) -> Diagnosis | None:
    """Return the one that matters most: a known cause before an unknown one, then the gravest action, then the latest."""
    return max(
        diagnoses,
        key=lambda d: (d.problem, d.hypothesis != "undetermined", _RANK[d.action], d.incident.end_s),
        default=None,
    )
