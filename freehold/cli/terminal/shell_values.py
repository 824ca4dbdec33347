"""What a shell offers after Tab: models, replicas, logs and keys of the configuration or stack that the line names.

Everything is looked up when Tab is pressed, and imported only then. What cannot be read offers nothing: a completion never fails.
"""

from collections.abc import Iterable
from pathlib import Path

import click

from freehold.core.errors import FreeholdError


def models(ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
    """Offer the configured models."""
    from freehold.stack.config import read_keyless  # noqa: PLC0415 - takes its time to import

    config = read_keyless(_config(ctx))
    return [] if isinstance(config, list) else _beginning(start, (model.name for model in config.spec.models))


def models_and_replicas(ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
    """Offer the models and replicas of the running stack."""
    from freehold.stack.status import running_status  # noqa: PLC0415

    try:
        status = running_status(_state(ctx))
    except FreeholdError:
        return []
    replicas = () if status is None else status.replicas
    return _beginning(start, [name for each in replicas for name in (each.model, each.id)])


def logs(ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
    """Offer the logs in the state folder."""
    found = sorted((_state(ctx) / "logs").glob("*.log"))
    return _beginning(start, (path.name.removesuffix(".log") for path in found))


def keys(ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
    """Offer the ids and names of the keys that are not revoked."""
    from freehold.stack.config import read_keyless  # noqa: PLC0415
    from freehold.stack.key_file import read_keys_of  # noqa: PLC0415

    config = read_keyless(_config(ctx))
    try:
        found = [] if isinstance(config, list) else read_keys_of(config)
    except FreeholdError:
        return []
    return _beginning(start, [name for key in found if not key.revoked_s for name in (key.id, key.name)])


def _beginning(start: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(start)]


def _config(ctx: click.Context) -> Path | None:
    from freehold.cli.terminal.place import find_config  # noqa: PLC0415

    return find_config(ctx.params.get("config_flag"))


def _state(ctx: click.Context) -> Path:
    from freehold.stack.folders import state_dir_for  # noqa: PLC0415

    return state_dir_for(ctx.params.get("state_dir"), _config(ctx))
