"""SGLang: Hugging Face folders on GPUs, through `python -m sglang.launch_server` in an environment of its own.

`engine_options` are the program's own flags (`flags/sglang-0.5.23.json`, taken from its parser) with `_` for `-`; what
Freehold sets itself is refused by name. The words, counters and pages in this file were read in the source of that
version; it has not been run on a GPU here (docs/engines.md says what was checked, and by what).

What its source says of it, and what follows:
- `/health_generate` is content with any sign of life of the scheduler while it is busy, so readiness is a completion;
- the counters of tokens move when a request ends, `realtime_tokens_total` with every step: progress is the latter;
- it reads numbers out of CUDA_VISIBLE_DEVICES (distributed/device_communicators/custom_all_reduce.py), so it gets no UUIDs;
- a request whose client left is aborted within seconds, streamed or not;
- a child that fails (the scheduler, on each GPU) makes the server kill itself: the end is SIGKILL or exit code 0, and
  only the log tells it from one that was asked for.
"""

import json
import re
from collections.abc import Mapping
from types import MappingProxyType

from freehold.engines.base import (
    Adapter,
    ApiError,
    Capacity,
    Command,
    Continues,
    Engine,
    ExitCause,
    ExitKind,
    Format,
    HttpCheck,
    Metric,
    Option,
    Placement,
    Tells,
    Value,
    context_error,
    error_fields,
    explain_code,
    phases,
)
from freehold.engines.shared.exit_rules import by_rules, exit_rule, otherwise
from freehold.engines.shared.flag_list import load_flags, other_names, render_flags, to_options

FLAGS = load_flags("sglang-0.5.23.json")
"""Of the version that this file was written against."""
_Options = Mapping[str, Value]
_BOOL_SET = {"enable_metrics": True}
"""What is set whatever the user says: without it there are no counters."""
_OURS = {
    "model_path": "it is `source` in freehold.yaml",
    "served_model_name": "it is the model's `name` in freehold.yaml",
    "host": "replicas listen on a private address; the gateway's is gateway.listen",
    "port": "Freehold takes a free one for each replica",
    "grpc_mode": "the gateway speaks HTTP",
    "smg_grpc_mode": "the gateway speaks HTTP",
    "api_key": "replicas listen on a private address; callers' keys are the gateway's (auth: keys)",
    "admin_api_key": "replicas listen on a private address",
    "enable_metrics": "it is always on: liveness is progress",
    "config": "write its lines under engine_options",
    "lora_paths": "write `adapters` beside `engine_options`: they are fetched, verified, and clients reach them by name",
    "fastapi_root_path": "replicas have no proxy but the gateway",
    "ssl_keyfile": "replicas listen on a private address, without TLS",
    "ssl_certfile": "replicas listen on a private address, without TLS",
    "ssl_ca_certs": "replicas listen on a private address, without TLS",
    "ssl_keyfile_password": "replicas listen on a private address, without TLS",
    "enable_ssl_refresh": "replicas listen on a private address, without TLS",
}
_HELPS = {
    "is_embedding": "serve embeddings and no completions",
    "tp_size": "GPUs that share each layer (tensor parallel)",
    "pp_size": "groups of layers on GPUs of their own (pipeline parallel)",
    "dp_size": "copies of the model behind one server (data parallel)",
    "ep_size": "GPUs that share the experts of a mixture-of-experts model",
    "context_length": "longest prompt plus answer of one request, tokens; default: what the model's config says",
    "mem_fraction_static": "share of GPU memory for weights and KV cache, 0 to 1; lower it when memory runs out",
    "max_running_requests": "requests worked on at once; default: as many as memory lets",
    "max_total_tokens": "tokens of the KV cache, all requests together; default: what is left of memory",
    "chunked_prefill_size": "most prompt tokens in one step; -1: whole prompts",
    "max_prefill_tokens": "most prompt tokens taken in per step, all requests together",
    "schedule_policy": "order in which waiting requests are taken",
    "quantization": "how the weights are quantised; default: what the model's config says",
    "dtype": "kind of numbers of weights and activations",
    "kv_cache_dtype": "kind of numbers in the KV cache",
    "attention_backend": "kernels for attention; default: the best for this GPU",
    "grammar_backend": "library behind JSON schemas, regular expressions and grammars",
    "tool_call_parser": "how tool calls stand in the model's text; must be the model's own, or auto",
    "reasoning_parser": "how reasoning stands in the model's text; must be the model's own, or auto",
    "chat_template": "name or file of the chat template; default: the one with the tokenizer",
    "max_loras_per_batch": "adapters used at once",
    "trust_remote_code": "run Python code that comes with the weights",
    "random_seed": "seed of the server; default: a new one each time",
    "disable_radix_cache": "keep no prompts for later requests",
    "enable_torch_compile": "compile the model with torch.compile",
    "nnodes": "machines that share the model; each runs this program with the same dist_init_addr",
    "node_rank": "which of those machines this is, from 0",
    "dist_init_addr": "HOST:PORT of the first of those machines",
    "speculative_algorithm": "how answers are drafted ahead",
    "speculative_draft_model_path": "model that drafts",
    "log_level": "of the server's log",
    "decode_log_interval": "steps between two log lines, and between two counts of running requests",
    "watchdog_timeout": "a step that takes longer than this, in seconds, ends the server",
}
_IN_PATH = "sglang"
_PROGRAM = Option(
    name="program",
    type="str",
    program=True,
    help="a `sglang` program, or the `python` of an environment with SGLang; default: sglang in PATH",
)


