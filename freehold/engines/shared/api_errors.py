"""Error bodies of servers that speak OpenAI's API: read their fields, and build the errors that clients get.

Nothing here knows an engine's messages; those stand in each engine file.
"""

from freehold.engines.base import ApiError
from freehold.engines.shared.json_object import json_object

NOT_SUPPORTED = "not_supported_by_engine"
"""Code of a request that this engine, or this model under its options, cannot serve. Source: our own choice."""


def error_fields(body: bytes) -> dict[str, object]:
    """Return the fields of an error body: those under `error`, or the body's own; {} for anything else."""
    decoded = json_object(body)
    inner = decoded.get("error", decoded)
    return inner if isinstance(inner, dict) else {}


def context_error(message: str, *, param: str | None = None) -> ApiError:
    """Return OpenAI's error for a request that is longer than the model's context.

    Source: OpenAI API reference, error codes: HTTP 400, `invalid_request_error`, `context_length_exceeded`.
    """
    return invalid_request(message, code="context_length_exceeded", param=param)


def invalid_request(message: str, *, code: str | None = NOT_SUPPORTED, param: str | None = None) -> ApiError:
    """Return a 400 of the type `invalid_request_error`."""
    return ApiError(status=400, message=message, type="invalid_request_error", code=code, param=param)
