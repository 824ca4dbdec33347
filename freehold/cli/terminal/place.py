"""The options that say which configuration file and which state folder a command means, and hints where no stack runs.

No configuration is read here: `down`, `status` and `logs` need none, and reading it takes its time to import.
"""

import functools
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from freehold.cli.terminal.output import mistake
from freehold.core.errors import Permanent
from freehold.fleet.control.state_dir import StateDir
from freehold.spec.example import EXAMPLE_NAME
from freehold.stack.folders import Elsewhere, running_elsewhere, state_dir_for


@dataclass(frozen=True, slots=True, kw_only=True)
class StackPlace:
    """The stack that a command means: its configuration file and its state folder."""

    config_path: Path | None
    """None: there is no file, so the built-in example holds."""
    state_path: Path


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


def stack_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config` and `--state-dir`, which every command on a stack takes; the command gets `stack`, a StackPlace."""

    @functools.wraps(command)
    def with_stack(*args: Any, config_flag: Path | None, state_dir: Path | None, **more: Any) -> Any:
        path = find_config(config_flag)
        place = StackPlace(config_path=path, state_path=state_dir_for(state_dir, path))
        return command(*args, stack=place, **more)

    return config_option(
        click.option(
            "--state-dir",
            type=click.Path(path_type=Path, file_okay=False, readable=False),
            envvar="FREEHOLD_STATE_DIR",
            help="Where the running stack keeps its state [default: one folder per configuration file]",
        )(with_stack)
    )


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def timeout_option(default_s: float, help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds `--timeout`, in seconds."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        default=default_s,
        show_default=True,
        help=help_text,
    )


def find_config(flag: Path | None) -> Path | None:
    """Return the configuration file in use; None: there is none, so the built-in example holds."""
    if flag is not None:
        return flag.absolute()
    here = Path.cwd() / EXAMPLE_NAME
    return here if here.exists() else None


def elsewhere_hint(command: str, stack: StackPlace, others: Sequence[Elsewhere]) -> str:
    """Return that the file of `stack` is not there, and what to type to reach each of `others`; empty: neither."""
    path = stack.config_path
    lines = [f"there is no file {path}"] if path is not None and not path.exists() else []
    lines += [f"{each.config} is up (pid {each.pid}): freehold {command} {each.flags}" for each in others]
    return "\n    ".join(lines)


def require_config(stack: StackPlace) -> None:
    """Raise UserMistakes where the configuration file that was named is not there: the stack of a mistyped name is empty."""
    path = stack.config_path
    if path is not None and not path.is_file():
        message = "is a directory, not a file" if path.is_dir() else "there is no such file"
        raise mistake(str(path), message, "`freehold init` writes one")


def require_readable(path: Path) -> None:
    """Raise Permanent where this user may not read a file or folder of a stack; one that is not there passes."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError as exc:
        hint = "a role opens no files: run this as the stack's own user or as root (docs/roles.md)"
        raise Permanent(f"this user may not read {path}", hint=hint) from exc
    except OSError:  # it is not there, as the command will say
        return


def start_hint(command: str, stack: StackPlace) -> str:
    """Return what to say where no stack runs: those that run elsewhere, the missing file, or how to start one."""
    state_path = stack.state_path
    hidden = StateDir(state_path).hidden_holder()
    if hidden is not None:
        return (
            f"the stack of this folder runs (pid {hidden.pid}), but its files there were removed; it restores them within "
            f"seconds\n    freehold down --state-dir {shlex.quote(str(state_path))} ends it"
        )
    return elsewhere_hint(command, stack, running_elsewhere(state_path)) or "freehold up starts one"
