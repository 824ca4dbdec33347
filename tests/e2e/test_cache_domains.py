"""Two keys and one real engine: what one asked is nothing to the other, and a key that is revoked at once ends its streams.

llama.cpp always, vLLM in `make engines`. SGLang needs a GPU: what it is sent is in tests/contract/gateway/test_cache_domains.py.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from e2e.box import Stack, data_here, http, serving

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(400)]
CONFIG = """
version: 1
fleet: {{ready_timeout: 300s}}
models:
  - name: smollm2-135m
    source: file://{weights}
    sha256: "{sha256}"
    engine: {engine}
    engine_options: {options}
gateway: {{auth: keys, keys_file: keys.json}}
"""
BLOCK = 32
OPTIONS = {
    "llama-cpp": "{n_ctx: 8192, n_parallel: 4}",
    "vllm": (
        "{max_model_len: 2048, enforce_eager: true, dtype: bfloat16, cpu_kv_cache_gib: 1, cpu_threads: 1,"
        f" block_size: {BLOCK}, enable_prompt_tokens_details: true}}"
    ),
}
PROMPT = "The secret of the house is in the garden, behind the third oak from the left. " * 6
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
ENDS_S = 1.0


@pytest.fixture(
    scope="module",
    params=[
        "llama-cpp",
        pytest.param(
            "vllm",
            marks=pytest.mark.skipif(
                not os.environ.get("ENGINES"), reason="a minute of a real server: make engines"
            ),
        ),
    ],
)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory,
    weights_path: Path,
    engine: str,
    request: pytest.FixtureRequest,
) -> Iterator[Stack]:
    weights, sha256 = str(weights_path), hashlib.sha256(weights_path.read_bytes()).hexdigest()
    if engine == "vllm":
        found = request.getfixturevalue("vllm_weights")
        weights, sha256 = f"{found.path}/", found.sha256
    text = CONFIG.format(weights=weights, sha256=sha256, engine=engine, options=OPTIONS[engine])
    with serving(tmp_path_factory.mktemp(f"domains-{engine}"), text, **data_here()) as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx2.Client]:
    with http(60.0) as client:
        client.base_url = stack.url
        yield client


def new_key(stack: Stack, client: httpx2.Client, name: str) -> dict[str, str]:
    """Make a key and return its header, once the gateway knows it."""
    header = {"authorization": f"Bearer {stack.box.run('key', 'create', name, '--json').said['key']}"}
    ends_s = time.monotonic() + 10
    while client.get("/v1/models", headers=header).status_code != 200:
        assert time.monotonic() < ends_s
    return header


def cached(client: httpx2.Client, header: dict[str, str], path: str, **more: Any) -> tuple[int, int]:
    """Ask the prompt; return how many of its tokens came from the cache, and how many it has."""
    question: dict[str, Any] = {
        "/v1/completions": {"prompt": PROMPT, "max_tokens": 2},
        "/v1/responses": {"input": PROMPT, "max_output_tokens": 2, "store": False},
    }.get(path, {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 2})
    body = {"model": "smollm2-135m", "temperature": 0, **question, **more}
    answer = client.post(path, json=body, headers=header)
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    if path == "/v1/messages":
        found = usage.get("cache_read_input_tokens") or 0
        return found, usage["input_tokens"] + found
    kind = "input" if path == "/v1/responses" else "prompt"
    return (usage[f"{kind}_tokens_details"] or {}).get("cached_tokens") or 0, usage[f"{kind}_tokens"]


def reusable(engine: str, prompt: int) -> int:
    """Return how many of a prompt's tokens can come from the cache: the last never, and of vLLM's blocks whole ones."""
    return prompt - 1 if engine == "llama-cpp" else (prompt - 1) // BLOCK * BLOCK


@pytest.mark.parametrize("path", PATHS)
def test_one_key_learns_nothing_of_what_another_one_asked(
    stack: Stack, client: httpx2.Client, engine: str, path: str
) -> None:
    mark = path.rpartition("/")[0][-4:].strip("/") + path[-4:]
    anna, ben = (new_key(stack, client, f"{name}-{mark}") for name in ("anna", "ben"))
    for _ in range(2):
        own, prompt = cached(client, anna, path)
    gain = 0 if (engine, path) == ("llama-cpp", "/v1/messages") else 0.95 * reusable(engine, prompt)
    assert own >= gain  # its own key's gain is kept
    fresh = new_key(stack, client, f"carl-{mark}")
    assert cached(client, fresh, path, cache_prompt=True, cache_salt="")[0] == 0
    assert cached(client, ben, path)[0] == 0
    own, prompt = cached(client, ben, path)
    assert own >= gain
    assert cached(client, anna, path)[0] in {0, own}  # nothing but its own


def test_a_path_that_drops_the_slot_shows_no_key_what_another_one_asked(
    stack: Stack, client: httpx2.Client
) -> None:
    anna = new_key(stack, client, "anna-m")
    for number, path in enumerate(("/v1/chat/completions", "/v1/messages")):
        cached(client, anna, path)
        ben = new_key(stack, client, f"ben-m{number}")
        assert cached(client, ben, "/v1/messages")[0] == 0, path
    assert cached(client, new_key(stack, client, "carl-m"), "/v1/chat/completions")[0] == 0


def test_an_empty_prompt_makes_no_slot_its_senders_own(stack: Stack, client: httpx2.Client) -> None:
    """llama.cpp answers it 200 and leaves the slot as the caller before had it."""
    secret = "Tomorrow at noon the blue van leaves from the back gate, and nobody watches it."
    anna, ben = (new_key(stack, client, name) for name in ("anna-2", "ben-3"))
    cached(client, anna, "/v1/completions", prompt=secret)
    for number in range(3):  # the secret is in the slot that is next
        cached(client, new_key(stack, client, f"other-{number}"), "/v1/completions", prompt="Good evening.")
    client.post("/v1/completions", json={"model": "smollm2-135m", "prompt": ""}, headers=ben)
    assert cached(client, ben, "/v1/completions", prompt=secret)[0] == 0


def test_what_slots_kept_before_is_nothing_to_another_key(stack: Stack, client: httpx2.Client) -> None:
    """llama.cpp saves what a slot held in main memory, and puts it into whatever slot a prompt like it comes to."""
    secret = "My account number is 4711 and the word that opens it is rosebud; tell nobody else."
    dora, ben = (new_key(stack, client, name) for name in ("dora", "ben-2"))
    cached(client, dora, "/v1/completions", prompt=secret)
    for word in ("one", "two", "three", "four"):  # as many as slots: the secret has left all of them
        cached(client, dora, "/v1/completions", prompt=f"{word} " * 120)
    cached(client, ben, "/v1/completions", prompt="Once upon a time there was a king. " * 4)
    assert cached(client, ben, "/v1/completions", prompt=secret)[0] == 0


def test_a_key_revoked_at_once_ends_its_stream_in_band(stack: Stack, client: httpx2.Client) -> None:
    header = new_key(stack, client, "carl")
    body = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Count to a million."}],
            "stream": True, "max_tokens": 1500, "ignore_eos": True}  # fmt: skip
    with client.stream("POST", "/v1/chat/completions", json=body, headers=header) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert stack.box.run("key", "revoke", "carl", "--now").code == 0
        started_s = time.monotonic()
        last = [line for line in lines if line][-1]
        assert time.monotonic() - started_s < ENDS_S
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["code"] == "invalid_api_key"
    assert error["message"] == "This API key was revoked. This answer is not complete."
    assert client.get("/v1/models", headers=header).status_code == 401
