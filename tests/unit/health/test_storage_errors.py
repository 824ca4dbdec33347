"""The probe on disks: from the kernel's lines and SMART; the watched volume matters more than any other disk."""

import pytest

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.checks.storage_errors import PROBE, same_disk
from freehold.health.model.probe import Expected
from freehold.health.model.view import Kernel, KernelLine, Reading, State, View, Volume

NOW_S = 1_000_000.0
IO_ERROR = "I/O error, dev nvme0n1, sector {} op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2"


def told(text: str, ago_s: float = 10.0) -> KernelLine:
    return KernelLine(at_s=NOW_S - ago_s, text=text)


def volume(device: str = "/dev/nvme0n1p2", **smart: float) -> Volume:
    readings = {name: Reading(value=value) for name, value in smart.items()}
    return Volume(path="/models", device=device, smart=readings)


def view(*lines: KernelLine, volumes: tuple[Volume, ...] | None = (volume(),), **kernel: object) -> View:
    return View(at_s=NOW_S, monotonic_s=1.0, volumes=volumes, kernel=Kernel(lines=lines, **kernel))


def by_component(*views: View) -> dict[str, Finding]:
    found = PROBE.check(views, Expected())
    assert found
    assert all(finding.reason in PROBE.reasons and finding.message for finding in found)
    assert all(finding.action is Action.NONE for finding in found if finding.verdict is Verdict.HEALTHY)
    return {finding.component: finding for finding in found}


def model_disk(*lines: KernelLine) -> tuple[Verdict, str]:
    found = by_component(view(*lines))["disk:/models"]
    return found.verdict, found.reason


def test_a_quiet_log_is_healthy() -> None:
    assert model_disk() == (Verdict.HEALTHY, "no_errors")


@pytest.mark.parametrize(
    ("text", "verdict", "reason"),
    [
        (IO_ERROR.format(1), Verdict.DEGRADED, "io_error"),
        ("critical medium error, dev nvme0n1, sector 7 op 0x0:(READ)", Verdict.UNHEALTHY, "medium_error"),
        ("nvme nvme0: I/O 23 QID 4 timeout, reset controller", Verdict.DEGRADED, "timeout"),
        ("nvme nvme0: Disabling device after reset failure: -19", Verdict.UNHEALTHY, "device_gone"),
        ("EXT4-fs (nvme0n1p2): Remounting filesystem read-only", Verdict.UNHEALTHY, "read_only"),
        ("EXT4-fs error (device nvme0n1p2): ext4_lookup:1: x", Verdict.DEGRADED, "file_system_error"),
        ("XFS (nvme0n1p2): Filesystem has been shut down due to log error (0x2).", Verdict.UNHEALTHY, "file_system_error"),
    ],
)  # fmt: skip
def test_each_kind_of_line(text: str, verdict: Verdict, reason: str) -> None:
    assert model_disk(told(text)) == (verdict, reason)


def test_many_errors_or_again_are_worse_than_one() -> None:
    assert model_disk(*(told(IO_ERROR.format(n)) for n in range(9))) == (Verdict.DEGRADED, "io_error")
    assert model_disk(*(told(IO_ERROR.format(n)) for n in range(10))) == (Verdict.UNHEALTHY, "io_errors")
    assert model_disk(told(IO_ERROR.format(1), 5000), told(IO_ERROR.format(2)))[1] == "io_errors"
    timeout = "nvme nvme0: I/O 23 QID 4 timeout, aborting"
    assert model_disk(*(told(timeout) for _ in range(3))) == (Verdict.UNHEALTHY, "timeouts")
    assert model_disk(told(IO_ERROR.format(1), 90_000)) == (Verdict.HEALTHY, "no_errors")


