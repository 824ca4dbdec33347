"""An endpoint that somebody else runs: any server that speaks the OpenAI API over HTTP.

Freehold neither starts nor stops it and reads no counters of it; it only asks whether a completion succeeds and
translates the words with which the common servers refuse a request that is too long.
"""

import re
from collections.abc import Mapping

from freehold.engines.base import (
    ApiError,
    Engine,
    ExitCause,
    ExitKind,
    HttpCheck,
    Option,
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
        help="requests that each endpoint works on at once; 0 is unknown",
    ),
    Option(
        name="kv_tokens",
        type="int",
        default=0,
        minimum=0,
        maximum=10**9,
        help="tokens that each endpoint's KV cache holds at once, all requests together; 0 is unknown",
    ),
    Option(
        name="max_context_tokens",
        type="int",
        default=0,
        minimum=0,
        maximum=100_000_000,
        help="longest prompt plus answer of one request, tokens; 0 is unknown",
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
    options=_OPTIONS,
    command=None,
    ready=_ready,
    metrics_path=None,
    metrics=(),
    slots=_slots,
    kv_tokens=_kv_tokens,
    max_context_tokens=_max_context_tokens,
    explain_exit=_explain_exit,
    translate_error=_translate_error,
)
