"""The agent's own process and loop with its files: an incident is kept, taken up again, set healthy; a disk that fails stops nothing."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from freehold.core.clock import monotonic_s, wall_s
from freehold.health.agent import process as agent_module
from freehold.health.agent.history_file import HistoryFile
from freehold.health.agent.messages import HealthSettings
from freehold.health.agent.process import NodeAgent
from freehold.health.agent.runner import Source
from freehold.health.agent.state_files import StateFiles, read_snapshot
from freehold.health.evidence.kernel_signs import PastFault
from freehold.health.incidents.history import FILE_NAME, History, Mark
from freehold.health.model.snapshot import FILE_NAME as SNAPSHOT
from freehold.health.model.snapshot import HealthSnapshot, IncidentState
from freehold.health.model.view import Kernel, KernelLine
from healthy_node import healthy_view
from live_node import OFF_BUS, SERIAL, UUID, xid
from waiting import until, wait_until

pytestmark = pytest.mark.timeout(60)


class Log:
    """A kernel's log that outlives agents; each one is given all of it at its start."""

    def __init__(self) -> None:
        self.lines: list[KernelLine] = []

    def say(self, text: str) -> None:
        self.lines.append(KernelLine(at_s=wall_s(), text=text, sequence=len(self.lines) + 1))

    def sources(self) -> list[Source]:
        given = 0

        async def kernel() -> Kernel:
            nonlocal given
            lines, given = tuple(self.lines[given:]), len(self.lines)
            return Kernel(lines=lines)

        async def gpus() -> Any:
            return healthy_view(0).gpus

        async def close() -> None:
            """Nothing to close."""

        return [
            Source(part="gpus", read=gpus, close=close, period_s=0.5),
            Source(part="kernel", read=kernel, close=close, period_s=0.5),
        ]


