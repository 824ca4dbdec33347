"""The whole measurement: every contender in every run, in turn, under every load, directly and through the gateway.

Runs are interleaved: all contenders once, then all again in another order, so that what drifts (heat, neighbours) does not
fall on one of them. Each is started afresh for each run. All get the same sizes at the same moments; only the words
differ, so that no cache helps the second. One that fails is recorded as failed and the others go on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from freehold.bench.analysis.figures import figures
from freehold.bench.analysis.load import ScheduledRequest, schedule
from freehold.bench.analysis.prompts import Scale, fitted, prompt
from freehold.bench.analysis.results import Candidate, Conditions, Machine, Result, Through
from freehold.bench.analysis.sample import RequestSample
from freehold.bench.analysis.sizes import Size, Sizes
from freehold.bench.measure.client import BenchTarget, Timing, send
from freehold.bench.measure.drive import Drive, Driven, Texts
from freehold.bench.measure.machine import this_machine
from freehold.bench.measure.stage import Stage, staged
from freehold.bench.measure.watch import GpuMeter, watched
from freehold.core.clock import monotonic_s
from freehold.core.errors import FreeholdError
from freehold.fleet.decisions.plan import ReplicaPlan
from freehold.gateway.settings import Settings

_SHORT_WORDS, _LONG_WORDS = 20, 120
"""Words of the two prompts that show tokens per word. Source: our own choice: they fit any context."""
_SETTLE_S = 60.0
"""Longest wait for what a load left under way to end. Source: our own bound."""
T = TypeVar("T")
Report = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """What a candidate is to the fleet."""

    candidate: Candidate
    plan: ReplicaPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSetup:
    """All that a bench needs, checked."""

    contenders: Sequence[Contender]
    conditions: Conditions
    sizes: Sizes
    through: tuple[Through, ...]
    gateway: Settings | None
    """Of the gateway in front; None: engines are asked directly."""
    folder: Path
    """For logs; each start gets a folder of its own in it."""
    ready_timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What came of it."""

    machine: Machine
    candidates: tuple[Candidate, ...]
    results: tuple[Result, ...]
    words_per_token: float
    whole: bool
    """False: it was ended before all was measured."""


@dataclass(slots=True, kw_only=True)
class Bench:
    """One bench under way; `run` may be called once. Cancelled, it ends what it started and keeps what it has."""

    setup: BenchSetup
    report: Report
    _meter: GpuMeter = field(default_factory=GpuMeter)
    _scale: Scale | None = None
    _results: list[Result] = field(default_factory=list)
    _candidates: dict[str, Candidate] = field(default_factory=dict)
    _machine: Machine = field(default_factory=Machine)
    _whole: bool = False

    async def run(self) -> Measurements:
        """Measure everything and return it."""
        self._candidates = {each.candidate.id: each.candidate for each in self.setup.contenders}
        try:
            self._machine = await this_machine(self._meter)
            for run in range(self.setup.conditions.runs):
                for contender in turned(self.setup.contenders, run):
                    await self._turn(contender, run)
            self._whole = True
        finally:
            await self._meter.close()
        return self.so_far()

    def so_far(self) -> Measurements:
        """Return what was measured until now."""
        return Measurements(
            machine=self._machine,
            whole=self._whole,
            candidates=tuple(self._candidates.values()),
            results=tuple(self._results),
            words_per_token=1 / (self._scale or Scale()).per_word,
        )

    async def _turn(self, contender: Contender, run: int) -> None:
        candidate, setup = contender.candidate, self.setup
        # Its place, since one that does not start leaves no result by which the next could be distinguished from it.
        folder = setup.folder / f"{run}-{setup.contenders.index(contender)}-{candidate.engine}"
        folder.mkdir(parents=True)
        self.report(f"run {run + 1} of {setup.conditions.runs}: {candidate.id} starts")
        try:
            async with staged(
                contender.plan, folder, gateway=setup.gateway, ready_timeout_s=setup.ready_timeout_s
            ) as stage:
                self._note_start(candidate.id, stage)
                await self._loads(candidate, stage, run)
        except FreeholdError as exc:
            words = f"run {run + 1}: {exc.message}"
            self.report(f"{candidate.id}: {words}")
            self._change(candidate.id, failed=words)

    def _note_start(self, name: str, stage: Stage) -> None:
        known = self._candidates[name]
        self._change(
            name,
            argv=stage.argv,
            versions=known.versions | stage.versions,
            ready_s=(*known.ready_s, round(stage.ready_s, 3)),
        )

    def _change(self, name: str, **changes: object) -> None:
        self._candidates[name] = msgspec.structs.replace(self._candidates[name], **changes)

    async def _loads(self, candidate: Candidate, stage: Stage, run: int) -> None:
        if self._scale is None:
            self._scale = await measured_scale(stage.targets["direct"])
        for place, load in enumerate(self.setup.conditions.loads):
            for through in turned(self.setup.through, run):
                self.report(f"run {run + 1}: {candidate.id}, {load.words()}, {through}")
                self._results.append(await self._measure(candidate, stage, (run, place, through)))
                await settled(stage.targets[through])

    async def _measure(self, candidate: Candidate, stage: Stage, what: tuple[int, int, Through]) -> Result:
        run, place, through = what
        conditions = self.setup.conditions
        load = conditions.loads[place]
        drive = Drive(
            target=stage.targets[through],
            asks=schedule(load, self.setup.sizes, seed=(conditions.seed, run, place)),
            texts=self._texts((conditions.seed, run, place, self.setup.through.index(through))),
            conditions=conditions,
        )
        meter, gpus = self._meter, candidate.gpus
        async with watched(stage.pid, meter, gpus=gpus, after_s=conditions.warm_up_s) as seen:
            driven: Driven = await drive.run(load)
        return Result(
            candidate=candidate.id,
            through=through,
            load=load,
            run=run,
            figures=figures(driven.samples, driven.window, conditions.slo),
            resources=seen.resources,
        )

    def _texts(self, label: tuple[int, ...]) -> Texts:
        scale, shared = self._scale or Scale(), self.setup.conditions.shared_prefix_tokens
        return Texts(scale=scale, label=label, shared_words=round(shared / scale.per_word) if shared else 0)


def turned(things: Sequence[T], by: int) -> list[T]:
    """Return them in the same circle, begun `by` places later."""
    by %= max(1, len(things))
    return [*things[by:], *things[:by]]


async def measured_scale(target: BenchTarget) -> Scale:
    """Return how words become tokens, by what the engine counts of two prompts; the plain scale where it reports nothing."""
    counts = []
    for words in (_SHORT_WORDS, _LONG_WORDS):
        ask = ScheduledRequest(number=0, at_s=None, size=Size(prompt_tokens=words, answer_tokens=1))
        sample = await _one(target, ask, prompt(words, label=(words,)))
        counts.append((words, sample.prompt_tokens or 0))
    return fitted(counts[0], counts[1])


async def settled(target: BenchTarget) -> None:
    """Wait until a short question is answered: what a load left under way has ended, or soon will."""
    ask = ScheduledRequest(number=0, at_s=None, size=Size(prompt_tokens=1, answer_tokens=1))
    await _one(target, ask, "Hello")


async def _one(target: BenchTarget, ask: ScheduledRequest, text: str) -> RequestSample:
    began_s = monotonic_s()
    timing = Timing(now=lambda: monotonic_s() - began_s, intended_s=0.0, timeout_s=_SETTLE_S)
    request = target.request(text, ask.size.answer_tokens)
    found: list[RequestSample] = []
    await send(target, ask, request=request, timing=timing, keep=found.append)
    return found[0]
