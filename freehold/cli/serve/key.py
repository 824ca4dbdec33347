"""`freehold key`: API keys from the command line: create, list, revoke.

A key is printed once, by `create`, and only its hash is stored; a lost key is replaced by a new one. A running
gateway follows the keys file by itself, so nothing is restarted and the stack need not even be up.
"""

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from freehold.cli.serve.key_flags import Wanted, limit_options, read_flags
from freehold.cli.terminal import shell_values
from freehold.cli.terminal.audited import record_act
from freehold.cli.terminal.config import load_keyless
from freehold.cli.terminal.output import UserMistakes, require_known, say_json, show_lines
from freehold.cli.terminal.place import StackPlace, config_option, find_config, json_option, stack_options
from freehold.cli.terminal.table import Row, table, terminal_columns
from freehold.core.clock import wall_s
from freehold.core.errors import Permanent
from freehold.core.problems import Problem
from freehold.core.units import format_count, format_duration
from freehold.gateway.callers.keys import KEY_BYTES, KEYS_MAX, KeyRecord, hash_of, key_from, why_refused
from freehold.gateway.storage.key_store import KeyStore
from freehold.stack.config import Config
from freehold.stack.key_file import keys_path_for, naming_file, read_keys_of

_ID_BYTES = 4
"""Random bytes of an id, which is not a secret. Source: own choice; an id that the file has already is not used."""


@click.group("key")
def command() -> None:
    """Create, list and revoke the API keys that the gateway asks for with auth: keys."""


@command.command("create", short_help="Make a key; it is shown only once.")
@click.argument("name")
@limit_options
@stack_options
@json_option
def create(*, name: str, stack: StackPlace, as_json: bool, **flags: str | None) -> None:
    """Make a key for NAME and print it. It is shown this once: only its hash is kept."""
    config = load_keyless(stack.config_path)
    key = key_from(secrets.token_bytes(KEY_BYTES))
    made: list[KeyRecord] = []

    def add(before: tuple[KeyRecord, ...]) -> tuple[KeyRecord, ...]:
        wanted = _wanted(config, name, flags, before)
        if isinstance(wanted, list):
            raise UserMistakes(wanted)
        made.append(_record(wanted, key, {record.id for record in before}))
        return (*before, made[0])

    path = _change(config, add)
    record_act(stack.state_path, "key_created", key=made[0].id, name=name, limits=_limits_text(made[0]))
    if as_json:
        say_json({"key": key, "path": str(path), **_shown(made[0])})
        return
    click.echo(key)
    click.echo(f"{made[0].id} for {name}: {_limits_text(made[0])}.", err=True)
    click.echo("This is the only time that the key is shown; only its hash is kept.", err=True)
    if config.spec.gateway.auth == "none":
        click.echo(f"{config.name} says auth: none, so the gateway does not ask for keys yet.", err=True)


@command.command("list", short_help="List the keys, without the keys.")
@config_option
@json_option
def list_(*, config_flag: Path | None, as_json: bool) -> None:
    """List every key: id, name, state and limits. The keys themselves are not kept anywhere."""
    config = load_keyless(find_config(config_flag))
    path, keys = keys_path_for(config), read_keys_of(config)
    if as_json:
        say_json({"path": str(path), "keys": [_shown(record) for record in keys]})
    elif not keys:
        click.echo(f"No keys in {path}. Next: freehold key create NAME")
    else:
        heads = ("ID", "NAME", "STATE", "CREATED", "LIMITS")
        show_lines(table([Row(_row(key)) for key in keys], terminal_columns(), heads=heads))


@command.command("revoke", short_help="Revoke keys: they are rejected within a second.")
@click.argument("ids", nargs=-1, required=True, metavar="ID...", shell_complete=shell_values.keys)
@click.option("--now", is_flag=True, help="End their running requests within a second as well.")
@stack_options
@json_option
def revoke(*, ids: tuple[str, ...], now: bool, stack: StackPlace, as_json: bool) -> None:
    """Revoke keys by id or name. A running gateway rejects them within a second; running requests finish without --now."""
    config = load_keyless(stack.config_path)
    revoked: list[KeyRecord] = []

    def end(before: tuple[KeyRecord, ...]) -> tuple[KeyRecord, ...]:
        meant = _meant(ids, before, now=now)
        now_s = int(wall_s())
        after = tuple(
            msgspec.structs.replace(
                record, revoked_s=record.revoked_s or now_s, ends_requests=now or record.ends_requests
            )
            if record.id in meant
            else record
            for record in before
        )
        revoked.extend(record for record in after if record.id in meant)
        return after

    _change(config, end)
    for record in revoked:
        record_act(stack.state_path, "key_revoked", key=record.id, name=record.name, now=now)
    if as_json:
        say_json({"revoked": [_shown(record) for record in revoked]})
        return
    for record in revoked:
        click.echo(f"{record.id} ({record.name}) is revoked since {_date(record.revoked_s)}.")


