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
    ALL_PATHS,
    FOLDER,
    TORCH_VARIABLES,
    Adapter,
    ApiError,
    Capacity,
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
    completion_check,
    embedding_check,
    option_number,
)
from freehold.engines.shared.api_errors import context_error, error_fields
from freehold.engines.shared.capacity_pages import count_of, model_card, rows
from freehold.engines.shared.engine_data import load_engine_data
from freehold.engines.shared.exit_rules import by_rules, explain
from freehold.engines.shared.flag_list import load_flags, other_names, render_flags, to_options
from freehold.engines.shared.json_object import json_object

FLAGS = load_flags("sglang-0.5.23.json")
"""Of the version that this file was written against."""
_DATA = load_engine_data("sglang")
_BOOL_SET = {"enable_metrics": True}
"""What is set whatever the user says: without it there are no counters."""
_IN_PATH = "sglang"
_QUIET = MappingProxyType({"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"})
"""The weights are here and verified; what it would take from Hugging Face beside them is not."""


def _command(placement: Placement) -> Command:
    """Return the server's command; weights are required."""
    assert placement.weights is not None, "sglang needs weights; the spec refuses a model without a source"
    words = [f"--model-path={placement.weights}", f"--served-model-name={placement.model}"]
    words += [f"--host={placement.host}", f"--port={placement.port}"]
    words += render_flags(FLAGS.flags, {**placement.options, **_BOOL_SET})
    words += _adapter_words(placement.adapters)
    words += ["--config", f"{FOLDER}/{_KEY_FILE}"] if placement.key else []
    files = {_KEY_FILE: json.dumps({"api-key": placement.key})} if placement.key else {}
    return Command(argv=(*_program(placement), *words), env=_QUIET, files=files)


_KEY_FILE = "key.yaml"
"""More flags, in a file that other users cannot read. Source: SGLang, server_args_config_parser.py."""


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


def _ready_with(model: str, options: Options) -> HttpCheck:
    return embedding_check(model) if options.get("is_embedding") else completion_check(model)


def _gpus(options: Options) -> int:
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


# --- what it tells of itself ----------------------------------------------------------------------------------------


def _server_info(body: bytes, _model: str) -> Capacity:
    """Read `/server_info`: one internal state for each data-parallel copy. Source: SGLang, internal_state.py."""
    info = json_object(body)
    states = rows(info.get("internal_states"))
    slots = sum(count_of(state.get("effective_max_running_requests_per_dp")) for state in states)
    tokens = count_of(info.get("max_total_num_tokens")) * max(1, len(states))
    return Capacity(slots=slots, kv_tokens=count_of(tokens))


# --- how it ends ----------------------------------------------------------------------------------------------------

_FAILED_CHILD = re.compile(
    r"Received sigquit from a child process|SIGQUIT received\.|hit an exception: Traceback"
)
_ASKED_TO_STOP = re.compile(r"SIGTERM received\.")
_STAMP = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?: [A-Z0-9]+)*\] ")
"""Time and rank before its log lines, such as `[2026-11-27 10:00:00 TP0] `. Source: SGLang, configure_logger."""


def _explain_exit(exit_code: int, lines: tuple[str, ...]) -> ExitCause:
    if any(_FAILED_CHILD.search(line) for line in lines):
        said = _last_error(lines)
        crashed = ExitCause(kind=ExitKind.CRASHED, summary=f"a process of it failed: {said}")
        return by_rules(_DATA.exits, lines, stamp=_STAMP) or crashed
    cause = explain(exit_code, lines, rules=_DATA.exits, stamp=_STAMP)
    ended = cause.kind in (ExitKind.STOPPED, ExitKind.KILLED)
    asked = ended and any(_ASKED_TO_STOP.search(line) for line in lines)
    return ExitCause(kind=ExitKind.STOPPED, summary="it was stopped with SIGTERM") if asked else cause


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

ENGINE = Engine(
    name="sglang",
    summary="SGLang: Hugging Face folders on GPUs",
    managed=True,
    paths=ALL_PATHS - {"/v1/rerank"},
    formats=(Format.SAFETENSORS,),
    adapter_formats=(Format.SAFETENSORS,),
    ask_adapter=_ask_adapter,
    adapter_keys=frozenset({"lora_path"}),
    variables=("SGLANG_", "SGL_", *TORCH_VARIABLES),
    shared_memory=True,
    stream_to_abort=False,
    prefix_cache=PrefixCache.SALT,
    apart_paths=ALL_PATHS - {"/v1/messages"},  # its entrypoints/anthropic/protocol.py drops the salt
    request_keys=_DATA.request_keys,
    options=(*_DATA.options, *to_options(FLAGS.flags, helps=_DATA.help, reserved=_DATA.reserved)),
    reserved={**other_names(FLAGS.flags), "model": _DATA.reserved["model_path"], **_DATA.reserved},
    command=_command,
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
    slots=option_number("max_running_requests"),
    kv_tokens=option_number("max_total_tokens"),
    max_context_tokens=option_number("context_length"),
    capacity_pages=(
        CapacityPage(path="/server_info", read=_server_info),
        CapacityPage(path="/get_server_info", read=_server_info),  # its older name
        CapacityPage(path="/v1/models", read=model_card),
    ),
    phases=_DATA.phases,
    explain_exit=_explain_exit,
    # It takes the final message off, applies the template with a generation prompt, and puts the message's tokens behind.
    continues=Continues.VLLM,
    translate_error=_translate_error,
    stall_s=_STALL_S,
)
