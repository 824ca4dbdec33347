"""A folder of TensorRT engines and a node: what fits, what does not and why, and what nobody knows."""

import json

from freehold.engines.base import NodeFacts
from freehold.engines.shared.tensorrt_record import (
    EngineRecord,
    fits,
    is_engine_folder,
    note,
    read_record,
    unknowns,
)

CONFIG = json.dumps(
    {
        "version": "1.2.1",
        "pretrained_config": {"architecture": "LlamaForCausalLM", "mapping": {"world_size": 2, "tp_size": 2}},
        "build_config": {
            "max_batch_size": 8,
            "max_seq_len": 4096,
            "max_num_tokens": 8192,
            "max_beam_width": 1,
        },
    }
).encode()
NODE = NodeFacts(architectures=("9.0", "9.0"), driver="580.95", cuda="13.0", engine_version="1.2.1")


def record() -> EngineRecord:
    return read_record(CONFIG, note(CONFIG, NODE).encode())


def test_a_folder_with_its_record_fits_the_node_that_noted_it() -> None:
    assert record() == EngineRecord(
        version="1.2.1",
        architecture="9.0",
        driver="580.95",
        cuda="13.0",
        gpus=2,
        limits=(
            ("max_batch_size", 8),
            ("max_num_tokens", 8192),
            ("max_seq_len", 4096),
            ("max_beam_width", 1),
        ),
    )
    assert fits(record(), NODE, options={"max_batch_size": 8}) == []
    assert unknowns(record(), NODE) == []


def told(node: NodeFacts, **options: int) -> list[str]:
    return [f"{problem.where}: {problem.message}" for problem in fits(record(), node, options=options)]


def test_each_mismatch_is_told_and_all_at_once() -> None:
    other = NodeFacts(architectures=("8.9",), driver="535.1", cuda="12.2", engine_version="1.3.0")
    assert told(other, max_batch_size=16) == [
        "TensorRT-LLM: the engines were built by TensorRT-LLM 1.2.1, here is 1.3.0",
        "GPU architecture: the engines were built for compute capability 9.0, this node's GPUs have 8.9",
        "driver: the engines ran with CUDA 13.0 (driver 580.95), this node's driver 535.1 has at most CUDA 12.2",
        "GPUs: the engines were built for 2 GPUs, this node has 1",
        "max_batch_size: max_batch_size is 16, but the engines were built for at most 8",
    ]
    assert all(problem.hint for problem in fits(record(), other, options={"max_batch_size": 16}))


def test_a_newer_driver_or_an_older_one_of_the_same_cuda_is_no_problem() -> None:
    newer = NodeFacts(architectures=("9.0",) * 8, driver="610.1", cuda="14.1", engine_version="1.2.1")
    assert told(newer) == []
    same = NodeFacts(architectures=("9.0",) * 2, driver="570.1", cuda="13.0", engine_version="1.2.1")
    assert told(same) == []


def test_one_gpu_of_another_kind_among_them_is_a_problem() -> None:
    mixed = NodeFacts(architectures=("9.0", "8.0"), cuda="13.0", engine_version="1.2.1")
    assert told(mixed) == [
        "GPU architecture: the engines were built for compute capability 9.0, this node's GPUs have 8.0"
    ]


def test_what_is_not_known_is_no_reason_to_refuse_and_is_said() -> None:
    assert fits(record(), NodeFacts(), options={}) == []
    assert unknowns(record(), NodeFacts()) == [
        "TensorRT-LLM version: not known of this node",
        "GPU architecture: not known of this node",
        "CUDA of the driver: not known of this node",
        "number of GPUs: not known of this node",
    ]
    bare = read_record(CONFIG)
    assert bare.version == "1.2.1"
    assert unknowns(bare, NODE) == [
        "GPU architecture: not known of the record",
        "CUDA of the driver: not known of the record",
    ]


def test_a_node_with_two_kinds_of_gpu_notes_none() -> None:
    kept = json.loads(note(CONFIG, NodeFacts(architectures=("9.0", "8.0"))))
    assert kept["architecture"] == ""


def test_foreign_bytes_say_nothing() -> None:
    for text in (b"", b"[]", b"\xff", b'{"build_config": 3, "version": 4}', b"[" * 5000):
        assert read_record(text, text) == EngineRecord()
    assert is_engine_folder(CONFIG)
    assert not is_engine_folder(b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
