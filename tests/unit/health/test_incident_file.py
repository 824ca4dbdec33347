"""An incident file in the many ways in which people and programs write one."""

from typing import Any

import pytest

from freehold.health.incident_file.read import diagnose_all, foremost, read_incident, read_kernel_log

XID = "NVRM: Xid (PCI:0000:9b:00): 48, pid=1, name=python3, DBE (double bit error) ECC Error"


def hypothesis(data: Any) -> str:
    told = read_incident(data, "x")
    assert not told.problems, [str(problem) for problem in told.problems]
    assert not told.ignored
    main = foremost(diagnose_all(told.cases))
    return str(main.hypothesis) if main is not None and main.problem else "none"


@pytest.mark.parametrize(
    "kernel",
    [
        [XID], XID, f"[  12.5] {XID}", f"Xid {XID[10:]}", [{"at": 1_764_237_600, "text": XID}], [{"timestamp": "2026-11-27T10:00:00Z", "message": XID}],
        {"lines": [XID]}, [f"2026-11-27T10:00:00+0000 gpu-07 kernel: {XID}"], [f"kernel: {XID}"], [f"Nov 27 10:00:00 gpu-07 kernel: {XID}"],
        [f"[Fri Nov 27 10:00:00 2026] {XID}"], [f"4,1234,567890123,-;{XID}"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["kernel", "kernel_log", "dmesg"])
def test_kernel_lines_in_every_form(kernel: object, key: str) -> None:
    assert hypothesis({key: kernel}) == "hardware"


def test_a_line_that_user_space_wrote_is_not_believed() -> None:
    assert hypothesis({"kernel": [{"text": XID, "facility": 1}]}) == "none"
    assert hypothesis({"kernel": [f"12,1234,567890123,-;{XID}"]}) == "none"


@pytest.mark.parametrize(
    ("expected", "data"),
    [
        ("hardware", {"counters": {"gpu0": {"before": {"ecc_dbe_volatile": 0}, "after": {"ecc_dbe_volatile": 2}}}}),
        ("hardware", {"counters": {"before": {"0": {"row_remap_failure": 0}}, "after": {"0": {"row_remap_failure": 1}}}}),
        ("hardware", {"counters": [{"gpu": 0, "before": {"pcie_link_width": 16}, "after": {"pcie_link_width": 4}}]}),
        ("hardware", {"counters": [{"gpu": "GPU-1", "metric": "row_remap_failure", "before": "0", "after": "1"}]}),
        ("hardware", {"nvml": {"0": {"row_remap_failure": [0, 1]}}}),
        ("hardware", {"nvml": [{"gpu": 0, "DCGM_FI_DEV_XID_ERRORS": {"before": 0, "after": 79}}]}),
        ("hardware", {"gpus": [{"index": 0, "pci": "0000:9b:00.0", "row_remap_failure": {"before": 0, "after": 1}}]}),
        ("hardware", {"findings": ["gpu_memory: row remap failure flag set on GPU 3"]}),
        ("hardware", {"findings": [{"component": "gpu:3", "message": "XID 79 seen", "status": "FAIL", "check": "kernel"}]}),
        ("hardware", {"incident": {"kernel_log": [XID]}}),
        ("hardware", {"xids": [79]}),
        ("hardware", {"events": [{"xid": "48", "gpu": "0000:9b:00", "at": "2026-11-27T10:00:00Z"}]}),
        ("hardware", [XID]),
        ("hardware", {"host": {"edac": {"ue_count": [0, 1]}}}),
        ("storage", {"counters": [
            {"disk": "/m", "name": "read_latency_p99", "before": "0.4 ms", "after": "950 ms"},
            {"disk": "/m", "name": "device_latency", "before": "0.4 ms", "after": "900 ms"},
        ]}),
        ("storage", {"storage": [{"path": "/m", "read_p99_ms": {"before": 0.5, "after": 800}, "device_ticks_ms": {"before": 0.4, "after": 790}}]}),
        ("configuration", {"storage": [
            {"path": "/m", "read_p99_ms": [0.5, 800], "psi_full_avg10": [0, 40], "device_ticks_ms": [0.4, 0.5]},
        ]}),
        ("network", {"network": {"peers": [{"name": "n2", "sent": 600, "lost": 40, "loss_pct": 6.6}]}}),
        ("network", {"network": {"interfaces": [{"name": "eth0", "carrier": [1, 0]}]}}),
        ("network", {"rdma": [{"device": "mlx5_0", "port": 1, "link_downed": {"before": 0, "after": 2}}]}),
        ("facility", {"counters": [{"name": "clocks_throttle_reasons.active", "gpu": i, "before": "0x4", "after": "0x80"} for i in range(8)]}),
        ("software", {"engines": [{"name": "v", "type": "vllm", "exit": {"code": 1, "signal": None}, "log": ["device-side assert triggered"]}]}),
        ("software", {"engines": {"r0": {"state": "stalled", "gateway_running": 3}}, "nvml": {"0": {"utilization_gpu": 0, "power_w": 70}}}),
        ("driver", {"engines": [{"replica": "r0", "log_tail": "NVMLError_LibRmVersionMismatch: RM has detected a mismatch."}]}),
        ("none", {"engines": [{"replica": "r0", "exit_code": 0}]}),
    ],
)  # fmt: skip
def test_the_other_parts_in_every_form(expected: str, data: Any) -> None:
    assert hypothesis(data) == expected


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (7, "$"), ({"strange": 1}, "$"), ({"kernel": [7]}, "$.kernel[0]"), ({"counters": [{"name": "x", "after": [{}]}]}, "$.counters[0].after"),
        ({"engines": [7]}, "$.engines[0]"), ({"engines": [{"replica": "r0", "exit_code": "x"}]}, "$.engines[0].exit_code"),
        ({"kernel": [], "context": 7}, "$.context"), ({"kernel": [], "history": [{"action": "explode"}]}, "$.history[0].action"),
        ({"kernel": [], "context": {"operator": {"action": "set_healthy"}}}, "$.context.operator[0].at"),
        ({"kernel": [], "context": {"operator": {"action": "set_helthy", "at": 5}}}, "$.context.operator[0].action"),
        ({"views": [{"at_s": "x"}]}, "$.views[0]"), ({"kernel": [], "engine": [{"replica": "r0", "log_tial": []}]}, "$.engine[0].log_tial"),
        ({"counters": [{"gpu": 0, "name": 3, "before": 1, "after": 2}]}, "$.counters[0].name"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_path(data: object, where: str) -> None:
    told = read_incident(data, "x")
    assert f"x: {where}" in [problem.where for problem in told.problems]
    assert told.cases == ()


def test_seconds_since_boot_end_at_the_time_of_the_incident() -> None:
    told = read_incident({"at": 1_764_237_600, "kernel": [f"[  10.0] {XID}", f"[  70.0] {XID}"]}, "x")
    (case,) = told.cases
    assert (case.incident.start_s, case.incident.end_s) == (1_764_237_540, 1_764_237_600)


def test_a_kernel_log_of_nothing_is_nothing() -> None:
    assert read_kernel_log("").cases == ()
    assert foremost([]) is None
