"""What a person may do to a real vLLM behind the gateway's back: put it to sleep, wake it, ask for its load, lend it an adapter.

One replica with the paths of `server_dev_mode` and `runtime_lora`. On a processor sleeping frees no memory, since vLLM has that
for GPUs only; what it does to requests is the same.
"""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from e2e.box import Stack, data_here, http, replica_http, serving
from freehold.fleet.environments.lookup import Environment
from freehold.weights.convert import Converted
from lora_folder import write_adapter_folder
from waiting import wait_until

MODEL = "smollm2-135m"
CONFIG = """\
version: 1
fleet: {{ready_timeout: 500s}}
models:
  - name: {model}
    engine: vllm
    source: file://{path}/
    sha256: {sha256}
    engine_options:
      max_model_len: 1024
      enforce_eager: true
      dtype: bfloat16
      cpu_kv_cache_gib: 1
      cpu_threads: 1
      server_dev_mode: true
      runtime_lora: true
      enable_lora: true
      max_lora_rank: 8
      override_generation_config: {{temperature: 0}}
"""
pytestmark = [
    pytest.mark.real_model,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not os.environ.get("ENGINES"), reason="minutes of a real server: make engines"),
]


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, vllm_environment: Environment, vllm_weights: Converted
) -> Iterator[Stack]:
    assert vllm_environment.path.exists()
    text = CONFIG.format(model=MODEL, path=vllm_weights.path, sha256=vllm_weights.sha256)
    with serving(tmp_path_factory.mktemp("vllm-by-hand"), text, **data_here()) as stack:
        yield stack


@pytest.fixture
def engine(stack: Stack) -> Iterator[httpx2.Client]:
    """Give a client of the replica itself."""
    with replica_http(stack.replicas()[0]["url"], 60.0) as client:
        yield client


def asked(client: httpx2.Client, **more: Any) -> httpx2.Response:
    body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 8, **more}
    return client.post("/v1/completions", json=body)


def text_of(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def until_state(stack: Stack, state: str) -> None:
    wait_until(lambda: stack.replicas()[0]["state"] == state, timeout_s=20, what=state)


def test_its_load_counts_what_is_under_way(engine: httpx2.Client) -> None:
    def load() -> int:
        return int(engine.get("/load").json()["server_load"])

    assert load() == 0
    body = {"model": MODEL, "prompt": "Once", "max_tokens": 200, "ignore_eos": True, "stream": True}
    with engine.stream("POST", "/v1/completions", json=body) as response:
        next(response.iter_lines())
        assert load() == 1
    wait_until(lambda: load() == 0, timeout_s=10, what="the load to fall")


def test_asleep_it_gets_no_requests_and_woken_it_serves_again(stack: Stack, engine: httpx2.Client) -> None:
    pid = stack.replicas()[0]["pid"]
    assert engine.get("/is_sleeping").json() == {"is_sleeping": False}
    assert engine.post("/sleep?level=1").status_code == 200
    assert engine.get("/is_sleeping").json() == {"is_sleeping": True}
    late: list[httpx2.Response] = []
    waiting = threading.Thread(target=lambda: late.append(asked(engine)))
    waiting.start()  # as what the gateway sent before the fleet knew: it is taken, and waits
    until_state(stack, "asleep")
    with http() as client:
        refused = client.post(
            f"{stack.url}/v1/completions", json={"model": MODEL, "prompt": "hi", "max_tokens": 2}
        )
    assert refused.status_code == 503
    assert not late
    assert engine.post("/wake_up").status_code == 200
    waiting.join(30)
    assert text_of(late[0])
    until_state(stack, "ready")
    with http() as client:
        client.base_url = stack.url
        assert text_of(asked(client)) == text_of(late[0])
    assert (stack.replicas()[0]["pid"], stack.replicas()[0]["restarts"]) == (pid, 0)


def test_what_is_under_way_ends_when_it_is_put_to_sleep(stack: Stack, engine: httpx2.Client) -> None:
    body = {"model": MODEL, "prompt": "Once", "max_tokens": 400, "ignore_eos": True, "stream": True}
    with http(60.0) as client, client.stream("POST", f"{stack.url}/v1/completions", json=body) as response:
        lines = (line for line in response.iter_lines() if line)
        said = [next(lines) for _ in range(5)]
        assert engine.post("/sleep?level=1").status_code == 200
        said += lines
    assert engine.post("/wake_up").status_code == 200
    until_state(stack, "ready")
    assert len(said) < 300
    (reason,) = {json.loads(said[-2][6:])["choices"][0]["finish_reason"]}
    assert (reason, said[-1]) == ("abort", "data: [DONE]"), said[-4:]


def test_an_adapter_is_lent_and_taken_back_while_it_runs(
    stack: Stack, engine: httpx2.Client, tmp_path: Path
) -> None:
    """It reads the adapter from its own folder, and from no other one of this user."""
    plain = text_of(asked(engine))
    elsewhere = write_adapter_folder(tmp_path / "noise", strength=1)
    refused = engine.post("/v1/load_lora_adapter", json={"lora_name": "noise", "lora_path": str(elsewhere)})
    assert (refused.status_code, "Permission denied" in refused.text) == (500, True)
    own = stack.box.home / "state" / "logs" / f"{stack.replicas()[0]['id']}.files"
    lent = {"lora_name": "noise", "lora_path": str(write_adapter_folder(own / "noise", strength=1))}
    answer = engine.post("/v1/load_lora_adapter", json=lent)
    assert answer.status_code == 200, answer.text
    assert text_of(asked(engine, model="noise")) != plain == text_of(asked(engine))
    with http() as client:  # the gateway knows only what freehold.yaml names
        client.base_url = stack.url
        assert asked(client, model="noise").status_code == 404
    assert engine.post("/v1/unload_lora_adapter", json={"lora_name": "noise"}).status_code == 200
    assert asked(engine, model="noise").status_code == 404


def test_the_end_leaves_nothing(stack: Stack) -> None:
    assert stack.end() == 0
    stack.box.assert_nothing_left()
