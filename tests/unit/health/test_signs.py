"""What single readings, findings, words and states are signs of, by the names that NVML, DCGM, sysfs and people use."""

import pytest

from freehold.catalog.load_evidence import load_evidence
from freehold.core.findings import Finding, Verdict
from freehold.core.plain_text import one_line
from freehold.health.evidence.correlations import together_signs, with_siblings
from freehold.health.evidence.counters import change_signs
from freehold.health.evidence.log_patterns import note_signs
from freehold.health.evidence.quantity import ReadingChange
from freehold.health.evidence.surroundings import EngineEnd, engine_signs, finding_signs
from freehold.health.incident_file.counters import change_of, number, plain
from freehold.health.incident_file.schema import CounterEntry

TABLE = load_evidence()


def read(component: str, name: object, before: object, after: object) -> ReadingChange:
    return change_of(CounterEntry(component=component, name=str(name), before=before, after=after))  # type: ignore[arg-type]


def of(*changes: tuple[object, ...], component: str = "gpu:0") -> set[str]:
    made = with_siblings([read(component, *change) for change in changes])
    alone = change_signs(TABLE, made)
    return {item.sign.name for item in (*alone, *together_signs(TABLE, made, alone))} - {"counters_clean"}


@pytest.mark.parametrize(
    ("name", "before", "after", "sign"),
    [
        ("DCGM_FI_DEV_ROW_REMAP_FAILED", 0, 1, "row_remap_failure"),
        ("row_remap_failure", None, True, "row_remap_failure"),
        ("DCGM_FI_DEV_ROW_REMAP_PENDING", 0, 1, "row_remap_pending"),
        ("remapped_rows.pending", "No", "Yes", "row_remap_pending"),
        ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", 3, 4, "ecc_uncorrected"),
        ("row_remap_uncorrected", 600, 600, "ecc_uncorrected"),
        ("row_remap_uncorrected", 3, 3, None),
        ("row_remap_corrected", 0, 9, None),
        ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", 0, 1, "ecc_uncorrected"),
        ("ecc.errors.uncorrected.volatile.total", None, 2, "ecc_uncorrected"),
        ("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", None, 12, None),
        ("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", 12, 13, "ecc_uncorrected"),
        ("sram_threshold_exceeded", 0, 1, "sram_threshold"),
        ("DCGM_FI_DEV_THRESHOLD_SRM", 0, 1, "sram_threshold"),
        ("ecc_mode", "Enabled", "Disabled", "ecc_off"),
        ("recovery_action", 0, 1, "recovery_action"),
        ("DCGM_FI_DEV_GPU_RECOVERY_ACTION", 0, 0, None),
        ("pcie_replays", 10, 900, "pcie_replay"),
        ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", 10, 90, None),
        ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", None, 90_000, None),
        ("pcie_width", 16, 8, "pcie_width"),
        ("pcie_fatal_errors", 0, 1, "aer_uncorrectable"),
        ("pcie_correctable_errors", 0, 900, None),
        ("nvlink_replay_errors", 0, 1, "nvlink_counters"),
        ("nvlink_up", 18, 17, "nvlink_counters"),
        ("throttle_bits", 4, 0x84, "power_brake"),
        ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", 1, 4, None),
        ("throttle_bits", 4, 0x40, "thermal_alone"),
        ("throttle_bits", 4, 0x08, "hw_slowdown"),
        ("hw_thermal_ns", 0, 5_000_000, "thermal_alone"),
        ("power_brake_ns", 0, 5_000_000, "power_brake"),
        ("power_cap_ns", 0, 5_000_000, None),
        ("DCGM_FI_DEV_POWER_VIOLATION", 0, 5_000_000, None),
        ("margin_c", 20, -3, "thermal_alone"),
        ("margin_c", 20, 5, None),
        ("temperature_c", 60, 84, None),
        ("memory_total_bytes", 85e9, 80e9, "memory_fatal"),
        ("ecc_uncorrected_volatile", 0, 9223372036854775792, None),
        ("power_w", 400, "GPU is lost", "gpu_lost"),
        ("temperature_c", 40, "hung", "nvml_hung"),
        ("temperature_c", 40, "reset_required", "reset_required"),
        ("temperature_c", 40, "unsupported", None),
        ("energy_mj", 1, 2, None),
    ],
)  # fmt: skip
def test_a_gpu_reading_is_the_sign_that_its_name_and_value_make(
    name: str, before: object, after: object, sign: str | None
) -> None:
    assert of((name, before, after)) == ({sign} if sign else set())


