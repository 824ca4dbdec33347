"""Every reason of every probe that can be bad is a sign of the diagnosis, or deliberately none with a reason for that."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from freehold.catalog.load_evidence import BY_WORDS, Hypothesis, load_evidence
from freehold.core.findings import Finding, Verdict
from freehold.health.evidence.surroundings import finding_signs
from freehold.health.incident_file.read import read_incident
from freehold.health.incidents.conclusions import diagnose_all, foremost
from freehold.health.registry import all_probes

TABLE = load_evidence()
NO_RULE = "probe_degraded"
GPU = {"ok", "no_gpu", "not_read", "unreadable", "unsupported"}
NEVER_BAD: dict[str, set[str]] = {
    "blocked_processes": {"none", "not_read"},
    "clock": {"right", "not_read", "cannot_read"},
    "disk_space": {"enough", "not_read", "no_volumes", "cannot_read"},
    "driver": GPU - {"unsupported"},
    "engine_progress": {"progressing", "idle", "busy", "not_serving", "no_engine", "not_read", "unreadable"},
    "gpu_memory": GPU,
    "gpu_nvlink": GPU,
    "gpu_pcie": GPU,
    "gpu_power": GPU,
    "gpu_present": GPU | {"hung", "no_driver"},
    "gpu_temperature": GPU,
    "gpu_throttle": GPU,
    "gpu_xid": {
        *("no_xid", "harmless_xid", "nvlink_corrected", "switch_witness", "switch_non_fatal"),
        *("not_read", "records_lost", "gpus_unknown", "no_gpu"),
    },
    "memory_pressure": {"enough", "not_read", "cannot_read"},
    "network_link": {"up", "not_read", "no_interfaces", "not_used", "cannot_read"},
    "network_loss": {"ok", "no_peers", "no_data", "not_judged", "not_running"},
    "rdma": {"active", "not_read", "no_ports", "not_used", "counters_denied"},
    "storage_errors": {"no_errors", "not_read", "smart_not_read", "records_lost", "no_volumes"},
    "storage_latency": {"as_usual", "learning", "not_read", "no_volumes", "cannot_read"},
    "storage_write": {
        "as_usual",
        "learning",
        "not_read",
        "no_volumes",
        "off",
        "cannot_write",
        "mounted_read_only",
    },
}
"""Reasons that only a healthy, unknown or not applicable finding has; a reason that is not here is taken for one that can be bad."""
BAD = [
    (name, reason)
    for name, probe in all_probes().items()
    for reason in probe.reasons
    if reason not in NEVER_BAD.get(name, set())
]


def found(probe: str, reason: str) -> str:
    # No message: a reason must be enough, whatever words and figures come with it.
    finding = Finding(probe=probe, component="gpu:0", verdict=Verdict.UNHEALTHY, reason=reason, message="")
    (seen,) = finding_signs(TABLE, [finding])
    return seen.sign.name


@pytest.mark.parametrize(("probe", "reason"), BAD)
def test_a_bad_reason_is_a_sign_or_deliberately_none(probe: str, reason: str) -> None:
    assert (probe, reason) in TABLE.findings, "write a row in catalog/data/health/evidence_findings.yaml"
    wanted = TABLE.findings[probe, reason]
    sign = found(probe, reason)
    assert (sign == NO_RULE) == (wanted == "")
    assert sign != "unknown_xid"
    if wanted in TABLE.signs:
        assert sign == wanted


def test_no_row_is_of_a_reason_that_no_probe_has_or_that_is_never_bad() -> None:
    assert set(TABLE.findings) == set(BAD)
    assert {name: reasons - set(all_probes()[name].reasons) for name, reasons in NEVER_BAD.items()} == {
        name: set() for name in NEVER_BAD
    }


@pytest.mark.parametrize(
    ("probe", "reason", "message", "sign"),
    [
        ("gpu_memory", "many_corrected_errors", "20000: corrected SRAM errors since the driver was loaded.", "memory_early"),
        ("gpu_nvlink", "replay_errors", "NVLink replay errors: +5 in 30 s.", "nvlink_counters"),
        ("gpu_nvlink", "link_down", "17 NVLinks are up where 18 were", "nvlink"),
        ("storage_errors", "device_gone", "the kernel gave the disk up", "disk_gone"),
        ("network_loss", "peer_differs", "b sends, but not to this mesh", "configuration_word"),
        ("gpu_power", "busy_at_idle_power", "It says 100 % busy but draws 124 W", "hung_kernel"),
        ("blocked_processes", "nvidia_blocked", "1 processes have hung", "nvidia_blocked"),
    ],
)  # fmt: skip
def test_the_words_of_a_message_do_not_say_otherwise(
    probe: str, reason: str, message: str, sign: str
) -> None:
    finding = Finding(
        probe=probe, component="gpu:0", verdict=Verdict.DEGRADED, reason=reason, message=message
    )
    (seen,) = finding_signs(TABLE, [finding])
    assert seen.sign.name == sign


def test_few_reasons_say_nothing() -> None:
    silent = {key for key, sign in TABLE.findings.items() if not sign}
    assert silent == {
        ("gpu_power", "stuck"),
        ("gpu_present", "not_in_driver"),
        ("gpu_throttle", "slow_clock"),
        ("gpu_xid", "unknown_xid"),
    }
    assert sum(sign == BY_WORDS for sign in TABLE.findings.values()) < 30


def _verdicts_and_texts(tree: ast.AST) -> Iterator[tuple[set[str], set[str]]]:
    """Yield the verdicts and the texts that stand side by side in a call or a tuple."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            parts: list[ast.AST] = [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Tuple):
            parts = list(node.elts)
        else:
            continue
        verdicts = {
            part.attr
            for part in parts
            if isinstance(part, ast.Attribute)
            and isinstance(part.value, ast.Name)
            and part.value.id == "Verdict"
        }
        yield (
            verdicts,
            {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)},
        )


