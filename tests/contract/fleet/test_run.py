"""The fleet with real fake engines: it brings back what dies, gives up on what cannot live, and always ends."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import httpx2

from freehold.core.events import ReplicaState as State
from freehold.core.events import ReplicaStatus, Snapshot
from freehold.engines import all_engines
from freehold.engines.base import ExitCause
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan
from freehold.fleet.processes import proc_files
from freehold.fleet.run import Fleet
from freehold.testing.fake_engine import start_fake_engine
from freehold.testing.fake_engine_adapter import FAKE_ENGINE
from waiting import until


def plan(index: int, **options: str | bool | float) -> ReplicaPlan:
    return ReplicaPlan(id=f"m-{index}", model="m", engine=FAKE_ENGINE, options=options)


class Running:
    """A fleet that runs, with every snapshot it published."""

    def __init__(self, fleet: Fleet, snapshots: list[Snapshot]) -> None:
        self.fleet = fleet
        self.snapshots = snapshots

    def status(self, index: int = 0) -> ReplicaStatus:
        return self.fleet.statuses()[index]

    async def state(self, state: State, index: int = 0) -> ReplicaStatus:
        await until(lambda: self.fleet.statuses() and self.status(index).state is state, what=state)
        return self.status(index)

    def states_seen(self, index: int = 0) -> list[State]:
        seen = [snapshot.replicas[index].state for snapshot in self.snapshots]
        return [state for i, state in enumerate(seen) if i == 0 or seen[i - 1] is not state]


def run_fleet(
    tmp_path: Path, plans: list[ReplicaPlan], story: Callable[[Running], Awaitable[None]], **numbers: float
) -> Running:
    """Run a fleet through a story, stop it, and see that nothing of it is left and no mistake was caught."""

    async def run() -> Running:
        snapshots: list[Snapshot] = []
        settings = FleetSettings(log_dir=tmp_path, **{"scrape_s": 0.1, "stop_grace_s": 5.0, **numbers})  # type: ignore[arg-type]
        running = Running(Fleet(plans, settings, on_snapshot=snapshots.append), snapshots)
        async with asyncio.TaskGroup() as group:
            group.create_task(running.fleet.run())
            await story(running)
            pids = [status.pid for status in running.fleet.statuses() if status.pid]
            running.fleet.request_stop(drained=True)
        assert [status.state for status in running.fleet.statuses()] == [State.STOPPED] * len(plans)
        assert not [pid for pid in pids if proc_files.mark(pid)]
        assert running.fleet.errors_total == 0
        generations = [snapshot.generation for snapshot in snapshots]
        assert generations == list(range(1, len(snapshots) + 1))
        return running

    return asyncio.run(run())


def test_a_replica_that_is_killed_comes_back_and_the_other_never_leaves(tmp_path: Path) -> None:
    async def story(running: Running) -> None:
        before = await running.state(State.READY, 0)
        await running.state(State.READY, 1)
        marker = len(running.snapshots)
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        await running.state(State.BACKOFF)
        after = await running.state(State.READY)
        assert (after.restarts, after.pid != before.pid, after.url != before.url) == (1, True, True)
        assert {s.replicas[1].state for s in running.snapshots[marker:]} == {State.READY}
        endpoint = running.fleet.snapshot.endpoints[0]
        assert (endpoint.incarnation, endpoint.state, endpoint.slots) == (2, State.READY, 4)

    running = run_fleet(tmp_path, [plan(0), plan(1)], story)
    assert running.states_seen()[-3:] == [State.DRAINING, State.STOPPING, State.STOPPED]
    assert {len(snapshot.models) for snapshot in running.snapshots} == {1}


def test_of_two_that_are_called_hanging_one_at_a_time_is_replaced_and_one_that_recovers_is_not(
    tmp_path: Path,
) -> None:
    async def story(running: Running) -> None:
        before = [await running.state(State.READY, index) for index in range(3)]
        marker = len(running.snapshots)
        for status in before:
            assert running.fleet.stalled(status.id, pid=status.pid or 0, reason="nothing moves")
        assert not running.fleet.stalled("m-0", pid=1, reason="that is not its process")
        await until(lambda: running.status(0).state is not State.READY, what="the first one's end")
        assert running.fleet.recovered("m-2", pid=before[2].pid or 0)
        assert not running.fleet.recovered("m-0", pid=before[0].pid or 0)  # too late for this one
        await until(lambda: running.status(1).pid != before[1].pid, what="another process of the second")
        await running.state(State.READY, 1)
        since = running.snapshots[marker:]
        serving = [sum(each.state is State.READY for each in snapshot.replicas) for snapshot in since]
        assert min(serving) == 2
        assert running.status(2).pid == before[2].pid
        assert "it hung: nothing moves" in {each.reason for snapshot in since for each in snapshot.replicas}

    run_fleet(tmp_path, [plan(index) for index in range(3)], story)


def test_tokens_per_second_come_from_the_engines_own_counter(tmp_path: Path) -> None:
    async def story(running: Running) -> None:
        url = (await running.state(State.READY)).url
        await until(lambda: running.status().tokens_per_s == 0.0, what="an idle rate")
        async with httpx2.AsyncClient(trust_env=False) as client:
            body = {"model": "m", "prompt": "hi", "max_tokens": 12}
            (await client.post(f"{url}/v1/completions", json=body)).raise_for_status()
            await until(lambda: (running.status().tokens_per_s or 0) > 0, what="a rate above nought")
            await client.post(f"{url}/_fake", json={"metrics": "missing"})
        await until(lambda: running.status().tokens_per_s is None, what="an unknown rate")
        assert running.status().tokens_total is None
        assert running.status().state is State.READY

    run_fleet(tmp_path, [plan(0)], story)


def test_what_an_engine_printed_while_it_served_explains_no_end(tmp_path: Path) -> None:
    seen: list[tuple[str, ...]] = []

    def explain_exit(code: int, lines: tuple[str, ...]) -> ExitCause:
        seen.append(lines)
        return FAKE_ENGINE.explain_exit(code, lines)

    async def story(running: Running) -> None:
        os.kill((await running.state(State.READY)).pid or 0, signal.SIGKILL)
        await running.state(State.BACKOFF)
        assert seen == [("`freehold logs m-0` shows what it printed",)]

    engine = replace(FAKE_ENGINE, explain_exit=explain_exit)
    run_fleet(tmp_path, [ReplicaPlan(id="m-0", model="m", engine=engine, options={})], story)


def test_an_engine_that_served_and_ends_unasked_with_exit_code_0_was_not_stopped(tmp_path: Path) -> None:
    async def story(running: Running) -> None:
        os.kill(
            (await running.state(State.READY)).pid or 0, signal.SIGTERM
        )  # the fake engine's exit code is then 0
        assert (await running.state(State.BACKOFF)).reason == "it ended by itself with exit code 0"

    run_fleet(tmp_path, [plan(0)], story)


def test_what_dies_at_once_every_time_is_a_crash_loop_until_a_person_says_otherwise(tmp_path: Path) -> None:
    async def story(running: Running) -> None:
        looping = await running.state(State.CRASH_LOOP)
        assert looping.restarts == 4
        assert looping.reason.startswith("failed 5 times in a row before it was ready; last: ")
        assert "no such tensor" in looping.reason
        assert "freehold logs m-0" in looping.hint
        assert running.fleet.restart("m-0") is None
        await until(lambda: running.status().state is not State.CRASH_LOOP)
        await running.state(State.CRASH_LOOP)
        assert running.status().restarts == 9

    words = {"exit_at_start": 1, "exit_words": "no such tensor"}
    run_fleet(tmp_path, [plan(0, **words)], story, backoff_base_s=0.01)


def test_a_crash_loop_goes_on_trying_slowly_by_itself(tmp_path: Path) -> None:
    async def story(running: Running) -> None:
        looping = await running.state(State.CRASH_LOOP)
        assert "it is tried again every" in looping.hint
        await until(lambda: running.status().restarts == looping.restarts + 2, what="two more tries")

    numbers = {"backoff_base_s": 0.01, "crash_loop_retry_s": 0.3}
    run_fleet(tmp_path, [plan(0, exit_at_start=1, exit_words="no such tensor")], story, **numbers)


def test_an_engine_that_hangs_while_loading_is_ended_and_counted(tmp_path: Path) -> None:
    async def story(running: Running) -> None:
        looping = await running.state(State.CRASH_LOOP)
        assert "not ready within 3 s (HTTP 503: Loading model)" in looping.reason

    numbers = {"ready_timeout_s": 3.0, "unready_failures_max": 2, "backoff_base_s": 0.01}
    run_fleet(tmp_path, [plan(0, start_s=600.0)], story, **numbers)


def test_an_engine_that_accepts_and_never_answers_is_ended_too(tmp_path: Path) -> None:
    async def story(running: Running) -> None:
        looping = await running.state(State.CRASH_LOOP)
        assert "not ready within 0.7 s" in looping.reason

    numbers = {"ready_timeout_s": 0.7, "unready_failures_max": 1}
    run_fleet(tmp_path, [plan(0, fault="hang", health="lie")], story, **numbers)


def test_sigterm_ignored_means_sigkill_after_the_grace(tmp_path: Path) -> None:
    async def story(running: Running) -> None:
        first = await running.state(State.READY)
        assert running.fleet.restart("m-0") is None
        await running.state(State.STOPPING)
        await running.state(State.STARTING)
        assert first.pid is not None
        assert proc_files.mark(first.pid) is None
        await running.state(State.READY)

    run_fleet(tmp_path, [plan(0, ignore_sigterm=True)], story, stop_grace_s=0.5)


def test_more_haste_does_not_wait_for_the_grace(tmp_path: Path) -> None:
    async def story(running: Running) -> None:
        await running.state(State.READY)
        running.fleet.request_stop()
        await running.state(State.STOPPING)
        running.fleet.request_stop(now=True)
        await asyncio.wait_for(running.fleet.finished.wait(), 5)

    run_fleet(tmp_path, [plan(0, ignore_sigterm=True)], story, stop_grace_s=3600.0)


def test_a_restart_waits_for_the_streams_that_run(tmp_path: Path) -> None:
    async def story(running: Running) -> None:
        url = (await running.state(State.READY)).url
        body = {"model": "m", "prompt": "hi", "max_tokens": 10, "stream": True}
        async with (
            httpx2.AsyncClient(trust_env=False) as client,
            client.stream("POST", f"{url}/v1/completions", json=body) as answer,
        ):
            lines = answer.aiter_lines()
            assert await anext(lines)
            assert running.fleet.restart("m-0") is None
            rest = [line async for line in lines]
        assert "data: [DONE]" in rest
        await until(lambda: running.status().restarts == 1)
        await running.state(State.READY)

    run_fleet(tmp_path, [plan(0, tokens_per_s=10.0)], story)


def test_an_unknown_replica_is_a_problem_with_the_nearest_name(tmp_path: Path) -> None:
    async def story(running: Running) -> None:
        problem = running.fleet.restart("m-7")
        assert problem is not None
        assert problem.hint == "did you mean 'm-0'?"

    run_fleet(tmp_path, [plan(0)], story)


def test_an_external_endpoint_is_watched_at_no_cost_and_never_ended(tmp_path: Path) -> None:
    with start_fake_engine() as engine:
        outside = ReplicaPlan(
            id="m-ext-0", model="m", engine=all_engines()["external"], url=engine.url, api_key="k"
        )
        nobody = ReplicaPlan(
            id="m-ext-1", model="m", engine=all_engines()["external"], url="http://127.0.0.1:9"
        )

        async def story(running: Running) -> None:
            await running.state(State.READY)
            assert running.status(1).state is State.STARTING
            await until(lambda: "no connection" in running.status(1).reason)
            os.kill(engine.pid, signal.SIGSTOP)
            await running.state(State.BACKOFF)
            os.kill(engine.pid, signal.SIGCONT)
            await running.state(State.READY)

        run_fleet(tmp_path, [outside, nobody], story, external_poll_s=0.05, external_timeout_s=0.2)
        assert engine.stats()["requests"] == 0, "it was asked for a completion"
        assert proc_files.mark(engine.pid) is not None


def test_a_callback_that_fails_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        def broken(_snapshot: Snapshot) -> None:
            raise RuntimeError("a mistake")

        fleet = Fleet([plan(0)], FleetSettings(log_dir=tmp_path), on_snapshot=broken)
        task = asyncio.create_task(fleet.run())
        await until(lambda: fleet.statuses() and fleet.statuses()[0].state is State.READY)
        fleet.request_stop(drained=True)
        await task
        assert fleet.errors_total >= 3

    asyncio.run(run())


def test_a_fleet_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        settings = FleetSettings(log_dir=tmp_path, stop_grace_s=0.5, kill_margin_s=0.5)
        fleet = Fleet([plan(0, ignore_sigterm=True)], settings, on_snapshot=lambda _: None)
        task = asyncio.create_task(fleet.run())
        await until(lambda: fleet.statuses() and fleet.statuses()[0].state is State.READY)
        pid = fleet.statuses()[0].pid
        assert pid is not None
        task.cancel()
        await asyncio.wait([task])
        assert proc_files.mark(pid) is None
        assert fleet.finished.is_set()

    asyncio.run(run())
