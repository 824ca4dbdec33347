"""TensorRT-LLM: Hugging Face folders (PyTorch backend) or prebuilt TensorRT engines, through `trtllm-serve`.

`engine_options` are the program's own flags (`flags/tensorrt-llm-1.1.0.json`, and what newer versions have beside them), and
`llm_args` for the many settings that it takes only from the file behind `--extra_llm_api_options`, which Freehold writes for each
replica. Flags are spelled as the release 1.1.0 has them: newer ones take these spellings too. The words, counters and pages in
this file were read in the program's public source; it has not been run on a GPU here (docs/engines.md says what was checked).

What its source says of it, and what follows:
- `/metrics` is JSON: the statistics of the iterations since somebody last asked, each told once. `/prometheus/metrics` is
  there with `return_perf_metrics`, which is set; older versions have little in it, so both are read;
- it calls the model as its folder is called, so it is given a link of the model's name;
- unknown keys in a request's body are an error, and it has no way to go on with a final assistant message;
- a request whose client left is aborted within a second, streamed or not.
Whether a folder of engines fits the node is `tensorrt_record`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from math import prod
from types import MappingProxyType

from freehold.core.problems import nearest_hint
from freehold.engines.base import (
    FOLDER,
    ApiError,
    Command,
    Engine,
    ExitCause,
    ExitKind,
    Format,
    HttpCheck,
    Metric,
    Option,
    Page,
    Placement,
    Value,
    context_error,
    error_fields,
    explain_code,
    phases,
)
from freehold.engines.shared.exit_rules import by_rules, exit_rule, otherwise
from freehold.engines.shared.flag_list import load_flags, other_names, render_flags, to_options

RELEASE = load_flags("tensorrt-llm-1.1.0.json")
"""Of the release whose command reference is recorded."""
_NEWER = load_flags("tensorrt-llm-main-00209af.json")
FLAGS = RELEASE.with_new(_NEWER)
"""With those that newer versions have as well; a program that has them not says so when it is started or checked."""
_Options = Mapping[str, Value]
_DISAGGREGATED = "servers that split prompts from answers are not run by Freehold; run them yourself, with engine: external"
_OURS = {
    "host": "replicas listen on a private address; the gateway's is gateway.listen",
    "port": "Freehold takes a free one for each replica",
    "config": "write what the file has under llm_args, as JSON",
    "extra_llm_api_options": "write what the file has under llm_args, as JSON",
    "metadata_server_config_file": _DISAGGREGATED,
    "server_role": _DISAGGREGATED,
    "disagg_cluster_uri": _DISAGGREGATED,
    "served_model_name": "it is the model's `name` in freehold.yaml",
}
_HELPS = {
    "backend": "pytorch for a Hugging Face folder, tensorrt for a folder of prebuilt engines",
    "tokenizer": "folder of the tokenizer; needed with backend: tensorrt",
    "tp_size": "GPUs that share each layer",
    "pp_size": "groups of layers on GPUs of their own",
    "context_parallel_size": "GPUs that share the tokens of one request",
    "ep_size": "GPUs that share the experts of a mixture-of-experts model",
    "gpus_per_node": "GPUs of each machine; default: those that are seen",
    "max_batch_size": "requests worked on at once",
    "max_num_tokens": "most tokens in one step, all requests together",
    "max_seq_len": "longest prompt plus answer of one request, tokens; default: what the model's config says",
    "max_beam_width": "beams of beam search; 1: none",
    "kv_cache_free_gpu_memory_fraction": "share of the GPU memory that is free after loading for the KV cache, 0 to 1",
    "num_postprocess_workers": "processes that turn tokens into text; 0: in the server's own",
    "trust_remote_code": "run Python code that comes with the weights",
    "reasoning_parser": "how reasoning stands in the model's text; must be the model's own",
    "tool_parser": "how tool calls stand in the model's text; must be the model's own",
    "chat_template": "a file or the text of the chat template; default: the one with the tokenizer",
    "custom_tokenizer": "a tokenizer class, by alias or import path",
    "custom_module_dirs": "folders with Python modules to import",
    "enable_chunked_prefill": "take long prompts in pieces",
    "log_level": "of the server's log",
    "media_io_kwargs": "how pictures and sound are read",
    "otlp_traces_endpoint": "where traces are sent",
    "revision": "revision of a model on Hugging Face; local folders have none",
    "fail_fast_on_attention_window_too_large": "end when the attention window does not fit the KV cache",
}
_OWN = (
    Option(
        name="program",
        type="str",
        program=True,
        help="a `trtllm-serve` program; default: the environment that Freehold installed, else the one in PATH",
    ),
    Option(
        name="llm_args",
        type="str",
        json="object",
        help="settings of the LLM API that are no flags, such as "
        '\'{"kv_cache_config": {"dtype": "fp8"}, "cuda_graph_config": {"enable_padding": true}}\'',
    ),
)


_QUIET = MappingProxyType(
    {
        "TRTLLM_NO_USAGE_STATS": "1",
        "TELEMETRY_DISABLED": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
)
"""Without it, it tells NVIDIA every ten minutes what runs where (tensorrt_llm/usage/usage_lib.py, on by default), and may take from
Hugging Face what no hash was checked of."""


def _command(placement: Placement) -> Command:
    """Return the server's command, its file and the link of the model's name; weights are required."""
    assert placement.weights is not None, (
        "tensorrt-llm needs weights; the spec refuses a model without a source"
    )
    options, name = placement.options, placement.model.rpartition("/")[2]
    words = [f"{FOLDER}/{name}", f"--host={placement.host}", f"--port={placement.port}"]
    words += [f"--extra_llm_api_options={FOLDER}/{_config_file(name)}", *render_flags(FLAGS.flags, options)]
    beside = f"{placement.environment}/bin/trtllm-serve" if placement.environment else "trtllm-serve"
    return Command(
        argv=(str(options.get("program", "")) or beside, "serve", *words),
        files={_config_file(name): _config_text(options)},
        links={name: str(placement.weights)},
        env=_QUIET,
    )


def _config_file(model: str) -> str:
    """Return the name of the file behind --extra_llm_api_options: never that of the link beside it, which may be any model's."""
    return _CONFIG_FILES[model == _CONFIG_FILES[0]]


