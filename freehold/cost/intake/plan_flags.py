"""The flags of `freehold plan` read into a record: every mistake among them is found before anything is worked out.

Names that only the catalog knows (models, GPUs, APIs, regions) are checked where the catalog is read. Nothing here
reads a file.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from freehold.core.problems import nearest_hint
from freehold.core.spread import Spread
from freehold.cost.intake.bounds import (
    ITL_S_MAX,
    NODE_USD,
    PEAK,
    REQUEST_TOKENS_MAX,
    SPARES,
    TOKENS_PER_MONTH_MAX,
    TTFT_S_MAX,
    assumption_bounds,
    at_most,
    number_within,
    range_within,
    whole_number,
)
from freehold.cost.intake.numbers import Reader, read_count, read_seconds, read_share
from freehold.cost.intake.rental_quotes import Rentals, read_rentals
from freehold.sizing.model.words import Engine, Quant

if TYPE_CHECKING:  # `freehold plan --help` need not wait for these
    from freehold.sizing.fleet.advise import Wish
    from freehold.sizing.replica.answer import Measured

ENGINES: tuple[str, ...] = get_args(Engine)
QUANTS: tuple[str, ...] = get_args(Quant)
SITES = ("colocation", "on-premises")
DEFAULT_MODEL = "llama-3.1-8b"

TRAFFIC = (
    ("--tokens-per-month", "COUNT", "Input and output tokens together, for example 900M."),
    ("--input-output", "RATIO", "Input tokens to output tokens [default: 3:1]."),
    ("--input-tokens", "COUNT", "Input tokens of a mean request [default: 1500]."),
    ("--output-tokens", "COUNT", "Output tokens of a mean request [default: by --input-output]."),
    ("--cached-share", "SHARE", "Of the input tokens, those that a prefix cache holds [default: 0%]."),
    ("--batch-share", "SHARE", "Of all tokens, those that can wait a day [default: 0%]."),
    ("--peak", "FACTOR", "Busiest hour over the mean hour [default: 2.5, or the history's]."),
    ("--growth", "SHARE", "Growth of the traffic a month [default: 0%]."),
)
NEED = (
    ("--model", "ID", f"The open model that would be run [default: {DEFAULT_MODEL}]."),
    ("--slo-ttft-p95", "TIME", "Time to first token that 95 of 100 requests keep [default: 2s]."),
    ("--slo-itl", "TIME", "Mean time between two tokens of an answer [default: 50ms]."),
    ("--gpu", "A,B", "GPUs to look at [default: all of the catalog that can be bought or rented]."),
    ("--quant", "A,B", f"Weights to look at: {', '.join(QUANTS)} [default: what fits the GPU]."),
    ("--engine", "NAME", f"{', '.join(ENGINES)} [default: the one that is advised]."),
    ("--spares", "COUNT", "Replicas held beyond the peak's need [default: none, an API answers]."),
    ("--api", "PROVIDER/MODEL", "The API that is paid today [default: the API that serves the same model]."),
    ("--compare", "A,B", "More APIs to compare, PROVIDER/MODEL."),
)
PRICES = (
    (
        "--rental-usd-per-gpu-hour",
        "USD",
        "Your rental quote for the one GPU of --gpu, or h100-sxm=2.10,l40s=0.95; a range 2.10..2.60 is fine.",
    ),
    ("--node-usd", "USD", "Your quote for a whole 8-GPU server with the one GPU of --gpu, for example 310k."),
    ("--staff-fte", "FTE", "People for the fleet, on-call included, as full-time equivalents."),
    ("--staff-usd-per-year", "USD", "What one of them costs a year."),
    ("--region", "CODE", "Whose electricity price holds, for example US, US-CA, EU [default: US]."),
    ("--power-usd-per-kwh", "USD", "Electricity, USD per kWh."),
    ("--colo-usd-per-kw-month", "USD", "Colocation, USD per kW and month."),
    ("--pue", "RATIO", "Facility power over IT power."),
    ("--site", "|".join(SITES), "Where bought machines stand [default: colocation]."),
    ("--life-months", "MONTHS", "Over how many months bought machines are written off [default: 36]."),
    (
        "--set",
        "NAME=VALUE",
        "Any other assumption by its name in --json (a wrong one lists them); can be given again.",
    ),
)
_RATIO = re.compile(r"([0-9]+(?:\.[0-9]+)?):([0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanAsk:
    """What was asked; None: nobody said."""

    tokens_per_month: float | None = None
    input_share: float = 0.75
    """Of all tokens. Source: research takes 3 to 1 as a chat's mean mix."""
    input_tokens: float | None = None
    output_tokens: float | None = None
    cached_share: float | None = None
    batch_share: float | None = None
    peak: float | None = None
    growth: float = 0.0
    model: str = ""
    """Empty: nobody chose one."""
    slo_ttft_s: float = 2.0
    """Source: our own choice: what people wait for a chat's first word."""
    slo_itl_s: float = 0.05
    """Source: 20 tokens/s, some three times as fast as people read."""
    gpus: tuple[str, ...] = ()
    quants: tuple[str, ...] = ()
    engine: str = ""
    spares: int | None = None
    api: str = ""
    compare: tuple[str, ...] = ()
    region: str = "US"
    site: str = SITES[0]
    assumptions: dict[str, Spread] = field(default_factory=dict)
    """By the names of cost.inputs, what flags said."""
    rentals: Rentals = field(default_factory=dict)
    node: Spread | None = None
    usage: tuple[Path, ...] = ()
    usage_format: str = ""
    prices: tuple[Path, ...] = ()
    model_config: Path | None = None
    wish: "Wish | None" = None
    """What the team wants of an engine."""
    measured: "tuple[Measured, ...]" = ()
    """Its own load tests."""


