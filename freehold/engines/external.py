"""An endpoint that somebody else runs: any server that speaks the OpenAI API over HTTP.

Freehold neither starts nor stops it and reads no counters of it; it only asks whether a completion succeeds, reads what
the common servers tell of their capacity, and translates the words with which they refuse a request that is too long.
"""

import re
from collections.abc import Mapping

from freehold.engines.base import (
    ALL_PATHS,
    COUNT_PATHS,
    MEDIA_PATHS,
    Adapter,
    ApiError,
    Capacity,
    CapacityPage,
    Engine,
    ExitCause,
    ExitKind,
    HttpCheck,
    option_number,
)
from freehold.engines.shared.api_errors import context_error, error_fields
from freehold.engines.shared.capacity_pages import count_of, model_card, vllm_kv_cache
from freehold.engines.shared.engine_data import load_engine_data
from freehold.engines.shared.json_object import json_object

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


def _ready(model: str) -> HttpCheck:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    return HttpCheck(method="POST", path="/v1/chat/completions", body=body)


# What servers tell of themselves. Most do not have all of these pages, and a page of another kind says nothing here.


def _llama_cpp_props(body: bytes, _model: str) -> Capacity:
    """Read llama.cpp's `GET /props`: slots, and the context that each has. Source: llama.cpp, tools/server/README.md.

    A page with slots and the build's name is taken for llama.cpp's own; another server's page has one of them at most.
    """
    props = json_object(body)
    settings = props.get("default_generation_settings")
    n_ctx = settings.get("n_ctx") if isinstance(settings, dict) else None
    slots = count_of(props.get("total_slots"))
    kind = "llama-cpp" if slots and isinstance(props.get("build_info"), str) else ""
    return Capacity(slots=slots, max_context_tokens=count_of(n_ctx), kind=kind)


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
    return context_error(said, param=param if isinstance(param, str) else None, fields=fields)


def _ask_adapter(_model: str, _place: int, adapter: Adapter) -> Mapping[str, object]:
    """Return the name as vLLM and most others take it: in place of the model's."""
    return {"model": adapter.upstream_name or adapter.name}


ENGINE = Engine(
    name="external",
    summary="an OpenAI-compatible endpoint that somebody else runs",
    managed=False,
    paths=ALL_PATHS | COUNT_PATHS | MEDIA_PATHS,
    # vLLM and SGLang stop a request when its client leaves, streamed or not. A server that is known to be another one has
    # the habits of that one's engine file.
    stream_to_abort=False,
    ask_adapter=_ask_adapter,
    options=load_engine_data("external").options,
    command=None,
    ready=_ready,
    metrics_path=None,
    metrics=(),
    slots=option_number("slots"),
    kv_tokens=option_number("kv_tokens"),
    max_context_tokens=option_number("max_context_tokens"),
    capacity_pages=(
        CapacityPage(path="/v1/models", read=model_card),
        CapacityPage(path="/props", read=_llama_cpp_props),
        CapacityPage(path="/metrics", read=vllm_kv_cache),
    ),
    explain_exit=_explain_exit,
    translate_error=_translate_error,
)
