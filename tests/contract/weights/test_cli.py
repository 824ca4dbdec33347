"""`freehold model` as a person and a script meet it: a real process, its two streams, its exit codes."""

import hashlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.weights.converter import install
from contract.weights.small_gguf import write_small_gguf

WEIGHTS_MD = Path(__file__).parents[3] / "docs" / "weights.md"
DATA = b"GGUF" + bytes(range(256)) * 400
SHA256 = hashlib.sha256(DATA).hexdigest()
CONFIG = f"""\
version: 1
models:
  - name: one
    engine: llama-cpp
    source: file://one.gguf
    sha256: {SHA256}
  - name: two
    engine: llama-cpp
    source: file://two.gguf
    sha256: {SHA256[::-1]}
"""

Freehold = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def freehold(tmp_path: Path) -> Freehold:
    (tmp_path / "one.gguf").write_bytes(DATA)
    (tmp_path / "freehold.yaml").write_text(CONFIG)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FREEHOLD_")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "freehold.cli.main", "model", *arguments],
            cwd=tmp_path,
            env=clean
            | {"FREEHOLD_CACHE_DIR": str(tmp_path / "cache"), "FREEHOLD_DATA_DIR": str(tmp_path / "data")},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


def test_a_model_of_the_config_is_pulled_listed_and_verified(freehold: Freehold, tmp_path: Path) -> None:
    pulled = freehold("pull", "one")
    assert pulled.returncode == 0, pulled.stderr
    name, path = pulled.stdout.split()
    assert name == "one"
    assert Path(path).read_bytes() == DATA
    assert pulled.stderr in {"one: copying\n", "one: checking\n"}  # copied, or cloned

    listed = freehold("list")
    assert listed.stdout.split()[0] == "one.gguf"
    assert "verified" in listed.stdout
    (line,) = json.loads(freehold("list", "--json").stdout)["models"]
    assert (line["sha256"], line["path"], line["state"]) == (SHA256, path, "verified")

    verified = freehold("verify")
    assert verified.returncode == 0
    assert verified.stdout.startswith("sound")


def test_decay_is_exit_code_3(freehold: Freehold) -> None:
    path = Path(freehold("pull", "one").stdout.split()[1])
    path.chmod(0o644)
    path.write_bytes(b"rotten")
    found = freehold("verify", "--json")
    assert found.returncode == 3
    (verdict,) = json.loads(found.stdout)["verdicts"]
    assert (verdict["healthy"], verdict["sha256"]) == (False, SHA256)
    assert not path.exists()


def test_one_failure_keeps_no_other_model_from_coming(freehold: Freehold) -> None:
    pulled = freehold("pull", "--json")
    assert pulled.returncode == 1
    one, two = json.loads(pulled.stdout)["models"]
    assert Path(one["path"]).read_bytes() == DATA
    assert "two.gguf" in two["error"]["message"]
    assert two["error"]["hint"]
    assert pulled.stderr == ""
    assert "two.gguf" in freehold("pull").stderr


def test_a_source_is_pulled_directly(freehold: Freehold) -> None:
    assert freehold("pull", "file://one.gguf", "--sha256", SHA256.upper()).returncode == 0
    wrong = freehold("pull", "file://one.gguf", "--sha256", SHA256[::-1])
    assert wrong.returncode == 1
    assert SHA256 in wrong.stderr
    assert "quarantine" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["pull", "onee"], "did you mean 'one'?"),
        (["pull", "ftp://one.gguf"], "a source begins with"),
        (["pull", "file://one.gguf", "--sha256", "12"], "64 hexadecimal digits"),
        (["pull", "pypi://one/two", "--sha256", SHA256], "pypi://NAME==VERSION"),
        (["pull", "one", "two", "--sha256", SHA256], "one source"),
        (["pull", "--config", "missing.yaml"], "missing.yaml"),
        (["verify", "xyz"], "64 hexadecimal digits"),
        (["hash", "missing"], "there is no missing"),
        (["convert", "one.gguf", "--to", "safetensors", "--out", "."], "not empty"),
    ],
)
def test_a_mistake_is_exit_code_2_and_says_the_fix(
    freehold: Freehold, arguments: list[str], told: str
) -> None:
    found = freehold(*arguments)
    assert found.returncode == 2
    assert told in found.stderr
    as_json = freehold(*arguments, "--json")
    assert as_json.returncode == 2
    assert json.loads(as_json.stdout)["problems"]


