"""Conversions as the store sees them: once, whole or not at all, with a converter that is a real child and misbehaves."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.weights.converter import write_converter
from contract.weights.small_gguf import write_small_gguf
from freehold.core.errors import FreeholdError, Permanent
from freehold.weights.blobs import RECORD, WeightsState
from freehold.weights.convert import Converted, to_gguf, to_safetensors
from freehold.weights.store import Store
from freehold.weights.transfer import DiskFull, FetchStage, Progress
from waiting import wait_until


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def python(tmp_path: Path) -> Path:
    return write_converter(tmp_path / "env" / "python")


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return write_small_gguf(tmp_path / "m.Q4_1.gguf")


@pytest.fixture
def convert(store: Store, python: Path, gguf: Path) -> Callable[..., Converted]:
    def run(mode: str = "well", **options: object) -> Converted:
        (python.parent / "mode").write_text(mode)
        return to_safetensors(store, gguf, python=python, **options)  # type: ignore[arg-type]  # what a test gives

    return run


def calls(python: Path) -> list[str]:
    return (python.parent / "calls").read_text().split()


def incoming(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "store" / "incoming").iterdir())


def test_a_conversion_is_an_artefact_with_a_hash_and_a_record(
    convert: Callable[..., Converted], gguf: Path, tmp_path: Path, store: Store
) -> None:
    seen: list[Progress] = []
    made = convert(on_progress=seen.append)
    assert made.path == tmp_path / "store" / "blobs" / made.sha256 / "m.Q4_1-safetensors"
    assert (made.path / "model.safetensors").read_bytes() == gguf.read_bytes()[::-1]
    assert not made.again
    record = json.loads((made.path.parent / RECORD).read_bytes())
    (origin,) = record["made"]
    source = hashlib.sha256(gguf.read_bytes()).hexdigest()
    assert origin["source_sha256"] == source
    assert origin["versions"] == [["gguf", "1"], ["transformers", "5.0"]]
    assert origin["options"] == [["dtype", "bfloat16"]]
    assert record["source"] == f"made from {source}"
    assert FetchStage.CONVERTING in {each.stage for each in seen}
    assert [line.state for line in store.list_models()] == [WeightsState.VERIFIED]
    assert incoming(tmp_path) == []


def test_the_same_is_made_once_and_looked_at_each_time(
    convert: Callable[..., Converted], python: Path
) -> None:
    first = convert()
    again = convert()
    assert (again.sha256, again.path, again.again) == (first.sha256, first.path, True)
    assert calls(python).count("convert") == 1
    weights = first.path / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"rot")
    mended = convert()
    assert (mended.sha256, mended.again) == (first.sha256, False)
    assert calls(python).count("convert") == 2


def test_another_version_converts_anew_and_the_same_bytes_are_one_blob(
    convert: Callable[..., Converted], python: Path, store: Store
) -> None:
    first = convert()
    (python.parent / "version").write_text("6.0")
    second = convert()
    assert (second.sha256, second.again) == (first.sha256, False)
    assert len(store.list_models()) == 1
    assert calls(python).count("convert") == 2
    assert convert().again
    (python.parent / "version").write_text("5.0")
    assert convert().again


@pytest.mark.parametrize(
    ("mode", "told", "hint"),
    [
        ("bare", "gguf is not installed", "freehold engine install"),
        ("killed", "memory ran out", "more memory"),
        ("silent", "cannot be converted", "hf://"),
        ("unknown", "architecture x is not supported", "hf://"),
        ("traceback", "TypeError: boom", "hf://"),
        ("full", "no room", "FREEHOLD_CACHE_DIR"),
    ],
)
def test_a_converter_that_fails_is_told_and_leaves_nothing(
    convert: Callable[..., Converted], tmp_path: Path, store: Store, mode: str, told: str, hint: str
) -> None:
    with pytest.raises(FreeholdError, match=told) as caught:
        convert(mode)
    assert hint in caught.value.hint
    assert isinstance(caught.value, DiskFull) is (mode == "full")
    assert store.list_models() == []
    assert not (tmp_path / "store" / "incoming").exists() or incoming(tmp_path) == []


def test_what_is_written_to_meanwhile_is_not_recorded_as_what_it_was(
    convert: Callable[..., Converted], gguf: Path, tmp_path: Path
) -> None:
    written: list[bytes] = []

    def write(progress: Progress) -> None:
        if progress.stage is FetchStage.CONVERTING and not written:
            written.append(gguf.read_bytes())
            gguf.write_bytes(written[0][:-1] + b"x")

    with pytest.raises(Permanent, match="written to while"):
        convert(on_progress=write)
    assert written
    assert incoming(tmp_path) == []


def test_words_of_libraries_are_no_answers(convert: Callable[..., Converted]) -> None:
    assert not convert("noise").again


def test_a_conversion_that_is_given_up_ends_its_child(
    convert: Callable[..., Converted], python: Path, tmp_path: Path
) -> None:
    class Enough(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.stage is FetchStage.CONVERTING and (python.parent / "pid").exists():
            raise Enough

    with pytest.raises(Enough):
        convert("hang", on_progress=stop)
    pid = int((python.parent / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert incoming(tmp_path) == []


@pytest.mark.parametrize("data", [b"GGUF", b"no gguf at all, but long enough to be read"])
def test_what_is_no_whole_gguf_is_refused_before_a_child_starts(
    convert: Callable[..., Converted], gguf: Path, python: Path, data: bytes
) -> None:
    gguf.write_bytes(data)
    with pytest.raises(Permanent, match="not a GGUF file"):
        convert()
    assert not (python.parent / "calls").exists()


CHILD = """
import sys
from pathlib import Path
from freehold.weights.convert import to_safetensors
from freehold.weights.store import Store
root, gguf, python = map(Path, sys.argv[1:])
made = to_safetensors(Store(root), gguf, python=python, on_progress=lambda progress: print(progress.stage, flush=True))
print(made.sha256, made.again)
"""


def test_of_two_processes_one_converts_and_the_other_waits(python: Path, gguf: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path / "store"), str(gguf), str(python)]
    (python.parent / "mode").write_text("hang")
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        wait_until((python.parent / "pid").exists)
        (python.parent / "mode").write_text("well")
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        wait_until(
            lambda: second.stdout is not None and second.stdout.readline().strip() == FetchStage.WAITING
        )
    finally:
        os.kill(int((python.parent / "pid").read_text()), 9)
        first.communicate(timeout=20)
    sha256, again = second.communicate(timeout=20)[0].split()[-2:]
    assert (len(sha256), again) == (64, "False"), "the first was killed, so the second made it"
    assert calls(python).count("convert") == 2


def test_the_way_back_with_the_users_own_script(store: Store, python: Path, tmp_path: Path) -> None:
    folder, script = tmp_path / "llama", tmp_path / "llama.cpp" / "convert_hf_to_gguf.py"
    for path, text in (
        (folder / "model.safetensors", "weights"),
        (folder / "config.json", "{}"),
        (script, "# llama.cpp's"),
        (script.parent / "conversion" / "llama.py", "1"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    made = to_gguf(store, folder, python=python, script=script)
    assert made.path.name == "llama.bf16.gguf"
    assert made.path.read_bytes() == b"GGUFweights"
    assert made.sha256 == hashlib.sha256(b"GGUFweights").hexdigest()
    assert made.origin.converter.startswith("convert_hf_to_gguf.py@")
    assert to_gguf(store, folder, python=python, script=script).again
    (script.parent / "conversion" / "llama.py").write_text("2")
    assert not to_gguf(store, folder, python=python, script=script).again
    (verdict,) = store.verify()
    assert verdict.healthy
