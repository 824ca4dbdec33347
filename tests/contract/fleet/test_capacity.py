"""What external servers tell of their capacity, as the fleet asks for it over HTTP and hands it on."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from freehold.core.events import Endpoint, ReplicaState, Snapshot
from freehold.engines import all_engines
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan
from freehold.fleet.run import Fleet
from gateway_rig.engines import Call, Engine, whole
from waiting import until

MODELS = {"object": "list", "data": [{"id": "their-m", "max_model_len": 4096}]}
LLAMA_CPP = {
    "/v1/models": {"object": "list", "data": [{"id": "their-m", "meta": {"n_ctx_train": 8192}}]},
    "/props": {"total_slots": 4, "default_generation_settings": {"n_ctx": 2048}, "build_info": "b1-a"},
}
VLLM = {
    "/v1/models": MODELS,
    "/metrics": b'vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1.0\n',
}
SILENT = {"/v1/models": {"object": "list", "data": []}}
PLAN = ReplicaPlan(
    id="m-ext-0", model="m", engine=all_engines()["external"], upstream_model="their-m", api_key="k"
)


def pages(server: dict[str, object]) -> Callable[[Call], object]:
    async def answer(call: Call) -> None:
        assert call.header("authorization") == "Bearer k"
        page = server.get(call.path)
        call.send(whole(page or {"error": "none"}, status=200 if page else 404))

    return answer


async def watched(
    tmp_path: Path, plan: ReplicaPlan, then: Callable[[list[Snapshot]], object]
) -> list[Snapshot]:
    """Run a fleet until a condition holds, and return its snapshots."""
    snapshots: list[Snapshot] = []
    settings = FleetSettings(
        log_dir=tmp_path, external_poll_s=0.05, external_timeout_s=0.5, scrape_timeout_s=0.5
    )
    fleet = Fleet([plan], settings, on_snapshot=snapshots.append)
    task = asyncio.create_task(fleet.run())
    await until(lambda: bool(then(snapshots)))
    fleet.request_stop(drained=True)
    await task
    return snapshots


def ready(snapshots: list[Snapshot]) -> list[Endpoint]:
    return [e for each in snapshots for e in each.endpoints if e.state is ReplicaState.READY]


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize(
    ("server", "slots", "kv_tokens", "context_tokens", "kind"),
    [(LLAMA_CPP, 4, 0, 2048, "llama-cpp"), (VLLM, 0, 16_000, 4096, ""), (SILENT, 0, 0, 0, "")],
)
def test_a_server_is_asked_once_what_it_can_take(
    server: dict[str, object], slots: int, kv_tokens: int, context_tokens: int, kind: str, prefix: str, engine: Engine,
    tmp_path: Path,
) -> None:  # fmt: skip
    engine.answer = pages(server)
    plan = replace(PLAN, url=engine.url + prefix)
    polls = lambda _: [call.path for call in engine.calls].count("/v1/models") >= 6  # noqa: E731
    snapshots = asyncio.run(watched(tmp_path, plan, polls))
    first = ready(snapshots)[0]
    assert (first.slots, first.kv_tokens, first.kind) == (slots, kv_tokens, kind)
    assert snapshots[-1].models[0].max_context_tokens == context_tokens
    assert [call.path for call in engine.calls].count("/props") == 1


def test_a_server_that_was_too_busy_to_tell_is_ready_and_asked_again(engine: Engine, tmp_path: Path) -> None:
    async def busy(call: Call) -> None:
        if call.path == "/props" and [each.path for each in engine.calls].count("/props") < 3:
            await call.gone.wait()
        else:
            await pages(LLAMA_CPP)(call)

    engine.answer = busy
    plan = replace(PLAN, url=engine.url)
    told = asyncio.run(watched(tmp_path, plan, lambda seen: [e for e in ready(seen) if e.slots == 4]))
    assert ready(told)[0].slots == 0


def test_a_server_that_comes_back_is_asked_again(engine: Engine, tmp_path: Path) -> None:
    engine.answer = pages(LLAMA_CPP)
    steps = {"down": False, "up": False}
    larger = json.loads(json.dumps(LLAMA_CPP)) | {"/props": {"total_slots": 8}}

    def story(seen: list[Snapshot]) -> bool:
        if not steps["down"] and [e for e in ready(seen) if e.slots == 4]:
            steps["down"] = True
            engine.close()
        if steps["down"] and not steps["up"] and seen[-1].endpoints[0].state is ReplicaState.BACKOFF:
            steps["up"] = True
            engine.answer = pages(larger)
            engine.open()
        return bool([e for e in ready(seen) if e.slots == 8])

    asyncio.run(watched(tmp_path, replace(PLAN, url=engine.url), story))
