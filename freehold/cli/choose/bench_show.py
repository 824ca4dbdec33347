"""What `freehold bench` prints, and its subcommands on a results file: `show`, with another to compare, and `apply`.

Nothing is measured here; a file is read and, by `apply`, freehold.yaml is written. Exit codes of `apply`: 0 it is as the winner
wants it, 2 the file is none, is half, or is of another freehold.yaml, 3 there is no winner.
"""

import os
from pathlib import Path
from typing import Any

import click
import msgspec

from freehold.bench.analysis.choose import Choice, choose
from freehold.bench.analysis.results import BenchFile, Through
from freehold.bench.report.table import (
    choice_lines,
    compared,
    compared_lines,
    gpu_lines,
    lines_of,
    overhead_lines,
    yardstick_lines,
)
from freehold.bench.results_file import read
from freehold.cli.terminal.output import UserMistakes, mistake, say_json, show_failure, styled
from freehold.cli.terminal.place import json_option
from freehold.cli.terminal.table import paragraph, terminal_columns
from freehold.core.errors import Permanent
from freehold.core.problems import Problem

_FILE = click.Path(path_type=Path)
NO_WINNER = 3
"""Exit code where no candidate kept the SLO. Source: DESIGN section 1, "Commands": a check found a problem."""


def load_bench(path: Path) -> BenchFile:
    """Return a results file, or raise UserMistakes."""
    found = read(path)
    if isinstance(found, Problem):
        raise UserMistakes([found])
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
    bench = load_bench(file)
    choice = chosen(bench)
    if html is not None and (why := why_not_written(html)):
        raise mistake("--html", why, "a file in a folder that is there")
    if html is not None:
        write_page(bench, choice, html)
    if compare is not None:
        _say_compared(load_bench(compare), bench, as_json=as_json)
        return
    say_bench(bench, choice, path=file, as_json=as_json)


def _say_compared(old: BenchFile, new: BenchFile, *, as_json: bool) -> None:
    if as_json:
        say_json({"compared": [msgspec.to_builtins(each) for each in compared(old, new)]})
        return
    for line in compared_lines(old, new, terminal_columns()):
        click.echo(line)


@click.command("apply", short_help="Write the winner.")
@click.argument("file", type=_FILE)
@click.option("--dry-run", is_flag=True, help="Show the difference and write nothing.")
@json_option
def apply(*, file: Path, dry_run: bool, as_json: bool) -> int:
    """Write a bench's winner to freehold.yaml."""
    bench = load_bench(file)
    choice = chosen(bench)
    if bench.interrupted:
        raise mistake(str(file), HALF, _WHOLE)
    if choice.winner is None:
        show_failure("there is no winner to apply", choice.reasons[0], as_json=as_json)
        return NO_WINNER
    apply_winner(bench, choice, dry_run=dry_run, as_json=as_json)
    return 0


HALF = "it ended before all was measured, and the rest may be better: its winner is not applied"
_WHOLE = "let a bench run to its end; freehold bench show prints what this one has"


def apply_or_say(bench: BenchFile, choice: Choice, *, as_json: bool) -> None:
    """Write the winner of a bench that has just ended, or say why not; the exit code is the bench's own."""
    why = HALF if bench.interrupted else ""
    if choice.winner is None:
        why = why or f"there is no winner to apply: {choice.reasons[0]}"
    if not why:
        apply_winner(bench, choice, as_json=as_json)
    elif as_json:
        say_json({"applied": None, "why": why})
    else:
        click.echo(f"nothing is written into freehold.yaml: {why}", err=True)


def apply_winner(bench: BenchFile, choice: Choice, *, dry_run: bool = False, as_json: bool) -> None:
    """Write the winner into freehold.yaml, with the difference shown, the old file kept, and all that makes it doubtful printed."""
    from freehold.bench.apply import left_out, prepared, unmeasured  # noqa: PLC0415 - ruamel.yaml takes its time to import

    assert choice.winner is not None
    if not bench.config:
        hint = "freehold init writes a freehold.yaml: bench that"
        raise mistake("freehold.yaml", "the built-in example was benched", hint)
    found = prepared(Path(bench.config), choice.winner.candidate, wanted_sha256=bench.config_sha256)
    if isinstance(found, Problem):
        raise UserMistakes([found])
    backup = None
    if found.changed and not dry_run:
        try:
            backup = found.write()
        except OSError as exc:
            raise Permanent(f"cannot write {found.path}: {exc.strerror or exc}") from exc
    missing = left_out(choice.winner.candidate)
    doubts = (*unmeasured(found.before, choice.winner.candidate), *choice.doubts)
    if as_json:
        said = {"path": str(found.path), "changed": found.changed, "backup": str(backup) if backup else None}
        said |= {"diff": found.diff(), "winner": choice.winner.candidate.id, "left_out": missing}
        say_json({"applied": {**said, "doubts": list(doubts)}})
        return
    click.echo(found.diff() or f"{found.path} has the winner already", nl=not found.changed)
    if backup is not None:
        click.echo(f"{found.path} is written; the old one is {backup}. Next: freehold reload, or freehold up")
    for each in (*([missing] if missing else []), *doubts):
        click.echo(f"{styled('mind', colour='yellow')}: {each}", err=True)


def why_not_written(path: Path) -> str:
    """Return why a file could not be put at a path, as far as can be seen before; empty: nothing stands against it."""
    folder = path.absolute().parent
    if path.is_dir():
        return f"{path} is a folder"
    if not folder.is_dir():
        return f"there is no folder {folder}"
    return "" if os.access(folder, os.W_OK) else f"{folder} cannot be written by this user"


def write_page(bench: BenchFile, choice: Choice, path: Path) -> None:
    """Write the page with plots; raises Permanent."""
    from freehold.bench.report.page import to_html  # noqa: PLC0415 - seldom wanted

    try:
        path.write_text(to_html(bench, choice), encoding="utf-8")
    except OSError as exc:
        raise Permanent(f"cannot write {path}: {exc.strerror or exc}") from exc


def say_bench(bench: BenchFile, choice: Choice, *, path: Path, as_json: bool) -> None:
    """Print a bench: a table and the choice, or all of it as JSON."""
    if as_json:
        say_json({"bench": msgspec.to_builtins(bench), "choice": choice_json(choice), "file": str(path)})
        return
    columns = terminal_columns()
    for number, line in enumerate(lines_of(bench, columns)):
        click.echo(styled(line, bold=True) if number == 0 else line)
    for line in (*overhead_lines(bench), *yardstick_lines(bench), *gpu_lines(bench)):
        _echo(line, columns)
    click.echo("times in ms; medians of the runs (least-greatest)")
    click.echo()
    for number, line in enumerate(choice_lines(choice)):
        _echo(styled(line, bold=True) if number == 0 else line, columns)
    click.echo(f"{path}: freehold bench show, apply; freehold size --bench, plan --bench")


def _echo(line: str, columns: int | None) -> None:
    indent = len(line) - len(line.lstrip())
    click.echo("\n".join(paragraph(line.strip(), columns, indent=indent)))


def choice_json(choice: Choice) -> dict[str, Any]:
    """Return the choice for a program; `winner` is null where no candidate kept the SLO."""
    winner = choice.winner
    best = None
    if winner is not None:
        best = {
            "id": winner.candidate.id,
            "model": winner.candidate.model,
            "engine": winner.candidate.engine,
            "options": winner.candidate.options,
            "load": winner.load.words(),
            "goodput_tokens_per_s": winner.goodput.median,
        }
    return {"winner": best, "reasons": list(choice.reasons), "doubts": list(choice.doubts)}
