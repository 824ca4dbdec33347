"""The process launcher with real minders and engines: ports, reports, a minder that is shot, a controller that is."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from freehold.core.errors import Temporary
from freehold.engines.base import FOLDER, Command, Placement
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan, files_dir, log_path
from freehold.fleet.processes import proc_files
from freehold.fleet.processes.cage_rules import MARK
from freehold.fleet.processes.launch_process import (
    EngineExited,
    EngineStarted,
    ProcessLauncher,
    Report,
)
from freehold.testing.fake_engine_adapter import FAKE_ENGINE
from waiting import until, wait_until

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleeper = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
subprocess.Popen(sleeper)
subprocess.Popen(sleeper, start_new_session=True)
print("all here", flush=True)
time.sleep(600)
"""
CONTROLLER = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], str(Path(sys.argv[2]).parents[1])]
from test_launch_process import plan_of, settings_in
from freehold.fleet.processes.launch_process import ProcessLauncher

async def main():
    launcher = ProcessLauncher(settings_in(Path(sys.argv[1])))
    launcher.launch(plan_of(sys.argv[3]), lambda report: print(report, flush=True))
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def plan_of(code: str) -> ReplicaPlan:
    """Return a replica whose engine is a Python program."""

    def command(_placement: Placement) -> Command:
        return Command(argv=(sys.executable, "-u", "-c", code), env={"ADDED": "yes"})

    return ReplicaPlan(id="m-0", model="m", engine=replace(FAKE_ENGINE, command=command))


def settings_in(path: Path) -> FleetSettings:
    return FleetSettings(log_dir=path, stop_grace_s=1.0, kill_margin_s=1.0)


class Launched:
    """One launch and all that was reported of it."""

    def __init__(self, tmp_path: Path, code: str) -> None:
        self.reports: list[Report] = []
        self.settings = settings_in(tmp_path / "logs")
        self.launcher = ProcessLauncher(self.settings)
        self.launch = self.launcher.launch(plan_of(code), self.reports.append)

    @property
    def token(self) -> str:
        return str(self.launch._token)  # type: ignore[attr-defined]

    @property
    def last(self) -> Report | None:
        return self.reports[-1] if self.reports else None

    def alive(self) -> list[int]:
        return proc_files.carriers(MARK, self.token)

    async def started(self) -> EngineStarted:
        await until(lambda: self.reports, what="a report")
        first = self.reports[0]
        assert isinstance(first, EngineStarted)
        return first

    async def all_here(self) -> None:
        """Wait until the stubborn engine, its two children and the minder run."""
        log = log_path(self.settings.log_dir, "m-0")
        await until(lambda: log.exists() and b"all here" in log.read_bytes(), what="the engine")
        await until(lambda: len(self.alive()) == 4, what="its children")

    async def exited(self) -> EngineExited:
        await until(lambda: isinstance(self.last, EngineExited), what="the end")
        assert isinstance(self.last, EngineExited)
        return self.last


def launched(tmp_path: Path, code: str, story: Callable[[Launched], Awaitable[None]]) -> None:
    """Tell a story about a launch; whatever happens in it, nothing is left of it."""

    async def run() -> None:
        one = Launched(tmp_path, code)
        try:
            await story(one)
        finally:
            await one.launcher.close()
            assert not one.alive()

    asyncio.run(run())


def test_a_launch_tells_its_start_and_its_end(tmp_path: Path) -> None:
    async def story(one: Launched) -> None:
        started = await one.started()
        assert started.url.startswith("http://127.0.0.1:")
        exited = await one.exited()
        assert (exited.code, exited.tail, exited.failure) == (7, ("yes", "bye"), "")

    code = "import os; print(os.environ['ADDED']); print('bye'); raise SystemExit(7)"
    launched(tmp_path, code, story)


def test_a_stop_before_the_minder_is_up_is_not_lost(tmp_path: Path) -> None:
    async def story(one: Launched) -> None:
        one.launch.stop(1.0)
        assert (await one.exited()).code == -signal.SIGTERM

    launched(tmp_path, "import time; time.sleep(600)", story)


def test_a_kill_needs_no_minder_and_takes_grandchildren_that_hid(tmp_path: Path) -> None:
    async def story(one: Launched) -> None:
        await one.all_here()
        one.launch.kill()
        exited = await one.exited()
        assert exited.failure.startswith("its minder process died")
        assert one.alive() == []

    launched(tmp_path, STUBBORN, story)


