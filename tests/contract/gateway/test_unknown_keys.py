"""Keys at the top of a request: those that its engine's file does not know do not reach it, and those that clients send do."""

from collections.abc import Iterator
from typing import Any

import pytest

from agent_requests import CLAUDE_CODE, CODEX, CODEX_OWN
from gateway_rig.client import Client, post
from gateway_rig.engines import Engine
from gateway_rig.process import Gateway, model, running

HI: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def gateway(the_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    models = [
        model("m", the_engine),
        model("found", the_engine) | {"kind": "llama-cpp"},
        model("cpp", the_engine, engine="llama-cpp", slots=4),
        model("open", the_engine, engine="llama-cpp", slots=4) | {"allow_keys": ["n_new"]},
        model("vllm", the_engine, engine="vllm", slots=4),
        model("sglang", the_engine, engine="sglang", slots=4),
        model("trt", the_engine, engine="tensorrt-llm", slots=4),
    ]
    with running(tmp_path_factory.mktemp("keys"), models) as gateway:
        yield gateway
        assert gateway.metric("freehold_bugs_total") == 0


@pytest.mark.parametrize("name", ["cpp", "vllm", "sglang"])
@pytest.mark.parametrize(
    ("path", "body"), [("/v1/messages", CLAUDE_CODE), ("/v1/responses", CODEX | CODEX_OWN)]
)
def test_every_key_of_a_coding_agent_passes_the_engines_lists(
    path: str, body: dict[str, Any], name: str, client: Client, engine: Engine
) -> None:
    client.ask(post(body | {"model": name}, path=path))
    assert body.keys() <= engine.calls[0].json.keys()


@pytest.mark.parametrize("name", ["cpp", "vllm", "sglang", "trt", "found"])
@pytest.mark.parametrize("written", ["n_new", "n\\u005fnew"])
def test_a_key_that_the_engine_does_not_know_is_refused(
    written: str, name: str, client: Client, engine: Engine
) -> None:
    body = f'{{"model":"{name}","messages":[1],"min_p":0.1,"{written}":null}}'.encode()
    answer = client.ask(post(body))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "unknown_parameter", "n_new")
    assert "allow_keys" in answer.error["message"]
    assert not engine.calls


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("vllm", "guided_json"), ("vllm", "vllm_xargs"), ("vllm", "grammar"), ("cpp", "chat_parser"), ("cpp", "structured_outputs"),
        ("sglang", "custom_logit_processor"), ("sglang", "lora_path"), ("trt", "lora_request"),
    ],
)  # fmt: skip
def test_what_another_engine_knows_or_steers_one_does_not_reach_it(
    name: str, key: str, client: Client, engine: Engine
) -> None:
    answer = client.ask(post({"model": name, "messages": HI, key: {}}))
    assert (answer.error["code"], answer.error["param"]) == ("unknown_parameter", key)
    assert not engine.calls


@pytest.mark.parametrize("name", ["open", "m"])
def test_it_passes_if_the_operator_allows_it_or_the_server_is_of_an_unknown_kind(
    name: str, client: Client, engine: Engine
) -> None:
    client.ask(post({"model": name, "messages": HI, "n_new": 1}))
    assert engine.calls[0].json["n_new"] == 1


def test_the_error_shows_the_beginning_of_a_long_key(client: Client, engine: Engine) -> None:
    answer = client.ask(post({"model": "cpp", "messages": HI, "\x1b" + "x" * 5000: 1}))
    assert (answer.status, answer.error["param"]) == (400, "\x1b" + "x" * 79)
    assert "\x1b" not in answer.error["message"]
