"""Error bodies of servers that speak OpenAI's API: read their fields, and build the errors that clients get.

Nothing here knows an engine's messages; those stand in each engine file.
"""

from collections.abc import Mapping
from dataclasses import replace

from freehold.engines.base import ApiError
from freehold.engines.shared.json_object import json_object

NOT_SUPPORTED = "not_supported_by_engine"
"""Code of a request that this engine, or this model under its options, cannot serve. Source: our own choice."""


def error_fields(body: bytes) -> dict[str, object]:
    """Return the fields of an error body: those under `error`, or the body's own; {} for anything else."""
    decoded = json_object(body)
    inner = decoded.get("error", decoded)
    return inner if isinstance(inner, dict) else {}


def context_error(
    message: str, *, param: str | None = None, fields: Mapping[str, object] | None = None
) -> ApiError:
    """Return OpenAI's error for a request that is longer than the model's context, with the token counts in `fields`.

    Clients read llama.cpp's `n_prompt_tokens` and `n_ctx` to shorten a request; `fields` are those of its error body.
    Source: OpenAI API reference, error codes: HTTP 400, `invalid_request_error`, `context_length_exceeded`.
    """
    error = invalid_request(message, code="context_length_exceeded", param=param)
    counts = [(fields or {}).get(name) for name in ("n_prompt_tokens", "n_ctx")]
    prompt, context = (count if type(count) is int else None for count in counts)
    return replace(error, n_prompt_tokens=prompt, n_ctx=context)


def invalid_request(message: str, *, code: str | None = NOT_SUPPORTED, param: str | None = None) -> ApiError:
    """Return a 400 of the type `invalid_request_error`."""
    return ApiError(status=400, message=message, type="invalid_request_error", code=code, param=param)
