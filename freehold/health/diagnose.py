"""From an incident to what caused it: a hypothesis with evidence for and against, and the gentlest step that helps.

The order is: signs of everything seen; verdicts that need no weighing; the weights; the primary cause among what supports the
winner, highest tier first, then earliest; the action, which the driver's own recovery action overrules and repetition
escalates. Where confidence stays below the floor the answer is `undetermined` and the step is cheap and reversible. Nothing
here acts, counts cordons or knows the fleet: how many nodes may be out at once is the fleet's to say.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from freehold.catalog.load_evidence import Evidence as Table
from freehold.catalog.load_evidence import Hypothesis, Tier, load_evidence
from freehold.catalog.load_xids import recovery_actions, xid
from freehold.core.findings import Action, Evidence, Finding
from freehold.health.incidents import Incident
from freehold.health.signs_changes import change_signs
from freehold.health.signs_engines import Around, EngineEnd, around_signs, engine_signs, finding_signs
from freehold.health.signs_events import DAY_S, Past, event_signs
from freehold.health.signs_together import together_signs, with_siblings
from freehold.health.weigh import FLOOR, Score, Seen, see, speaks_against, speaks_for, weigh

REBOOTS = 2
"""After this many reboots for one fault it is the hardware. Source: gpud's default."""
FATAL_A_DAY = 5
"""So many faults of one GPU within a day are its own. Source: NVSentinel, five fatal XIDs on one GPU in 24 h."""
_DISPUTED = 0.95
"""What confidence is multiplied with where sources contradict each other. Source: our own choice."""
_ORDER = {action: index for index, action in enumerate(Action)}
_TIERS = {tier: index for index, tier in enumerate(Tier)}
TAKES_OUT = frozenset(
    {Action.DRAIN, Action.RESET_GPU, Action.REBOOT, Action.CORDON, Action.INSPECT_HARDWARE, Action.REPLACE_HARDWARE}
)
"""Actions that take capacity away."""
_GENTLE = {
    Action.REBOOT: Action.DRAIN,
    Action.CORDON: Action.DRAIN,
    Action.INSPECT_HARDWARE: Action.DRAIN,
    Action.REPLACE_HARDWARE: Action.DRAIN,
}
"""What is done instead while the cause is not known. Source: research on NVSentinel and gpud: escalate by repetition, not by guess."""
_NO_LADDER = frozenset({Hypothesis.SOFTWARE, Hypothesis.CONFIGURATION, Hypothesis.FACILITY, Hypothesis.NETWORK, Hypothesis.STORAGE})
CAUTION = "Takes capacity away: one automatic cordon at a time, a verified spare first, never below the least capacity."
"""Source: NVSentinel's circuit breaker, for a farm of a few nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One incident with all that is known of it."""

    incident: Incident
    findings: tuple[Finding, ...] = ()
    engines: tuple[EngineEnd, ...] = ()
    around: Around = field(default_factory=Around)
    past: tuple[Past, ...] = ()
    """Diagnosed before, after the last time that an operator set it healthy."""
    names: tuple[tuple[str, str], ...] = ()
    """Component to the name that the history knows it by (serial number)."""

    def subject(self, component: str) -> str:
        """Return what the history calls a component."""
        return dict(self.names).get(component, component)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The answer on one incident."""

    hypothesis: Hypothesis
    component: str
    confidence: float
    """0 to 0.99; of `undetermined`: that of the nearest hypothesis."""
    action: Action
    evidence: tuple[Evidence, ...]
    evidence_against: tuple[Evidence, ...]
    what_would_change_it: str
    summary: str
    incident: Incident
    signature: str = ""
    """What counts as the same fault again."""
    caution: str = ""
    problem: bool = True
    """False: nothing here points to a fault."""

    @property
    def takes_out(self) -> bool:
        """Return whether the action takes capacity away."""
        return self.action in TAKES_OUT


def signs(case: Case, table: Table) -> list[Seen]:
    """Return everything that the incident shows, in an order that does not depend on how it was told."""
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
    found.extend(_idle_gpu(table, found, case))
    found.extend(_stays(table, found, case))
    return sorted(set(_victims(table, _without_doubt(found))), key=Seen.order)


def _renamed(case: Case) -> Iterable[Past]:
    """Yield the past by the names that the incident uses."""
    components = {name: component for component, name in case.names}
    return (replace(one, subject=components.get(one.subject, one.subject)) for one in case.past)


def _without_doubt(found: list[Seen]) -> list[Seen]:
    """Leave out that counters did not move where something moved them."""
    moved = any(item.sign.tier in {Tier.MEMORY, Tier.BUS} and item.sign.name != "stays_with_gpu" for item in found)
    return [item for item in found if not (moved and item.sign.name == "counters_clean")]


_VICTIM = frozenset({"log_exception", "engine_crashed", "engine_killed", "engine_frozen", "engine_ended"})
"""Ways in which an engine suffers from anything else. Source: our own choice: they say that it ended, not why."""
_CAUSE = 1.5
"""What a sign must weigh, nats, to have been the cause of that. Source: our own choice."""


def _victims(table: Table, found: list[Seen]) -> list[Seen]:
    """Make an engine's end or standstill weigh nothing where something in the machine explains it."""
    causes = [item for item in found if item.sign.name not in _VICTIM and item.sign.tier is not Tier.APP]
    if not any(max(item.sign.weights.values(), default=0.0) >= _CAUSE for item in causes if item.sign.action is not Action.NONE):
        return found
    ended = table.signs["engine_ended"]
    return [replace(item, sign=ended) if item.sign.name in _VICTIM else item for item in found]