_QUIET = MappingProxyType({"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"})
"""The weights are here and verified; what it would take from Hugging Face beside them is not."""


def _command(placement: Placement) -> Command:
    """Return the server's command; weights are required."""
    assert placement.weights is not None, "sglang needs weights; the spec refuses a model without a source"
    words = [f"--model-path={placement.weights}", f"--served-model-name={placement.model}"]
    words += [f"--host={placement.host}", f"--port={placement.port}"]
    words += render_flags(FLAGS.flags, {**placement.options, **_BOOL_SET})
    words += _adapter_words(placement.adapters)
    return Command(argv=(*_program(placement), *words), env=_QUIET)


def _adapter_words(adapters: tuple[Adapter, ...]) -> list[str]:
    """Return the flags that load adapters; their ranks and target modules it reads by itself."""
    words = [f"{adapter.name}={adapter.path}" for adapter in adapters]
    return ["--enable-lora", "--lora-paths", *words] if words else []


def _ask_adapter(model: str, _place: int, adapter: Adapter) -> Mapping[str, object]:
    return {"model": f"{model}:{adapter.name}"}


def _program(placement: Placement) -> tuple[str, ...]:
    named = str(placement.options.get("program", ""))
    if named and not named.rpartition("/")[2].startswith("python"):
        return (named, "serve")
    if not named and placement.environment is None:
        return (_IN_PATH, "serve")
    python = named or f"{placement.environment}/bin/python"
    # -P: a file such as http.py in the working directory must not shadow a library.
    return (python, "-P", "-m", "sglang.launch_server")


def _ready(model: str) -> HttpCheck:
    body = {"model": model, "prompt": "hi", "max_tokens": 1}
    return HttpCheck(method="POST", path="/v1/completions", body=body)


def _ready_with(model: str, options: _Options) -> HttpCheck:
    if not options.get("is_embedding"):
        return _ready(model)
    return HttpCheck(method="POST", path="/v1/embeddings", body={"model": model, "input": "hi"})