def chosen_model(ask: PlanAsk) -> str:
    """Return the model that was said; where neither it nor a file of its shape was, the default one."""
    return ask.model or ("" if ask.model_config else DEFAULT_MODEL)


def number_options(*groups: tuple[tuple[str, str, str], ...]) -> Callable[[Any], Any]:
    """Return a decorator that adds the flags of these tables, in their order."""

    def add(command: Any) -> Any:
        for name, metavar, text in reversed([row for group in groups for row in group]):
            several = name == "--set"
            command = click.option(name, metavar=metavar, help=text, multiple=several)(command)
        return command

    return add


def read_plan_flags(flags: dict[str, Any], reader: Reader) -> PlanAsk:
    """Return what the flags of TRAFFIC, NEED and PRICES say; problems are in the reader."""
    given = {f"--{name.replace('_', '-')}": value for name, value in flags.items() if value not in (None, ())}
    found: dict[str, Any] = {}
    for flag, name, read in _READERS:
        value = reader.take(read, flag, given.get(flag))
        if value is not None:
            found[name] = value
    found["assumptions"] = _assumptions(given, reader)
    found |= _words(given, reader)
    found |= _mix(given.get("--input-output"), found, reader)
    if "spares" in found:
        found["spares"] = int(found["spares"])
    return PlanAsk(**found)


_READERS: tuple[tuple[str, str, Callable[[str, str], Any]], ...] = (
    ("--tokens-per-month", "tokens_per_month", at_most(read_count, TOKENS_PER_MONTH_MAX)),
    ("--input-tokens", "input_tokens", at_most(read_count, REQUEST_TOKENS_MAX)),
    ("--output-tokens", "output_tokens", at_most(read_count, REQUEST_TOKENS_MAX)),
    ("--cached-share", "cached_share", read_share),
    ("--batch-share", "batch_share", read_share),
    ("--peak", "peak", number_within(PEAK)),
    ("--growth", "growth", read_share),
    ("--slo-ttft-p95", "slo_ttft_s", at_most(read_seconds, TTFT_S_MAX)),
    ("--slo-itl", "slo_itl_s", at_most(read_seconds, ITL_S_MAX)),
    ("--spares", "spares", at_most(whole_number, SPARES[1])),
    ("--rental-usd-per-gpu-hour", "rentals", read_rentals),
    ("--node-usd", "node", range_within(NODE_USD)),
)
_ASSUMED = (
    ("--staff-fte", "staff_fte"),
    ("--staff-usd-per-year", "staff_usd_per_year"),
    ("--power-usd-per-kwh", "power_usd_per_kwh"),
    ("--colo-usd-per-kw-month", "colo_usd_per_kw_month"),
    ("--pue", "pue_ratio"),
    ("--life-months", "life_months"),
)


def _assumptions(given: dict[str, Any], reader: Reader) -> dict[str, Spread]:
    found: dict[str, Spread] = {}
    told: dict[str, str] = {}
    for flag, name, number in _assumed(given, reader):
        value = reader.take(range_within(assumption_bounds(name)), flag, number)
        if name in told and value is not None and value != found.get(name, value):
            reader.wrong(flag, f"{number} contradicts {told[name]}", "say it once")
        elif value is not None:
            found[name], told[name] = (
                value,
                f"{flag} {number}" if flag in dict(_ASSUMED) else f"{flag}={number}",
            )
    return found


def _assumed(given: dict[str, Any], reader: Reader) -> Iterator[tuple[str, str, str]]:
    """Yield the flag, the assumption's name and the text of each number that was said."""
    yield from ((flag, name, given[flag]) for flag, name in _ASSUMED if flag in given)
    for text in given.get("--set", ()):
        name, equals, number = (part.strip() for part in text.partition("="))
        if equals:
            yield f"--set {name}", name, number
        else:
            reader.wrong("--set", f"{text!r} has no =", "for example --set residual_fraction=10%..30%")


def _words(given: dict[str, Any], reader: Reader) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for flag, name in (("--model", "model"), ("--api", "api"), ("--region", "region")):
        if flag in given:
            found[name] = given[flag].strip()
    for flag, name in (("--gpu", "gpus"), ("--quant", "quants"), ("--compare", "compare")):
        if flag in given:
            found[name] = tuple(word.strip() for word in given[flag].split(",") if word.strip())
    known = (("--engine", "engine", ENGINES), ("--site", "site", SITES))
    for flag, name, words in known:
        if flag in given:
            found[name] = _one_of(flag, given[flag].strip(), words, reader)
    for quant in found.get("quants", ()):
        _one_of("--quant", quant, QUANTS, reader)
    return found


def _one_of(flag: str, word: str, words: tuple[str, ...], reader: Reader) -> str:
    if word not in words:
        reader.wrong(flag, f"{word!r} is not known", nearest_hint(word, words))
    return word


def _mix(text: str | None, found: dict[str, Any], reader: Reader) -> dict[str, Any]:
    """Return the input's share of all tokens, from the ratio or from both sizes."""
    if text is None:
        if "input_tokens" in found and "output_tokens" in found:
            return {"input_share": found["input_tokens"] / (found["input_tokens"] + found["output_tokens"])}
        return {}
    parts = _RATIO.fullmatch(text.strip())
    total = float(parts[1]) + float(parts[2]) if parts else 0.0
    if parts is None or total == 0:
        reader.wrong("--input-output", f"{text!r} is no ratio", "for example 3:1")
        return {}
    share = float(parts[1]) / total
    if "input_tokens" in found and "output_tokens" in found:
        reader.wrong(
            "--input-output", "says again what --input-tokens and --output-tokens say", "leave it out"
        )
    return {"input_share": share}
