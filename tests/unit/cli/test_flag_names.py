"""One word for one idea in `plan`, `size` and `review`: today's names in help, former names still taken."""

from pathlib import Path
from typing import Any

import click
import pytest

from freehold.cli.main import cli, main

FORMER = [
    ("plan", "--config", "--model-config"),
    ("size", "--config", "--model-config"),
    ("review", "--rented-usd-per-gpu-hour", "--rental-usd-per-gpu-hour"),
]


def options_of(name: str) -> dict[str, click.Option]:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return {word: each for each in command.params if isinstance(each, click.Option) for word in each.opts}


@pytest.mark.parametrize(("command", "former", "name"), FORMER)
def test_a_former_name_is_taken_and_not_shown(
    command: str, former: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = options_of(command)
    assert options[former] is options[name]
    assert main([command, "--help"]) == 0
    words = capsys.readouterr().out.split()
    assert name in words
    assert former not in words


@pytest.mark.parametrize("flag", ["--model-config", "--prices", "--slo-itl", "--gpu", "--engine", "--model"])
def test_a_flag_of_all_three_means_the_same(flag: str) -> None:
    kinds = {type(options_of(name)[flag].type) for name in ("plan", "size", "review")}
    assert len(kinds) == 1


@pytest.mark.parametrize("command", [("size", "--model", "llama-3.1-8b"), ("review", "--gpu-usd", "30k")])
def test_where_one_gpu_is_meant_several_are_a_problem(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main([*command, "--gpu", "l4,l40s"]) == 2
    assert "--gpu: name one GPU, not several" in capsys.readouterr().err
    assert main([command[0], "--help"]) == 0
    assert "--gpu ID" in capsys.readouterr().out
