"""The running fleet on virtual time: a loop that never waits, a launcher and a prober made of dice.

Hours pass in a moment, and the same seed gives the same story to the last snapshot.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from freehold.core.errors import Temporary
from freehold.core.events import ReplicaState as State
from freehold.core.events import Snapshot
from freehold.engines.base import Capacity
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan
from freehold.fleet.probe import CounterReading, ReadinessAnswer
from freehold.fleet.processes.launch_process import EngineExited, EngineLaunch, EngineStarted, Report
from freehold.fleet.run import Fleet, World
from freehold.testing.fake_engine_adapter import FAKE_ENGINE
from virtual_time import VirtualLoop

SETTINGS = FleetSettings(log_dir=Path("/nowhere"))


class DiceLaunch:
    """One start: dice say whether it comes up, and when it dies."""

    def __init__(self, dice: "Dice", report: Callable[[Report], None], port: int) -> None:
        self.dice, self.report = dice, report
        self.alive = True
        loop, rng = asyncio.get_running_loop(), dice.rng
        if rng.random() < 0.9:
            loop.call_later(
                rng.uniform(0, 0.1), self.tell, EngineStarted(pid=port, url=f"http://127.0.0.1:{port}")
            )
        loop.call_later(rng.choice([0.5, 20, 200, 2000, 1e9]) * rng.random(), self.die, 1)
        self.ends = rng.random() < 0.8

    def tell(self, report: Report) -> None:
        if self.alive:
            self.report(report)

    def die(self, code: int) -> None:
        if self.alive:
            self.tell(EngineExited(code=code, tail=("boom",)))
            self.alive = False

    def stop(self, grace_s: float) -> None:
        if self.ends:
            asyncio.get_running_loop().call_later(self.dice.rng.uniform(0, grace_s), self.die, -15)

    async def why_closed(self) -> str:
        return ""

    def kill(self) -> None:
        asyncio.get_running_loop().call_later(0.01, self.die, -9)


class Dice:
    """Launcher and prober whose every answer is chance."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.launches: list[DiceLaunch] = []

    def launch(self, plan: ReplicaPlan, report: Callable[[Report], None]) -> EngineLaunch:
        if self.rng.random() < 0.05:
            raise Temporary("no free port", hint="wait")
        if self.rng.random() < 0.05:
            raise ValueError("an engine file's mistake")
        self.launches.append(DiceLaunch(self, report, port=20000 + len(self.launches)))
        return self.launches[-1]

    async def ask(self, plan: ReplicaPlan, url: str) -> ReadinessAnswer:
        await asyncio.sleep(self.rng.choice([0.01, 0.5, 60]))
        if self.rng.random() < 0.02:
            raise ValueError("a prober's mistake")
        return ReadinessAnswer(ok=self.rng.random() < 0.5, reason="loading")

    async def measure(self, plan: ReplicaPlan, url: str) -> CounterReading:
        await asyncio.sleep(self.rng.uniform(0, 1))
        return CounterReading(
            tokens_total=self.rng.choice([None, 1.0, 2.0, 3.0]),
            running=self.rng.choice([0.0, 1.0]),
            asleep=self.rng.choice([None, False, False, True]),
        )

    async def capacity(self, plan: ReplicaPlan, url: str) -> Capacity | None:
        raise AssertionError("only external servers are asked")

    async def close(self) -> None:
        return


def on_virtual_time(story: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        runner.run(story(loop))


def hours(seed: int) -> tuple[list[Snapshot], Dice, Fleet]:
    """Run three replicas for two virtual hours with restarts by a person in between, then stop them."""
    snapshots: list[Snapshot] = []
    made: list[tuple[Dice, Fleet]] = []

    async def story(loop: VirtualLoop) -> None:
        rng = random.Random(seed)
        dice = Dice(rng)
        plans = [ReplicaPlan(id=f"m-{i}", model="m", engine=FAKE_ENGINE) for i in range(3)]
        world = World(launcher=dice, prober=dice, clock=loop, rng=rng)
        fleet = Fleet(plans, SETTINGS, on_snapshot=snapshots.append, world=world)
        made.append((dice, fleet))
        task = asyncio.create_task(fleet.run())
        for _ in range(12):
            await asyncio.sleep(rng.uniform(1, 1200))
            assert not task.done()
            fleet.restart(f"m-{rng.randint(0, 2)}")
        fleet.request_stop()
        async with asyncio.timeout(SETTINGS.drain_s + SETTINGS.stop_grace_s + SETTINGS.kill_margin_s + 1):
            await task

    on_virtual_time(story)
    return snapshots, *made[0]


def test_bad_luck_enough_is_a_crash_loop() -> None:
    snapshots, _dice, _fleet = hours(0)
    assert State.CRASH_LOOP in {r.state for s in snapshots for r in s.replicas}


@pytest.mark.parametrize("seed", range(6))
def test_hours_of_bad_luck_end_with_nothing_left(seed: int) -> None:
    snapshots, dice, fleet = hours(seed)
    assert [launch for launch in dice.launches if launch.alive] == []
    assert [r.state for r in snapshots[-1].replicas] == [State.STOPPED] * 3
    assert len(dice.launches) > 10
    assert fleet.errors_total > 0, "the planted mistakes were caught and counted"
    # A crash loop takes five failures in five minutes: not every hour has such luck.
    assert {r.state for s in snapshots for r in s.replicas} >= set(State) - {State.CRASH_LOOP}
    for older, newer in itertools.pairwise(snapshots):
        assert newer.generation == older.generation + 1
        assert newer.replicas != older.replicas or newer.endpoints != older.endpoints
    for snapshot in snapshots:
        urls = [endpoint.url for endpoint in snapshot.endpoints]
        assert len(set(urls)) == len(urls)


def test_the_same_seed_tells_the_same_story() -> None:
    first, second = (msgspec.json.encode(hours(seed=7)[0]) for _ in range(2))
    assert first == second
    assert first != msgspec.json.encode(hours(seed=8)[0])
