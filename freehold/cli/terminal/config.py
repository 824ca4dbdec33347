"""The user's freehold.yaml as commands load it: checked, or every problem printed and exit code 2.

Nothing is checked here; that is `stack.config`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from freehold.cli.terminal.output import UserMistakes
from freehold.core.problems import Problem
from freehold.stack.config import Config, read_config, read_keyless

_T = TypeVar("_T")


def accepted(found: _T | list[Problem]) -> _T:
    """Return what was found; raise UserMistakes where it is a list of problems instead."""
    if isinstance(found, list):
        raise UserMistakes(found)
    return found


def load_config(path: Path | None, *, overrides: Mapping[str, object]) -> Config:
    """Return the checked configuration with its secrets; raise UserMistakes with every problem there is."""
    return accepted(read_config(path, overrides=overrides))


def load_keyless(path: Path | None) -> Config:
    """Return the configuration without its secrets and with unchecked engine options; raise UserMistakes likewise."""
    return accepted(read_keyless(path))
