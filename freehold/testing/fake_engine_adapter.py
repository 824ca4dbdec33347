"""The fake engine as an `Engine` value, so that whatever runs engines can run it: every setting is an option.

It is no file of `freehold.engines`: nobody is to serve it by mistake. Tests add it to the engines they hand out.
"""

import re
import sys

import msgspec
from msgspec import inspect

from freehold.engines import all_engines
from freehold.engines.base import (
    ApiError,
    Command,
    Continues,
    Engine,
    ExitCause,
    ExitKind,
    Metric,
    Option,
    OptionType,
    Phase,
    Placement,
    option_number,
)
from freehold.engines.shared.exit_rules import otherwise
from freehold.testing.fake_faults import CRASH_EXIT_CODE
from freehold.testing.fake_settings import FakeSettings, to_flags

_WORDS: dict[type[inspect.Type], OptionType] = {
    inspect.IntType: "int",
    inspect.FloatType: "float",
    inspect.BoolType: "bool",
    inspect.StrType: "str",
    inspect.LiteralType: "str",
}


def _option(field: msgspec.structs.FieldInfo) -> Option:
    kind = inspect.type_info(field.type)
    limits = kind if isinstance(kind, inspect.IntType | inspect.FloatType) else None
    return Option(
        name=field.name,
        type=_WORDS[type(kind)],
        default=field.default,
        minimum=limits.ge if limits else None,
        maximum=limits.le if limits else None,
        choices=tuple(map(str, kind.values)) if isinstance(kind, inspect.LiteralType) else (),
        help=f"see freehold.testing.fake_settings.Settings.{field.name}",
    )


def _command(placement: Placement) -> Command:
    flags = ["--host", placement.host, "--port", str(placement.port), "--model", placement.model]
    program = (sys.executable, "-P", "-m", "freehold.testing.fake_engine")
    return Command(argv=(*program, *flags, *to_flags(dict(placement.options))))


def _explain_exit(exit_code: int, lines: tuple[str, ...]) -> ExitCause:
    if exit_code == CRASH_EXIT_CODE:
        return ExitCause(kind=ExitKind.CRASHED, summary="it crashed as it was told to")
    return otherwise(exit_code, lines)


def _translate_error(status: int, body: bytes) -> ApiError | None:
    return all_engines()["llama-cpp"].translate_error(status, body)  # it speaks llama.cpp's words


FAKE_ENGINE = Engine(
    name="fake",
    summary="a fake engine for tests and drills: real HTTP, made-up tokens, faults on demand",
    managed=True,
    paths=frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages"}),
    stream_to_abort=True,
    options=tuple(_option(field) for field in msgspec.structs.fields(FakeSettings)),
    command=_command,
    metrics_path="/metrics",
    metrics=(
        Metric(
            name="generated_tokens_total",
            theirs=("vllm:generation_tokens_total", "llamacpp:tokens_predicted_total"),
        ),
        Metric(
            name="prompt_tokens_total", theirs=("vllm:prompt_tokens_total", "llamacpp:prompt_tokens_total")
        ),
        Metric(name="running_requests", theirs=("vllm:num_requests_running", "llamacpp:requests_processing")),
        Metric(name="waiting_requests", theirs=("vllm:num_requests_waiting", "llamacpp:requests_deferred")),
        Metric(name="decode_steps_total", theirs=("llamacpp:n_decode_total",)),
        Metric(name="awake_engines", theirs=("vllm:engine_sleep_state",), only=("sleep_state", "awake")),
    ),
    gpus=lambda _options: 0,
    slots=option_number("slots", FakeSettings().slots),
    max_context_tokens=option_number("context_tokens", FakeSettings().context_tokens),
    phases=(Phase(re.compile("^fake engine listens on "), "loading its made-up weights"),),
    explain_exit=_explain_exit,
    continues=Continues.FINAL_MESSAGE,
    translate_error=_translate_error,
)
