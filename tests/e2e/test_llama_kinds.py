"""llama.cpp with other kinds of weights, through the gateway on the real program: a reranker, and a model that takes pictures.

Reranker and projector are noise from a fixed seed, written by the test: what they say means nothing, how it is carried does. One
stack for the whole file; the third model of it is the plain one, which can do neither.
"""

import base64
import hashlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from e2e.box import Stack, http, listening, serving
from small_projector import TOKENS, write_projector
from small_reranker import write_reranker

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(180)]
CONFIG = """
version: 1
models:
  - name: ranker
    source: file://{ranker}
    sha256: "{ranker_sha256}"
    engine: llama-cpp
    engine_options: {{n_ctx: 512, n_parallel: 2, embeddings: true, pooling: rank}}
  - name: seer
    source: file://{weights}
    sha256: "{sha256}"
    engine: llama-cpp
    engine_options: {{n_ctx: 1024, n_parallel: 1, mmproj: {projector}}}
    media_urls: allow
  - name: guarded
    source: file://{weights}
    sha256: "{sha256}"
    engine: llama-cpp
    engine_options: {{n_ctx: 512, n_parallel: 1, mmproj: {projector}}}
  - name: plain
    source: file://{weights}
    sha256: "{sha256}"
    engine: llama-cpp
    engine_options: {{n_ctx: 1024, n_parallel: 1}}
"""
QUERY = "what is a cat?"
DOCUMENTS = ["a cat is an animal", "the bank", "a cat is an animal", "rates rose"]
QUESTION = {"type": "text", "text": "What colour is this?"}
RED, BLUE = (255, 0, 0), (0, 0, 255)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, weights_path: Path) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("llama-kinds")
    ranker = write_reranker(home / "ranker.gguf")
    text = CONFIG.format(
        ranker=ranker,
        ranker_sha256=sha256(ranker),
        weights=weights_path,
        sha256=sha256(weights_path),
        projector=write_projector(home / "projector.gguf"),
    )
    with serving(home, text, FREEHOLD_CACHE_DIR=str(home / "cache")) as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx2.Client]:
    with http(60.0) as client:
        client.base_url = stack.url
        yield client


def refused(client: httpx2.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def tokens_of(stack: Stack, model: str) -> int:
    """Return how many prompt tokens the ledger has of a model."""
    ran = stack.box.run("usage", "--json")
    assert ran.code == 0, ran
    return sum(row["prompt_tokens"] for row in ran.said["usage"] if row["model"] == model)


# --- the reranker -------------------------------------------------------------------------------------------------


def rank(client: httpx2.Client, documents: list[str], **more: Any) -> dict[str, Any]:
    answer = client.post(
        "/v1/rerank", json={"model": "ranker", "query": QUERY, "documents": documents, **more}
    )
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def scores(told: dict[str, Any]) -> dict[int, float]:
    return {row["index"]: row["relevance_score"] for row in told["results"]}


def test_each_document_has_a_score_the_best_first_and_equal_ones_the_same(client: httpx2.Client) -> None:
    told = rank(client, DOCUMENTS)
    found = scores(told)
    assert set(found) == {0, 1, 2, 3}
    assert found[0] == pytest.approx(found[2], abs=1e-4)
    assert len({round(score, 2) for score in found.values()}) == 3
    assert list(found.values()) == sorted(found.values(), reverse=True)
    # By the words and not by the place: the other way round each has the score that it had.
    other = scores(rank(client, DOCUMENTS[::-1]))
    assert [other[3 - index] for index in range(4)] == pytest.approx(
        [found[index] for index in range(4)], abs=1e-4
    )


def test_no_more_than_the_asked_for_are_told(client: httpx2.Client) -> None:
    whole, two = rank(client, DOCUMENTS)["results"], rank(client, DOCUMENTS, top_n=2)["results"]
    assert [row["index"] for row in two] == [row["index"] for row in whole[:2]]


def test_rankings_are_metered(stack: Stack, client: httpx2.Client) -> None:
    before = tokens_of(stack, "ranker")
    usage = rank(client, DOCUMENTS)["usage"]
    assert usage["prompt_tokens"] == usage["total_tokens"] > sum(map(len, DOCUMENTS)) // 2
    assert tokens_of(stack, "ranker") - before == usage["prompt_tokens"]


def test_a_ranking_without_a_reranker_names_the_option(client: httpx2.Client) -> None:
    error = refused(client, "/v1/rerank", model="plain", query=QUERY, documents=DOCUMENTS)
    assert error["code"] == "not_supported_by_engine"
    assert "pooling: rank" in error["message"]


def test_a_reranker_that_is_asked_for_text_says_so_and_stays_in_service(
    stack: Stack, client: httpx2.Client
) -> None:
    for _ in range(8):  # more than what takes a sick replica out
        error = refused(client, "/v1/completions", model="ranker", prompt="hi", max_tokens=1)
        assert error["code"] == "not_supported_by_engine"
        assert "they embed or rank" in error["message"]
    assert len(rank(client, DOCUMENTS)["results"]) == 4
    (replica,) = [each for each in stack.replicas() if each["model"] == "ranker"]
    assert (replica["state"], replica["reason"], replica["restarts"]) == ("ready", "", 0)


def test_a_pair_longer_than_the_reranker_takes_is_too_long(client: httpx2.Client) -> None:
    error = refused(client, "/v1/rerank", model="ranker", query=QUERY, documents=["a cat " * 200])
    assert error["code"] == "context_length_exceeded"


# --- pictures -----------------------------------------------------------------------------------------------------


def png(colour: tuple[int, int, int], side: int = 16) -> bytes:
    """Return a picture of one colour."""
    rows = (b"\0" + bytes(colour) * side) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def picture(colour: tuple[int, int, int]) -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(png(colour)).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def seen(*parts: dict[str, Any], model: str = "seer", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": [QUESTION, *parts]}]
    return {"model": model, "messages": messages, "max_tokens": 12, "temperature": 0, **more}


def answered(client: httpx2.Client, body: dict[str, Any], path: str = "/v1/chat/completions") -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_picture_is_part_of_the_prompt_and_is_metered(stack: Stack, client: httpx2.Client) -> None:
    before = tokens_of(stack, "seer")
    bare = answered(client, seen())["usage"]["prompt_tokens"]
    one = answered(client, seen(picture(RED)))["usage"]["prompt_tokens"]
    two = answered(client, seen(picture(RED), picture(BLUE)))["usage"]["prompt_tokens"]
    assert (one - bare, two - one) == (TOKENS, TOKENS)
    assert tokens_of(stack, "seer") - before == bare + one + two


def test_another_picture_is_another_answer(client: httpx2.Client) -> None:
    first, again, other = (
        answered(client, seen(picture(colour)))["choices"][0]["message"]["content"]
        for colour in (RED, RED, BLUE)
    )
    assert first == again != other


def test_a_picture_in_a_stream(client: httpx2.Client) -> None:
    with client.stream("POST", "/v1/chat/completions", json=seen(picture(RED), stream=True)) as response:
        assert response.status_code == 200
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


def test_a_picture_in_anthropics_words(client: httpx2.Client) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png(RED)).decode()}
    bare, one = (
        answered(client, seen(*parts), "/v1/messages")["usage"]
        for parts in ([], [{"type": "image", "source": source}])
    )
    read = [usage["input_tokens"] + usage["cache_read_input_tokens"] for usage in (bare, one)]
    assert read[1] - read[0] == TOKENS


