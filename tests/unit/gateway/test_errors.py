"""Error answers: their shape for both kinds of client, and that any engine's words become one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.engines.base import ApiError
from freehold.gateway.wire import errors

ERROR = ApiError(
    status=503, message="no room", type="service_unavailable", code="engine_overloaded", param=None
)


def test_openai_shape() -> None:
    expected = {
        "message": "no room",
        "type": "service_unavailable",
        "param": None,
        "code": "engine_overloaded",
    }
    assert json.loads(errors.body(ERROR, "/v1/chat/completions")) == {"error": expected}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (404, "not_found_error"), (413, "request_too_large"),
     (415, "invalid_request_error"), (429, "rate_limit_error"), (500, "api_error"), (502, "api_error"), (503, "overloaded_error"),
     (504, "timeout_error"), (529, "overloaded_error")],
)  # fmt: skip
def test_anthropic_shape(status: int, kind: str) -> None:
    error = ApiError(status=status, message="m", type="x")
    assert json.loads(errors.body(error, "/v1/messages")) == {
        "type": "error",
        "error": {"type": kind, "message": "m"},
    }


@pytest.mark.parametrize(
    ("path", "anthropic"),
    [
        ("/v1/messages/count_tokens", True),
        ("/v1/messages/", True),
        ("/v1/messages2", False),
        ("/v1/x", False),
    ],
)
def test_whose_shape_a_path_has(path: str, *, anthropic: bool) -> None:
    body = json.loads(errors.body(errors.not_found(path, ()).error, path))
    assert body["error"]["type"] == ("not_found_error" if anthropic else "invalid_request_error")
    assert body.get("type") == ("error" if anthropic else None)


def test_in_band_errors_have_each_clients_shape_and_never_say_done() -> None:
    chat = errors.event(ERROR, "/v1/chat/completions")
    assert chat == b"data: " + errors.body(ERROR, "/v1/chat/completions") + b"\n\n"
    messages = errors.event(ERROR, "/v1/messages")
    assert messages.startswith(b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"')
    responses = errors.event(ERROR, "/v1/responses")
    said = json.loads(responses.removeprefix(b"event: error\ndata: "))
    assert (said["type"], said["code"], said["message"]) == ("error", "engine_overloaded", "no room")
    for event in (chat, messages, responses):
        assert event.endswith(b"\n\n")
        assert event.count(b"\n\n") == 1
        assert b"[DONE]" not in event


FROM_ENGINES = {
    "openai": (b'{"error":{"message":"m","type":"t","param":"p","code":"c"}}', ("m", "t", "p", "c")),
    "vllm, numeric code": (b'{"object":"error","message":"m","type":"BadRequestError","code":400}', ("m", "BadRequestError", None, None)),
    "fastapi": (b'{"detail":"Not Found"}', ("Not Found", "invalid_request_error", None, None)),
    "a string": (b'{"error":"boom"}', ("boom", "invalid_request_error", None, None)),
    "html": (b"<html>", ("The engine answered with HTTP status 400.", "invalid_request_error", None, None)),
    "nothing": (b"", ("The engine answered with HTTP status 400.", "invalid_request_error", None, None)),
    "bad utf-8": (b'{"error":"\xff"}', ("The engine answered with HTTP status 400.", "invalid_request_error", None, None)),
    "nested too deep": (b"[" * 100_000, ("The engine answered with HTTP status 400.", "invalid_request_error", None, None)),
    "wrong types": (b'{"error":{"message":[1],"param":2,"code":[],"type":null}}',
                    ("The engine answered with HTTP status 400.", "invalid_request_error", None, None)),
}  # fmt: skip


@pytest.mark.parametrize("name", FROM_ENGINES)
def test_engine_errors_are_read_whatever_their_shape(name: str) -> None:
    body, expected = FROM_ENGINES[name]
    error = errors.from_engine(400, body)
    assert (error.message, error.type, error.param, error.code) == expected
    assert error.status == 400


VALUES = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2)
FIELDS = st.dictionaries(st.sampled_from(["message", "detail", "type", "code", "param"]), VALUES)
LOOSE = FIELDS | st.fixed_dictionaries({"error": FIELDS | VALUES}) | VALUES


@given(st.integers(400, 599), st.binary(max_size=40) | LOOSE.map(lambda value: json.dumps(value).encode()))
def test_any_engine_error_becomes_an_error_that_both_shapes_can_say(status: int, body: bytes) -> None:
    error = errors.from_engine(status, body)
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
        assert json.loads(errors.body(error, path))["error"]["message"] == error.message
        assert errors.event(error, path).endswith(b"\n\n")


@pytest.mark.parametrize(
    ("asked", "sent"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.2, 2), (59.0, 59), (1e9, 60), (float("inf"), 60)]
)
def test_retry_after_is_whole_seconds_within_bounds(asked: float, sent: int) -> None:
    assert errors.unavailable("m", code="c", retry_after_s=asked).retry_after_s == sent


def test_what_the_client_named_is_cut_before_it_is_repeated() -> None:
    assert len(errors.model_not_found("x" * 10_000, [f"m{i}" for i in range(1000)]).error.message) < 1000
    assert len(errors.not_found("/" + "x" * 10_000, ()).error.message) < 300


def test_only_broken_framing_and_a_slow_client_close_the_connection() -> None:
    assert errors.malformed("m").close
    assert errors.timeout("m", status=408).close
    assert not errors.timeout("m").close
    assert not errors.invalid("m").close
    assert errors.wrong_method("PUT", "POST").allow == "POST"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/models", "/v1/models"),
        ("/", None),
        ("/v1/slots", None),
        ("/metrics/", None),
    ],
)
def test_a_path_without_v1_names_the_one_that_is_meant(path: str, meant: str | None) -> None:
    rejection = errors.not_found(path, {"/v1/chat/completions", "/v1/models", "/metrics"})
    hint = "" if meant is None else f" Did you mean {meant}? The base URL ends in /v1."
    assert rejection.error.message == f"Unknown path {path}.{hint}"
    assert rejection.error.status == 404
