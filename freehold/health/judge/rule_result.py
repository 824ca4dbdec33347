"""One rule's judgement of one device, and the worst of several: what probes on the kernel's log make findings of.

Nothing here knows what an event means (see the rules) or which component a device is (see the probes).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from freehold.core.findings import Action, Evidence, Finding, Verdict
from freehold.health.kernel_log.events import KernelEvent
from freehold.health.model.view import Kernel, State, View

EVIDENCE_MOST = 5
"""Lines that a finding carries, the newest; our own choice."""
SILENCE_S = 180.0
"""What is further apart than this is two incidents (NVIDIA Fleet Intelligence and NVSentinel: 3 minutes)."""
BLIND_S = 600.0
"""How long after the kernel overwrote unread records nothing is called healthy; our own choice."""
STALE_S = 60.0
"""How old a reading of the log may be and still speak for now; our own choice, some readings' time."""
_VALUE_MOST = 300
"""Characters of a line that evidence shows; our own choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A verdict on one device with the lines that led to it."""

    verdict: Verdict
    reason: str
    message: str
    action: Action = Action.NONE
    events: tuple[KernelEvent, ...] = ()
    seen: tuple[Evidence, ...] = ()
    """What was seen elsewhere than in the log."""

    def finding(self, probe: str, component: str, *, node: str, at_s: float) -> Finding:
        """Return it as a probe's finding; `at_s` counts where no line led to it."""
        newest = sorted(self.events, key=lambda event: event.at_s)[-EVIDENCE_MOST:]
        evidence = (*self.seen, *(_evidence(event) for event in newest))
        return Finding(
            probe=probe,
            component=component,
            verdict=self.verdict,
            reason=self.reason,
            message=self.message,
            action=self.action,
            evidence=evidence,
            at_s=evidence[-1].at_s if evidence else at_s,
            node=node,
        )


def _evidence(event: KernelEvent) -> Evidence:
    number = "" if event.number is None else f" {event.number}"
    return Evidence(
        what=f"{event.kind}{number}".replace("_", " "),
        value=event.text[:_VALUE_MOST],
        source="kernel log",
        at_s=event.at_s,
    )


_VERDICTS = list(Verdict)
_ACTIONS = list(Action)


def worst_judged(judged: Iterable[Judged]) -> Judged | None:
    """Return the worst verdict, of equal ones the one with the strongest action; None: there was none."""
    return max(
        judged,
        key=lambda each: (_VERDICTS.index(each.verdict), _ACTIONS.index(each.action)),
        default=None,
    )


def incidents(events: Sequence[KernelEvent], *, silence_s: float = SILENCE_S) -> int:
    """Return how many incidents the events make: what is less than `silence_s` after the one before belongs to it."""
    times_s = sorted(event.at_s for event in events)
    apart = sum(1 for before, after in pairwise(times_s) if after - before > silence_s)
    return apart + 1 if times_s else 0


def newest_kernel(views: Sequence[View]) -> Kernel | None:
    """Return the newest reading of the log that is not too old to speak for now."""
    recent = (view.kernel for view in reversed(views) if view.at_s > views[-1].at_s - STALE_S)
    return next((kernel for kernel in recent if kernel is not None), None)


def unread(views: Sequence[View]) -> Judged | None:
    """Return why silence means nothing, UNKNOWN with reason `not_read` or `records_lost`; None: the log was read."""
    newest = newest_kernel(views)
    if newest is None or newest.state is not State.OK:
        detail = (newest.detail or newest.state) if newest else "nobody read it"
        return Judged(
            verdict=Verdict.UNKNOWN, reason="not_read", message=f"the kernel's log was not read: {detail}"
        )
    recent = [view.kernel for view in views if view.kernel and view.at_s > views[-1].at_s - BLIND_S]
    lost = sum(kernel.lost for kernel in recent)
    if lost:
        message = f"the kernel overwrote {lost} records before they were read"
        return Judged(verdict=Verdict.UNKNOWN, reason="records_lost", message=message)
    return None


def how_often(times: int) -> str:
    """Return `once`, `twice` or `N times`."""
    return {1: "once", 2: "twice"}.get(times, f"{times} times")