def _gpus(options: _Options) -> int:
    """Return the GPUs of this node, those that `base_gpu_id` and `gpu_id_step` pass over included.

    Data-parallel copies have GPUs of their own unless `enable_dp_attention` puts them into the tensor-parallel group.
    Source: SGLang, managers/data_parallel_controller.py (launch_tensor_parallel_group).
    """
    if options.get("device") == "cpu":
        return 0
    tensor, groups, copies, nodes = (
        max(1, int(options.get(name, 1))) for name in ("tp_size", "pp_size", "dp_size", "nnodes")
    )
    here = max(1, tensor * groups // nodes) * (1 if options.get("enable_dp_attention") else copies)
    step = max(1, int(options.get("gpu_id_step", 1)))
    return max(0, int(options.get("base_gpu_id", 0))) + (here - 1) * step + 1


def _slots(options: _Options) -> int:
    return int(options.get("max_running_requests", 0))


def _kv_tokens(options: _Options) -> int:
    return int(options.get("max_total_tokens", 0))


def _max_context_tokens(options: _Options) -> int:
    return int(options.get("context_length", 0))


# --- what it tells of itself ----------------------------------------------------------------------------------------

_TOLD_MOST = 10**9
"""A larger number is no capacity. Source: our own bound, as `kv_tokens` of engine external has it."""


def _object(body: bytes) -> dict[str, object]:
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _number(value: object) -> int:
    return value if type(value) is int and 0 < value <= _TOLD_MOST else 0


def _rows(value: object) -> list[dict[str, object]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _server_info(body: bytes, _model: str) -> Capacity:
    """Read `/server_info`: one internal state for each data-parallel copy. Source: SGLang, internal_state.py."""
    info = _object(body)
    states = _rows(info.get("internal_states"))
    slots = sum(_number(state.get("effective_max_running_requests_per_dp")) for state in states)
    tokens = _number(info.get("max_total_num_tokens")) * max(1, len(states))
    return Capacity(slots=slots, kv_tokens=_number(tokens))


def _models(body: bytes, model: str) -> Capacity:
    rows = [row for row in _rows(_object(body).get("data")) if row.get("id") == model]
    return Capacity(max_context_tokens=max((_number(row.get("max_model_len")) for row in rows), default=0))


# --- how it ends ----------------------------------------------------------------------------------------------------

_FAILED_CHILD = re.compile(
    r"Received sigquit from a child process|SIGQUIT received\.|hit an exception: Traceback"
)
_ASKED_TO_STOP = re.compile(r"SIGTERM received\.")
_RULES = (
    exit_rule(
        ExitKind.MISSING_PROGRAM,
        r"No module named 'sglang'|: can't open file '.*sglang",
        summary="SGLang is not installed in that environment",
        hint="name a `program` in engine_options whose environment has it",
        restart=False,
    ),
    exit_rule(
        ExitKind.BAD_OPTION,
        r"^[\w ./-]+: error: "
        r"(?:unrecognized arguments: |argument --|the following arguments are required: |ambiguous option: )",
        summary="it refused an option",
        hint="correct engine_options, or take the version of SGLang that they are of",
        restart=False,
    ),
    exit_rule(
        ExitKind.PORT_IN_USE,
        r"address already in use|\[Errno 98\]|Port is already in use|is not available in \d+ seconds|EADDRINUSE",
        summary="its port was already in use",
        hint="a restart takes another port",
        restart=True,
    ),
    exit_rule(
        ExitKind.BAD_DRIVER,
        r"^RuntimeError: The NVIDIA driver on your system is too old \(found version"
        r"|CUDA error: no kernel image is available for execution on the device",
        summary="its CUDA does not fit this machine's GPU or driver",
        hint="see `freehold doctor`; take a build for this driver, or a newer driver",
        restart=False,
    ),
    exit_rule(
        ExitKind.BAD_DRIVER,
        r"CUDA driver version is insufficient|Found no NVIDIA driver|No CUDA GPUs are available|nvidia-smi not found"
        r"|No accelerator .* is available",
        summary="it found no GPU and driver that it can use",  # while a driver is loaded or a GPU is reset, that passes
        hint="look at nvidia-smi and `freehold doctor`",
        restart=True,
    ),
    exit_rule(
        ExitKind.OUT_OF_MEMORY,  # its share is of what was free at its start, so another's end may be all that it needs
        r"Not enough memory\. Please try to increase --mem-fraction-static",
        summary="nothing was left for the KV cache beside the weights",
        hint="raise mem_fraction_static, take smaller weights or more GPUs (tp_size)",
        restart=True,
    ),
    exit_rule(
        ExitKind.OUT_OF_MEMORY,
        r"CUDA out of memory|OutOfMemoryError|set --mem-fraction-static to a smaller value|std::bad_alloc|MemoryError"
        r"|Cannot allocate memory",
        summary="there was not enough memory",
        hint="lower mem_fraction_static or cuda_graph_max_bs_decode, or take more GPUs (tp_size)",
        restart=True,
    ),
    exit_rule(
        ExitKind.CRASHED,
        r"NCCL (?:error|WARN)|ncclUnhandledCudaError|ncclSystemError|ncclInternalError|DistBackendError",
        summary="its GPUs could not talk to each other (NCCL)",
        hint="look at the links between the GPUs: `freehold health`, `nvidia-smi topo -m`, NCCL_DEBUG=INFO",
        restart=True,
    ),
    exit_rule(
        ExitKind.BAD_WEIGHTS,
        r"^ValueError: (?:Model architectures \[.*\] are not supported for now|Unrecognized model in )"
        r"|^OSError: \S+ (?:does not appear to have a file named config\.json|is not a local folder and is not a valid model)"
        r"|^OSError: It looks like the config file at '.*' is not a valid JSON file|SafetensorError: Error while deserializing header"
        r"|^RuntimeError: Cannot find any model weights with ",
        summary="the weights cannot be loaded",
        hint="check them with `freehold model verify`; it must be a complete Hugging Face folder of a kind that this "
        "SGLang knows",
        restart=False,
    ),
    exit_rule(
        ExitKind.CRASHED,
        r"watchdog timeout|Watchdog timeout",
        summary="a step took longer than watchdog_timeout",
        hint="look at the GPU: `freehold health`",
        restart=True,
    ),
    exit_rule(
        ExitKind.BAD_OPTION,
        r"^ValueError: Warning: User-specified context_length \(\d+\) is greater than the derived context_length",
        summary="it refused what the options ask for together",
        hint="correct engine_options",
        restart=False,
    ),
    # What follows may have other causes as well.
    exit_rule(
        ExitKind.BAD_OPTION,
        r"^ValueError: .*(?:--[a-z0-9-]+|tp_size|tensor_parallel)|^AssertionError: .*--[a-z]",
        summary="it refused what the options ask for together",
        hint="correct engine_options",
        restart=True,
    ),
    exit_rule(
        ExitKind.BAD_WEIGHTS,
        r"does not appear to have a file named|SafetensorError|No such file or directory: .*safetensors",
        summary="the weights could not be loaded",
        hint="check them with `freehold model verify`",
        restart=True,
    ),
)
"""Source: SGLang 0.5.23: network.py, pool_configurator.py, runner_backend_utils, registry.py, server_args.py, watchdog.py;
argparse, uvicorn, PyTorch and NCCL for theirs."""
_STAMP = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?: [A-Z0-9]+)*\] ")
"""Time and rank before its log lines, such as `[2026-11-27 10:00:00 TP0] `. Source: SGLang, configure_logger."""


