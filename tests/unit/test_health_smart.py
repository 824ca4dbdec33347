"""What becomes of smartctl's JSON; the shapes are smartmontools' own (smartctl --json, version 7)."""

import json

import pytest

from freehold.health.readers.smart import disk_of, readings_of
from freehold.health.view import State

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
            b'{"smartctl": {"messages": [{"string": "Permission denied"}]}}',
            State.UNSUPPORTED,
            "Permission denied",
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