def test_what_is_no_picture_is_the_callers_mistake(client: httpx2.Client) -> None:
    broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert "image" in refused(client, "/v1/chat/completions", **seen(broken))["message"].lower()


def test_an_address_without_a_picture_is_the_callers_mistake_and_not_the_replicas(
    stack: Stack, client: httpx2.Client
) -> None:
    with listening() as closed:
        port = closed.getsockname()[1]
    nobody, nothing = f"http://127.0.0.1:{port}/x.png", f"{stack.url}/nothing.png"
    for url in (nobody, nothing) * 3:
        there = {"type": "image_url", "image_url": {"url": url}}
        assert refused(client, "/v1/chat/completions", **seen(there))["code"] == "invalid_image_url"
    (replica,) = [each for each in stack.replicas() if each["model"] == "seer"]
    assert (replica["state"], replica["reason"]) == ("ready", "")


@pytest.mark.parametrize(
    ("model", "code"), [("guarded", "media_url_refused"), ("plain", "not_supported_by_engine")]
)
def test_unless_it_is_allowed_no_address_is_fetched(client: httpx2.Client, model: str, code: str) -> None:
    """By the gateway's word where an engine would fetch it, by the engine's own where it takes no pictures."""
    with listening() as asked:
        there = {
            "type": "image_url",
            "image_url": {"url": f"http://127.0.0.1:{asked.getsockname()[1]}/x.png"},
        }
        assert refused(client, "/v1/chat/completions", **seen(there, model=model))["code"] == code
        asked.settimeout(0.2)
        with pytest.raises(TimeoutError):
            asked.accept()


def test_no_file_of_the_engines_machine_is_a_picture(client: httpx2.Client) -> None:
    there = {"type": "image_url", "image_url": {"url": "file:///etc/hostname"}}
    assert "file://" in refused(client, "/v1/chat/completions", **seen(there))["message"]


def test_a_model_without_a_projector_takes_no_pictures(client: httpx2.Client) -> None:
    error = refused(client, "/v1/chat/completions", **seen(picture(RED), model="plain"))
    assert (error["code"], error["message"]) == ("not_supported_by_engine", "This model takes no images.")