def _explain_exit(exit_code: int, lines: tuple[str, ...]) -> ExitCause:
    failed = any(_FAILED_CHILD.search(line) for line in lines)
    by_code = explain_code(exit_code)
    if by_code is not None and by_code.kind in (ExitKind.STOPPED, ExitKind.KILLED) and not failed:
        if any(_ASKED_TO_STOP.search(line) for line in lines):
            return ExitCause(kind=ExitKind.STOPPED, summary="it was stopped with SIGTERM")
        return by_code  # whatever the log says, that is not why it ended
    cause = by_rules(_RULES, lines, stamp=_STAMP)
    if cause is None and failed:
        said = _last_error(lines)
        return ExitCause(kind=ExitKind.CRASHED, summary=f"a process of it failed: {said}")
    return cause or otherwise(exit_code, lines)


_ERROR_LINE = re.compile(r"^(?:[A-Za-z_.]*(?:Error|Exception)\b.*)$")


def _last_error(lines: tuple[str, ...]) -> str:
    """Return the line with which the last traceback ends, at most 300 characters."""
    found = next((line for line in reversed(lines) if _ERROR_LINE.match(line)), "its log does not say why")
    return found.strip()[:300]


_TOO_LONG = re.compile(
    r"is longer than the model's context length|exceeds the model's (?:maximum )?context length"
)
"""How it says that a request is too long. Source: SGLang 0.5.23, TokenizerManager._validate_one_request."""


