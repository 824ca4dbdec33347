import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from freehold.cli.main import COMMANDS, Lazy, main
from freehold.core.errors import Permanent, Temporary
from freehold.stack.folders import state_dir_for

FAILURES: dict[str, BaseException] = {
    "mistake": ZeroDivisionError("of our own"),
    "permanent": Permanent("the disk is full", hint="make room"),
    "temporary": Temporary("it does not answer"),
    "interrupted": KeyboardInterrupt(),
    "leaving": click.exceptions.Exit(3),
}


@pytest.fixture(autouse=True)
def failing_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each failure a command of its own."""
    for name, failure in FAILURES.items():

        def fail(*, as_json: bool, failure: BaseException = failure) -> None:
            del as_json
            raise failure

        command = click.Command(
            name, callback=fail, params=[click.Option(["--json", "as_json"], is_flag=True)]
        )
        module = type(sys)(f"failing_{name}")
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(COMMANDS, name, Lazy(module.__name__, "Fails."))


def test_failures_of_the_world(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["permanent"]) == 1
    assert capsys.readouterr() == ("", "freehold: the disk is full\n    make room\n")
    assert main(["temporary", "--json"]) == 1
    shown = capsys.readouterr()
    assert shown.err == ""
    assert json.loads(shown.out) == {"error": {"message": "it does not answer", "hint": ""}}


def test_a_mistake_of_our_own_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mistake"]) == 1
    shown = capsys.readouterr()
    assert "ZeroDivisionError: of our own" in shown.err
    assert "not a mistake of yours" in shown.err


def test_ctrl_c_and_exit_codes() -> None:
    assert main(["interrupted"]) == 130
    assert main(["leaving"]) == 3


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from freehold.cli.main import main; main(['--help']); "
        "heavy = {'asyncio', 'pydantic', 'rich', 'freehold.cli.up', 'ruamel.yaml'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["status", "down", "logs", "usage"])
def test_looking_at_a_stack_reads_no_configuration_and_imports_nothing_for_it(
    name: str, tmp_path: Path
) -> None:
    code = (
        f"import sys; from freehold.cli.main import main; main([{name!r}]); "
        "heavy = {'asyncio', 'httpx2', 'pydantic', 'rich', 'ruamel.yaml', 'freehold.engines'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=env
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


# Output that goes nowhere


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["init", "--stdout"], ["init", "--json"], ["upp", "--json"], ["status", "--help"]],
)
def test_output_to_a_full_disk_is_a_plain_error(
    arguments: list[str], unbuffered: str, tmp_path: Path
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = freehold(arguments, tmp_path, unbuffered=unbuffered, stdout=full)
    assert (done.returncode, done.stderr) == (
        1,
        "freehold: cannot write the output: No space left on device\n",
    )


SIZE = ["size", "--model", "llama-3.1-8b", "--gpu", "l4"]


@pytest.mark.parametrize("arguments", [["--help"], ["init", "--stdout"], ["status", "--json"], SIZE])
def test_a_reader_who_hangs_up_hears_nothing(arguments: list[str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:  # noqa: PTH123 - of a descriptor
        done = freehold(arguments, tmp_path, stdout=pipe)
    assert (done.returncode, done.stderr) == (1, "")


def test_what_rich_cannot_print_is_a_plain_error_too(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = freehold(SIZE, tmp_path, stdout=full)
    assert (done.returncode, done.stderr) == (
        1,
        "freehold: cannot write the output: No space left on device\n",
    )


def test_stdout_that_was_closed_before(tmp_path: Path) -> None:
    done = freehold(["init", "--json"], tmp_path, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")


def freehold(
    arguments: list[str], folder: Path, *, unbuffered: str = "", **more: Any
) -> "subprocess.CompletedProcess[str]":
    """Run the command in an empty folder; what is on stderr is text."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "freehold", *arguments],
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": str(folder), "PYTHONUNBUFFERED": unbuffered},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **more,
    )


# Where a stack keeps its state


def test_stacks_of_different_files_never_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    one, two = tmp_path / "a" / "freehold.yaml", tmp_path / "b" / "a" / "freehold.yaml"
    paths = {state_dir_for(None, path) for path in (one, two, one.with_name("other.yaml"), None)}
    assert len(paths) == 4
    assert all(path.parent == tmp_path / "state" / "freehold" for path in paths)
    assert state_dir_for(None, None).name == "example"
    assert state_dir_for(None, one).name.startswith("a-")
    assert state_dir_for(None, Path("/freehold.yaml")).name.startswith("root-")
    assert state_dir_for(Path("here"), one) == Path("here").absolute()


def test_one_file_by_two_ways_is_one_stack(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert state_dir_for(None, tmp_path / "a" / "f.yaml") == state_dir_for(None, tmp_path / "b" / "f.yaml")
