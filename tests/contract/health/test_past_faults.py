"""What a live node remembers: repetition by serial number, a restart in the middle, a reboot, an operator's hand."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from freehold.core.findings import Action, Verdict
from freehold.health.evidence.kernel_signs import PastFault
from freehold.health.incidents.history import History, Mark, latest_revisions
from freehold.health.model.snapshot import IncidentState
from freehold.health.model.view import Reading
from live_node import GSP, OFF_BUS, SERIAL, UUID, Hands, Node, bad, lost_gpu, slow_disk, words, xid

HOUR_S = 3600.0


def restarted(node: Node, *, boot: str = "boot-1", down_s: float = 5.0) -> Node:
    """Return the next agent on the same node: it knows what the one before wrote, and reads the kernel's log anew."""
    node.clock.now_s += down_s
    log = node.log if boot == "boot-1" else []
    history = History(past=tuple(node.written))
    after = Node(node.clock, before=node.told[-1], history=history, boot=boot, log=log)
    after.spoil = node.spoil
    return after


# --- repetition -------------------------------------------------------------------------------------------------------


def gsp(node: Node) -> Action:
    """Let the GPU's own processor fail once; return what is to be done."""
    node.say(xid(119, 0, GSP))
    node.run(30)
    action = node.incidents[0].action
    node.rest(200)
    return action


def test_the_same_fault_of_one_gpu_again_within_a_day_is_met_with_the_next_step_also_after_restarts() -> None:
    node = Node()
    node.run(60)
    assert gsp(node) is Action.RESET_GPU
    node = restarted(node)
    node.run(60)
    assert gsp(node) is Action.REBOOT
    assert {(line.subject, line.signature) for line in node.written} == {(SERIAL[0], "xid 119")}
    assert len({line.incident for line in node.written}) == 1


@pytest.mark.parametrize(
    ("boots", "steps"),
    [
        (("boot-1", "boot-1", "boot-1"), [Action.RESET_GPU, Action.RESET_GPU, Action.RESET_GPU]),
        (("boot-2", "boot-3", "boot-4"), [Action.REBOOT, Action.REBOOT, Action.INSPECT_HARDWARE]),
    ],
    ids=["nobody did it", "done each time"],
)
def test_a_step_counts_as_tried_only_when_it_was_taken(boots: tuple[str, ...], steps: list[Action]) -> None:
    clock = Hands()
    node = Node(clock, boot="boot-1")
    node.run(60)
    assert gsp(node) is Action.RESET_GPU
    past: list[PastFault] = []
    said: list[Action] = []
    for boot in boots:
        past += node.written
        clock.now_s += 25 * HOUR_S  # more than a day: only what was tried counts
        node = Node(clock, history=History(past=tuple(past)), boot=boot)
        node.run(60)
        said.append(gsp(node))
    assert said == steps


def test_a_driver_loaded_anew_is_a_reset_that_was_done() -> None:
    node = Node()
    node.run(60)
    assert gsp(node) is Action.RESET_GPU
    node.say("NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build")
    node.run(10)
    node.clock.now_s += 25 * HOUR_S
    node.run(60)
    assert gsp(node) is Action.REBOOT


def test_what_is_only_measured_and_comes_and_goes_is_not_five_faults_a_day() -> None:
    hot = Reading(value=-5)

    def heat(gpus: Any) -> Any:
        first, *rest = gpus.gpus
        return msgspec.structs.replace(
            gpus,
            gpus=(msgspec.structs.replace(first, readings={**first.readings, "margin_c": hot}), *rest),
        )

    node = Node()
    node.run(60)
    seen: set[Action] = set()
    for _ in range(7):
        node.spoil["gpus"] = heat
        node.rest(60)
        node.spoil.clear()
        node.rest(300)
        seen |= {one.action for one in node.incidents}
        node.clock.now_s += 1800
    assert len({line.incident for line in node.written}) >= 5
    assert len(seen) == 1  # what is to be done does not get graver by that
    kept = [entry.what for told in node.told for one in told.incidents for entry in one.evidence]
    assert not [what for what in kept if "stays with the GPU" in what]


def test_a_gpu_that_is_lost_when_the_agent_starts_is_known_by_its_serial_number_all_the_same() -> None:
    node = Node()
    node.run(60)
    after = restarted(node, boot="boot-2")
    after.say(xid(79, 1, OFF_BUS))
    after.spoil["gpus"] = lambda gpus: msgspec.structs.replace(
        gpus, gpus=tuple(msgspec.structs.replace(gpu, uuid="", serial="") for gpu in gpus.gpus)
    )
    after.run(30)
    assert after.written[0].subject == SERIAL[1]