def _idle_gpu(table: Table, found: list[Seen], case: Case) -> Iterable[Seen]:
    frozen = any(item.sign.name == "engine_frozen" for item in found)
    if frozen and not any(item.component.startswith("gpu:") and item.sign.weights for item in found):
        for change in case.incident.changes:
            if change.component.startswith("gpu:") and "util" in change.name.lower() and change.after in {0, 0.0, "0"}:
                yield see(table, "gpu_idle_fine", component=change.component, value="utilisation 0 %", source=change.source)
                return


def _stays(table: Table, found: list[Seen], case: Case) -> Iterable[Seen]:
    """Yield that a fault stays with its GPU: twice rebooted for it, or five times within a day."""
    start_s = case.incident.start_s
    for item in found:
        same = [p for p in case.past if p.subject == case.subject(item.component) and p.signature == signature(item)]
        reboots = sum(p.action == Action.REBOOT for p in same)
        today = sum(0 <= start_s - p.at_s <= DAY_S for p in same)
        resets = sum(p.action in {Action.RESET_GPU, Action.REBOOT} for p in same)
        if item.component.startswith("gpu:") and (reboots >= REBOOTS or today >= FATAL_A_DAY) and _may_escalate(item):
            value = f"{signature(item)}: {len(same)} times before, {reboots} reboots"
            yield see(table, "stays_with_gpu", component=item.component, value=value, source="history", at_s=start_s)
            return
        if item.component.startswith("gpu:") and resets and _may_escalate(item):
            value = f"{signature(item)}: {resets} resets or reboots before"
            yield see(table, "returns_after_reset", component=item.component, value=value, source="history", at_s=start_s)
            return


def _may_escalate(item: Seen) -> bool:
    weights = item.sign.weights
    return weights.get(Hypothesis.HARDWARE, 0.0) > 0 or weights.get(Hypothesis.DRIVER, 0.0) > 0


def signature(item: Seen) -> str:
    """Return what counts as the same fault again on the same subject."""
    return f"xid {item.number}" if item.number is not None and item.sign.name != "recovery_action" else item.sign.name


def diagnose(case: Case, table: Table | None = None) -> Diagnosis:
    """Return what caused an incident; total: whatever it is given it answers."""
    rules = table or load_evidence()
    seen = signs(case, rules)
    symptoms = [item for item in seen if item.sign.action is not Action.NONE]
    if not symptoms:
        return _nothing(case, seen)
    scores = weigh(seen)
    best = _decide(symptoms, scores)
    if best is None:
        return _undetermined(case, seen, symptoms, scores)
    return _verdict(case, seen, best)


