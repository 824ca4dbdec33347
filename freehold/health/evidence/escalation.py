"""What to do about an incident: the gentlest step that helps, and the next one up each time that it did not.

The driver's own recovery action overrules every other. Where the cause is not known only what is cheap and can be undone is done. How many
nodes may be out at once is the fleet's to say: here stands only the caution.
"""

from collections.abc import Iterable, Sequence

from freehold.catalog.load_evidence import Hypothesis, Tier
from freehold.catalog.load_xids import recovery_actions, xid
from freehold.core.findings import Action
from freehold.health.evidence.case import REBOOTS, IncidentCase, signature
from freehold.health.evidence.kernel_signs import DAY_S
from freehold.health.evidence.scoring import RECOVERY, SeenSign

_ORDER = {action: index for index, action in enumerate(Action)}
TAKES_OUT = frozenset(
    {
        Action.DRAIN,
        Action.RESET_GPU,
        Action.REBOOT,
        Action.CORDON,
        Action.INSPECT_HARDWARE,
        Action.REPLACE_HARDWARE,
    }
)
"""Actions that take capacity away."""
_GENTLE = {
    Action.REBOOT: Action.DRAIN,
    Action.CORDON: Action.DRAIN,
    Action.INSPECT_HARDWARE: Action.DRAIN,
    Action.REPLACE_HARDWARE: Action.DRAIN,
}
"""What is done instead while the cause is not known. Source: research on NVSentinel and gpud: escalate by repetition, not by guess."""
_NO_LADDER = frozenset(
    {
        Hypothesis.SOFTWARE,
        Hypothesis.CONFIGURATION,
        Hypothesis.FACILITY,
        Hypothesis.NETWORK,
        Hypothesis.STORAGE,
    }
)
CAUTION = "Takes capacity away: one automatic cordon at a time, a verified spare first, never below the least capacity."
"""Source: NVSentinel's circuit breaker, for a farm of a few nodes."""


def known_cause(
    case: IncidentCase,
    seen: Sequence[SeenSign],
    *,
    support: Sequence[SeenSign],
    primary: SeenSign,
    hypothesis: Hypothesis,
) -> Action:
    """Return the step where the cause is known: `support` is what speaks for it, `primary` what it began with."""
    if (asked := asked_for(seen)) is not None:
        return asked
    peers = [
        item
        for item in support
        if item.component in {primary.component, ""} and item.sign.tier in {primary.sign.tier, Tier.CONFIG}
    ]
    base = gravest(_first_step(item) for item in (primary, *peers))
    return _aside(case, base if hypothesis in _NO_LADDER else _escalated(case, primary, base))


def unknown_cause(
    case: IncidentCase, seen: Sequence[SeenSign], *, primary: SeenSign, nearest: Hypothesis | None
) -> Action:
    """Return the step where the cause is not known: cheap, and it can be undone, until it has been tried."""
    if (asked := asked_for(seen)) is not None:
        return asked
    if any(item.sign.name == "operator_acted" for item in seen):
        return Action.WATCH
    step = _first_step(primary)
    gentle = _GENTLE.get(step, step)
    return _aside(case, gentle if nearest in _NO_LADDER else _escalated(case, primary, gentle))


def _aside(case: IncidentCase, step: Action) -> Action:
    """Return the step, but to watch where it would take a node out for a part that nothing works on."""
    return Action.WATCH if case.aside and step in TAKES_OUT else step


def asked_for(seen: Iterable[SeenSign]) -> Action | None:
    """Return what the driver itself asks for; None: nothing."""
    asked = [_asked(item) for item in seen if item.sign.name in RECOVERY]
    return gravest(asked) if asked else None


def gravest(actions: Iterable[Action]) -> Action:
    """Return the last of them in the order of `Action`, gentlest first; of none NONE."""
    return max(actions, key=_ORDER.__getitem__, default=Action.NONE)


def _asked(item: SeenSign) -> Action:
    known = recovery_actions().get(item.number) if item.number is not None else None
    return known.action if known else item.sign.action


def _first_step(item: SeenSign) -> Action:
    """Return the XID's own first step where the sign is one, else the sign's."""
    if item.number is None or item.sign.name in RECOVERY:
        return item.sign.action
    own = xid(item.number).action
    return item.sign.action if own is Action.NONE else own


def _escalated(case: IncidentCase, primary: SeenSign, base: Action) -> Action:
    """Return the next step up for every time that the step before did not help; a fault that stays ends at the hardware."""
    same = [
        p
        for p in case.past
        if p.subject == case.subject(primary.component) and p.signature == signature(primary)
    ]
    tried = [Action(p.action) for p in same if p.action in set(Action)]
    step = base
    if primary.number is not None and any(0 <= case.incident.start_s - p.at_s <= DAY_S for p in same):
        step = gravest((step, xid(primary.number).repeated))
    if tried.count(Action.REBOOT) >= REBOOTS:
        return gravest((step, Action.INSPECT_HARDWARE))
    if Action.RESET_GPU in tried:
        return gravest((step, Action.REBOOT))
    if Action.RESTART_ENGINE in tried:
        return gravest((step, Action.RESET_GPU))
    return step
