"""Adapters at the gateway: asked for by name, sent to an endpoint that has them, and told apart wherever a model's name counts."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from freehold.core.events import AdapterAsk, Endpoint, ModelEntry, ReplicaState, Snapshot
from freehold.gateway.counters.request_metrics import GatewayMetrics
from gateway_rig.client import Client, get, post
from gateway_rig.directory import still_directory
from gateway_rig.engines import Call, Engine
from gateway_rig.keys import Keys
from gateway_rig.killing import answer as with_usage
from gateway_rig.process import Gateway, model, running
from waiting import wait_until

TONE = {"name": "tone", "keys": '{"model":"tone"}'}
NOISE = {"name": "noise", "keys": '{"lora":[{"id":1,"scale":1.0}]}'}


@pytest.fixture(scope="module")
def the_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    keys = Keys(tmp_path_factory.mktemp("keys"))
    keys.add("all")
    keys.add("base", models=("m",))
    keys.add("tone", models=("tone",))
    keys.add("base-cpp", models=("cpp",))
    keys.add("poor", models=("tone",), monthly_microusd=5)
    return keys


PRICE = {"input_picousd": 0, "cached_picousd": 0, "output_picousd": 1_000_000}


@pytest.fixture(scope="module")
def gateway(
    the_engine: Engine, the_keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("adapters")
    models = [
        model("m", the_engine) | {"adapters": [TONE]},
        model("cpp", the_engine, engine="llama-cpp", slots=4) | {"adapters": [NOISE]},
    ]
    log = {"path": str(folder / "access.log")}
    with running(folder, models, **the_keys.settings, access_log=log, prices={"m": PRICE}) as gateway:
        yield gateway
        assert gateway.metric("freehold_bugs_total") == 0


def chat(client: Client, keys: Keys, name: str, *, key: str = "all", **more: Any) -> Any:
    body = {"model": name, "messages": [{"role": "user", "content": "hi"}], **more}
    return client.ask(post(body, extra=keys.bearer(key)))


def test_a_request_by_an_adapter_goes_to_its_model_in_the_engines_words(
    client: Client, the_keys: Keys, engine: Engine
) -> None:
    assert chat(client, the_keys, "tone", temperature=0.5).status == 200
    assert chat(client, the_keys, "noise", lora=[{"id": 0, "scale": 9}]).status == 200
    assert chat(client, the_keys, "m").status == 200
    tone, noise, plain = (call.json for call in engine.calls)
    assert (tone["model"], tone["temperature"]) == ("tone", 0.5)
    assert noise["lora"] == [{"id": 1, "scale": 1.0}]
    assert noise["stream"] is True  # this engine notices only so that its client left
    assert "lora" not in plain


def test_models_tell_adapters_with_their_parent(client: Client, the_keys: Keys) -> None:
    listed = client.ask(get("/v1/models", extra=the_keys.bearer("all"))).json["data"]
    assert {row["id"]: row["parent"] for row in listed} == {
        "m": None,
        "cpp": None,
        "tone": "m",
        "noise": "cpp",
    }
    one = client.ask(get("/v1/models/tone", extra=the_keys.bearer("all"))).json
    assert (one["id"], one["root"], one["parent"]) == ("tone", "tone", "m")


def test_a_key_for_the_model_is_none_for_its_adapters_and_the_other_way_round(
    client: Client, the_keys: Keys, engine: Engine
) -> None:
    assert chat(client, the_keys, "tone", key="base").status == 404
    assert chat(client, the_keys, "m", key="tone").status == 404
    assert chat(client, the_keys, "tone", key="tone").status == 200
    listed = client.ask(get("/v1/models", extra=the_keys.bearer("tone"))).json["data"]
    assert [row["id"] for row in listed] == ["tone"]
    assert client.ask(get("/v1/models/tone", extra=the_keys.bearer("base"))).status == 404
    assert len(engine.calls) == 1


@pytest.mark.parametrize(("name", "code"), [("lora", "adapter_by_name"), ("l\\u006fra", "ambiguous_body")])
def test_an_adapters_number_is_no_way_past_its_name(
    name: str, code: str, client: Client, the_keys: Keys, engine: Engine
) -> None:
    body = '{"model": "cpp", "messages": [1], "%s": [{"id": 1, "scale": 1}], "x": 1e999}' % name  # noqa: UP031
    answer = client.ask(post(body.encode(), extra=the_keys.bearer("base-cpp")))
    assert (answer.status, answer.json["error"]["code"]) == (400, code)
    assert not engine.calls
    assert chat(client, the_keys, "m", lora="its engine does not know this word").status == 200


def test_where_the_engine_would_drop_an_adapter_it_is_not_asked(
    client: Client, the_keys: Keys, engine: Engine
) -> None:
    body = {"model": "noise", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    answer = client.ask(post(body, path="/v1/messages", extra=the_keys.bearer("all")))
    assert answer.status == 400
    assert "noise is an adapter of cpp" in answer.json["error"]["message"]
    assert not engine.calls


def test_what_an_adapter_may_cost_is_held_as_its_models_is(
    client: Client, the_keys: Keys, engine: Engine, gateway: Gateway
) -> None:
    go_on = asyncio.Event()

    async def answer_later(call: Call) -> None:
        await go_on.wait()
        await with_usage(call)

    engine.answer = answer_later
    body = {"model": "tone", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 200}
    with gateway.client() as other:
        other.send(post(body, extra=the_keys.bearer("poor")))
        wait_until(lambda: engine.calls)
        refused = chat(client, the_keys, "tone", key="poor")
        assert refused.status == 429
        assert "reserved by requests under way" in refused.json["error"]["message"]
        engine.do(go_on.set)
        assert other.read_answer().status == 200


def test_an_unknown_name_is_told_with_the_adapters_that_there_are(client: Client, the_keys: Keys) -> None:
    answer = chat(client, the_keys, "tune")
    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
    assert "tone" in answer.json["error"]["message"]


def test_the_access_log_names_the_adapter_and_metrics_the_model(
    client: Client, the_keys: Keys, gateway: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = gateway.metric("freehold_gateway_requests_total", model="m")
    assert chat(client, the_keys, "tone").status == 200
    wait_until(lambda: gateway.metric("freehold_gateway_requests_total", model="m") == before + 1)
    assert not gateway.metric("freehold_gateway_requests_total", model="tone")
    config = json.loads((gateway.log_path.parent / "gateway.json").read_text())
    log = Path(config["settings"]["access_log"]["path"])
    wait_until(lambda: log.exists() and '"tone"' in log.read_text())


def _endpoint(number: int, *adapters: str) -> Endpoint:
    asks = tuple(AdapterAsk(name=name, keys="{}") for name in adapters)
    url = f"http://127.0.0.1:{number}"
    return Endpoint(
        id=f"m-{number}", model="m", url=url, engine="external", state=ReplicaState.READY, adapters=asks
    )


class _Request:
    adapter, path, body = "tone", "/v1/chat/completions", b"{}"


class _Applicant:
    request = _Request()
    tried: frozenset[Any] = frozenset()
    cost_tokens, prefix_key, on_trial = 0, 0, False


def test_while_replicas_are_replaced_only_those_that_have_the_adapter_are_asked() -> None:

    directory = still_directory(GatewayMetrics())
    entry = ModelEntry(name="m", engine="external", created_s=0, adapters=("tone",))
    endpoints = (_endpoint(0), _endpoint(1, "tone"), _endpoint(2))
    directory.apply(Snapshot(generation=1, models=(entry,), endpoints=endpoints))
    found = directory.adapters["tone"]
    taken = [found.take(_Applicant(), 0.0) for _ in range(4)]  # type: ignore[arg-type]
    assert {target.id for target in taken if target is not None} == {"m-1"}
    only = next(target for target in found.targets if target.id == "m-1")
    while not only.outlier.is_out(0.0):
        found.failed(only, "connect", 0.0)
    taken = [found.take(_Applicant(), 0.0)]  # type: ignore[arg-type]
    assert taken == [only]  # ejected or not, the others would not know the name
    directory.apply(Snapshot(generation=2, models=(entry,), endpoints=endpoints[:1]))
    assert found.take(_Applicant(), 0.0) is None  # type: ignore[arg-type]
    gone = ModelEntry(name="m", engine="external", created_s=0)
    directory.apply(Snapshot(generation=3, models=(gone,), endpoints=endpoints))
    assert not directory.adapters
