"""LoRA adapters by their names through the gateway, on the real engines: fetched, loaded, asked for, counted, and changed by reload.

llama.cpp runs in every run of the tests, vLLM with `make engines`.
"""

import json
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import openai
import pytest

from e2e.box import Stack, data_here, http, serving
from freehold.weights.transfer import Reporter
from freehold.weights.tree import hash_folder, tree_hash
from lora_adapter import write_adapter
from lora_folder import write_adapter_folder

MODEL = "smollm2-135m"
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
pytestmark = [pytest.mark.real_model, pytest.mark.timeout(600)]


def model(engine: str, weights: Path, digits: str, options: str, adapters: dict[str, tuple[str, str]]) -> str:
    lines = "".join(
        f"\n      - {{name: {name}, source: {source}, sha256: {digits}}}"
        for name, (source, digits) in adapters.items()
    )
    slash = "/" if weights.is_dir() else ""
    return (
        f"version: 1\nfleet: {{ready_timeout: 500s}}\nmodels:\n  - name: {MODEL}\n    engine: {engine}\n"
        f"    source: file://{weights}{slash}\n    sha256: {digits}\n    engine_options: {options}\n    adapters:{lines}\n"
    )


def gguf(home: Path, name: str, *, strength: float) -> tuple[str, str]:
    """Write an adapter whose file name holds what llama.cpp cuts its flag at; return its source and hash."""
    path = write_adapter(home / f"{name}, 1:0.gguf", strength=strength)
    return f"'file://{path}'", sha256(path.read_bytes()).hexdigest()


def folder(home: Path, name: str, *, strength: float) -> tuple[str, str]:
    path = write_adapter_folder(home / name, strength=strength, rank=20)
    return f"file://{path}/", tree_hash(hash_folder(path, Reporter(None), ()))


class Served:
    """A stack with two adapters: one of noughts, one of noise."""

    def __init__(
        self, stack: Stack, write: Callable[[str], tuple[str, str]], text: Callable[..., str]
    ) -> None:
        self.stack, self.write, self.text = stack, write, text

    def say(self, name: str, **more: Any) -> str:
        with (
            http(120.0) as transport,
            openai.OpenAI(
                base_url=f"{self.stack.url}/v1", api_key="none", max_retries=0, http_client=transport
            ) as client,
        ):
            answer = client.chat.completions.create(
                model=name, messages=QUESTION, max_tokens=12, temperature=0, **more
            )
            return answer.choices[0].message.content or ""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, weights_path: Path) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("adapters-llama")
    digits = sha256(weights_path.read_bytes()).hexdigest()
    made = {"noughts": gguf(home, "noughts", strength=0), "noise": gguf(home, "noise", strength=1)}

    def text(**more: tuple[str, str]) -> str:
        return model("llama-cpp", weights_path, digits, "{n_ctx: 4096, n_parallel: 2}", {**made, **more})

    yield from serve(home, text, lambda name: gguf(home, name, strength=1))


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Served]:
    if not os.environ.get("ENGINES"):
        pytest.skip("a minute and more of a real server: make engines")
    weights = request.getfixturevalue("vllm_weights")
    home = tmp_path_factory.mktemp("adapters-vllm")
    made = {"noughts": folder(home, "noughts", strength=0), "noise": folder(home, "noise", strength=1)}
    options = (
        "{max_model_len: 1024, enforce_eager: true, dtype: bfloat16, cpu_kv_cache_gib: 1, cpu_threads: 1}"
    )

    def text(**more: tuple[str, str]) -> str:
        return model("vllm", weights.path, weights.sha256, options, {**made, **more})

    yield from serve(home, text, lambda name: folder(home, name, strength=1))


def serve(home: Path, text: Callable[..., str], write: Callable[[str], tuple[str, str]]) -> Iterator[Served]:
    with serving(home, text(), **data_here()) as stack:
        yield Served(stack, write, text)


@pytest.fixture(params=["llama", "vllm"])
def served(request: pytest.FixtureRequest) -> Served:
    found: Served = request.getfixturevalue(request.param)
    return found


def test_each_name_is_answered_by_its_own_weights(served: Served) -> None:
    plain = served.say(MODEL)
    assert served.say("noughts") == plain
    assert served.say("noise") != plain
    assert served.say(MODEL) == plain  # the adapter's cache is not the model's


ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": QUESTION, "max_tokens": 12},
    "/v1/completions": {"prompt": "The capital of France is", "max_tokens": 12},
    "/v1/responses": {"input": "What is the capital of France?", "max_output_tokens": 16},
    "/v1/messages": {"messages": QUESTION, "max_tokens": 12},
}
"""A request on each path that makes text, and below where its answer has that."""
TEXT: dict[str, Callable[[Any], str]] = {
    "/v1/chat/completions": lambda said: str(said["choices"][0]["message"]["content"]),
    "/v1/completions": lambda said: str(said["choices"][0]["text"]),
    "/v1/responses": lambda said: json.dumps([each.get("content") for each in said["output"]]),
    "/v1/messages": lambda said: json.dumps(said["content"]),
}


@pytest.mark.parametrize("path", ASKED)
def test_no_path_answers_without_the_adapter_that_was_asked_for(path: str, served: Served) -> None:
    """Where an engine drops on the way what names the adapter, the request is refused and not answered by the model alone."""
    answers = {}
    with http(120.0) as client:
        for name in (MODEL, "noughts", "noise"):
            body = {"model": name, "temperature": 0, **ASKED[path]}
            answers[name] = client.post(f"{served.stack.url}{path}", json=body)
    assert answers[MODEL].status_code == 200, answers[MODEL].text
    if answers["noise"].status_code == 400:
        assert "takes none on" in answers["noise"].json()["error"]["message"]
        assert answers["noughts"].status_code == 400
        assert path == "/v1/messages"  # of what makes text nothing else may be missing
        return
    said = {name: TEXT[path](answer.json()) for name, answer in answers.items()}
    assert said["noughts"] == said[MODEL] != said["noise"]


def test_adapters_are_listed_and_counted_under_their_names(served: Served) -> None:
    with http() as client:
        rows = client.get(f"{served.stack.url}/v1/models").json()["data"]
        assert {row["id"]: row["parent"] for row in rows} == {MODEL: None, "noughts": MODEL, "noise": MODEL}
    served.say("noise")
    ran = served.stack.box.run("usage", "--by", "model", "--json")
    names = {row["model"] for row in json.loads(ran.out)["usage"]}
    assert {"noise"} <= names, ran.out


def test_a_new_adapter_comes_by_reload_and_cuts_nobody(served: Served) -> None:
    box = served.stack.box
    box.write(served.text(third=served.write("third")))
    ran = box.run("reload", timeout_s=400.0)
    assert ran.code == 0, ran.err
    assert served.say("third") == served.say("noise") != served.say(MODEL)


def test_what_is_no_adapter_is_refused_before_anything_starts(llama: Served, weights_path: Path) -> None:
    box = llama.stack.box
    wrong = (f"file://{weights_path}", sha256(weights_path.read_bytes()).hexdigest())
    box.write(llama.text(third=wrong))
    ran = box.run("reload")
    assert ran.code != 0
    assert "not a LoRA adapter" in ran.err + ran.out
    assert llama.say("noise") != llama.say(MODEL)
