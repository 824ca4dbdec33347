"""The runner: reads each source at its own pace and with its own deadline, and runs the probes on what came.

Each source has a task of its own, so that one that hangs stops no other; what came is put together into one view every two
seconds at most. Probes are pure and run here, one after the other; one that takes long is asked less often. What a probe
reports goes through hysteresis before it is in a snapshot. Nothing here opens anything: sources read, `on_snapshot` takes the
result. A guard: a mistake in a probe or source is logged and counted, and costs that one alone.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from freehold.core.clock import SYSTEM_CLOCK, Clock
from freehold.core.findings import Finding, Verdict
from freehold.health.agent.metrics import HealthMetrics
from freehold.health.agent.view_window import ViewWindow, windows_of
from freehold.health.model.hysteresis import Key, SettledState, settle_all
from freehold.health.model.probe import Expected, Part, Probe
from freehold.health.model.snapshot import (
    PERIOD_S,
    HealthSnapshot,
    ReaderState,
    SettledFinding,
    sorted_findings,
)
from freehold.health.model.view import Kernel, View
from freehold.telemetry.logs import get_logger

TICK_S = 2.0
"""Between two views. Source: our own choice: an engine that hangs is to be found in 15 s with looks to spare."""
JITTER = 0.05
"""Part of a pause that chance adds or takes, so that the nodes of a cluster do not look all at once. Our own choice."""
SHARE = 0.002
"""Part of a core that one probe may take: one that took 20 ms is not asked again for 10 s. Source: our own choice: some
twenty probes stay together within the agent's budget of 1 % even where all are slow."""
STOOD_STILL_S = 5.0
"""A look that comes this long after the one before it: the agent itself stood still, and perhaps its machine. Source: our own
choice: more than two looks, and less than what makes an engine that does not move a stalled one (7 s)."""
_log = get_logger("health.run")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where one part of a view comes from."""

    part: Part
    """The metric label, too."""
    read: Callable[[], Awaitable[Any]]
    """Returns the part. It may hang: then it is cancelled, and not asked again before it has ended."""
    close: Callable[[], Awaitable[None]]
    period_s: float = PERIOD_S
    deadline_s: float = PERIOD_S
    late: Any = None
    """What the part is where no answer came in time: a value that says so, or None where there is no such value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSetup:
    """What a runner has besides its sources and probes."""

    node: str
    expected: Expected = field(default_factory=Expected)
    on_snapshot: Callable[[HealthSnapshot], None] = lambda _snapshot: None
    """Called every 10 s, and at once when a verdict or reason changes; must not wait."""
    on_view: Callable[[View], None] = lambda _view: None
    """Called with each view; must not wait."""
    admit: Callable[[View], View] = lambda view: view
    """Returns what of a view is to be looked at; must not wait."""
    conclude: Callable[[HealthSnapshot, float], HealthSnapshot] = lambda snapshot, _now_s: snapshot
    """Returns a snapshot with what follows from it, before it is sent; it gets monotonic seconds too, and must not wait."""
    clock: Clock = SYSTEM_CLOCK
    rng: random.Random = field(default_factory=random.Random)
    tick_s: float = TICK_S


@dataclass(slots=True)
class _Probing:
    """One probe's state."""

    probe: Probe
    period_s: float
    """The longest pause between two of its looks, with time to spare."""
    ran_s: float = float("-inf")
    again_s: float = float("-inf")
    """Not before: it took long."""