@pytest.mark.parametrize("name", sorted(all_probes()))
def test_what_is_said_to_be_never_bad_stands_nowhere_beside_a_bad_verdict(name: str) -> None:
    path = importlib.import_module(f"freehold.health.checks.{name}").__file__
    assert path is not None
    for verdicts, texts in _verdicts_and_texts(ast.parse(Path(path).read_text())):
        if verdicts & {"DEGRADED", "UNHEALTHY"}:
            assert not texts & NEVER_BAD[name], (verdicts, texts)


def said(*findings: tuple[str, str, str], **more: Any) -> tuple[Hypothesis, str]:
    rows = [
        {"probe": probe, "component": part, "verdict": "unhealthy", "reason": reason, "message": ""}
        for probe, part, reason in findings
    ]
    told = read_incident({"node": "n", "findings": rows, **more}, "case")
    main = foremost(diagnose_all(told.cases))
    assert main is not None
    return main.hypothesis, str(main.action)


@pytest.mark.parametrize(
    ("finding", "hypothesis"),
    [
        (("network_link", "link:eth0", "link_errors"), Hypothesis.NETWORK),
        (("network_link", "link:eth0", "link_slow"), Hypothesis.NETWORK),
        (("network_link", "link:eth0", "missing"), Hypothesis.NETWORK),
        (
            ("network_link", "link:eth0", "link_drops"),
            Hypothesis.UNDETERMINED,
        ),  # card, processors, or nobody wanted them
        (("memory_pressure", "memory", "almost_gone"), Hypothesis.CONFIGURATION),
        (("memory_pressure", "memory", "stalled"), Hypothesis.CONFIGURATION),
        (("memory_pressure", "memory", "uncorrected_error"), Hypothesis.HARDWARE),
        (
            ("memory_pressure", "memory", "uncorrected_error_before"),
            Hypothesis.UNDETERMINED,
        ),  # of when nobody knows
        (("disk_space", "disk:/w", "almost_full"), Hypothesis.STORAGE),
        (("disk_space", "disk:/w", "low"), Hypothesis.UNDETERMINED),  # a shortage has caused nothing yet
        (("disk_space", "disk:/w", "filling"), Hypothesis.UNDETERMINED),
        (("storage_write", "disk:/w", "slow_write"), Hypothesis.STORAGE),
        (("storage_write", "disk:/w", "full"), Hypothesis.STORAGE),
        (
            ("storage_write", "storage:/w", "slow_write_elsewhere"),
            Hypothesis.UNDETERMINED,
        ),  # the server, or the way there
        (("gpu_nvlink", "gpu:0", "replay_errors"), Hypothesis.HARDWARE),
        (("driver", "driver", "client_mismatch"), Hypothesis.CONFIGURATION),
        (("gpu_memory", "gpu:0", "too_many_retired_pages"), Hypothesis.HARDWARE),
    ],
)
def test_what_one_finding_alone_says(finding: tuple[str, str, str], hypothesis: Hypothesis) -> None:
    assert said(finding)[0] is hypothesis


def test_a_low_disk_beside_an_engine_that_found_it_full_is_the_cause() -> None:
    engine = {
        "replica": "r0",
        "engine": "vllm",
        "exit_code": 1,
        "log_tail": ["OSError: [Errno 28] No space left on device"],
    }
    assert said(("disk_space", "disk:/w", "low"), engines=[engine]) == (Hypothesis.STORAGE, "free_space")
