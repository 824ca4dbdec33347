"""Where a command finds its configuration file and the state folder of its stack, and the options that say so.

No configuration is read here: `down`, `status` and `logs` need none, and what reads it takes its time to import.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import platformdirs

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
    return platformdirs.user_state_path("freehold", appauthor=False) / stack_name(config_path)


def stack_name(config_path: Path | None) -> str:
    """Return the name of the folders that belong to one configuration file, or to the built-in example."""
    if config_path is None:
        return "example"
    digits = sha256(str(config_path.resolve()).encode()).hexdigest()[:8]
    return f"{config_path.resolve().parent.name or 'root'}-{digits}"


def start_hint(config_path: Path | None) -> str:
    """Return what to say where no stack runs: how to start it, or that it was looked for by a file that is not there."""
    if config_path is not None and not config_path.exists():
        return f"there is no file {config_path}"
    return "freehold up starts one"
