"""Incidents of a live node on a clock of its own, through the agent's own runner and probes: what opens one, what is made of it,
what is kept of it, and what never is one."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from freehold.core.findings import Action
from freehold.health.incidents.history import latest_revisions
from freehold.health.incidents.open_incident import EVIDENCE_MOST
from freehold.health.incidents.tracker import DIAGNOSE_S, OVER_SHOWN_S
from freehold.health.model.snapshot import IncidentState, encode
from freehold.health.model.view import Reading
from live_node import OFF_BUS, SERIAL, UUID, Node, bad, frozen_engine, lost_gpu, slow_disk, words, xid

HOUR_S = 3600.0


def wrong_clock(host: Any) -> Any:
    free = {"synchronised": Reading(value=0), "maximum_error_s": Reading(value=16.0)}
    return msgspec.structs.replace(host, clock={**host.clock, **free})


# --- what is one, and what it is made of ------------------------------------------------------------------------------


def test_an_hour_of_a_healthy_node_is_no_incident_and_nothing_is_diagnosed() -> None:
    node = Node()
    node.say("usb 1-1: new high-speed USB device number 2 using xhci_hcd")
    node.run(600)
    node.rest(HOUR_S)
    assert node.live.diagnoses_total == 0
    assert [told.incidents for told in node.told if told.incidents] == []
    assert node.written == []
    assert bad(node.told[-1]) == []


def test_a_gpu_off_the_bus_is_hardware_within_seconds_and_is_written_down_at_once_by_its_serial_number() -> (
    None
):
    node = Node()
    node.run(120)
    node.say(xid(79, 0, OFF_BUS))
    node.spoil["gpus"] = lost_gpu(0)
    node.run(4)
    assert words(node.incident) == ("hardware", UUID[0], Action.CORDON)
    (line,) = node.written  # the node may be reset any moment
    assert (line.subject, line.signature, line.hypothesis) == (SERIAL[0], "xid 79", "hardware")
    node.run(60)
    one = node.incident
    assert one.confidence > 0.9
    assert one.problem
    assert any("XID 79" in entry.value for entry in one.evidence)
    assert one.what_would_change_it
    assert ("gpu_present", "lost") in [(key.probe, key.reason) for key in one.findings]
    assert node.rest(200).incidents[0].state is IncidentState.STANDING
    assert node.written == [line]  # once
    assert node.live.diagnoses_total <= 4


def test_an_engine_that_hangs_is_software_and_when_it_is_well_again_the_last_incident() -> None:
    node = Node()
    node.run(120)
    node.spoil["engines"] = frozen_engine(1, node.clock.now_s, process_state="T")
    node.run(14)
    assert words(node.incident) == ("software", "engine:llama-1", Action.RESTART_ENGINE)
    assert node.written == []  # it may be let go again
    node.run(40)
    assert [one.signature for one in node.written] == ["engine_stopped"]
    node.spoil.clear()
    node.run(60)
    assert node.incident.state is IncidentState.OPEN
    assert node.incident.findings == ()
    node.rest(200)
    assert node.incident.state is IncidentState.OVER
    assert words(node.incident) == ("software", "engine:llama-1", Action.RESTART_ENGINE)
    assert len(node.written) == 1
    calls = node.live.diagnoses_total
    node.rest(OVER_SHOWN_S)
    assert node.incidents == ()
    assert node.live.diagnoses_total == calls


def test_a_slow_disk_is_storage() -> None:
    node = Node()
    node.rest(300)
    node.spoil["volumes"] = slow_disk
    node.run(160)
    assert words(node.incident) == ("storage", "disk:/models", Action.DRAIN)


def test_a_wrong_clock_is_an_incident_of_its_own_and_explains_no_other() -> None:
    node = Node()
    node.spoil["host"] = wrong_clock
    node.run(40)
    assert words(node.incident) == ("configuration", "clock", Action.FIX_CONFIGURATION)
    node.spoil["engines"] = frozen_engine(0, node.clock.now_s, process_state="T")
    node.run(20)
    assert [words(one)[:2] for one in node.incidents] == [
        ("software", "engine:llama-0"),
        ("configuration", "clock"),
    ]


def test_a_disk_that_no_watched_volume_is_on_has_an_incident_of_its_own() -> None:
    node = Node()
    node.run(60)
    node.say("I/O error, dev sdq, sector 145616 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2")
    node.spoil["engines"] = frozen_engine(0, node.clock.now_s, process_state="T")
    node.run(30)
    assert sorted(words(one)[:2] for one in node.incidents) == [
        ("software", "engine:llama-0"),
        ("storage", "disk:sdq"),
    ]
    (aside,) = [one for one in node.incidents if words(one)[1] == "disk:sdq"]
    assert words(aside)[2] is Action.WATCH
    node.say("I/O error, dev nvme0n1, sector 145616 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2")
    node.run(20)
    assert ("storage", "disk:/models") in [words(one)[:2] for one in node.incidents]
    assert len(node.incidents) == 2  # the model's own disk may well be why its engine stands still


CRASHED = "VLLM::EngineCor[{}]: segfault at 18 ip 00007f1c sp 00007ffe error 4 in libcuda.so.580.159[7f1c00000+200000]"
KILLED = "Memory cgroup out of memory: Killed process {} (VLLM::EngineCor) total-vm:1kB, anon-rss:1kB"
HANGS = "INFO: task nvidia-smi:{} blocked for more than 120 seconds."


@pytest.mark.parametrize("line", [CRASHED, KILLED, HANGS])
def test_a_process_with_an_engines_or_the_drivers_name_is_no_incident(line: str) -> None:
    """Each user can name a process so and let it crash; only an engine's own pid counts."""
    node = Node()
    node.run(60)
    node.say(line.format(31_337))
    node.run(30)
    assert node.incidents == ()
    node.say(line.format(4001))
    node.run(30)
    assert "4001" in node.incident.evidence[0].value


