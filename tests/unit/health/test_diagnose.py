"""Diagnosis as a whole: direct verdicts, primary cause, escalation, boundaries; total and in no order."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.catalog.load_evidence import Hypothesis
from freehold.core.findings import Action
from freehold.health.evidence.diagnose import Diagnosis, diagnose
from freehold.health.incident_file.read import read_incident
from freehold.health.incidents.conclusions import as_past, diagnose_all, foremost

XID = "[{at:.1f}] NVRM: Xid (PCI:0000:{bus}:00): {number}, pid={pid}, name={name}, {words}"


def line(
    number: int, at: float = 10.0, *, bus: str = "65", pid: int = 7, name: str = "python3", words: str = "x"
) -> str:
    return XID.format(at=at, bus=bus, number=number, pid=pid, name=name, words=words)


def of(**data: Any) -> Diagnosis:
    told = read_incident(data, "case")
    assert not told.problems
    main = foremost(diagnose_all(told.cases))
    assert main is not None
    return main


def test_a_direct_verdict_needs_no_weighing() -> None:
    got = of(kernel=[line(13)], counters=[{"gpu": 0, "name": "row_remap_failure", "before": 0, "after": 1}])
    assert (got.hypothesis, got.action, got.component) == (
        Hypothesis.HARDWARE,
        Action.REPLACE_HARDWARE,
        "gpu:0",
    )
    assert got.caution


def test_the_drivers_own_recovery_action_is_the_action() -> None:
    action = line(154, words="GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)")
    got = of(kernel=[line(119, words="Timeout waiting for RPC from GSP!"), action])
    assert (got.hypothesis, got.action) == (Hypothesis.DRIVER, Action.REBOOT)


def test_an_action_that_was_taken_back_is_none() -> None:
    there = line(154, words="GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)")
    back = line(154, 20.0, words="GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)")
    assert of(kernel=[there]).action is Action.RESET_GPU
    assert not of(kernel=[there, back]).problem


def test_the_primary_cause_is_the_earliest_of_the_highest_tier() -> None:
    got = of(kernel=[line(31, 9.0, bus="17"), line(48, 10.0), line(74, 9.5, bus="18")])
    assert got.component == "gpu:0000:65:00"
    assert got.hypothesis is Hypothesis.HARDWARE


def test_a_disputed_xid_names_both_sides_and_is_less_sure() -> None:
    got = of(kernel=[line(69)])
    assert [entry for entry in got.evidence_against if "disagree on XID 69" in entry.what]
    assert got.confidence < of(kernel=[line(13)]).confidence


def test_below_the_floor_the_step_is_cheap_and_can_be_undone() -> None:
    got = of(kernel=[line(109)])
    assert (got.hypothesis, got.action) == (Hypothesis.UNDETERMINED, Action.RESTART_ENGINE)
    assert got.what_would_change_it


@pytest.mark.parametrize(
    ("tried", "expected"),
    [([], "reset_gpu"), (["reset_gpu"], "reboot"), (["reset_gpu", "reboot", "reboot"], "inspect_hardware")],
)
def test_repetition_escalates(tried: list[str], expected: str) -> None:
    at = 1_764_237_600.0
    history = [
        {"at": at - 200_000 + i, "gpu": "0000:65:00", "xid": 119, "action": action}
        for i, action in enumerate(tried)
    ]
    assert of(at=at, kernel=[{"text": line(119), "at": at}], history=history).action == expected


def test_what_happened_on_another_gpu_does_not_escalate_this_one() -> None:
    at = 1_764_237_600.0
    history = [
        {"at": at - 200_000, "gpu": "0000:66:00", "xid": 119, "action": action}
        for action in ("reset_gpu", "reboot", "reboot")
    ]
    assert of(at=at, kernel=[{"text": line(119), "at": at}], history=history).action == Action.RESET_GPU


def test_history_finds_a_gpu_by_its_serial_number() -> None:
    at = 1_764_237_600.0
    gpus = [{"index": 0, "pci": "00000000:65:00.0", "serial": "1650522000001"}]
    history = [{"at": at - 200_000, "serial": "1650522000001", "xid": 119, "action": "reset_gpu"}]
    assert (
        of(at=at, kernel=[{"text": line(119), "at": at}], gpus=gpus, history=history).action == Action.REBOOT
    )


def test_set_healthy_ends_old_events_and_old_history() -> None:
    at = 1_764_237_600.0
    operator = {"operator": {"action": "set_healthy", "at": at - 3600}}
    old = {"text": line(79), "at": at - 7200}
    assert not foremost(
        diagnose_all(read_incident({"at": at, "kernel": [old], "context": operator}, "x").cases)
    )
    history = [
        {"at": at - 7200, "gpu": "0000:65:00", "xid": 119, "action": action}
        for action in ("reboot", "reboot")
    ]
    again = of(at=at, kernel=[{"text": line(119), "at": at}], history=history, context=operator)
    assert again.action is Action.RESET_GPU


@pytest.mark.parametrize("name", ["gpu:5", "0000:65:00", "GPU-aabbccdd", "1650522000001"])
def test_set_healthy_is_the_same_gpu_by_any_of_its_names(name: str) -> None:
    at = 1_764_237_600.0
    gpu = {"index": 5, "pci": "00000000:65:00.0", "uuid": "GPU-aabbccdd", "serial": "1650522000001"}
    data = {
        "at": at,
        "gpus": [gpu],
        "kernel": [{"text": line(48), "at": at - 7200}],
        "context": {"operator": {"action": "set_healthy", "at": at - 3600, "component": name}},
    }
    assert not foremost(diagnose_all(read_incident(data, "x").cases))


def test_a_uuid_that_the_kernel_named_is_the_gpu_at_that_address() -> None:
    uuid = "GPU-3b6ec030-5adc-1847-e155-79f635584b4f"
    main = of(
        kernel=[f"NVRM: GPU at PCI:0000:65:00: {uuid}"],
        counters=[{"gpu": uuid, "name": "row_remap_failure", "before": 0, "after": 1}],
    )
    assert main.component == "gpu:0000:65:00"


def test_two_incidents_of_one_file_know_each_other() -> None:
    place = "Graphics SM Warp Exception on (GPC 1, TPC 2, SM 0): Out Of Range Address"
    once = of(kernel=[line(13, 10.0, words=place)])
    twice = of(kernel=[line(13, 10.0, words=place), line(13, 1000.0, words=place)])
    assert once.hypothesis is Hypothesis.SOFTWARE
    assert twice.hypothesis is not Hypothesis.SOFTWARE
    assert [past.place for past in as_past(once)] == ["gpc 1, tpc 2"]


def test_an_engine_that_dies_beside_a_broken_disk_is_its_victim() -> None:
    engine = {"replica": "r0", "engine": "llama-cpp", "exit_code": -11, "state": "stalled"}
    got = of(kernel=["[5.0] I/O error, dev nvme0n1, sector 1 op 0x0:(READ) flags 0x0"], engines=[engine])
    assert got.hypothesis is Hypothesis.STORAGE


def test_a_programs_error_follows_from_memory_that_broke_and_not_from_a_setting() -> None:
    fault = line(31, bus="17")
    assert of(kernel=[fault, line(63)]).hypothesis is Hypothesis.HARDWARE
    assert (
        of(kernel=[fault], findings=[{"probe": "clock", "message": "unsynchronised"}]).hypothesis
        is not Hypothesis.HARDWARE
    )


def test_several_gpus_lost_at_once_are_no_broken_card() -> None:
    lost = [line(79, bus=bus) for bus in ("17", "18", "19")]
    assert of(kernel=lost[:1]).hypothesis is Hypothesis.HARDWARE
    assert of(kernel=lost).hypothesis is Hypothesis.UNDETERMINED
    assert of(kernel=lost, context={"notes": ["PSU 1 failure"]}).hypothesis is Hypothesis.FACILITY


def test_exit_words_come_from_the_engine_file() -> None:
    engine = {
        "replica": "r0",
        "engine": "llama-cpp",
        "exit_code": 1,
        "log_tail": ["couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1"],
    }
    got = of(engines=[engine])
    assert (got.hypothesis, got.component) == (Hypothesis.CONFIGURATION, "engine:r0")


def test_nothing_is_no_problem_and_no_hypothesis() -> None:
    got = of(counters=[{"gpu": 0, "name": "ecc_uncorrected_volatile", "before": 0, "after": 0}])
    assert (got.problem, got.hypothesis, got.action, got.confidence) == (
        False,
        Hypothesis.UNDETERMINED,
        Action.NONE,
        0.0,
    )


ENTRIES = st.lists(
    st.sampled_from(
        [
            line(13), line(31), line(43), line(45), line(48), line(74), line(79), line(109), line(119, bus="66"),
            line(31, 400.0), "[11.0] I/O error, dev sda, sector 1 op 0x0:(READ)",
            "[12.0] mlx5_core 0000:5e:00.0: device's health compromised - reached miss count",
        ]
    ),
    max_size=8,
)  # fmt: skip


@given(ENTRIES, st.randoms(use_true_random=False))
def test_the_order_of_lines_does_not_matter(lines: list[str], dice: Any) -> None:
    shuffled = list(lines)
    dice.shuffle(shuffled)
    assert [_said(d) for d in _all(lines)] == [_said(d) for d in _all(shuffled)]


def _all(lines: list[str]) -> list[Diagnosis]:
    return diagnose_all(read_incident({"kernel": lines, "at": 1_764_237_600}, "x").cases)


def _said(got: Diagnosis) -> tuple[object, ...]:
    return got.hypothesis, got.component, got.confidence, got.action, [e.what for e in got.evidence]


KEYS = [
    "kernel", "counters", "findings", "engines", "context", "history", "at", "gpu", "name", "before", "after", "siblings", "operator",
    "other_nodes", "lock_changed_at", "views", "gpus", "during", "xids", "verdict", "log_tail", "signal", "action", "strange",
]  # fmt: skip
WORDS = [
    "",
    "lost",
    "12 ms",
    "0x40",
    "true",
    "NaN",
    "1e400",
    "gpu",
    "reset",
    "2026-11-27T10:00:00Z",
    "T",
    "\x00",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from(WORDS) | ENTRIES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=25,
)


@given(JSON)
def test_any_data_is_read_and_diagnosed_without_raising(data: object) -> None:
    told = read_incident(data, "x")
    for got in diagnose_all(told.cases):
        assert 0 <= got.confidence < 1
        assert got.what_would_change_it
    assert told.cases or told.problems or isinstance(data, dict | list)
    json.dumps([str(problem) for problem in told.problems])


def test_the_same_case_gives_the_same_answer() -> None:
    (case,) = read_incident({"kernel": [line(48)]}, "x").cases
    assert diagnose(case) == diagnose(case)
