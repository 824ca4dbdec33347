"""One incident with all that is known of it, and everything that it shows: the signs that are weighed.

Signs come from events, readings, findings, engines and context; some only from what came before, or from several of these
together. Their order does not depend on the order of the input. Nothing here decides: see `diagnose`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from freehold.catalog.load_evidence import EvidenceTable as Table
from freehold.catalog.load_evidence import Hypothesis, Tier
from freehold.core.findings import Action, Finding
from freehold.health.evidence.correlations import together_signs, with_siblings
from freehold.health.evidence.counters import change_signs
from freehold.health.evidence.incident import NodeIncident
from freehold.health.evidence.kernel_signs import DAY_S, PastFault, event_signs
from freehold.health.evidence.quantity import MeasuredQuantity
from freehold.health.evidence.scoring import RECOVERY, SeenSign, see
from freehold.health.evidence.surroundings import (
    EngineEnd,
    Surroundings,
    around_signs,
    engine_signs,
    finding_signs,
)

REBOOTS = 2
"""After this many reboots for one fault it is the hardware. Source: gpud's default."""
FATAL_A_DAY = 5
"""So many faults of one GPU within a day are its own. Source: NVSentinel, five fatal XIDs on one GPU in 24 h."""
_OWN_FAULT = 0.5
"""What a sign must say for hardware or driver, nats, to count as such a fault. Source: our own choice: a program's fault says less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentCase:
    """One incident with all that is known of it."""

    incident: NodeIncident
    findings: tuple[Finding, ...] = ()
    engines: tuple[EngineEnd, ...] = ()
    around: Surroundings = field(default_factory=Surroundings)
    past: tuple[PastFault, ...] = ()
    """Diagnosed before, after the last time that an operator set it healthy."""
    names: tuple[tuple[str, str], ...] = ()
    """Component to the name that the history knows it by (serial number)."""
    aside: bool = False
    """It is of a part that nothing here is known to work on, such as a disk without a watched volume: no reason to take the node out."""

    def subject(self, component: str) -> str:
        """Return what the history calls a component."""
        return dict(self.names).get(component, component)


def signs(case: IncidentCase, table: Table) -> list[SeenSign]:
    """Return everything that the incident shows, in an order that does not depend on the order of the input."""
    changes = with_siblings(case.incident.changes)
    alone = change_signs(table, changes)
    past = tuple(_renamed(case))
    found = [
        *event_signs(table, case.incident, past),
        *alone,
        *together_signs(table, changes, alone),
        *finding_signs(table, case.findings),
        *engine_signs(table, case.engines),
        *around_signs(table, case.around),
    ]
    found.extend(_several(table, found))
    found.extend(_idle_gpu(table, found, case))
    found.extend(_stays(table, found, case))
    return sorted(set(_victims(table, _without_doubt(found))), key=SeenSign.order)


def _renamed(case: IncidentCase) -> Iterable[PastFault]:
    """Return the past by the names that the incident uses."""
    components = {name: component for component, name in case.names}
    if not components:
        return case.past
    return (replace(one, subject=components.get(one.subject, one.subject)) for one in case.past)


def _without_doubt(found: list[SeenSign]) -> list[SeenSign]:
    """Leave out that counters did not move where something moved them, and that a driver changed where it is not the locked one: one fact."""
    if any(item.sign.name == "driver_drift" for item in found):
        found = [item for item in found if item.sign.name != "driver_changed_recently"]
    moved = any(
        item.sign.tier in {Tier.MEMORY, Tier.BUS} and item.sign.name != "stays_with_gpu" for item in found
    )
    return [item for item in found if not (moved and item.sign.name == "counters_clean")]


_VICTIM = frozenset({"log_exception", "engine_crashed", "engine_killed", "engine_frozen", "engine_ended"})
"""Ways in which an engine suffers from anything else. Source: our own choice: they say that it ended, not why."""
_CAUSE = 1.0
"""What a sign must weigh, nats, to have been the cause of that. Source: our own choice: as much as "we do not know"."""


_BROKEN = frozenset(
    {
        "memory_fatal",
        "memory_contained",
        "memory_remap",
        "row_remap_failure",
        "ecc_uncorrected",
        "log_ecc",
        "gpu_lost",
        "nvlink",
        "nvlink_hardware",
        "switch_fatal",
    }
)
"""Signs of a GPU or link that broke in this incident. Source: the highest tiers of catalog/data/health/evidence.yaml, as far as they are events."""
_FOLLOWING = frozenset(
    {"app_fault", "app_disputed", "app_repeats_elsewhere", "ambiguous", "engine_unit", "engine_pid", "peer_access", "log_illegal_access",
     "log_collective", "log_no_gpu", "log_device_busy"}
)  # fmt: skip
"""What a broken GPU or link brings to the programs that use it. Source: NVIDIA's catalogue on 13, 31, 43 after memory and link errors."""


