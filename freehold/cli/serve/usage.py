"""`freehold usage`: what was used, by model, key, endpoint, day or hour, while the stack runs and when it is down.

It only reads: the ledger file, and what still lies in the spool. Times are UTC. Nothing is guessed: requests of whose
tokens something is unknown are counted in a column of their own, and so are estimates and requests that could not be
recorded. Costs are added up exactly; an unknown one adds nothing and makes a sum a least one. The
engines' own counts and the gap are printed below.
"""

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from freehold.cli.terminal.output import UserMistakes, say_json, show_lines, styled
from freehold.cli.terminal.place import (
    StackPlace,
    json_option,
    require_config,
    require_readable,
    stack_options,
)
from freehold.cli.terminal.table import Row, paragraph, table, terminal_columns
from freehold.core.clock import wall_s
from freehold.core.errors import FreeholdError
from freehold.core.problems import Problem, nearest_hint
from freehold.core.units import parse_time_us
from freehold.ledger.books import read_ledger
from freehold.ledger.journal import JOURNAL_NAME, Span
from freehold.ledger.records.money import usd
from freehold.ledger.records.reconcile import Gap
from freehold.ledger.records.rollup import (
    DAY_HOURS,
    DIMENSIONS,
    HOUR_US,
    SUMS,
    Dimension,
    UsageTally,
    roll_up,
)

_DAY_US = DAY_HOURS * HOUR_US
_HEADS = {
    "prompt_tokens": "prompt",
    "cached_tokens": "cached",
    "completion_tokens": "completion",
    "estimated_tokens": "estimated",
}
_CONTINUED = (
    "below zero: an answer that another replica continued is recorded whole with the replica that finished it; "
    "the total holds both"
)


@click.command("usage")
@click.option("--since", default="", help="From then on, UTC: 2026-11-24, 2026-11-24T10:00Z, or 7d ago.")
@click.option("--until", default="", help="Up to and without then, in the same forms.")
@click.option(
    "--by",
    default="model",
    help=f"What to group by, with commas: {', '.join(DIMENSIONS)}.",
    show_default=True,
)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@stack_options
@json_option
def command(stack: StackPlace, *, since: str, until: str, by: str, as_csv: bool, as_json: bool) -> None:
    """Show usage and cost by model, key, endpoint, day or hour, and the engines' own token counts.

    A request failed where the stack could not answer it (HTTP 500 or above). An engine rejected it where the client's
    request was wrong (4xx).
    """
    span, dimensions = _read_options(since, until, by)
    if not stack.state_path.exists():
        require_config(stack)
    require_readable(stack.state_path / JOURNAL_NAME)
    books = read_ledger(stack.state_path, span)
    rows = roll_up(books.tallies, dimensions)
    names = _key_names(stack.config_path) if "key" in dimensions and not as_csv else {}
    if as_json:
        say_json(_as_json(rows, dimensions, books.gaps, names))
    elif as_csv:
        _show_csv(rows, dimensions)
    else:
        _show_table([(_named(place, dimensions, names), row) for place, row in rows], dimensions)
        _show_gaps(books.gaps)


def _read_options(since: str, until: str, by: str) -> tuple[Span, list[Dimension]]:
    problems, now_s = [], wall_s()
    times: dict[str, int] = {}
    for name, text in (("--since", since), ("--until", until)):
        found = parse_time_us(text, now_s) if text else None
        if found is not None:
            times[name] = max(0, found)
        elif text:
            hint = "for example 2026-11-24, 2026-11-24T10:00Z, 24h or 7d"
            problems.append(Problem(where=name, message=f"{text!r} is not a time", hint=hint))
    words = [word.strip() for word in by.split(",")]
    for word in words:
        if word not in DIMENSIONS:
            hint = nearest_hint(word, DIMENSIONS)
            problems.append(Problem(where="--by", message=f"cannot group by {word!r}", hint=hint))
    if problems:
        raise UserMistakes(problems)
    until_us = times.get("--until", int(now_s * 1e6) + _DAY_US)
    return Span(since_us=times.get("--since", 0), until_us=until_us), [d for d in DIMENSIONS if d in words]


Rows = list[tuple[tuple[str, ...], UsageTally]]


_COUNTS = tuple(name for name in SUMS if name not in {"cost_picousd", "cost_unknown"})


