"""The GPUs of a node: a program that speaks as nvidia-smi does is asked, and what the user hides is not given to anybody."""

import json
import os
import sys
from pathlib import Path
from time import monotonic

import pytest

from fake_smi import fake_smi, instance, uuid
from freehold.bench.contenders import Weights, contenders_of, entries_of, gpu_mistakes, models_of
from freehold.cli.terminal.config import load_config
from freehold.core.events import GpuId
from freehold.core.problems import Problem
from freehold.cost.intake.flags import FlagReader
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.decisions.plan import ReplicaPlan
from freehold.stack.checks.check import CheckResult
from freehold.stack.checks.gpus import gpu_checks
from freehold.stack.config import Config
from freehold.stack.node_gpus import node_gpus
from freehold.stack.resolve import NO_REPLICA, Resolved, resolve_config


def env(folder: Path, **more: str) -> dict[str, str]:
    return {"PATH": f"{folder}:{os.environ['PATH']}", **more}


@pytest.fixture
def eight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = fake_smi(tmp_path / "bin", 8)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


def written(folder: Path, *models: str) -> Path:
    """Write a freehold.yaml of models of an engine that is there by its program's name."""
    path = folder / "freehold.yaml"
    rows = [f"  - {{{model}, sha256: '{'ab' * 32}', source: 'file://w/'}}\n" for model in models]
    path.write_text("version: 1\nmodels:\n" + "".join(rows))
    return path


def vllm(name: str, options: str = "", more: str = "") -> str:
    return f"name: {name}, engine: vllm, engine_options: {{program: '{sys.executable}'{options}}}{more}"


def resolved(config: Config, folder: Path) -> Resolved:
    found = resolve_config(config, StateDir(folder / "state"))
    assert isinstance(found, Resolved)
    return found


def replicas(config: Config, folder: Path) -> list[ReplicaPlan]:
    return resolved(config, folder).replicas


def problems_of(config: Config, folder: Path) -> list[Problem]:
    found = resolve_config(config, StateDir(folder / "state"))
    assert isinstance(found, list)
    return found


def test_every_gpu_with_number_uuid_and_kind(eight: Path) -> None:
    found = node_gpus(os.environ)
    assert found.gpus is not None
    assert [each.id for each in found.gpus] == [GpuId(index=n, uuid=uuid(n)) for n in range(8)]
    assert {each.kind for each in found.gpus} == {"NVIDIA H100 80GB HBM3, 81559 MiB"}


def test_a_divided_gpu_is_its_instances(tmp_path: Path) -> None:
    found = node_gpus(env(fake_smi(tmp_path / "bin", 2, divided=0)))
    assert [each.id.uuid for each in found.gpus or ()] == [instance(0, 0), instance(0, 1), uuid(1)]
    only = node_gpus(env(tmp_path / "bin", CUDA_VISIBLE_DEVICES=instance(0, 1)))
    assert [each.id.uuid for each in only.gpus or ()] == [instance(0, 1)]
    assert len(only.hidden) == 2


def test_a_lost_gpu_hides_no_other(tmp_path: Path) -> None:
    found = node_gpus(env(fake_smi(tmp_path / "bin", 3, exit_code=15)))
    assert len(found.gpus or ()) == 3


def test_what_cannot_be_read_is_unknown_with_a_reason(tmp_path: Path) -> None:
    assert node_gpus({"PATH": str(tmp_path)}).why == "nvidia-smi is not installed here"
    none = node_gpus(env(fake_smi(tmp_path / "none", 0, exit_code=9)))
    assert (none.gpus, none.why) == (None, "nvidia-smi reported no GPU (exit code 9)")


def test_an_nvidia_smi_that_hangs_is_abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake_smi(tmp_path / "bin", 8, hangs=True)), prepend=":")
    began = monotonic()
    found = node_gpus(os.environ, wait_s=0.2)
    assert (found.gpus, found.why) == (None, "nvidia-smi did not answer within 0.2 s")
    assert monotonic() - began < 5


def test_replicas_of_a_file_get_their_gpus_and_the_doctor_lists_them(eight: Path, tmp_path: Path) -> None:
    path = written(
        tmp_path,
        vllm("m", ", tensor_parallel_size: 2", ", replicas: 2"),
        vllm("n", more=", gpus: [7]"),
        vllm("o", more=", gpus: 0"),
        "name: l, engine: llama-cpp",
    )
    config = load_config(path, overrides={})
    plans = replicas(config, tmp_path)
    assert {plan.id: [gpu.index for gpu in plan.gpus or ()] for plan in plans} == {
        "m-0": [0, 1],
        "m-1": [2, 3],
        "n-0": [7],
        "o-0": [],
        "l-0": [4, 5, 6],
    }
    (check,) = gpu_checks(config, StateDir(tmp_path / "state"))
    assert check.found is CheckResult.GOOD
    assert check.said == "8 available; m-0: 0, 1; m-1: 2, 3; n-0: 7; o-0: none; l-0: 4, 5, 6"


