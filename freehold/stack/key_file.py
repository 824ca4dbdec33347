"""The API keys of a configuration: the path of its keys file, and its content. It changes nothing; `freehold key` does."""

from pathlib import Path

import platformdirs

from freehold.core.errors import FreeholdError, Permanent
from freehold.gateway.callers.keys import KeyRecord
from freehold.gateway.storage.key_store import KeyStore
from freehold.stack.config import Config
from freehold.stack.folders import stack_name


def keys_path_for(config: Config) -> Path:
    """Return the path of the keys file: the configured one, or one per configuration file in the XDG configuration directory."""
    if config.spec.gateway.keys_file:
        return config.base_dir / Path(config.spec.gateway.keys_file).expanduser()
    root = platformdirs.user_config_path("freehold", appauthor=False)
    return root / stack_name(config.path) / "keys.json"


def read_keys_of(config: Config) -> tuple[KeyRecord, ...]:
    """Return the keys of a configuration, empty without a file; raise Permanent if the file is damaged."""
    path = keys_path_for(config)
    try:
        return KeyStore(path).read().keys
    except Permanent as exc:
        raise naming_file(path, exc) from exc


def naming_file(path: Path, exc: FreeholdError) -> Permanent:
    """Return the failure with the path of the file in its message."""
    return Permanent(f"the keys file {path} {exc.message}", hint=exc.hint)
