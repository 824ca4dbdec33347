"""`freehold prices check`: which prices are old, second-hand or missing, and where to look. Nothing is fetched.

Exit codes: 0 no price is old; 3 some are.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from freehold.catalog.age import FRESH_DAYS
from freehold.catalog.coverage import LOOK, GpuPrices, PriceCheck, check_prices
from freehold.catalog.load import load_catalog
from freehold.cli.terminal.output import UserMistakes, say_json, show_lines
from freehold.cli.terminal.place import json_option
from freehold.cli.terminal.table import Row, paragraph, table, terminal_columns
from freehold.core.clock import wall_s

_COUNTS = ("on-demand", "marketplace", "reserved", "spot")
OLD = 3
"""Exit code: the prices work, and some should be looked up anew."""


@click.group("prices")
def command() -> None:
    """Look after the prices that plans rest on."""


@command.command("check", short_help="List old and missing prices.")
@click.option(
    "--prices",
    multiple=True,
    type=click.Path(path_type=Path),
    help="YAML with your own prices, laid over the catalog; can be given again.",
)
@json_option
def check(*, prices: tuple[Path, ...], as_json: bool) -> int:
    """List old, second-hand and missing prices, and where to look for each."""
    loaded = load_catalog(today=datetime.fromtimestamp(wall_s(), UTC).date(), overlays=prices)
    if loaded.catalog is None:
        raise UserMistakes(loaded.problems)
    found = check_prices(loaded.catalog)
    if as_json:
        gpus = [{**asdict(each), "lacks": each.lacks} for each in found.gpus]
        say_json({**asdict(found), "gpus": gpus, "old": found.old})
    else:
        show_lines(_lines(found, terminal_columns()))
    return OLD if found.old else 0


def _lines(found: PriceCheck, columns: int | None) -> list[str]:
    """Return what is said: how well each GPU is covered, then what is old, one paragraph per place to look."""
    rows = [Row(_cells(each)) for each in found.gpus]
    heads = ("gpu", *_COUNTS, "newest", "as bought", "lacks")
    lines = [*table(rows, columns, heads=heads, numbers=_COUNTS), ""]
    lines += paragraph(f"Where rentals stand: {LOOK['rentals']}", columns)
    places: dict[tuple[str, str], list[str]] = {}
    for each in found.stale:
        places.setdefault((each.why, each.look), []).append(each.name)
    for (why, look), names in places.items():
        lines += ["", *paragraph(f"{', '.join(names)}: {why}", columns)]
        lines += paragraph(f"look: {look}", columns, indent=4)
    said = f"{found.old} prices are older than {FRESH_DAYS} days on {found.today}; a plan widens their ranges"
    return [*lines, "", *paragraph(f"{said}. Your own prices: docs/prices.md", columns)]


def _cells(gpu: GpuPrices) -> tuple[str, ...]:
    counts = map(str, (gpu.on_demand, gpu.marketplace, gpu.reserved, gpu.spot))
    return (gpu.gpu, *counts, gpu.newest or "-", gpu.purchase, gpu.lacks or "-")
