"""`freehold review`: the measured month put back into the cost model: is owning (or renting) still worth it?

It reads the stack's own ledger and the files that were named (watts, incidents), sizes the machines as they stand, and hands all
to freehold/cost. What nobody measured is estimated and said so; nothing is changed.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import click

from freehold.catalog import look
from freehold.catalog.facts import ApiPrice, Catalog, Gpu
from freehold.catalog.load import load_catalog
from freehold.cli.output import UserMistakes, say_json
from freehold.cli.place import config_option, find_config, json_option, state_dir_option
from freehold.core.clock import wall_s
from freehold.core.problems import Problem
from freehold.core.spread import Spread
from freehold.core.units import parse_time_us
from freehold.cost.intake.api_choice import request_of
from freehold.cost.intake.bounds import (
    GPU_USD,
    GPUS_MAX,
    NODE_USD,
    RENTAL_USD_PER_GPU_HOUR,
    TOKENS_PER_MONTH_MAX,
    at_most,
    number_within,
)
from freehold.cost.intake.measured_period import MeasuredFiles, MeasuredPeriod, measured_period
from freehold.cost.intake.model_shape import find_shape
from freehold.cost.intake.numbers import Reader, read_count
from freehold.cost.intake.plan_flags import (
    NEED,
    PRICES,
    PlanAsk,
    chosen_model,
    number_options,
    read_plan_flags,
)
from freehold.cost.intake.plan_inputs import assumptions
from freehold.cost.review.review import ReviewInputs, ReviewResult, review
from freehold.engines import all_engines
from freehold.ledger.journal import JOURNAL_NAME
from freehold.sizing.fleet.choose import usual_quants
from freehold.sizing.fleet.fleet import SECONDS_PER_MONTH, Plan, capacity, fleet
from freehold.sizing.fleet.traffic import Traffic
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.replica.answer import Fleet, SizeAsk, Slo
from freehold.spec.load import load_file
from freehold.stack.folders import state_dir_for

_KEPT = ("--model", "--slo-ttft-p95", "--slo-itl", "--gpu", "--quant", "--engine", "--api")
_OWN = (
    "--staff-fte",
    "--staff-usd-per-year",
    "--region",
    "--power-usd-per-kwh",
    "--colo-usd-per-kw-month",
    "--pue",
    "--site",
    "--life-months",
    "--set",
)
_FLEET = (
    ("--count", "COUNT", "GPUs that serve, all together [default: 1]."),
    ("--gpus-per-replica", "COUNT", "GPUs that one replica is spread over [default: 1]."),
    (
        "--capacity-tokens-per-s",
        "COUNT",
        "Input and output tokens/s that all of it carries within the SLO, if you measured it [default: sized].",
    ),
    ("--rented-usd-per-gpu-hour", "USD", "The machines are rented at this price."),
    ("--gpu-usd", "USD", "The machines are bought: what one GPU cost."),
    ("--node-usd", "USD", "The machines are bought: what a whole server cost, with GPUs, memory and disks."),
)
_PLANNED = tuple(flag for flag in (*_KEPT, *_OWN) if flag not in {"--gpu", "--api"})
"""Flags that mean the same to `freehold plan`; GPU and API go there as they were found."""
_FILE = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What was asked, and where problems go."""

    ask: PlanAsk
    numbers: dict[str, float | None]
    flags: dict[str, Any]
    catalog: Catalog
    reader: Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machines:
    """The fleet as it stands and what was paid for it."""

    fleet: Fleet
    kind: Literal["rent", "buy"]
    rental_usd: float | None
    gpu_usd: float | None
    node_usd: float | None


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
@number_options(
    _FLEET, tuple(row for row in NEED if row[0] in _KEPT), tuple(row for row in PRICES if row[0] in _OWN)
)
@click.option(
    "--model-config",
    type=_FILE,
    help="A Hugging Face config.json or a .gguf, for a model that the catalog lacks.",
)
@click.option(
    "--prices", type=_FILE, multiple=True, help="YAML with your own prices and GPUs; can be given again."
)
@click.option("--markdown", type=_FILE, help="Write a report in Markdown; - prints it.")
@config_option
@state_dir_option
@json_option
def command(*, as_json: bool, markdown: Path | None, **flags: Any) -> None:
    """Say what the stack's tokens really cost, and whether going back to the API would be cheaper."""
    reader = Reader()
    result = _reviewed(flags, reader)
    if result is None or reader.problems:
        raise UserMistakes(reader.problems, as_json=as_json)
    if markdown is not None:
        from freehold.cli.plan import write_report  # noqa: PLC0415 - seldom wanted
        from freehold.cost.report.review_markdown import to_markdown  # noqa: PLC0415

        write_report(markdown, to_markdown(result))
    if as_json:
        from freehold.cost.report.schema import to_jsonable  # noqa: PLC0415 - only here

        say_json(to_jsonable(result))
    elif str(markdown) != "-":
        from freehold.cost.report.review_terminal import show  # noqa: PLC0415 - rich takes its time to import

        show(result)