def test_too_few_gpus_are_reported_at_their_line(
    eight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{uuid(0)},2")
    path = written(
        tmp_path, vllm("m", ", tensor_parallel_size: 2", ", replicas: 2"), vllm("n", more=", gpus: [5]")
    )
    config = load_config(path, overrides={})
    problems = problems_of(config, tmp_path)
    assert [problem.where.removeprefix(str(path)).split(":")[1] for problem in problems] == ["4", "3"]
    assert "gpus names 5: CUDA_VISIBLE_DEVICES hides it" in problems[0].message
    assert "that is 4 in all, and 2 available (CUDA_VISIBLE_DEVICES hides 6)" in problems[1].message
    assert [check.found for check in gpu_checks(config, StateDir(tmp_path / "state"))] == [
        CheckResult.PROBLEM,
        CheckResult.PROBLEM,
    ]


def test_without_nvidia_smi_the_gpus_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(written(tmp_path, vllm("m")), overrides={})
    monkeypatch.setenv("PATH", str(tmp_path))
    (check,) = gpu_checks(config, StateDir(tmp_path / "state"))
    assert check.found is CheckResult.UNKNOWN
    assert "each replica sees all of them" in check.said
    assert replicas(config, tmp_path)[0].gpus is None


def test_nvidia_smi_does_not_run_if_no_replica_takes_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(fake_smi(tmp_path / "bin", 8, hangs=True)), prepend=":")
    config = load_config(
        written(tmp_path, "name: l, engine: llama-cpp, engine_options: {n_gpu_layers: 0}"),
        overrides={},
    )
    assert resolved(config, tmp_path).blueprint.node == NO_REPLICA
    assert list(gpu_checks(config, StateDir(tmp_path / "state"))) == []


def test_a_folder_of_prebuilt_engines_takes_the_gpus_it_was_built_for(eight: Path, tmp_path: Path) -> None:
    folder = tmp_path / "w"
    folder.mkdir()
    built = {"build_config": {}, "pretrained_config": {"mapping": {"world_size": 4}}}
    (folder / "config.json").write_text(json.dumps(built))
    model = (
        f"name: t, engine: tensorrt-llm, engine_options: {{program: '{sys.executable}', backend: tensorrt}}"
    )
    config = load_config(written(tmp_path, f"{model}, replicas: 2"), overrides={})
    plans = replicas(config, tmp_path)
    assert [plan.gpus_shared for plan in plans] == [False, False]
    assert [len(plan.gpus or ()) for plan in plans] == [4, 4]
    config = load_config(written(tmp_path, f"{model}, replicas: 3"), overrides={})
    (problem,) = problems_of(config, tmp_path)
    assert "t: 3 replicas take 4 GPUs each" in problem.message


def test_in_a_bench_each_candidate_has_the_node_to_itself(eight: Path, tmp_path: Path) -> None:
    path = written(
        tmp_path, vllm("m", ", tensor_parallel_size: 4", ", gpus: 2"), vllm("n", more=", gpus: [3, 5]")
    )
    config = load_config(path, overrides={})
    node, reader = node_gpus(os.environ), FlagReader()
    models, settings = models_of(config, (), reader), ("vllm.tensor_parallel_size=2,16",)
    entries = entries_of(models, reader, on=("vllm", "llama-cpp"), settings=settings)
    assert not reader.problems
    weights = {(entry.model.name, entry.engine.name): Weights(path=tmp_path) for entry in entries}
    small = [entry for entry in entries if entry.options.get("tensor_parallel_size") != 16]
    made = contenders_of(small, weights, node=node)
    # A number is the model's own engine's, a list is every engine's.
    assert {each.candidate.id: [gpu.index for gpu in each.candidate.gpus or ()] for each in made} == {
        "m vllm tensor_parallel_size=2": [0, 1],
        "m llama-cpp": [0, 1, 2, 3, 4, 5, 6, 7],
        "n vllm tensor_parallel_size=2": [3, 5],
        "n llama-cpp": [3, 5],
    }
    assert [each.plan.gpus for each in made] == [each.candidate.gpus for each in made]
    (problem,) = gpu_mistakes(entries, node)
    assert problem.where == "n vllm tensor_parallel_size=16"
    assert "1 replica takes 16 GPUs, and gpus names 2" in problem.message
    assert all(each.candidate.gpus is None for each in contenders_of(small, weights))
