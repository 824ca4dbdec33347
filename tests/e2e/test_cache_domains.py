"""Two keys and one real llama.cpp: what one asked is nothing to the other, and a key that is revoked at once ends its streams."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from e2e.box import Stack, http, serving

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(180)]
CONFIG = """
version: 1
models:
  - name: smollm2-135m
    source: file://{weights}
    sha256: "{sha256}"
    engine: llama-cpp
    engine_options: {{n_ctx: 8192, n_parallel: 4}}
gateway: {{auth: keys, keys_file: keys.json}}
"""
PROMPT = "The secret of the house is in the garden, behind the third oak from the left. " * 6
ENDS_S = 1.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, weights_path: Path) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("cache-domains")
    sha256 = hashlib.sha256(weights_path.read_bytes()).hexdigest()
    with serving(home, CONFIG.format(weights=weights_path, sha256=sha256)) as stack:
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
    body: dict[str, Any] = {"model": "smollm2-135m", "max_tokens": 2, "temperature": 0}
    body |= (
        {"prompt": PROMPT}
        if path == "/v1/completions"
        else {"messages": [{"role": "user", "content": PROMPT}]}
    )
    body |= more
    answer = client.post(path, json=body, headers=header)
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    if path == "/v1/messages":
        found = usage["cache_read_input_tokens"]
        return found, found + usage["input_tokens"]
    return usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_one_key_learns_nothing_of_what_another_one_asked(
    stack: Stack, client: httpx2.Client, path: str
) -> None:
    mark = path.rpartition("/")[0][-4:].strip("/")
    anna, ben = (new_key(stack, client, f"{name}-{mark}") for name in ("anna", "ben"))
    for _ in range(2):
        own, prompt = cached(client, anna, path)
    assert own >= 0.95 * prompt  # its own key's gain is kept
    fresh = new_key(stack, client, f"carl-{mark}")
    assert cached(client, fresh, path, cache_prompt=True)[0] == 0
    assert cached(client, ben, path)[0] == 0
    own, prompt = cached(client, ben, path)
    assert own >= 0.95 * prompt
    assert cached(client, anna, path)[0] in {0, own}  # nothing but its own


def test_a_path_that_drops_the_slot_shows_no_key_what_another_one_asked(
    stack: Stack, client: httpx2.Client
) -> None:
    anna, ben = (new_key(stack, client, f"{name}-m") for name in ("anna", "ben"))
    for path in ("/v1/chat/completions", "/v1/messages"):
        cached(client, anna, path)
        assert cached(client, ben, "/v1/messages")[0] == 0, path
    assert cached(client, ben, "/v1/chat/completions")[0] == 0


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
