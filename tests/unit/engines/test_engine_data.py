"""The data files beside engine files: strict, and complete for the engines that have one."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from openai.types import completion_create_params, embedding_create_params, image_generate_params
from openai.types.audio import speech_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import input_token_count_params, response_create_params

from freehold.bench.measure.client import BenchTarget
from freehold.core.events import CACHE_KEYS, PRIVATE_KEYS
from freehold.engines.shared import engine_data
from freehold.engines.shared.engine_data import load_engine_data
from freehold.engines.shared.request_keys import API_KEYS

FOLDER = Path(engine_data.__file__).parents[1]
GOOD = """\
phases = [{ words = 'loading', says = "loading weights" }]
options = [{ name = "slots", type = "int", help = "requests at once" }]
[[exits]]
kind = "port_in_use"
words = ['a\\d', 'b|c']
summary = "s"
hint = "h"
restart = true
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(engine_data, "files", lambda _package: tmp_path)
    load_engine_data.cache_clear()
    return tmp_path


def test_every_data_file_belongs_to_an_engine_file() -> None:
    for path in FOLDER.glob("*.toml"):
        assert path.with_suffix(".py").is_file()
        assert load_engine_data(path.stem).options


def test_alternatives_are_one_regular_expression(folder: Path) -> None:
    (folder / "x.toml").write_text(GOOD)
    (rule,) = load_engine_data("x").exits
    assert rule.words == re.compile(r"a\d|b|c")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('summary = "s"', 'summary = "s"\nsumary = "s"'),
        ('help = "requests at once"', 'help = "requests at once", unit = "1"'),
        ("phases = ", "fases = "),
        ('kind = "port_in_use"', 'kind = "port_taken"'),
        ('hint = "h"', ""),
    ],
)
def test_what_does_not_belong_in_a_data_file_is_an_error(folder: Path, old: str, new: str) -> None:
    assert old in GOOD
    (folder / "x.toml").write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=r"\w"):
        load_engine_data("x")


def test_every_key_of_openais_sdk_passes_all_engines() -> None:
    asked = set[str]()
    for kind in (
        chat_create_params.CompletionCreateParamsStreaming,
        completion_create_params.CompletionCreateParamsStreaming,
        response_create_params.ResponseCreateParamsStreaming,
        input_token_count_params.InputTokenCountParams,
        embedding_create_params.EmbeddingCreateParams,
        speech_create_params.SpeechCreateParams,
        image_generate_params.ImageGenerateParamsStreaming,
    ):
        asked |= kind.__annotations__.keys()
    assert len(asked) > 60
    assert asked <= API_KEYS


def test_the_load_tool_sends_no_key_that_an_engine_refuses() -> None:
    body = BenchTarget(host="h", port=1, model="m").request("hi", 5).partition(b"\r\n\r\n")[2]
    assert json.loads(body).keys() <= API_KEYS


@pytest.mark.parametrize("name", ["llama_cpp", "sglang", "tensorrt_llm", "transformers", "vllm"])
def test_an_engines_own_keys_are_those_of_no_api_and_steer_nothing(name: str) -> None:
    own = tomllib.loads((FOLDER / f"{name}.toml").read_text())["request_keys"].split()
    assert own == sorted(set(own))
    assert not API_KEYS.union(PRIVATE_KEYS, CACHE_KEYS).intersection(own)
    assert load_engine_data(name).request_keys == API_KEYS.union(own)
