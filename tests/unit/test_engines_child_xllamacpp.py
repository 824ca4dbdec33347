"""Every option of llama.cpp really reaches xllamacpp's own parameters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freehold.engines import _child_xllamacpp as child
from freehold.engines.base import Placement
from freehold.engines.llama_cpp import ENGINE

# Option: a value that is nobody's default, and where xllamacpp holds it.
REACHES: dict[str, tuple[int | str | bool, Callable[[Any], object]]] = {
    "n_ctx": (1536, lambda params: params.n_ctx),
    "n_parallel": (3, lambda params: params.n_parallel),
    "n_threads": (7, lambda params: params.cpuparams.n_threads),
    "n_threads_batch": (9, lambda params: params.cpuparams_batch.n_threads),
    "n_threads_http": (33, lambda params: params.n_threads_http),
    "n_batch": (1111, lambda params: params.n_batch),
    "n_ubatch": (222, lambda params: params.n_ubatch),
    "n_gpu_layers": (5, lambda params: params.n_gpu_layers),
    "flash_attn": ("off", lambda params: {"DISABLED": "off"}[params.flash_attn_type.name.rpartition("_")[2]]),
    "embeddings": (True, lambda params: params.embedding),
    "pooling": ("last", lambda params: params.pooling_type.name.rpartition("_")[2].lower()),
    "seed": (77, lambda params: params.sampling.seed),
    "verbosity": (4, lambda params: params.verbosity),
}


def params_of(options: dict[str, int | str | bool | float]) -> Any:
    """Go the whole way: options, command line, flags, CommonParams."""
    assert ENGINE.command is not None
    place = Placement(
        model="a-model", weights=Path("/w/m.gguf"), host="127.0.0.1", port=4321, options=options
    )
    argv = ENGINE.command(place).argv
    return child.to_params(child.parse(list(argv[argv.index("--host") :])))


def test_the_table_covers_every_option() -> None:
    assert set(REACHES) == {option.name for option in ENGINE.options} - {"server_binary"}


@pytest.mark.parametrize("name", sorted(REACHES))
def test_an_option_reaches_the_server(name: str) -> None:
    value, where = REACHES[name]
    assert where(params_of({name: value})) == value


@pytest.mark.parametrize("name", sorted(REACHES))
def test_the_value_is_nobodys_default(name: str) -> None:
    value, where = REACHES[name]
    try:
        usual = where(params_of({}))
    except KeyError:  # a choice that the table does not name is another one
        usual = None
    assert usual != value


@pytest.mark.parametrize(("word", "name"), [("auto", "AUTO"), ("on", "ENABLED"), ("off", "DISABLED")])
def test_flash_attention_words(word: str, name: str) -> None:
    assert params_of({"flash_attn": word}).flash_attn_type.name == f"LLAMA_FLASH_ATTN_TYPE_{name}"


@pytest.mark.parametrize("word", ["none", "mean", "cls", "last", "rank"])
def test_pooling_words(word: str) -> None:
    assert params_of({"pooling": word}).pooling_type.name == f"LLAMA_POOLING_TYPE_{word.upper()}"


def test_defaults_are_those_that_the_options_name() -> None:
    params = params_of({})
    for option in ENGINE.options:
        if option.default is not None and option.name not in ("flash_attn", "embeddings"):
            assert REACHES[option.name][1](params) == option.default, option.name


def test_the_server_is_private_and_measurable() -> None:
    params = params_of({})
    assert params.model.path == "/w/m.gguf"
    assert (params.hostnames, params.port, params.model_alias) == (["127.0.0.1"], 4321, {"a-model"})
    assert params.endpoint_metrics
    assert params.endpoint_slots
    assert not params.ui
    assert params.cors_origins == "http://127.0.0.1:4321"
    assert not params.cors_credentials


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--batch-size", "3"], "--batch-size: 3 is less than --parallel 4"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--seed", "many"], "argument --seed"),
        (["--pooling", "odd"], "argument --pooling"),
    ],
)
def test_a_wrong_flag_is_named(extra: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    good = ["--host", "h", "--model", "m", "--alias", "a", "--port", "1", "--ctx-size", "512", "--parallel", "4", "--threads", "1"]  # fmt: skip
    child.parse(good)
    with pytest.raises(SystemExit) as ended:
        child.parse([*good, *extra])
    assert ended.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in last
    assert ENGINE.explain_exit(2, (last,)).kind == "bad_option"
