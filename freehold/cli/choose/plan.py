"""`freehold plan`: stay on the API, rent or buy, and what: from the team's own traffic, with ranges and one verdict.

It asks a person for the two inputs that matter most, the rental quote and the staff, where flags do not say them. It
reads the catalog, the team's files and the clock, and hands everything to freehold/cost, which knows none of them.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from freehold.cli.choose.engine_flags import read_engine_flags
from freehold.cli.terminal.flag_options import flag_options, given_flags
from freehold.cli.terminal.output import UserMistakes, say_json
from freehold.cli.terminal.place import json_option
from freehold.core.clock import wall_s
from freehold.core.errors import Permanent
from freehold.core.problems import Problem
from freehold.core.spread import Spread
from freehold.cost.intake.flags import FlagReader, assumption_bounds, flags_in
from freehold.cost.intake.numbers import spread
from freehold.cost.intake.plan_flags import PlanAsk, chosen_model, read_plan_flags
from freehold.cost.intake.rental_quotes import FORM, RENTAL_FLAG, Rentals, read_rentals

T = TypeVar("T")
_FILE = click.Path(path_type=Path)
_FLAGS = tuple(flags_in("plan", "assumptions", "engine").values())


@click.command("plan")
@flag_options(_FLAGS)
@click.option(
    "--draws",
    default=100_000,
    type=click.IntRange(1_000, 1_000_000),
    help="Draws for the ranges.",
    show_default=True,
)
@click.option("--seed", default=1, help="Of the draws.", show_default=True)
@click.option("--html", type=_FILE, help="Write a report with plots: one file, for paper and phone.")
@click.option("--markdown", type=_FILE, help="Write a report in Markdown; - prints it.")
@click.option("--rules", is_flag=True, help="Print the field's rules of thumb beside your numbers, too.")
@click.option("--no-input", is_flag=True, help="Ask nothing.")
@json_option
def command(
    *, html: Path | None, markdown: Path | None, rules: bool, no_input: bool, as_json: bool, **given: Any
) -> None:
    """Say whether to stay on the API, to rent or to buy, and what: from your own traffic, with ranges."""
    reader = FlagReader()
    said = given_flags(_FLAGS, given)
    ask = read_plan_flags(given, reader)
    if not (no_input or as_json or reader.problems) and sys.stdin.isatty() and sys.stdout.isatty():
        before, ask = ask, _ask_first(ask)
        said += _answers(before, ask)
    inputs = _inputs(ask, given, reader)
    result = _planned(replace(inputs, draws=given["draws"], seed=given["seed"], said=said))
    if html is not None:
        from freehold.cost.report.html import to_html  # noqa: PLC0415 - plots take their time to import

        write_report(html, to_html(result))
    if markdown is not None:
        from freehold.cost.report.markdown import to_markdown  # noqa: PLC0415 - seldom wanted

        write_report(markdown, to_markdown(result))
    if as_json:
        from freehold.cost.report.schema import to_jsonable  # noqa: PLC0415 - only here

        say_json(to_jsonable(result))
    elif str(markdown) != "-":
        from freehold.cost.report.terminal import show  # noqa: PLC0415 - rich takes its time to import

        show(result, rules=rules)


def _ask_first(ask: PlanAsk) -> PlanAsk:
    """Ask for the rental quote and the staff where flags do not say them; an empty answer means not known."""
    if not ask.rentals:
        what = f"of one {ask.gpus[0]}" if len(ask.gpus) == 1 else "and for which GPU, such as h100-sxm=2.10"
        rentals = _prompt(
            f"Your rental quote, USD per GPU-hour {what} (Enter: the catalog's prices)", _rentals(ask)
        )
        ask = ask if rentals is None else replace(ask, rentals=rentals)
    if "staff_fte" not in ask.assumptions:
        question = "People for owned machines, on-call included, full-time equivalents (Enter: assumed)"
        staff = _prompt(question, spread(assumption_bounds("staff_fte")))
        if staff is not None:
            ask = replace(ask, assumptions=ask.assumptions | {"staff_fte": staff})
    return ask


def _answers(before: PlanAsk, after: PlanAsk) -> tuple[str, ...]:
    """Return what was answered as the flags that say it."""
    words: list[str] = []
    if after.rentals != before.rentals:
        quotes = (f"{gpu}={_number(usd)}" if gpu else _number(usd) for gpu, usd in after.rentals.items())
        words += [RENTAL_FLAG, ",".join(quotes)]
    if after.assumptions != before.assumptions:
        words += ["--staff-fte", _number(after.assumptions["staff_fte"])]
    return tuple(words)


def _number(usd: Spread) -> str:
    return f"{usd.low:g}" if usd.low == usd.high else f"{usd.low:g}..{usd.high:g}"


def _rentals(ask: PlanAsk) -> Callable[[str, str], Rentals | Problem]:
    """Return a reader of rental quotes that asks for the GPU where none is clear."""

    def read(flag: str, text: str) -> Rentals | Problem:
        found = read_rentals(flag, text)
        if isinstance(found, Problem) or "" not in found or len(ask.gpus) == 1:
            return found
        return Problem(where=flag, message=f"{text!r} does not name its GPU", hint=FORM)

    return read


def _prompt(question: str, read: Callable[[str, str], T | Problem]) -> T | None:
    while True:
        text = click.prompt(question, default="", show_default=False, err=True).strip()
        if not text:
            return None
        found = read("the answer", text)
        if not isinstance(found, Problem):
            return found
        click.echo(f"{found.message}: {found.hint}", err=True)


def _inputs(ask: PlanAsk, given: dict[str, Any], reader: FlagReader) -> Any:
    # Imported here, so that `freehold plan --help` need not wait for numpy.
    from freehold.catalog.load import load_catalog  # noqa: PLC0415
    from freehold.cost.intake.load_tests import impossible  # noqa: PLC0415
    from freehold.cost.intake.model_shape import find_shape  # noqa: PLC0415
    from freehold.cost.intake.plan_inputs import plan_inputs  # noqa: PLC0415
    from freehold.cost.intake.plan_traffic import find_traffic  # noqa: PLC0415
    from freehold.sizing.model.shape import ModelShape  # noqa: PLC0415

    loaded = load_catalog(today=datetime.fromtimestamp(wall_s(), UTC).date(), overlays=ask.prices)
    reader.problems += loaded.problems
    traffic = find_traffic(ask, reader)
    inputs = None
    if loaded.catalog is not None:
        found = find_shape(chosen_model(ask), ask.model_config, loaded.catalog)
        shape = found if isinstance(found, ModelShape) else None
        wish, measured = read_engine_flags(given, reader, gpus=loaded.catalog.gpus)
        ask = replace(ask, wish=wish, measured=measured)
        reader.problems += impossible(measured, shape, loaded.catalog.gpus) if shape else ()
        reader.problems += () if isinstance(found, ModelShape) else found
        inputs = plan_inputs(ask, traffic, shape=shape, catalog=loaded.catalog, reader=reader)
    if inputs is None or reader.problems:
        raise UserMistakes(reader.problems)
    return inputs


def _planned(inputs: Any) -> Any:
    from freehold.cost.plan import plan  # noqa: PLC0415 - as above

    return plan(inputs)


def write_report(path: Path, text: str) -> None:
    """Write a report to a file, or print it for `-`; raises Permanent where the file cannot be written."""
    if str(path) == "-":
        click.echo(text)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise Permanent(
            f"cannot write {path}: {exc.strerror}", hint="name a file that can be written"
        ) from exc
    click.echo(f"wrote {path}", err=True)
