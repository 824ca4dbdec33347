"""What an engine loads against what its weights are: told from the text, told when they are here, or converted."""

import hashlib
import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from contract.weights.converter import install
from contract.weights.small_gguf import write_small_gguf
from freehold.cli.config import load_config
from freehold.cli.fetch_progress import showing
from freehold.cli.output import UserMistakes
from freehold.core.errors import Permanent
from freehold.core.formats import Format
from freehold.engines import all_engines
from freehold.engines.base import Engine, Recipe
from freehold.stack.config import Config, one_replica_of
from freehold.stack.fetch import fetch_weights
from freehold.stack.weights_check import converter_python
from freehold.weights.transfer import Reporter
from freehold.weights.tree import hash_folder, tree_hash

RECIPE = Recipe(name="some-cpu", version="1.0", summary="", requirements="vllm-cpu.txt", program="bin/some")


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Engine]:
    """Give engines that load one format each, and folders of the test's own."""
    llama = all_engines()["llama-cpp"]
    ours = {
        "llama-cpp": llama,
        "some": replace(llama, name="some", formats=(Format.SAFETENSORS,), recipes=(RECIPE,)),
        "rt": replace(llama, name="rt", formats=(Format.TENSORRT,)),
    }
    for place in ("freehold.stack.weights_check", "freehold.stack.config"):
        monkeypatch.setattr(f"{place}.all_engines", lambda: ours)
    # Whether their programs are here is not asked: this is about weights.
    monkeypatch.setattr("freehold.stack.config.environment_problems", lambda *_engine, **_places: [])
    monkeypatch.setenv("FREEHOLD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FREEHOLD_DATA_DIR", str(tmp_path / "data"))
    return ours


def config_file(folder: Path, engine: str, source: str, sha256: str = "0" * 64) -> Path:
    path = folder / "freehold.yaml"
    model = {"name": "m", "engine": engine, "source": source, "sha256": sha256}
    path.write_text(json.dumps({"version": 1, "models": [model]}))
    return path


def load(path: Path):
    return load_config(path, overrides={})


def fetched(config: Config) -> Path:
    """Fetch with progress on stderr, as commands do."""
    with showing(quiet=False) as show:
        return fetch_weights(config, show)["m"]


