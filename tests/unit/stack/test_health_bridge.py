"""Which replicas the agent is sent, and which stalled engines the fleet restarts."""

import msgspec
import pytest

from freehold.core.events import (
    Endpoint,
    EndpointLoad,
    ModelEntry,
    ReplicaState,
    ReplicaStatus,
    Snapshot,
)
from freehold.core.findings import Action, Finding, Verdict
from freehold.health.model.snapshot import (
    HealthSnapshot,
    SettledFinding,
    sorted_findings,
)
from freehold.stack.health_bridge import RESTART_S, SUSPECT_S, recovered_replicas, stalled_replicas, targets


def settled(
    verdict: Verdict, component: str = "engine:m-0", *, reason: str = "stalled", since_s: float = 90.0
) -> SettledFinding:
    finding = Finding(
        probe="engine_progress", component=component, verdict=verdict, reason=reason, message=f"it is {reason}",
        action=Action.RESTART_ENGINE,
    )  # fmt: skip
    return SettledFinding(finding=finding, since_s=since_s)


def snapshot(*found: SettledFinding) -> HealthSnapshot:
    return HealthSnapshot(at_s=100.0, node="n", pid=1, findings=sorted_findings(list(found)))


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


def test_the_agent_receives_what_it_needs_of_each_replica() -> None:
    endpoint = Endpoint(
        id="m-0",
        model="m",
        url="http://127.0.0.1:1",
        engine="llama-cpp",
        state=ReplicaState.READY,
        upstream_model="u",
    )
    seen = Snapshot(
        generation=1,
        models=(ModelEntry(name="m", engine="llama-cpp", created_s=0, stall_s=30.0),),
        endpoints=(endpoint,),
        replicas=(replica(), replica(ReplicaState.BACKOFF, id="m-1", pid=None, reason="it crashed")),
    )
    first, second = targets(seen, {"m-0": EndpointLoad(2, 500)})
    assert (first.model, first.url, first.pid, first.running, first.progress, first.stall_s) == (
        "u", "http://127.0.0.1:1", 7, 2, 500, 30.0,
    )  # fmt: skip
    assert (second.pid, second.url, second.exit_text, second.running) == (0, "", "it crashed", 0)
    assert targets(seen, None)[0].running is None


@pytest.mark.parametrize(
    ("found", "started_s", "named"),
    [
        (settled(Verdict.UNHEALTHY, since_s=100 - RESTART_S), 10.0, True),
        (settled(Verdict.UNHEALTHY, since_s=101 - RESTART_S), 10.0, False),  # not for long enough
        (settled(Verdict.UNHEALTHY, since_s=50.0), 60.0, False),  # that was the process before
        (settled(Verdict.UNHEALTHY, reason="no_client", since_s=100 - RESTART_S), 10.0, True),
        (settled(Verdict.HEALTHY, reason="busy", since_s=10.0), 10.0, False),
        (settled(Verdict.DEGRADED, reason="no_progress", since_s=10.0), 5.0, False),
        (settled(Verdict.UNHEALTHY, "engine:m-9", since_s=50.0), 10.0, False),
    ],
)
def test_only_an_engine_that_is_stalled_for_long_is_restarted(
    found: SettledFinding,
    started_s: float,
    named: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    assert bool(stalled_replicas(snapshot(found), [replica(started_wall_s=started_s)], 100.0)) is named


def named(*found: SettledFinding, woke_s: float, now_s: float, others: int = 0) -> list[str]:
    """Return the ids of the replicas to restart; `others` is the number of further healthy replicas."""
    report = snapshot(*found, *(settled(Verdict.HEALTHY, f"engine:o-{n}") for n in range(others)))
    names = [each.finding.component.removeprefix("engine:") for each in report.findings]
    there = [replica(id=name) for name in names]
    return sorted(
        each.id for each, _ in stalled_replicas(msgspec.structs.replace(report, woke_s=woke_s), there, now_s)
    )


def test_after_a_suspended_machine_no_engine_is_restarted_at_once() -> None:
    both = [settled(Verdict.UNHEALTHY, f"engine:m-{n}", since_s=1004.0) for n in range(2)]
    assert named(*both, woke_s=1000.0, now_s=1004.0 + RESTART_S) == []
    assert named(*both, woke_s=1000.0, now_s=1004.0 + SUSPECT_S) == [
        "m-0",
        "m-1",
    ]  # it does not come back by itself
    assert named(*both, woke_s=0.0, now_s=1004.0 + RESTART_S) == ["m-0", "m-1"]
    assert named(*both, woke_s=1000.0, now_s=1004.0 + RESTART_S, others=1) == ["m-0", "m-1"]
    late = settled(Verdict.UNHEALTHY, "engine:m-1", since_s=1009.0)  # after seven seconds of its own
    assert named(both[0], late, woke_s=1000.0, now_s=1009.0 + RESTART_S) == ["m-0", "m-1"]


def test_the_time_that_the_agent_was_frozen_does_not_count() -> None:
    found = settled(Verdict.UNHEALTHY, since_s=990.0)
    assert named(found, woke_s=1200.0, now_s=1201.0) == []
    assert named(found, woke_s=1200.0, now_s=1200.0 + RESTART_S) == ["m-0"]


def test_a_replica_that_makes_progress_again_has_recovered() -> None:
    report = snapshot(settled(Verdict.HEALTHY, reason="busy"), settled(Verdict.UNKNOWN, "engine:m-1"))
    assert [
        each.id for each in recovered_replicas(report, [replica(), replica(id="m-1"), replica(id="m-2")])
    ] == ["m-0"]