@contextmanager
def scripted(log: Log, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(agent_module, "sources_for", lambda *_: log.sources())
        yield


async def running(folder: Path, doing: Any) -> None:
    """Run an agent while something is done beside it."""
    agent = NodeAgent(HealthSettings(node="n", state_dir=str(folder)), with_engines=False)
    await agent.open()
    task = asyncio.create_task(agent.runner.run())
    try:
        await doing(lambda: read_snapshot(folder))
    finally:
        task.cancel()
        await asyncio.wait({task})
        await agent.close()


def test_an_incident_is_kept_taken_up_again_by_the_next_agent_and_set_healthy_in_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, ids = Log(), set()

    async def fault(told: Any) -> None:
        log.say(xid(79, 0, OFF_BUS))
        await until(lambda: told() and told().incidents and told().incidents[0].hypothesis == "hardware")
        await until(lambda: HistoryFile(tmp_path / FILE_NAME).load().past)
        ids.add(told().incidents[0].id)

    async def restart(told: Any) -> None:
        pid_s = told().at_s
        await until(lambda: told().at_s > pid_s + 1 and told().incidents[0].findings)
        assert {one.id for one in told().incidents} == ids
        assert len(HistoryFile(tmp_path / FILE_NAME).load().past) == 1
        mark = Mark(set_healthy_s=wall_s(), subject=SERIAL[0], component=UUID[0], by="ann")
        HistoryFile(tmp_path / FILE_NAME).mark(mark)
        await until(lambda: told().marked_s == mark.set_healthy_s)
        await until(lambda: told().incidents[0].state is IncidentState.OVER)
        assert told().incidents[0].set_healthy_by == "ann"

    with scripted(log, monkeypatch):
        asyncio.run(running(tmp_path, fault))
        asyncio.run(running(tmp_path, restart))
    (past,) = HistoryFile(tmp_path / FILE_NAME).load().past
    assert (past.subject, past.signature, past.hypothesis) == (SERIAL[0], "xid 79", "hardware")
    assert past.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


# --- a disk that does not do what it should ---------------------------------------------------------------------------


def past(at_s: float) -> PastFault:
    return PastFault(at_s=at_s, subject="gpu:1", signature="xid 119")


def test_lines_wait_for_a_full_disk_and_are_written_once_it_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True
    really = os.fsync

    def fsync(descriptor: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        really(descriptor)

    monkeypatch.setattr("freehold.health.agent.history_file.os.fsync", fsync)

    async def main() -> None:
        nonlocal full
        books = StateFiles(tmp_path, on_history=bool)
        assert await books.open() == (None, History())
        books.turn([past(1.0)])
        await books.close()
        books.turn([past(2.0)])
        await books.close()
        assert HistoryFile(tmp_path / FILE_NAME).load().past == ()
        full = False
        books.turn([])
        await books.close()

    asyncio.run(main())
    assert [one.at_s for one in HistoryFile(tmp_path / FILE_NAME).load().past] == [1.0, 2.0]


def test_a_torn_history_and_a_torn_snapshot_cost_what_was_torn(tmp_path: Path) -> None:
    keeper = HistoryFile(tmp_path / FILE_NAME)
    keeper.add([past(1.0), past(2.0)], now_s=3.0)
    keeper.path.write_bytes(keeper.path.read_bytes()[:-20] + b"\n\xff\xfe{]\n")
    (tmp_path / SNAPSHOT).write_bytes(b'{"at_s": 1.0, "find')

    async def main() -> None:
        books = StateFiles(tmp_path, on_history=bool)
        found = await books.open()
        assert found is not None
        before, history = found
        assert before is None
        assert [one.at_s for one in history.past] == [1.0]
        books.turn([past(5.0)])
        await books.close()

    asyncio.run(main())
    assert [one.at_s for one in keeper.load().past] == [1.0, 5.0]


def test_a_history_that_is_no_file_is_told_and_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()

    async def main() -> None:
        books = StateFiles(tmp_path, on_history=bool)
        assert await books.open() == (None, History())
        for _ in range(3):
            books.turn([past(1.0)])
            await books.close()

    asyncio.run(main())


def test_who_else_writes_is_heard(tmp_path: Path) -> None:
    heard: list[History] = []

    async def main() -> None:
        books = StateFiles(tmp_path, on_history=heard.append)
        await books.open()
        books.turn([past(1.0)])
        await books.close()
        HistoryFile(tmp_path / FILE_NAME).mark(Mark(set_healthy_s=2.0, by="ann"))
        books.turn([])
        await books.close()
        books.turn([])
        await books.close()

    asyncio.run(main())
    assert [len(one.marks) for one in heard] == [0, 1]


@contextmanager
def agent_process(settings: HealthSettings, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    path = folder / "settings.json"
    path.write_bytes(msgspec.json.encode(settings))
    command = [sys.executable, "-m", "freehold.health.agent.process", "--settings", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_disk_that_never_answers_delays_the_start_by_seconds_and_the_end_not_at_all(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.mkfifo(state / FILE_NAME)  # whoever opens it waits for ever
    settings = HealthSettings(node="n", state_dir=str(state), gpu="off", log_path=str(tmp_path / "log"))
    with agent_process(settings, tmp_path) as process:
        wait_until(lambda: read_snapshot(state), timeout_s=40, what="a snapshot all the same")
        told = read_snapshot(state)
        assert isinstance(told, HealthSnapshot)
        assert told.incidents == () or told.incidents[0].start_s >= told.started_s - 1
        began_s = monotonic_s()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0
        assert monotonic_s() - began_s < 8
    assert "history not read" in (tmp_path / "log").read_text()


def test_the_real_agent_carries_on_a_standing_incident_and_names_its_boot(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    settings = HealthSettings(node="n", state_dir=str(state), gpu="off", log_path=str(tmp_path / "log"))
    with agent_process(settings, tmp_path) as process:
        wait_until(lambda: read_snapshot(state), timeout_s=40, what="a snapshot")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0
    told = read_snapshot(state)
    assert told is not None
    assert told.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    text = (state / "health.prom").read_text()
    assert "freehold_health_diagnoses_total" in text
    assert "mistake of our own" not in (tmp_path / "log").read_text()
    assert json.loads((state / SNAPSHOT).read_bytes())["incidents"] is not None