def safetensors(folder: Path, **more: bytes) -> str:
    """Write a whole little folder and return its tree hash."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    files = {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        "model.safetensors": struct.pack("<Q", len(header)) + header + b"x",
    }
    folder.mkdir()
    for name, data in (files | more).items():
        (folder / name).write_bytes(data)
    return tree_hash(hash_folder(folder, Reporter(None), ("*",)))


@pytest.mark.parametrize(
    ("engine", "source", "told"),
    [
        ("rt", "file:///m.gguf", "rt loads tensorrt, and this is a GGUF file"),
        ("some", "hf://o/n@main/m-00001-of-00002.gguf", "a GGUF in parts is not converted"),
        ("llama-cpp", "hf://o/n@main", "this is a whole repository"),
    ],
)
def test_a_source_that_can_never_fit_is_a_mistake_of_the_file(
    tmp_path: Path, engine: str, source: str, told: str
) -> None:
    with pytest.raises(UserMistakes) as caught:
        load(config_file(tmp_path, engine, source))
    (problem,) = caught.value.problems
    assert told in problem.message
    assert problem.hint
    assert "freehold.yaml:1:" in problem.where


@pytest.mark.parametrize(
    ("engine", "source"),
    [
        ("llama-cpp", "hf://o/n@main?include=*Q4_K_M.gguf"),
        ("llama-cpp", "hf://o/n@main/m-00001-of-00002.gguf"),
        ("llama-cpp", "file:///models/m/"),
        ("some", "hf://o/n@main"),
        ("some", "file:///m.gguf"),
        ("rt", "file:///engine/"),
    ],
)
def test_a_source_that_may_fit_is_no_mistake(tmp_path: Path, engine: str, source: str) -> None:
    assert load(config_file(tmp_path, engine, source)).spec.models[0].source == source


def test_weights_that_cannot_be_converted_here_are_rejected_before_the_fetch(tmp_path: Path) -> None:
    config = load(config_file(tmp_path, "some", "https://host.invalid/m.gguf"))
    with pytest.raises(Permanent, match="some loads safetensors, and this is a GGUF file") as caught:
        fetch_weights(config)
    assert "freehold engine install some-cpu" in caught.value.hint
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("incoming/*"))


def test_a_gguf_is_converted_for_an_engine_that_loads_safetensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = install(tmp_path / "data", "some-cpu-1.0", "transformers", "gguf")
    gguf = write_small_gguf(tmp_path / "m.gguf")
    sha256 = hashlib.sha256(gguf.read_bytes()).hexdigest()
    config = load(config_file(tmp_path, "some", "file://m.gguf", sha256))
    first = fetched(config)
    assert first.is_dir()
    assert (first / "model.safetensors").read_bytes() == gguf.read_bytes()[::-1]
    assert "m: converting" in capsys.readouterr().err
    assert fetch_weights(config)["m"] == first
    assert (python.parent / "calls").read_text().split().count("convert") == 1


def test_the_weights_of_one_model_are_fetched_without_the_others(tmp_path: Path) -> None:
    gguf = write_small_gguf(tmp_path / "m.gguf")
    sha256 = hashlib.sha256(gguf.read_bytes()).hexdigest()
    path = config_file(tmp_path, "llama-cpp", "file://m.gguf", sha256)
    told = json.loads(path.read_text())
    told["models"] += [
        {**told["models"][0], "name": "huge", "source": "file://nowhere.gguf", "sha256": "1" * 64}
    ]
    path.write_text(json.dumps(told))
    with pytest.raises(Permanent, match="huge"):
        fetch_weights(load(path))
    assert set(fetch_weights(one_replica_of(load(path), "m"))) == {"m"}


def test_the_engines_own_environment_comes_first_and_one_that_cannot_convert_is_skipped(
    tmp_path: Path, engines: dict[str, Engine]
) -> None:
    env = os.environ
    assert converter_python(env, engines["some"]) is None
    install(tmp_path / "data", "aaa-1.0", "transformers")
    assert converter_python(env, engines["some"]) is None
    other = install(tmp_path / "data", "bbb-1.0", "transformers", "gguf")
    assert converter_python(env, engines["some"]) == other
    own = install(tmp_path / "data", "some-cpu-1.0", "transformers", "gguf")
    assert converter_python(env, engines["some"]) == own
    assert converter_python(env) == other


def test_a_folder_is_handed_to_an_engine_that_loads_it(tmp_path: Path) -> None:
    sha256 = safetensors(tmp_path / "llama")
    path = fetch_weights(load(config_file(tmp_path, "some", "file://llama/", sha256)))["m"]
    assert sorted(each.name for each in path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_a_folder_for_an_engine_that_loads_gguf_names_the_conversion(tmp_path: Path) -> None:
    sha256 = safetensors(tmp_path / "llama")
    with pytest.raises(Permanent, match="llama-cpp loads gguf, and this is safetensors") as caught:
        fetch_weights(load(config_file(tmp_path, "llama-cpp", "file://llama/", sha256)))
    assert "convert_hf_to_gguf.py" in caught.value.hint


def test_a_truncated_shard_is_named_before_an_engine_starts(tmp_path: Path) -> None:
    sha256 = safetensors(tmp_path / "llama", **{"model.safetensors": struct.pack("<Q", 2) + b"{}" + b"more"})
    with pytest.raises(Permanent, match=r"model\.safetensors is truncated or not a safetensors file"):
        fetch_weights(load(config_file(tmp_path, "some", "file://llama/", sha256)))


def test_pickles_reach_an_engine_only_when_named(tmp_path: Path) -> None:
    sha256 = safetensors(tmp_path / "llama", **{"pytorch_model.bin": b"pickle"})
    everything = "file://llama?include=*"
    with pytest.raises(Permanent, match=r"pytorch_model\.bin can run code"):
        fetch_weights(load(config_file(tmp_path, "some", everything, sha256)))
    named = "file://llama?include=*.bin,*"
    assert fetch_weights(load(config_file(tmp_path, "some", named, sha256)))["m"].is_dir()
    without = tree_hash(hash_folder(tmp_path / "llama", Reporter(None)))
    assert fetch_weights(load(config_file(tmp_path, "some", "file://llama/", without)))["m"].is_dir()


def test_a_folder_with_one_gguf_is_the_file_for_llama_cpp(tmp_path: Path) -> None:
    (tmp_path / "q4").mkdir()
    write_small_gguf(tmp_path / "q4" / "m.gguf")
    sha256 = tree_hash(hash_folder(tmp_path / "q4", Reporter(None)))
    path = fetch_weights(load(config_file(tmp_path, "llama-cpp", "file://q4/", sha256)))["m"]
    assert (path.name, path.is_file()) == ("m.gguf", True)
