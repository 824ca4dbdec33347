"""The probe on XIDs: programs' mistakes are not the GPU's, disputes are told, and no data is never healthy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.catalog.load_xids import xids
from freehold.core.findings import Action, Finding, Verdict
from freehold.health.checks.gpu_xid import PROBE
from freehold.health.model.probe import Expected
from freehold.health.model.view import Gpu, Gpus, Kernel, KernelLine, State, View

NOW_S = 1_000_000.0
ADDRESS, OTHER = "0000:9b:00", "0000:c4:00"
GPUS = Gpus(
    gpus=(
        Gpu(index=0, uuid="GPU-a", pci="00000000:9B:00.0"),
        Gpu(index=1, uuid="GPU-b", pci="00000000:C4:00.0"),
    )
)
ABSENT = Gpus(state=State.ABSENT)
_COMMON = "pid=7, name=python3, "


def xid_line(number: int, rest: str = _COMMON, *, at: str = ADDRESS, ago_s: float = 10.0) -> KernelLine:
    return KernelLine(at_s=NOW_S - ago_s, text=f"NVRM: Xid (PCI:{at}): {number}, {rest}")


def told(text: str, *, ago_s: float = 10.0) -> KernelLine:
    return KernelLine(at_s=NOW_S - ago_s, text=text)


def look(*lines: KernelLine, gpus: Gpus | None = GPUS, **kernel: object) -> dict[str, Finding]:
    view = View(at_s=NOW_S, monotonic_s=1.0, gpus=gpus, kernel=Kernel(lines=lines, **kernel))
    return by_component([view])


def by_component(views: list[View]) -> dict[str, Finding]:
    found = PROBE.check(views, Expected())
    assert found
    assert len({finding.component for finding in found}) == len(found)
    assert all(finding.reason in PROBE.reasons and finding.message for finding in found)
    assert all(finding.action is Action.NONE for finding in found if finding.verdict is Verdict.HEALTHY)
    return {finding.component: finding for finding in found}


def first(*lines: KernelLine) -> tuple[Verdict, str, Action]:
    found = look(*lines)
    assert found["gpu:GPU-b"].verdict is Verdict.HEALTHY
    return found["gpu:GPU-a"].verdict, found["gpu:GPU-a"].reason, found["gpu:GPU-a"].action


def test_a_quiet_log_is_healthy_for_each_gpu() -> None:
    assert {name: each.verdict for name, each in look().items()} == {
        "gpu:GPU-a": Verdict.HEALTHY,
        "gpu:GPU-b": Verdict.HEALTHY,
    }


@pytest.mark.parametrize("number", [13, 31, 43, 45, 8, 69, 80, 14, 106])
def test_one_mistake_of_a_program_is_not_the_gpu_s(number: int) -> None:
    verdict, reason, _ = first(xid_line(number))
    assert verdict is Verdict.HEALTHY
    assert reason in {"application_error", "harmless_xid"}


@pytest.mark.parametrize("number", [43, 45])
def test_some_are_never_the_gpu_s_however_often(number: int) -> None:
    assert first(*(xid_line(number, ago_s=600.0 * n + 1) for n in range(20)))[0] is Verdict.HEALTHY


def test_xid_31_again_on_this_gpu_alone_is_worth_a_look_and_no_more() -> None:
    again = [xid_line(31, ago_s=5000), xid_line(31)]
    assert first(*again) == (Verdict.DEGRADED, "repeats_on_this_gpu", Action.WATCH)
    assert first(xid_line(31, ago_s=60), xid_line(31))[0] is Verdict.HEALTHY  # one incident
    both = look(*again, xid_line(31, at=OTHER, ago_s=300))
    assert both["gpu:GPU-a"].verdict is Verdict.HEALTHY
    assert both["gpu:GPU-b"].verdict is Verdict.HEALTHY


def test_xid_13_counts_by_gpc_and_tpc() -> None:
    def at(gpc: int, ago_s: float, sm: int = 0) -> KernelLine:
        return xid_line(
            13, f"Graphics SM Warp Exception on (GPC {gpc}, TPC 1, SM {sm}): Illegal", ago_s=ago_s
        )

    assert first(at(1, 500), at(2, 100))[0] is Verdict.HEALTHY
    assert first(*(at(1, 100 - sm, sm) for sm in range(12)))[0] is Verdict.HEALTHY  # one burst
    assert first(at(1, 500), at(1, 100))[0] is Verdict.DEGRADED


@pytest.mark.parametrize(
    ("number", "reason", "action"),
    [
        (48, "memory_xid", Action.RESET_GPU),
        (95, "memory_xid", Action.RESET_GPU),
        (64, "memory_xid", Action.RESET_GPU),
        (79, "off_bus", Action.CORDON),
        (167, "off_bus", Action.CORDON),
        (119, "firmware_xid", Action.RESET_GPU),
        (62, "firmware_xid", Action.RESET_GPU),
        (54, "power_xid", Action.CORDON),
        (143, "hardware_xid", Action.REBOOT),
        (46, "driver_xid", Action.RESET_GPU),
        (74, "link_xid", Action.RESET_GPU),
        (168, "memory_xid", Action.CORDON),
    ],
)
def test_what_is_the_gpu_s_at_once(number: int, reason: str, action: Action) -> None:
    assert first(xid_line(number)) == (Verdict.UNHEALTHY, reason, action)


@pytest.mark.parametrize(
    ("number", "action"),
    [(63, Action.DRAIN), (92, Action.WATCH), (94, Action.RESTART_ENGINE), (38, Action.WATCH), (151, Action.FIX_CONFIGURATION)],
)  # fmt: skip
def test_what_is_no_outage_is_degraded(number: int, action: Action) -> None:
    verdict, _, found = first(xid_line(number))
    assert (verdict, found) == (Verdict.DEGRADED, action)


@pytest.mark.parametrize(
    ("number", "action"),
    [(64, Action.REPLACE_HARDWARE), (48, Action.INSPECT_HARDWARE), (119, Action.REBOOT), (79, Action.INSPECT_HARDWARE), (109, Action.RESET_GPU), (39, Action.INSPECT_HARDWARE)],
)  # fmt: skip
def test_what_comes_back_asks_for_more(number: int, action: Action) -> None:
    assert first(xid_line(number, ago_s=4000), xid_line(number))[2] is action


@pytest.mark.parametrize("number", [109, 119, 63, 94, 69, 80])
def test_disputes_are_told(number: int) -> None:
    assert "sources disagree" in look(xid_line(number))["gpu:GPU-a"].message


def test_the_driver_s_own_verdict_decides_and_clears() -> None:
    asks = xid_line(
        154, "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)", ago_s=50
    )
    back = xid_line(154, "GPU recovery action changed from 0x2 (Node Reboot Required) to 0x0 (None)", ago_s=5)
    assert first(xid_line(109, ago_s=51), asks) == (Verdict.UNHEALTHY, "recovery_action", Action.REBOOT)
    assert first(xid_line(48, ago_s=51), asks, back)[0] is Verdict.HEALTHY
    unheard_of = xid_line(154, "GPU recovery action changed from 0x0 (None) to 0x9 (Something)")
    assert first(unheard_of) == (Verdict.UNHEALTHY, "recovery_action", Action.DRAIN)


def test_a_reload_of_the_driver_ends_all_but_a_lost_gpu() -> None:
    loaded = told("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5", ago_s=5)
    assert first(xid_line(48, ago_s=50), loaded)[0] is Verdict.HEALTHY
    assert first(xid_line(79, ago_s=50), loaded)[1] == "off_bus"


@pytest.mark.parametrize(
    "text",
    [
        "NVRM: GPU 0000:9b:00.0: GPU has fallen off the bus.",
        "NVRM: The NVIDIA GPU 0000:9b:00.0\nNVRM: (PCI ID: 10de:26b5) installed in this system has\nNVRM: fallen off the bus and is not responding to commands.",
    ],
)
def test_off_the_bus_without_an_xid(text: str) -> None:
    assert first(told(text)) == (Verdict.UNHEALTHY, "off_bus", Action.CORDON)


def test_xid_79_and_its_echo_are_one_incident() -> None:
    echo = told("NVRM: GPU 0000:9b:00.0: GPU has fallen off the bus.")
    assert first(xid_line(79), echo) == (Verdict.UNHEALTHY, "off_bus", Action.CORDON)


def test_nvlink_registers_and_severity() -> None:
    def regs(word: str, ago_s: float = 10, link: int = 3) -> KernelLine:
        rest = f"NVLink: fatal error detected on link {link}({word}, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"
        return xid_line(74, rest, ago_s=ago_s)

    assert first(regs("0x600000")) == (Verdict.UNHEALTHY, "nvlink_signal", Action.CHECK_CABLE)
    assert first(regs("0x600010"))[1:] == ("link_xid", Action.RESET_GPU)
    assert first(regs("0x10", 4000), regs("0x10"))[2] is Action.INSPECT_HARDWARE
    assert first(regs("0x10", 4000, 5), regs("0x10"))[2] is Action.RESET_GPU
    assert first(regs("0x1000000000"))[1] == "link_xid"  # no register: not read as one
    spoilt = "NVLink: fatal error detected on link 3(0x10x0, 0x0, 0x0, 0x0, 0x0, 0x0)"
    assert first(xid_line(74, spoilt))[1] == "link_xid"
    mild = xid_line(145, "RLW_CTRL Nonfatal XC0 i0 Link 04 (0x4 0x0)")
    assert first(mild) == (Verdict.DEGRADED, "nvlink_non_fatal", Action.WATCH)
    bad = xid_line(149, "NETIR_LINK_EVT Fatal XC0 i0 Link 04 (0x4 0x0)")
    assert first(bad) == (Verdict.UNHEALTHY, "link_xid", Action.RESET_GPU)


def test_followers_of_another_xid_are_not_judged() -> None:
    follower = xid_line(95, "pid=7, name=x, channel 0x3, caused by previous Xid 149")
    assert first(follower)[0] is Verdict.HEALTHY


@pytest.mark.parametrize("number", [24, 7, 174, 999])
def test_a_number_that_nobody_explains_is_watched(number: int) -> None:
    assert first(xid_line(number)) == (Verdict.DEGRADED, "unknown_xid", Action.WATCH)


def test_pcie_errors_count_at_a_gpu_s_address_only() -> None:
    fatal = "pcieport 0000:97:01.0: AER: Uncorrectable (Fatal) error message received from 0000:9b:00.0"
    assert first(told(fatal)) == (Verdict.UNHEALTHY, "pcie_fatal", Action.CORDON)
    assert first(told(fatal.replace("Fatal", "Non-Fatal")))[0] is Verdict.DEGRADED
    assert first(told(fatal.replace("9b:00.0", "41:00.0")))[0] is Verdict.HEALTHY
    assert first(told(fatal.replace("Uncorrectable (Fatal)", "Correctable")))[0] is Verdict.HEALTHY


def test_a_switch_is_a_witness_of_a_lost_gpu_and_else_the_cause() -> None:
    fault = told("nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 30 LTSSM Fault Up")
    alone = look(fault)["link:nvswitch1"]
    assert (alone.verdict, alone.reason) == (Verdict.UNHEALTHY, "switch_fatal")
    beside = look(fault, xid_line(79, ago_s=20))["link:nvswitch1"]
    assert (beside.verdict, beside.reason) == (Verdict.HEALTHY, "switch_witness")
    noted = look(
        told("nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20009, Non-fatal, Link 4 RX Short Error Rate")
    )
    assert noted["link:nvswitch1"].verdict is Verdict.HEALTHY


def test_a_warm_switch_is_the_facility_s_until_it_cools() -> None:
    def said(number: int, ago_s: float) -> KernelLine:
        return told(f"nvidia-nvswitch1: SXid (PCI:0000:06:00.0): {number}, Thermal event", ago_s=ago_s)

    warm = look(said(10004, 50))["link:nvswitch1"]
    assert (warm.verdict, warm.action) == (Verdict.DEGRADED, Action.CHECK_FACILITY)
    assert look(said(10004, 50), said(10005, 20))["link:nvswitch1"].verdict is Verdict.HEALTHY


def test_evidence_names_the_line_and_its_time() -> None:
    found = look(xid_line(48, ago_s=30))["gpu:GPU-a"]
    (evidence,) = found.evidence
    assert (evidence.what, evidence.source, evidence.at_s) == ("xid 48", "kernel log", NOW_S - 30)
    assert found.at_s == NOW_S - 30


def test_without_nvml_the_log_names_the_gpus() -> None:
    named = told("NVRM: GPU at PCI:0000:9b:00: GPU-b6c3b2be-c55b-d076-fa0e-d464e4c7e08b", ago_s=100)
    found = look(named, xid_line(48), xid_line(79, at=OTHER), gpus=None)
    assert found["gpu:GPU-b6c3b2be-c55b-d076-fa0e-d464e4c7e08b"].reason == "memory_xid"
    assert found[f"gpu:{OTHER}"].reason == "off_bus"


def test_what_is_old_is_forgotten() -> None:
    assert first(xid_line(48, ago_s=90_000))[0] is Verdict.HEALTHY


def test_views_add_up() -> None:
    def view(ago_s: float, *lines: KernelLine) -> View:
        return View(at_s=NOW_S - ago_s, monotonic_s=1.0, gpus=GPUS, kernel=Kernel(lines=lines))

    views = [view(5000, xid_line(31, ago_s=5000)), view(30), view(0, xid_line(31))]
    assert by_component(views)["gpu:GPU-a"].reason == "repeats_on_this_gpu"


@pytest.mark.parametrize("state", [state for state in State if state is not State.OK])
def test_a_log_that_cannot_be_read_is_unknown(state: State) -> None:
    found = look(state=state, detail="/dev/kmsg: not permitted")
    assert {each.verdict for each in found.values()} == {Verdict.UNKNOWN}
    assert "not permitted" in found["gpu:GPU-a"].message


def test_what_was_seen_before_still_counts_when_the_log_cannot_be_read() -> None:
    found = look(xid_line(48), state=State.DENIED)
    assert found["gpu:GPU-a"].verdict is Verdict.UNHEALTHY
    assert found["gpu:GPU-b"].verdict is Verdict.UNKNOWN


def test_overwritten_records_blind_for_a_while() -> None:
    assert look(lost=3)["gpu:GPU-a"].reason == "records_lost"
    old = View(at_s=NOW_S - 700, monotonic_s=1.0, kernel=Kernel(lost=3))
    now = View(at_s=NOW_S, monotonic_s=2.0, gpus=GPUS, kernel=Kernel())
    assert by_component([old, now])["gpu:GPU-a"].verdict is Verdict.HEALTHY


def test_nothing_read_is_unknown_and_no_gpu_is_not_applicable() -> None:
    assert by_component([View(at_s=NOW_S, monotonic_s=1.0)])["gpu"].verdict is Verdict.UNKNOWN
    assert (
        by_component([View(at_s=NOW_S, monotonic_s=1.0, gpus=GPUS)])["gpu:GPU-a"].verdict is Verdict.UNKNOWN
    )
    assert look(gpus=None)["gpu"].verdict is Verdict.UNKNOWN
    assert look(gpus=ABSENT)["gpu"].verdict is Verdict.NOT_APPLICABLE
    hung = Gpus(state=State.HUNG, pci_addresses=("0000:9b:00.0",))
    assert look(gpus=hung)[f"gpu:{ADDRESS}"].verdict is Verdict.HEALTHY


@pytest.mark.parametrize("number", sorted(xids()))
def test_every_number_is_judged_once_and_again(number: int) -> None:
    for lines in ([xid_line(number)], [xid_line(number, ago_s=4000), xid_line(number)]):
        assert look(*lines)["gpu:GPU-a"].verdict in {Verdict.HEALTHY, Verdict.DEGRADED, Verdict.UNHEALTHY}


@given(st.lists(st.tuples(st.integers(0, 200), st.text(max_size=60), st.floats(0, 90_000)), max_size=6))
def test_no_lines_raise(found: list[tuple[int, str, float]]) -> None:
    look(*(xid_line(number, rest, ago_s=ago_s) for number, rest, ago_s in found))


PIECES = (
    "NVRM: Xid (PCI:0000:9b:00): 74, NVLink: fatal error detected on link 3(0x10, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)",
    "NVRM: Xid (PCI:0000:9b:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 04 (0x4 0x0)",
    "NVRM: Xid (PCI:0000:9b:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
    "NVRM: Xid (PCI:0000:9b:00): 13, Graphics SM Warp Exception on (GPC 1, TPC 1, SM 0): Illegal",
    "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
)


@st.composite
def spoilt(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(PIECES))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.text("0x,() 9f", max_size=3)) + text[at + draw(st.integers(0, 4)) :]
    return text


@given(st.lists(spoilt(), min_size=1, max_size=6))
def test_no_spoilt_line_raises(texts: list[str]) -> None:
    look(*(told(text, ago_s=400.0 * index) for index, text in enumerate(texts)))
