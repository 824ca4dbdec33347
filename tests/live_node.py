"""A healthy node on a clock of its own, through the agent's own runner, probes and incidents: what a test spoils and lets run."""

from collections.abc import Callable
from typing import Any

import msgspec

from freehold.core.findings import Action, Verdict
from freehold.health.agent.runner import Runner, RunnerSetup, Source
from freehold.health.evidence.kernel_signs import PastFault
from freehold.health.incidents.history import History
from freehold.health.incidents.tracker import IncidentTracker
from freehold.health.model.snapshot import HealthSnapshot, IncidentReport
from freehold.health.model.view import EngineView, Gpu, Kernel, KernelLine, Reading, State, View, Volume
from freehold.health.registry import all_probes
from healthy_node import healthy_view

TICK_S = 2.0
BOOT_S = 1_795_391_000.0
"""Unix time at which the clock of the healthy node counts from."""
FAST = ("kernel", "engines")
PARTS = ("gpus", "kernel", "volumes", "network", "engines", "host")
PCI = ("0000:00:06", "0000:00:07")
UUID = tuple(f"gpu:GPU-00000000-0000-0000-0000-{n:012d}" for n in (1, 2))
SERIAL = tuple(f"gpu:{n:013d}" for n in (1, 2))


class Hands:
    """A clock that the test moves."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s
        self.boot_s = BOOT_S

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.boot_s + self.now_s


async def never() -> Any:
    raise AssertionError("a scripted node is not read")


class Node:
    """One agent's run; another one on the same clock, given this one's last word, is its restart."""

    def __init__(
        self,
        clock: Hands | None = None,
        *,
        before: HealthSnapshot | None = None,
        history: History | None = None,
        boot: str = "boot-1",
        log: "list[KernelLine] | None" = None,
    ) -> None:
        self.clock = clock or Hands()
        self.log = log if log is not None else []
        """The kernel's log of this boot, all of which an agent that starts is given."""
        self._read = 0
        self.spoil: dict[str, Callable[[Any], Any]] = {}
        """By part: what makes of the healthy reading another one."""
        self.told: list[HealthSnapshot] = []
        self.written: list[PastFault] = []
        self.live = IncidentTracker(node="node-1", started_s=self.clock.wall_s(), boot=boot)
        self.live.resume(before, history or History())
        setup = RunnerSetup(
            node="node-1",
            clock=self.clock,
            admit=self.live.admit,
            on_view=self._see,
            conclude=self.live.conclude,
            on_snapshot=self._hear,
        )
        sources = [
            Source(part=part, read=never, close=never, period_s=TICK_S if part in FAST else 10.0)  # type: ignore[arg-type]
            for part in PARTS
        ]
        self.runner = Runner(sources, all_probes(), setup)

    def _see(self, view: View) -> None:
        names = self.live.gpus
        self.live.add(view)
        if self.live.gpus != names:
            self.runner.readmit()
        if self.live.is_due(self.clock.now_s):
            self.runner.report_soon()

    def _hear(self, snapshot: HealthSnapshot) -> None:
        self.told.append(snapshot)
        self.written += self.live.take_lines()

    def say(self, text: str, *, ago_s: float = 0.5) -> None:
        """Write a line into the kernel's log."""
        at_s = self.clock.wall_s() - ago_s
        self.log.append(KernelLine(at_s=at_s, text=text, sequence=len(self.log) + 1))

    def rest(self, seconds: float) -> HealthSnapshot:
        """Let much time pass, with a look every ten seconds."""
        return self.run(seconds, step_s=10.0)

    def run(self, seconds: float, *, step_s: float = TICK_S) -> HealthSnapshot:
        """Let time pass; return the last that was told."""
        ends_s = self.clock.now_s + seconds
        while self.clock.now_s < ends_s:
            self.clock.now_s += step_s
            view = healthy_view(int(self.clock.now_s / 10.0))
            lines = tuple(self.log[self._read :])
            self._read = len(self.log)
            view = msgspec.structs.replace(view, kernel=Kernel(lines=lines))
            due = PARTS if self.clock.now_s % 10.0 < step_s else FAST
            self.runner._parts = {part: self._part(view, part) for part in due}  # type: ignore[misc]
            self.runner.tick()
        return self.told[-1]

    def _part(self, view: View, part: str) -> Any:
        return self.spoil.get(part, lambda value: value)(getattr(view, part))

    @property
    def incidents(self) -> tuple[IncidentReport, ...]:
        return self.told[-1].incidents if self.told else ()

    @property
    def incident(self) -> IncidentReport:
        (one,) = self.incidents
        return one


# --- what a test asks for --------------------------------------------------------------------------------------------


def words(one: IncidentReport) -> tuple[str, str, Action]:
    return (one.hypothesis, one.component, one.action)


def bad(snapshot: HealthSnapshot) -> list[tuple[str, str]]:
    return [
        (each.finding.probe, each.finding.reason)
        for each in snapshot.findings
        if each.finding.verdict in {Verdict.DEGRADED, Verdict.UNHEALTHY}
    ]


# --- what a test spoils ------------------------------------------------------------------------------------------------


def lost_gpu(index: int) -> Callable[[Any], Any]:
    """Make one GPU answer nothing but that it is lost."""

    def spoil(gpus: Any) -> Any:
        def gone(gpu: Gpu) -> Gpu:
            readings = {name: Reading(state=State.LOST) for name in gpu.readings}
            return msgspec.structs.replace(gpu, readings=readings) if gpu.index == index else gpu

        return msgspec.structs.replace(gpus, gpus=tuple(map(gone, gpus.gpus)))

    return spoil


def frozen_engine(index: int, since_s: float, **more: Any) -> Callable[[Any], Any]:
    """Make one engine stand still from a moment (monotonic) on, with work to do."""

    def spoil(engines: Any) -> Any:
        old = healthy_view(int(since_s / 10.0)).engines
        assert old is not None
        stuck: EngineView = msgspec.structs.replace(old[index], **more)
        return tuple(stuck if each.replica == stuck.replica else each for each in engines)

    return spoil


def slow_disk(engines: Any) -> Any:
    """Make reads take 80 ms each, in the device itself."""
    slow: list[Volume] = [
        msgspec.structs.replace(
            volume,
            usual_read_s=Reading(value=0.00027),
            reads_s=(0.08,) * 10,
            device_ticks_s=Reading(value=0.079),
            pressure_full_s=Reading(value=0.8),
        )
        for volume in engines
    ]
    return tuple(slow)


def xid(number: int, index: int = 0, text: str = "pid=88, name=VLLM::Worker, it failed") -> str:
    return f"NVRM: Xid (PCI:{PCI[index]}): {number}, {text}"


OFF_BUS = "pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
GSP = "pid=88, name=python3, Timeout after 6s of waiting for RPC response from GPU GSP!"