def test_an_engine_that_is_gone_is_known_by_its_workers_pid_too() -> None:
    node = Node()
    node.spoil["engines"] = frozen_engine(1, node.clock.now_s, processes=(4001, 4077))
    node.run(4)
    node.spoil["engines"] = lambda engines: engines[:1]
    node.say(CRASHED.format(4077))
    node.run(10)
    assert any("4077" in entry.value for entry in node.incident.evidence)


@pytest.mark.parametrize(
    "line",
    [
        "EXT4-fs error (device loop0): ext4_lookup:1855: inode #2: comm cat: iget: checksum invalid",
        "EXT4-fs (loop0): Remounting filesystem read-only",
        "critical medium error, dev loop0, sector 145616 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
        "I/O error, dev loop0, sector 145616 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
    ],
)
def test_no_loop_device_takes_a_node_out(line: str) -> None:
    node = Node()
    node.run(60)
    for _ in range(12):
        node.say(line)
    node.run(30)
    told = [words(one) for one in node.incidents]
    assert [word[1] for word in told] == ["disk:loop0"]
    assert told[0][2] is Action.WATCH


def test_an_engine_that_fails_on_a_gpu_that_has_long_been_lost_is_its_victim() -> None:
    node = Node()
    node.run(120)
    node.say(xid(79, 0, OFF_BUS))
    node.spoil["gpus"] = lost_gpu(0)
    node.rest(400)
    node.spoil["engines"] = frozen_engine(0, node.clock.now_s, process_state="S")
    node.run(150)  # the other GPU works: an engine that sleeps is excused for two minutes
    newest = node.incidents[0]
    assert newest.state is IncidentState.OPEN
    assert words(newest)[:2] == ("hardware", UUID[0])
    assert any("engine:llama-0" in entry.what for entry in (*newest.evidence, *newest.evidence_against)) or (
        "engine:llama-0" in [key.component for key in newest.findings]
    )


def test_what_was_wrong_when_the_agent_began_to_look_takes_in_nothing_later() -> None:
    node = Node()
    node.spoil["volumes"] = slow_disk
    node.run(58)
    node.say(xid(79, 1, OFF_BUS))
    node.run(20)
    assert [words(one)[1] for one in node.incidents] == [UUID[1], "disk:/models"]
    assert [one.at_start for one in node.incidents] == [False, True]


def test_a_program_s_own_xid_with_another_program_s_is_one_incident_and_one_after_silence_another() -> None:
    node = Node()
    node.run(60)
    node.say(xid(31))
    node.run(100)
    node.say(xid(43))
    node.run(100)
    assert node.incident.events == 2
    node.run(100)
    node.say(xid(31, 1))
    node.run(10)
    assert [one.state for one in node.incidents] == [IncidentState.OPEN, IncidentState.OVER]
    assert [one.hypothesis for one in node.incidents] == ["software", "software"]


def test_lines_that_never_stop_are_diagnosed_every_ten_seconds_at_most_and_told_within_bounds() -> None:
    node = Node()
    node.run(60)
    began_s = node.clock.now_s
    while node.clock.now_s - began_s < 120:
        for number in (13, 31, 48, 63, 74, 79, 94, 109, 119, 7, 8, 32, 38, 45, 61):
            node.say(xid(number, int(node.clock.now_s) % 2, "pid=88, name=VLLM::Worker, " + "x" * 700))
        node.run(2)
    assert 10 <= node.live.diagnoses_total <= 120 / DIAGNOSE_S + 1
    assert max(len(encode(told)) for told in node.told) < 100_000
    one = node.incident
    assert len(one.evidence) <= EVIDENCE_MOST
    assert len(one.evidence_against) <= EVIDENCE_MOST
    assert len(node.written) < 60


def test_setting_the_clock_neither_ends_an_incident_nor_keeps_it_open() -> None:
    for step_s in (-2 * HOUR_S, 2 * HOUR_S):
        node = Node()
        node.run(60)
        node.say(xid(31))
        node.run(20)
        node.clock.boot_s += step_s
        node.run(60)
        mine = [one for one in node.incidents if one.component != "clock"]
        assert [one.state for one in mine] == [IncidentState.OPEN], step_s
        node.rest(200)
        mine = [one for one in node.incidents if one.component != "clock"]
        assert [one.state for one in mine] == [IncidentState.OVER], step_s


# --- what is written --------------------------------------------------------------------------------------------------


def test_a_verdict_that_changes_is_written_again_and_counts_once() -> None:
    node = Node()
    node.run(60)
    node.say(xid(31))
    node.run(40)
    assert [line.hypothesis for line in node.written] == ["software"]
    node.say(xid(48, 0, "DBE (double bit error) ECC Error"))
    node.rest(300)
    kept = latest_revisions(node.written)
    assert {line.revision for line in kept} == {2}
    assert kept[0].hypothesis == "hardware"
    assert len({line.incident for line in node.written}) == 1


def test_what_cannot_be_read_is_no_incident_and_ends_none() -> None:
    node = Node()
    node.run(120)
    node.spoil["volumes"] = slow_disk
    node.rest(200)
    assert node.incident.hypothesis == "storage"
    unread: Callable[[Any], Any] = lambda volumes: tuple(  # noqa: E731
        msgspec.structs.replace(volume, reads_s=(), state="hung") for volume in volumes
    )
    node.spoil["volumes"] = unread
    node.rest(600)
    assert node.incidents[-1].state is not IncidentState.OVER
