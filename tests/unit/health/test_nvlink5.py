"""XID 144 to 150 by their words: NVIDIA's table, what it does not have, and the driver's own word Fatal."""

import pytest

from freehold.catalog.load_evidence import load_evidence
from freehold.catalog.load_xids import nvlink5_rules, xid
from freehold.core.findings import Action, Verdict
from freehold.health.checks.gpu_xid import PROBE
from freehold.health.evidence.log_patterns import finding_sign
from freehold.health.judge.xid import judge_gpu
from freehold.health.kernel_log import nvlink5
from freehold.health.kernel_log.events import KernelEvent, read_events
from freehold.health.kernel_log.xid_judgement import judge_xid
from freehold.health.model.view import KernelLine

H, D, U = Verdict.HEALTHY, Verdict.DEGRADED, Verdict.UNHEALTHY


def line(number: int, words: str, *, at_s: float = 1000.0) -> KernelEvent:
    text = f"NVRM: Xid (PCI:0000:9b:00): {number}, {words}"
    (event,) = read_events([KernelLine(at_s=at_s, text=text)])
    return event


# The line, the verdict, the reason, the first action. Lines of field reports say where they are from.
LINES = [
    (149, "NETIR_LINK_DOWN Fatal XC0 i0 Link 14 (0x004505c6 0x00000000 0x0 0x0 0x0 0x0)", U, "nvlink_signal", Action.RESET_GPU),  # marin issue 8934
    (149, "NETIR_LINK_EVT Fatal XC0 i0 Link 00 (0x025001c6 0x00000000 0x0 0x0 0x0 0x0)", U, "nvlink_peer", Action.RESET_GPU),  # open-gpu-kernel-modules issue 1150
    (145, "RLW_RXPIPE Nonfatal XC0 i0 Link 11 (0x0409a0c2 0x00000008 0x1 0x0 0x100000 0x4)", D, "nvlink_non_fatal", Action.WATCH),  # nccl issue 2241
    (145, "RLW_RXPIPE Fatal XC0 i0 Link 3 (0x0409a0c2 0x00000008 0x1 0x0 0x100000 0x4)", U, "link_xid", Action.RESET_GPU),  # open-gpu-kernel-modules issue 1355
    (149, "NETIR_LINK_DOWN Fatal XC0 i0 Link 14 (0x00f00011 0x00000000)", U, "nvlink_taken_down", Action.RESET_GPU),  # since R575
    (149, "NETIR_LINK_DOWN Fatal XC0 i0 Link 14 (0x02600011 0x00000000)", D, "nvlink_taken_down", Action.WATCH),
    (149, "NETIR_LINK_DOWN Fatal XC0 i0 Link 14 (0x00000011 0x00000000)", U, "link_xid", Action.RESET_GPU),
    (149, "NETIR_BER_EVENT Nonfatal XC0 i0 Link 02 (0x00000013 0x00000002)", D, "nvlink_signal", Action.CHECK_CABLE),
    (149, "NETIR_MFDE_EVENT Nonfatal XC0 i0 Link 02 (0x00000014 0x00000003)", H, "nvlink_corrected", Action.NONE),
    (149, "NETIR_MFDE_EVENT Fatal XC0 i0 Link 02 (0x00000246 0x00000001)", U, "link_xid", Action.RESET_GPU),
    (144, "SAW_MVB Nonfatal XC0 i0 Link -1 (0x00000021 0x00000004)", H, "nvlink_corrected", Action.NONE),
    (144, "SAW_MVB Nonfatal XC0 i0 Link -1 (0x00000001 0x00000002)", U, "link_xid", Action.RESET_GPU),  # the table is graver than the line
    (145, "RLW_REMAP Nonfatal XC1 i0 Link 03 (0x00000004 0x00000008)", D, "nvlink_program", Action.RESTART_ENGINE),
    (145, "RLW_RXPIPE Nonfatal XC0 i0 Link 03 (0x00000006 0x00000001)", D, "nvlink_non_fatal", Action.WATCH),
    (145, "RLW_RXPIPE Fatal XC0 i0 Link 03 (0x00000086 0x00000001)", U, "link_xid", Action.RESET_GPU),  # promoted, since R575
    (145, "RLW_RXPIPE Fatal XC0 i0 Link 03 (0x000004c2 0x00000001)", U, "link_xid", Action.RESET_GPU),  # promoted, before
    (146, "TLW_RX_PIPE1 Nonfatal XC0 i0 Link 03 (0x0000000b 0x00000001)", H, "nvlink_corrected", Action.NONE),
    (150, "MSE_WATCHDOG Fatal XC0 i0 Link -1 (0x00000000 0x00000000)", U, "link_xid", Action.RESET_GPU),
    (150, "MSE Degraded Fatal XC0 i0 Link -1 (0x00000000 0xffffffff)", U, "link_xid", Action.RESET_GPU),
    # What cannot be decoded stays what the line says as a whole.
    (149, "NETIR_LINK_DOWN Fatal XC0 i0 Link 14 (0x03f00011 0x00000000)", U, "link_xid", Action.RESET_GPU),  # no such reason
    (145, "RLW_REMAP Nonfatal XC0 i0 Link 03 (0x00000004 0x00000003)", D, "nvlink_non_fatal", Action.WATCH),  # two statuses at once
    (145, "RLW_REMAP Fatal XC0 i0 Link 03 (0x0000007f 0x00000001)", U, "link_xid", Action.RESET_GPU),  # no such unit
    (149, "something without words", U, "link_xid", Action.RESET_GPU),
]  # fmt: skip


