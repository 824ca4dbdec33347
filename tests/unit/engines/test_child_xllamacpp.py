"""The wheel's child in words: what it refuses and how it says so. That each option arrives is in the contract tests."""

from pathlib import Path
from typing import Any

import pytest

from freehold.engines.base import Placement
from freehold.engines.llama_cpp import ENGINE
from freehold.engines.programs import xllamacpp_server as child


def params_of(options: dict[str, int | str | bool | float]) -> Any:
    """Go the whole way: options, command line, flags, CommonParams."""
    assert ENGINE.command is not None
    place = Placement(
        model="a-model", weights=Path("/w/m.gguf"), host="127.0.0.1", port=4321, options=options
    )
    argv = ENGINE.command(place).argv
    return child.to_params(child.parse(list(argv[argv.index("--host") :])))


@pytest.mark.parametrize(("word", "name"), [("auto", "AUTO"), ("on", "ENABLED"), ("off", "DISABLED")])
def test_flash_attention_words(word: str, name: str) -> None:
    assert params_of({"flash_attn": word}).flash_attn_type.name == f"LLAMA_FLASH_ATTN_TYPE_{name}"


@pytest.mark.parametrize("word", ["none", "mean", "cls", "last", "rank"])
def test_pooling_words(word: str) -> None:
    assert params_of({"pooling": word}).pooling_type.name == f"LLAMA_POOLING_TYPE_{word.upper()}"


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