def test_another_disk_is_worth_a_look_only() -> None:
    found = by_component(view(told("EXT4-fs (sdb1): Remounting filesystem read-only")))
    other = found["disk:sdb1"]
    assert (other.verdict, other.action) == (Verdict.DEGRADED, Action.WATCH)
    assert found["disk:/models"].verdict is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("event", "watched", "same"),
    [
        ("nvme0n1", "/dev/nvme0n1p2", True),
        ("nvme0", "/dev/nvme0n1p2", True),
        ("nvme0n1p1", "nvme0n1p2", True),
        ("nvme0c1n1", "nvme0n1", True),
        ("nvme1", "/dev/nvme10n1", False),
        ("nvme1n1", "/dev/nvme0n1p2", False),
        ("sda", "/dev/sda3", True),
        ("sda1", "sdaa1", False),
        ("loop0", "/dev/loop0", True),
        ("dm-0", "dm-0", True),
        ("md0", "/dev/md0p1", True),
        ("", "", False),
    ],
)
def test_which_events_are_a_volume_s(event: str, watched: str, same: bool) -> None:  # noqa: FBT001
    assert same_disk(event, watched) is same


@pytest.mark.parametrize(
    ("smart", "verdict", "reason"),
    [
        ({"critical_warning": 0, "available_spare_pct": 100, "available_spare_threshold_pct": 10, "percentage_used_pct": 3, "media_errors": 7}, Verdict.HEALTHY, "no_errors"),
        ({"critical_warning": 1}, Verdict.UNHEALTHY, "smart_warning"),
        ({"critical_warning": 2}, Verdict.DEGRADED, "smart_temperature"),
        ({"available_spare_pct": 0, "available_spare_threshold_pct": 11}, Verdict.UNHEALTHY, "smart_spare"),
        ({"percentage_used_pct": 81}, Verdict.DEGRADED, "smart_wearing"),
        ({"percentage_used_pct": 101}, Verdict.DEGRADED, "smart_worn"),
        ({"reallocated_sectors": 8, "pending_sectors": 0, "uncorrectable_sectors": 0}, Verdict.HEALTHY, "no_errors"),
        ({"pending_sectors": 1}, Verdict.DEGRADED, "smart_sectors"),
        ({"uncorrectable_sectors": 3}, Verdict.DEGRADED, "smart_sectors"),
    ],
)  # fmt: skip
def test_smart(smart: dict[str, float], verdict: Verdict, reason: str) -> None:
    found = by_component(view(volumes=(volume(**smart),)))["disk:/models"]
    assert (found.verdict, found.reason) == (verdict, reason)
    assert bool(found.evidence) is (verdict is not Verdict.HEALTHY)


@pytest.mark.parametrize("device", ["dm-0", "md127"])
def test_a_disk_under_a_volume_of_lvm_or_raid_is_the_volumes(device: str) -> None:
    mapped = Volume(path="/models", device=device, disks=("nvme0n1p3", "nvme0n1", "sdb"))
    for text, reason in (
        (IO_ERROR.format(1), "io_error"),
        ("nvme nvme0: Disabling device after reset failure: -19", "device_gone"),
        ("critical medium error, dev sdb, sector 7 op 0x0:(READ)", "medium_error"),
    ):
        assert by_component(view(told(text), volumes=(mapped,)))["disk:/models"].reason == reason
    other = by_component(view(told("critical medium error, dev sdc, sector 7"), volumes=(mapped,)))
    assert other["disk:/models"].verdict is Verdict.HEALTHY


@pytest.mark.parametrize("name", ["media_errors", "reallocated_sectors"])
def test_media_errors_count_by_growth(name: str) -> None:
    before, after = (view(volumes=(volume(**{name: count}),)) for count in (7, 9))
    assert by_component(before, before)["disk:/models"].verdict is Verdict.HEALTHY
    assert by_component(before, after)["disk:/models"].reason == "smart_media_errors"


def test_no_data_is_unknown() -> None:
    assert by_component(View(at_s=NOW_S, monotonic_s=1.0))["disk"].verdict is Verdict.UNKNOWN
    assert by_component(view(volumes=None))["disk"].verdict is Verdict.UNKNOWN
    assert by_component(view(state=State.DENIED))["disk:/models"].reason == "not_read"
    assert by_component(view(lost=1))["disk:/models"].reason == "records_lost"
    unread = view(state=State.DENIED, volumes=(volume(critical_warning=4),))
    assert by_component(unread)["disk:/models"].reason == "smart_warning"
