"""What becomes of smartctl's JSON; the shapes are smartmontools' own (smartctl --json, version 7)."""

import json
from pathlib import Path

import pytest

from freehold.health.collectors.smart import SmartReaders, disk_of, readings_of, worst_of
from freehold.health.model.view import Reading, State
from waiting import wait_until

NVME = {
    "smart_status": {"passed": True},
    "nvme_smart_health_information_log": {
        "critical_warning": 1,
        "temperature": 36,
        "available_spare": 0,
        "available_spare_threshold": 11,
        "percentage_used": 12,
        "media_errors": 3,
    },
}


def test_nvme_values_have_the_names_that_storage_errors_looks_for() -> None:
    values = {name: reading.value for name, reading in readings_of(json.dumps(NVME).encode()).items()}
    assert values == {
        "critical_warning": 1,
        "available_spare_pct": 0,
        "available_spare_threshold_pct": 11,
        "percentage_used_pct": 12,
        "media_errors": 3,
    }


def test_ata_attributes_are_given_raw() -> None:
    rows = [{"id": 5, "raw": {"value": 8}}, {"id": 9, "raw": {"value": 1}}, {"id": 187, "raw": {"value": 2}}]
    values = readings_of(json.dumps({"ata_smart_attributes": {"table": rows}}).encode())
    assert {name: reading.value for name, reading in values.items()} == {
        "reallocated_sectors": 8,
        "media_errors": 2,
    }


@pytest.mark.parametrize(
    ("answer", "state", "word"),
    [
        (b"", State.UNKNOWN, "no JSON"),
        (b"not found", State.UNKNOWN, "no JSON"),
        (b"[]", State.UNKNOWN, "no JSON"),
        (b"{}", State.UNSUPPORTED, "no SMART log"),
        (
            b'{"smartctl": {"messages": [{"string": "Unable to detect device type"}]}}',
            State.UNSUPPORTED,
            "Unable to detect",
        ),
        (b'{"ata_smart_attributes": {"table": 3}}', State.UNSUPPORTED, "no SMART log"),
    ],
)
def test_an_answer_without_values_has_a_reason_and_no_number(answer: bytes, state: State, word: str) -> None:
    readings = readings_of(answer)
    assert readings["smart"].state is state
    assert word in readings["smart"].detail
    assert readings["smart"].value is None


def test_only_disks_that_have_smart_are_asked() -> None:
    assert [
        disk_of(name) for name in ("nvme0n1p2", "nvme12n1", "sda3", "sdab", "loop0", "dm-0", "vda", "md0")
    ] == [
        *("/dev/nvme0", "/dev/nvme12", "/dev/sda", "/dev/sdab"),
        *(None, None, None, None),
    ]


def test_what_may_not_be_read_is_no_disk_without_smart() -> None:
    said = {
        "smartctl": {"messages": [{"string": "Smartctl open device: /dev/nvme0 failed: Permission denied"}]}
    }
    assert readings_of(json.dumps(said).encode())["smart"].state is State.DENIED


def test_several_disks_under_a_volume_are_as_well_as_the_worst_of_them() -> None:
    one = {"critical_warning": 4, "media_errors": 1, "available_spare_pct": 100, "percentage_used_pct": 3}
    two = {"critical_warning": 1, "media_errors": 2, "available_spare_pct": 5, "percentage_used_pct": 90}
    disks = [{name: Reading(value=value) for name, value in disk.items()} for disk in (one, two)]
    disks[0]["available_spare_threshold_pct"] = Reading(value=1)
    disks[1]["available_spare_threshold_pct"] = Reading(value=10)
    found = {name: reading.value for name, reading in worst_of(disks).items()}
    assert found == {
        "critical_warning": 5,
        "media_errors": 3,
        "available_spare_pct": 5,
        "available_spare_threshold_pct": 10,
        "percentage_used_pct": 90,
    }
    hung = worst_of([disks[0], {"smart": Reading(state=State.HUNG)}])
    assert hung["smart"].state is State.HUNG
    assert hung["media_errors"].value == 1
    assert worst_of([]) == {}


def test_each_disk_of_a_raid_is_asked_once(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    command = tmp_path / "smartctl"
    command.write_text(
        f"#!/bin/sh\nfor last; do :; done\necho \"$last\" >> {asked}\necho '{json.dumps(NVME)}'\n"
    )
    command.chmod(0o755)
    readers = SmartReaders(str(command))
    found: dict[str, Reading] = {}

    def all_said() -> bool:
        found.update(readers.read(("dm-0", "nvme0n1p2", "nvme0n1", "nvme1n1", "loop3")))
        return found.get("media_errors") == Reading(value=6)

    wait_until(all_said, timeout_s=10, what="both disks")
    assert sorted(asked.read_text().split()) == ["/dev/nvme0", "/dev/nvme1"]
    readers.close()
