"""The user's freehold.yaml as commands load it: checked, or every problem printed and exit code 2.

Nothing is checked here; that is `stack.config`.
"""

from collections.abc import Mapping
from pathlib import Path

from freehold.cli.output import UserMistakes
from freehold.stack.config import Config, read_config, read_keyless


def load_config(path: Path | None, *, overrides: Mapping[str, object], as_json: bool) -> Config:
    """Return the checked configuration with its secrets; raise UserMistakes with every problem there is."""
    found = read_config(path, overrides=overrides)
    if not isinstance(found, Config):
        raise UserMistakes(found, as_json=as_json)
    return found


def load_keyless(path: Path | None, *, as_json: bool) -> Config:
    """Return the configuration without its secrets and with unchecked engine options; raise UserMistakes likewise."""
    found = read_keyless(path)
    if not isinstance(found, Config):
        raise UserMistakes(found, as_json=as_json)
    return found