_REFUSED = frozenset({"driver_blocked", "driver_missing", "library_mismatch"})
"""Signs of a driver that could not be loaded. Source: the texts of the kernel and the driver."""
_WITHOUT_DRIVER = frozenset({"gpu_start_failed", "log_no_gpu", "log_device_busy"})
"""What follows from that: a GPU that does not start, a program that finds none. Source: our own choice."""


def _following(table: Table, found: list[SeenSign]) -> list[SeenSign]:
    """Make errors of programs weigh nothing beside a GPU or link that broke, nor a GPU's beside a driver that was kept from it."""
    there = {item.sign.name for item in found}
    follow = (_FOLLOWING if there & _BROKEN else frozenset()) | (
        _WITHOUT_DRIVER if there & _REFUSED else frozenset()
    )
    return [
        replace(item, sign=table.signs["follows"]) if item.sign.name in follow else item for item in found
    ]


def _victims(table: Table, found: list[SeenSign]) -> list[SeenSign]:
    """Make an engine's end or standstill weigh nothing where anything else was seen that can explain it."""
    found = _following(table, found)
    causes = [
        item.sign for item in found if item.sign.name not in _VICTIM and item.sign.action is not Action.NONE
    ]
    if not any(max(sign.weights.values(), default=0.0) >= _CAUSE for sign in causes):
        return found
    ended = table.signs["engine_ended"]
    return [replace(item, sign=ended) if item.sign.name in _VICTIM else item for item in found]


def _several(table: Table, found: list[SeenSign]) -> Iterable[SeenSign]:
    lost = {
        item.component: item
        for item in found
        if item.sign.name == "gpu_lost" and item.component.startswith("gpu:")
    }
    if len(lost) > 1:
        first = lost[min(lost)]
        yield see(
            table,
            "several_lost",
            component="gpu:",
            value=f"{len(lost)} GPUs",
            source=first.source,
            at_s=first.at_s,
        )


def _idle_gpu(table: Table, found: list[SeenSign], case: IncidentCase) -> Iterable[SeenSign]:
    frozen = any(item.sign.name == "engine_frozen" for item in found)
    if frozen and not any(item.component.startswith("gpu:") and item.sign.weights for item in found):
        for change in case.incident.changes:
            if (
                change.component.startswith("gpu:")
                and change.quantity is MeasuredQuantity.UTILISATION
                and change.after == 0
            ):
                yield see(
                    table,
                    "gpu_idle_fine",
                    component=change.component,
                    value="utilisation 0 %",
                    source=change.source,
                )
                return


def _stays(table: Table, found: list[SeenSign], case: IncidentCase) -> Iterable[SeenSign]:
    """Yield that a fault stays with its GPU: twice rebooted for it, or five times within a day; or that it is back after a reset."""
    own = {
        (item.component, signature(item)): item
        for item in found
        if item.component.startswith("gpu:") and _may_escalate(item)
    }
    for (component, fault), item in sorted(own.items(), key=lambda pair: pair[0]):
        same = [p for p in case.past if p.signature == fault and p.subject == case.subject(component)]
        name = _again(same, case.incident.start_s)
        if name:
            reboots = sum(p.action == Action.REBOOT for p in same)
            value = f"{fault}: {len(same)} times before, {reboots} reboots"
            yield see(
                table,
                name,
                component=item.component,
                value=value,
                source="history",
                at_s=case.incident.start_s,
            )
            return


def _again(same: list[PastFault], start_s: float) -> str:
    tried = [p.action for p in same]
    if (
        tried.count(Action.REBOOT) >= REBOOTS
        or sum(0 <= start_s - p.at_s <= DAY_S for p in same) >= FATAL_A_DAY
    ):
        return "stays_with_gpu"
    return "returns_after_reset" if {Action.RESET_GPU, Action.REBOOT} & set(tried) else ""


def _may_escalate(item: SeenSign) -> bool:
    weights = item.sign.weights
    return max(weights.get(Hypothesis.HARDWARE, 0.0), weights.get(Hypothesis.DRIVER, 0.0)) >= _OWN_FAULT


def signature(item: SeenSign) -> str:
    """Return what counts as the same fault again on the same subject."""
    return (
        f"xid {item.number}" if item.number is not None and item.sign.name not in RECOVERY else item.sign.name
    )
