"""Whether the node's clock can be trusted: it jumped, or no time service keeps it right.

A clock that is wrong makes certificates invalid, and puts events of several nodes in an order that never was. How far it is from true
time is not measured: only what the kernel reports, and whether the clock jumped against the monotonic one.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from freehold.core.findings import Action, Evidence, Verdict
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.rule_result import RuleResult
from freehold.health.judge.series import failed, named
from freehold.health.model.view import Host, View

DECLARED = declared(__name__)
JUMP_S = DECLARED.limit("jump_s")
ERROR_MOST_S = DECLARED.limit("error_most_s")


_JUDGED = ("wall_minus_monotonic_s", "estimated_error_s", "maximum_error_s")


def _judge(views: Sequence[View], host: Host) -> RuleResult:
    judged = _result(views, host)
    evidence = tuple(
        Evidence(
            what=name.removesuffix("_s").replace("_", " "),
            value=f"{value:g}",
            source="adjtimex",
            at_s=views[-1].at_s,
        )
        for name in ("synchronised", "estimated_error_s", "maximum_error_s")
        if (value := named(host.clock, name)) is not None
    )
    action = Action.FIX_CONFIGURATION if judged.verdict is Verdict.DEGRADED else Action.NONE
    return replace(judged, action=action, evidence=evidence)


def _result(views: Sequence[View], host: Host) -> RuleResult:
    jump_s = _jump_s(views)
    if abs(jump_s) >= JUMP_S:
        return result.degraded("jumped", f"the wall clock jumped by {jump_s:+.1f} s")
    synchronised, error_s = named(host.clock, "synchronised"), named(host.clock, "maximum_error_s")
    if synchronised is None:
        message = "the kernel does not say whether its clock is synchronised"
        return result.unknown("cannot_read", message)
    if not synchronised and (error_s is None or error_s >= ERROR_MOST_S):
        message = "no time service has kept this clock right lately"
        return result.degraded("not_synchronised", message)
    estimated_s = named(host.clock, "estimated_error_s") or 0.0
    if synchronised and estimated_s >= JUMP_S:
        message = f"the time service itself expects an error of {estimated_s:.1f} s"
        return result.degraded("uncertain", message)
    if bad := failed(host.clock, _JUDGED):
        return result.unknown("cannot_read", f"could not be read: {', '.join(bad)}")
    return result.healthy("right", "the clock is kept right and did not jump")


def _jump_s(views: Sequence[View]) -> float:
    """Return the largest change of wall less monotonic clock between two views, with its sign."""
    seen = [
        offset_s
        for view in views
        if view.host and (offset_s := named(view.host.clock, "wall_minus_monotonic_s")) is not None
    ]
    return max((later - earlier for earlier, later in pairwise(seen)), key=abs, default=0.0)


PROBE = DECLARED.host_probe("clock", _judge)