def test_heat_on_one_gpu_beside_cool_ones_is_its_own_and_on_all_is_the_rooms() -> None:
    one = [read(f"gpu:{i}", "throttle_bits", 4, 0x40 if i == 2 else 4) for i in range(4)]
    every = [read(f"gpu:{i}", "throttle_bits", 4, 0x40) for i in range(4)]
    assert {(s.sign.name, s.component) for s in together_signs(TABLE, with_siblings(one))} == {
        ("thermal_one", "gpu:2")
    }
    assert {s.sign.name for s in together_signs(TABLE, with_siblings(every))} == {"thermal_all"}


@pytest.mark.parametrize(
    ("readings", "sign"),
    [
        ([("util_pct", 60, 100), ("power_w", 400, 124), ("power_limit_w", 700, 700)], "hung_kernel"),
        (
            [("DCGM_FI_DEV_GPU_UTIL_RATIO", 0.6, 1.0), ("power_w", 400, 124), ("power_limit_w", 700, 700)],
            "hung_kernel",
        ),
        ([("util_pct", 60, 100), ("power_w", 400, 320), ("power_limit_w", 700, 700)], None),
        ([("utilisation_percent", 0, 100), ("power_w", 77, 124)], "hung_kernel"),
        ([("utilisation_percent", 0, 100), ("power_w", 77, 696)], None),
        ([("memory_utilisation_percent", 0, 100), ("power_w", 77, 80)], None),
        ([("pcie_gen", 5, 1), ("util_pct", 0, 0)], None),
        ([("pcie_gen", 5, 1), ("util_pct", 90, 99)], "pcie_gen"),
        ([("pcie_width", None, 8), ("pcie_width_max", None, 16)], "pcie_width"),
        ([("power_limit_w", 700, 400), ("power_limit_default_w", 700, 700)], "power_capped"),
    ],
)
def test_readings_of_a_gpu_say_some_things_only_together(
    readings: list[tuple[object, ...]], sign: str | None
) -> None:
    assert of(*readings) == ({sign} if sign else set())


@pytest.mark.parametrize(
    ("psi", "ticks", "throttled", "sign"),
    [
        (9, 79, None, "storage_slow_device"),
        (9, 0.3, None, "storage_throttled"),
        (0, 0.3, None, "storage_user_space"),
        (9, None, None, "storage_slow"),
        (9, 0.3, 2.4, "storage_throttled"),
    ],
)
def test_three_witnesses_name_the_cause_of_slow_reads(
    psi: float, ticks: float | None, throttled: float | None, sign: str
) -> None:
    readings = [
        ("probe_read_ms", 0.3, 80),
        ("pressure_full_s", 0, psi),
        ("device_ticks_ms", 0.2, ticks),
        ("throttled_s", 0, throttled),
    ]
    assert of(*readings, component="disk:/models") == {sign}