_CONFIG_FILES = ("llm_args.yaml", "llm_args.yml")


def _config_text(options: _Options) -> str:
    """Return the file behind --extra_llm_api_options; JSON, which is YAML too. What the user says goes before what is set here."""
    said = _json(str(options.get("llm_args", "{}")))
    ours: dict[str, object] = {"return_perf_metrics": True}
    if options.get("backend") != "tensorrt":  # its settings do not know this one: it always counts iterations
        ours["enable_iter_perf_stats"] = True
    return json.dumps({**ours, **(said if isinstance(said, dict) else {})}, indent=1) + "\n"


def _conflicts(options: _Options) -> Iterator[tuple[str, str, str]]:
    """Yield what of `llm_args` no recorded version knows: the program refuses it only after minutes of imports, on a GPU."""
    said = _json(str(options.get("llm_args", "{}")))
    for key in said if isinstance(said, dict) else ():
        if key not in FLAGS.file_keys:
            near = (
                nearest_hint(key, FLAGS.file_keys)
                if get_close_matches(key, FLAGS.file_keys, n=1)
                else _REFERENCE
            )
            yield "llm_args", f"llm_args: no recorded version of TensorRT-LLM has the setting {key!r}", near


_REFERENCE = "its settings are the fields of TorchLlmArgs in the LLM API reference of TensorRT-LLM"


_OTHER_NAMES = {
    **other_names(FLAGS.flags),
    **{
        name: f"write {known}"
        for flag in _NEWER.flags
        for known in {flag.name for flag in RELEASE.flags}.intersection(flag.names)
        for name in flag.names
        if name != known
    },
}
"""Spellings that newer versions have for flags of the release, and what is written here."""


