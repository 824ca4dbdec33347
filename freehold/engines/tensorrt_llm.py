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
from collections.abc import Iterator
from difflib import get_close_matches
from functools import partial
from math import prod
from types import MappingProxyType

from freehold.core.problems import nearest_hint
from freehold.engines.base import (
    FOLDER,
    TORCH_VARIABLES,
    ApiError,
    Command,
    Engine,
    Format,
    Metric,
    Options,
    Page,
    Placement,
)
from freehold.engines.shared.api_errors import context_error, error_fields, invalid_request
from freehold.engines.shared.engine_data import load_engine_data
from freehold.engines.shared.exit_rules import explain
from freehold.engines.shared.flag_list import load_flags, other_names, render_flags, to_options
from freehold.engines.shared.json_object import json_object

RELEASE = load_flags("tensorrt-llm-1.1.0.json")
"""Of the release whose command reference is recorded."""
_NEWER = load_flags("tensorrt-llm-main-00209af.json")
FLAGS = RELEASE.with_new(_NEWER)
"""With those that newer versions have as well; a program that has them not says so when it is started or checked."""
_DATA = load_engine_data("tensorrt_llm")
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


def _config_text(options: Options) -> str:
    """Return the file behind --extra_llm_api_options; JSON, which is YAML too. What the user says goes before what is set here."""
    said = _llm_args(options)
    ours: dict[str, object] = {"return_perf_metrics": True}
    if options.get("backend") != "tensorrt":  # its settings do not know this one: it always counts iterations
        ours["enable_iter_perf_stats"] = True
    return json.dumps({**ours, **said}, indent=1) + "\n"


def _conflicts(options: Options) -> Iterator[tuple[str, str, str]]:
    """Yield what of `llm_args` no recorded version knows: the program refuses it only after minutes of imports, on a GPU."""
    for key in _llm_args(options):
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


def _llm_args(options: Options) -> dict[str, object]:
    return json_object(str(options.get("llm_args", "{}")))


def _json(text: str | bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _set(options: Options, name: str, *, filed_as: str = "") -> int:
    """Return a number as flag or file sets it (the file wins), where it may have another name; 0: neither does."""
    filed = _llm_args(options).get(filed_as or name)
    return filed if type(filed) is int and filed > 0 else max(0, int(options.get(name, 0)))


_SPREAD = (
    ("tp_size", "tensor_parallel_size"),
    ("pp_size", "pipeline_parallel_size"),
    ("context_parallel_size", "context_parallel_size"),
)
"""What the GPUs of one replica are counted by, as a flag and in the file. Source: the recorded lists."""


def _gpus(options: Options) -> int | None:
    """Return the GPUs of this node; None: the folder of prebuilt engines says it (`tensorrt_record`), no option does.

    Source: TensorRT-LLM, Mapping: the world size is tensor times pipeline times context parallel.
    """
    sizes = [_set(options, name, filed_as=filed_as) for name, filed_as in _SPREAD]
    if options.get("backend") == "tensorrt" and not any(sizes):
        return None
    world = prod(size or 1 for size in sizes)
    return min(world, _set(options, "gpus_per_node") or world)


def _slots(options: Options) -> int:
    return _set(options, "max_batch_size") or _MAX_BATCH_SIZE


_MAX_BATCH_SIZE = 2048
"""Source: the flag's own default in the flag list."""


def _max_context_tokens(options: Options) -> int:
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

_STAMP = re.compile(r"^\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] (?:\[TRT-LLM\] )?\[[A-Z]\] ")
"""Time and level before its log lines. Source: TensorRT-LLM, logger.py."""


_TOO_LONG = re.compile(
    r"exceeds? (?:the )?(?:maximum|max)[ _](?:input|seq|num|context|model|sequence)[a-z_ ]*(?:len|length|tokens)"
    r"|should not exceed max_(?:input_len|seq_len|num_tokens)|prompt length .*larger than|should be less than max_num_tokens",
    re.IGNORECASE,
)
"""How it says that a request is too long. Source: TensorRT-LLM, llmapi/llm.py and executor."""


def _translate_error(_status: int, body: bytes) -> ApiError | None:
    """Return the error in OpenAI's terms; it has the fields at the top of the body, or one text under `error`."""
    fields = error_fields(body)
    bare = json_object(body).get("error")
    message = fields.get("message", bare)
    if isinstance(message, str) and _TOO_LONG.search(message):
        return context_error(message)
    if isinstance(bare, str) and bare:
        return invalid_request(bare, code=None)
    return None


_STALL_S = 120.0
"""Source: our own choice: kernels are tuned at their first use, which takes up to a minute."""

ENGINE = Engine(
    name="tensorrt-llm",
    summary="TensorRT-LLM: Hugging Face folders or prebuilt engines on NVIDIA GPUs",
    managed=True,
    paths=frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses"}),
    formats=(Format.SAFETENSORS, Format.TENSORRT),
    variables=("TLLM_", "TRTLLM_", "TRT_", "OMPI_", *TORCH_VARIABLES),
    shared_memory=True,
    stream_to_abort=False,
    request_keys=_DATA.request_keys,
    options=(*_DATA.options, *to_options(FLAGS.flags, helps=_DATA.help, reserved=_DATA.reserved)),
    reserved={**_OTHER_NAMES, **_DATA.reserved},
    conflicts=_conflicts,
    command=_command,
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
    phases=_DATA.phases,
    explain_exit=partial(explain, rules=_DATA.exits, stamp=_STAMP),
    continues=None,
    translate_error=_translate_error,
    stall_s=_STALL_S,
)