# --- restarts ---------------------------------------------------------------------------------------------------------


def test_an_agent_that_starts_again_in_the_middle_goes_on_with_the_same_incident() -> None:
    node = Node()
    node.run(60)
    node.say(xid(79, 0, OFF_BUS))
    node.spoil["gpus"] = lost_gpu(0)
    node.run(30)
    before = node.incident
    after = restarted(node)
    after.run(30)
    assert after.incident.id == before.id
    assert words(after.incident) == words(before)
    assert after.incident.start_s == before.start_s
    assert after.live.diagnoses_total == 0  # nothing is new
    assert after.written == []
    after.say(xid(31, 0))
    after.run(20)
    assert after.incident.id == before.id
    assert words(after.incident)[:2] == ("hardware", UUID[0])  # the first line is still known
    assert after.rest(400).incidents[0].state is IncidentState.STANDING


def test_what_came_while_no_agent_ran_is_new_and_what_came_before_is_not() -> None:
    node = Node()
    node.run(60)
    node.say(xid(31))
    node.rest(600)
    assert node.incident.state is IncidentState.OVER
    node.clock.now_s += 100
    node.say(xid(119, 1, GSP), ago_s=50)
    after = restarted(node)
    after.run(30)
    assert [(one.state, one.component) for one in after.incidents] == [
        (IncidentState.OPEN, UUID[1]),
        (IncidentState.OVER, UUID[0]),
    ]
    assert after.incidents[1].id == node.incidents[0].id


def test_lines_of_hours_ago_open_nothing_after_a_restart_though_the_kernel_still_has_them() -> None:
    node = Node()
    node.run(60)
    for number in (13, 31, 79, 119):
        node.say(xid(number, number % 2))
        node.rest(400)
    node.clock.now_s += 3 * HOUR_S
    node.run(20)
    assert {line.signature for line in latest_revisions(node.written)} >= {"xid 79", "xid 119"}
    after = restarted(node)
    after.run(60)
    after.rest(600)
    assert after.live.diagnoses_total == 0
    assert after.written == []
    assert {one.id for one in after.incidents} <= {one.id for one in node.told[-1].incidents}
    assert IncidentState.OPEN not in {one.state for told in after.told for one in told.incidents}


def test_the_first_agent_of_a_boot_keeps_what_the_kernel_still_has_as_past() -> None:
    node = Node()
    node.say(xid(119, 0, GSP), ago_s=5 * HOUR_S)
    node.say(xid(31, 1), ago_s=2 * HOUR_S)
    node.run(60)
    assert sorted((line.subject, line.signature) for line in node.written) == [
        (SERIAL[0], "xid 119"),
        (SERIAL[1], "xid 31"),
    ]
    assert IncidentState.OPEN not in {one.state for one in node.incidents}
    assert gsp(node) is Action.REBOOT


def test_without_the_files_of_the_agent_before_old_lines_are_nothing_new() -> None:
    node = Node()
    node.say(xid(119, 0, GSP), ago_s=HOUR_S)
    node.live.forget_the_past()
    node.run(60)
    assert node.written == []
    node.say(xid(31, 1))
    node.run(10)
    assert node.incidents[0].component == UUID[1]


def test_a_reboot_ends_what_went_on_and_what_comes_back_after_it_is_a_repetition() -> None:
    node = Node()
    node.run(60)
    node.say(xid(119, 0, GSP))
    node.run(10)  # not yet firm: the agent has not written it down
    assert node.written == []
    after = restarted(node, boot="boot-2", down_s=90)
    assert [line.signature for line in after.live.take_lines()] == ["xid 119"]
    after.run(30)
    assert after.incident.state is IncidentState.OVER
    after.say(xid(119, 0, GSP))
    after.run(20)
    assert [one.state for one in after.incidents] == [IncidentState.OPEN, IncidentState.OVER]
    assert after.incidents[0].action is Action.REBOOT


# --- an operator's hand -----------------------------------------------------------------------------------------------


