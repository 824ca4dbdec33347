"""What is true of any program: exit codes, error bodies, option checks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.engines.base import ExitKind
from freehold.engines.llama_cpp import ENGINE
from freehold.engines.shared.api_errors import context_error, error_fields
from freehold.engines.shared.exit_rules import explain_code, last_words
from freehold.engines.shared.option_check import check_options


@pytest.mark.parametrize(
    ("exit_code", "kind", "restart"),
    [
        (0, ExitKind.STOPPED, True),
        (-15, ExitKind.STOPPED, True),
        (-2, ExitKind.STOPPED, True),
        (143, ExitKind.STOPPED, True),
        (-9, ExitKind.KILLED, True),
        (137, ExitKind.KILLED, True),
        (-11, ExitKind.CRASHED, True),
        (-6, ExitKind.CRASHED, True),
        (134, ExitKind.CRASHED, True),
        (-4, ExitKind.CRASHED, False),
        (126, ExitKind.MISSING_PROGRAM, False),
        (127, ExitKind.MISSING_PROGRAM, False),
    ],
)
def test_an_exit_code_tells_what_it_can(exit_code: int, kind: ExitKind, *, restart: bool) -> None:
    cause = explain_code(exit_code)
    assert cause is not None
    assert (cause.kind, cause.restart) == (kind, restart)


@pytest.mark.parametrize("exit_code", [1, 2, 3, 70, 125, 128, 255, -64])
def test_other_codes_tell_nothing(exit_code: int) -> None:
    assert explain_code(exit_code) is None


def test_a_crash_names_its_signal() -> None:
    cause = explain_code(-11)
    assert cause is not None
    assert "SIGSEGV" in cause.summary


def test_error_fields_reads_both_shapes() -> None:
    assert error_fields(b'{"error": {"message": "m", "code": 400}}') == {"message": "m", "code": 400}
    assert error_fields(b'{"object": "error", "message": "m"}') == {"object": "error", "message": "m"}
    assert error_fields(b'{"error": "just words"}') == {}


@given(st.binary(max_size=200))
def test_error_fields_is_total(body: bytes) -> None:
    assert isinstance(error_fields(body), dict)


def test_error_fields_survives_deep_nesting() -> None:
    assert error_fields(b"[" * 200_000) == {}


def test_context_error_is_openais() -> None:
    error = context_error("too long", param="messages")
    assert (error.status, error.type, error.code, error.param) == (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "messages",
    )


def test_last_words_skips_blank_lines_and_is_bounded() -> None:
    assert last_words(("first", "  second  ", "", "   ")) == "second"
    assert last_words(()) == ""
    assert len(last_words(("x" * 1000,))) == 300


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_ctxx": 5}, "did you mean 'n_ctx'?"),
        ({"n_ctx": "8192"}, "must be of type int"),
        ({"n_ctx": True}, "must be of type int"),
        ({"n_ctx": 8}, "at least 256"),
        ({"n_parallel": 257}, "at most 256"),
        ({"embeddings": 1}, "must be of type bool"),
        ({"flash_attn": "yes"}, "must be one of auto, on, off"),
    ],
)
def test_a_wrong_option_is_told(options: dict[str, object], words: str) -> None:
    (problem,) = check_options(ENGINE, options, lambda name: f"freehold.yaml: {name}")
    assert words in str(problem)


def test_all_wrong_options_are_told_at_once() -> None:
    problems = check_options(ENGINE, {"n_ctx": 1, "n_parallel": 0, "nonsense": 1}, lambda name: name)
    assert [problem.where for problem in problems] == ["n_ctx", "n_parallel", "nonsense"]
