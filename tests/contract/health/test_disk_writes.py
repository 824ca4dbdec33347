"""The write probe on real volumes: one that is well, one that is full, one mounted read-only, one that becomes so, and one forbidden."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faulty_disk import SBIN, FaultyDisk, may_mount, why_not
from freehold.core.findings import Finding, Verdict
from freehold.health.checks.storage_write import PROBE
from freehold.health.collectors.disks import WRITE_FILE, DiskOptions, DiskReader
from freehold.health.model.probe import Expected
from freehold.health.model.view import State, View, Volume
from waiting import wait_until

REASON = why_not()
with_a_faulty_disk = pytest.mark.skipif(bool(REASON), reason=f"a faulty disk {REASON}")
with_mounts = pytest.mark.skipif(not may_mount(), reason="needs root with the right to mount (CAP_SYS_ADMIN)")


LOOK_S = 0.1


class Watch:
    """Looks at a volume again and again, thirty times as often as in service."""

    def __init__(self, path: Path, *, write_interval_s: float = 0.1) -> None:
        options = DiskOptions(
            size_bytes=1 << 20, interval_s=0.1, smart=False, write_interval_s=write_interval_s
        )
        self.reader = DiskReader(str(path), options)
        self.views: list[View] = []

    def look(self) -> Finding:
        now_s = time.monotonic()
        if not self.views or now_s - self.views[-1].monotonic_s >= LOOK_S:
            self.views.append(View(at_s=time.time(), monotonic_s=now_s, volumes=(self.reader.read(),)))
        recent = [view for view in self.views if view.monotonic_s > now_s - PROBE.window_s]
        (finding,) = PROBE.check(recent, Expected())
        return finding

    def until(self, reason: str, *, timeout_s: float = 20.0) -> Finding:
        def found() -> Finding | None:
            finding = self.look()
            return finding if finding.reason == reason else None

        return wait_until(found, timeout_s=timeout_s, what=f"{reason}, not {self.look()}")

    @property
    def volume(self) -> Volume:
        volumes = self.views[-1].volumes
        assert volumes
        return volumes[0]


@pytest.fixture
def watch() -> Iterator[Callable[..., Watch]]:
    made: list[Watch] = []

    def make(path: Path, **options: float) -> Watch:
        made.append(Watch(path, **options))
        return made[-1]

    yield make
    for each in made:
        each.reader.close()
    wait_until(lambda: not any(each.reader.pids for each in made), what="the readers' end")


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, timeout=20, capture_output=True, env={"PATH": SBIN})


@contextmanager
def mounted(path: Path, *arguments: str) -> Iterator[Path]:
    """Give a mount at `path`, taken away again whatever happens."""
    path.mkdir()
    mount(*arguments, str(path))
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=20, env={"PATH": SBIN})


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def test_a_volume_that_is_well_is_written_and_one_file_of_a_block_stays(
    tmp_path: Path, watch: Callable[..., Watch]
) -> None:
    seen = watch(tmp_path)
    finding = seen.until("as_usual")
    assert finding.verdict is Verdict.HEALTHY
    assert seen.volume.wrote
    assert seen.volume.source
    seen.reader.close()
    wait_until(lambda: not seen.reader.pids, what="the reader's end")
    assert (tmp_path / WRITE_FILE).stat().st_size == 4096


def test_where_it_is_switched_off_nothing_is_written(tmp_path: Path, watch: Callable[..., Watch]) -> None:
    seen = watch(tmp_path, write_interval_s=0.0)
    wait_until(
        lambda: seen.look() and seen.volume.total_bytes.state is State.OK, what="the reader's first word"
    )
    assert seen.look().reason == "off"
    assert not (tmp_path / WRITE_FILE).exists()


@with_mounts
def test_a_full_volume_is_full_until_there_is_room_again(tmp_path: Path, watch: Callable[..., Watch]) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=256k", "tmpfs") as path:
        seen = watch(path)
        seen.until("as_usual")
        ballast = path / "ballast"
        fill(ballast)
        finding = seen.until("full")
        assert finding.verdict is Verdict.UNHEALTHY
        assert finding.evidence[0].value == "ENOSPC"
        ballast.unlink()
        seen.until("as_usual")
        seen.reader.close()


@with_mounts
def test_a_volume_that_becomes_read_only_is_no_full_one(tmp_path: Path, watch: Callable[..., Watch]) -> None:
    with mounted(tmp_path / "volume", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as path:
        seen = watch(path)
        seen.until("as_usual")
        mount("-o", "remount,bind,ro", str(path))
        finding = seen.until("read_only")
        assert finding.verdict is Verdict.UNHEALTHY
        assert seen.volume.read_only == "mount"
        mount("-o", "remount,bind,rw", str(path))
        seen.until("as_usual")
        seen.reader.close()


@with_mounts
def test_a_read_only_bind_mount_is_told_as_mounted_so(tmp_path: Path, watch: Callable[..., Watch]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with mounted(tmp_path / "bound", "--bind", str(source)) as path:
        mount("-o", "remount,bind,ro", str(path))
        seen = watch(path)
        finding = seen.until("mounted_read_only")
        assert finding.verdict is Verdict.NOT_APPLICABLE
        assert not seen.volume.wrote
        seen.reader.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_unknown_and_not_sick(
    tmp_path: Path, watch: Callable[..., Watch]
) -> None:
    tmp_path.chmod(0o500)
    try:
        assert watch(tmp_path).until("cannot_write").verdict is Verdict.UNKNOWN
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_is_gone_is_unknown(tmp_path: Path, watch: Callable[..., Watch]) -> None:
    assert watch(tmp_path / "gone").until("cannot_write").verdict is Verdict.UNKNOWN


@with_a_faulty_disk
def test_a_disk_that_is_slow_to_write_is_found_though_it_reads_as_ever(
    tmp_path: Path, watch: Callable[..., Watch]
) -> None:
    with FaultyDisk(tmp_path, write_delay_ms=600) as disk:
        seen = watch(disk.path)
        finding = seen.until("slow_write", timeout_s=60)
        assert finding.verdict in {Verdict.DEGRADED, Verdict.UNHEALTHY}
        reads = sorted(
            took_s for view in seen.views for volume in view.volumes or () for took_s in volume.reads_s
        )
        assert reads[len(reads) // 2] < 0.1
        seen.reader.close()


@with_a_faulty_disk
def test_a_file_system_that_gave_its_journal_up_is_read_only_by_itself(
    tmp_path: Path, watch: Callable[..., Watch]
) -> None:
    with FaultyDisk(tmp_path) as disk:
        seen = watch(disk.path)
        seen.until("as_usual")
        disk.fail_writes()
        finding = seen.until("read_only", timeout_s=30)
        assert finding.verdict is Verdict.UNHEALTHY
        assert seen.volume.read_only == "file_system", Path("/proc/self/mountinfo").read_text()
        assert {each.write_error for view in seen.views for each in view.volumes or ()} <= {
            "",
            "EIO",
            "EROFS",
        }
        seen.reader.close()


@with_a_faulty_disk
def test_a_write_that_does_not_end_holds_up_no_look_and_is_told(
    tmp_path: Path, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freehold.health.checks.storage_write.HUNG_S", 2.0)  # half a minute in service
    with FaultyDisk(tmp_path) as disk:
        seen = watch(disk.path)
        seen.until("as_usual")
        with disk.hung():
            assert seen.until("hung_write").verdict is Verdict.UNHEALTHY
        seen.until("as_usual", timeout_s=30)
        seen.reader.close()
