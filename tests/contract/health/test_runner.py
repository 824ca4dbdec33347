"""The runner with real sources: one that hangs, fails or comes late costs its own part alone, and a recording replays."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from freehold.core.findings import Finding, Verdict
from freehold.health.agent.runner import Runner, RunnerSetup, Source
from freehold.health.collectors.disks import DiskOptions, DiskReader
from freehold.health.collectors.process_group import ProcessGroup
from freehold.health.model.probe import Expected, Probe
from freehold.health.model.snapshot import HealthSnapshot
from freehold.health.model.view import Gpus, Host, Kernel, KernelLine, State, View
from freehold.health.registry import all_probes
from freehold.telemetry import logs
from healthy_node import healthy_views
from waiting import until, wait_until

FAST = RunnerSetup(node="n", tick_s=0.05)


async def nothing() -> None:
    """Nothing to close."""


def source(part: Any, read: Any, **more: Any) -> Source:
    return Source(
        **{
            "part": part,
            "read": read,
            "close": nothing,
            "period_s": 0.05,
            "deadline_s": 0.2,
            **more,
        }
    )


def judge(views: Sequence[View], _expected: Expected) -> Sequence[Finding]:
    read = views[-1].host is not None
    verdict = Verdict.HEALTHY if read else Verdict.UNKNOWN
    return [Finding(probe="one", component="host", verdict=verdict, reason="ok", message="m")]


def judge_gpus(views: Sequence[View], _expected: Expected) -> Sequence[Finding]:
    gpus = views[-1].gpus
    bad = gpus is None or gpus.state is not State.OK
    verdict = Verdict.UNHEALTHY if bad else Verdict.HEALTHY
    return [Finding(probe="two", component="driver", verdict=verdict, reason="hung", message="m")]


ONE = Probe(
    name="one", summary="s", reads=("host",), window_s=60, reasons={"ok": ""}, thresholds=(), check=judge
)
TWO = replace(ONE, name="two", reads=("gpus",), check=judge_gpus)


async def host() -> Host:
    return Host()


def verdicts(snapshot: HealthSnapshot) -> dict[str, Verdict]:
    return {each.finding.probe: each.finding.verdict for each in snapshot.findings}


async def running(runner: Runner, condition: Any, timeout_s: float = 10.0) -> None:
    task = asyncio.create_task(runner.run())
    try:
        await until(condition, timeout_s=timeout_s)
    finally:
        task.cancel()
        await asyncio.wait({task})


def test_a_source_that_hangs_is_told_and_stops_no_other() -> None:
    hanging, over = 0, False

    async def hang() -> Gpus:
        nonlocal hanging
        hanging += 1
        while not over:
            with suppress(asyncio.CancelledError):  # it does not even let itself be cancelled, however often
                await asyncio.Event().wait()
        return Gpus()

    async def main() -> HealthSnapshot:
        nonlocal over
        late = Gpus(state=State.HUNG)
        runner = Runner(
            [source("host", host), source("gpus", hang, late=late)], {"one": ONE, "two": TWO}, FAST
        )
        await running(
            runner,
            lambda: (
                verdicts(runner.snapshot) == {"one": Verdict.HEALTHY, "two": Verdict.UNHEALTHY}
                and {r.name: r.state for r in runner.snapshot.readers} == {"host": "ok", "gpus": "late"}
            ),
        )
        over = True
        return runner.snapshot

    snapshot = asyncio.run(main())
    assert snapshot.verdict is Verdict.UNHEALTHY
    assert hanging == 1  # no second question while the first has no answer


def test_a_source_and_a_probe_that_fail_are_counted_and_cost_themselves_alone() -> None:
    async def fail() -> Gpus:
        raise RuntimeError("ours")

    def broken(_views: Sequence[View], _expected: Expected) -> Sequence[Finding]:
        raise KeyError("ours")

    async def main() -> Runner:
        probes = {"one": ONE, "broken": replace(ONE, name="broken", check=broken)}
        runner = Runner([source("host", host), source("gpus", fail)], probes, FAST)
        await running(runner, lambda: verdicts(runner.snapshot) == {"one": Verdict.HEALTHY})
        return runner

    runner = asyncio.run(main())
    text = runner.meters.text().decode()
    assert 'freehold_health_bugs_total{where="health.reader"}' in text
    assert 'freehold_health_bugs_total{where="health.probe"}' in text
    assert {r.name: r.state for r in runner.snapshot.readers} == {"host": "ok", "gpus": "failed"}


def test_what_is_not_read_any_more_becomes_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freehold.health.agent.runner.PERIOD_S", 0.2)
    reads = 0

    async def once() -> Host:
        nonlocal reads
        reads += 1
        if reads > 3:
            await asyncio.Event().wait()
        return Host()

    async def main() -> Finding:
        runner = Runner([source("host", once)], {"one": ONE}, FAST)
        await running(runner, lambda: verdicts(runner.snapshot).get("one") is Verdict.UNKNOWN)
        return runner.snapshot.findings[0].finding

    assert asyncio.run(main()).reason == "stale"


def test_an_interrupted_runner_closes_its_sources_also_behind_one_that_does_not() -> None:
    closed = []

    async def stuck() -> None:
        await asyncio.Event().wait()

    async def close() -> None:
        closed.append(True)

    async def main() -> None:
        first = source("gpus", host, close=stuck, deadline_s=0.1)
        runner = Runner([first, source("host", host, close=close)], {"one": ONE}, FAST)
        await running(runner, lambda: bool(runner.snapshot.findings))

    asyncio.run(main())
    assert closed == [True]


def test_the_healthy_node_is_healthy_through_the_runner() -> None:
    """All probes on all parts of a healthy node, as the live agent would see them."""
    views = healthy_views(2)

    async def main() -> HealthSnapshot:
        parts = ("gpus", "kernel", "volumes", "network", "engines", "host")
        position = 0

        def reading(part: str) -> Any:
            async def read() -> Any:
                return getattr(views[min(position, len(views) - 1)], part)

            return read

        runner = Runner([source(part, reading(part)) for part in parts], all_probes(), FAST)
        await running(runner, lambda: len(verdicts(runner.snapshot)) == len(all_probes()), timeout_s=30)
        return runner.snapshot

    snapshot = asyncio.run(main())
    bad = [b.finding for b in snapshot.findings if b.finding.verdict in (Verdict.UNHEALTHY, Verdict.DEGRADED)]
    assert not bad, bad


def test_a_disk_child_that_is_killed_comes_back_and_the_others_go_on(tmp_path: Path) -> None:
    reader = DiskReader(str(tmp_path), DiskOptions(size_bytes=1 << 20, interval_s=0.05, smart=False))

    async def volumes() -> Any:
        return (reader.read(),)

    async def main() -> None:
        runner = Runner([source("host", host), source("volumes", volumes)], {"one": ONE}, FAST)
        task = asyncio.create_task(runner.run())
        await until(lambda: reader.pids, timeout_s=10)
        (pid,) = reader.pids
        os.kill(pid, signal.SIGKILL)
        await until(lambda: reader.pids and reader.pids != (pid,), timeout_s=30)
        assert verdicts(runner.snapshot) == {"one": Verdict.HEALTHY}
        task.cancel()
        await asyncio.wait({task})
        reader.close()

    asyncio.run(main())


def test_a_process_group_is_read_with_its_workers() -> None:
    code = (
        "import subprocess, sys, time; "
        "p = subprocess.Popen([sys.executable, '-c', 'while True: pass']); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
        try:
            wait_until(lambda: any(ProcessGroup(process.pid)._others()), timeout_s=10)
            group = ProcessGroup(process.pid)
            before = group.read(threads=True)[1] or 0.0
            wait_until(
                lambda: (group.read()[1] or 0.0) > before + 0.05, timeout_s=20, what="the worker's CPU time"
            )
            assert group.read(threads=True)[0] in "RS"
            os.killpg(process.pid, signal.SIGSTOP)
            wait_until(lambda: group.read()[0] == "T", timeout_s=5, what="state T")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert ProcessGroup(process.pid).read() == ("X", None)


class Hands:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return 1.8e9 + self.now_s


def test_an_agent_that_stood_still_says_when_it_went_on() -> None:
    clock = Hands()
    runner = Runner([], {}, RunnerSetup(node="n", clock=clock))
    for _ in range(3):
        clock.now_s += 2.1
        runner.tick()
    assert runner.snapshot.woke_s == 0.0
    clock.now_s += 60.0
    runner.tick()
    woke_s = clock.wall_s()
    clock.now_s += 2.1
    runner.tick()
    assert runner.snapshot.woke_s == woke_s


def test_kernel_lines_that_are_read_twice_between_two_views_are_all_in_the_next() -> None:
    readings = iter([Kernel(lines=(line(1),), lost=2), Kernel(), Kernel(lines=(line(2), line(3)))])
    views: list[View] = []

    async def kernel() -> Kernel:
        return next(readings, Kernel())

    async def main() -> None:
        setup = replace(FAST, tick_s=0.5, on_view=views.append)
        runner = Runner([source("kernel", kernel, period_s=0.05)], {"one": ONE}, setup)
        await running(runner, lambda: sum(len(view.kernel.lines) for view in views if view.kernel) >= 3)

    asyncio.run(main())
    kernels = [view.kernel for view in views if view.kernel]
    assert [each.sequence for one in kernels for each in one.lines] == [1, 2, 3]
    assert sum(one.lost for one in kernels) == 2


def line(sequence: int) -> KernelLine:
    return KernelLine(at_s=1.0, text="x", sequence=sequence)


def test_a_hook_that_fails_is_counted_and_the_snapshot_is_told_all_the_same() -> None:
    told: list[HealthSnapshot] = []

    def broken(*_: object) -> Any:
        raise KeyError("ours")

    async def main() -> Runner:
        setup = replace(FAST, admit=broken, on_view=broken, conclude=broken, on_snapshot=told.append)
        runner = Runner([source("host", host)], {"one": ONE}, setup)
        await running(runner, lambda: told)
        return runner

    text = asyncio.run(main()).meters.text().decode()
    assert verdicts(told[-1]) == {"one": Verdict.HEALTHY}
    assert all(f'where="health.{name}"' in text for name in ("admit", "on_view", "conclude"))


def test_a_finding_that_turns_bad_is_logged_as_a_warning(tmp_path: Path) -> None:
    async def hung() -> Gpus:
        return Gpus(state=State.HUNG)

    async def main() -> None:
        runner = Runner([source("host", host), source("gpus", hung)], {"one": ONE, "two": TWO}, FAST)
        await running(runner, lambda: len(runner.snapshot.findings) == 2)

    log = logs.configure(tmp_path / "health.log")
    asyncio.run(main())
    assert log.close()
    lines = map(msgspec.json.decode, (tmp_path / "health.log").read_bytes().splitlines())
    levels = {line["probe"]: line["level"] for line in lines if line["event"] == "finding"}
    assert levels == {"one": "info", "two": "warning"}