def _reviewed(flags: dict[str, Any], reader: Reader) -> ReviewResult | None:
    now_s = wall_s()
    loaded = load_catalog(today=datetime.fromtimestamp(now_s, UTC).date(), overlays=flags["prices"])
    reader.problems += loaded.problems
    period = _period(flags, now_s, reader)
    numbers = {
        name: reader.take(read, f"--{name.replace('_', '-')}", flags.get(name))
        for name, read in _NUMBERS.items()
    }
    named = {"node_usd", *_NUMBERS}
    ask = read_plan_flags(
        {name: value for name, value in flags.items() if name in _PLAN_NAMES - named}, reader
    )
    if loaded.catalog is None or period is None:
        return None
    asked = _Asked(
        ask=ask,
        numbers=numbers,
        flags=flags,
        catalog=loaded.catalog,
        reader=reader,
    )
    inputs = _inputs(asked, period)
    return review(inputs) if inputs is not None and not reader.problems else None


_NUMBERS: Mapping[str, Callable[[str, str], float | Problem]] = {
    "count": at_most(read_count, GPUS_MAX),
    "gpus_per_replica": at_most(read_count, GPUS_MAX),
    "capacity_tokens_per_s": at_most(read_count, TOKENS_PER_MONTH_MAX),
    "rented_usd_per_gpu_hour": number_within(RENTAL_USD_PER_GPU_HOUR),
    "gpu_usd": number_within(GPU_USD),
    "node_usd": number_within(NODE_USD),
}
_PLAN_NAMES = {name[2:].replace("-", "_") for name, _, _ in (*NEED, *PRICES)}


def _period(flags: dict[str, Any], now_s: float, reader: Reader) -> MeasuredPeriod | None:
    since_us, until_us = parse_time_us(flags["since"], now_s), int(now_s * 1e6)
    if flags["until"]:
        until_us = parse_time_us(flags["until"], now_s) or -1
    for flag, value in (("--since", since_us), ("--until", until_us)):
        if value is None or value < 0:
            reader.wrong(
                flag, f"{flags[flag[2:]]!r} is no time", "for example 2026-11-24, 2026-11-24T10:00Z or 30d"
            )
    if since_us is not None and 0 <= until_us <= since_us:
        message = f"{flags['until'] or 'now'} is not after --since {flags['since']}"
        reader.wrong("--until" if flags["until"] else "--since", message, "the earlier time is --since")
    if reader.problems or since_us is None:
        return None
    files = MeasuredFiles(watts=flags["watts"], incidents=flags["incidents"], models=_own_models(flags))
    state_path = _state_path(flags)
    found = measured_period(state_path, files, since_s=since_us / 1e6, until_s=until_us / 1e6, now_s=now_s)
    reader.problems += found.problems
    if found.traffic is None and not found.problems:
        hint = (
            "another --since, or --config or --state-dir of the stack; freehold usage shows what was recorded"
        )
        reader.wrong("--since", f"the ledger in {state_path} has no tokens in that time", hint)
    return found


def _inputs(asked: _Asked, period: MeasuredPeriod) -> ReviewInputs | None:
    ask, catalog, reader = asked.ask, asked.catalog, asked.reader
    config = asked.flags["model_config"]
    shape = find_shape(chosen_model(replace(ask, model_config=config)), config, catalog)
    if not isinstance(shape, ModelShape):
        reader.problems += shape
    gpu = _gpu(ask, catalog, reader)
    own, rent = assumptions(ask, catalog, reader)
    if reader.problems or not isinstance(shape, ModelShape) or gpu is None or period.traffic is None:
        return None
    machines = _machines(asked, _deployment(asked, shape, gpu), period.traffic)
    api = _api(asked, period.traffic, shape)
    if machines is None or own is None or rent is None:
        return None
    return ReviewInputs(
        days=period.days,
        traffic=period.traffic,
        fleet=machines.fleet,
        kind=machines.kind,
        rental_usd_per_gpu_hour=machines.rental_usd,
        gpu_usd=machines.gpu_usd,
        node_usd=machines.node_usd,
        own=own,
        rent=rent,
        own_site=ask.site,
        ledger=_ledger(asked.flags),
        said=_said_for_plan(asked.flags),
        mean_w=period.watts.mean_w if period.watts else None,
        down_node_hours=period.down_node_hours,
        incidents=None if period.incidents is None else len(period.incidents),
        api=api,
        today=catalog.today,
    )


def _state_path(flags: dict[str, Any]) -> Path:
    return state_dir_for(flags["state_dir"], find_config(flags["config_flag"]))


def _own_models(flags: dict[str, Any]) -> frozenset[str]:
    """Return the models that the configuration names, as far as it can be read: what else is wrong with it is of no matter here."""
    path = find_config(flags["config_flag"])
    if path is None:
        return frozenset()
    loaded = load_file(path, engines=all_engines(), env=os.environ)
    return frozenset(str(model.get("name")) for model in loaded.models)


