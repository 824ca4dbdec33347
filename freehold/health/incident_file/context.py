"""What is known around an incident, out of an incident file: changes, drift, other nodes, an operator's acts, what came before.

Nothing here weighs: which notes mean something stands in `evidence.log_patterns`.
"""

import difflib
import re
from collections.abc import Iterator, Sequence

from freehold.core.problems import Problem
from freehold.health.evidence.kernel_signs import PastFault
from freehold.health.evidence.surroundings import Surroundings
from freehold.health.incident_file.names import component_of, gpu_component
from freehold.health.incident_file.schema import ContextEntry, OperatorEntry, PastEntry, seconds

_OPERATOR_S = 900.0
"""Events this long after an operator's act may come from it. Source: our own choice: a reset or restart takes minutes."""
_AT_WORK = re.compile(
    r"reset|restart|reboot|maint|upgrad|replac|drain|stop|kill|unload|test|inject", re.IGNORECASE
)
"""Acts that cause kernel lines and engines' ends. Source: our own choice of plain words."""
_SET_HEALTHY = "set_healthy"
_SLIP = 0.8
"""So near to a known word (difflib's ratio) is a slip of the pen. Source: our own choice: `set_helthy` is 0.95 from `set_healthy`."""


def around(context: ContextEntry, *, at_s: float) -> Surroundings:
    """Return what is known around an incident at that time."""
    return Surroundings(
        changed=dict(_changed(context, at_s)),
        drift=tuple(context.drift),
        same_on=tuple(context.other_nodes),
        operator=next(_acts(context, at_s), ""),
        follows_workload=context.follows_workload,
        stays_with_gpu=context.stays_with_gpu,
        notes=(*context.notes, *(f"drift {what}" for what in context.drift)),
    )


def _changed(context: ContextEntry, at_s: float) -> Iterator[tuple[str, float]]:
    changed = context.lock_changed_at
    for what, when in (changed if isinstance(changed, dict) else {"versions": changed}).items():
        if (time := seconds(when)) is not None:
            yield what, -time if time < 0 else at_s - time


def _operators(context: ContextEntry) -> Sequence[OperatorEntry]:
    operator = context.operator
    return operator if isinstance(operator, list) else [operator] if operator is not None else []


def _acts(context: ContextEntry, at_s: float) -> Iterator[str]:
    """Yield what an operator did around the incident's end; an act without a time counts."""
    for act in _operators(context):
        when = seconds(act.at)
        if _AT_WORK.search(act.action) and (when is None or abs(at_s - when) <= _OPERATOR_S):
            yield f"{act.action} {act.component}".strip()


def boundaries(context: ContextEntry) -> dict[str, float]:
    """Return when an operator set what healthy: subject, or empty for the node, to Unix seconds."""
    return {
        component_of(act.component): when
        for act in _operators(context)
        if act.action == _SET_HEALTHY and (when := seconds(act.at)) is not None
    }


def operator_mistakes(context: ContextEntry) -> Iterator[Problem]:
    """Yield slips of `set_healthy`, and where it has no time; any other words are an act of the operator's."""
    for index, act in enumerate(_operators(context)):
        where = f"$.context.operator[{index}]" if isinstance(context.operator, list) else "$.context.operator"
        if act.action == _SET_HEALTHY:
            if act.at is None:
                yield Problem(where=f"{where}.at", message=f"`{_SET_HEALTHY}` needs its time")
        elif difflib.get_close_matches(act.action, [_SET_HEALTHY], n=1, cutoff=_SLIP):
            hint = f"did you mean {_SET_HEALTHY!r}?"
            yield Problem(where=f"{where}.action", message=f"{act.action!r} is not known", hint=hint)


def earlier(entry: PastEntry) -> PastFault:
    """Return an earlier diagnosis."""
    subject = entry.component or entry.serial
    return PastFault(
        at_s=seconds(entry.at) or 0.0,
        subject=component_of(subject) if subject else gpu_component(entry.gpu),
        signature=entry.signature or ("" if entry.xid is None else f"xid {entry.xid}"),
        place=entry.place,
        action=entry.action,
    )