def test_a_minder_that_hangs_is_no_obstacle_to_a_kill(tmp_path: Path) -> None:
    async def story(one: Launched) -> None:
        await one.all_here()
        minder = next(pid for pid in one.alive() if b"freehold.fleet.processes.minder" in _cmdline(pid))
        os.kill(minder, signal.SIGSTOP)
        one.launch.stop(0.1)
        one.launch.kill()
        await one.exited()
        assert one.alive() == []

    launched(tmp_path, STUBBORN, story)


def test_closing_the_launcher_ends_what_runs_within_the_grace(tmp_path: Path) -> None:
    async def story(one: Launched) -> None:
        await one.all_here()
        await one.launcher.close()
        assert one.alive() == []
        assert isinstance(one.last, EngineExited)

    launched(tmp_path, STUBBORN, story)


def test_nothing_outlives_a_controller_that_is_killed(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", CONTROLLER, str(tmp_path), str(Path(__file__).parent), STUBBORN]
    mark = f"controller-{os.getpid()}"
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, env={**os.environ, "LC_TEST_MARK": mark}
    ) as controller:
        assert controller.stdout is not None
        controller.stdout.readline()
        try:
            wait_until(lambda: len(proc_files.carriers("LC_TEST_MARK", mark)) == 5, what="all processes")
        finally:
            controller.kill()
        wait_until(lambda: not proc_files.carriers("LC_TEST_MARK", mark), timeout_s=2.0, what="grace + 1 s")


def test_a_pid_that_is_somebody_elses_by_now_is_not_signalled() -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        mark = proc_files.mark(stranger.pid)
        assert mark is not None
        assert not proc_files.kill_group(stranger.pid, mark.start_ticks - 1)
        older = proc_files.ProcessMark(mark.pid, mark.start_ticks - 1, mark.boot_id)
        proc_files.end(older, signal.SIGKILL)
        assert proc_files.is_alive(mark)
        assert not proc_files.is_alive(older)
        proc_files.end(mark, signal.SIGKILL)
        assert stranger.wait(5) == -signal.SIGKILL


def test_a_machine_without_a_free_port_says_so(tmp_path: Path) -> None:
    launcher = ProcessLauncher(settings_in(tmp_path))
    launcher._ports._range = range(1, 2)
    launcher._ports._used.append(1)
    with pytest.raises(Temporary, match="no free port"):
        launcher.launch(plan_of(""), print)


def test_files_of_a_command_are_in_the_replicas_own_folder_before_it_starts(tmp_path: Path) -> None:
    show = "import os, sys, pathlib; p = pathlib.Path(sys.argv[1]); print(p.read_text(), oct(p.stat().st_mode), os.environ['AT'])"

    def command(_placement: Placement) -> Command:
        return Command(
            argv=(sys.executable, "-c", show, f"{FOLDER}/engine.yaml"),
            env={"AT": f"{FOLDER}/x"},
            files={"engine.yaml": "a: ä\n"},
            links={"my-model": str(tmp_path)},
        )

    plan = ReplicaPlan(id="org/m-0", model="m", engine=replace(FAKE_ENGINE, command=command))
    settings = settings_in(tmp_path / "logs")
    reports: list[Any] = []

    async def story() -> None:
        reports.clear()
        launcher = ProcessLauncher(settings)
        launcher.launch(plan, reports.append)
        await until(
            lambda: any(isinstance(report, EngineExited) for report in reports), timeout_s=20, what="the end"
        )
        await launcher.close()

    asyncio.run(story())
    asyncio.run(story())  # again, over what the first start left
    folder = files_dir(settings.log_dir, plan.id)
    assert (folder / "my-model").readlink() == tmp_path
    assert folder.parent == settings.log_dir
    assert reports[-1].tail == ("a: ä", f" 0o100600 {folder}/x")


def test_a_folder_that_cannot_be_made_is_the_reason(tmp_path: Path) -> None:
    def command(_placement: Placement) -> Command:
        return Command(argv=(sys.executable, "-c", "print(1)"), files={"engine.yaml": "a: 1"})

    plan = ReplicaPlan(id="m-0", model="m", engine=replace(FAKE_ENGINE, command=command))
    settings = settings_in(tmp_path / "logs")
    reports: list[Any] = []
    settings.log_dir.mkdir()
    files_dir(settings.log_dir, plan.id).write_text("in the way")

    async def story() -> None:
        reports.clear()
        launcher = ProcessLauncher(settings)
        launcher.launch(plan, reports.append)
        await until(
            lambda: any(isinstance(report, EngineExited) for report in reports), timeout_s=20, what="the end"
        )
        await launcher.close()

    asyncio.run(story())
    assert reports[-1].code == 127
    assert "File exists" in reports[-1].tail[-1]


def _cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