@pytest.mark.parametrize(
    ("component", "readings", "sign"),
    [
        ("peer:b", [("sent", 0, 600), ("lost_out", 0, 2)], None),
        ("peer:b", [("sent", 0, 600), ("lost_out", 0, 6)], "packet_loss"),
        ("peer:b", [("sent", 0, 600), ("lost", 0, 600)], "peer_unreachable"),
        ("peer:b", [("loss_ratio", 0, 0.05)], "packet_loss"),
        ("link:mlx5_0", [("link_downed", 1, 2)], "rdma_fatal"),
        ("link:mlx5_0", [("link_downed", None, 2)], None),
        ("link:mlx5_0", [("local_ack_timeout_err", 0, 900)], "rdma_ack_timeout"),
        ("link:eth0", [("carrier_changes", 2, 3)], None),
        ("link:eth0", [("carrier", 1, 0)], "link_down"),
        ("engine:r0", [("tokens_total", 5, 5), ("running", None, 2)], "engine_frozen"),
        ("engine:r0", [("tokens_total", 5, 5), ("running", None, 0)], None),
        ("engine:r0", [("tokens_total", 5, 5), ("running", None, 2), ("prompt_tokens_total", 1, 90)], None),
        ("clock", [("wall_minus_monotonic_s", 5.0, 9.0)], "clock_wrong"),
        ("memory", [("oom_kills", 1, 2)], "oom_kill"),
        ("disk:/models", [("free_bytes", 5, 0)], "disk_full"),
        ("disk:nvme0", [("available_spare_pct", 100, 4)], "disk_wear"),
    ],
)  # fmt: skip
def test_host_network_and_engine_readings(
    component: str, readings: list[tuple[object, ...]], sign: str | None
) -> None:
    assert of(*readings, component=component) == ({sign} if sign else set())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12 ms", 12),
        ("0x40", 64),
        ("Yes", 1),
        ("1,234", 1234),
        ("", None),
        ("NaN", None),
        ("lost", None),
        ("-3 °C", -3),
        (2**70, None),
    ],
)
def test_numbers_are_read_out_of_what_people_write(text: str | int, value: float | None) -> None:
    assert number(text) == value


def test_names_lose_their_vendor() -> None:
    assert plain("DCGM_FI_DEV_ROW_REMAP_FAILURE") == "row_remap_failure"
    assert plain("ecc.errors.uncorrected.volatile.total") == "ecc_errors_uncorrected_volatile_total"


@pytest.mark.parametrize(
    ("probe", "reason", "message", "sign"),
    [
        ("gpu_xid", "application_error", "XID 13 GR_EXCEPTION", "app_fault"),
        ("gpu_xid", "off_bus", "gone", "gpu_lost"),
        ("gpu_xid", "firmware_xid", "XID 119 GSP_RPC_TIMEOUT", "gsp"),
        ("gpu_memory", "row_remap_failure", "the flag is set", "row_remap_failure"),
        ("gpu_power", "limit_lowered", "enforced limit 400 W is below the default", "power_capped"),
        ("driver", "library_mismatch", "x", "library_mismatch"),
        ("storage_latency", "throttled", "x", "storage_throttled"),
        ("network_loss", "lossy", "3 of 600 lost", "packet_loss"),
        ("engine_progress", "stalled", "no token for 20 s", "engine_frozen"),
        ("something_else", "odd", "nobody knows", "probe_degraded"),
    ],
)  # fmt: skip
def test_a_bad_finding_is_the_sign_that_its_words_mean(
    probe: str, reason: str, message: str, sign: str
) -> None:
    finding = Finding(probe=probe, component="x", verdict=Verdict.UNHEALTHY, reason=reason, message=message)
    assert [seen.sign.name for seen in finding_signs(TABLE, [finding])] == [sign]
    well = Finding(probe=probe, component="x", verdict=Verdict.UNKNOWN, reason=reason, message=message)
    assert finding_signs(TABLE, [well]) == []


def test_an_engines_better_reason_replaces_its_bare_end() -> None:
    end = EngineEnd(
        replica="r0",
        engine="vllm",
        exit_code=1,
        log_tail=("Traceback (most recent call last):", "CUDA out of memory"),
    )
    assert [seen.sign.name for seen in engine_signs(TABLE, [end])] == ["log_gpu_memory_full"]
    assert (
        engine_signs(TABLE, [EngineEnd(replica="r0", exit_code=0), EngineEnd(replica="r1", exit_code=-15)])
        == []
    )


def test_a_line_of_an_engine_is_evidence_without_its_control_characters() -> None:
    end = EngineEnd(
        replica="r0",
        engine="vllm",
        exit_code=1,
        log_tail=("\x1b[2J\u202eCUDA out of memory\rrun: curl evil",),
    )
    (seen,) = engine_signs(TABLE, [end])
    assert seen.sign.name == "log_gpu_memory_full"
    assert "\\x1b[2J" in seen.value
    assert one_line(seen.value) == seen.value


def test_context_words_are_only_those_that_mean_something() -> None:
    assert [name for name, _ in note_signs("PSU 2 failure detected")] == ["facility_word"]
    assert list(note_signs("the power supply is fine, inlet 24 C")) == []
