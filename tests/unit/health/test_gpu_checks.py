"""What each GPU probe says of one thing that is wrong on an otherwise healthy node, and of what is not wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.checks.gpu_pcie import replays_allowed_per_minute
from freehold.health.model.probe import Expected
from freehold.health.model.view import Gpu, Gpus, Kernel, KernelLine, Reading, State, View
from freehold.health.registry import all_probes
from healthy_node import healthy_views

NODE = healthy_views(3)
H, D, U, N, NA = (
    Verdict.HEALTHY,
    Verdict.DEGRADED,
    Verdict.UNHEALTHY,
    Verdict.UNKNOWN,
    Verdict.NOT_APPLICABLE,
)
Change = Mapping[str, Any]


def reading(value: Any) -> Reading:
    return value if isinstance(value, Reading) else Reading(value=value)


def with_gpu(views: Sequence[View], change: Change, *, gpu: int | None = 0, since: int = 0) -> list[View]:
    """Return the views with readings changed on one GPU, or on all; a callable value is given the view's number."""
    out = list(views[:since])
    for number, view in enumerate(views[since:], start=since):
        assert view.gpus is not None
        values = {
            name: reading(value(number) if callable(value) else value) for name, value in change.items()
        }
        gpus = tuple(
            msgspec.structs.replace(one, readings={**one.readings, **values})
            if gpu in (None, one.index)
            else one
            for one in view.gpus.gpus
        )
        out.append(msgspec.structs.replace(view, gpus=msgspec.structs.replace(view.gpus, gpus=gpus)))
    return out


def with_gpus(views: Sequence[View], since: int = 0, **change: Any) -> list[View]:
    changed = [
        msgspec.structs.replace(view, gpus=msgspec.structs.replace(view.gpus, **change))
        for view in views[since:]
    ]
    return [*views[:since], *changed]


def without_gpu(views: Sequence[View], since: int) -> list[View]:
    last = views[-1].gpus
    assert last is not None
    return with_gpus(views, since, gpus=last.gpus[:-1])


def ask(probe: str, views: Sequence[View], expected: Expected | None = None) -> dict[str, Finding]:
    findings = all_probes()[probe].check(views, expected or Expected())
    return {
        finding.component[-1] if ":" in finding.component else finding.component: finding
        for finding in findings
    }


def said(probe: str, change: Change, *, gpu: int | None = 0, since: int = 0) -> tuple[Verdict, str, Action]:
    finding = ask(probe, with_gpu(NODE, change, gpu=gpu, since=since))["1"]
    return finding.verdict, finding.reason, finding.action


NO_TIME = dict.fromkeys(("power_brake_ns", "hw_thermal_ns", "sw_thermal_ns"), State.UNSUPPORTED)
OLD = {name: Reading(state=state) for name, state in NO_TIME.items()}

