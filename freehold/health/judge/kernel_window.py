"""Kernel events over a window of views: as evidence, as incidents, and why their absence may mean nothing.

Nothing here knows what an event means or which component a device is: the checks do.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from freehold.core.findings import Evidence
from freehold.health.judge import rule_result as result
from freehold.health.judge.rule_result import RuleResult
from freehold.health.kernel_log.events import KernelEvent
from freehold.health.model.view import State, View

EVIDENCE_MOST = 5
"""Lines that a finding carries, the newest; our own choice."""
SILENCE_S = 180.0
"""What is further apart than this is two incidents (NVIDIA Fleet Intelligence and NVSentinel: 3 minutes)."""
BLIND_S = 600.0
"""How long after the kernel overwrote unread records nothing is called healthy; our own choice."""
STALE_S = 60.0
"""How old a reading of the log may be and still count as the present state; our own choice, some readings' time."""
_VALUE_MOST = 300
"""Characters of a line that evidence shows; our own choice."""


def event_evidence(events: Iterable[KernelEvent]) -> tuple[Evidence, ...]:
    """Return the newest events as evidence, oldest first."""
    newest = sorted(events, key=lambda event: event.at_s)[-EVIDENCE_MOST:]
    return tuple(
        Evidence(
            what=f"{event.kind}{'' if event.number is None else f' {event.number}'}".replace("_", " "),
            value=event.text[:_VALUE_MOST],
            source="kernel log",
            at_s=event.at_s,
        )
        for event in newest
    )


def incidents(events: Sequence[KernelEvent], *, silence_s: float = SILENCE_S) -> int:
    """Return how many incidents the events make: what is less than `silence_s` after the one before belongs to it."""
    times_s = sorted(event.at_s for event in events)
    apart = sum(1 for before, after in pairwise(times_s) if after - before > silence_s)
    return apart + 1 if times_s else 0


def how_often(times: int) -> str:
    """Return `once`, `twice` or `N times`."""
    return {1: "once", 2: "twice"}.get(times, f"{times} times")


def unread(views: Sequence[View]) -> RuleResult | None:
    """Return why an empty log means nothing, UNKNOWN with reason `not_read` or `records_lost`; None: the log was read."""
    fresh = (view.kernel for view in reversed(views) if view.at_s > views[-1].at_s - STALE_S)
    newest = next((kernel for kernel in fresh if kernel is not None), None)
    if newest is None or newest.state is not State.OK:
        detail = (newest.detail or newest.state) if newest else "no collector read it"
        return result.unknown("not_read", f"the kernel's log was not read: {detail}")
    recent = [view.kernel for view in views if view.kernel and view.at_s > views[-1].at_s - BLIND_S]
    lost = sum(kernel.lost for kernel in recent)
    if lost:
        message = f"the kernel overwrote {lost} records before they were read"
        return result.unknown("records_lost", message)
    return None
