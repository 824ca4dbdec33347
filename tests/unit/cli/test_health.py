"""What people and scripts get of a snapshot: order, words, exit codes; and what an agent is told to watch."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from freehold.cli.node.health import exit_code
from freehold.cli.node.health_incidents import incident_json, incident_lines, whole_lines
from freehold.cli.node.health_table import lines_of, serving_on
from freehold.core.events import (
    GpuId,
    ReplicaState,
    ReplicaStatus,
)
from freehold.core.findings import Action, Evidence, Finding, Verdict
from freehold.core.whole_file import replace_file
from freehold.health.agent.state_files import read_snapshot
from freehold.health.model.snapshot import (
    HealthSnapshot,
    IncidentReport,
    IncidentState,
    SettledFinding,
    decode,
    encode,
    sorted_findings,
)


def believed(
    verdict: Verdict, component: str = "engine:m-0", *, reason: str = "stalled", since_s: float = 90.0
) -> SettledFinding:
    finding = Finding(
        probe="engine_progress", component=component, verdict=verdict, reason=reason, message=f"it is {reason}",
        action=Action.RESTART_ENGINE,
    )  # fmt: skip
    return SettledFinding(finding=finding, since_s=since_s)


def snapshot(*found: SettledFinding) -> HealthSnapshot:
    return HealthSnapshot(at_s=100.0, node="n", pid=1, findings=sorted_findings(list(found)))


def test_worst_comes_first_and_bad_ones_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    lines = lines_of(
        snapshot(
            believed(Verdict.HEALTHY, reason="idle"),
            believed(Verdict.UNHEALTHY, "engine:m-1"),
            believed(Verdict.NOT_APPLICABLE, "engine", reason="no_engine"),
        )
    )
    assert lines[0] == "unhealthy  engine_progress  engine:m-1  it is stalled"
    assert lines[1].startswith("    stalled for 10 s: restart engine; requests are under way, nothing moves")
    assert lines[2] == "healthy    engine_progress  engine:m-0  it is idle"
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([], 1),
        ([Verdict.HEALTHY], 0),
        ([Verdict.HEALTHY, Verdict.UNKNOWN], 0),
        ([Verdict.UNKNOWN, Verdict.NOT_APPLICABLE], 1),
        ([Verdict.HEALTHY, Verdict.DEGRADED], 3),
        ([Verdict.UNHEALTHY], 3),
    ],
)
def test_exit_codes(verdicts: list[Verdict], code: int) -> None:
    told = snapshot(*(believed(verdict, f"engine:{n}") for n, verdict in enumerate(verdicts)))
    assert exit_code(told, stale=False) == code
    assert exit_code(told, stale=True) == 1


def test_a_snapshot_survives_its_file(tmp_path: Path) -> None:
    told = snapshot(believed(Verdict.UNHEALTHY))
    replace_file(tmp_path / "health.json", encode(told) + b"\n")
    assert read_snapshot(tmp_path) == told
    assert decode(b"{") is None
    assert read_snapshot(tmp_path / "nowhere") is None
    assert not told.is_stale(120.0)
    assert told.is_stale(131.0)
    assert told.is_stale(0.0)  # from the future: a clock was set


def replica(state: ReplicaState = ReplicaState.READY, **more: object) -> ReplicaStatus:
    return ReplicaStatus(
        **{
            "id": "m-0",
            "model": "m",
            "engine": "llama-cpp",
            "state": state,
            "pid": 7,
            "started_wall_s": 10.0,
            **more,
        }  # type: ignore[arg-type]
    )


def test_a_bad_gpu_names_who_is_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    gpus = (GpuId(index=0, uuid="GPU-a"), GpuId(index=1, uuid="GPU-b"))
    one = replica(gpus=gpus)
    other = msgspec.structs.replace(one, id="m-1", gpus=(gpus[1], GpuId(index=2, uuid="MIG-c")))
    serving = serving_on([one, other, msgspec.structs.replace(one, id="m-2", gpus=None)])
    assert serving == {"gpu:GPU-a": ["m-0"], "gpu:GPU-b": ["m-0", "m-1"]}
    found = snapshot(believed(Verdict.UNHEALTHY, "gpu:GPU-b"), believed(Verdict.HEALTHY, "gpu:GPU-a"))
    assert [line for line in lines_of(found, serving) if "on it" in line] == ["    on it: m-0, m-1"]
    assert not any("on it" in line for line in lines_of(found))


def incident(state: IncidentState, **more: Any) -> IncidentReport:
    return IncidentReport(
        **{
            "id": "1", "state": state, "start_s": 88.0, "last_s": 90.0, "problem": True, "hypothesis": "software",
            "component": "engine:m-0", "confidence": 0.83, "action": Action.RESTART_ENGINE,
            "summary": "the engine process is stopped (state T): software (83%)",
            "what_would_change_it": "the process runs again by itself", **more,
        }
    )  # fmt: skip


def with_incidents(*incidents: IncidentReport, found: Verdict = Verdict.HEALTHY) -> HealthSnapshot:
    return msgspec.structs.replace(snapshot(believed(found)), incidents=incidents)


def test_an_incident_is_two_lines_and_the_last_one_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    over = incident(IncidentState.OVER, over_s=40.0, set_healthy_by="ann")
    told = with_incidents(
        incident(IncidentState.OPEN),
        incident(IncidentState.STANDING, start_s=10.0, last_s=70.0, at_start=True),
        incident(IncidentState.OPEN, problem=False, hypothesis="undetermined"),
        incident(IncidentState.OPEN, hypothesis=""),
        over,
        over,
    )
    head = "software  engine:m-0  the engine process is stopped (state T): software (83%)"
    rest = "would change it: the process runs again by itself"
    assert incident_lines(told) == [
        f"incident  {head}",
        f"    do: restart engine; began 12 s ago; {rest}",
        f"incident  {head}",
        f"    do: restart engine; was so when the agent began to look, nothing new for 30 s; {rest}",
        f"last incident, over for 1 min, set healthy by ann: {head}",
    ]


def test_an_incident_that_goes_on_is_a_problem_and_one_that_is_over_is_none() -> None:
    assert exit_code(with_incidents(incident(IncidentState.OPEN)), stale=False) == 3
    assert exit_code(with_incidents(incident(IncidentState.STANDING)), stale=False) == 3
    assert exit_code(with_incidents(incident(IncidentState.OVER, over_s=1.0)), stale=False) == 0
    assert exit_code(with_incidents(incident(IncidentState.OPEN, problem=False)), stale=False) == 0
    assert exit_code(with_incidents(incident(IncidentState.OPEN)), stale=True) == 1


def test_a_running_agent_s_incidents_read_as_a_file_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    seen = Evidence(
        what="the engine process is stopped", value="T", source="engine state", at_s=1.0, baseline="S"
    )
    one = incident(IncidentState.OPEN, evidence=(seen,), evidence_against=(seen,), left_out=2, events=3)
    lines = whole_lines(with_incidents(one))
    assert lines[0] == "software  engine:m-0  83%"
    assert "  for: the engine process is stopped: T (S)" in lines
    assert "  against: the engine process is stopped: T (S)" in lines
    assert "  and 2 more" in lines
    said = incident_json(with_incidents(one))
    assert (said["hypothesis"], said["action"], said["problem"]) == ("software", "restart_engine", True)
    assert len(said["incidents"]) == 1  # type: ignore[arg-type]
    assert incident_json(with_incidents())["problem"] is False
    assert whole_lines(with_incidents()) == ["no incident goes on, and none was over within the last hour"]


def test_in_80_columns_no_line_is_longer_and_no_word_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    found = with_incidents(
        incident(IncidentState.OPEN), incident(IncidentState.OVER, over_s=40.0), found=Verdict.UNHEALTHY
    )
    narrow = [*incident_lines(found, 80), *lines_of(found, {"engine:m-0": ["m-0", "m-1"]}, 80)]
    wide = [*incident_lines(found), *lines_of(found, {"engine:m-0": ["m-0", "m-1"]})]
    assert max(map(len, wide)) > 80 >= max(map(len, narrow))
    assert " ".join(narrow).split() == " ".join(wide).split()