class Runner:
    """Keeps looking at one node; all methods are for the event loop's own thread."""

    def __init__(self, sources: Sequence[Source], probes: Mapping[str, Probe], setup: RunnerSetup) -> None:
        self.meters = HealthMetrics()
        self.views_total = 0
        """Views that were put together."""
        self._sources = tuple(sources)
        self._setup = setup
        periods = {source.part: source.period_s for source in sources}
        self._probing = [
            _Probing(probe, max(PERIOD_S, periods[probe.reads[0]]))
            for probe in probes.values()
            if probe.reads[0] in periods
        ]
        self._kept = ViewWindow(windows_of(probe.probe for probe in self._probing))
        self._parts: dict[Part, Any] = {}
        self._states = {source.part: ReaderState(name=source.part, state="waiting") for source in sources}
        self._held: dict[Key, SettledState] = {}
        self._started_s = self._setup.clock.wall_s()
        self._sent_s = float("-inf")
        self._ticked_s, self._woke_s = float("inf"), 0.0

    @property
    def snapshot(self) -> HealthSnapshot:
        """Return the settled state now."""
        found = [SettledFinding(finding=held.believed, since_s=held.since_s) for held in self._held.values()]
        return HealthSnapshot(
            at_s=self._setup.clock.wall_s(),
            node=self._setup.node,
            pid=os.getpid(),
            started_s=self._started_s,
            woke_s=self._woke_s,
            findings=sorted_findings(found),
            readers=tuple(self._states.values()),
        )

    async def run(self) -> None:
        """Look until cancelled; sources are closed then."""
        readers = [asyncio.create_task(self._read_on(source)) for source in self._sources]
        try:
            while True:
                await asyncio.sleep(self._pause_s(self._setup.tick_s))
                self.tick()
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)
            for source in self._sources:
                await self._close(source)

    def report_soon(self) -> None:
        """Send a snapshot at the end of this look, or of the next."""
        self._sent_s = float("-inf")

    def readmit(self) -> None:
        """Let what `RunnerSetup.admit` leaves of the views count from now on, those before this moment as well."""
        self._guarded("admit", lambda: self._kept.revise(self._setup.admit))

    def tick(self) -> None:
        """Put together what came since the last time, and let probes look at it."""
        now_s = self._setup.clock.monotonic_s()
        if now_s - self._ticked_s >= STOOD_STILL_S:
            self._woke_s = self._setup.clock.wall_s()
            _log.warning("stood still", seconds=round(now_s - self._ticked_s, 1))
        self._ticked_s = now_s
        view = self._view(now_s)
        changed = False
        for probing in self._probing:
            if view is not None and self._is_due(probing, view, now_s):
                changed |= self._look(probing, now_s)
            elif now_s - max(probing.ran_s, probing.again_s) > probing.period_s + 2 * self._setup.tick_s:
                # A look for which nothing was read: what was reported becomes stale by and by.
                probing.ran_s = now_s
                changed |= self._settle(probing.probe, ())
        if changed or now_s - self._sent_s >= PERIOD_S:
            self._send(now_s)

    # --- reading --------------------------------------------------------------------------------------------------

    async def _read_on(self, source: Source) -> None:
        while True:
            began_s = self._setup.clock.monotonic_s()
            await self._read(source)
            took_s = self._setup.clock.monotonic_s() - began_s
            # From start to start, so that slow answers do not make for rare looks; and never without a pause.
            await asyncio.sleep(max(self._pause_s(source.period_s) - took_s, source.period_s / 10))

    async def _read(self, source: Source) -> None:
        clock = self._setup.clock
        began_s = clock.monotonic_s()
        reading = asyncio.ensure_future(source.read())
        try:
            await asyncio.wait({reading}, timeout=source.deadline_s)
            while not reading.done():
                waited_s = clock.monotonic_s() - began_s
                if self._states[source.part].state != "late":
                    _log.warning("reader late", reader=source.part, waited_s=round(waited_s, 1))
                self._note(source, "late", f"no answer for {waited_s:.1f} s")
                self._parts[source.part] = source.late
                reading.cancel()
                await asyncio.wait({reading}, timeout=source.period_s)
        finally:
            reading.cancel()
        self._take(source, reading, clock.monotonic_s() - began_s)

    def _take(self, source: Source, reading: "asyncio.Future[Any]", took_s: float) -> None:
        if reading.cancelled():
            return  # it was late, and that was said
        try:
            self._parts[source.part] = _joined(self._parts.get(source.part), reading.result())
        except Exception as exc:  # noqa: BLE001 (guard: a reader's mistake costs its own part alone)
            self.meters.bug("health.reader")
            _log.exception("mistake of our own", what="reader", reader=source.part)
            self._note(source, "failed", f"{type(exc).__name__}: {exc}"[:200])
            self._parts[source.part] = source.late
            return
        self._states[source.part] = ReaderState(
            name=source.part, state="ok", read_s=self._setup.clock.wall_s(), took_s=took_s
        )

    def _note(self, source: Source, state: str, detail: str) -> None:
        before = self._states[source.part]
        self._states[source.part] = msgspec.structs.replace(before, state=state, detail=detail)

    async def _close(self, source: Source) -> None:
        try:
            async with asyncio.timeout(source.deadline_s):
                await source.close()
        except Exception:  # noqa: BLE001 (guard: the others are closed as well)
            self.meters.bug("health.close")
            _log.exception("mistake of our own", what="close", reader=source.part)

    # --- looking --------------------------------------------------------------------------------------------------

    def _view(self, now_s: float) -> View | None:
        """Return a view of the parts that came; None: nothing came."""
        parts, self._parts = self._parts, {}
        if all(part is None for part in parts.values()):
            return None
        view = View(at_s=self._setup.clock.wall_s(), monotonic_s=now_s, node=self._setup.node, **parts)
        view = self._kept.add(self._guarded("admit", lambda: self._setup.admit(view)) or view)
        self.views_total += 1
        self._guarded("on_view", lambda: self._setup.on_view(view))
        return view

    def _is_due(self, probing: _Probing, view: View, now_s: float) -> bool:
        """Return whether the first of the parts that a probe reads came; a kernel log without lines counts every 10 s.

        Probes want that part in their newest view; the others may be a little older.
        """
        main = getattr(view, probing.probe.reads[0])
        if main is None or now_s < probing.again_s:
            return False
        quiet = isinstance(main, Kernel) and not main.lines and not main.lost
        return not quiet or now_s - probing.ran_s >= PERIOD_S - self._setup.tick_s / 2

    def _look(self, probing: _Probing, now_s: float) -> bool:
        """Run a probe and settle what it says; return whether something else is believed now."""
        probe, clock = probing.probe, self._setup.clock
        began_s = clock.monotonic_s()
        views = self._kept.window(probe.reads, probe.window_s)
        try:
            looks = probe.check(views, self._setup.expected)
        except Exception:  # noqa: BLE001 (guard: a probe's mistake costs its own findings alone)
            self.meters.bug("health.probe")
            _log.exception("mistake of our own", what="probe", probe=probe.name)
            looks = ()
        took_s = clock.monotonic_s() - began_s
        self.meters.ran(probe.name, took_s)
        probing.ran_s, probing.again_s = now_s, now_s + took_s / SHARE
        return self._settle(probe, looks)

    def _settle(self, probe: Probe, looks: Iterable[Finding]) -> bool:
        before = {key: _word(held) for key, held in self._held.items()}
        self._held = settle_all(self._held, looks, probe=probe, now_s=self._setup.clock.wall_s())
        after = {key: _word(held) for key, held in self._held.items()}
        for key in [key for key, now in after.items() if before.get(key) != now]:
            self._note_change(self._held[key].believed)
        return before != after

    def _note_change(self, finding: Finding) -> None:
        self.meters.changed(finding)
        bad = finding.verdict in {Verdict.DEGRADED, Verdict.UNHEALTHY}
        (_log.warning if bad else _log.info)(
            "finding",
            probe=finding.probe,
            component=finding.component,
            verdict=str(finding.verdict),
            reason=finding.reason,
            said=finding.message,
        )

    def _send(self, now_s: float) -> None:
        self._sent_s = now_s
        snapshot = self.snapshot
        snapshot = self._guarded("conclude", lambda: self._setup.conclude(snapshot, now_s)) or snapshot
        self.meters.show((each.finding for each in snapshot.findings), snapshot.readers)
        self._guarded("on_snapshot", lambda: self._setup.on_snapshot(snapshot))

    def _guarded(self, what: str, call: Callable[[], _T]) -> _T | None:
        """Return what a hook returns; None where it made a mistake: that costs its own result alone."""
        try:
            return call()
        except Exception:  # noqa: BLE001 (guard: a hook's mistake does not stop the runner)
            self.meters.bug(f"health.{what}")
            _log.exception("mistake of our own", what=what)
            return None

    def _pause_s(self, seconds: float) -> float:
        return seconds * (1 + JITTER * (2 * self._setup.rng.random() - 1))


def _joined(before: Any, now: Any) -> Any:
    """Return what was read now, with the kernel lines of a reading that no view has taken yet: those come only once."""
    if not isinstance(before, Kernel) or not isinstance(now, Kernel) or not (before.lines or before.lost):
        return now
    return msgspec.structs.replace(now, lines=(*before.lines, *now.lines), lost=before.lost + now.lost)


def _word(held: SettledState) -> tuple[str, str]:
    return held.believed.verdict, held.believed.reason
