"""A start that is watched for real: a process that works, one that reads, one that does nothing, and a stack's own words."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from freehold.core.clock import monotonic_s
from freehold.core.events import ReplicaState as State
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan, log_path
from freehold.fleet.processes.proc_files import family
from freehold.fleet.processes.start_progress import StartWatch, look, moved
from freehold.fleet.run import Fleet
from freehold.testing.fake_engine_adapter import FAKE_ENGINE
from waiting import until, wait_until

WORKS = "while True: sum(range(10000))"
READS = "while True: open('/dev/zero', 'rb', buffering=0).read(1000000)"
STANDS = "import sys; sys.stdin.read()"


@pytest.mark.parametrize(("code", "lives"), [(WORKS, True), (READS, True), (STANDS, False)])
def test_work_is_a_sign_of_life_also_of_a_child(tmp_path: Path, code: str, *, lives: bool) -> None:
    shell = ["/bin/sh", "-c", 'echo up; "$0" -c "$1"; true', sys.executable, code]
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        child = 0
        try:
            wait_until(lambda: len(family(parent.pid)) == 2, what="its child")
            child = family(parent.pid)[1]
            steady = [look(tmp_path / "log", parent.pid, FAKE_ENGINE)]

            def rests() -> bool:  # its own start is work
                steady.append(look(tmp_path / "log", parent.pid, FAKE_ENGINE))
                return steady[-1].used == steady[-2].used or steady[-1].at_s - steady[0].at_s > 1.0

            wait_until(rests, what="the end of its start")
            before = look(tmp_path / "log", parent.pid, FAKE_ENGINE)
            wait_until(lambda: monotonic_s() - before.at_s > 0.5, what="half a second")
            assert moved(before, look(tmp_path / "log", parent.pid, FAKE_ENGINE)) is lives
        finally:
            parent.kill()
            if child:
                subprocess.run(["/bin/kill", "-9", str(child)], check=False)


def test_a_fleets_start_says_where_it_is(tmp_path: Path) -> None:
    async def story() -> None:
        plan = ReplicaPlan(id="m/x-0", model="m/x", engine=FAKE_ENGINE, options={"start_s": 600.0})
        fleet = Fleet([plan], FleetSettings(log_dir=tmp_path, stop_grace_s=5.0), on_snapshot=lambda _: None)
        watch = StartWatch(tmp_path, {"fake": FAKE_ENGINE})
        async with asyncio.TaskGroup() as group:
            group.create_task(fleet.run())
            watching = group.create_task(watch.run(fleet.statuses))
            await until(
                lambda: (
                    [r.reason for r in watch.with_progress(fleet.statuses())]
                    == ["loading its made-up weights"]
                ),
                what="its phase",
            )
            assert fleet.statuses()[0].state is State.STARTING
            assert log_path(tmp_path, "m/x-0").exists()
            watching.cancel()
            fleet.request_stop(now=True)

    asyncio.run(story())
