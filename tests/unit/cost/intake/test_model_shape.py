"""Which model is meant: a file's shape has the file's name, and no model of the catalog that it is not."""

import json
import shlex
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from freehold.catalog.facts import Catalog
from freehold.catalog.load import load_catalog
from freehold.cli.main import main
from freehold.cost.intake.model_shape import find_shape
from freehold.sizing.model.shape import ModelShape

QWEN = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    catalog = load_catalog(today=date(2026, 11, 27)).catalog
    assert catalog is not None
    return catalog


def written(folder: Path, name: str = "config.json", **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(QWEN | more))
    return path


def name_of(model: str, path: Path, catalog: Catalog) -> str:
    found = find_shape(model, path, catalog)
    assert isinstance(found, ModelShape)
    return found.name


def test_a_file_names_its_model_itself(catalog: Catalog, tmp_path: Path) -> None:
    assert name_of("", written(tmp_path / "mine"), catalog) == "mine"
    assert name_of("", written(tmp_path, "tiny-qwen.json"), catalog) == "tiny-qwen"
    assert name_of("", written(tmp_path, _name_or_path="org/Tiny-1B"), catalog) == "Tiny-1B"
    assert name_of("", written(tmp_path / "x", _name_or_path="./"), catalog) == "x"


def test_a_name_that_was_said_wins_where_it_can_be_that_model(catalog: Catalog, tmp_path: Path) -> None:
    path = written(tmp_path)
    assert name_of("ours", path, catalog) == "ours"
    assert name_of("Qwen2.5-0.5B-Instruct", path, catalog) == "qwen2.5-0.5b"
    told = find_shape("llama-3.1-8b", path, catalog)
    assert not isinstance(told, ModelShape)
    (problem,) = told
    assert problem.where == "--model"
    assert "32 layers of width 4096" in problem.message
    assert "24 layers of width 896" in problem.message


def test_the_catalogs_models_are_found_in_any_case(catalog: Catalog) -> None:
    for name in ("Llama-3.1-8B", "META-LLAMA/llama-3.1-8b-instruct", "llama-3.1-8b-instruct"):
        found = find_shape(name, None, catalog)
        assert isinstance(found, ModelShape)
        assert found.name == "llama-3.1-8b"


def test_an_empty_file_is_said_to_be_empty(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("\n")
    assert [str(each) for each in find_shape("", path, catalog)] == [  # type: ignore[union-attr]
        f"{path}: is empty (the config.json of a model on Hugging Face)"
    ]


@pytest.mark.parametrize("tokens", ["200M", "2T"])
def test_a_plan_for_a_file_is_a_plan_for_that_model(
    tokens: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = str(written(tmp_path / "mine"))
    asked = ("plan", "--config", path, "--gpu", "l4", "--compare", "groq/llama-3.1-8b-instant")
    assert main([*asked, "--tokens-per-month", tokens, "--draws", "1000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["summary"]["model"] == "mine"
    assert {each["model"] for each in found["options"] if each["kind"] == "buy"} == {"mine"}
    served = {each["model"] for each in found["options"] if each["kind"] == "api"}
    assert served == {"llama-3.1-8b-instant"}, "no API of the default model stands for another one"
    words = shlex.split(found["verdict"]["next_command"])
    assert words[words.index("--model-config") + 1] == path
    assert "--model" not in words
