"""What an engine is sent so that no key uses another key's prefix cache, and that a client cannot choose another one."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway_rig.client import CHAT, Client, post
from gateway_rig.engines import Call, Engine, healthy
from gateway_rig.keys import Keys
from gateway_rig.process import Gateway, model, running
from waiting import wait_until

MESSAGES = [{"role": "user", "content": "hi"}]
CHOSEN = {"cache_salt": "mine", "id_slot": 1, "cache_prompt": True}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    keys = Keys(tmp_path_factory.mktemp("keys"))
    for name in ("anna", "ben"):
        keys.add(name)
    return keys


@pytest.fixture(scope="module")
def gateway(the_engine: Engine, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    models = [
        model("salted", the_engine, engine="vllm"),
        model("slotted", the_engine, engine="llama-cpp", slots=2) | {"allow_keys": ["id_slot"]},
        model("on_ask", the_engine, engine="llama-cpp", slots=2) | {"reuse_on_ask": True},
        model("deaf", the_engine, engine="sglang"),
        model("other", the_engine),
    ]
    with running(tmp_path_factory.mktemp("gateway"), models, **keys.settings) as gateway:
        yield gateway
        assert gateway.metric("freehold_bugs_total") == 0


def sent(client: Client, engine: Engine, keys: Keys, caller: str, **fields: Any) -> dict[str, Any]:
    """Return the body that the engine got of one request."""
    body = {"model": "salted", "messages": MESSAGES, "stream": True} | fields
    path = body.pop("path", CHAT)
    client.ask(post(body, path=path, extra=keys.bearer(caller)))
    found: dict[str, Any] = engine.calls[-1].json
    return found


def test_each_key_has_a_salt_of_its_own(client: Client, engine: Engine, keys: Keys):
    salts = [sent(client, engine, keys, name)["cache_salt"] for name in ("anna", "ben", "anna")]
    assert salts[0] == salts[2] != salts[1]
    assert keys.store.read().keys[0].hash not in salts[0]


def test_a_salt_of_the_client_divides_its_own_domain_further(client: Client, engine: Engine, keys: Keys):
    plain = sent(client, engine, keys, "anna")["cache_salt"]
    annas, bens = (
        sent(client, engine, keys, name, cache_salt="mine")["cache_salt"] for name in ("anna", "ben")
    )
    assert len({plain, annas, bens, "mine"}) == 4
    # As another caller would have to send it to meet anna's: it is hashed as well, and under any spelling of the key.
    assert sent(client, engine, keys, "ben", cache_salt=annas)["cache_salt"] != annas
    raw = b'{"model":"salted","cache\\u005fsalt":"%b","messages":[],"stream":true}' % plain.encode()
    client.ask(post(raw, extra=keys.bearer("ben")))
    assert engine.calls[-1].json["cache_salt"] not in {plain, annas}
    assert b"005f" not in engine.calls[-1].body


def test_a_slot_is_used_again_by_its_own_key_alone(client: Client, engine: Engine, keys: Keys):
    seen = [
        sent(client, engine, keys, name, model="slotted", **CHOSEN) for name in ("anna", "ben", "anna", "ben")
    ]
    slots = [body["id_slot"] for body in seen]
    assert slots[0] == slots[2] != slots[1] == slots[3]
    assert [body.get("cache_prompt") for body in seen][2:] == [None, None]
    assert sent(client, engine, keys, "anna", model="slotted", n=2)["cache_prompt"] is False
    after = sent(client, engine, keys, "anna", model="slotted")  # its children may have taken any slot
    assert after["cache_prompt"] is False


def test_requests_at_once_take_different_slots(gateway: Gateway, engine: Engine, keys: Keys):
    go_on = asyncio.Event()

    async def held(call: Call) -> None:
        await go_on.wait()
        await healthy(call)

    engine.answer = held
    clients = [gateway.client() for _ in range(2)]
    for client in clients:
        client.send(post({"model": "slotted", "messages": MESSAGES}, extra=keys.bearer("anna")))
    wait_until(lambda: len(engine.calls) == 2)
    engine.do(go_on.set)
    assert {call.json["id_slot"] for call in engine.calls} == {0, 1}
    for client in clients:
        client.read_answer()
        client.close()


def test_a_path_that_heeds_no_slot_gets_none(client: Client, engine: Engine, keys: Keys):
    body = sent(client, engine, keys, "anna", model="slotted", path="/v1/messages", max_tokens=5)
    assert "id_slot" not in body
    body = sent(client, engine, keys, "anna", model="deaf", path="/v1/messages", max_tokens=5)
    assert "cache_salt" not in body
    assert "cache_salt" in sent(client, engine, keys, "anna", path="/v1/messages", max_tokens=5)


def test_an_engine_that_reuses_on_ask_is_asked_for_its_own_keys_prompts_alone(
    client: Client, engine: Engine, keys: Keys
):
    seen = [sent(client, engine, keys, name, model="on_ask") for name in ("anna", "ben", "anna", "ben")]
    assert [body["cache_prompt"] for body in seen] == [False, False, True, True]


def test_a_server_of_unknown_kind_gets_the_body_as_it_came(client: Client, engine: Engine, keys: Keys):
    assert "cache_salt" not in sent(client, engine, keys, "anna", model="other")


def test_those_who_want_it_share_the_cache(engine: Engine, keys: Keys, tmp_path: Path):
    models = [model("salted", engine, engine="vllm")]
    with running(tmp_path, models, share_cache=True, **keys.settings) as gateway, gateway.client() as client:
        assert "cache_salt" not in sent(client, engine, keys, "anna")
        assert sent(client, engine, keys, "anna", cache_salt="mine")["cache_salt"] == "mine"


def test_without_keys_nothing_is_added(engine: Engine, tmp_path: Path):
    with running(tmp_path, [model("salted", engine, engine="vllm")]) as gateway, gateway.client() as client:
        client.ask(post({"model": "salted", "messages": MESSAGES}))
        assert "cache_salt" not in engine.calls[-1].json
