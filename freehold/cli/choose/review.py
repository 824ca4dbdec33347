"""`freehold review`: the measured month put back into the cost model: is owning (or renting) still worth it?

It reads the stack's own ledger and the files that were named (watts, incidents), sizes the machines as they stand, and hands all
to freehold/cost. What was not measured is estimated, and the review says so; nothing is changed.
"""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from freehold.catalog.load import load_catalog
from freehold.cli.terminal.flag_options import flag_options, given_flags
from freehold.cli.terminal.output import UserMistakes, say_json
from freehold.cli.terminal.place import StackPlace, json_option, require_ledger, stack_options
from freehold.core.clock import wall_s
from freehold.cost.intake.flags import FlagReader
from freehold.cost.intake.review_inputs import Stack, flags_for_plan, period_of, review_flags, review_inputs
from freehold.cost.review.review import ReviewResult, review
from freehold.engines import all_engines
from freehold.ledger.journal import JOURNAL_NAME
from freehold.spec.load import load_file

_FILE = click.Path(path_type=Path)


@click.command("review")
@click.option(
    "--since",
    default="30d",
    help="From when, UTC: 2026-11-01, 2026-11-01T10:00Z, or 30d ago.",
    show_default=True,
)
@click.option("--until", default="", help="Up to and without then [default: now].")
@click.option(
    "--watts", type=_FILE, help="What the machines drew: CSV time,watts, or a Prometheus range query's JSON."
)
@click.option("--incidents", type=_FILE, help="When nodes were out: a JSON list of {start, end, what}.")
@flag_options(review_flags().values())
@click.option("--markdown", type=_FILE, help="Write a report in Markdown; - prints it.")
@stack_options
@json_option
def command(stack: StackPlace, *, as_json: bool, markdown: Path | None, **given: Any) -> None:
    """Say what the stack's tokens really cost, and whether going back to the API would be cheaper."""
    require_ledger(stack.state_path / JOURNAL_NAME)
    reader = FlagReader()
    result = _reviewed(stack, given, reader)
    if result is None or reader.problems:
        raise UserMistakes(reader.problems)
    if markdown is not None:
        from freehold.cli.choose.plan import write_report  # noqa: PLC0415 - seldom wanted
        from freehold.cost.report.markdown import review_to_markdown  # noqa: PLC0415

        write_report(markdown, review_to_markdown(result))
    if as_json:
        from freehold.cost.report.schema import to_jsonable  # noqa: PLC0415 - only here

        say_json(to_jsonable(result))
    elif str(markdown) != "-":
        from freehold.cost.report.review_terminal import show  # noqa: PLC0415 - rich takes its time to import

        show(result)


def _reviewed(place: StackPlace, given: dict[str, Any], reader: FlagReader) -> ReviewResult | None:
    now_s = wall_s()
    loaded = load_catalog(today=datetime.fromtimestamp(now_s, UTC).date(), overlays=given["prices"])
    reader.problems += loaded.problems
    stack = Stack(state_path=place.state_path, models=_own_models(place.config_path))
    period = period_of(given, stack, now_s=now_s, reader=reader)
    if loaded.catalog is None:
        return None
    inputs = review_inputs(given, period, stack=stack, catalog=loaded.catalog, reader=reader)
    if inputs is None or reader.problems:
        return None
    return review(replace(inputs, said=given_flags(flags_for_plan().values(), given)))


def _own_models(config: Path | None) -> frozenset[str]:
    """Return the models that the configuration names, as far as it can be read; its other mistakes do not matter here."""
    if config is None:
        return frozenset()
    loaded = load_file(config, engines=all_engines(), env=os.environ)
    return frozenset(str(model.get("name")) for model in loaded.models)
