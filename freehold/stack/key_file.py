"""The API keys of a configuration: where its keys file is, and what is in it. It changes nothing; `freehold key` does."""

from pathlib import Path

import platformdirs

from freehold.core.errors import FreeholdError, Permanent
from freehold.gateway.callers.keys import KeyRecord
from freehold.gateway.storage.key_store import KeyStore
from freehold.stack.config import Config
from freehold.stack.folders import stack_name


def keys_path_for(config: Config) -> Path:
    """Return the keys file: the configuration's, or one per configuration file under the XDG configuration directory."""
    if config.spec.gateway.keys_file:
        return config.base_dir / Path(config.spec.gateway.keys_file).expanduser()
    root = platformdirs.user_config_path("freehold", appauthor=False)
    return root / stack_name(config.path) / "keys.json"


def read_keys_of(config: Config) -> tuple[KeyRecord, ...]:
    """Return the keys of a configuration, none where there is no file yet; raise Permanent for a broken one."""
    path = keys_path_for(config)
    try:
        return KeyStore(path).read().keys
    except Permanent as exc:
        raise naming_file(path, exc) from exc


def naming_file(path: Path, exc: FreeholdError) -> Permanent:
    """Return a failure that names the file; what is wrong with it, nobody mends by guessing."""
    return Permanent(f"the keys file {path} {exc.message}", hint=exc.hint)