def test_verify_of_an_unknown_hash_is_exit_code_1(freehold: Freehold) -> None:
    assert freehold("verify", SHA256).returncode == 1
    assert freehold("verify").returncode == 0
    assert "model pull" in freehold("list").stdout


def test_a_terminal_shows_a_bar(freehold: Freehold, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "freehold.cli.main", "model", "pull", "one"],
        cwd=tmp_path,
        env=os.environ | {"FREEHOLD_CACHE_DIR": str(tmp_path / "cache"), "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    out, _ = child.communicate(timeout=30)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert child.returncode == 0
    assert out.startswith("one  ")
    assert "━" in shown
    assert "102.4" in shown  # kB of the file


def folder_of(tmp_path: Path) -> tuple[Path, str]:
    """Write a folder and return it with its tree hash, as docs/weights.md has it computed by a shell."""
    folder = tmp_path / "llama"
    for path, data in {
        "config.json": b"{}",
        "sub/m.safetensors": DATA,
        "old.bin": b"x",
        ".git/x": b"x",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    lines = re.search(r"```sh\n(cd FOLDER .*?)```", WEIGHTS_MD.read_text(), re.DOTALL)
    assert lines is not None, "docs/weights.md says how a shell computes the hash of a folder"
    script = lines[1].replace("FOLDER", str(folder))
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return folder, done.stdout.split()[0]


def test_the_hash_of_a_folder_is_what_the_documented_line_says(freehold: Freehold, tmp_path: Path) -> None:
    folder, sha256 = folder_of(tmp_path)
    assert freehold("hash", "llama").stdout == f"{sha256}\n"
    assert freehold("hash", "one.gguf").stdout == f"{SHA256}\n"
    found = json.loads(freehold("hash", "llama", "--include", "*.bin,*.json", "--json").stdout)
    assert sorted(found["files"]) == ["config.json", "old.bin"]
    (folder / "link.json").symlink_to("config.json")
    refused = freehold("hash", "llama")
    assert (refused.returncode, "link.json" in refused.stderr) == (1, True)


def test_a_file_without_a_hash_is_pulled_and_the_lines_for_the_configuration_are_printed(
    freehold: Freehold,
) -> None:
    pulled = freehold("pull", "file://one.gguf")
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout == f"source: file://one.gguf\nsha256: {SHA256}\n"
    assert "nothing was checked" in pulled.stderr
    assert "one.gguf" in freehold("list").stdout
    assert freehold("pull", "file://two.gguf").returncode == 1


def test_a_folder_whose_hash_nobody_knows_is_pulled_and_its_hash_told(
    freehold: Freehold, tmp_path: Path
) -> None:
    _, sha256 = folder_of(tmp_path)
    pulled = freehold("pull", "file://llama/")
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout == f"source: file://llama/\nsha256: {sha256}\n"
    assert "nothing was checked" in pulled.stderr
    again = json.loads(freehold("pull", "file://llama/", "--sha256", sha256, "--json").stdout)["models"][0]
    assert Path(again["path"]).name == "llama"
    assert freehold("pull", "file://llama/", "--sha256", SHA256).returncode == 1
    assert freehold("verify", sha256).stdout.startswith("sound")


def test_a_conversion_without_an_environment_says_how_to_get_one(freehold: Freehold) -> None:
    found = freehold("convert", "one.gguf", "--to", "safetensors")
    assert found.returncode == 1
    assert "freehold engine install" in found.stderr


def test_a_conversion_from_the_command_line(freehold: Freehold, tmp_path: Path) -> None:
    install(tmp_path / "data", "some-cpu-1.0", "transformers", "gguf")
    gguf = write_small_gguf(tmp_path / "small.gguf")
    made = freehold("convert", "small.gguf", "--to", "safetensors", "--out", "copy")
    assert made.returncode == 0, made.stderr
    said, source, sha256 = made.stdout.splitlines()
    assert said.startswith("made: ")
    assert source == f"source: file://{tmp_path}/copy/"
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == gguf.read_bytes()[::-1]
    assert freehold("hash", "copy").stdout.strip() == sha256.removeprefix("sha256: ")
    again = json.loads(freehold("convert", "small.gguf", "--to", "safetensors", "--json").stdout)
    assert again["again"] is True
    wrong = freehold("convert", "small.gguf", "--to", "gguf")
    assert (wrong.returncode, "does not become" in wrong.stderr) == (1, True)
    unknown = freehold("convert", "smal", "--to", "safetensors")
    assert (unknown.returncode, "no weights for 'smal'" in unknown.stderr) == (2, True)
