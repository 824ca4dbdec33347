"""What disk reader and storage_latency say of a real block device that is well, slow, failing, hung or throttled.

Reads come ten times as often as in service, so that thirty of them take seconds; benchmarks/health_disk.py measures at one a second.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faulty_disk import FaultyDisk, blkio_cgroup, may_mount, throttled, why_not
from freehold.core.findings import Action, Finding, Verdict
from freehold.health.checks.storage_latency import PROBE
from freehold.health.collectors.disks import PROBE_FILE, DiskOptions, DiskReader
from freehold.health.model.probe import Expected
from freehold.health.model.view import State, View, Volume
from waiting import wait_until

REASON = why_not()
with_a_faulty_disk = pytest.mark.skipif(bool(REASON), reason=f"a faulty disk {REASON}")
BINDFS = shutil.which("bindfs")
with_bindfs = pytest.mark.skipif(
    not BINDFS or not may_mount(), reason="needs root and bindfs (Debian: bindfs)"
)
DEADLINE_S = 1.5
LOOK_S = 0.1


class Watch:
    """Looks at a volume again and again, and keeps what it saw."""

    def __init__(self, path: Path) -> None:
        options = DiskOptions(interval_s=0.1, size_bytes=4 << 20, deadline_s=DEADLINE_S, smart=False)
        self.reader = DiskReader(str(path), options)
        self.views: list[View] = []
        self.longest_s = 0.0
        self._due_s = 0.0

    def look(self) -> Finding:
        began_s = time.monotonic()
        if began_s >= self._due_s:
            self._due_s = began_s + LOOK_S
            volume = self.reader.read()
            self.longest_s = max(self.longest_s, time.monotonic() - began_s)
            self.views.append(View(at_s=time.time(), monotonic_s=time.monotonic(), volumes=(volume,)))
        recent = [view for view in self.views if view.monotonic_s > began_s - PROBE.window_s]
        return PROBE.check(recent, Expected())[0]

    def until(self, wanted: Callable[[Finding], bool], *, timeout_s: float = 20.0) -> Finding:
        def found() -> Finding | None:
            finding = self.look()
            return finding if wanted(finding) else None

        return wait_until(found, timeout_s=timeout_s, what=f"another finding than {self.look()}")

    @property
    def newest(self) -> Volume:
        volumes = self.views[-1].volumes
        assert volumes
        return volumes[0]


@pytest.fixture
def watch() -> Iterator[Callable[[Path], Watch]]:
    made: list[Watch] = []

    def make(path: Path) -> Watch:
        made.append(Watch(path))
        return made[-1]

    yield make
    for each in made:
        each.reader.close()
    wait_until(lambda: not any(each.reader.pids for each in made), what="the readers' end")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@with_a_faulty_disk
def test_a_disk_that_is_well_is_never_alarmed(tmp_path: Path, watch: Callable[[Path], Watch]) -> None:
    with FaultyDisk(tmp_path) as disk:
        seen = watch(disk.path)
        seen.until(lambda finding: len(seen.newest.reads_s) > 0)
        said = set()

        def enough() -> bool:
            said.add(seen.look().verdict)
            return (
                len([read for view in seen.views for volume in view.volumes or () for read in volume.reads_s])
                > 60
            )

        wait_until(enough, timeout_s=20, what="sixty reads")
        assert said == {Verdict.UNKNOWN, Verdict.HEALTHY}
        assert seen.newest.device == disk.device.removeprefix("/dev/")
        assert seen.newest.file_system == "ext4"
        seen.reader.close()


@with_a_faulty_disk
def test_reads_of_80_ms_are_the_disks_doing(tmp_path: Path, watch: Callable[[Path], Watch]) -> None:
    with FaultyDisk(tmp_path, read_delay_ms=80) as disk:
        seen = watch(disk.path)
        finding = seen.until(lambda finding: finding.verdict is not Verdict.UNKNOWN)
        assert (finding.verdict, finding.reason) == (Verdict.DEGRADED, "slow_disk")
        by_source = {evidence.source: evidence.value for evidence in finding.evidence}
        assert 80 <= float(by_source["own read"].split()[0]) < 200
        seen.reader.close()


@with_a_faulty_disk
def test_a_disk_that_becomes_slow_is_found_and_a_disk_that_is_quick_again_is_well(
    tmp_path: Path, watch: Callable[[Path], Watch]
) -> None:
    with FaultyDisk(tmp_path) as disk:
        seen = watch(disk.path)
        seen.until(lambda finding: finding.verdict is Verdict.HEALTHY)
        disk.slow(on=True)
        finding = seen.until(lambda finding: finding.verdict is not Verdict.HEALTHY)
        assert finding.reason == "slow_disk"
        disk.slow(on=False)
        seen.until(lambda finding: finding.verdict is Verdict.HEALTHY)
        seen.reader.close()


@with_a_faulty_disk
def test_reads_that_fail_are_told_by_their_errno(tmp_path: Path, watch: Callable[[Path], Watch]) -> None:
    with FaultyDisk(tmp_path) as disk:
        seen = watch(disk.path)
        seen.until(lambda _: bool(seen.newest.reads_s))
        disk.fail(on=True)
        finding = seen.until(lambda finding: finding.reason == "read_errors", timeout_s=5)
        assert finding.verdict is Verdict.UNHEALTHY
        assert finding.action is Action.INSPECT_HARDWARE
        assert "EIO" in finding.message
        seen.reader.close()


@with_a_faulty_disk
def test_a_hung_disk_is_told_within_the_deadline_and_holds_nobody_up(
    tmp_path: Path, watch: Callable[[Path], Watch]
) -> None:
    with FaultyDisk(tmp_path) as disk:
        seen = watch(disk.path)
        seen.until(lambda finding: finding.verdict is Verdict.HEALTHY)
        (first,) = seen.reader.pids
        with disk.hung():
            began_s = time.monotonic()
            finding = seen.until(
                lambda finding: finding.verdict is Verdict.UNHEALTHY, timeout_s=DEADLINE_S + 2
            )
            assert finding.reason == "hung"
            assert time.monotonic() - began_s < DEADLINE_S + 1
            assert seen.newest.state is State.HUNG
            assert wait_until(lambda: _state(first) in "DZ", what="the child to be stuck")
            seen.until(lambda _: len(seen.reader.pids) == 2, timeout_s=2 * DEADLINE_S)
            # Both are stuck now, and no third is started.
            stuck_s = time.monotonic() + 3 * DEADLINE_S
            seen.until(lambda _: time.monotonic() > stuck_s)
            assert first in seen.reader.pids
            assert len(seen.reader.pids) == 2
            assert seen.longest_s < 0.5
        seen.until(lambda finding: finding.verdict is Verdict.HEALTHY)
        assert first not in seen.reader.pids
        seen.reader.close()


@with_a_faulty_disk
@pytest.mark.skipif(blkio_cgroup() is None, reason="no cgroup here can limit reads (blkio of v1 or io of v2)")
def test_a_cgroups_limit_is_told_from_a_slow_disk(tmp_path: Path, watch: Callable[[Path], Watch]) -> None:
    with FaultyDisk(tmp_path) as disk:
        seen = watch(disk.path)
        seen.until(lambda finding: finding.verdict is Verdict.HEALTHY)
        with throttled(disk.device, seen.reader.pids, reads_per_s=6):
            finding = seen.until(lambda finding: finding.verdict is not Verdict.HEALTHY, timeout_s=30)
            finding = seen.until(lambda finding: finding.reason == "slow_throttled", timeout_s=15)
            assert finding.action is Action.FIX_CONFIGURATION
            assert any("iops" in evidence.value for evidence in finding.evidence)
        seen.reader.close()


@contextlib.contextmanager
def user_space(folder: Path, *flags: str) -> Iterator[tuple[Path, int]]:
    """Give a folder that a process of ours answers for (bindfs, a FUSE file system), and that process."""
    source, mount = folder / "source", folder / "mount"
    for made in (source, mount):
        made.mkdir()
    server = subprocess.Popen(["bindfs", "-f", *flags, str(source), str(mount)])
    try:
        wait_until(mount.is_mount, what="bindfs's mount")
        yield mount, server.pid
    finally:
        server.send_signal(signal.SIGCONT)
        wait_until(lambda: _unmounted(mount), what="bindfs's mount to go")
        server.wait(timeout=10)


def _unmounted(mount: Path) -> bool:
    return (
        subprocess.run(["umount", str(mount)], check=False, capture_output=True, timeout=10).returncode == 0
        or not mount.is_mount()
    )


@with_bindfs
def test_a_slow_user_space_file_system_is_told_from_a_disk(
    tmp_path: Path, watch: Callable[[Path], Watch]
) -> None:
    # 20 kB/s are five of our reads, and we ask for ten.
    with user_space(tmp_path, "--read-rate=20000") as (mount, _):
        seen = watch(mount)
        finding = seen.until(lambda finding: finding.verdict is not Verdict.UNKNOWN, timeout_s=30)
        finding = seen.until(lambda finding: finding.verdict is not Verdict.HEALTHY, timeout_s=15)
        assert finding.reason == "slow_user_space"
        assert finding.component == f"storage:{mount}"  # no disk of this node
        assert "storage behind a program: fuse" in finding.message
        assert seen.newest.device == ""
        assert seen.newest.device_ticks_s.state is State.UNSUPPORTED
        seen.reader.close()


@with_bindfs
def test_a_stopped_user_space_file_system_is_told_from_a_hung_disk(
    tmp_path: Path, watch: Callable[[Path], Watch]
) -> None:
    with user_space(tmp_path) as (mount, server):
        seen = watch(mount)
        seen.until(lambda finding: finding.verdict is Verdict.HEALTHY)
        os.kill(server, signal.SIGSTOP)
        finding = seen.until(lambda finding: finding.verdict is Verdict.UNHEALTHY, timeout_s=DEADLINE_S + 2)
        assert finding.reason == "hung_user_space"
        assert finding.action is Action.FIX_CONFIGURATION
        os.kill(server, signal.SIGCONT)
        seen.until(lambda finding: finding.verdict is Verdict.HEALTHY)
        seen.reader.close()


def test_memory_is_no_disk_and_gets_no_file(watch: Callable[[Path], Watch]) -> None:
    shm = Path("/dev/shm")
    if not shm.is_mount():
        pytest.skip("needs a tmpfs at /dev/shm")
    seen = watch(shm)
    finding = seen.until(lambda finding: finding.reason == "cannot_read")
    assert finding.verdict is Verdict.UNKNOWN
    assert "tmpfs is memory" in finding.message
    seen.until(lambda _: seen.newest.free_bytes.state is State.OK)
    assert not (shm / PROBE_FILE).exists()


def test_a_folder_that_is_not_there_is_absent_and_unknown(
    tmp_path: Path, watch: Callable[[Path], Watch]
) -> None:
    seen = watch(tmp_path / "nothing")
    finding = seen.until(lambda finding: finding.reason == "cannot_read")
    assert finding.verdict is Verdict.UNKNOWN
    assert seen.newest.state is State.ABSENT
    assert "ENOENT" in finding.message


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    # A process that starts a reader, says the child's pid and dies without a word to it.
    code = (
        "import os,sys,time\n"
        "from freehold.health.collectors.disks import DiskReader, DiskOptions\n"
        f"reader = DiskReader({str(tmp_path)!r}, DiskOptions(size_bytes=1 << 20, smart=False))\n"
        "reader.read(); print(*reader.pids, flush=True); os._exit(0)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    child = Path(f"/proc/{int(said.stdout)}")
    wait_until(lambda: not child.exists() or _state(int(child.name)) == "Z", what="the child's end")


def test_a_child_that_will_not_die_is_abandoned_and_replaced_once(tmp_path: Path) -> None:
    """SIGSTOP stands for a read that does not end, and a kill that does nothing for state D: that needs no root."""
    options = DiskOptions(
        interval_s=0.05, size_bytes=1 << 20, deadline_s=0.3, smart=False, kill=lambda _pid, _signal: None
    )
    reader = DiskReader(str(tmp_path), options)
    try:
        wait_until(lambda: reader.read().reads_s, what="a read")
        (first,) = reader.pids
        os.kill(first, signal.SIGSTOP)
        stopped = [first]
        # A stopped child says nothing; what it had begun waits, or it is silent for too long.
        second = wait_until(lambda: _other(reader, first), timeout_s=30, what="a replacement")
        wait_until(lambda: reader.read().state is State.OK, timeout_s=10, what="the replacement to read")
        stopped.append(second)
        os.kill(second, signal.SIGSTOP)
        wait_until(lambda: reader.read().state is State.HUNG, timeout_s=30, what="the second to be given up")
        for _ in range(50):
            reader.read()
        assert sorted(reader.pids) == sorted(stopped)
        os.kill(first, signal.SIGKILL)
        wait_until(
            lambda: reader.read().state is State.OK, timeout_s=10, what="a child in the place of the first"
        )
    finally:
        for pid in reader.pids:
            os.kill(pid, signal.SIGKILL)
        reader.close()
        wait_until(lambda: not reader.pids, what="the children's end")


def _other(reader: DiskReader, first: int) -> int:
    reader.read()
    return next((pid for pid in reader.pids if pid != first), 0)