def _decide(symptoms: Sequence[Seen], scores: Sequence[Score]) -> Score | None:
    """Return the hypothesis that a direct sign names, or the surest; None: none is sure enough."""
    by = {score.hypothesis: score for score in scores}
    direct = [item.sign for item in symptoms if item.sign.direct is not None]
    for sign in sorted(direct, key=lambda sign: -max(sign.weights.values())):
        if sign.direct in by and by[sign.direct].confidence >= FLOOR:
            return by[sign.direct]
    surest = scores[0] if scores else None
    return surest if surest is not None and surest.confidence >= FLOOR else None


def _verdict(case: Case, seen: list[Seen], best: Score) -> Diagnosis:
    support = speaks_for(seen, best.hypothesis)
    primary = _primary(support, best.hypothesis)
    action = _action(case, seen, support, primary, best.hypothesis)
    doubt = _disagreement([primary])
    confidence = round(best.confidence * (_DISPUTED if doubt else 1.0), 3)
    return Diagnosis(
        hypothesis=best.hypothesis,
        component=_component(primary, support),
        confidence=confidence,
        action=action,
        evidence=_all(support),
        evidence_against=(*_all(speaks_against(seen, best.hypothesis)), *_disagreement(seen)),
        what_would_change_it=_changes([primary]),
        summary=f"{primary.sign.what}: {best.hypothesis} ({confidence:.0%})",
        incident=case.incident,
        signature=signature(primary),
        caution=CAUTION if action in TAKES_OUT else "",
    )


_PHYSICAL = ("gpu:", "disk:", "link:", "peer:", "pci:", "nvswitch", "memory", "cpu", "driver")
_OWN = {
    Hypothesis.SOFTWARE: ("engine:", "gpu:", "process:"),
    Hypothesis.CONFIGURATION: ("engine:", "gpu:", "disk:", "driver", "process:", "memory", "clock"),
}
"""Components that a hypothesis is about, before others that only show it. Source: our own choice."""


def _primary(support: Sequence[Seen], hypothesis: Hypothesis) -> Seen:
    """Return the earliest of the highest tier; what has no time comes after what has one."""

    def order(item: Seen) -> tuple[object, ...]:
        direct = item.sign.direct is None
        context = item.sign.action is Action.NONE or item.sign.tier is Tier.CONFIG and hypothesis is not Hypothesis.CONFIGURATION
        time = item.at_s or float("inf")
        near = not item.component.startswith(_OWN.get(hypothesis, _PHYSICAL))
        return (context, direct, near, _TIERS[item.sign.tier], time, -item.sign.weights[hypothesis], item.order())

    return min(support, key=order)


def _component(primary: Seen, support: Sequence[Seen]) -> str:
    return primary.component or next((item.component for item in support if item.component), "")


def _action(case: Case, seen: Sequence[Seen], support: Sequence[Seen], primary: Seen, hypothesis: Hypothesis) -> Action:  # noqa: PLR0913, PLR0917
    asked = [_asked(item) for item in seen if item.sign.name == "recovery_action"]
    if asked:
        return max(asked, key=_ORDER.__getitem__)
    peers = [item for item in support if item.sign.tier is primary.sign.tier and item.component == primary.component]
    base = max([_first_step(item) for item in (primary, *peers)], key=_ORDER.__getitem__)
    return base if hypothesis in _NO_LADDER else _escalated(case, primary, base)


def _asked(item: Seen) -> Action:
    known = recovery_actions().get(item.number) if item.number is not None else None
    return known.action if known else item.sign.action


def _first_step(item: Seen) -> Action:
    """Return the XID's own first step where the sign is one, else the sign's."""
    if item.number is None or item.sign.name == "recovery_action":
        return item.sign.action
    own = xid(item.number).action
    return item.sign.action if own is Action.NONE else own


