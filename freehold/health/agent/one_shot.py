"""Looking without an agent: once at this node, or through a recording as if it were now.

One look has no hysteresis: the probes' findings are shown as they are, and rates need two readings some seconds apart. A replay
settles and groups incidents as the agent does, by the times in the recording. Neither acts, and neither leaves anything running.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from freehold.core.clock import monotonic_s, wall_s
from freehold.core.findings import Finding
from freehold.health.agent.runner import Source
from freehold.health.agent.view_window import ViewWindow, windows_of
from freehold.health.incidents.tracker import IncidentTracker
from freehold.health.model.hysteresis import Key, SettledState, settle_all
from freehold.health.model.probe import Expected, Part, Probe
from freehold.health.model.snapshot import (
    PERIOD_S,
    HealthSnapshot,
    ReaderState,
    SettledFinding,
    sorted_findings,
)
from freehold.health.model.view import View

BETWEEN_S = 2.0
"""Between the two readings of one look. Source: our own choice: a disk is read some forty times meanwhile."""


class Replay:
    """What is believed while views come in, by the times that stand in them."""

    def __init__(self, probes: Mapping[str, Probe], expected: Expected | None = None) -> None:
        self._probes = probes
        self._expected = expected or Expected()
        self._kept = ViewWindow(windows_of(probes.values()))
        self._held: dict[Key, SettledState] = {}
        self._tracker: IncidentTracker | None = None
        self._last: View | None = None
        self._concluded_s = float("-inf")

    def add(self, view: View) -> list[Finding]:
        """Take in the next view; return the findings that are believed from now on and were not before."""
        if self._tracker is None:
            self._tracker = IncidentTracker(node=view.node, started_s=view.at_s)
        self._kept.add(view)
        self._tracker.add(view)
        self._last = view
        before = dict(self._held)
        for probe in self._probes.values():
            if getattr(view, probe.reads[0]) is not None:
                looks = probe.check(self._kept.window(probe.reads, probe.window_s), self._expected)
                self._held = settle_all(self._held, looks, probe=probe, now_s=view.at_s)
        fresh = [held.believed for key, held in self._held.items() if _word(before.get(key)) != _word(held)]
        if (
            fresh
            or view.monotonic_s - self._concluded_s >= PERIOD_S
            or self._tracker.is_due(view.monotonic_s)
        ):
            self.snapshot(view.node, view.at_s)
        return fresh

    def snapshot(self, node: str, at_s: float) -> HealthSnapshot:
        """Return what is believed after the last view, and what of it are incidents."""
        found = _snapshot(self._held.values(), node=node, at_s=at_s)
        if self._tracker is None or self._last is None:
            return found
        self._concluded_s = self._last.monotonic_s
        return self._tracker.conclude(found, self._last.monotonic_s)


def _word(held: SettledState | None) -> tuple[str, str] | None:
    return None if held is None else (held.believed.verdict, held.believed.reason)


def _snapshot(held: Iterable[SettledState], *, node: str, at_s: float) -> HealthSnapshot:
    found = [SettledFinding(finding=each.believed, since_s=each.since_s) for each in held]
    return HealthSnapshot(at_s=at_s, node=node, findings=sorted_findings(found))


async def look_once(
    sources: Sequence[Source],
    probes: Mapping[str, Probe],
    *,
    node: str,
    expected: Expected | None = None,
) -> HealthSnapshot:
    """Return what the probes say of this node now; takes some seconds, and each source's deadline at most twice."""
    expected = expected or Expected()
    states: dict[str, ReaderState] = {}
    views = [await _view(sources, states, node)]
    await asyncio.sleep(BETWEEN_S)
    views.append(await _view(sources, states, node))
    for source in sources:
        await _bounded(source.close(), source.deadline_s)
    parts = {source.part for source in sources}
    found = [
        SettledFinding(finding=finding, since_s=views[-1].at_s)
        for probe in probes.values()
        if probe.reads[0] in parts
        for finding in probe.check(views, expected)
    ]
    return HealthSnapshot(
        at_s=views[-1].at_s,
        node=node,
        findings=sorted_findings(found),
        readers=tuple(states.values()),
    )


async def _view(sources: Sequence[Source], states: dict[str, ReaderState], node: str) -> View:
    parts: dict[Part, Any] = {}

    async def read(source: Source) -> None:
        began_s = monotonic_s()
        answered, value = await _bounded(source.read(), source.deadline_s)
        parts[source.part] = value if answered else source.late
        states[source.part] = ReaderState(
            name=source.part,
            state="ok" if answered else "late",
            detail="" if answered else f"no answer within {source.deadline_s:g} s",
            read_s=wall_s(),
            took_s=monotonic_s() - began_s,
        )

    await asyncio.gather(*(read(source) for source in sources))
    return View(at_s=wall_s(), monotonic_s=monotonic_s(), node=node, **parts)


async def _bounded(work: Any, deadline_s: float) -> tuple[bool, Any]:
    """Return whether it ended in time, and what came of it; one that does not end is left behind."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=deadline_s)
    if not task.done():
        task.cancel()
        return False, None
    return True, task.result()
