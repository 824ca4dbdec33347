"""Where a command finds its configuration file and the state folder of its stack, and the options that say so.

Stacks that run elsewhere are found by the folders under the XDG state directory; one with a `--state-dir` of its own
is not. No configuration is read here: `down`, `status` and `logs` need none, and what reads it takes its time to import.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import platformdirs

from freehold.fleet.control.state_dir import StateDir
from freehold.spec.example import EXAMPLE_NAME

BUILT_IN = "built-in example"


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config`, which every command that needs a freehold.yaml takes."""
    return click.option(
        "--config",
        "-c",
        "config_flag",
        type=click.Path(path_type=Path),
        envvar="FREEHOLD_CONFIG",
        help=f"The configuration file [default: ./{EXAMPLE_NAME}, or else the built-in example]",
    )(command)


def state_dir_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--state-dir`, which every command that talks to a running stack takes."""
    return click.option(
        "--state-dir",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="FREEHOLD_STATE_DIR",
        help="Where the running stack keeps its state [default: one folder per configuration file]",
    )(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def find_config(flag: Path | None) -> Path | None:
    """Return the configuration file in use; None: there is none, so the built-in example holds."""
    if flag is not None:
        return flag.absolute()
    here = Path.cwd() / EXAMPLE_NAME
    return here if here.exists() else None


def state_dir_for(flag: Path | None, config_path: Path | None) -> Path:
    """Return the state folder: the flag's, or one per configuration file under the XDG state directory.

    The folder is named after the file's folder and eight digits of its path's hash, so that two stacks never meet.
    """
    if flag is not None:
        return flag.absolute()
    return _state_root() / stack_name(config_path)


def _state_root() -> Path:
    return platformdirs.user_state_path("freehold", appauthor=False)


def stack_name(config_path: Path | None) -> str:
    """Return the name of the folders that belong to one configuration file, or to the built-in example."""
    if config_path is None:
        return "example"
    digits = sha256(str(config_path.resolve()).encode()).hexdigest()[:8]
    return f"{config_path.resolve().parent.name or 'root'}-{digits}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A stack that runs, but not where a command looked."""

    config: str
    pid: int
    flags: str
    """What to add to a command so that it finds this stack."""


def running_elsewhere(state_path: Path) -> list[Elsewhere]:
    """Return the stacks that run with other state folders than `state_path`, in the order of their configurations."""
    found = []
    for folder in _folders(_state_root()):
        holder = StateDir(folder).holder()
        if holder is not None and folder.resolve() != state_path.resolve():
            by_config = state_dir_for(None, Path(holder.config_path)) == folder
            named = f"--config {holder.config_path}" if by_config else f"--state-dir {folder}"
            found.append(Elsewhere(config=holder.config_path, pid=holder.pid, flags=_quoted(named)))
    return sorted(found, key=lambda stack: (stack.config, stack.flags))


def _quoted(flags: str) -> str:
    name, _, value = flags.partition(" ")
    return f"{name} {shlex.quote(value)}"


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir())
    except OSError:
        return []


def elsewhere_hint(command: str, stacks: Sequence[Elsewhere]) -> str:
    """Return what to type to reach each of `stacks` with `command`; empty when there are none."""
    return "\n    ".join(
        f"{stack.config} is up (pid {stack.pid}): freehold {command} {stack.flags}" for stack in stacks
    )


def start_hint(command: str, config_path: Path | None, state_path: Path) -> str:
    """Return what to say where no stack runs: those that run elsewhere, the missing file, or how to start one."""
    hint = elsewhere_hint(command, running_elsewhere(state_path))
    if config_path is not None and not config_path.exists():
        return f"there is no file {config_path}" + (f"\n    {hint}" if hint else "")
    return hint or "freehold up starts one"