def _wanted(
    config: Config, name: str, flags: Mapping[str, str | None], before: Sequence[KeyRecord]
) -> Wanted | list[Problem]:
    now_s = wall_s()
    taken = {record.name for record in before if not why_refused(record, now_s)}
    models = [each.name for model in config.spec.models for each in model.named]
    found = read_flags(name, flags, models=models, taken=taken, wall_s=now_s)
    if len(before) >= KEYS_MAX and not isinstance(found, list):
        return [
            Problem(where=str(keys_path_for(config)), message=f"holds {KEYS_MAX} keys, which is the most")
        ]
    return found


def _record(wanted: Wanted, key: str, ids: set[str]) -> KeyRecord:
    return KeyRecord(
        id=_new_id(ids),
        name=wanted.name,
        hash=hash_of(key.encode()).hex(),
        created_s=int(wall_s()),
        expires_s=wanted.expires_s,
        limits=wanted.limits,
    )


def _new_id(ids: set[str]) -> str:
    while (found := f"key-{secrets.token_hex(_ID_BYTES)}") in ids:
        pass
    return found


def _meant(ids: Sequence[str], known: Sequence[KeyRecord], *, now: bool) -> set[str]:
    """Return the ids of the keys that are meant by id or by name; with `now` a name means revoked keys too, whose requests may still run."""
    by_name = [record for record in known if now or record.revoked_s is None]
    words = {record.id for record in known} | {record.name for record in by_name}
    require_known(ids, words, where="ID", message="there is no key")
    return {record.id for record in known if record.id in ids} | {
        record.id for record in by_name if record.name in ids
    }


def _change(config: Config, change: Any) -> Path:
    path = keys_path_for(config)
    try:
        KeyStore(path).change(change)
    except Permanent as exc:
        raise naming_file(path, exc) from exc
    return path


def _state(record: KeyRecord) -> str:
    return why_refused(record, wall_s()) or "active"


def _shown(record: KeyRecord) -> dict[str, Any]:
    """Return a record for a script: everything but the hash, with every limit named."""
    limits = {name: getattr(record.limits, name) for name in record.limits.__struct_fields__}
    return {
        "id": record.id,
        "name": record.name,
        "state": _state(record),
        "created_s": record.created_s,
        "expires_s": record.expires_s,
        "revoked_s": record.revoked_s,
        "limits": limits,
    }


def _row(record: KeyRecord) -> tuple[str, ...]:
    return record.id, record.name, _state(record), _date(record.created_s), _limits_text(record)


def _limits_text(record: KeyRecord) -> str:
    limits = record.limits
    counts = (
        (limits.requests_per_minute, "requests/min"),
        (limits.tokens_per_minute, "tokens/min"),
        (limits.concurrency, "at once"),
        (limits.monthly_tokens, "tokens/month"),
    )
    words = [f"{format_count(count)} {what}" for count, what in counts if count is not None]
    usd = (limits.monthly_microusd or 0) / 1e6
    words += [f"{usd:,.2f} USD/month"] if usd else []
    words += ["no fallback"] if not limits.fallback else []
    words += [f"models {','.join(limits.models)}"] if limits.models else []
    words += [f"priority {limits.priority}"] if limits.priority else []
    words += [f"weight {limits.weight}"] if limits.weight != 1 else []
    words += [f"within {format_duration(limits.timeout_s)}"] if limits.timeout_s is not None else []
    words += [f"until {_date(record.expires_s)}"] if record.expires_s is not None else []
    return ", ".join(words) or "no limits"


def _date(at_s: int | None) -> str:
    return "" if at_s is None else datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")