def _escalated(case: Case, primary: Seen, base: Action) -> Action:
    """Return the next step up for every time that the step before did not help; a fault that stays ends at the hardware."""
    same = [p for p in case.past if p.subject == case.subject(primary.component) and p.signature == signature(primary)]
    tried = [Action(p.action) for p in same if p.action in set(Action)]
    step = base
    if primary.number is not None and any(0 <= case.incident.start_s - p.at_s <= DAY_S for p in same):
        step = max(step, xid(primary.number).repeated, key=_ORDER.__getitem__)
    if tried.count(Action.REBOOT) >= REBOOTS:
        return max(step, Action.INSPECT_HARDWARE, key=_ORDER.__getitem__)
    if Action.RESET_GPU in tried:
        return max(step, Action.REBOOT, key=_ORDER.__getitem__)
    if Action.RESTART_ENGINE in tried:
        return max(step, Action.RESET_GPU, key=_ORDER.__getitem__)
    return step


def _undetermined(case: Case, seen: list[Seen], symptoms: list[Seen], scores: Sequence[Score]) -> Diagnosis:
    nearest = scores[0] if scores else None
    support = speaks_for(symptoms, nearest.hypothesis) if nearest else []
    primary = min(symptoms, key=lambda item: (_TIERS[item.sign.tier], item.at_s or float("inf"), item.order()))
    asked = [_asked(item) for item in seen if item.sign.name == "recovery_action"]
    step = max(asked, key=_ORDER.__getitem__) if asked else _first_step(primary)
    operator = any(item.sign.name == "operator_acted" for item in seen)
    action = Action.WATCH if operator and not asked else step if asked else _GENTLE.get(step, step)
    words = f", nearest is {nearest.hypothesis}" if nearest else ""
    return Diagnosis(
        hypothesis=Hypothesis.UNDETERMINED,
        component=primary.component,
        confidence=round(nearest.confidence, 3) if nearest else 0.0,
        action=action,
        evidence=_all(support or symptoms),
        evidence_against=(*_all([item for item in seen if item not in (support or symptoms)]), *_disagreement(seen)),
        what_would_change_it=_changes([primary, *support[:1]]),
        summary=f"{primary.sign.what}: the cause is not certain{words}",
        incident=case.incident,
        signature=signature(primary),
        caution=CAUTION if action in TAKES_OUT else "",
    )


def _nothing(case: Case, seen: list[Seen]) -> Diagnosis:
    return Diagnosis(
        hypothesis=Hypothesis.UNDETERMINED,
        component="",
        confidence=0.0,
        action=Action.NONE,
        evidence=_all(seen),
        evidence_against=(),
        what_would_change_it="any kernel event, finding or counter that a rule knows",
        summary="nothing here points to a fault",
        incident=case.incident,
        problem=False,
    )


def _changes(items: Sequence[Seen]) -> str:
    return "; ".join(dict.fromkeys(item.sign.changes for item in items))


_EVIDENCE_MOST = 30
"""Entries of evidence that are told. Source: our own choice: what a person reads."""


def _all(items: Sequence[Seen]) -> tuple[Evidence, ...]:
    """Return evidence, one entry per sign and component however often it was seen, strongest first as they come."""
    groups: dict[tuple[str, str, int | None], list[Seen]] = {}
    for item in items:
        groups.setdefault((item.sign.name, item.component, item.number), []).append(item)
    return tuple(_evidence(min(group, key=lambda i: i.at_s), len(group)) for group in list(groups.values())[:_EVIDENCE_MOST])


def _evidence(item: Seen, times: int) -> Evidence:
    what = f"{item.sign.what} ({item.component})" if item.component else item.sign.what
    return Evidence(
        what=what, value=(item.value or "seen") + (f" ({times} times)" if times > 1 else ""), source=f"{item.source}; rule: {item.sign.source}",
        at_s=item.at_s, baseline=item.baseline,
    )  # fmt: skip


def _disagreement(seen: Iterable[Seen]) -> tuple[Evidence, ...]:
    """Return, for each XID that sources contradict each other on, what they say."""
    numbers = sorted({item.number for item in seen if item.number is not None and item.sign.name != "recovery_action"})
    facts = [xid(number) for number in numbers]
    return tuple(
        Evidence(what=f"sources disagree on XID {fact.number}", value=fact.disagreement, source="catalog, xids.yaml", at_s=0.0)
        for fact in facts
        if fact.disputed
    )
