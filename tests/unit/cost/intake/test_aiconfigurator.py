"""`freehold size --second-opinion` where AIConfigurator is not installed or cannot know: a sentence, and nothing is imported."""

import json
import sys
import tomllib
from dataclasses import replace
from importlib import metadata
from typing import Any

import pytest

from freehold.cli.main import main
from freehold.cost.intake import aiconfigurator as module
from freehold.cost.intake.aiconfigurator import INSTALL, PACKAGE, TESTED, second_opinion
from freehold.sizing.replica.replica import size
from sizing_box import ask, catalog
from tidy.source import ROOT

SIZE = ("size", "--model", "llama-3.1-8b", "--gpu", "h100-sxm", "--concurrency", "8")


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.metadata, "version", version)
    monkeypatch.setitem(sys.modules, "aiconfigurator_core", None)  # whoever imports it fails


def opinion(name: str = "llama-3.1-8b", gpu: str = "h100-sxm", **changes: Any) -> object:
    return second_opinion(size(ask(name, gpu, **changes), catalog().calibrations))


def test_it_says_how_to_install_it(absent: None, capsys: pytest.CaptureFixture[str]):
    assert main([*SIZE, "--second-opinion", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["second_opinion"].keys() == {"why_not"}
    assert (
        "not installed: pip install --require-hashes -r requirements/aic.txt"
        in (found["second_opinion"]["why_not"])
    )
    assert found["output_tokens_per_s"]["mid"] > 0
    assert (ROOT / INSTALL.split()[-1]).is_file()


def test_for_people_too(absent: None, capsys: pytest.CaptureFixture[str]):
    assert main([*SIZE, "--second-opinion"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Second opinion None: AIConfigurator is not installed: pip install" in text


def test_nobody_asked(absent: None, capsys: pytest.CaptureFixture[str]):
    assert main([*SIZE, "--json"]) == 0
    assert "second_opinion" not in json.loads(capsys.readouterr().out)
    assert main([*SIZE]) == 0
    assert "Second opinion" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gpu": "l4", "quant": "fp8"}, "no measurements of l4; it has some of h100-sxm, "),
        ({"gpu": "h100-pcie"}, "no measurements of h100-pcie"),  # it has the data sheet, no tables
        ({"gpu": "mi300x"}, "no measurements of mi300x"),
        ({"engine": "llama-cpp"}, "does not know the engine llama-cpp; it knows vllm, sglang, tensorrt-llm"),
        ({"name": "mixtral-8x7b", "gpus": 4}, "does not ship the model mixtral-8x7b; it ships llama-3.1-8b"),
        ({"name": "llama-3.1-405b", "gpus": 16}, "another network between the pipeline stages"),
        ({"name": "llama-3.3-70b"}, "no speed to compare"),
        ({"output_tokens": 1}, "two output tokens"),
    ],
)
def test_what_it_does_not_cover_needs_no_package(absent: None, changes: dict[str, Any], said: str):
    found = opinion(**changes)
    assert isinstance(found, str)
    assert said in found
    assert "install" not in found  # it would not help


def test_another_release_is_not_tried(absent: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.metadata, "version", lambda name: "0.13.1")
    assert "aiconfigurator-core 0.13.1 is installed, Freehold knows how to ask 0.12.0" in str(opinion())


def test_a_broken_installation_is_told(absent: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.metadata, "version", lambda name: TESTED)
    assert "cannot be imported" in str(opinion())


def test_the_release_that_is_called_is_the_one_that_is_pinned():
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["aic"]
    assert pinned == [f"{PACKAGE}=={TESTED}"]
    assert f"\n{PACKAGE}=={TESTED} " in (ROOT / "requirements" / "aic.txt").read_text()


def test_every_name_is_one_of_the_catalog():
    assert set(module._SYSTEMS) <= set(catalog().gpus)
    assert set(module._MODELS) <= set(catalog().models)


@pytest.mark.parametrize(
    ("name", "gpu", "quant", "words"),
    [
        ("llama-3.1-8b", "h100-sxm", "bf16", ("bfloat16", "bfloat16")),
        ("llama-3.1-8b", "h100-sxm", "fp8", ("fp8", "fp8")),
        ("deepseek-v3", "h200-sxm", "fp8", ("fp8_block", "fp8_block")),
        ("llama-3.1-8b", "h100-sxm", "int8", ("int8_wo", "bfloat16")),
        ("llama-3.3-70b", "b200-sxm", "fp4", ("nvfp4", "nvfp4")),
        ("llama-3.3-70b", "h100-sxm", "fp4", ("nvfp4_wo", "nvfp4_wo")),
        ("gpt-oss-120b", "h200-sxm", "mxfp4", ("bfloat16", "w4a16_mxfp4")),
    ],
)
def test_quantisations_in_its_words(name: str, gpu: str, quant: str, words: tuple[str, str]):
    assert module._quants(ask(name, gpu, quant=quant), module._MODELS[name]) == words


@pytest.mark.parametrize(("name", "quant"), [("llama-3.1-8b", "mxfp4"), ("qwen3-30b-a3b", "int8")])
def test_a_quantisation_without_a_word_is_refused(name: str, quant: str):
    with pytest.raises(ValueError, match=f"no word for {quant}"):
        module._quants(ask(name, quant=quant), module._MODELS[name])


def test_other_dimensions_are_another_model():
    theirs = {
        "layers": 32,
        "hidden_size": 4096,
        "n": 32,
        "n_kv": 8,
        "vocab": 128256,
        "num_experts": 0,
        "topk": 0,
    }
    asked = ask("llama-3.1-8b")
    assert module._same(asked, theirs)
    for name, value in theirs.items():
        assert not module._same(asked, {**theirs, name: value + 1}), name
    latent = replace(asked, shape=replace(asked.shape, attention="mla"))
    assert module._same(latent, {**theirs, "n_kv": 32})
