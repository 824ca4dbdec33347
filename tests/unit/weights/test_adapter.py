import json
from pathlib import Path

import pytest

from contract.weights.small_gguf import write_small_gguf
from freehold.core.formats import Format
from freehold.weights.adapter import CONFIG, MATRICES, recognise_adapter
from lora_adapter import write_adapter
from lora_folder import write_adapter_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_adapter_folder(tmp_path / "tone", strength=1, rank=12)


def said(path: Path) -> str:
    found = recognise_adapter(path)
    assert found.problems
    return " | ".join(f"{problem.message}; {problem.hint}" for problem in found.problems)


def test_a_folder_of_pefts_tells_its_rank(folder: Path) -> None:
    found = recognise_adapter(folder)
    assert (found.format, found.rank, found.problems) == (Format.SAFETENSORS, 12, ())


def test_a_gguf_file_is_one_where_its_header_says_so(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "tone.gguf", strength=1)
    assert recognise_adapter(path).format is Format.GGUF


def test_a_model_is_no_adapter(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_small_gguf(path)
    assert "not a LoRA adapter" in said(path)


def test_a_cut_file_and_no_gguf_at_all(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "tone.gguf", strength=1)
    path.write_bytes(path.read_bytes()[:-100])
    assert "not a GGUF file" in said(path)
    path.write_bytes(b"PK\3\4")
    assert "a folder with adapter_config.json" in said(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING"),
        ({"r": 0}, "rank"),
        ({"r": True}, "rank"),
        ({"use_dora": True}, "use_dora"),
    ],
)
def test_what_no_engine_loads_is_told(folder: Path, change: dict[str, object], words: str) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | change))
    assert words in said(folder)


@pytest.mark.parametrize("data", [b"[", b"[]", b"[" * 100_000])
def test_a_broken_config(folder: Path, data: bytes) -> None:
    (folder / CONFIG).write_bytes(data)
    assert "JSON" in said(folder)


def test_missing_files_and_pickles(folder: Path) -> None:
    (folder / MATRICES).rename(folder / "adapter_model.bin")
    assert "safe_serialization" in said(folder)
    (folder / CONFIG).unlink()
    assert "this is not an adapter" in said(folder)


def test_cut_and_foreign_matrices(folder: Path) -> None:
    data = (folder / MATRICES).read_bytes()
    (folder / MATRICES).write_bytes(data[:-8])
    assert "not a safetensors file" in said(folder)
    (folder / MATRICES).write_bytes(data.replace(b".lora_A.", b".other_."))
    assert "no matrices" in said(folder)
