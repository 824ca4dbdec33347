"""`freehold down` and `status` where the state folder of a running stack was removed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from freehold.cli.main import cli
from freehold.fleet.control.state_dir import StateDir, locked_directories
from waiting import wait_until

# A controller as far as this goes: it holds the folder, which is then removed or not, and ends at SIGTERM.
CONTROLLER = """
import shutil, signal, sys
from pathlib import Path
from freehold.fleet.control.state_dir import StateDir
state = StateDir(Path(sys.argv[1]))
assert state.claim(config_path="x") is None
if sys.argv[2] == "removed":
    shutil.rmtree(state.path)
print("holds it", flush=True)
signal.sigwait({signal.SIGTERM})
"""


@contextmanager
def controller(path: Path, folder: str = "removed") -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", CONTROLLER, str(path), folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "holds it\n"
            yield process
        finally:
            process.kill()


def run(*arguments: str) -> tuple[int, str]:
    ran = CliRunner().invoke(cli, arguments)
    return ran.exit_code, ran.output + str(ran.exception or "") + getattr(ran.exception, "hint", "")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "state"


def test_down_ends_a_stack_whose_folder_was_removed(path: Path) -> None:
    with controller(path) as process:
        assert StateDir(path).holder() is None
        assert locked_directories()[path] == process.pid
        code, said = run("down", "--state-dir", str(path), "--timeout", "10")
        assert (code, said) == (0, "Down.\n")
        wait_until(lambda: process.poll() is not None, what="the end")
    assert path not in locked_directories()


def test_status_says_that_it_runs_and_how_to_end_it(path: Path) -> None:
    with controller(path) as process:
        code, said = run("status", "--state-dir", str(path))
        assert code == 1
        assert f"the stack of this folder runs (pid {process.pid}), but its files there were removed" in said
        assert f"freehold down --state-dir {path} ends it" in said


def test_nothing_runs(path: Path) -> None:
    code, said = run("down", "--state-dir", str(path))
    assert code == 0
    assert said.startswith(f"No stack runs here ({path})")


def test_a_stack_with_a_state_folder_of_its_own_is_listed_with_the_flag_that_reaches_it(
    path: Path, tmp_path: Path
) -> None:
    with controller(path, "kept") as process:
        there = f"x is up (pid {process.pid}): freehold %s --state-dir {path}"
        code, said = run("down", "--config", str(tmp_path / "nope.yaml"))
        assert (code, there % "down" in said) == (0, True)
        assert f"there is no file {tmp_path / 'nope.yaml'}" in said
        code, said = run("status", "--config", str(tmp_path / "nope.yaml"))
        assert (code, there % "status" in said) == (1, True)


@pytest.mark.parametrize("command", ["ca init", "ca issue x", "ca show", "usage", "engine check"])
def test_a_file_that_is_not_there_is_no_stack_of_its_own(command: str, path: Path) -> None:
    named = path.with_name("nope.yaml")
    code, said = run(*command.split(), "--config", str(named))
    assert (code, f"{named}: there is no such file" in said) == (2, True)
    code, said = run(*command.split(), "--config", str(path.parent))
    assert (code, f"{path.parent}: is a directory" in said) == (2, True)
