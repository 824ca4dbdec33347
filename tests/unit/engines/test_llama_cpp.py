"""llama.cpp in words and numbers: its command, its sizes, its errors, its ends. The words are the real server's."""

import json
import sys
from pathlib import Path

import pytest

from freehold.engines.base import ExitKind, Placement
from freehold.engines.llama_cpp import ENGINE
from freehold.engines.shared.option_check import check_options


def argv(options: dict[str, int | str | bool | float] | None = None, *, threads: int = 3) -> tuple[str, ...]:
    assert ENGINE.command is not None
    placement = Placement(
        model="m",
        weights=Path("/w/m.gguf"),
        host="127.0.0.1",
        port=1234,
        options=options or {},
        threads=threads,
    )
    return ENGINE.command(placement).argv


def flag(words: tuple[str, ...], name: str) -> str:
    return words[words.index(name) + 1]


def test_the_wheels_child_is_run_by_default() -> None:
    assert argv()[:4] == (sys.executable, "-P", "-m", "freehold.engines.programs.xllamacpp_server")


def test_a_server_binary_is_run_with_the_same_flags() -> None:
    assert argv({"server_binary": "/opt/llama-server"}) == ("/opt/llama-server", *argv()[4:])


def test_threads_are_the_placements_unless_set() -> None:
    assert flag(argv(threads=5), "--threads") == flag(argv(threads=5), "--threads-batch") == "5"
    assert flag(argv({"n_threads": 2}), "--threads-batch") == "2"
    both = argv({"n_threads": 2, "n_threads_batch": 7})
    assert (flag(both, "--threads"), flag(both, "--threads-batch")) == ("2", "7")


def test_what_is_not_asked_for_is_left_to_the_server() -> None:
    assert not {"--gpu-layers", "--pooling", "--seed", "--embeddings"} & set(argv())


def test_texts_are_pooled_whole_unless_somebody_says_otherwise() -> None:
    assert "--kv-unified" not in argv()
    assert "--kv-unified" in argv({"embeddings": True})
    assert "--no-kv-unified" in argv({"embeddings": True, "kv_unified": False})


def test_no_web_page_may_read_answers() -> None:
    assert ENGINE.command is not None
    place = Placement(model="m", weights=Path("/w"), host="127.0.0.1", port=1234, options={})
    assert ENGINE.command(place).env["LLAMA_ARG_CORS_ORIGINS"] == "http://127.0.0.1:1234"


@pytest.mark.parametrize(
    ("n_ctx", "n_parallel", "slot_tokens"),
    [  # measured: the server's own `n_ctx_slot`
        (8192, 4, 2048), (1000, 3, 512), (769, 3, 512), (8192, 3, 2816), (8193, 4, 2304), (300, 4, 256),
        (8192, 64, 256), (8192, 256, 256),
    ],
)  # fmt: skip
def test_a_slots_context_is_rounded_as_the_server_does(n_ctx: int, n_parallel: int, slot_tokens: int) -> None:
    options = {"n_ctx": n_ctx, "n_parallel": n_parallel}
    assert ENGINE.max_context_tokens(options) == slot_tokens
    assert ENGINE.slots(options) == n_parallel


def test_with_one_cache_for_all_each_slot_may_take_it_whole() -> None:
    assert ENGINE.max_context_tokens({"n_ctx": 8192, "n_parallel": 4, "kv_unified": True}) == 8192
    assert ENGINE.max_context_tokens({"n_ctx": 8192, "n_parallel": 4, "embeddings": True}) == 8192


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, "/v1/completions"),
        ({"embeddings": False, "pooling": "mean"}, "/v1/completions"),
        ({"embeddings": True}, "/embeddings"),
        ({"embeddings": True, "pooling": "cls"}, "/embeddings"),
        ({"embeddings": True, "pooling": "rank"}, "/v1/rerank"),
    ],
)
def test_what_has_no_completions_is_not_asked_for_one(options: dict[str, bool | str], path: str) -> None:
    assert ENGINE.proof("m", options).path == path


def test_a_reranker_that_would_rank_for_nobody_is_a_mistake() -> None:
    def problems(options: dict[str, bool | str]) -> list[str]:
        return [problem.hint for problem in check_options(ENGINE, options, lambda name: name)]

    assert problems({"pooling": "rank"}) == ["set embeddings: true"]
    assert problems({"pooling": "rank", "embeddings": True}) == problems({"pooling": "mean"}) == []


