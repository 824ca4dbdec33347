"""`freehold size`: does a model fit some GPUs, how fast is it there, and what does a load need.

Everything is worked out from the catalog and the roofline; nothing is measured and nothing runs. `freehold bench` measures.
Exit codes: 0 it fits and keeps the SLO; 3 it does not.
"""

from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import click

from freehold.catalog.facts import Catalog
from freehold.catalog.load import load_catalog
from freehold.cli.choose.engine_flags import read_engine_flags
from freehold.cli.terminal.flag_options import flag_options
from freehold.cli.terminal.output import UserMistakes, say_json
from freehold.cli.terminal.place import json_option
from freehold.core.clock import wall_s
from freehold.cost.intake.aiconfigurator import second_opinion
from freehold.cost.intake.flags import Flag, FlagReader, flags_in
from freehold.cost.intake.size_inputs import SizeInputs, size_inputs, sized_as_asked
from freehold.sizing.fleet.fleet import FleetTarget, fleet
from freehold.sizing.replica.answer import SecondOpinion, Sized, SizedFleet
from freehold.sizing.replica.explain import rests_on

_PLAN_FLAGS = (
    *("--model", "--model-config", "--gpu", "--engine", "--quant", "--input-tokens", "--output-tokens"),
    *(
        "--cached-share",
        "--slo-ttft-p95",
        "--slo-itl",
        "--tokens-per-month",
        "--peak",
        "--spares",
        "--prices",
    ),
)


def _flags() -> list[Flag]:
    flags = flags_in("plan", "size", "engine").items()
    return [flag for name, flag in flags if name in _PLAN_FLAGS or name not in flags_in("plan")]


@click.command("size")
@flag_options(_flags())
@click.option(
    "--second-opinion",
    "ask_second",
    is_flag=True,
    help="Print AIConfigurator's figure beside ours (needs requirements/aic.txt).",
)
@click.option(
    "--explain", is_flag=True, help="Print where the figure comes from and which measurements it rests on."
)
@json_option
def command(*, ask_second: bool, explain: bool, as_json: bool, **given: Any) -> int:
    """Say whether a model fits some GPUs, how fast it is there, and what a traffic needs."""
    loaded = load_catalog(today=datetime.fromtimestamp(wall_s(), UTC).date(), overlays=given["prices"])
    reader = FlagReader()
    reader.problems += loaded.problems
    if loaded.catalog is None:
        raise UserMistakes(reader.problems)
    wish, measured = read_engine_flags(given, reader, gpus=loaded.catalog.gpus)
    asked = size_inputs(given, wish, measured=measured, catalog=loaded.catalog, reader=reader)
    if asked is None or reader.problems:
        raise UserMistakes(reader.problems)
    sized = _sized(asked, loaded.catalog)
    needed = None
    if asked.traffic is not None and sized.fits:
        plan = FleetTarget(slo=asked.slo, spares=asked.spares, measured=asked.measured)
        needed = fleet(asked.ask, asked.traffic, plan=plan, catalog=loaded.catalog)
    second = second_opinion(sized) if ask_second else ""
    rests = rests_on(sized, loaded.catalog) if explain else ()
    if as_json:
        plain = as_plain(sized, needed, second=second)
        say_json(plain | ({"rests_on": [asdict(each) for each in rests]} if explain else {}))
        return _exit_code(sized)
    from freehold.cost.report.size_text import show_explained, show_sized  # noqa: PLC0415 - rich takes its time to import

    show_sized(sized, needed, second=second)
    if explain:
        show_explained(sized, rests, vector=loaded.catalog.calibrations[sized.calibration])
    return _exit_code(sized)


def _exit_code(sized: Sized) -> int:
    """Return 3 where the model does not fit or cannot keep the SLO, else 0. Source: DESIGN section 1, "Commands": 3 is a failed check."""
    return 0 if sized.concurrency else 3


def _sized(asked: SizeInputs, catalog: Catalog) -> Sized:
    sized = sized_as_asked(asked, catalog, asked.ask)
    if asked.advice is None:
        return sized
    why = (reason.text for reason in (*asked.advice.reasons, *asked.advice.against))
    return replace(sized, notes=(*sized.notes, *why))


def as_plain(sized: Sized, needed: SizedFleet | None, *, second: SecondOpinion | str = "") -> dict[str, Any]:
    """Return the published JSON of `freehold size`: times in ms, rates in tokens/s of the whole replica.

    `second_opinion` is there only if it was asked for: its figures, or `why_not`.
    """
    ask = sized.ask
    found = {
        "model": ask.shape.name,
        "gpu": ask.gpu.id,
        "count": ask.gpus,
        "engine": ask.engine,
        "quant": ask.quant,
        **{name: value for name, value in asdict(sized).items() if name != "ask"},
        "notes": list(sized.notes),
    }
    if (
        not sized.concurrency
    ):  # it does not fit, or misses the SLO alone: there is no speed, and none is not 0
        found |= dict.fromkeys(("output_tokens_per_s", "ttft_ms", "ttft_p95_ms", "itl_ms"))
    if needed is not None:
        found["fleet"] = {name: value for name, value in asdict(needed).items() if name != "sized"}
    if second:
        found["second_opinion"] = {"why_not": second} if isinstance(second, str) else asdict(second)
    return found
