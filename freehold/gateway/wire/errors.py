"""Every error a client can see, in OpenAI's shape, or in Anthropic's own under `/v1/messages`.

Pure: status, message and bytes. An error body never holds a prompt, a key or a path of this machine.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec

from freehold.engines.base import ApiError, Engine

MESSAGES_PATH = "/v1/messages"
_MODELS_FAULT = "The model's answer does not have the form that its request asks for, such as a valid tool call. Ask again."
_BELOW_MESSAGES = (
    MESSAGES_PATH + "/"
)  # `count_tokens`, and `batches`, which is not served: in their client's own shape
RETRY_AFTER_S_MAX = 60
"""Largest Retry-After sent, seconds. Source: openai-python stops retrying past its own cap (60 s in older releases)."""

# Anthropic's error types by status. Source: Anthropic API reference, "Errors".
_ANTHROPIC_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
    529: "overloaded_error",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """One error answer: its message and what becomes of the connection."""

    error: ApiError
    retry_after_s: int | None = None
    close: bool = False
    """True: the connection cannot be trusted or kept after this answer."""
    by_engine: bool = False
    """True: an engine was asked; False: the gateway rejected it by itself, and counts it so."""
    allow: str = ""
    """Value of the Allow header for 405."""
    headers: bytes = b""
    """More header lines, each with CRLF."""


def invalid(
    message: str, *, param: str | None = None, code: str | None = None, status: int = 400
) -> Rejection:
    """Return the rejection of a well-framed request with an impossible content."""
    return Rejection(
        error=ApiError(status=status, message=message, type="invalid_request_error", code=code, param=param)
    )


def malformed(message: str, *, status: int = 400) -> Rejection:
    """Return the rejection of broken framing: the connection closes, since the next request cannot be found."""
    error = ApiError(status=status, message=message, type="invalid_request_error", code="malformed_request")
    return Rejection(error=error, close=True)


def target_too_long() -> Rejection:
    """Return the 414 (RFC 9112 3)."""
    return malformed("The request target is too long.", status=414)


def forbidden(message: str) -> Rejection:
    """Return the 403 for a client that is not allowed here."""
    return Rejection(error=ApiError(status=403, message=message, type="permission_error", code="forbidden"))


def not_found(path: str, known: Iterable[str]) -> Rejection:
    """Return the 404 for a path that does not exist; it names the one that is meant where only `/v1` is missing or doubled."""
    meant = "/v1/" + path.rstrip("/").rpartition("/v1/")[2].removeprefix("/")
    hint = f" Did you mean {meant}? The base URL ends in /v1." if meant in known else ""
    return invalid(f"Unknown path {path[:200]}.{hint}", status=404, code="unknown_url")


def wrong_method(method: str, allow: str) -> Rejection:
    """Return the 405 that names the method to use."""
    error = ApiError(
        status=405,
        message=f"Method {method} is not allowed here; use {allow}.",
        type="invalid_request_error",
        code="method_not_allowed",
    )
    return Rejection(error=error, allow=allow)


def model_not_found(model: str, known: list[str]) -> Rejection:
    """Return the 404 for a model that this stack does not serve, or not to this caller: it learns not which of the two.

    `known`: the caller's models.
    """
    names = ", ".join(known[:20]) or "none"
    return invalid(
        f"The model {model[:200]!r} does not exist, or you may not use it. Your models: {names}.",
        status=404,
        code="model_not_found",
        param="model",
    )


def unauthorized(message: str) -> Rejection:
    """Return the 401 for a request without a key that is accepted."""
    error = ApiError(status=401, message=message, type="authentication_error", code="invalid_api_key")
    return Rejection(error=error, headers=b"www-authenticate: Bearer\r\n")


def unavailable(message: str, *, code: str, retry_after_s: float = 1.0) -> Rejection:
    """Return a 503 that asks the client to retry; `retry_after_s` is rounded up to 1..60 whole seconds."""
    error = ApiError(status=503, message=message, type="service_unavailable", code=code)
    return Rejection(error=error, retry_after_s=max(1, round(min(RETRY_AFTER_S_MAX, retry_after_s + 0.49))))


def not_ready(model: str) -> Rejection:
    """Return the 503 for a model without a ready replica."""
    return unavailable(f"No replica of {model} is ready yet.", code="model_not_ready", retry_after_s=2.0)


def timeout(message: str, *, status: int = 504) -> Rejection:
    """Return a 504 (engine too slow) or 408 (client too slow)."""
    error = ApiError(status=status, message=message, type="timeout", code="timeout")
    return Rejection(error=error, close=status == 408)


def bad_gateway(message: str, *, code: str = "engine_failed") -> Rejection:
    """Return a 502: engines were tried and none gave an answer."""
    return Rejection(error=ApiError(status=502, message=message, type="server_error", code=code))


def engine_crashed() -> Rejection:
    """Return the 502 for a request that ended an engine."""
    message = (
        "The engine crashed while it worked on this request, so no other engine is asked. Change the request."
    )
    return bad_gateway(message, code="engine_crashed")


def last_replica(model: str) -> Rejection:
    """Return the 503 for a request that may end an engine while only one of its model is ready."""
    message = (
        f"Only one replica of {model} is ready, and a request like this made another one crash. Retry later."
    )
    return unavailable(message, code="model_not_ready", retry_after_s=5.0)


def from_answer(engine: Engine, status: int, *, body: bytes, retry_after_s: float | None) -> Rejection:
    """Return the client's error for an engine's answer of `status` 300 or more, with the engine's message or ours."""
    if status < 400:
        return bad_gateway("The engine answered with a redirect; its endpoint's address is not right.")
    if status in {401, 403, 407}:
        return bad_gateway("The engine refused the gateway's own credentials; see its api_key.")
    error = engine.translate_error(status, body) or from_engine(status, body)
    if engine.blames_model is not None and engine.blames_model(body):
        error = replace(error, message=_MODELS_FAULT)  # the engine's text quotes the answer
    else:
        error = without_internals(error)
    if status in {429, 503}:
        # Whatever the message: the engine has no room, which is not the caller's own limit.
        return unavailable(error.message, code="engine_overloaded", retry_after_s=retry_after_s or 1.0)
    return Rejection(error=error, by_engine=True)


