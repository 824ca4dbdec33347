"""TensorRT engines and this node, with a folder, a record, an `nvidia-smi` and an environment that are really there."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from freehold.cli.main import cli
from freehold.cli.terminal.config import load_config
from freehold.engines.base import NodeFacts
from freehold.stack.checks.check import CheckResult
from freehold.stack.checks.machine import _engine_folders
from freehold.stack.node_facts import installed_version, read_node_facts
from freehold.stack.prebuilt_engines import engine_fits, local_folders, record_path

SMI = """#!/bin/sh
case "$1" in
  --query-gpu=compute_cap) printf '%s\\n' ARCHITECTURES ;;
  -q) printf 'Timestamp : now\\nDriver Version                            : 580.95.05\\nCUDA Version                              : 13.0\\n' ;;
esac
"""
BUILT = {
    "version": "1.2.1",
    "pretrained_config": {"mapping": {"world_size": 1}},
    "build_config": {"max_batch_size": 8},
}


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the `bin` of an environment with TensorRT-LLM 1.2.1, first in PATH."""
    folder = tmp_path / "env" / "bin"
    folder.mkdir(parents=True)
    (tmp_path / "env/lib/python3.12/site-packages/tensorrt_llm-1.2.1.dist-info").mkdir(parents=True)
    put(folder / "trtllm-serve", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def put(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def gpus(bin_folder: Path, *architectures: str) -> None:
    put(bin_folder / "nvidia-smi", SMI.replace("ARCHITECTURES", " ".join(architectures)))


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    folder = tmp_path / "llama-engines"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(BUILT))
    return folder


def config_file(tmp_path: Path, options: str = "{backend: tensorrt}") -> Path:
    path = tmp_path / "freehold.yaml"
    path.write_text(
        "version: 1\nmodels:\n  - name: llama\n    source: file://llama-engines\n"
        f"    sha256: '{'ab' * 32}'\n    engine: tensorrt-llm\n    engine_options: {options}\n"
    )
    return path


def test_the_output_of_nvidia_smi_is_read(bin_folder: Path) -> None:
    gpus(bin_folder, "9.0", "9.0")
    facts = read_node_facts({}, program="trtllm-serve", distribution="tensorrt_llm")
    assert facts == NodeFacts(
        architectures=("9.0", "9.0"), driver="580.95.05", cuda="13.0", engine_version="1.2.1"
    )


def test_a_node_without_a_gpu_is_unknown(bin_folder: Path) -> None:
    put(bin_folder / "nvidia-smi", "#!/bin/sh\necho 'NVIDIA-SMI has failed' ; exit 9\n")
    facts = read_node_facts({}, program="trtllm-serve", distribution="tensorrt_llm")
    assert facts == NodeFacts(engine_version="1.2.1")


def test_the_version_is_that_of_the_named_program(bin_folder: Path, tmp_path: Path) -> None:
    assert installed_version(str(tmp_path / "nowhere"), "tensorrt_llm") == ""
    assert installed_version(str(bin_folder / "trtllm-serve"), "other") == ""


def test_recorded_here_they_fit_here_and_not_on_another_gpu(
    bin_folder: Path, engines: Path, tmp_path: Path
) -> None:
    gpus(bin_folder, "9.0")
    done = CliRunner().invoke(cli, ["model", "record", str(engines), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["architecture"] == "9.0"
    assert json.loads(record_path(engines).read_text())["driver"] == "580.95.05"
    config = load_config(config_file(tmp_path), overrides={})
    (check,) = _engine_folders(config)
    assert check.found is CheckResult.GOOD
    gpus(bin_folder, "8.9")
    (check,) = _engine_folders(config)
    assert check.found is CheckResult.PROBLEM
    assert "compute capability 9.0, this node's GPUs have 8.9" in check.said
    assert "build them anew" in check.fix


def test_a_start_with_engines_for_another_gpu_is_refused_at_their_line(
    bin_folder: Path, engines: Path, tmp_path: Path
) -> None:
    gpus(bin_folder, "8.9")
    record_path(engines).write_text(json.dumps({"architecture": "9.0"}))
    config = load_config(config_file(tmp_path, "{max_batch_size: 16}"), overrides={})
    (fit,) = engine_fits(config, {"llama": engines})
    assert [problem.where for problem in fit.problems] == [f"{tmp_path}/freehold.yaml:4:5"] * 3
    assert [problem.hint.split(" ")[0] for problem in fit.problems] == ["build", "lower", "write"]


def test_without_a_record_the_rest_is_compared_and_the_gap_is_reported(
    bin_folder: Path, engines: Path, tmp_path: Path
) -> None:
    gpus(bin_folder, "9.0")
    (check,) = _engine_folders(load_config(config_file(tmp_path), overrides={}))
    assert check.found is CheckResult.UNKNOWN
    assert (
        check.said
        == "llama: GPU architecture: not known of the record; CUDA of the driver: not known of the record"
    )
    assert "freehold model record" in check.fix


def test_a_hugging_face_folder_is_left_alone(bin_folder: Path, engines: Path, tmp_path: Path) -> None:
    (engines / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    config = load_config(config_file(tmp_path), overrides={})
    assert list(engine_fits(config, local_folders(config))) == []


def test_a_record_needs_engines_and_a_gpu(bin_folder: Path, engines: Path, tmp_path: Path) -> None:
    put(bin_folder / "nvidia-smi", "#!/bin/sh\nexit 9\n")
    done = CliRunner().invoke(cli, ["model", "record", str(engines)])
    assert done.exit_code != 0
    (engines / "config.json").write_text("{}")
    other = CliRunner().invoke(cli, ["model", "record", str(engines)])
    assert other.exit_code != 0
    assert not record_path(engines).exists()