@pytest.mark.parametrize(("number", "words", "verdict", "reason", "action"), LINES)
def test_a_line_is_what_its_words_say(
    number: int, words: str, verdict: Verdict, reason: str, action: Action
) -> None:
    judged = judge_gpu([line(number, words)])
    assert (judged.verdict, judged.reason, judged.action) == (verdict, reason, action)
    assert reason in PROBE.reasons


def test_a_repeated_fault_of_a_link_leads_to_its_cable_or_the_card() -> None:
    signal = [line(149, LINES[0][1], at_s=at_s) for at_s in (1000.0, 5000.0)]
    assert judge_gpu(signal).action is Action.CHECK_CABLE
    card = [
        line(144, "SAW_MVB Fatal XC0 i0 Link 01 (0x00000001 0x00000002)", at_s=at_s)
        for at_s in (1000.0, 5000.0)
    ]
    assert judge_gpu(card).action is Action.INSPECT_HARDWARE
    software = [
        line(145, "RLW_RXPIPE Fatal XC0 i0 Link 03 (0x00000086 0x1)", at_s=at_s) for at_s in (1000.0, 5000.0)
    ]
    assert (
        judge_gpu(software).action is Action.RESET_GPU
    )  # NVIDIA blames software: no card is inspected for it


def test_of_several_lines_the_worst_counts() -> None:
    lines = [line(149, LINES[n][1], at_s=1000.0 + n) for n in (8, 0, 7)]
    assert judge_gpu(lines).reason == "nvlink_signal"
    assert judge_gpu(lines).verdict is U


@pytest.mark.parametrize(
    ("number", "words", "why"),
    [
        (149, "something", "no interrupt information"),
        (145, "RLW_REMAP Fatal XC0 i0 Link 03 (0x0000007f 0x00000001)", "no unit"),
        (145, "RLW_REMAP Fatal XC0 i0 Link 03 (0x00000004 0x00000003)", "no row for RLW_REMAP"),
        (145, "RLW_RXPIPE Fatal XC0 i0 Link 3 (0x0409a0c2 0x00000008)", "the line says Fatal"),
    ],
)
def test_what_cannot_be_decoded_is_said(number: int, words: str, why: str) -> None:
    assert why in judge_gpu([line(number, words)]).message


def test_every_row_of_the_table_reads_back_in_both_layouts() -> None:
    for number, rules in nvlink5_rules().items():
        for rule in rules:
            for low, bit in ((rule.v1, 10), (rule.v2, 7)):
                for down in rule.down:
                    for status in rule.status or {0, 5}:
                        info = low | down << 20 | (bool(rule.promoted) << bit)
                        found = nvlink5.decode(number, {"word0": hex(info), "word1": hex(status)}).rule
                        assert found is not None
                        # TLW_RX and TLW_TX: before R575 both pipes have one word, and one meaning.
                        same = (rule.immediate, rule.investigatory, rule.severity, rule.blames)
                        assert (found.immediate, found.investigatory, found.severity, found.blames) == same


def test_what_the_words_blame_is_the_sign_of_the_diagnosis() -> None:
    signs = {words: judge_xid(number, line(number, words).fields).sign for number, words, *_ in LINES}
    named = set(signs.values()) - {"nvlink_unclear"}
    assert named == {"nvlink_hardware", "nvlink_software", "nvlink_peer", "nvlink_corrected"}
    assert named <= set(load_evidence().signs)
    assert signs[LINES[0][1]] == "nvlink_hardware"
    assert signs[LINES[1][1]] == "nvlink_peer"
    assert signs[LINES[3][1]] == "nvlink_unclear"  # the line and the table contradict each other


@pytest.mark.parametrize(
    "reason", ["nvlink_signal", "nvlink_peer", "nvlink_taken_down", "nvlink_program", "nvlink_non_fatal"]
)
def test_a_finding_of_each_reason_is_a_sign(reason: str) -> None:
    sign = finding_sign("gpu_xid", reason.replace("_", " "))
    assert sign not in (None, "unknown_xid")


def test_the_xid_itself_stays_a_link() -> None:
    assert {xid(number).kind for number in nvlink5.NUMBERS} == {"link"}
