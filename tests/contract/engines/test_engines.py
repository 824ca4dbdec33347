"""Every engine keeps the contract; the kit notices each way to break it; and the programs do what their files say."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.engines import all_engines
from freehold.engines.base import (
    ApiError,
    Command,
    Engine,
    ExitCause,
    ExitKind,
    HttpCheck,
    Metric,
    Option,
    Placement,
)
from freehold.testing.check_engine import EXIT_CODES, HTTP_ERRORS, check_engine, check_error, check_exit
from freehold.testing.check_running_engine import GRACE_S, check_running_engine
from freehold.testing.fake_engine_adapter import FAKE_ENGINE

ENGINES = [*all_engines().values(), FAKE_ENGINE]
every_engine = pytest.mark.parametrize("engine", ENGINES, ids=[engine.name for engine in ENGINES])


@every_engine
def test_the_engine_keeps_the_contract(engine: Engine) -> None:
    check_engine(engine)


@every_engine
@given(exit_code=st.sampled_from(EXIT_CODES), lines=st.lists(st.text(max_size=80), max_size=5).map(tuple))
def test_any_exit_is_explained(engine: Engine, exit_code: int, lines: tuple[str, ...]) -> None:
    assert check_exit(engine, exit_code, lines) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
error_bodies = st.binary(max_size=200) | st.fixed_dictionaries(
    {
        "error": st.fixed_dictionaries(
            {},
            optional={
                key: json_values | st.sampled_from(["exceed_context_size_error", "not_supported_error"])
                for key in ("message", "type", "code", "param", "n_ctx", "n_prompt_tokens")
            },
        )
    }
).map(lambda value: json.dumps(value).encode())


@every_engine
@given(status=st.sampled_from(HTTP_ERRORS), body=error_bodies)
def test_any_error_body_is_read(engine: Engine, status: int, body: bytes) -> None:
    assert check_error(engine, status, body) == []


GOOD = all_engines()["llama-cpp"]


def with_option(**changes: Any) -> Engine:
    option: dict[str, Any] = {
        "name": "thing",
        "type": "int",
        "help": "what it does",
        "minimum": 1,
        "maximum": 9,
        **changes,
    }
    return dataclasses.replace(GOOD, options=(*GOOD.options, Option(**option)))


def with_command(change: Callable[[Command], Command]) -> Engine:
    assert GOOD.command is not None
    make = GOOD.command
    return dataclasses.replace(GOOD, command=lambda placement: change(make(placement)))


def without_word(word: str) -> Engine:
    return with_command(lambda command: Command(argv=tuple(part for part in command.argv if part != word)))


BROKEN: dict[str, Engine] = {
    "must be lower-case words": dataclasses.replace(GOOD, name="Llama_Cpp"),
    "its summary must be one line": dataclasses.replace(GOOD, summary=""),
    "if and only if it is managed": dataclasses.replace(GOOD, command=None),
    "it serves no path": dataclasses.replace(GOOD, paths=frozenset()),
    "does not begin with /v1/": dataclasses.replace(GOOD, paths=GOOD.paths | {"/metrics"}),
    "'n_ctx' stands twice": dataclasses.replace(GOOD, options=GOOD.options + GOOD.options[:1]),
    "must be in snake_case": with_option(name="Thing"),
    "'thing' has no help": with_option(help=""),
    "has choices that are no int": with_option(choices=("a", "b")),
    "default of option 'thing' is not allowed": with_option(default=10),
    "option 'thing' changes nothing": with_option(),
    "does not hold the host": without_word("127.0.0.1"),
    "does not hold the port": without_word("54321"),
    "does not hold the model": without_word("some-model"),
    "if and only if unix_socket is true": dataclasses.replace(GOOD, unix_socket=False),
    "listens on the host besides": with_command(
        lambda command: Command(argv=(*command.argv, "--also=127.0.0.1"))
    ),
    "which every user can read, holds its key": dataclasses.replace(
        GOOD, command=lambda placement: Command(argv=("some-engine", placement.key))
    ),
    "argv goes through /bin/sh": with_command(lambda command: Command(argv=("/bin/sh", "-c", *command.argv))),
    "argv is empty or not all text": with_command(lambda _command: Command(argv=())),
    "only a completion proves": dataclasses.replace(
        GOOD, ready=lambda _model: HttpCheck(method="GET", path="/health")
    ),
    "must ask the given model for one token": dataclasses.replace(
        GOOD,
        ready=lambda _model: HttpCheck(method="POST", path="/v1/completions", body={"model": "fixed"}),
    ),
    "it heeds adapters on /v1/audio": dataclasses.replace(GOOD, adapter_paths=frozenset({"/v1/audio"})),
    "it says of adapters what it takes": dataclasses.replace(GOOD, ask_adapter=None, adapter_formats=()),
    "its metrics must be some of": dataclasses.replace(
        GOOD, metrics=(*GOOD.metrics, Metric(name="mine", theirs=("x",)))
    ),
    "if and only if it has metrics": dataclasses.replace(GOOD, metrics_path=None),
    "must show its progress": dataclasses.replace(GOOD, metrics=GOOD.metrics[1:3]),
    "maps to no or to impossible names": dataclasses.replace(
        GOOD, metrics=(*GOOD.metrics[1:], Metric(name="generated_tokens_total", theirs=("a b",)))
    ),
    "slots gives -1": dataclasses.replace(GOOD, slots=lambda _options: -1),
    "max_context_tokens gives None": dataclasses.replace(GOOD, max_context_tokens=lambda _options: None),  # type: ignore[arg-type,return-value]
    "no ExitCause": dataclasses.replace(GOOD, explain_exit=lambda _code, _lines: None),  # type: ignore[arg-type,return-value]
    "must be one line of 1 to": dataclasses.replace(
        GOOD,
        explain_exit=lambda _code, lines: ExitCause(kind=ExitKind.UNKNOWN, summary="\n".join(lines)),
    ),
    "explain_exit(-9, ()) must be killed": dataclasses.replace(
        GOOD, explain_exit=lambda _code, _lines: ExitCause(kind=ExitKind.STOPPED, summary="fine")
    ),
    "has the status 200": dataclasses.replace(
        GOOD, translate_error=lambda _status, _body: ApiError(status=200, message="m", type="t")
    ),
    "has no message or no type": dataclasses.replace(
        GOOD, translate_error=lambda status, _body: ApiError(status=status, message="", type="t")
    ),
}


@pytest.mark.parametrize("words", BROKEN)
def test_the_kit_tells_what_is_broken(words: str) -> None:
    with pytest.raises(AssertionError) as failure:
        check_engine(BROKEN[words])
    assert words in str(failure.value)


def test_the_kit_tells_all_at_once() -> None:
    engine = dataclasses.replace(GOOD, summary="", paths=frozenset())
    with pytest.raises(AssertionError, match=r"one line\n- it serves no path"):
        check_engine(engine)


def test_the_fakes_program_does_what_its_file_says(free_port: int) -> None:
    options = {"answer_tokens": 64, "tokens_per_s": 100.0}
    place = Placement(model="some-model", weights=None, host="127.0.0.1", port=free_port, options=options)
    run = check_running_engine(FAKE_ENGINE, place)
    assert run.end_s < GRACE_S


@pytest.mark.parametrize(
    ("options", "change", "words"),
    [
        ({"ignore_sigterm": True}, {}, "does not end within"),
        ({"fault": "no_done", "fault_count": 3}, {}, "not [DONE]"),
        ({"exit_at_start": 5}, {}, "ended with exit code 5"),
        ({"context_tokens": 100_000}, {"max_context_tokens": lambda _options: 50}, "is not recognised"),
        ({}, {"metrics": (*FAKE_ENGINE.metrics[1:], Metric(name="generated_tokens_total", theirs=("no:such",)))}, "does not show ['generated_tokens_total']"),
        ({}, {"explain_exit": lambda _code, _lines: ExitCause(kind=ExitKind.UNKNOWN, summary="?")}, "is explained as"),
    ],
)  # fmt: skip
def test_the_running_kit_tells_a_lie(
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    change: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.setattr("freehold.testing.check_running_engine.GRACE_S", 0.5)
    monkeypatch.setattr("freehold.testing.check_running_engine._REQUEST_TIMEOUT_S", 5.0)
    options = {"answer_tokens": 64, "tokens_per_s": 100.0, **options}
    place = Placement(model="m", weights=None, host="127.0.0.1", port=free_port, options=options)
    with pytest.raises(AssertionError) as failure:
        check_running_engine(dataclasses.replace(FAKE_ENGINE, **change), place)
    assert words in str(failure.value)


def llama_cpp(weights: Path, port: int, **options: int | str | bool) -> Placement:
    return Placement(
        model="smollm2-135m", weights=weights, host="127.0.0.1", port=port, options=options, threads=1
    )


def test_llama_cpps_program_does_what_its_file_says(weights_path: Path, free_port: int) -> None:
    run = check_running_engine(GOOD, llama_cpp(weights_path, free_port))
    assert run.end_s < GRACE_S


def test_a_llama_server_program_does_it_as_well(weights_path: Path, free_port: int, tmp_path: Path) -> None:
    """The child takes llama-server's flags, so behind another name it can stand for one."""
    assert GOOD.command is not None
    program = GOOD.command(llama_cpp(weights_path, free_port)).argv[:4]
    server = tmp_path / "llama-server"
    server.write_text(f'#!/bin/sh\nexec {" ".join(program)} "$@"\n')
    server.chmod(0o755)
    check_running_engine(GOOD, llama_cpp(weights_path, free_port, server_binary=str(server)))
