"""From an incident to what caused it: a hypothesis with evidence for and against, and the gentlest step that helps.

The order is: signs of everything seen; verdicts that need no weighing; the weights; the primary cause among what supports the
winner, highest tier first, then earliest; the action, which the driver's own recovery action overrules and repetition
escalates. Where confidence stays below the floor the answer is `undetermined` and the step is cheap and reversible. Nothing
here acts, counts cordons or knows the fleet: how many nodes may be out at once is the fleet's to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from freehold.catalog.load_evidence import Hypothesis, Tier, load_evidence
from freehold.core.findings import Action, Evidence
from freehold.health.evidence.case import IncidentCase, signature, signs
from freehold.health.evidence.escalation import CAUTION, TAKES_OUT, known_cause, unknown_cause
from freehold.health.evidence.incident import NodeIncident
from freehold.health.evidence.report import changes, disagreement, evidence
from freehold.health.evidence.scoring import FLOOR, Score, SeenSign, speaks_against, speaks_for, weigh

_DISPUTED = 0.95
"""What confidence is multiplied with where sources contradict each other. Source: our own choice."""
_TIE = 0.03
"""Hypotheses so near to each other in confidence are named together. Source: our own choice."""
_TIERS = {tier: index for index, tier in enumerate(Tier)}


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
    incident: NodeIncident
    signature: str = ""
    """What counts as the same fault again."""
    caution: str = ""
    problem: bool = True
    """False: nothing here points to a fault."""


def diagnose(case: IncidentCase) -> Diagnosis:
    """Return what caused an incident; total: whatever it is given it answers."""
    seen = signs(case, load_evidence())
    symptoms = [item for item in seen if item.sign.action is not Action.NONE]
    if not symptoms:
        return _nothing(case, seen)
    scores = weigh(seen)
    best = _decide(symptoms, scores)
    if best is None:
        return _undetermined(case, seen, symptoms, scores)
    return _verdict(case, seen, best)


def _decide(symptoms: Sequence[SeenSign], scores: Sequence[Score]) -> Score | None:
    """Return the hypothesis that a direct sign names, or the surest; None: none is sure enough."""
    by = {score.hypothesis: score for score in scores}
    direct = [item.sign for item in symptoms if item.sign.direct is not None]
    for sign in sorted(direct, key=lambda sign: -max(sign.weights.values())):
        if sign.direct in by and by[sign.direct].confidence >= FLOOR:
            return by[sign.direct]
    surest = scores[0] if scores else None
    return surest if surest is not None and surest.confidence >= FLOOR else None


def _verdict(case: IncidentCase, seen: list[SeenSign], best: Score) -> Diagnosis:
    support = speaks_for(seen, best.hypothesis)
    primary = _primary(support, best.hypothesis)
    action = known_cause(case, seen, support=support, primary=primary, hypothesis=best.hypothesis)
    doubt = disagreement([primary])
    confidence = round(best.confidence * (_DISPUTED if doubt else 1.0), 3)
    return Diagnosis(
        hypothesis=best.hypothesis,
        component=_component(primary, support),
        confidence=confidence,
        action=action,
        evidence=evidence(support),
        evidence_against=(*evidence(speaks_against(seen, best.hypothesis)), *disagreement(seen)),
        what_would_change_it=changes([primary]),
        summary=f"{primary.sign.what}: {best.hypothesis} ({confidence:.0%})",
        incident=case.incident,
        signature=signature(primary),
        caution=CAUTION if action in TAKES_OUT else "",
    )


_PHYSICAL = ("gpu:", "disk:", "storage:", "link:", "peer:", "pci:", "nvswitch", "memory", "cpu", "driver")
_OWN = {
    Hypothesis.SOFTWARE: ("engine:", "gpu:", "process:"),
    Hypothesis.CONFIGURATION: (
        "engine:",
        "gpu:",
        "disk:",
        "storage:",
        "driver",
        "process:",
        "memory",
        "clock",
    ),
}
"""Components that a hypothesis is about, before others that only show it. Source: our own choice."""


def _primary(support: Sequence[SeenSign], hypothesis: Hypothesis) -> SeenSign:
    """Return the earliest of the highest tier; what has no time comes after what has one."""

    def order(item: SeenSign) -> tuple[object, ...]:
        direct = item.sign.direct is None
        context = item.sign.action is Action.NONE or (
            item.sign.tier is Tier.CONFIG and hypothesis is not Hypothesis.CONFIGURATION
        )
        time = item.at_s or float("inf")
        near = not item.component.startswith(_OWN.get(hypothesis, _PHYSICAL))
        return (
            context,
            direct,
            near,
            _TIERS[item.sign.tier],
            time,
            -item.sign.weights[hypothesis],
            item.order(),
        )

    return min(support, key=order)


def _component(primary: SeenSign, support: Sequence[SeenSign]) -> str:
    return primary.component or next((item.component for item in support if item.component), "")


def _undetermined(
    case: IncidentCase, seen: list[SeenSign], symptoms: list[SeenSign], scores: Sequence[Score]
) -> Diagnosis:
    nearest = scores[0] if scores else None
    support = speaks_for(symptoms, nearest.hypothesis) if nearest else []
    primary = min(
        symptoms, key=lambda item: (_TIERS[item.sign.tier], item.at_s or float("inf"), item.order())
    )
    action = unknown_cause(case, seen, primary=primary, nearest=nearest.hypothesis if nearest else None)
    near = [score.hypothesis for score in scores if nearest and nearest.confidence - score.confidence < _TIE]
    words = f", nearest is {' or '.join(near)}" if near else ""
    return Diagnosis(
        hypothesis=Hypothesis.UNDETERMINED,
        component=primary.component,
        confidence=round(nearest.confidence, 3) if nearest else 0.0,
        action=action,
        evidence=evidence(support or symptoms),
        evidence_against=(
            *evidence([item for item in seen if item not in (support or symptoms)]),
            *disagreement(seen),
        ),
        what_would_change_it=changes([primary, *support[:1]]),
        summary=f"{primary.sign.what}: the cause is not certain{words}",
        incident=case.incident,
        signature=signature(primary),
        caution=CAUTION if action in TAKES_OUT else "",
    )


def _nothing(case: IncidentCase, seen: list[SeenSign]) -> Diagnosis:
    return Diagnosis(
        hypothesis=Hypothesis.UNDETERMINED,
        component="",
        confidence=0.0,
        action=Action.NONE,
        evidence=evidence(seen),
        evidence_against=(),
        what_would_change_it="any kernel event, finding or counter that a rule knows",
        summary="nothing here points to a fault",
        incident=case.incident,
        problem=False,
    )