ONE_FAULT: list[tuple[str, Change, int, tuple[Verdict, str, Action]]] = [
    ("gpu_temperature", {"margin_c": -3}, 0, (U, "past_slowdown", Action.INSPECT_HARDWARE)),
    ("gpu_temperature", {"margin_c": 0}, 0, (D, "near_slowdown", Action.WATCH)),
    ("gpu_temperature", {"margin_c": 1}, 0, (H, "ok", Action.NONE)),
    ("gpu_temperature", {"memory_temp_c": 95}, 0, (D, "memory_hot", Action.WATCH)),
    ("gpu_throttle", {"hw_thermal_ns": lambda n: n * 10**9}, 0, (D, "hw_thermal", Action.INSPECT_HARDWARE)),
    ("gpu_throttle", {"hw_thermal_ns": lambda n: n * 9 * 10**9}, 0, (U, "hw_thermal", Action.INSPECT_HARDWARE)),
    ("gpu_throttle", {"power_brake_ns": lambda n: n * 10**9}, 0, (D, "power_brake", Action.CHECK_FACILITY)),
    ("gpu_throttle", {"sw_thermal_ns": lambda n: n * 10**9}, 0, (D, "sw_thermal", Action.WATCH)),
    ("gpu_throttle", {"hw_thermal_ns": 5 * 10**12}, 0, (H, "ok", Action.NONE)),
    ("gpu_throttle", {"power_cap_ns": lambda n: n * 10**10}, 0, (H, "ok", Action.NONE)),
    ("gpu_throttle", {**OLD, "throttle_bits": 0x48}, 0, (D, "hw_thermal", Action.INSPECT_HARDWARE)),
    ("gpu_throttle", {**OLD, "throttle_bits": 4}, 0, (H, "ok", Action.NONE)),
    ("gpu_throttle", {"throttle_bits": 8}, 0, (D, "hw_slowdown", Action.INSPECT_HARDWARE)),
    ("gpu_throttle", {"throttle_bits": 8}, 25, (H, "ok", Action.NONE)),
    ("gpu_throttle", {"throttle_bits": 0, "sm_clock_mhz": 700}, 0, (D, "slow_clock", Action.WATCH)),
    ("gpu_throttle", {"throttle_bits": 2, "sm_clock_mhz": 700}, 0, (H, "ok", Action.NONE)),
    ("gpu_memory", {"ecc_volatile_uncorrected": 1}, 29, (U, "uncorrectable_ecc", Action.RESET_GPU)),
    ("gpu_memory", {"ecc_sram_volatile_uncorrected": 1}, 29, (U, "uncorrectable_sram", Action.INSPECT_HARDWARE)),
    ("gpu_memory", {"sram_threshold_exceeded": 1}, 29, (U, "sram_threshold_exceeded", Action.REPLACE_HARDWARE)),
    ("gpu_memory", {"row_remap_failure": 1}, 29, (U, "row_remap_failure", Action.REPLACE_HARDWARE)),
    ("gpu_memory", {"row_remap_pending": 1}, 29, (D, "row_remap_pending", Action.RESET_GPU)),
    ("gpu_memory", {"row_remap_uncorrected": 512}, 0, (D, "many_remapped_rows", Action.INSPECT_HARDWARE)),
    ("gpu_memory", {"row_remap_uncorrected": 511}, 0, (H, "ok", Action.NONE)),
    ("gpu_memory", {"row_remap_banks_none": 1}, 0, (D, "no_spare_rows", Action.WATCH)),
    ("gpu_memory", {"ecc_mode": 0}, 0, (D, "ecc_off", Action.FIX_CONFIGURATION)),
    ("gpu_memory", {"ecc_volatile_corrected": lambda n: 20 * n}, 0, (D, "corrected_errors_outlier", Action.WATCH)),
    ("gpu_memory", {"ecc_volatile_corrected": lambda n: 2 * n}, 0, (H, "ok", Action.NONE)),
    ("gpu_memory", {"ecc_dram_volatile_corrected": 3 * 10**7}, 0, (D, "many_corrected_errors", Action.WATCH)),
    ("gpu_memory", {"retired_pages_corrected": 40, "retired_pages_uncorrected": 23}, 0, (U, "too_many_retired_pages", Action.REPLACE_HARDWARE)),
    ("gpu_memory", {"retired_pages_corrected": 0, "retired_pages_uncorrected": lambda n: n}, 0, (U, "pages_growing", Action.REPLACE_HARDWARE)),
    ("gpu_memory", {"retired_pages_corrected": 0, "retired_pages_uncorrected": 20}, 0, (H, "ok", Action.NONE)),
    ("gpu_memory", {"retired_pages_pending": 1}, 0, (D, "page_retirement_pending", Action.RESET_GPU)),
    ("gpu_pcie", {"pcie_width": 8}, 0, (D, "narrow_link", Action.INSPECT_HARDWARE)),
    ("gpu_pcie", {"pcie_gen": 3}, 0, (D, "slow_link", Action.INSPECT_HARDWARE)),
    ("gpu_pcie", {"pcie_gen": 1, "utilisation_percent": 0}, 0, (H, "ok", Action.NONE)),
    ("gpu_pcie", {"pcie_gen": 1}, 28, (H, "ok", Action.NONE)),
    ("gpu_pcie", {"pcie_replays": lambda n: 6 * n}, 0, (D, "replays", Action.INSPECT_HARDWARE)),
    ("gpu_pcie", {"pcie_replays": lambda n: 5 * n}, 0, (H, "ok", Action.NONE)),
    ("gpu_pcie", {"pcie_fatal_errors": lambda n: n // 29}, 0, (U, "fatal_errors", Action.INSPECT_HARDWARE)),
    ("gpu_pcie", {"pcie_non_fatal_errors": lambda n: n // 29}, 0, (D, "non_fatal_errors", Action.INSPECT_HARDWARE)),
    ("gpu_nvlink", {"nvlink_up": 17, "nvlink_down": "4"}, 20, (U, "link_down", Action.INSPECT_HARDWARE)),
    ("gpu_nvlink", {"nvlink_up": 17, "nvlink_down": "4"}, 0, (U, "link_down", Action.INSPECT_HARDWARE)),
    ("gpu_nvlink", {"nvlink_up": 0, "nvlink_down": "0,1"}, 20, (U, "link_down", Action.INSPECT_HARDWARE)),
    ("gpu_nvlink", {"nvlink_up": 0, "nvlink_down": "0,1"}, 0, (D, "no_links", Action.CHECK_CABLE)),
    ("gpu_nvlink", {"nvlink_replay_errors": 7}, 0, (H, "ok", Action.NONE)),
    ("gpu_nvlink", {"nvlink_replay_errors": 1}, 29, (D, "replay_errors", Action.CHECK_CABLE)),
    ("gpu_nvlink", {"nvlink_failed_recoveries": 1}, 29, (U, "failed_recoveries", Action.INSPECT_HARDWARE)),
    ("gpu_nvlink", {"nvlink_crc_errors": lambda n: 900 * n}, 0, (H, "ok", Action.NONE)),
    ("gpu_nvlink", {"nvlink_crc_errors": lambda n: 1100 * n}, 0, (D, "crc_errors", Action.CHECK_CABLE)),
    ("gpu_power", {"power_limit_w": 500.0}, 0, (D, "capped", Action.FIX_CONFIGURATION)),
    ("gpu_power", {"energy_mj": 7}, 0, (D, "stuck", Action.WATCH)),
    ("gpu_power", {"power_w": Reading(state=State.UNKNOWN)}, 0, (N, "unreadable", Action.WATCH)),
    ("gpu_present", {"recovery_action": 1}, 29, (U, "recovery_action", Action.RESET_GPU)),
    ("gpu_present", {"recovery_action": 2}, 29, (U, "recovery_action", Action.REBOOT)),
    ("gpu_present", {"recovery_action": 6}, 29, (U, "recovery_action", Action.RESET_GPU)),  # as XID 154 says
    ("gpu_present", {"recovery_action": 99}, 29, (U, "recovery_action", Action.DRAIN)),
    ("gpu_present", {"power_w": Reading(state=State.RESET_REQUIRED)}, 29, (U, "reset_required", Action.RESET_GPU)),
    ("gpu_present", {"power_w": Reading(state=State.LOST)}, 29, (U, "lost", Action.CORDON)),
    ("gpu_present", {"recovery_action": Reading(state=State.UNSUPPORTED)}, 0, (H, "ok", Action.NONE)),
]  # fmt: skip


@pytest.mark.parametrize(("probe", "change", "since", "answer"), ONE_FAULT, ids=lambda item: str(item)[:48])
def test_one_gpu(probe: str, change: Change, since: int, answer: tuple[Verdict, str, Action]) -> None:
    assert said(probe, change, since=since) == answer
    others = [
        finding.verdict
        for key, finding in ask(probe, with_gpu(NODE, change, since=since)).items()
        if key in "23"
    ]
    assert others == [H, H]


@pytest.mark.parametrize(
    ("probe", "change", "reason"),
    [
        ("gpu_temperature", {"margin_c": -3}, "past_slowdown"),
        ("gpu_throttle", {"hw_thermal_ns": lambda n: n * 10**9, "throttle_bits": 0x48}, "hw_thermal"),
    ],
)
def test_heat_on_all_gpus_is_the_facilitys(probe: str, change: Change, reason: str) -> None:
    assert said(probe, change, gpu=None)[1:] == (reason, Action.CHECK_FACILITY)
    assert "all GPUs" in ask(probe, with_gpu(NODE, change, gpu=None))["1"].message
    alone = with_gpu(healthy_views(1), change)
    assert ask(probe, alone)["1"].action is Action.INSPECT_HARDWARE


def test_corrected_errors_on_all_gpus_are_no_outlier() -> None:
    assert said("gpu_memory", {"ecc_volatile_corrected": lambda n: 20 * n}, gpu=None)[0] is H


def test_a_card_without_offsets_is_judged_by_its_threshold() -> None:
    """An A100 has neither; its slowdown threshold and temperature stand in."""
    none = Reading(state=State.UNSUPPORTED)
    old = {"margin_c": none, "slowdown_tlimit_c": none, "slowdown_threshold_c": 89}
    assert said("gpu_temperature", {**old, "temperature_c": 80})[0] is H
    assert said("gpu_temperature", {**old, "temperature_c": 88})[:2] == (D, "near_slowdown")
    assert said("gpu_temperature", {**old, "temperature_c": 90})[:2] == (U, "past_slowdown")
    bare = {
        **old,
        "slowdown_threshold_c": none,
        "temperature_c": none,
        "memory_temp_c": none,
        "memory_max_threshold_c": none,
    }
    assert said("gpu_temperature", bare)[0] is NA


def test_a_worse_fault_wins_and_carries_the_evidence_of_all() -> None:
    finding = ask("gpu_memory", with_gpu(NODE, {"row_remap_failure": 1, "row_remap_pending": 1}))["1"]
    assert (finding.verdict, finding.reason) == (U, "row_remap_failure")
    assert {item.what for item in finding.evidence} == {"row_remap_failure", "row_remap_pending"}


def test_a_fault_is_told_although_another_reading_failed() -> None:
    change = {"row_remap_failure": 1, "ecc_mode": Reading(state=State.HUNG)}
    assert said("gpu_memory", change)[:2] == (U, "row_remap_failure")


def test_busy_at_idle_power_needs_five_looks_and_no_moving_engine() -> None:
    hung = {"utilisation_percent": 100, "power_w": 124.5}
    frozen = [msgspec.structs.replace(view, engines=None) for view in NODE]
    assert ask("gpu_power", with_gpu(frozen, hung))["1"].reason == "busy_at_idle_power"
    assert ask("gpu_power", with_gpu(frozen, hung, since=26))["1"].reason == "ok"
    assert ask("gpu_power", with_gpu(frozen, {**hung, "power_w": 172.0}))["1"].reason == "ok"
    assert ask("gpu_power", with_gpu(NODE, hung))["1"].reason == "ok"


def test_another_model_has_another_number_of_links() -> None:
    assert NODE[-1].gpus is not None
    first, *rest = NODE[-1].gpus.gpus
    fewer = {**first.readings, "nvlink_up": Reading(value=12)}
    other = msgspec.structs.replace(first, name="NVIDIA A100-SXM4-80GB", readings=fewer)
    mixed = with_gpus(NODE, gpus=(other, *rest))
    assert {finding.verdict for finding in ask("gpu_nvlink", mixed).values()} == {H}


def test_a_counter_that_began_anew_is_no_fall_and_no_jump() -> None:
    values = [100, 103, 0, 2]
    views = with_gpu(NODE[:4], {"nvlink_replay_errors": lambda n: values[n]})
    assert "+5 in 30 s" in ask("gpu_nvlink", views)["1"].message


def test_a_reboot_begins_the_window_anew() -> None:
    views = with_gpu(NODE, {"nvlink_replay_errors": lambda n: n})
    booted = msgspec.structs.replace(views[-1], monotonic_s=1.0, at_s=views[-1].at_s + 90)
    assert ask("gpu_nvlink", [*views, booted])["1"].verdict is H


def test_what_a_healthy_link_may_repeat() -> None:
    assert (replays_allowed_per_minute(4, 16), replays_allowed_per_minute(5, 16)) == (16, 31)
    assert replays_allowed_per_minute(9, 16) is None


def count(views: Sequence[View], expected: Expected | None = None) -> tuple[Verdict, str]:
    finding = ask("gpu_present", views, expected)["gpus"]
    return finding.verdict, finding.reason


def test_gpus_are_counted_against_what_should_be_there() -> None:
    assert count(NODE, Expected(gpus=3)) == (H, "ok")
    assert count(NODE, Expected(gpus=4)) == (U, "missing")
    assert count(NODE, Expected(gpus=2)) == (D, "more_than_expected")
    assert count(without_gpu(NODE, 0)) == (D, "not_in_driver")
    assert count(without_gpu(NODE, 0), Expected(gpus=2)) == (H, "ok")
    assert count(without_gpu(NODE, 20)) == (U, "gone")
    assert count(without_gpu(with_gpus(NODE, 0, most=3), 0)) == (U, "gone")  # long ago, out of the window
    bus = NODE[-1].gpus.pci_addresses[:2] if NODE[-1].gpus else ()
    assert count(with_gpus(NODE, 20, pci_addresses=bus)) == (U, "off_the_bus")
    lost = dict.fromkeys(NODE[-1].gpus.gpus[0].readings if NODE[-1].gpus else (), Reading(state=State.LOST))
    assert count(with_gpu(NODE, lost, since=29), Expected(gpus=3)) == (U, "missing")


@pytest.mark.parametrize(
    ("name", "model", "verdict", "reason"),
    [
        ("NVIDIA H100 80GB HBM3", "H100", H, "ok"),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb", H, "ok"),  # in whatever case, with whatever between
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3", H, "ok"),
        ("NVIDIA H100 80GB HBM3", "H200", D, "other_model"),
        ("NVIDIA H100 NVL", "H100 80GB", D, "other_model"),
        ("NVIDIA A100-SXM4-40GB", "A10", D, "other_model"),  # a word is a whole word
        ("", "H100", N, "unreadable"),  # not healthy: nobody knows
        ("", None, H, "ok"),
    ],
)
def test_gpus_are_of_the_model_that_they_should_be(
    name: str, model: str | None, verdict: Verdict, reason: str
) -> None:
    last = NODE[-1].gpus
    assert last is not None
    gpus = tuple(msgspec.structs.replace(gpu, name=name) for gpu in last.gpus)
    views = bare(msgspec.structs.replace(last, gpus=gpus))
    for component, finding in ask("gpu_present", views, Expected(gpu_model=model)).items():
        if component != "gpus":
            assert (finding.verdict, finding.reason) == (verdict, reason)
            assert (model or "") in finding.message or verdict is H


NO_GPUS = Gpus(state=State.ABSENT, detail="libnvidia-ml.so.1 was not found")


def bare(gpus: Gpus) -> list[View]:
    return [View(at_s=1.0, monotonic_s=1.0, gpus=gpus)]


@pytest.mark.parametrize(
    "probe",
    [name for name, probe in all_probes().items() if probe.reads[0] == "gpus"],
)
def test_a_node_without_gpus_is_not_applicable_unless_some_are_expected(probe: str) -> None:
    (nothing,) = all_probes()[probe].check(bare(NO_GPUS), Expected())
    assert (nothing.verdict, nothing.reason) == (NA, "no_gpu")
    on_bus = msgspec.structs.replace(NO_GPUS, pci_addresses=("00000000:00:06.0",))
    (silent,) = all_probes()[probe].check(bare(on_bus), Expected())
    assert silent.verdict is N
    (missing,) = all_probes()[probe].check(bare(NO_GPUS), Expected(gpus=1))
    assert missing.verdict in (N, U)
    for state in (State.HUNG, State.DENIED, State.UNKNOWN):
        (unread,) = all_probes()[probe].check(bare(Gpus(state=state, detail="x")), Expected())
        assert unread.verdict is N


@pytest.mark.parametrize("probe", [name for name, probe in all_probes().items() if "gpus" in probe.reads])
def test_a_driver_that_is_loaded_without_its_library_is_no_node_without_gpus(probe: str) -> None:
    """As in a container that was given half: nothing on the bus is seen there either."""
    half = msgspec.structs.replace(NO_GPUS, driver={"module_version": Reading(value="580.159.04")})
    view = msgspec.structs.replace(bare(half)[0], kernel=Kernel())
    if probe != "engine_progress":
        assert {found.verdict for found in all_probes()[probe].check([view], Expected())} == {N}


def test_a_view_without_gpus_is_no_news_for_a_while() -> None:
    """Parts are read at paces of their own: the newest view may have others alone."""
    last = NODE[-1]
    for later_s, verdict in ((2.0, H), (59.0, H), (61.0, N)):
        bare_view = View(at_s=last.at_s + later_s, monotonic_s=last.monotonic_s + later_s, node=last.node)
        for probe in ("gpu_memory", "driver", "gpu_present", "gpu_power"):
            findings = all_probes()[probe].check([*NODE, bare_view], Expected())
            assert {finding.verdict for finding in findings} == {verdict}, (probe, later_s)


def test_a_hung_library_is_unknown_with_the_call() -> None:
    gpu = Gpu(index=0, uuid="GPU-1", readings={"power_w": Reading(state=State.HUNG, detail="x")})
    gpus = Gpus(state=State.HUNG, detail="nvmlDeviceGetPowerUsage of GPU 0 did not return", gpus=(gpu,))
    found = ask("gpu_present", bare(gpus))
    assert (found["gpus"].verdict, found["gpus"].reason) == (N, "hung")
    assert "nvmlDeviceGetPowerUsage" in found["gpus"].message
    assert found["1"].verdict is N


def driver(**change: Any) -> tuple[Verdict, str, Action]:
    expected = Expected(driver_version=change.pop("locked", None), gpus=change.pop("expected_gpus", None))
    last = NODE[-1].gpus
    assert last is not None
    versions = {name: reading(value) for name, value in change.pop("driver", {}).items()}
    gpus = msgspec.structs.replace(last, driver={**last.driver, **versions}, **change)
    (finding,) = all_probes()["driver"].check(bare(gpus), expected)
    return finding.verdict, finding.reason, finding.action


MISMATCH = (
    "NVRM: API mismatch: the client 'kwin_wayland' (pid 1005)\nNVRM: has the version 595.84, but this kernel module has\n"
    "NVRM: the version 580.159.04.  Please make sure that this\nNVRM: kernel module and all NVIDIA driver components\n"
    "NVRM: have the same version."
)
LOADED = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue Mar  5 22:23:56 UTC 2024"


def refused(*lines: tuple[float, str], **change: Any) -> Finding:
    last = NODE[-1].gpus
    assert last is not None
    kernel = Kernel(lines=tuple(KernelLine(at_s=at_s, text=text) for at_s, text in lines))
    view = View(at_s=5000.0, monotonic_s=1.0, gpus=msgspec.structs.replace(last, **change), kernel=kernel)
    (finding,) = all_probes()["driver"].check([view], Expected())
    return finding


def test_a_program_with_a_library_of_its_own_is_named() -> None:
    finding = refused((4990.0, "NVRM: loading nothing"), (4995.0, MISMATCH))
    assert (finding.verdict, finding.reason, finding.action) == (
        D,
        "client_mismatch",
        Action.FIX_CONFIGURATION,
    )
    assert "kwin_wayland (pid 1005)" in finding.message
    assert "595.84" in finding.message
    assert finding.evidence[-1].source == "kernel log"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([(5000.0 - 3601, MISMATCH)], "ok"),  # long ago
        ([(4990.0, MISMATCH), (4995.0, LOADED)], "ok"),  # the module was loaded anew
        ([(4990.0, LOADED), (4995.0, MISMATCH)], "client_mismatch"),
        ([(4995.0, MISMATCH.partition("\n")[0])], "client_mismatch"),  # the rest was lost
    ],
)
def test_when_a_refused_program_counts(lines: list[tuple[float, str]], reason: str) -> None:
    assert refused(*lines).reason == reason


def test_a_refused_program_is_no_more_than_evidence_where_the_node_itself_is_wrong() -> None:
    finding = refused((4995.0, MISMATCH), state=State.MISMATCH)
    assert (finding.verdict, finding.reason) == (U, "mismatch")
    assert "kwin_wayland" in finding.evidence[-1].value
    # Without NVML the log alone says it: not unknown, and not healthy.
    assert refused((4995.0, MISMATCH), state=State.HUNG).reason == "client_mismatch"


def test_versions_of_the_driver() -> None:
    assert driver() == (H, "ok", Action.NONE)
    assert driver(locked="580.159.04")[0] is H
    assert driver(locked="570.1.2") == (D, "not_as_locked", Action.FIX_CONFIGURATION)
    assert driver(driver={"disk_version": "590.1.2"}) == (D, "pending_upgrade", Action.REBOOT)
    assert driver(driver={"disk_version": "580.159.04,590.1.2"})[0] is H
    assert driver(driver={"disk_version": Reading(state=State.ABSENT)})[0] is H
    assert driver(driver={"module_version": "590.1.2"}) == (U, "mismatch", Action.REBOOT)
    assert driver(state=State.MISMATCH) == (U, "mismatch", Action.REBOOT)
    absent = {name: Reading(state=State.ABSENT) for name in ("driver_version", "module_version")}
    assert driver(state=State.ABSENT, driver=absent)[:2] == (N, "not_loaded")
    assert driver(state=State.ABSENT, driver=absent, locked="580.159.04")[:2] == (U, "not_loaded")
