import json
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.formats import Format
from freehold.core.problems import Problem
from freehold.weights.recognise import recognise, tensor_names

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def shard(names: list[str], *, cut_bytes: int = 0) -> bytes:
    rows = {
        name: {"dtype": "BF16", "shape": [4], "data_offsets": [8 * n, 8 * n + 8]}
        for n, name in enumerate(names)
    }
    header = json.dumps({"__metadata__": {"format": "pt"}} | rows).encode()
    whole = struct.pack("<Q", len(header)) + header + bytes(8 * len(names))
    return whole[: len(whole) - cut_bytes]


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def whole() -> dict[str, bytes]:
    index = {
        "weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}
    }
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-1.safetensors": shard(["a", "b"]),
        "model-2.safetensors": shard(["c"]),
    }


def said(path: Path, *, pickles_allowed: bool = False) -> list[str]:
    return [str(problem) for problem in recognise(path, pickles_allowed=pickles_allowed).problems]


def test_a_whole_folder_of_safetensors(tmp_path: Path) -> None:
    found = recognise(put(tmp_path, whole()))
    assert (found.format, found.path, found.problems) == (Format.SAFETENSORS, tmp_path, ())


def test_a_single_file_needs_no_index(tmp_path: Path) -> None:
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.model": b"x",
        "model.safetensors": shard(["a"]),
    }
    assert said(put(tmp_path, files)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"config.json": None}, "config.json: is missing"),
        ({"config.json": b"{"}, "config.json: is not JSON"),
        ({"config.json": b"[]"}, "config.json: is not a JSON object"),
        ({"config.json": b"{}"}, "names no architecture"),
        ({"tokenizer.json": None}, "has no tokenizer"),
        ({"model-2.safetensors": None}, "the shard model-2.safetensors is missing"),
        (
            {"model-2.safetensors": shard(["c"], cut_bytes=3)},
            "model-2.safetensors: is truncated or not a safetensors file",
        ),
        (
            {"model-2.safetensors": shard(["c"]) + b"x"},
            "model-2.safetensors: is truncated or not a safetensors file",
        ),
        ({"model-2.safetensors": b""}, "model-2.safetensors: is truncated or not a safetensors file"),
        (
            {"model-2.safetensors": b"\xff" * 100},
            "model-2.safetensors: is truncated or not a safetensors file",
        ),
        ({"model-2.safetensors": struct.pack("<Q", 4) + b"nope"}, "its header is damaged"),
        ({"model-2.safetensors": shard(["d"])}, "lacks the tensor c"),
        ({"model.safetensors.index.json": b"{}"}, "has no weight_map"),
        ({"model.safetensors.index.json": b"nope"}, "index.json: is not JSON"),
        ({"pytorch_model.bin": b"x"}, "pytorch_model.bin can run code"),
        ({"sub/optimizer.pt": b"x"}, "sub/optimizer.pt can run code"),
    ],
)
def test_what_an_engine_would_stumble_over_is_told(
    tmp_path: Path, change: dict[str, bytes | None], told: str
) -> None:
    files = {path: data for path, data in (whole() | change).items() if data is not None}
    (problem,) = said(put(tmp_path, files))
    assert told in problem


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    files = whole() | {"config.json": b"{", "model-1.safetensors": b"", "x.bin": b""}
    del files["tokenizer.json"]
    assert len(said(put(tmp_path, files))) == 4


def test_pickles_that_were_asked_for_by_name(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"config.json": json.dumps(CONFIG).encode(), "tokenizer.json": b"{}", "pytorch_model.bin": b"x"},
    )
    assert "can run code" in said(tmp_path)[0]
    assert recognise(tmp_path).format is None
    assert said(tmp_path, pickles_allowed=True) == []


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["m.gguf"], "m.gguf"),
        (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "README.md"], "m-00001-of-00002.gguf"),
    ],
)
def test_a_folder_with_one_gguf_stands_for_the_file(tmp_path: Path, files: list[str], name: str) -> None:
    found = recognise(put(tmp_path, dict.fromkeys(files, b"GGUF")))
    assert (found.format, found.path, found.problems) == (Format.GGUF, tmp_path / name, ())


def test_a_folder_with_several_models_says_that_one_is_to_be_named(tmp_path: Path) -> None:
    assert "2 GGUF models" in said(put(tmp_path, {"m.Q4.gguf": b"GGUF", "m.Q8.gguf": b"GGUF"}))[0]


def test_a_tensorrt_engine(tmp_path: Path) -> None:
    config = {"version": "1.2.0", "build_config": {}, "pretrained_config": {}}
    found = recognise(put(tmp_path, {"config.json": json.dumps(config).encode(), "rank0.engine": b"x"}))
    assert (found.format, found.problems) == (Format.TENSORRT, ())


def test_files(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"a": b"GGUF...", "b.gguf": b"other", "model.safetensors": shard(["a"]), "empty/README.md": b"x"},
    )
    assert recognise(tmp_path / "a").format is Format.GGUF
    assert recognise(tmp_path / "b.gguf").format is None
    assert "whole folder" in said(tmp_path / "model.safetensors")[0]
    assert "no weights" in said(tmp_path / "empty")[0]


def test_names_of_tensors(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(shard(["a", "b"]))
    assert tensor_names(tmp_path / "m") == {"a", "b"}
    (tmp_path / "m").write_bytes(shard([]))
    assert not isinstance(tensor_names(tmp_path / "m"), Problem)


@given(
    st.binary(max_size=200),
    st.text(max_size=100) | st.sampled_from(['{"a": {"data_offsets": [0, 1e999]}}', '{"a": 1}', "[]"]),
)
def test_no_file_however_damaged_is_more_than_a_problem(data: bytes, header: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        for content in (data, struct.pack("<Q", len(header.encode())) + header.encode() + data):
            path.write_bytes(content)
            assert isinstance(tensor_names(path), Problem | set)
            Path(folder, "config.json").write_bytes(data)
            Path(folder, "m.safetensors.index.json").write_bytes(header.encode())
            assert recognise(Path(folder)).format is Format.SAFETENSORS