def _ledger(flags: dict[str, Any]) -> str:
    """Return the ledger's path, for `freehold plan --usage`; empty where all still lies in the spool."""
    path = _state_path(flags) / JOURNAL_NAME
    return str(path) if path.is_file() else ""


def _said_for_plan(flags: dict[str, Any]) -> tuple[str, ...]:
    """Return the flags that were given and that `freehold plan` has as well, with their values."""
    words: list[str] = []
    for flag in (*_PLANNED, "--model-config", "--prices"):
        value = flags[flag[2:].replace("-", "_")]
        name = "--config" if flag == "--model-config" else flag
        several = value if isinstance(value, tuple) else (value,)
        words += [word for each in several if each not in (None, "") for word in (name, str(each))]
    return tuple(words)


def _gpu(ask: PlanAsk, catalog: Catalog, reader: Reader) -> Gpu | None:
    if len(ask.gpus) != 1:
        reader.wrong(
            "--gpu", "name the one GPU that serves", "an id of the catalog, or of your own in --prices FILE"
        )
        return None
    found = look.gpu(catalog, ask.gpus[0])
    if isinstance(found, Problem):
        reader.problems.append(found)
        return None
    return found


def _deployment(asked: _Asked, shape: ModelShape, gpu: Gpu) -> SizeAsk:
    """Return what runs on one replica; the lengths are the traffic's, later."""
    ask, stored = asked.ask, shape.weights_bytes is not None
    quant = ask.quants[0] if ask.quants else usual_quants(shape, gpu)[0]
    return SizeAsk(
        shape=shape,
        gpu=gpu,
        gpus=int(asked.numbers["gpus_per_replica"] or 1),
        engine=(ask.engine or ("llama-cpp" if stored else "vllm")),  # type: ignore[arg-type] # checked against ENGINES
        quant=quant,  # type: ignore[arg-type] # checked against QUANTS
        input_tokens=1.0,
        output_tokens=1.0,
        concurrency=1,
    )


def _machines(asked: _Asked, deployment: SizeAsk, traffic: Traffic) -> _Machines | None:
    numbers, reader = asked.numbers, asked.reader
    bought = numbers["gpu_usd"] is not None or numbers["node_usd"] is not None
    rental = numbers["rented_usd_per_gpu_hour"]
    if bought and rental is not None:
        message = "the machines are said to be bought and rented"
        reader.wrong("--rented-usd-per-gpu-hour", message, "say one of the two")
    if not bought and rental is None:
        hint = "--gpu-usd, --node-usd, or --rented-usd-per-gpu-hour"
        reader.wrong("--gpu-usd", "nobody said what the machines cost", hint)
    count = int(numbers["count"] or deployment.gpus)
    if count % deployment.gpus:
        reader.wrong("--count", f"{count} GPUs are no whole number of replicas of {deployment.gpus}")
    standing = _standing(asked, deployment, traffic, count=count)
    if standing is None or reader.problems:
        return None
    return _Machines(
        fleet=standing,
        kind="rent" if rental is not None else "buy",
        rental_usd=rental,
        gpu_usd=numbers["gpu_usd"],
        node_usd=numbers["node_usd"],
    )


def _standing(asked: _Asked, deployment: SizeAsk, traffic: Traffic, *, count: int) -> Fleet | None:
    """Return the fleet as it stands, whatever the traffic would need."""
    slo = Slo(ttft_s=asked.ask.slo_ttft_s, itl_s=asked.ask.slo_itl_s)
    found = fleet(deployment, traffic, plan=Plan(slo=slo), catalog=asked.catalog)
    measured = asked.numbers["capacity_tokens_per_s"]
    if not found.replicas and measured is None:
        asked.reader.wrong("--gpu", found.sized.why_not, "or say what you measured: --capacity-tokens-per-s")
        return None
    replicas = count // deployment.gpus
    carries = Spread.exactly(measured) if measured else capacity(found.sized).times(replicas)
    return replace(
        found,
        replicas=replicas,
        spare_replicas=0,
        gpus=count,
        nodes=math.ceil(count / deployment.gpus_per_node),
        capacity_tokens_per_s=carries,
        utilisation=traffic.tokens_per_month / (carries.mid * SECONDS_PER_MONTH),
    )


def _api(asked: _Asked, traffic: Traffic, shape: ModelShape) -> ApiPrice | None:
    """Return what going back would mean: the API that was named, or the cheapest that serves the same model."""
    if not asked.ask.api:
        same = look.same_model_apis(asked.catalog, shape.name)
        return same[0] if same else None
    found = look.api(asked.catalog, asked.ask.api, request=request_of(traffic))
    if isinstance(found, Problem):
        asked.reader.problems.append(found)
        return None
    return found
