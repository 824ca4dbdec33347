"""An incident file in its documented form, and every mistake that a writer can make in one."""

from typing import Any

import pytest

from freehold.health.incident_file.read import read_incident, read_kernel_log
from freehold.health.incidents.conclusions import diagnose_all, foremost

XID = "NVRM: Xid (PCI:0000:9b:00): 48, pid=1, name=python3, DBE (double bit error) ECC Error"


def hypothesis(data: Any) -> str:
    read = read_incident(data, "x")
    assert not read.problems, [str(problem) for problem in read.problems]
    assert not read.ignored
    main = foremost(diagnose_all(read.cases))
    return str(main.hypothesis) if main is not None and main.problem else "none"


@pytest.mark.parametrize(
    "kernel",
    [
        [XID], [f"[  12.5] {XID}"], [f"Xid {XID[10:]}"], [{"at": 1_764_237_600, "text": XID}], [{"at": "2026-11-27T10:00:00Z", "text": XID}],
        [f"2026-11-27T10:00:00+0000 gpu-07 kernel: {XID}"], [f"kernel: {XID}"], [f"Nov 27 10:00:00 gpu-07 kernel: {XID}"],
        [f"[Fri Nov 27 10:00:00 2026] {XID}"], [f"4,1234,567890123,-;{XID}"], [f"{XID}\n{XID}"],
    ],
)  # fmt: skip
def test_kernel_lines_in_every_form(kernel: object) -> None:
    assert hypothesis({"kernel": kernel}) == "hardware"


def test_a_line_that_user_space_wrote_is_not_believed() -> None:
    assert hypothesis({"kernel": [{"text": XID, "facility": 1}]}) == "none"
    assert hypothesis({"kernel": [f"12,1234,567890123,-;{XID}"]}) == "none"