def without_internals(error: ApiError) -> ApiError:
    """Return an engine's error as clients may see it: the text of its own failures may hold paths and tracebacks."""
    if error.status < 500:
        return error
    message = f"The engine answered with HTTP status {error.status}. Its message is in the gateway's log, under this request's id."
    return replace(error, message=message)


def from_event(data: bytes) -> ApiError:
    """Return the error in an engine's error event as clients may see it; its status is 500 if the event has none."""
    code = _fields(data).get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return without_internals(from_engine(status, data))


def _fields(body: bytes) -> dict[str, object]:
    """Return the fields of an error body, whatever its shape."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        decoded = None
    inner = decoded.get("error", decoded) if isinstance(decoded, dict) else None
    return inner if isinstance(inner, dict) else {"message": inner if isinstance(inner, str) else None}


def from_engine(status: int, body: bytes) -> ApiError:
    """Return an engine's error body, whatever its shape, as an ApiError with the same status."""
    fields = _fields(body)
    message = fields.get("message") or fields.get("detail")
    code, param = fields.get("code"), fields.get("param")
    return ApiError(
        status=status,
        message=message if isinstance(message, str) else f"The engine answered with HTTP status {status}.",
        type=str(fields.get("type") or ("server_error" if status >= 500 else "invalid_request_error")),
        # Engines put the HTTP status here as a number; OpenAI's `code` is a string or null.
        code=code if isinstance(code, str) else None,
        param=param if isinstance(param, str) else None,
    )


def body(error: ApiError, path: str) -> bytes:
    """Return the JSON body of an error for a client of `path`."""
    if path == MESSAGES_PATH or path.startswith(_BELOW_MESSAGES):
        return msgspec.json.encode({"type": "error", "error": _anthropic(error)})
    return msgspec.json.encode({"error": _openai(error)})


def event(error: ApiError, path: str) -> bytes:
    """Return the error as a server-sent event that ends a stream of `path` (no `[DONE]` follows)."""
    if path == MESSAGES_PATH:
        return b"event: error\ndata: " + body(error, path) + b"\n\n"
    if path == "/v1/responses":
        text = {"type": "error", **_openai(error), "error": _openai(error)} | {"type": "error"}
        return b"event: error\ndata: " + msgspec.json.encode(text) + b"\n\n"
    return b"data: " + body(error, path) + b"\n\n"


def in_band(rejection: Rejection, path: str, *, chunked: bool, last: bytes) -> bytes:
    """Return the bytes that end a stream after its first byte; `last` is what was written before them."""
    error = replace(rejection.error, message=f"{rejection.error.message} This answer is not complete.")
    text = event(error, path)
    if not last.rstrip(b"\r").endswith((b"\n\n", b"\n\n\r\n")):
        text = b"\n\n" + text
    if not chunked:
        return text
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text)


def _openai(error: ApiError) -> dict[str, str | int | None]:
    counts = {"n_prompt_tokens": error.n_prompt_tokens, "n_ctx": error.n_ctx}
    known = {name: count for name, count in counts.items() if count is not None}
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code, **known}


def _anthropic(error: ApiError) -> dict[str, str]:
    default = "api_error" if error.status >= 500 else "invalid_request_error"
    return {"type": _ANTHROPIC_TYPES.get(error.status, default), "message": error.message}
