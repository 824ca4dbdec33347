"""TensorRT-LLM in words and numbers: its command and file, its ends, its errors, its iterations."""

import json
from pathlib import Path

import pytest

from freehold.engines.base import FOLDER, Command, ExitKind, Placement, Value
from freehold.engines.shared.option_check import check_options
from freehold.engines.tensorrt_llm import ENGINE, FLAGS, RELEASE


def command(model: str = "m", environment: Path | None = None, **options: Value) -> Command:
    assert ENGINE.command is not None
    place = Placement(
        model=model,
        weights=Path("/w/x"),
        host="127.0.0.1",
        port=1234,
        options=options,
        environment=environment,
    )
    return ENGINE.command(place)


def test_the_model_has_the_name_that_clients_use() -> None:
    made = command("org/llama-8b", tp_size=2)
    assert made.argv == (
        "trtllm-serve", "serve", f"{FOLDER}/llama-8b", "--host=127.0.0.1", "--port=1234",
        f"--extra_llm_api_options={FOLDER}/llm_args.yaml", "--tp_size=2",
    )  # fmt: skip
    assert made.links == {"llama-8b": "/w/x"}
    assert made.in_folder("/r").argv[2] == "/r/llama-8b"


def test_the_program_is_the_environments_unless_named() -> None:
    assert command(environment=Path("/e")).argv[0] == "/e/bin/trtllm-serve"
    assert command(environment=Path("/e"), program="/opt/trtllm-serve").argv[0] == "/opt/trtllm-serve"


def test_prebuilt_engines_are_not_told_what_only_pytorch_knows() -> None:
    assert json.loads(command(backend="tensorrt").files["llm_args.yaml"]) == {"return_perf_metrics": True}


def test_what_the_user_says_in_the_file_goes_first() -> None:
    text = command(llm_args='{"return_perf_metrics": false, "max_batch_size": 8}').files["llm_args.yaml"]
    assert json.loads(text)["return_perf_metrics"] is False
    assert ENGINE.slots({"llm_args": '{"max_batch_size": 8}', "max_batch_size": 16}) == 8
    assert ENGINE.slots({"max_batch_size": 16}) == 16
    assert ENGINE.slots({}) == 2048
    assert ENGINE.max_context_tokens({"max_seq_len": 4096}) == 4096
    assert ENGINE.max_context_tokens({}) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"config": "x.yaml"}, "under llm_args"),
        ({"tensor_parallel_size": 2}, "write tp_size"),
        ({"free_gpu_memory_fraction": 0.5}, "write kv_cache_free_gpu_memory_fraction"),
        ({"cp_size": 2}, "write context_parallel_size"),
        ({"llm_args": '{"kv_cache_confg": {"dtype": "fp8"}}'}, "did you mean 'kv_cache_config'"),
        ({"llm_args": '{"nonsense": 1}'}, "LLM API reference"),
        ({"server_role": "CONTEXT"}, "engine: external"),
        ({"llm_args": "[1]"}, "as one text in quotes"),
        ({"backend": "trt"}, "known: _autodeploy, pytorch, tensorrt"),
        ({"max_batch_sise": 1}, "did you mean 'max_batch_size'"),
    ],
)
def test_a_mistake_is_told_with_the_way_out(options: dict[str, Value], words: str) -> None:
    (problem,) = check_options(ENGINE, options, lambda name: name)
    assert words in problem.hint