def _translate_error(_status: int, body: bytes) -> ApiError | None:
    """Return the error in OpenAI's terms; SGLang has the fields at the top of the body, not under `error`."""
    message = error_fields(body).get("message")
    if isinstance(message, str) and _TOO_LONG.search(message):
        return context_error(message)
    if isinstance(message, str) and message.startswith("The request queue is full"):
        return ApiError(status=503, message=message, type="service_unavailable", code="engine_overloaded")
    return None


_STALL_S = 120.0
"""Source: our own choice: kernels that are compiled at their first use take up to a minute; its own watchdog waits 300 s."""

_PHASES = phases(
    (r"Init torch distributed begin", "starting its processes"),
    (r"Load weight begin", "loading weights"),
    (r"Loading safetensors checkpoint shards: +(\d+%)", "loading weights, {0}"),
    (r"Load weight end", "preparing the model"),
    (r"KV Cache is allocated|Memory pool end", "making its KV cache"),
    (r"autotune", "tuning its kernels"),
    (r"Capture .*(?:cuda graph|CUDA graph).* begin", "capturing CUDA graphs"),
    (r"Capturing batches.*?: +(\d+%)", "capturing CUDA graphs, {0}"),
    (r"Capture .*(?:cuda graph|CUDA graph).* end", "starting its server"),
    (r"The server is fired up", "answering its first request"),
)
"""Source: SGLang's model_runner.py and public logs of its starts."""

ENGINE = Engine(
    name="sglang",
    summary="SGLang: Hugging Face folders on GPUs",
    managed=True,
    paths=frozenset(
        {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages", "/v1/responses"}
    ),
    formats=(Format.SAFETENSORS,),
    adapter_formats=(Format.SAFETENSORS,),
    ask_adapter=_ask_adapter,
    adapter_keys=frozenset({"lora_path"}),
    stream_to_abort=False,
    options=(_PROGRAM, *to_options(FLAGS.flags, helps=_HELPS, reserved=_OURS)),
    reserved={**other_names(FLAGS.flags), "model": _OURS["model_path"], **_OURS},
    command=_command,
    ready=_ready,
    ready_with=_ready_with,
    program=_IN_PATH,
    metrics_path="/metrics",
    metrics=(
        Metric(name="generated_tokens_total", theirs=("sglang:generation_tokens_total",)),
        Metric(name="prompt_tokens_total", theirs=("sglang:prompt_tokens_total",)),
        # With priorities each has its own sample beside the total, whose priority is empty.
        Metric(name="running_requests", theirs=("sglang:num_running_reqs",), only=("priority", "")),
        Metric(name="waiting_requests", theirs=("sglang:num_queue_reqs",), only=("priority", "")),
        Metric(name="decode_steps_total", theirs=("sglang:realtime_tokens_total",)),
    ),
    gpus=_gpus,
    slots=_slots,
    kv_tokens=_kv_tokens,
    max_context_tokens=_max_context_tokens,
    tells=(
        Tells(path="/server_info", read=_server_info),
        Tells(path="/get_server_info", read=_server_info),  # its older name
        Tells(path="/v1/models", read=_models),
    ),
    phases=_PHASES,
    explain_exit=_explain_exit,
    # It takes the final message off, applies the template with a generation prompt, and puts the message's tokens behind.
    continues=Continues.VLLM,
    translate_error=_translate_error,
    stall_s=_STALL_S,
)
