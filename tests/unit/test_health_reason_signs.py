"""Each reason of our own probes is a sign by its name: none is guessed from the words of its message."""

import pytest

from freehold.catalog.load_evidence import load_evidence
from freehold.core.findings import Finding, Verdict
from freehold.health.reason_signs import REASON_SIGNS
from freehold.health.registry import all_probes
from freehold.health.signs_engines import finding_signs

SIGNS = load_evidence().signs


def test_every_entry_names_a_reason_and_a_sign_that_exist() -> None:
    for (probe, reason), sign in REASON_SIGNS.items():
        assert reason in all_probes()[probe].reasons, (probe, reason)
        assert sign == "thermal" or sign in SIGNS, sign


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
def test_what_our_own_findings_are_signs_of(probe: str, reason: str, message: str, sign: str) -> None:
    finding = Finding(
        probe=probe, component="gpu:0", verdict=Verdict.DEGRADED, reason=reason, message=message
    )
    (seen,) = finding_signs(load_evidence(), [finding])
    assert seen.sign.name == sign


def test_bad_corrected_errors_are_no_verdict_on_hardware() -> None:
    """The words `SRAM errors` in its message made it an uncorrectable error before."""
    assert REASON_SIGNS["gpu_memory", "many_corrected_errors"] != "ecc_uncorrected"