def _sums_of(row: UsageTally) -> dict[str, int | str | None]:
    """Return a row's sums for a program: the cost is exact, as text, and null where no request has a known one."""
    counts = {name: getattr(row, name) for name in _COUNTS}
    cost_usd = f"{usd(row.cost_picousd):f}" if row.priced else None
    return {**counts, "cost_usd": cost_usd, "cost_unknown": row.cost_unknown}


def _cost_text(row: UsageTally) -> str:
    """Return a row's cost for people: `≥` where some requests' cost is not known, which add nothing to it."""
    if not row.priced:
        return "unknown" if row.cost_unknown else "-"
    least = "≥ " if row.cost_unknown else ""
    return f"{least}{usd(row.cost_picousd):,f}"


def _key_names(config_path: Path | None) -> dict[str, str]:
    """Return the keys' names by id; empty where configuration or keys file cannot be read, since usage needs neither."""
    from freehold.stack.config import read_keyless  # noqa: PLC0415 - takes its time to import
    from freehold.stack.key_file import read_keys_of  # noqa: PLC0415

    config = read_keyless(config_path)
    try:
        return {} if isinstance(config, list) else {key.id: key.name for key in read_keys_of(config)}
    except FreeholdError:
        return {}


def _named(
    place: tuple[str, ...], dimensions: Sequence[Dimension], names: Mapping[str, str]
) -> tuple[str, ...]:
    """Return a row's place with the key's name before its id, since two keys may have one name."""
    return tuple(
        f"{names[part]} ({part})" if dimension == "key" and part in names else part
        for dimension, part in zip(dimensions, place, strict=True)
    )


def _as_json(
    rows: Rows, dimensions: Sequence[Dimension], gaps: Sequence[Gap], names: Mapping[str, str]
) -> dict[str, Any]:
    def of(place: tuple[str, ...]) -> dict[str, str | None]:
        found: dict[str, str | None] = dict(zip(dimensions, place, strict=True))
        return found | ({"key_name": names.get(found["key"] or "")} if "key" in found else {})

    return {
        "usage": [of(place) | _sums_of(row) for place, row in rows],
        "engines": [asdict(gap) | {"gap_tokens": gap.gap_tokens} for gap in gaps],
    }


def _show_csv(rows: Rows, dimensions: Sequence[Dimension]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*dimensions, *_sums_of(UsageTally())])
    for place, row in rows:
        writer.writerow([*place, *_sums_of(row).values()])


def _show_table(rows: Rows, dimensions: Sequence[Dimension]) -> None:
    if not rows:
        click.echo("nothing was recorded in that time")
        return
    # A column of zeros is left out.
    total = roll_up([row for _, row in rows], ())[0][1]
    shown = [
        name
        for name in _COUNTS
        if name != "priced"
        and (getattr(total, name) or name in {"requests", "prompt_tokens", "completion_tokens"})
    ]
    costs = total.priced or total.cost_unknown

    def cells(row: UsageTally) -> list[str]:
        return [f"{getattr(row, name):,}" for name in shown] + ([_cost_text(row)] if costs else [])

    numbers = [*(_HEADS.get(name, name) for name in shown), *(["cost USD"] if costs else [])]
    lines = [Row([*(part or "-" for part in place), *cells(row)]) for place, row in rows]
    if len(rows) > 1:
        lines.append(Row(["total", *[""] * (len(dimensions) - 1), *cells(total)]))
    show_lines(table(lines, terminal_columns(), heads=[*dimensions, *numbers], numbers=numbers))


def _show_gaps(gaps: Sequence[Gap]) -> None:
    """Print the engines' own counts and the recorded ones, over whole days."""
    known = [
        (gap.endpoint, gap.engine_tokens, gap.ledger_tokens) for gap in gaps if gap.engine_tokens is not None
    ]
    if not known:
        return
    if len(known) > 1:
        known.append(("total", sum(each[1] for each in known), sum(each[2] for each in known)))
    click.echo()
    rows = []
    for name, engine, ledger in known:
        share = f"{100 * (engine - ledger) / engine:.1f}%" if engine else "-"
        rows.append(Row([name, f"{engine:,}", f"{ledger:,}", f"{engine - ledger:,} ({share})"]))
    numbers = ("its own count", "recorded", "gap")
    columns = terminal_columns()
    show_lines(table(rows, columns, heads=("engine", *numbers), numbers=numbers))
    notes = ["generated tokens over whole days (UTC); the gap holds readiness checks and cut answers"]
    if any(engine < ledger for _, engine, ledger in known):
        notes.append(_CONTINUED)
    show_lines(styled(line, dim=True) for note in notes for line in paragraph(note, columns))
