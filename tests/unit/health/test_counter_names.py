"""Counters by the names of nvidia-smi, DCGM, smartctl, ethtool and the engines: each is the sign that it should be, or none."""

from typing import Any

import pytest

from freehold.health.incident_file.read import read_incident
from freehold.health.incidents.conclusions import diagnose_all, foremost

COLD = [{"before": 60, "after": 61}] * 3
BAD: list[tuple[dict[str, Any], str]] = [
    ({"gpu": 1, "name": "clocks_event_reasons.hw_thermal_slowdown", "before": "Not Active", "after": "Active", "siblings": ["Not Active"] * 3}, "hardware"),
    ({"gpu": 1, "name": "clocks_throttle_reasons.hw_power_brake_slowdown", "before": "Not Active", "after": "Active"}, "facility"),
    ({"gpu": 1, "name": "clocks_event_reasons.active", "before": "0x0000000000000004", "after": "0x0000000000000084"}, "facility"),
    ({"gpu": 1, "name": "temperature.gpu.tlimit", "before": 20, "after": -4, "siblings": [21, 20, 22]}, "hardware"),
    ({"gpu": 1, "name": "temperature.gpu", "before": 65, "after": 91, "siblings": COLD}, "hardware"),
    ({"gpu": 1, "name": "pcie.link.width.current", "before": 16, "after": 8}, "hardware"),
    ({"gpu": 1, "name": "DCGM_FI_DEV_ROW_REMAP_FAILURE", "before": 0, "after": 1}, "hardware"),
    ({"gpu": 1, "name": "DCGM_FI_DEV_THERMAL_VIOLATION", "before": 0, "after": 9000000, "siblings": [0, 0]}, "hardware"),
    ({"gpu": 1, "name": "gpu_recovery_action", "before": "None", "after": "Reboot"}, "hardware"),
    ({"gpu": 1, "name": "fabric.state", "before": "Completed", "after": "In Progress"}, "configuration"),
    ({"disk": "/dev/sda", "name": "Reallocated_Sector_Ct", "before": 0, "after": 40}, "storage"),
    ({"disk": "/dev/sda", "name": "Current_Pending_Sector", "before": 0, "after": 8}, "storage"),
    ({"disk": "/dev/nvme0", "name": "Media and Data Integrity Errors", "before": 0, "after": 8}, "storage"),
    ({"disk": "/dev/nvme0", "name": "critical_warning", "after": 4}, "storage"),
    ({"interface": "eth0", "name": "rx_crc_errors", "before": 10, "after": 9000}, "network"),
    ({"interface": "eth0", "name": "link_down_events_phy", "before": 1, "after": 5}, "network"),
    ({"peer": "n2", "name": "loss", "before": 0.0, "after": 0.31}, "network"),
    ({"peer": "n2", "name": "packet_loss_pct", "before": 0, "after": 2.5}, "network"),
    ({"peer": "n2", "name": "loss", "before": 0, "after": 4, "unit": "%"}, "network"),
]  # fmt: skip
FINE: list[dict[str, Any]] = [
    {"gpu": 1, "name": "clocks_event_reasons.sw_power_cap", "before": "Not Active", "after": "Active"},
    {"gpu": 1, "name": "clocks_event_reasons.gpu_idle", "before": "Active", "after": "Not Active"},
    {"gpu": 1, "name": "fan.speed", "before": 90, "after": 30, "unit": "%"},
    {"gpu": 1, "name": "fabric.state", "before": "In Progress", "after": "Completed"},
    {"gpu": 1, "name": "gpu_recovery_action", "before": "Reset", "after": "None"},
    {"gpu": 1, "name": "temperature.gpu", "before": 65, "after": 80, "siblings": [78, 79, 80]},
    {"disk": "/dev/nvme0", "name": "critical_warning", "after": 0},
    {"interface": "eth0", "name": "rx_crc_errors", "before": 10, "after": 12},
    {"peer": "n2", "name": "loss", "before": 0.0, "after": 0.001},
    {"peer": "n2", "name": "packet_loss_pct", "before": 0, "after": 0.1},
    {"host": "n2", "name": "edac_ce_count", "before": 0, "after": 40},
]  # fmt: skip


def said(counter: dict[str, Any]) -> str:
    told = read_incident({"counters": [counter]}, "x")
    assert (told.problems, told.ignored) == ((), ())
    main = foremost(diagnose_all(told.cases))
    return str(main.hypothesis) if main is not None and main.problem else "none"


@pytest.mark.parametrize(("counter", "hypothesis"), BAD, ids=lambda value: str(value)[:60])
def test_a_bad_reading(counter: dict[str, Any], hypothesis: str) -> None:
    assert said(counter) == hypothesis


@pytest.mark.parametrize("counter", FINE, ids=lambda value: str(value)[:60])
def test_a_reading_as_it_should_be(counter: dict[str, Any]) -> None:
    assert said(counter) == "none"
