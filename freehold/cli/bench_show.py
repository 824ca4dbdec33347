"""What `freehold bench` prints, and its subcommands on a results file: `show`, with another to compare, and `apply`.

Nothing is measured here; a file is read and, by `apply`, freehold.yaml is written.
"""

from pathlib import Path
from typing import Any

import click
import msgspec

from freehold.bench.choose import Choice, choose
from freehold.bench.results import BenchFile, Through
from freehold.bench.results_file import read
from freehold.bench.table import (
    choice_lines,
    compared,
    compared_lines,
    gpu_lines,
    lines_of,
    overhead_lines,
    yardstick_lines,
)
from freehold.cli.place import json_option
from freehold.cli.say import UserMistakes, say_json, styled
from freehold.core.errors import Permanent
from freehold.core.problems import Problem

_FILE = click.Path(path_type=Path)


def load_bench(path: Path, *, as_json: bool) -> BenchFile:
    """Return a results file, or raise UserMistakes."""
    found = read(path)
    if isinstance(found, Problem):
        raise UserMistakes([found], as_json=as_json)
    return found


def chosen(bench: BenchFile) -> Choice:
    """Return the choice as engines were asked directly, or through the gateway where that is all there is."""
    through: Through = "direct" if any(each.through == "direct" for each in bench.results) else "gateway"
    return choose(bench, through)


@click.command("show", short_help="Show a results file.")
@click.argument("file", type=_FILE)
@click.option("--compare", type=_FILE, help="An older results file: how each engine stands now to then.")
@click.option("--html", type=_FILE, help="Write a page with plots.")
@json_option
def show(*, file: Path, compare: Path | None, html: Path | None, as_json: bool) -> None:
    """Show a bench and its choice again."""
    bench = load_bench(file, as_json=as_json)
    choice = chosen(bench)
    if html is not None:
        write_page(bench, choice, html)
    if compare is not None:
        _say_compared(load_bench(compare, as_json=as_json), bench, as_json=as_json)
        return
    say_bench(bench, choice, path=file, as_json=as_json)


def _say_compared(old: BenchFile, new: BenchFile, *, as_json: bool) -> None:
    if as_json:
        say_json({"compared": [msgspec.to_builtins(each) for each in compared(old, new)]})
        return
    for line in compared_lines(old, new):
        click.echo(line)


@click.command("apply", short_help="Write the winner.")
@click.argument("file", type=_FILE)
@click.option("--dry-run", is_flag=True, help="Show the difference and write nothing.")
@json_option
def apply(*, file: Path, dry_run: bool, as_json: bool) -> None:
    """Write a bench's winner to freehold.yaml."""
    bench = load_bench(file, as_json=as_json)
    choice = chosen(bench)
    if choice.winner is None:
        raise Permanent("there is no winner to apply", hint=choice.reasons[0])
    apply_winner(bench, choice, dry_run=dry_run, as_json=as_json)


def apply_winner(bench: BenchFile, choice: Choice, *, dry_run: bool = False, as_json: bool) -> None:
    """Write the winner into freehold.yaml, with the difference shown and the old file kept."""
    from freehold.bench.apply import left_out, prepared  # noqa: PLC0415 - ruamel.yaml takes its time to import

    assert choice.winner is not None
    if not bench.config:
        raise Permanent(
            "the built-in example was benched", hint="freehold init writes a freehold.yaml: bench that"
        )
    found = prepared(Path(bench.config), choice.winner.candidate, wanted_sha256=bench.config_sha256)
    if isinstance(found, Problem):
        raise UserMistakes([found], as_json=as_json)
    backup = None
    if found.changed and not dry_run:
        try:
            backup = found.write()
        except OSError as exc:
            raise Permanent(f"cannot write {found.path}: {exc.strerror or exc}") from exc
    said = {"path": str(found.path), "changed": found.changed, "backup": str(backup) if backup else None}
    missing = left_out(choice.winner.candidate)
    if as_json:
        winner = choice.winner.candidate.id
        say_json({"applied": {**said, "diff": found.diff(), "winner": winner, "left_out": missing}})
        return
    click.echo(found.diff() or f"{found.path} has the winner already", nl=not found.changed)
    if backup is not None:
        click.echo(f"{found.path} is written; the old one is {backup}. Next: freehold reload, or freehold up")
    if missing:
        click.echo(f"{styled('mind', colour='yellow')}: {missing}", err=True)


def write_page(bench: BenchFile, choice: Choice, path: Path) -> None:
    """Write the page with plots; raises Permanent."""
    from freehold.bench.page import to_html  # noqa: PLC0415 - seldom wanted

    try:
        path.write_text(to_html(bench, choice), encoding="utf-8")
    except OSError as exc:
        raise Permanent(f"cannot write {path}: {exc.strerror or exc}") from exc


def say_bench(bench: BenchFile, choice: Choice, *, path: Path, as_json: bool) -> None:
    """Print a bench: a table and the choice, or all of it as JSON."""
    if as_json:
        say_json({"bench": msgspec.to_builtins(bench), "choice": choice_json(choice), "file": str(path)})
        return
    for number, line in enumerate(lines_of(bench)):
        click.echo(styled(line, bold=True) if number == 0 else line)
    for line in (*overhead_lines(bench), *yardstick_lines(bench), *gpu_lines(bench)):
        click.echo(line)
    click.echo("times in ms; medians of the runs (least-greatest)")
    click.echo()
    for number, line in enumerate(choice_lines(choice)):
        click.echo(styled(line, bold=True) if number == 0 else line)
    click.echo(f"{path}: freehold bench show, apply; freehold size --bench, plan --bench")


def choice_json(choice: Choice) -> dict[str, Any]:
    """Return the choice for a program; `winner` is null where nobody kept the SLO."""
    winner = choice.winner
    told = None
    if winner is not None:
        told = {
            "id": winner.candidate.id,
            "model": winner.candidate.model,
            "engine": winner.candidate.engine,
            "options": winner.candidate.options,
            "load": winner.load.words(),
            "goodput_tokens_per_s": winner.goodput.median,
        }
    return {"winner": told, "reasons": list(choice.reasons), "doubts": list(choice.doubts)}
