from dataclasses import replace
from pathlib import Path

import msgspec

from freehold.core.events import EngineEnd, Snapshot
from freehold.core.events import ReplicaState as State
from freehold.engines import all_engines
from freehold.engines.base import Adapter, Capacity, ExitCause, ExitKind
from freehold.fleet.decisions.events import (
    Answered,
    AskReady,
    Event,
    Exited,
    Launch,
    MainProcessGone,
    RestartAsked,
    Started,
    Terminate,
)
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan
from freehold.fleet.decisions.publish import build_snapshot
from freehold.fleet.decisions.state import apply, first_view

SETTINGS = FleetSettings(log_dir=Path("/nowhere"))
LLAMA = ReplicaPlan(id="m-0", model="m", engine=all_engines()["llama-cpp"])
OUTSIDE = ReplicaPlan(
    id="m-ext-0",
    model="m",
    engine=all_engines()["external"],
    url="http://elsewhere:1",
    upstream_model="their-m",
    api_key="sk-secret",
)


def snapshot(*events: Event) -> Snapshot:
    view = first_view([LLAMA, OUTSIDE], SETTINGS, 100.0)
    for event in events:
        view = apply(view, event, 101.0)
    return build_snapshot(view, [LLAMA, OUTSIDE], generation=3, wall_offset_s=1e9)


def test_a_model_is_there_before_any_replica_is_and_told_once() -> None:
    (model,) = snapshot().models
    assert (model.name, model.engine, model.created_s) == ("m", "llama-cpp", 1_000_000_100)


def test_a_model_has_its_own_stall_limit_or_its_engines() -> None:
    plans = [LLAMA, replace(LLAMA, id="n-0", model="n", stall_s=7.0, affinity=False), OUTSIDE]
    view = first_view(plans, SETTINGS, 100.0)
    first, second = build_snapshot(view, plans, generation=1, wall_offset_s=0.0).models
    assert (first.stall_s, first.affinity) == (all_engines()["llama-cpp"].stall_s, True)
    assert (second.stall_s, second.affinity) == (7.0, False)


def test_a_process_has_an_address_once_it_started() -> None:
    assert [e.id for e in snapshot(Launch(id="m-0", incarnation=1)).endpoints] == ["m-ext-0"]
    started = snapshot(
        Launch(id="m-0", incarnation=1), Started(id="m-0", incarnation=1, pid=7, url="http://127.0.0.1:9")
    )
    endpoint = started.endpoints[0]
    assert (endpoint.url, endpoint.state, endpoint.incarnation) == ("http://127.0.0.1:9", State.STARTING, 1)
    status = started.replicas[0]
    assert (status.pid, status.started_wall_s, status.ready_wall_s) == (7, 1e9 + 101, None)


def test_an_external_endpoint_carries_its_name_and_key_and_no_status_does() -> None:
    answered = snapshot(AskReady(id="m-ext-0", incarnation=0), Answered(id="m-ext-0", incarnation=0))
    (endpoint,) = answered.endpoints
    assert (endpoint.state, endpoint.upstream_model, endpoint.api_key) == (
        State.READY,
        "their-m",
        "sk-secret",
    )
    assert b"sk-secret" not in msgspec.json.encode(answered.replicas)
    assert "sk-secret" not in repr(OUTSIDE)


def test_the_shortest_known_context_is_the_models() -> None:
    external = all_engines()["external"]
    plans = [
        ReplicaPlan(id=f"m-{i}", model="m", engine=external, options={"max_context_tokens": tokens})
        for i, tokens in enumerate([0, 8192, 4096])
    ]
    view = replace(first_view(plans, SETTINGS, 0.0))
    (model,) = build_snapshot(view, plans, generation=1, wall_offset_s=0.0).models
    assert model.max_context_tokens == 4096


