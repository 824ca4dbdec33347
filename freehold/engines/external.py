"""An endpoint that somebody else runs: any server that speaks the OpenAI API over HTTP.

Freehold neither starts nor stops it and reads no counters of it; it only asks whether a completion succeeds, reads what
the common servers tell of their capacity, and translates the words with which they refuse a request that is too long.
"""

import json
import re
from collections.abc import Mapping

from freehold.engines.base import (
    Adapter,
    ApiError,
    Capacity,
    Engine,
    ExitCause,
    ExitKind,
    HttpCheck,
    Option,
    Tells,
    context_error,
    error_fields,
)

_TOO_LONG = re.compile(
    r"maximum context length"  # OpenAI, vLLM, SGLang, Mistral
    r"|longer than the maximum model length"  # vLLM's input processor
    r"|longer than the model's context length"  # SGLang, Together
    r"|exceeds? the available context size",  # llama.cpp
    re.IGNORECASE,
)
"""How servers say that a request is too long. Source: OpenAI error reference; vllm-project/vllm issues 20409 and
16420; QwenLM/Qwen3 issue 1321 (SGLang); llama.cpp measured here."""
_CONTEXT_CODES = ("context_length_exceeded", "context_window_exceeded")
"""Machine-readable words for the same. Source: OpenAI error reference; LiteLLM proxies."""

_OPTIONS = (
    Option(
        name="slots",
        type="int",
        default=0,
        minimum=0,
        maximum=100_000,
        help="requests that each endpoint works on at once; 0: what the server tells",
    ),
    Option(
        name="kv_tokens",
        type="int",
        default=0,
        minimum=0,
        maximum=10**9,
        help="tokens that each endpoint's KV cache holds at once, all requests together; 0: what the server tells",
    ),
    Option(
        name="max_context_tokens",
        type="int",
        default=0,
        minimum=0,
        maximum=100_000_000,
        help="longest prompt plus answer of one request, tokens; 0: what the server tells",
    ),
)


def _ready(model: str) -> HttpCheck:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    return HttpCheck(method="POST", path="/v1/chat/completions", body=body)


def _slots(options: Mapping[str, int | str | bool | float]) -> int:
    return int(options.get("slots", 0))


def _kv_tokens(options: Mapping[str, int | str | bool | float]) -> int:
    return int(options.get("kv_tokens", 0))


def _max_context_tokens(options: Mapping[str, int | str | bool | float]) -> int:
    return int(options.get("max_context_tokens", 0))


# What servers tell of themselves. Most do not have all of these pages, and a page of another kind says nothing here.

_TOLD_MOST = 10**9
"""A larger number is no capacity. Source: the same bound as `kv_tokens` has in freehold.yaml."""
_CACHE_CONFIG = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
_LABEL = re.compile(r'\b(block_size|num_gpu_blocks)="(\d{1,12})"')


def _number(value: object) -> int:
    return value if type(value) is int and 0 < value <= _TOLD_MOST else 0


def _object(body: bytes) -> dict[str, object]:
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _llama_cpp_props(body: bytes, _model: str) -> Capacity:
    """Read llama.cpp's `GET /props`: slots, and the context that each has. Source: llama.cpp, tools/server/README.md."""
    props = _object(body)
    settings = props.get("default_generation_settings")
    n_ctx = settings.get("n_ctx") if isinstance(settings, dict) else None
    return Capacity(slots=_number(props.get("total_slots")), max_context_tokens=_number(n_ctx))


def _vllm_metrics(body: bytes, _model: str) -> Capacity:
    """Read vLLM's KV cache from `vllm:cache_config_info`; several engines behind one address are added up.

    Source: vLLM, CacheConfig.metrics_info, which its gauge `cache_config_info` has as labels. How many requests it runs at once is told nowhere.
    """
    tokens = 0
    for labels in _CACHE_CONFIG.findall(body.decode("utf-8", "replace")):
        found = {name: int(value) for name, value in _LABEL.findall(labels)}
        tokens += found.get("block_size", 0) * found.get("num_gpu_blocks", 0)
    return Capacity(kv_tokens=_number(tokens))


def _models(body: bytes, model: str) -> Capacity:
    """Read `max_model_len` of one model in `GET /v1/models`. Source: vLLM and SGLang, ModelCard."""
    rows = _object(body).get("data")
    known = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    lengths = [_number(row.get("max_model_len")) for row in known if row.get("id") == model]
    return Capacity(max_context_tokens=max(lengths, default=0))


def _explain_exit(exit_code: int, _lines: tuple[str, ...]) -> ExitCause:
    return ExitCause(
        kind=ExitKind.UNKNOWN,
        summary=f"exit code {exit_code} of a program that Freehold does not run",
        restart=False,
    )


def _translate_error(_status: int, body: bytes) -> ApiError | None:
    fields = error_fields(body)
    message, param = fields.get("message"), fields.get("param")
    text = message if isinstance(message, str) else ""
    if fields.get("code") not in _CONTEXT_CODES and not _TOO_LONG.search(text):
        return None
    said = text or "The request is longer than the model's context."
    return context_error(said, param=param if isinstance(param, str) else None)


def _ask_adapter(_model: str, _place: int, adapter: Adapter) -> Mapping[str, object]:
    """Return the name as vLLM and most others take it: in place of the model's."""
    return {"model": adapter.upstream_name or adapter.name}


ENGINE = Engine(
    name="external",
    summary="an OpenAI-compatible endpoint that somebody else runs",
    managed=False,
    paths=frozenset(
        {
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/messages",
            "/v1/rerank",
            "/v1/responses",
        }
    ),
    # vLLM and SGLang stop a request when its client leaves, streamed or not; for others nothing is known.
    stream_to_abort=False,
    ask_adapter=_ask_adapter,
    options=_OPTIONS,
    command=None,
    ready=_ready,
    metrics_path=None,
    metrics=(),
    slots=_slots,
    kv_tokens=_kv_tokens,
    max_context_tokens=_max_context_tokens,
    tells=(
        Tells(path="/v1/models", read=_models),
        Tells(path="/props", read=_llama_cpp_props),
        Tells(path="/metrics", read=_vllm_metrics),
    ),
    explain_exit=_explain_exit,
    translate_error=_translate_error,
)
