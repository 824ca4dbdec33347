"""Ask an engine's installed program for its flags and its version.

Each question is a process with a deadline; it loads no model. It installs nothing and keeps nothing.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import as_file, files
from pathlib import Path

import msgspec

from freehold.core.errors import Permanent
from freehold.engines.base import Recipe
from freehold.engines.shared.flag_list import FlagList

ASK_S = 300.0
"""Longest wait for an answer. Source: our own bound; vLLM needs 10 to 25 s on two busy cores, mostly to import torch."""
_QUIET = {
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "PYTHONNOUSERSITE": "1",
}
_DROPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
# Variables of Freehold's own Python that would mislead another one. Source: Python's documentation, "Environment variables".
_SHEBANG_BYTES = 512


def foreign_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for another Python: without those of this one, and with telemetry off."""
    return {name: value for name, value in env.items() if name not in _DROPPED} | _QUIET


def ask_flags(python: Path, recipe: Recipe) -> FlagList:
    """Return the flags of the program that this Python has; raises Permanent if it cannot be imported or its answer is invalid."""
    said = ask(python, recipe)
    try:
        return msgspec.json.decode(said, type=FlagList)
    except msgspec.MsgspecError as exc:
        raise Permanent(f"{python} does not report the flags of {recipe.name}: {exc}") from exc


def ask(python: Path, recipe: Recipe, *words: str) -> bytes:
    """Return what the recipe's script prints for these words, run by this Python; raises Permanent as `run`."""
    assert recipe.asks, f"{recipe.name} names no script that asks its program"
    with as_file(files("freehold.engines").joinpath("programs", recipe.asks)) as script:
        return run([str(python), "-I", str(script), *words])


def run(argv: Sequence[str], *, timeout_s: float = ASK_S) -> bytes:
    """Return what a program prints; raises Permanent with its last line if it fails, hangs or is missing."""
    try:
        done = subprocess.run(
            argv,
            env=foreign_env(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise Permanent(f"{argv[0]} gave no answer within {timeout_s:g} s") from exc
    except OSError as exc:
        raise Permanent(f"{argv[0]} cannot be run: {exc.strerror or exc}") from exc
    if done.returncode != 0:
        last = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()[-1:]
        raise Permanent(
            f"{argv[0]} failed (exit code {done.returncode}): {''.join(last)[:300] or 'it printed nothing'}"
        )
    return done.stdout


def python_behind(program: str) -> Path | None:
    """Return the interpreter in the first line of a script such as `bin/vllm`; None: it is not a Python script."""
    found = shutil.which(program)
    if found is None:
        return None
    with suppress(OSError, UnicodeDecodeError), open(found, "rb") as file:  # noqa: PTH123 - `which` gives a text
        first = file.read(_SHEBANG_BYTES).split(b"\n", 1)[0].decode()
        path = Path(first.removeprefix("#!").split(" ")[0])
        if first.startswith("#!") and "python" in path.name and os.access(path, os.X_OK):
            return path
    return None
