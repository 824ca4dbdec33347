"""`freehold size`: does a model fit some GPUs, how fast is it there, and what does a load need.

Everything is worked out from the catalog and the roofline; nothing is measured and nothing runs. `freehold bench` measures.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from freehold.catalog import look
from freehold.catalog.facts import Catalog, Gpu
from freehold.catalog.load import load_catalog
from freehold.cli.engine_flags import ENGINE_FLAGS, engine_options, impossible, read_engine_flags
from freehold.cli.output import UserMistakes, say_json
from freehold.cli.place import json_option
from freehold.core.clock import wall_s
from freehold.core.problems import Problem, nearest_hint
from freehold.cost.intake.aiconfigurator import second_opinion
from freehold.cost.intake.bounds import (
    CONCURRENCY_MAX,
    GPUS_MAX,
    ITL_S_MAX,
    PEAK,
    REQUEST_TOKENS_MAX,
    SPARES,
    TOKENS_PER_MONTH_MAX,
    TTFT_S_MAX,
    at_most,
    number_within,
    whole_number,
)
from freehold.cost.intake.model_shape import find_shape
from freehold.cost.intake.numbers import Reader, read_count, read_seconds, read_share
from freehold.cost.intake.plan_flags import ENGINES, QUANTS
from freehold.sizing.fleet.advise import Advice, Need, recommend
from freehold.sizing.fleet.fleet import Plan, fleet
from freehold.sizing.fleet.traffic import Traffic
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.replica.answer import Fleet, Measured, SecondOpinion, SizeAsk, Sized, Slo
from freehold.sizing.replica.replica import at_slo, size

_OPTIONS = (
    ("--model", "ID", "A model of the catalog, by id or Hugging Face name, or a .gguf file."),
    ("--gpu", "ID", "A GPU of the catalog, for example h100-sxm."),
    ("--count", "COUNT", "GPUs that one replica is spread over [default: 1]."),
    ("--engine", "NAME", f"{', '.join(ENGINES)} [default: the one that is advised]."),
    ("--quant", "NAME", f"{', '.join(QUANTS)} [default: what the checkpoint says, else bf16]."),
    ("--kv-bits", "8|16", "Bits of a KV cache entry [default: 16]."),
    ("--input-tokens", "COUNT", "Of a mean request [default: 1500]."),
    ("--output-tokens", "COUNT", "Of a mean request [default: 500]."),
    ("--cached-share", "SHARE", "Of the input tokens, those that a prefix cache holds [default: 0%]."),
    ("--concurrency", "COUNT", "Sequences under way at once [default: the most within the SLO]."),
    ("--slo-ttft-p95", "TIME", "Time to first token that 95 of 100 requests keep [default: 2s]."),
    ("--slo-itl", "TIME", "Mean time between two tokens [default: 50ms]."),
    ("--tokens-per-month", "COUNT", "Size a whole fleet for this many input and output tokens."),
    ("--peak", "FACTOR", "Busiest hour over the mean hour [default: 2.5]."),
    ("--spares", "COUNT", "Replicas beyond the peak's need [default: 0]."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """The flags, read."""

    ask: SizeAsk
    slo: Slo
    concurrency_said: bool
    traffic: Traffic | None
    spares: int
    measured: tuple[Measured, ...] = ()
    advice: Advice | None = None
    """Why this engine, where nobody named one."""


def _size_options(command: Any) -> Any:
    for name, metavar, text in reversed(_OPTIONS):
        command = click.option(name, metavar=metavar, help=text)(command)
    return command


@click.command("size")
@_size_options
@engine_options
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="A Hugging Face config.json, for a model that the catalog lacks.",
)
@click.option(
    "--prices",
    multiple=True,
    type=click.Path(path_type=Path),
    help="YAML with your own GPUs, models or links; can be given again.",
)
@click.option(
    "--second-opinion",
    "ask_second",
    is_flag=True,
    help="Print AIConfigurator's figure beside ours (needs requirements/aic.txt).",
)
@json_option
def command(
    *, config: Path | None, prices: tuple[Path, ...], ask_second: bool, as_json: bool, **flags: str | None
) -> None:
    """Say whether a model fits some GPUs, how fast it is there, and what a traffic needs."""
    loaded = load_catalog(today=datetime.fromtimestamp(wall_s(), UTC).date(), overlays=prices)
    reader = Reader()
    reader.problems += loaded.problems
    if loaded.catalog is None:
        raise UserMistakes(reader.problems, as_json=as_json)
    asked = _read(flags, config, loaded.catalog, reader)
    if asked is None or reader.problems:
        raise UserMistakes(reader.problems, as_json=as_json)
    calibrations = loaded.catalog.calibrations
    sized = (
        size(asked.ask, calibrations)
        if asked.concurrency_said
        else at_slo(asked.ask, asked.slo, calibrations)
    )
    if asked.advice is not None:
        why = (reason.text for reason in (*asked.advice.reasons, *asked.advice.against))
        sized = replace(sized, notes=(*sized.notes, *why))
    needed = None
    if asked.traffic is not None and sized.fits:
        plan = Plan(slo=asked.slo, spares=asked.spares, measured=asked.measured)
        needed = fleet(asked.ask, asked.traffic, plan=plan, catalog=loaded.catalog)
    second = second_opinion(sized) if ask_second else ""
    if as_json:
        say_json(as_plain(sized, needed, second=second))
        return
    from freehold.cost.report.size_text import show_sized  # noqa: PLC0415 - rich takes its time to import

    show_sized(sized, needed, second=second)


def as_plain(sized: Sized, needed: Fleet | None, *, second: SecondOpinion | str = "") -> dict[str, Any]:
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
        found |= dict.fromkeys(("output_tokens_per_s", "ttft_ms", "itl_ms"))
    if needed is not None:
        found["fleet"] = {name: value for name, value in asdict(needed).items() if name != "sized"}
    if second:
        found["second_opinion"] = {"why_not": second} if isinstance(second, str) else asdict(second)
    return found


def _read(
    flags: dict[str, str | None], config: Path | None, catalog: Catalog, reader: Reader
) -> _Asked | None:
    wish, measured = read_engine_flags(
        {name: flags.pop(name) for name in ENGINE_FLAGS}, reader, gpus=catalog.gpus
    )
    given = {f"--{name.replace('_', '-')}": value for name, value in flags.items() if value is not None}
    shape = _shape(given, config, catalog, reader)
    gpu = _gpu(given, catalog, reader)
    stored = shape is not None and shape.weights_bytes is not None
    told = shape.quant if shape is not None else ""
    quant = _word("--quant", given, QUANTS, default="gguf" if stored else told or "bf16", reader=reader)
    reader.problems += impossible(measured, shape, catalog.gpus) if shape is not None else ()
    advice = None
    if shape is not None and gpu is not None and "--engine" not in given and quant in QUANTS:
        need = Need(shape=shape, gpu=gpu, quant=quant, wish=wish)  # type: ignore[arg-type] # checked
        advice = recommend(need, measured, catalog.engine_ratios)
    engine = _word("--engine", given, ENGINES, default=advice.engine if advice else "vllm", reader=reader)
    numbers = {name: reader.take(read, name, given.get(name)) for name, read in _NUMBERS.items()}
    kv_bits = _word("--kv-bits", given, ("8", "16"), default="16", reader=reader)
    if shape is None or gpu is None or reader.problems:
        return None
    ask = SizeAsk(
        shape=shape,
        gpu=gpu,
        gpus=int(numbers["--count"] or 1),
        engine=engine,  # type: ignore[arg-type] # checked against ENGINES
        quant=quant,  # type: ignore[arg-type] # checked against QUANTS
        kv_bits=int(kv_bits),
        input_tokens=numbers["--input-tokens"] or 1500.0,
        output_tokens=numbers["--output-tokens"] or 500.0,
        cached_share=numbers["--cached-share"] or 0.0,
        concurrency=int(numbers["--concurrency"] or 1),
    )
    return _Asked(
        ask=ask,
        slo=Slo(ttft_s=numbers["--slo-ttft-p95"] or 2.0, itl_s=numbers["--slo-itl"] or 0.05),
        concurrency_said=numbers["--concurrency"] is not None,
        traffic=_traffic(ask, numbers),
        spares=int(numbers["--spares"] or 0),
        measured=measured,
        advice=advice,
    )


_NUMBERS: Mapping[str, Callable[[str, str], float | Problem]] = {
    "--count": at_most(read_count, GPUS_MAX),
    "--input-tokens": at_most(read_count, REQUEST_TOKENS_MAX),
    "--output-tokens": at_most(read_count, REQUEST_TOKENS_MAX),
    "--cached-share": read_share,
    "--concurrency": at_most(read_count, CONCURRENCY_MAX),
    "--slo-ttft-p95": at_most(read_seconds, TTFT_S_MAX),
    "--slo-itl": at_most(read_seconds, ITL_S_MAX),
    "--tokens-per-month": at_most(read_count, TOKENS_PER_MONTH_MAX),
    "--peak": number_within(PEAK),
    "--spares": at_most(whole_number, SPARES[1]),
}


def _shape(given: dict[str, str], config: Path | None, catalog: Catalog, reader: Reader) -> ModelShape | None:
    model = given.get("--model", "")
    if not model and config is None:
        reader.wrong("--model", "is missing", "an id of the catalog, a .gguf file, or --config config.json")
        return None
    found = find_shape(model, config, catalog)
    if isinstance(found, ModelShape):
        return found
    reader.problems += found
    return None


def _gpu(given: dict[str, str], catalog: Catalog, reader: Reader) -> Gpu | None:
    name = given.get("--gpu", "").strip()
    if not name:
        reader.wrong("--gpu", "is missing", nearest_hint("", catalog.gpus))
        return None
    found = look.gpu(catalog, name)
    if isinstance(found, Gpu):
        return found
    reader.problems.append(found)
    return None


def _word(flag: str, given: dict[str, str], words: tuple[str, ...], *, default: str, reader: Reader) -> str:
    word = given.get(flag, default)
    if word not in words:
        reader.wrong(flag, f"{word!r} is not known", nearest_hint(word, words))
    return word


def _traffic(ask: SizeAsk, numbers: dict[str, float | None]) -> Traffic | None:
    tokens = numbers["--tokens-per-month"]
    if tokens is None:
        return None
    share = ask.input_tokens / (ask.input_tokens + ask.output_tokens)
    return Traffic(
        input_tokens_per_month=tokens * share,
        output_tokens_per_month=tokens * (1 - share),
        cached_share=ask.cached_share,
        input_tokens_per_request=ask.input_tokens,
        output_tokens_per_request=ask.output_tokens,
        peak_over_mean=numbers["--peak"] or 2.5,
    )
