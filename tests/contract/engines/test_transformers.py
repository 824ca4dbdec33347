"""The yardstick with the real torch and Transformers: it does what its file says, and ends for the reasons it knows.

Skipped where vLLM's environment, which has both, is not installed.
"""

import os
import subprocess
from pathlib import Path

import pytest

from freehold.engines.base import ExitKind, Placement, Value
from freehold.engines.transformers import ENGINE
from freehold.fleet.environments.lookup import Environment, engines_root, find_for
from freehold.testing.check_running_engine import GRACE_S, check_running_engine
from freehold.weights.convert import Converted


def placed(environment: Environment, weights: Path, port: int, **options: Value) -> Placement:
    return Placement(
        model="smollm2-135m",
        weights=weights,
        host="127.0.0.1",
        port=port,
        # One thread: on a shared machine two that spin for each other take minutes for a sentence.
        options={"max_context_tokens": 256, "threads": 1, **options},
        environment=environment.path,
    )


@pytest.mark.timeout(300)
def test_the_program_does_what_its_file_says(
    vllm_environment: Environment, vllm_weights: Converted, free_port: int
) -> None:
    run = check_running_engine(ENGINE, placed(vllm_environment, vllm_weights.path, free_port))
    assert run.end_s < GRACE_S


@pytest.mark.timeout(120)
def test_weights_that_are_none(vllm_environment: Environment, tmp_path: Path, free_port: int) -> None:
    assert ENGINE.command is not None
    command = ENGINE.command(placed(vllm_environment, tmp_path, free_port))
    done = subprocess.run(
        command.argv,
        env={**os.environ, **command.env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    cause = ENGINE.explain_exit(done.returncode, tuple((done.stdout + done.stderr).splitlines()))
    assert (cause.kind, cause.restart) == (ExitKind.BAD_WEIGHTS, False), done.stderr


def test_a_python_without_transformers(tmp_path: Path, free_port: int) -> None:
    assert ENGINE.command is not None
    place = Placement(
        model="m", weights=tmp_path, host="127.0.0.1", port=free_port, options={"python": "python3"}
    )
    code = "import sys; sys.modules['torch'] = None; import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    argv = ENGINE.command(place).argv
    done = subprocess.run(
        [argv[0], "-I", "-c", code, *argv[2:]], capture_output=True, text=True, timeout=50, check=False
    )
    cause = ENGINE.explain_exit(done.returncode, tuple(done.stderr.splitlines()))
    assert (cause.kind, cause.restart) == (ExitKind.MISSING_PROGRAM, False), done.stderr
    assert "freehold engine install" in cause.hint


def test_it_runs_in_the_environment_of_vllm(vllm_environment: Environment) -> None:
    found = find_for(ENGINE, engines_root(os.environ))
    assert found is not None
    assert found.path == vllm_environment.path