def test_a_too_long_request_is_told_with_its_numbers() -> None:
    body = {"error": {"code": 400, "message": "request (6031 tokens) exceeds the available context size (2048 tokens), try increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 6031, "n_ctx": 2048}}  # fmt: skip
    error = ENGINE.translate_error(400, json.dumps(body).encode())
    assert error is not None
    assert (error.status, error.type, error.code) == (
        400,
        "invalid_request_error",
        "context_length_exceeded",
    )
    assert "2048" in error.message
    assert "6031" in error.message
    assert (error.n_prompt_tokens, error.n_ctx) == (6031, 2048)


def test_a_too_long_request_without_numbers_keeps_its_words() -> None:
    body = b'{"error":{"message":"request exceeds it","type":"exceed_context_size_error"}}'
    error = ENGINE.translate_error(400, body)
    assert error is not None
    assert (error.message, error.code) == ("request exceeds it", "context_length_exceeded")
    assert error.n_prompt_tokens is error.n_ctx is None


@pytest.mark.parametrize(
    ("status", "message", "kind", "expected", "words"),
    [
        (400, "Unable to generate parser for this template. Automatic parser generation failed: JSON schema error at #: unrecognized type objekt",
         "invalid_request_error", (400, "invalid_json_schema"), "at #: unrecognized type objekt"),
        (501, "This server does not support embeddings. Start it with `--embeddings`", "not_supported_error", (400, "not_supported_by_engine"), "embeddings: true"),
        (501, "This server does not support reranking. Start it with `--reranking`", "not_supported_error", (400, "not_supported_by_engine"), "pooling: rank"),
        (500, "the current context does not support logits computation. skipping", "server_error", (400, "not_supported_by_engine"), "embeddings: true"),
        (500, "error: cannot make GET request", "server_error", (400, "invalid_image_url"), "data: URIs"),
        (500, "Failed to download image", "server_error", (400, "invalid_image_url"), "data: URIs"),
        (400, "Pooling type 'none' is not OAI compatible. Please use a different pooling type", "invalid_request_error", (400, "not_supported_by_engine"), "pooling: mean"),
        (500, "input (601 tokens) is too large to process. increase the physical batch size (current batch size: 512)", "server_error", (400, "context_length_exceeded"), "n_ubatch"),
        (500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj", "server_error", (400, "not_supported_by_engine"), "takes no images"),
        (500, "[json.exception.type_error.302] type must be string, but is number", "server_error", (400, "invalid_type"), "type must be string, but is number"),
        (503, "Loading model", "unavailable_error", (503, "model_loading"), "loading"),
    ],
)  # fmt: skip
def test_the_servers_refusals_say_what_to_do(
    status: int, message: str, kind: str, expected: tuple[int, str], words: str
) -> None:
    body = json.dumps({"error": {"code": status, "message": message, "type": kind}}).encode()
    error = ENGINE.translate_error(status, body)
    assert error is not None
    assert (error.status, error.code) == expected
    assert words in error.message


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "[json.exception.out_of_range.403] key 'prompt' not found", ("Missing required parameter: 'prompt'.", "prompt", "missing_required_parameter")),
        (500, "'messages' is required", ("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")),
        (400, "'input' is required", ("Missing required parameter: 'input'.", "input", "missing_required_parameter")),
        (400, "Field 'mirostat': [json.exception.type_error.302] type must be number, but is string",
         ("'mirostat' has the wrong type: type must be number, but is string.", "mirostat", "invalid_type")),
        (400, "Field 'n': Value must be between 1 <= value <= 4, but got 9",
         ("'n' cannot be used: Value must be between 1 <= value <= 4, but got 9.", "n", "invalid_value")),
        (400, "Field 'lora': Error: 'lora' must be an array of objects",
         ("'lora' cannot be used: 'lora' must be an array of objects.", "lora", "invalid_value")),
        (400, '"prompt" must not be empty', ('"prompt" must not be empty', "prompt", None)),
    ],
)  # fmt: skip
def test_a_key_of_the_body_that_is_missing_or_wrong_is_named(
    status: int, message: str, expected: tuple[str, str, str | None]
) -> None:
    body = json.dumps({"error": {"code": status, "message": message, "type": "server_error"}}).encode()
    error = ENGINE.translate_error(status, body)
    assert error is not None
    assert (error.status, error.type) == (400, "invalid_request_error")
    assert (error.message, error.param, error.code) == expected


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (500, "Failed to parse input at pos 12", "server_error"),
        (400, "Expected 'messages' to be an array", "invalid_request_error"),
        (404, "File Not Found", "not_found_error"),
        (501, "This server does not support metrics endpoint.", "not_supported_error"),
    ],
)
def test_other_answers_pass_as_they_are(status: int, message: str, kind: str) -> None:
    body = json.dumps({"error": {"code": status, "message": message, "type": kind}}).encode()
    assert ENGINE.translate_error(status, body) is None


