"""`freehold health set-healthy` and `health diagnose` beside an agent's files, with and without an agent."""

import json
import os
import threading
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from freehold.cli.main import cli
from freehold.cli.node import health_set_healthy
from freehold.core.clock import wall_s
from freehold.core.findings import Action, Finding, Verdict
from freehold.core.whole_file import replace_file
from freehold.fleet.control.peer import user_name
from freehold.health.agent.history_file import HistoryFile
from freehold.health.incidents.history import FILE_NAME
from freehold.health.model.snapshot import FILE_NAME as SNAPSHOT
from freehold.health.model.snapshot import (
    GpuName,
    HealthSnapshot,
    IncidentReport,
    IncidentState,
    SettledFinding,
    encode,
)

ME = user_name(os.geteuid())
GPU = GpuName(pci="0000:65:00", uuid="GPU-1", serial="1650522000001")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FREEHOLD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LOGNAME", "ann")  # a claim: the kernel names the user
    monkeypatch.delenv("SUDO_USER", raising=False)
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def told(state: Path, *, age_s: float = 0.0, marked_s: float = 0.0) -> HealthSnapshot:
    """Leave what an agent says last."""
    ill = Finding(
        probe="gpu_memory", component="gpu:GPU-1", verdict=Verdict.UNHEALTHY, reason="row_remap_pending", message="m"
    )  # fmt: skip
    disk = Finding(
        probe="disk_space", component="disk:/models", verdict=Verdict.DEGRADED, reason="low", message="m"
    )
    one = IncidentReport(
        id="1", state=IncidentState.OPEN, start_s=wall_s() - 9, last_s=wall_s() - 9, problem=True,
        hypothesis="hardware", component="gpu:GPU-1", confidence=0.9, action=Action.DRAIN, summary="row remap pending",
    )  # fmt: skip
    snapshot = HealthSnapshot(
        at_s=wall_s() - age_s,
        pid=1,
        findings=tuple(SettledFinding(finding=each, since_s=1.0) for each in (ill, disk)),
        incidents=(one,),
        gpus=(GPU,),
        marked_s=marked_s,
    )
    replace_file(state / SNAPSHOT, encode(snapshot) + b"\n")
    return snapshot


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["health", *arguments], standalone_mode=False)


@pytest.mark.parametrize("name", ["gpu:GPU-1", "gpu:1650522000001", "gpu:0000:65:00", "GPU-1"])
def test_a_gpu_is_marked_by_its_serial_number_whatever_it_was_called(state: Path, name: str) -> None:
    told(state, age_s=3600)  # the stack does not run: the next agent takes it over
    result = run("set-healthy", name, "--reason", "new riser", "--json")
    assert result.return_value == 0, result.output
    (mark,) = HistoryFile(state / FILE_NAME).load().marks
    assert (mark.subject, mark.component, mark.by, mark.reason) == (
        "gpu:1650522000001",
        "gpu:GPU-1",
        ME,
        "new riser",
    )
    assert mark.findings == (("gpu_memory", "gpu:GPU-1", "row_remap_pending"),)
    assert abs(mark.set_healthy_s - wall_s()) < 30
    assert json.loads(result.stdout)["taken_over"] is False


def test_the_whole_node_and_who_stands_behind_sudo(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told(state, age_s=3600)
    monkeypatch.setenv("SUDO_USER", "bob")
    result = run("set-healthy")
    assert result.return_value == 0, result.output
    (mark,) = HistoryFile(state / FILE_NAME).load().marks
    assert (mark.subject, mark.component, mark.by) == ("", "", f"bob as {ME}")
    assert len(mark.findings) == 2
    assert f"this node: set healthy by bob as {ME}" in result.stdout
    assert "disk_space  disk:/models: low stays a finding" in result.stdout


def test_a_component_that_is_not_there_is_the_user_s_mistake(state: Path) -> None:
    told(state)
    result = run("set-healthy", "disk:/model", "--reason", "x" * 600)
    assert getattr(result.exception, "exit_code", None) == 2
    shown = str(result.exception)
    assert "there is no component 'disk:/model'" in shown
    assert "disk:/models" in shown
    assert "500 characters" in shown
    assert not (state / FILE_NAME).exists()


def test_where_no_agent_ever_looked_there_is_nothing_to_set(state: Path) -> None:
    result = run("set-healthy")
    assert "no agent has ever looked" in str(result.exception)


def test_a_running_agent_is_waited_for(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told(state)
    written = threading.Event()

    def agent() -> None:
        while not (marks := HistoryFile(state / FILE_NAME).load().marks):
            written.wait(0.05)
        told(state, marked_s=marks[0].set_healthy_s)

    thread = threading.Thread(target=agent)
    thread.start()
    result = run("set-healthy", "--json")
    thread.join()
    assert result.return_value == 0, result.output
    assert json.loads(result.stdout)["taken_over"] is True
    monkeypatch.setattr(health_set_healthy, "TAKEN_OVER_S", 0.5)
    again = run("set-healthy")
    assert again.return_value == 1  # it says nothing: the mark stands all the same
    assert len(HistoryFile(state / FILE_NAME).load().marks) == 2


def test_a_history_that_cannot_be_written_is_told(state: Path) -> None:
    told(state, age_s=3600)
    (state / FILE_NAME).mkdir()
    assert "cannot write" in str(run("set-healthy").exception)


def test_diagnose_without_a_file_tells_the_agent_s_incidents(state: Path) -> None:
    snapshot = told(state)
    result = run("diagnose", "--json")
    assert result.return_value == 3, result.output
    said = json.loads(result.stdout)
    assert (said["hypothesis"], said["component"], said["action"]) == ("hardware", "gpu:GPU-1", "drain")
    assert said["incident"]["state"] == "open"
    assert run("diagnose").stdout.startswith("hardware  gpu:GPU-1  90%")
    replace_file(state / SNAPSHOT, encode(msgspec.structs.replace(snapshot, incidents=())))
    assert run("diagnose").return_value == 0


def test_health_shows_incidents_above_findings(state: Path) -> None:
    told(state)
    result = run()
    assert result.return_value == 3
    lines = result.stdout.splitlines()
    assert lines[0] == "incident  hardware  gpu:GPU-1  row remap pending"
    assert lines[1].startswith("    do: drain; began ")
    assert lines[2].startswith("unhealthy  gpu_memory")
    assert json.loads(run("--json").stdout)["incidents"][0]["hypothesis"] == "hardware"