@pytest.mark.parametrize(
    ("expected", "data"),
    [
        ("hardware", {"counters": [{"gpu": 0, "name": "ecc_dbe_volatile", "before": 0, "after": 2}]}),
        ("hardware", {"counters": [{"component": "gpu:0", "name": "row_remap_failure", "before": 0, "after": 1}]}),
        ("hardware", {"counters": [{"gpu": 0, "name": "pcie_link_width", "before": 16, "after": 4}]}),
        ("hardware", {"counters": [{"gpu": "GPU-1", "name": "row_remap_failure", "before": "0", "after": "1"}]}),
        ("hardware", {"counters": [{"gpu": "0", "name": "row_remap_failure", "before": False, "after": True}]}),
        ("hardware", {"counters": [{"gpu": 0, "name": "DCGM_FI_DEV_XID_ERRORS", "before": 0, "after": 79}]}),
        ("hardware", {"gpus": [{"index": 0, "pci": "0000:9b:00.0"}], "counters": [{"gpu": 0, "name": "row_remap_failure", "before": 0, "after": 1}]}),
        ("hardware", {"findings": [{"probe": "gpu_memory", "message": "row remap failure flag set on GPU 3"}]}),
        ("hardware", {"findings": [{"probe": "kernel", "component": "gpu:3", "message": "XID 79 seen"}]}),
        ("hardware", {"about": "a title", "kernel": [XID]}),
        ("hardware", {"xids": [{"xid": 79}]}),
        ("hardware", {"xids": [{"xid": 48, "gpu": "0000:9b:00", "at": "2026-11-27T10:00:00Z"}]}),
        ("hardware", {"counters": [{"component": "memory", "name": "ue_count", "before": 0, "after": 1}]}),
        ("storage", {"counters": [
            {"disk": "/m", "name": "read_latency_p99", "before": "0.4 ms", "after": "950 ms"},
            {"disk": "/m", "name": "device_latency", "before": "0.4 ms", "after": "900 ms"},
        ]}),
        ("storage", {"counters": [
            {"disk": "/m", "name": "read_p99", "unit": "ms", "before": 0.5, "after": 800}, {"disk": "/m", "name": "device_ticks_ms", "before": 0.4, "after": 790},
        ]}),
        ("configuration", {"counters": [
            {"disk": "/m", "name": "read_p99_ms", "before": 0.5, "after": 800}, {"disk": "/m", "name": "psi_full_avg10", "before": 0, "after": 40},
            {"disk": "/m", "name": "device_ticks_ms", "before": 0.4, "after": 0.5},
        ]}),
        ("network", {"counters": [
            {"peer": "n2", "name": "sent", "after": 600}, {"peer": "n2", "name": "lost", "after": 40}, {"peer": "n2", "name": "loss_pct", "after": 6.6},
        ]}),
        ("network", {"counters": [{"interface": "eth0", "name": "carrier", "before": 1, "after": 0}]}),
        ("network", {"counters": [{"interface": "mlx5_0", "name": "link_downed", "before": 0, "after": 2}]}),
        ("facility", {"counters": [{"name": "clocks_throttle_reasons.active", "gpu": i, "before": "0x4", "after": "0x80"} for i in range(8)]}),
        ("software", {"engines": [{"replica": "v", "engine": "vllm", "exit_code": 1, "log_tail": ["device-side assert triggered"]}]}),
        ("software", {
            "engines": [{"replica": "r0", "state": "stalled", "running": 3}],
            "counters": [{"gpu": 0, "name": "utilization_gpu", "after": 0}, {"gpu": 0, "name": "power_w", "after": 70}],
        }),
        ("driver", {"engines": [{"replica": "r0", "log_tail": ["NVMLError_LibRmVersionMismatch: RM has detected a mismatch."]}]}),
        ("none", {"engines": [{"replica": "r0", "exit_code": 0}]}),
        ("none", {"engines": [{"replica": "r0", "signal": "SIGTERM"}]}),
        ("facility", {"context": {"notes": ["PSU 2 failure detected"]}, "xids": [{"xid": 79, "gpu": 0}, {"xid": 79, "gpu": 1}]}),
    ],
)  # fmt: skip
def test_the_other_parts(expected: str, data: Any) -> None:
    assert hypothesis(data) == expected


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (7, "$"), ({"strange": 1}, "$"), ({"kernel": [7]}, "$.kernel[0]"), ({"counters": [{"name": "x", "after": [{}]}]}, "$.counters[0].after"),
        ({"engines": [7]}, "$.engines[0]"), ({"engines": [{"replica": "r0", "exit_code": "x"}]}, "$.engines[0].exit_code"),
        ({"kernel": [], "context": 7}, "$.context"), ({"kernel": [], "history": [{"at": 1, "action": "explode"}]}, "$.history[0].action"),
        ({"kernel": [], "context": {"operator": {"action": "set_healthy"}}}, "$.context.operator.at"),
        ({"kernel": [], "context": {"operator": [{"action": "set_helthy", "at": 5}]}}, "$.context.operator[0].action"),
        ({"views": [{"at_s": "x"}]}, "$.views[0]"), ({"kernel": [], "engines": [{"replica": "r0", "log_tial": []}]}, "$.engines[0].log_tial"),
        ({"counters": [{"gpu": 0, "name": 3, "before": 1, "after": 2}]}, "$.counters[0].name"),
        ({"kernel": [], "at": 1e400}, "$.at"), ({"kernel": [], "at": "soon"}, "$.at"), ({"kernel": [], "history": [{}]}, "$.history[0].at"),
        ({"counters": [{"name": "x", "after": 1}]}, "$.counters[0]"), ({"kernel": ["x"] * 20_001}, "$.kernel"),
        ({"kernel": [], "context": {"lock_changed_at": {"image": 5}}}, "$.context.lock_changed_at"),
        ({"counters": [{"gpu": 0, "name": "x", "siblings": [{"befor": 1}]}]}, "$.counters[0].siblings[0].befor"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_its_path(data: object, where: str) -> None:
    read = read_incident(data, "x")
    assert f"x: {where}" in [problem.where for problem in read.problems]
    assert read.cases == ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kernel_log": [XID]}, "x: $.kernel_log: the key 'kernel_log' is not known (did you mean 'kernel'?)"),
        ({"kernel": XID}, "x: $.kernel: expected `array`, got `str`"),
        ({"kernel": [], "dmesg": [XID]}, "x: $.dmesg: the key 'dmesg' is not known (known: about, at, context, counters, "),
        ({"kernel": [], "findings": [{"probe": "a", "verdict": "unhealty"}]}, "x: $.findings[0].verdict: invalid enum value 'unhealty' (did you mean 'unhealthy'?)"),
        ({"kernel": [], "engines": [{"engine": "vllm"}]}, "x: $.engines[0].replica: 'replica' is missing"),
        ({"kernel": [], "context": {"note": "hot"}}, "x: $.context.note: the key 'note' is not known (did you mean 'notes'?)"),
        ({"counters": [{"name": "x", "after": 1}]}, "x: $.counters[0]: does not say what it was read of (name it with gpu, disk, "),
    ],
)  # fmt: skip
def test_a_mistake_says_what_is_wrong_and_what_was_meant(data: object, message: str) -> None:
    assert any(str(problem).startswith(message) for problem in read_incident(data, "x").problems)


ALIASES: list[dict[str, Any]] = [
    *({key: [XID]} for key in ("kernel_log", "kernel_lines", "kmsg", "dmesg", "log", "lines", "logs", "journal")),
    *({key: [{"gpu": 0, "name": "x", "after": 1}]} for key in ("nvml", "readings", "metrics", "dcgm", "storage", "network", "rdma")),
    *({key: []} for key in ("probes", "checks", "replicas", "events", "past", "around")),
    *({"engines": [{"replica": "r0", key: 1}]} for key in ("exit", "code", "returncode", "stderr", "status", "process_state")),
    *({"counters": [{"gpu": 0, "name": "x", key: 1}]} for key in ("from", "to", "old", "new", "value", "others")),
]  # fmt: skip


@pytest.mark.parametrize("data", ALIASES, ids=str)
def test_there_is_one_name_for_each_key(data: dict[str, Any]) -> None:
    assert any("is not known" in problem.message for problem in read_incident(data, "x").problems)


def test_seconds_since_boot_end_at_the_time_of_the_incident() -> None:
    read = read_incident({"at": 1_764_237_600, "kernel": [f"[  10.0] {XID}", f"[  70.0] {XID}"]}, "x")
    (case,) = read.cases
    assert (case.incident.start_s, case.incident.end_s) == (1_764_237_540, 1_764_237_600)


def test_a_kernel_log_of_nothing_is_nothing() -> None:
    assert read_kernel_log("").cases == ()
    assert foremost([]) is None
