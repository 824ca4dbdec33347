"""The header of a GGUF file: the real model's numbers, its exact size, and files that are cut short or none."""

import struct
from pathlib import Path

import pytest

from freehold.core.problems import Problem
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.replica.memory import weights_bytes
from freehold.weights.gguf_header import shape_from_gguf


def problem(path: Path) -> Problem:
    found = shape_from_gguf(path)
    assert isinstance(found, tuple), found
    return found[0]


def test_the_real_model(weights_path: Path):
    shape = shape_from_gguf(weights_path)
    assert isinstance(shape, ModelShape), shape
    assert (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_dim) == (30, 576, 9, 3, 64)
    assert (shape.vocab, shape.context, shape.family, shape.quant) == (49152, 8192, "dense", "gguf")
    assert shape.params_total == 134_515_008, "published: 135M"
    assert shape.params_embedding == 49152 * 576, "head and embeddings are one matrix"


def test_its_weights_are_all_of_the_file_but_the_header(weights_path: Path):
    shape = shape_from_gguf(weights_path)
    assert isinstance(shape, ModelShape), shape
    assert shape.weights_bytes == weights_bytes(shape, "gguf")
    header = weights_path.stat().st_size - (shape.weights_bytes or 0)
    assert 0 < header < 2_000_000
    assert shape.bits_per_weight == pytest.approx((shape.weights_bytes or 0) * 8 / 134_515_008)


@pytest.mark.parametrize("kept", [0, 3, 100, 200_000, 3_000_000])
def test_a_file_that_is_cut_short(weights_path: Path, tmp_path: Path, kept: int):
    cut = tmp_path / "cut.gguf"
    with weights_path.open("rb") as file:
        cut.write_bytes(file.read(kept))
    found = problem(cut)
    assert "not a GGUF file" in found.message
    assert "cut short" in found.hint


def test_a_file_that_is_none_or_missing(tmp_path: Path):
    other = tmp_path / "text"
    other.write_text("hello, this is no model at all")
    assert "does not begin" in problem(other).message
    assert "cannot be read" in problem(tmp_path / "absent").message
    assert "cannot be read" in problem(tmp_path).message


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _file(pairs: dict[str, str | int], *tensors: tuple[str, int, int]) -> bytes:
    """Write a GGUF file of whole numbers and texts with tensors of (name, elements, format), without their data."""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    for key, value in pairs.items():
        out += _string(key)
        out += (
            struct.pack("<I", 8) + _string(value) if isinstance(value, str) else struct.pack("<II", 4, value)
        )
    for name, elements, kind in tensors:
        out += _string(name) + struct.pack("<IQIQ", 1, elements, kind, 0)
    return out


MIXTURE: dict[str, str | int] = {
    "general.architecture": "x",
    "x.block_count": 2,
    "x.embedding_length": 64,
    "x.attention.head_count": 4,
    "x.expert_count": 8,
    "x.expert_used_count": 2,
    "x.vocab_size": 10,
}


def test_experts_are_told_from_the_rest(tmp_path: Path):
    path = tmp_path / "moe.gguf"
    path.write_bytes(
        _file(MIXTURE, ("blk.0.ffn_up_exps.weight", 800, 0), ("blk.0.attn_q.weight", 200, 0)) + bytes(5000)
    )
    shape = shape_from_gguf(path)
    assert isinstance(shape, ModelShape), shape
    assert (shape.params_total, shape.params_routed_experts, shape.params_active) == (1000, 800, 400)
    assert (shape.weights_bytes, shape.family) == (4000, "moe")


def test_one_part_of_several_and_a_header_that_says_too_little(tmp_path: Path):
    path = tmp_path / "part.gguf"
    path.write_bytes(_file({**MIXTURE, "split.count": 3}) + bytes(32))
    assert "one of 3 parts" in problem(path).message
    path.write_bytes(_file({"general.architecture": "clip"}) + bytes(32))
    found = shape_from_gguf(path)
    assert isinstance(found, tuple)
    assert len(found) == 3


def test_a_count_that_cannot_be_is_not_waited_for(tmp_path: Path):
    path = tmp_path / "huge.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60))
    assert "count" in problem(path).message
    path.write_bytes(_file(MIXTURE, ("t", 32, 99)))
    assert "unknown format 99" in problem(path).message
