"""Weights that `--weights` names: what is wrong with them is with_source before anything starts, and what freehold.yaml needs for them."""

import hashlib
from pathlib import Path

import pytest

from freehold.bench.contenders import BenchEntry
from freehold.bench.weights import hashed, named_weights, sha256_of, source_of, weights_of, with_source
from freehold.cost.intake.flags import FlagReader
from freehold.engines import all_engines
from freehold.spec.model import ModelSpec
from freehold.stack.fetch import without_progress
from freehold.weights.blobs import BlobRecord, Origin
from freehold.weights.source import FileFolder, FileSource, GgufParts, parse_source
from freehold.weights.store import Store
from freehold.weights.transfer import Reporter
from freehold.weights.tree import hash_folder, tree_hash

SHA = "a" * 64
GGUF = b"GGUF and more"
MODEL = ModelSpec(name="m", engine="llama-cpp", source="file:///w.gguf", sha256=SHA)


def entries(*engines: str) -> list[BenchEntry]:
    return [BenchEntry(model=MODEL, engine=all_engines()[name], options={}, label=name) for name in engines]


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "w.gguf"
    path.write_bytes(GGUF)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder that is none of safetensors: an empty header is a whole one."""
    path = tmp_path / "hub"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (path / "tokenizer.json").write_text("{}")
    return path


def told_of(
    *texts: str, engines: tuple[str, ...] = ("llama-cpp", "vllm")
) -> tuple[dict[str, Path], list[str]]:
    reader = FlagReader()
    found = named_weights(texts, entries(*engines), reader)
    assert {each.where for each in reader.problems} <= {"--weights"}
    return found, [each.message for each in reader.problems]


def test_weights_by_engine(gguf: Path, folder: Path) -> None:
    assert told_of(f"llama-cpp={gguf}", f"vllm={folder}") == ({"llama-cpp": gguf, "vllm": folder}, [])


def test_a_relative_path_is_the_users_own_folders(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(gguf.parent)
    assert told_of("llama-cpp=w.gguf") == ({"llama-cpp": gguf}, [])


def test_a_folder_with_one_gguf_stands_for_the_file(gguf: Path) -> None:
    assert told_of(f"llama-cpp={gguf.parent}") == ({"llama-cpp": gguf}, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "is not ENGINE=PATH"),
        ("vllm=", "is not ENGINE=PATH"),  # and not the folder in which one happens to be
        ("nobody=/", "there is no engine"),
        ("sglang=/", "sglang is not benched"),
        ("vllm=/nowhere", "there is nothing at /nowhere"),
        ("vllm={gguf}", "is gguf, and vllm loads safetensors"),
        ("llama-cpp={folder}", "is safetensors, and llama-cpp loads gguf"),
        ("llama-cpp={gguf.parent}/m-00002-of-00003.gguf", "is not the first part"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(
    text: str, words: str, gguf: Path, folder: Path
) -> None:
    (gguf.parent / "m-00002-of-00003.gguf").write_bytes(GGUF)
    _, said = told_of(text.format(gguf=gguf, folder=folder))
    assert len(said) == 1
    assert words in said[0]


def test_an_engine_is_given_one_thing(gguf: Path) -> None:
    assert told_of(f"llama-cpp={gguf}", f"llama-cpp={gguf}")[1] == ["names weights of llama-cpp twice"]


def test_a_hash_is_that_of_the_store(gguf: Path, folder: Path) -> None:
    assert hashed(gguf) == hashlib.sha256(GGUF).hexdigest()
    assert hashed(folder) == tree_hash(hash_folder(folder, Reporter(None)))
    parts = [gguf.with_name(f"m-0000{number}-of-00002.gguf") for number in (1, 2)]
    for part in parts:
        part.write_bytes(GGUF)
    assert hashed(parts[0]) == tree_hash({part.name: hashlib.sha256(GGUF).hexdigest() for part in parts})
    parts[1].unlink()
    assert hashed(parts[0]) == ""


def test_a_folder_with_links_has_no_hash_and_is_measured_all_the_same(folder: Path) -> None:
    (folder / "config.json").rename(folder.parent / "config.json")
    (folder / "config.json").symlink_to("../config.json")
    assert told_of(f"vllm={folder}") == ({"vllm": folder}, [])
    assert hashed(folder) == ""


def test_a_source_is_read_as_what_it_was_made_of(gguf: Path, folder: Path) -> None:
    assert source_of(folder) == f"file://{folder}/"
    assert parse_source(source_of(folder)) == FileFolder(path=str(folder))
    odd = gguf.with_name("50% ?include=x.gguf")
    assert parse_source(source_of(odd)) == FileSource(path=str(odd))
    assert isinstance(parse_source(source_of(gguf.with_name("m-00001-of-00002.gguf"))), GgufParts)


def kept(store: Store, source: str, *, made_of: str = "") -> str:
    """Put something into the store as if it came from there, or was made of a hash, and return its hash."""
    origin = Origin(source_sha256=made_of, converter="c", versions=(), options=())
    record = BlobRecord(name="w.gguf", source=source, fetched_at="", made=(origin,) if made_of else ())
    with store.workplace("key") as folder:
        made = folder / "w.gguf"
        made.write_bytes(GGUF)
        return store.keep_made(made, record)[0]


@pytest.mark.parametrize(
    ("source", "made_of", "expected"),
    [
        ("hf://o/n@0123/w.gguf", "", "hf://o/n@0123/w.gguf"),  # means the same on every machine
        ("https://h/w.gguf?…", "", None),  # its query is not known
        ("file://w.gguf", "", None),
        ("made of it", SHA, ""),  # Freehold makes it by itself of the model's own
        ("made of another", "b" * 64, None),
    ],
)
def test_what_the_store_knows_of_weights(
    tmp_path: Path, gguf: Path, source: str, made_of: str, expected: str | None
) -> None:
    store = Store(tmp_path / "store")
    found = with_source(gguf, kept(store, source, made_of=made_of), model=MODEL, store=store)
    assert found.source == (f"file://{gguf}" if expected is None else expected)
    assert found.sha256 == hashlib.sha256(GGUF).hexdigest()


def test_the_models_own_weights_under_another_path_change_nothing(tmp_path: Path, gguf: Path) -> None:
    store = Store(tmp_path / "store")
    assert with_source(gguf, SHA, model=MODEL, store=store).source == ""
    assert (
        with_source(gguf, "", model=MODEL, store=store).source == ""
    )  # without a hash nothing can be written
    assert with_source(gguf, "b" * 64, model=MODEL, store=store).source == f"file://{gguf}"


def test_named_weights_are_hashed_and_nothing_is_fetched(
    tmp_path: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FREEHOLD_CACHE_DIR", str(tmp_path / "cache"))
    found = weights_of(entries("llama-cpp"), {"llama-cpp": gguf}, base_dir=tmp_path, show=without_progress)
    (one,) = found.values()
    assert (one.path, one.sha256, one.source) == (gguf, hashlib.sha256(GGUF).hexdigest(), f"file://{gguf}")


def test_the_stores_weights_have_their_hash_in_their_path() -> None:
    assert sha256_of(Path(f"/c/blobs/{SHA}/m.gguf")) == SHA
    assert sha256_of(Path("/models/m")) == ""
