"""A bench's results as load tests of `size` and `plan`, and the names that NVML gives to GPUs of the catalog."""

from pathlib import Path

import msgspec
import pytest

from freehold.bench.analysis.figures import Figures, SloBounds
from freehold.bench.analysis.load import Load
from freehold.bench.analysis.results import (
    VERSION,
    BenchFile,
    Candidate,
    Conditions,
    GpuFact,
    Machine,
    Result,
)
from freehold.bench.load_tests import catalog_id, rows_from_bench
from freehold.bench.results_file import write
from freehold.core.problems import Problem
from freehold.sizing.replica.answer import MeasuredSpeed

GPUS = (
    "h100-sxm",
    "h100-pcie",
    "h100-nvl",
    "h200-sxm",
    "a100-sxm-80gb",
    "a100-pcie-80gb",
    "l40s",
    "l4",
    "rtx-4090",
)
LOAD = Load(kind="concurrency", value=32)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200-sxm"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GB300", None),
        ("", None),
    ],
)
def test_a_gpu_by_its_name(name: str, found: str | None) -> None:
    assert catalog_id(name, GPUS) == found


def bench(*, gpu: str, goodput: float = 1000.0, gpus: int = 1, **candidate: object) -> BenchFile:
    made = Candidate(id="c", model="m", engine="vllm", weights_format="safetensors")
    made = msgspec.structs.replace(made, **candidate)
    figures = Figures(window_s=10, requests=1, whole=1, refused=0, goodput_tokens_per_s=goodput)
    return BenchFile(
        version=VERSION,
        freehold="0",
        made_at="2026-11-27T00:00:00Z",
        machine=Machine(cpu="some", gpus=(GpuFact(name=gpu),) * gpus if gpu else ()),
        conditions=Conditions(
            shape="", loads=(LOAD,), slo=SloBounds(ttft_s=1, itl_s=1), runs=1, seed=1, warm_up_s=0, duration_s=10, timeout_s=1
        ),
        candidates=(made,),
        results=(Result(candidate="c", through="direct", load=LOAD, run=0, figures=figures),),
    )  # fmt: skip


def rows(made: BenchFile, folder: Path) -> list[MeasuredSpeed] | list[Problem]:
    path = folder / "r.json"
    write(made, path)
    return rows_from_bench(path, GPUS)


def test_a_row_of_a_bench(tmp_path: Path):
    (row,) = rows(
        bench(gpu="NVIDIA H200", gpus=2, options={"tensor_parallel_size": 2, "quantization": "fp8"}), tmp_path
    )
    assert row == MeasuredSpeed(
        engine="vllm",
        gpu="h200-sxm",
        gpus=2,
        quant="fp8",
        output_tokens_per_s=1000.0,
        concurrency=32,
        source="freehold bench of m, 2026-11-27T00:00:00Z: c at 32 callers",
    )


@pytest.mark.parametrize("engine", ["sglang", "tensorrt-llm"])
def test_each_engine_has_its_own_words_for_the_gpus_that_it_is_spread_over(engine: str, tmp_path: Path):
    (row,) = rows(
        bench(gpu="NVIDIA H200", gpus=4, engine=engine, options={"tp_size": 2, "pp_size": 2}), tmp_path
    )
    assert isinstance(row, MeasuredSpeed)
    assert row.gpus == 4


def test_llama_cpp_takes_every_gpu_and_a_gguf_is_one(tmp_path: Path):
    (row,) = rows(bench(gpu="NVIDIA L4", gpus=4, engine="llama-cpp", weights_format="gguf"), tmp_path)
    assert isinstance(row, MeasuredSpeed)
    assert (row.gpus, row.quant) == (4, "gguf")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (bench(gpu=""), "no GPU (some)"),
        (bench(gpu="Voodoo 2"), "does not know the GPU 'Voodoo 2'"),
        (bench(gpu="NVIDIA L4", goodput=0), "no engine kept the SLO"),
        (bench(gpu="NVIDIA L4", engine="transformers"), "no engine kept the SLO"),
    ],
)
def test_what_gives_no_row(made: BenchFile, words: str, tmp_path: Path) -> None:
    (problem,) = rows(made, tmp_path)
    assert isinstance(problem, Problem)
    assert problem.where == "--bench"
    assert words in problem.message


def test_no_results_file(tmp_path: Path):
    (problem,) = rows_from_bench(tmp_path / "none", GPUS)
    assert isinstance(problem, Problem)
    assert "cannot be read" in problem.message
