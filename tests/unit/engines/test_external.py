"""The common servers' words for a request that is too long."""

import json

import pytest

from freehold.engines.base import Capacity
from freehold.engines.external import ENGINE

LONG = "This model's maximum context length is 2048 tokens. However, you requested 2054 tokens (1030 in the messages)."


@pytest.mark.parametrize(
    "body",
    [
        # OpenAI, error reference
        {"error": {"message": LONG, "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}},
        # vLLM to 0.9 (issue 16420) and since
        {"object": "error", "message": LONG, "type": "BadRequestError", "param": None, "code": 400},
        {"error": {"message": LONG, "type": "BadRequestError", "param": "input_tokens", "code": 400}},
        {"error": {"message": "The decoder prompt (length 5951) is longer than the maximum model length of 4096.", "code": 400}},
        # SGLang (QwenLM/Qwen3 issue 1321)
        {"object": "error", "message": "The input (61709 tokens) is longer than the model's context length (40960 tokens).", "type": "BadRequestError", "param": None, "code": 400},
        {"object": "error", "message": "Requested token count exceeds the model's maximum context length of 4096 tokens."},
        # llama.cpp
        {"error": {"code": 400, "message": "request (6031 tokens) exceeds the available context size (2048 tokens), try increasing it", "type": "exceed_context_size_error"}},
        # a proxy that only keeps the code
        {"error": {"code": "context_length_exceeded"}},
    ],
)  # fmt: skip
def test_a_long_request_is_recognised(body: dict[str, object]) -> None:
    error = ENGINE.translate_error(400, json.dumps(body).encode())
    assert error is not None
    assert (error.status, error.code, error.type) == (400, "context_length_exceeded", "invalid_request_error")
    inner = body.get("error", body)
    assert isinstance(inner, dict)
    assert error.message == inner.get("message", "The request is longer than the model's context.")
    assert error.param == inner.get("param")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"error": {"message": "max_tokens must be at least 1", "code": 400}}',
        b'{"error": {"message": null, "code": null}}',
        b'{"error": {"message": "overloaded", "code": ["context_length_exceeded"]}}',
    ],
)
def test_other_errors_pass(body: bytes) -> None:
    assert ENGINE.translate_error(400, body) is None


def test_it_is_not_ours_to_run() -> None:
    assert not ENGINE.managed
    assert ENGINE.command is None
    assert not ENGINE.explain_exit(1, ()).restart


def test_sizes_are_what_the_user_says() -> None:
    assert (ENGINE.slots({}), ENGINE.max_context_tokens({})) == (0, 0)
    assert ENGINE.slots({"slots": 32}) == 32
    assert ENGINE.max_context_tokens({"max_context_tokens": 40960}) == 40960


def told(path: str, body: object, model: str = "m") -> Capacity:
    (page,) = [each for each in ENGINE.capacity_pages if each.path == path]
    return page.read(body if isinstance(body, bytes) else json.dumps(body).encode(), model)


def test_llama_cpp_tells_its_slots_and_the_context_of_each() -> None:
    props = {"default_generation_settings": {"id": 0, "n_ctx": 2048, "params": {}}, "total_slots": 4}
    assert told("/props", props) == Capacity(slots=4, max_context_tokens=2048)
    theirs = Capacity(slots=4, max_context_tokens=2048, kind="llama-cpp")
    assert told("/props", props | {"build_info": "b6000-0a1b2c3"}) == theirs
    assert told("/props", {"total_slots": "4", "default_generation_settings": {"n_ctx": -1}}) == Capacity()
    assert told("/props", {"total_slots": True, "default_generation_settings": 3}) == Capacity()


VLLM = b"""# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_cpu_blocks="None",num_gpu_blocks="1000",sliding_window="None"} 1.0
vllm:num_requests_running{engine="0",model_name="m"} 0.0
"""


def test_vllm_tells_the_tokens_of_its_kv_cache() -> None:
    assert told("/metrics", VLLM) == Capacity(kv_tokens=16_000)
    second = VLLM.splitlines()[2].replace(b'engine="0"', b'engine="1"')
    assert told("/metrics", VLLM + second + b"\n") == Capacity(kv_tokens=32_000)
    assert told("/metrics", VLLM.replace(b'"1000"', b'"None"')) == Capacity()


def test_a_list_of_models_tells_the_context_of_the_one_that_is_asked_for() -> None:
    rows = [{"id": "other", "max_model_len": 9}, {"id": "m", "max_model_len": 8192}, {"id": "m"}]
    assert told("/v1/models", {"data": rows}) == Capacity(max_context_tokens=8192)
    assert told("/v1/models", {"data": rows}, "none") == Capacity()