@pytest.mark.parametrize(
    ("exit_code", "line", "kind", "restart"),
    [
        (3, "0.00.002.102 E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18182", ExitKind.PORT_IN_USE, True),
        (3, "0.00.004.123 E gguf_init_from_file: failed to open GGUF file 'm.gguf' (No such file or directory)", ExitKind.BAD_WEIGHTS, False),
        (3, "0.00.003.434 E gguf_init_from_reader: failed to read magic", ExitKind.BAD_WEIGHTS, False),
        (3, "0.00.275.273 E llama_model_load: error loading model: mmap failed: Cannot allocate memory", ExitKind.OUT_OF_MEMORY, True),
        (3, "0.00.268.005 E ggml_aligned_malloc: insufficient memory (attempted to allocate 180.00 MB)", ExitKind.OUT_OF_MEMORY, True),
        (-6, "  what():  Resource temporarily unavailable", ExitKind.OUT_OF_MEMORY, True),
        (-6, "llama-context.cpp:2289: GGML_ASSERT(n_outputs_max <= cparams.n_outputs_max) failed", ExitKind.BAD_OPTION, False),
        (2, "llama.cpp: error: argument --pooling: invalid choice: 'x'", ExitKind.BAD_OPTION, False),
        (1, "error: invalid argument: --no-such-flag", ExitKind.BAD_OPTION, False),
        (127, "xllamacpp cannot be imported: No module named 'xllamacpp'", ExitKind.MISSING_PROGRAM, False),
        (127, "", ExitKind.MISSING_PROGRAM, False),
        (-11, "0.00.002.102 I slot release", ExitKind.CRASHED, True),
        (3, "llama.cpp did not come up: Failed to init server, please check the input params.", ExitKind.UNKNOWN, True),
    ],
)  # fmt: skip
def test_ends_are_explained_by_the_servers_words(
    exit_code: int, line: str, kind: ExitKind, *, restart: bool
) -> None:
    cause = ENGINE.explain_exit(exit_code, ("something before", line, "something after"))
    assert (cause.kind, cause.restart) == (kind, restart)


def test_an_explanation_leaves_the_servers_clock_out() -> None:
    cause = ENGINE.explain_exit(3, ("0.00.003.434 E gguf_init_from_reader: failed to read magic",))
    assert cause.summary == "the weights file cannot be loaded: gguf_init_from_reader: failed to read magic"


@pytest.mark.parametrize("exit_code", [0, -15, -9, 137])
def test_old_errors_in_the_log_do_not_explain_a_kill(exit_code: int) -> None:
    cause = ENGINE.explain_exit(exit_code, ("E ggml: insufficient memory",))
    assert cause.kind in (ExitKind.STOPPED, ExitKind.KILLED)


@pytest.mark.parametrize(
    ("message", "models_fault"),
    [
        ("The model produced output that does not match the expected peg-native format", True),
        ("Failed to parse tool call arguments as JSON: [json.exception.parse_error.101]", True),
        ("Failed to parse input at pos 12: <tool_call>", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("", False),
    ],
)
def test_an_output_that_does_not_parse_is_the_models_fault(message: str, *, models_fault: bool) -> None:
    assert ENGINE.blames_model is not None
    body = json.dumps({"error": {"code": 500, "message": message, "type": "server_error"}}).encode()
    assert ENGINE.blames_model(body) is models_fault
    assert not ENGINE.blames_model(b"<html>")