def set_healthy(node: Node, subject: str = "", component: str = "") -> Mark:
    """Do what the command does."""
    findings = tuple(
        (each.finding.probe, each.finding.component, each.finding.reason)
        for each in node.told[-1].findings
        if each.finding.verdict in {Verdict.DEGRADED, Verdict.UNHEALTHY}
        and component in {"", each.finding.component}
    )
    mark = Mark(
        set_healthy_s=node.clock.wall_s(),
        subject=subject,
        component=component,
        findings=findings,
        by="ann",
    )
    assert node.live.learn(History(past=tuple(node.written), marks=(mark,)))
    node.runner.readmit()
    return mark


def with_marks(node: Node, mark: Mark) -> Node:
    after = restarted(node)
    return Node(
        after.clock,
        before=node.told[-1],
        history=History(past=tuple(node.written), marks=(mark,)),
        log=node.log,
    )


def test_what_was_set_healthy_never_trips_again_and_a_new_fault_does() -> None:
    node = Node()
    node.run(60)
    assert gsp(node) is Action.RESET_GPU
    assert ("gpu_xid", "firmware_xid") in bad(node.told[-1])
    mark = set_healthy(node, SERIAL[0], UUID[0])
    node.run(60)
    assert bad(node.told[-1]) == []  # its lines no longer count, for the probes neither
    assert node.incident.state is IncidentState.OVER
    assert node.incident.set_healthy_by == "ann"
    assert node.incident.hypothesis == "driver"  # as it was when he did
    after = with_marks(node, mark)
    after.run(60)
    after.rest(600)
    assert bad(after.told[-1]) == []
    assert after.live.diagnoses_total == 0
    assert gsp(after) is Action.RESET_GPU  # the first of a new count


def test_setting_one_gpu_healthy_leaves_the_other_alone() -> None:
    node = Node()
    node.run(60)
    node.say(xid(119, 0, GSP))
    node.say(xid(79, 1, OFF_BUS))
    node.run(40)
    set_healthy(node, SERIAL[0], UUID[0])
    node.run(60)
    assert [(one.component, one.state) for one in node.incidents] == [(UUID[1], IncidentState.OPEN)]
    assert {key.component for key in node.incident.findings} == {UUID[1]}
    assert {part for part, _ in bad(node.told[-1])} == {"gpu_xid"}


@pytest.mark.parametrize("restart", [False, True])
def test_a_measured_fault_that_stays_as_it_is_is_told_and_is_no_incident_until_it_was_well(
    *, restart: bool
) -> None:
    node = Node()
    node.rest(300)
    node.spoil["volumes"] = slow_disk
    node.rest(200)
    mark = set_healthy(node)
    node.run(10)
    if restart:
        node = with_marks(node, mark)
        node.spoil["volumes"] = slow_disk
    node.rest(400)
    assert ("storage_latency", "slow_disk") in bad(node.told[-1])  # it is what is measured
    assert {one.state for one in node.incidents} <= {IncidentState.OVER}
    node.spoil.clear()
    node.rest(900)
    assert bad(node.told[-1]) == []
    node.spoil["volumes"] = slow_disk
    node.rest(200)
    assert [one.hypothesis for one in node.incidents if one.state is IncidentState.OPEN] == ["storage"]


def test_a_mark_of_the_time_without_an_agent_is_heeded_by_the_next_one() -> None:
    node = Node()
    node.run(60)
    node.say(xid(79, 0, OFF_BUS))
    node.run(30)
    node.clock.now_s += 20
    mark = Mark(set_healthy_s=node.clock.wall_s(), by="bob")
    after = with_marks(node, mark)
    after.run(60)
    assert after.incident.state is IncidentState.OVER
    assert after.incident.set_healthy_by == "bob"
    assert bad(after.told[-1]) == []


def test_a_mark_by_serial_number_is_heeded_once_it_is_known_which_gpu_that_is() -> None:
    node = Node()
    node.say(xid(79, 0, OFF_BUS), ago_s=HOUR_S)
    mark = Mark(set_healthy_s=node.clock.wall_s() - 60, subject=SERIAL[0], component=UUID[0], by="ann")
    after = Node(node.clock, history=History(marks=(mark,)), log=node.log)
    after.run(120)
    assert after.written == []
    assert bad(after.told[-1]) == []
    assert {one.state for one in after.incidents} <= {IncidentState.OVER}


def test_past_of_another_card_in_the_same_slot_is_not_its_past() -> None:
    node = Node()
    node.run(60)
    assert gsp(node) is Action.RESET_GPU
    other = [replace(line, subject="gpu:9999") for line in node.written]
    fresh = Node(node.clock, history=History(past=tuple(other)), boot="boot-2")
    fresh.run(60)
    assert gsp(fresh) is Action.RESET_GPU