def _json(text: str | bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _ready(model: str) -> HttpCheck:
    body = {"model": model, "prompt": "hi", "max_tokens": 1}
    return HttpCheck(method="POST", path="/v1/completions", body=body)


def _set(options: _Options, name: str, *, filed_as: str = "") -> int:
    """Return a number as flag or file sets it (the file wins), where it may have another name; 0: neither does."""
    said = _json(str(options.get("llm_args", "{}")))
    filed = said.get(filed_as or name) if isinstance(said, dict) else None
    return filed if type(filed) is int and filed > 0 else max(0, int(options.get(name, 0)))


_SPREAD = (
    ("tp_size", "tensor_parallel_size"),
    ("pp_size", "pipeline_parallel_size"),
    ("context_parallel_size", "context_parallel_size"),
)
"""What the GPUs of one replica are counted by, as a flag and in the file. Source: the recorded lists."""


def _gpus(options: _Options) -> int | None:
    """Return the GPUs of this node; None: the folder of prebuilt engines says it (`tensorrt_record`), no option does.

    Source: TensorRT-LLM, Mapping: the world size is tensor times pipeline times context parallel.
    """
    sizes = [_set(options, name, filed_as=filed_as) for name, filed_as in _SPREAD]
    if options.get("backend") == "tensorrt" and not any(sizes):
        return None
    world = prod(size or 1 for size in sizes)
    return min(world, _set(options, "gpus_per_node") or world)


def _slots(options: _Options) -> int:
    return _set(options, "max_batch_size") or _MAX_BATCH_SIZE


_MAX_BATCH_SIZE = 2048
"""Source: the flag's own default in the flag list."""


def _max_context_tokens(options: _Options) -> int:
    return _set(options, "max_seq_len")


# --- statistics of iterations ---------------------------------------------------------------------------------------

_ITERATION = (
    ("decode_steps_total", "iter"),
    ("running_requests", "numActiveRequests"),
    ("waiting_requests", "numQueuedRequests"),
)
"""Our names, and what `/metrics` calls them. Source: TensorRT-LLM, IterationStats; `iter` counts up with each step."""


def _iterations(body: bytes) -> dict[str, float]:
    """Return the last iteration's counters; {}: none ran since somebody last asked, which is no nought."""
    rows = _json(body)
    last = rows[-1] if isinstance(rows, list) and rows else None
    if isinstance(last, str):  # some versions give each as JSON text
        last = _json(last)
    if not isinstance(last, dict):
        return {}
    return {
        ours: float(last[theirs]) for ours, theirs in _ITERATION if type(last.get(theirs)) in (int, float)
    }


# --- how it ends ----------------------------------------------------------------------------------------------------

_REBUILD = (
    "build the engines anew with this TensorRT-LLM on this kind of GPU, or serve the Hugging Face folder"
)
_RULES = (
    # What is not started again comes first: each has the words of one failure that cannot pass by itself, at the start of
    # a line where it is an exception's. Whatever else fails is started again, a few times at most.
    exit_rule(
        ExitKind.MISSING_PROGRAM,
        r"^ModuleNotFoundError: No module named 'tensorrt_llm'"
        r"|(?:^ImportError: lib\S+|error while loading shared libraries: \S+): cannot open shared object file",
        summary="TensorRT-LLM, or a library of it, is not installed",
        hint="name a `program` in engine_options, or run it in NVIDIA's container",
        restart=False,
    ),
    exit_rule(
        ExitKind.BAD_OPTION,
        r"^Error: (?:No such option: -|Invalid value(?: for '.*')?: |Option '-.*' requires an argument|Missing argument '"
        r"|Got unexpected extra argument)|^(?:pydantic_core\S+: )?\d+ validation errors? for \w*LlmArgs$",
        summary="it refused an option",
        hint="correct engine_options or llm_args, or take the version of TensorRT-LLM that they are of",
        restart=False,
    ),
    exit_rule(
        ExitKind.BAD_WEIGHTS,
        r"engine plan file is generated on an incompatible device, expecting compute"
        r"|expecting compute \d+\.\d+ got compute \d+\.\d+, please rebuild",
        summary="the engines were built for another GPU architecture",
        hint=_REBUILD,
        restart=False,
    ),
    exit_rule(
        ExitKind.BAD_WEIGHTS,
        r"engine plan file is not compatible with this version of TensorRT, expecting library version"
        r"|Version tag does not match\. Note: Current Version: ",
        summary="the engines were built by another TensorRT or TensorRT-LLM",
        hint=_REBUILD,
        restart=False,
    ),
    exit_rule(
        ExitKind.BAD_DRIVER,
        r"^RuntimeError: The NVIDIA driver on your system is too old \(found version"
        r"|CUDA error: no kernel image is available for execution on the device"
        r"|forward compatibility was attempted on non supported HW",
        summary="its CUDA does not fit this machine's GPU or driver",
        hint="see `freehold doctor`; take a build for this driver, or a newer driver",
        restart=False,
    ),
    exit_rule(
        ExitKind.BAD_WEIGHTS,
        r"^ValueError: (?:Unrecognized model in |Unknown architecture for )"
        r"|^OSError: \S+ (?:does not appear to have a file named config\.json|is not a local folder and is not a valid model)"
        r"|^OSError: It looks like the config file at '.*' is not a valid JSON file|SafetensorError: Error while deserializing header",
        summary="the weights cannot be loaded",
        hint="check them with `freehold model verify`; it must be a complete folder of a kind that this TensorRT-LLM knows",
        restart=False,
    ),
    exit_rule(
        ExitKind.PORT_IN_USE,
        r"Failed to bind socket to|address already in use|\[Errno 98\]",
        summary="its port was already in use",
        hint="a restart takes another port",
        restart=True,
    ),
    exit_rule(
        ExitKind.BAD_DRIVER,
        r"CUDA driver version is insufficient|Found no NVIDIA driver|No GPU devices found on the node|cudaErrorInsufficientDriver"
        r"|CUDA_ERROR_NO_DEVICE",
        summary="it found no GPU and driver that it can use",  # while a driver is loaded or a GPU is reset, that passes
        hint="look at nvidia-smi and `freehold doctor`",
        restart=True,
    ),
    exit_rule(
        ExitKind.OUT_OF_MEMORY,  # its share is of what is free just now, so another's end may be all that it needs
        r"[Nn]ot enough (?:free )?(?:GPU )?memory for (?:the )?KV|KV cache .*(?:too small|insufficient|cannot fit)"
        r"|Insufficient (?:GPU )?memory for KV|maxBlocksPerSeq|max_tokens .*KV cache",
        summary="the KV cache does not fit",
        hint="raise kv_cache_free_gpu_memory_fraction, lower max_seq_len or max_batch_size, or take more GPUs",
        restart=True,
    ),
    exit_rule(
        ExitKind.OUT_OF_MEMORY,
        r"CUDA out of memory|OutOfMemoryError|cudaErrorMemoryAllocation|out of memory|std::bad_alloc|MemoryError",
        summary="there was not enough memory",
        hint="lower kv_cache_free_gpu_memory_fraction, max_batch_size or max_num_tokens, or take more GPUs",
        restart=True,
    ),
    exit_rule(
        ExitKind.BAD_WEIGHTS,
        r"deserializeCudaEngine|Failed to deserialize|Unsupported model architecture|SafetensorError|No weights found",
        summary="the weights or engines could not be loaded",
        hint="the lines above in its log say why; `freehold model verify` checks the files",
        restart=True,
    ),
    exit_rule(
        ExitKind.CRASHED,
        r"MPI_ABORT was invoked|MPI_Init.*fail|PMIX ERROR|ORTE has lost|mpi4py.*[Ee]rror|There are not enough slots",
        summary="its processes lost each other (MPI)",
        hint="look at the lines above in its log; with more than one GPU each needs a slot, and containers need shared "
        "memory (--ipc=host)",
        restart=True,
    ),
    exit_rule(
        ExitKind.CRASHED,
        r"NCCL error|ncclUnhandledCudaError|ncclSystemError|ncclInternalError",
        summary="its GPUs could not talk to each other (NCCL)",
        hint="look at the links between the GPUs: `freehold health`, `nvidia-smi topo -m`, NCCL_DEBUG=INFO",
        restart=True,
    ),
)
"""Source: TensorRT-LLM's serve.py (port, GPUs, backend), click and pydantic for options, TensorRT's runtime for engines that
do not fit, PyTorch, Open MPI, NCCL, transformers and safetensors for theirs."""
_STAMP = re.compile(r"^\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] (?:\[TRT-LLM\] )?\[[A-Z]\] ")
"""Time and level before its log lines. Source: TensorRT-LLM, logger.py."""


def _explain_exit(exit_code: int, lines: tuple[str, ...]) -> ExitCause:
    by_code = explain_code(exit_code)
    if by_code is not None and by_code.kind in (ExitKind.STOPPED, ExitKind.KILLED):
        return by_code  # whatever the log says, that is not why it ended
    return by_rules(_RULES, lines, stamp=_STAMP) or otherwise(exit_code, lines)


_TOO_LONG = re.compile(
    r"exceeds? (?:the )?(?:maximum|max)[ _](?:input|seq|num|context|model|sequence)[a-z_ ]*(?:len|length|tokens)"
    r"|should not exceed max_(?:input_len|seq_len|num_tokens)|prompt length .*larger than|should be less than max_num_tokens",
    re.IGNORECASE,
)
"""How it says that a request is too long. Source: TensorRT-LLM, llmapi/llm.py and executor."""


def _translate_error(_status: int, body: bytes) -> ApiError | None:
    """Return the error in OpenAI's terms; it has the fields at the top of the body, or one text under `error`."""
    fields = error_fields(body)
    decoded = _json(body)
    bare = decoded.get("error") if isinstance(decoded, dict) else None
    message = fields.get("message", bare)
    if isinstance(message, str) and _TOO_LONG.search(message):
        return context_error(message)
    if isinstance(bare, str) and bare:
        return ApiError(status=400, message=bare, type="invalid_request_error", code=None)
    return None


_STALL_S = 120.0
"""Source: our own choice: kernels are tuned at their first use, which takes up to a minute."""

_PHASES = phases(
    (r"Loading weights(?: concurrently)?: +(\d+%)", "loading weights, {0}"),
    (r"Use [\d.]+ ?GB for model weights|Loading weights", "loading weights"),
    (r"Allocated .* for max tokens in paged KV cache", "making its KV cache"),
    (r"\[Autotuner\] Autotuning process starts", "tuning its kernels"),
    (r"Creating CUDA graph instances|CUDA graph warmup for batch size=(\d+)", "capturing CUDA graphs"),
    (r"Application startup complete", "answering its first request"),
)
"""Source: TensorRT-LLM's autotuner.py, and the public log of a start of 1.2.0rc6."""

ENGINE = Engine(
    name="tensorrt-llm",
    summary="TensorRT-LLM: Hugging Face folders or prebuilt engines on NVIDIA GPUs",
    managed=True,
    paths=frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses"}),
    formats=(Format.SAFETENSORS, Format.TENSORRT),
    stream_to_abort=False,
    options=(*_OWN, *to_options(FLAGS.flags, helps=_HELPS, reserved=_OURS)),
    reserved={**_OTHER_NAMES, **_OURS},
    conflicts=_conflicts,
    command=_command,
    ready=_ready,
    program="trtllm-serve",
    metrics_path="/prometheus/metrics",
    metrics=(
        Metric(name="generated_tokens_total", theirs=("trtllm_generation_tokens_total",)),
        Metric(name="prompt_tokens_total", theirs=("trtllm_prompt_tokens_total",)),
        Metric(name="running_requests", theirs=("trtllm_num_requests_running",)),
        Metric(name="waiting_requests", theirs=("trtllm_num_requests_waiting",)),
        # Tokens move when a request ends; blocks of its KV cache are taken while it runs.
        Metric(name="decode_steps_total", theirs=("trtllm_kv_cache_gen_alloc_blocks_total",)),
    ),
    more_pages=(Page(path="/metrics", read=_iterations),),
    gpus=_gpus,
    slots=_slots,
    max_context_tokens=_max_context_tokens,
    phases=_PHASES,
    explain_exit=_explain_exit,
    continues=None,
    translate_error=_translate_error,
    stall_s=_STALL_S,
)
