"""Whether processes hang in the kernel (state D), NVIDIA's among them.

Such a process cannot be killed. A process that waits a moment for a disk is sound, so only one that is found in the same place for a
minute counts. The kernel's function shows where it hangs; other checks and the kernel's log show why. Only the first thread
of each process is seen.
"""

import re
from collections.abc import Sequence

from freehold.core.findings import Action, Evidence
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.rule_result import RuleResult
from freehold.health.model.view import Host, View

DECLARED = declared(__name__)
LONG_S = DECLARED.limit("long_s")

NAMED_MOST = 5
"""Processes that a message names; our own choice."""
_NVIDIA = re.compile(r"^\d+ nvidia")


def _judge(views: Sequence[View], host: Host) -> RuleResult:
    stuck = {name: since_s for name, since_s in _since(views, host).items() if since_s >= LONG_S}
    if not stuck:
        return result.healthy("none", "no process hangs in the kernel")
    driver = sorted(name for name in stuck if _NVIDIA.match(name))
    shown = ", ".join((driver or sorted(stuck))[:NAMED_MOST])
    message = (
        f"{len(stuck)} processes have hung in the kernel for {min(stuck.values()):.0f} s or more: {shown}"
    )
    evidence = tuple(
        Evidence(
            what=f"process {name} in state D",
            value=f"{since_s:.0f} s in {host.blocked.get(name, '?')}",
            source="/proc/PID/stat",
            at_s=views[-1].at_s,
            baseline="under a second",
        )
        for name, since_s in sorted(stuck.items())[:NAMED_MOST]
    )
    if driver:
        return result.unhealthy("nvidia_blocked", message, Action.REBOOT, evidence)
    return result.degraded("blocked", message, Action.WATCH, evidence)


def _since(views: Sequence[View], host: Host) -> dict[str, float]:
    """Return for how many seconds each process has been met in the same place in every view."""
    waits = dict(host.blocked)
    since_s = dict.fromkeys(waits, 0.0)
    for view in reversed(views[:-1]):
        if view.host is None:
            continue
        waits = {name: place for name, place in waits.items() if view.host.blocked.get(name) == place}
        since_s |= dict.fromkeys(waits, views[-1].monotonic_s - view.monotonic_s)
    return since_s


PROBE = DECLARED.host_probe("processes", _judge)