def test_what_the_user_says_goes_before_what_a_server_told() -> None:
    told = Capacity(slots=4, kv_tokens=16_000, max_context_tokens=2048)
    for options, slots in (({}, 4), ({"slots": 7}, 7)):
        plan = replace(OUTSIDE, options=options)
        view = first_view([plan], SETTINGS, 100.0)
        for event in (
            AskReady(id=plan.id, incarnation=0, look=True),
            Answered(id=plan.id, incarnation=0, capacity=told),
            AskReady(id=plan.id, incarnation=0),
            Answered(id=plan.id, incarnation=0),
        ):
            view = apply(view, event, 101.0)
        seen = build_snapshot(view, [plan], generation=1, wall_offset_s=0.0)
        assert (seen.endpoints[0].slots, seen.endpoints[0].kv_tokens) == (slots, 16_000)
        assert seen.models[0].max_context_tokens == 2048


def test_adapters_are_asked_for_in_the_words_of_each_replica() -> None:
    tone, noise = Adapter(name="tone", path=Path("/tone")), Adapter(name="noise", path=Path("/noise"))
    vllm = replace(LLAMA, id="v-0", model="v", engine=all_engines()["vllm"], adapters=(tone,))
    plans = [replace(LLAMA, adapters=(tone, noise)), replace(vllm, id="m-1", model="m", adapters=())]
    view = first_view(plans, SETTINGS, 100.0)
    for plan in plans:
        view = apply(view, Launch(id=plan.id, incarnation=1), 101.0)
        started = Started(id=plan.id, incarnation=1, pid=7, url="http://127.0.0.1:9")
        view = apply(view, started, 101.0)
    made = build_snapshot(view, plans, generation=1, wall_offset_s=0.0)
    assert made.models[0].adapters == ("tone", "noise")
    first, second = made.endpoints
    assert [msgspec.json.decode(each.keys) for each in first.adapters] == [
        {"lora": [{"id": 0, "scale": 1.0}]},
        {"lora": [{"id": 1, "scale": 1.0}]},
    ]
    assert second.adapters == ()


def test_how_a_process_ended_is_told_with_its_incarnation_and_the_first_report_counts() -> None:
    crash = ExitCause(kind=ExitKind.CRASHED, summary="it crashed")
    killed = ExitCause(kind=ExitKind.KILLED, summary="its group was killed")
    begin = (
        Launch(id="m-0", incarnation=1),
        Started(id="m-0", incarnation=1, pid=7, url="http://127.0.0.1:9"),
        Answered(id="m-0", incarnation=1),
    )
    assert snapshot(*begin).ends == ()
    crashed = (EngineEnd(id="m-0", incarnation=1, kind="crashed"),)
    gone = MainProcessGone(id="m-0", incarnation=1, cause=crash)
    assert snapshot(*begin, gone).ends == crashed
    after = (*begin, gone, Exited(id="m-0", incarnation=1, cause=killed))
    assert snapshot(*after).ends == crashed
    assert snapshot(*after, Launch(id="m-0", incarnation=2)).ends == crashed
    end = Exited(id="m-0", incarnation=1, cause=killed)
    assert snapshot(*begin, end).ends[0].kind == "killed"
    ended = snapshot(*begin, Terminate(id="m-0", incarnation=1, grace_s=1.0), end)
    assert ended.ends[0].kind == "stopped"


def test_why_a_process_ended_is_told_when_the_next_one_is_ready() -> None:
    crash = ExitCause(kind=ExitKind.CRASHED, summary="it crashed with SIGSEGV")
    begun = (
        Launch(id="m-0", incarnation=1),
        Started(id="m-0", incarnation=1, pid=7, url="http://127.0.0.1:9"),
        Answered(id="m-0", incarnation=1),
    )
    assert snapshot(*begun).replicas[0].last_end == ""
    again = (
        Launch(id="m-0", incarnation=2),
        Started(id="m-0", incarnation=2, pid=8, url="http://127.0.0.1:9"),
        Answered(id="m-0", incarnation=2),
    )
    told = snapshot(*begun, Exited(id="m-0", incarnation=1, cause=crash), *again).replicas[0]
    assert (told.state, told.restarts, told.last_end) == (State.READY, 1, crash.summary)
    assert told.last_end_wall_s is not None
    asked = snapshot(*begun, RestartAsked(id="m-0"), Exited(id="m-0", incarnation=1, cause=crash), *again)
    assert asked.replicas[0].last_end == "a restart was requested"