@pytest.mark.parametrize(
    ("exit_code", "line", "kind", "restart"),
    [
        (2, "Error: No such option: --no-such", ExitKind.BAD_OPTION, False),
        (1, "pydantic_core._pydantic_core.ValidationError: 1 validation error for TorchLlmArgs", ExitKind.BAD_OPTION, False),
        (1, "RuntimeError: Failed to bind socket to 127.0.0.1:8000: [Errno 98] Address already in use", ExitKind.PORT_IN_USE, True),
        (1, "[11/27/2026-10:00:00] [TRT] [E] IRuntime::deserializeCudaEngine: Error Code 1: Serialization (The engine plan file is generated on an incompatible device, expecting compute 9.0 got compute 8.9, please rebuild.)", ExitKind.BAD_WEIGHTS, False),
        (1, "[TRT] [E] 6: The engine plan file is not compatible with this version of TensorRT, expecting library version 10.14.1 got 10.9.0, please rebuild.", ExitKind.BAD_WEIGHTS, False),
        (1, "[TRT] [E] IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 240, Serialized Engine Version: 239)", ExitKind.BAD_WEIGHTS, False),
        (1, "RuntimeError: The NVIDIA driver on your system is too old (found version 12020).", ExitKind.BAD_DRIVER, False),
        (1, "RuntimeError: CUDA error: no kernel image is available for execution on the device", ExitKind.BAD_DRIVER, False),
        (1, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.", ExitKind.OUT_OF_MEMORY, True),
        (1, "MPI_ABORT was invoked on rank 0 in communicator MPI_COMM_WORLD", ExitKind.CRASHED, True),
        (1, "There are not enough slots available in the system to satisfy the 2", ExitKind.CRASHED, True),
        (1, "OSError: /w/x does not appear to have a file named config.json.", ExitKind.BAD_WEIGHTS, False),
        (1, "ModuleNotFoundError: No module named 'tensorrt_llm'", ExitKind.MISSING_PROGRAM, False),
        (1, "ImportError: libmpi.so.40: cannot open shared object file: No such file or directory", ExitKind.MISSING_PROGRAM, False),
        (127, "trtllm-serve: error while loading shared libraries: libpython3.12.so.1.0: cannot open shared object file: No such file or directory", ExitKind.MISSING_PROGRAM, False),
        (-9, "MPI_ABORT was invoked", ExitKind.KILLED, True),
        (-11, "", ExitKind.CRASHED, True),
        (1, "something new", ExitKind.UNKNOWN, True),
    ],
)  # fmt: skip
def test_ends_are_explained_by_the_programs_words(
    exit_code: int, line: str, kind: ExitKind, *, restart: bool
) -> None:
    cause = ENGINE.explain_exit(exit_code, ("something before", line, "something after"))
    assert (cause.kind, cause.restart) == (kind, restart)


@pytest.mark.parametrize(
    "line",
    [
        "ValueError: No GPU devices found on the node",  # while a driver is loaded
        "RuntimeError: CUDA driver version is insufficient for CUDA runtime version",  # said of no driver at all, too
        "[TRT] [E] IRuntime::deserializeCudaEngine: Error Code 2: OutOfMemory (Requested size was 16106127360 bytes.)",
        "RuntimeError: Failed to deserialize cuda engine",
        "ValueError: not enough memory for the KV cache",
        "RuntimeError: max_tokens (8192) in the KV cache is below max_seq_len",
        "[TRT-LLM] [W] skipped: No module named 'tensorrt_llm_extra'",
        "[TRT-LLM] [W] preprocessor: /w does not appear to have a file named preprocessor_config.json.",
        "SafetensorError: device error: Input/output error",
        "[{'type': 'extra_forbidden', 'loc': ('body', 'min_tokenz'), 'msg': 'Extra inputs are not permitted'}]",
        "1 validation error for ChatCompletionRequest",
        "INFO: Error: Invalid value in a request",
    ],
)
def test_what_may_pass_is_started_again(line: str) -> None:
    assert ENGINE.explain_exit(1, ("something before", line, "something after")).restart


@pytest.mark.parametrize("model", ["llm_args.yaml", "llm_args.yml", "org/llm_args.yaml"])
def test_no_models_link_takes_the_place_of_the_file(model: str) -> None:
    made = command(model)
    ((file, _),), ((link, _),) = made.files.items(), made.links.items()
    assert file != link
    assert f"--extra_llm_api_options={FOLDER}/{file}" in made.argv
    assert made.argv[2] == f"{FOLDER}/{link}"


def test_the_flags_are_those_of_the_release_and_what_newer_ones_have_beside_them() -> None:
    assert RELEASE.version == "1.1.0"
    assert len(RELEASE.flags) == 22
    assert [flag.name for flag in FLAGS.flags[:22]] == [flag.name for flag in RELEASE.flags]
    assert {flag.name for flag in FLAGS.flags[22:]} == {
        "chat_template", "context_parallel_size", "custom_module_dirs", "custom_tokenizer", "disagg_cluster_uri",
        "enable_chunked_prefill", "media_io_kwargs", "otlp_traces_endpoint", "revision", "tool_parser",
    }  # fmt: skip


@pytest.mark.parametrize("key", ["kv_cache_config", "cuda_graph_config", "sparse_attention_config"])
def test_a_setting_of_any_recorded_version_is_taken(key: str) -> None:
    assert not check_options(ENGINE, {"llm_args": json.dumps({key: {}})}, lambda name: name)


def test_an_engine_for_another_gpu_says_which() -> None:
    line = "[11/27/2026-10:00:00] [TRT-LLM] [E] expecting compute 9.0 got compute 8.9, please rebuild."
    cause = ENGINE.explain_exit(1, (line,))
    assert cause.summary == (
        "the engines were built for another GPU architecture: expecting compute 9.0 got compute 8.9, please rebuild."
    )
    assert "build the engines anew" in cause.hint


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"message": "The sum of prompt length (6031) and query length (0) should not exceed max_seq_len (2048)"}, "context_length_exceeded"),
        ({"message": "Prompt length (9000) exceeds maximum input length (8192)."}, "context_length_exceeded"),
        ({"error": "[{'type': 'extra_forbidden', 'loc': ('body', 'min_tokenz')}]"}, None),
    ],
)  # fmt: skip
def test_its_refusals_are_told_in_openais_words(body: dict[str, str], code: str | None) -> None:
    error = ENGINE.translate_error(400, json.dumps(body).encode())
    assert error is not None
    assert (error.status, error.type, error.code) == (400, "invalid_request_error", code)


def test_other_refusals_pass_as_they_are() -> None:
    assert ENGINE.translate_error(500, b'{"message": "Internal server error", "type": "x"}') is None


def test_the_last_iteration_counts_and_none_is_unknown() -> None:
    (page,) = ENGINE.more_pages
    rows = [{"iter": 1, "numActiveRequests": 3}, {"iter": 2, "numActiveRequests": 1, "numQueuedRequests": 4}]
    expected = {"decode_steps_total": 2.0, "running_requests": 1.0, "waiting_requests": 4.0}
    assert page.read(json.dumps(rows).encode()) == expected
    assert page.read(json.dumps([json.dumps(row) for row in rows]).encode()) == expected
    assert page.read(b"[]") == {}


def test_it_tells_nobody_what_runs_here_and_fetches_nothing_by_itself() -> None:
    env = command().env
    assert (env["TRTLLM_NO_USAGE_STATS"], env["DO_NOT_TRACK"], env["HF_HUB_OFFLINE"]) == ("1", "1", "1")
