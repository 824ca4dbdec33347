"""What `freehold size` is asked, put together: one deployment, its SLO, and the traffic that a fleet should carry.

It shares most flags with `freehold plan`. It sizes only what it needs to choose an engine where none was named.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from freehold.catalog import look
from freehold.catalog.facts import Catalog, GpuFacts
from freehold.core.problems import Problem
from freehold.cost.intake.flags import QUANTS, FlagReader, flags_in, own_flags
from freehold.cost.intake.load_tests import impossible
from freehold.cost.intake.model_shape import find_shape
from freehold.cost.intake.plan_flags import (
    USUAL_INPUT_TOKENS,
    USUAL_OUTPUT_TOKENS,
    USUAL_PEAK,
    PlanAsk,
    read_plan_flags,
)
from freehold.sizing.fleet.advise import Advice, Wish
from freehold.sizing.fleet.choose import advised
from freehold.sizing.fleet.fleet import FleetTarget
from freehold.sizing.fleet.traffic import Traffic
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.replica.answer import MeasuredSpeed, SizeAsk, Sized, Slo
from freehold.sizing.replica.replica import at_slo, size


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeInputs:
    """What is sized."""

    ask: SizeAsk
    slo: Slo
    concurrency_given: bool
    traffic: Traffic | None
    spares: int
    measured: tuple[MeasuredSpeed, ...] = ()
    advice: Advice | None = None
    """Why this engine, where none was named."""


def the_gpu(ask: PlanAsk, catalog: Catalog, reader: FlagReader) -> GpuFacts | None:
    """Return the one GPU of `--gpu`; None: the problem is in the reader."""
    if len(ask.gpus) != 1:
        hint = "an id of the catalog, for example h100-sxm, or of your own in --prices"
        reader.wrong("--gpu", "name one GPU" + (", not several" if ask.gpus else ""), hint)
        return None
    found = look.gpu(catalog, ask.gpus[0])
    if isinstance(found, Problem):
        reader.problems.append(found)
        return None
    return found


def the_quant(ask: PlanAsk, default: str, reader: FlagReader) -> str:
    """Return the one quantisation of `--quant`, or the default."""
    if len(ask.quants) > 1:
        reader.wrong("--quant", "name one, not several", f"one of {', '.join(QUANTS)}")
    return ask.quants[0] if ask.quants else default


def size_inputs(
    given: Mapping[str, Any],
    wish: Wish,
    *,
    measured: tuple[MeasuredSpeed, ...],
    catalog: Catalog,
    reader: FlagReader,
) -> SizeInputs | None:
    """Return what the flags ask for; None: problems are in the reader."""
    asked = read_plan_flags(given, reader)
    own = reader.fields(own_flags("size", without=flags_in("plan")), given)
    shape = _shape(asked, catalog, reader)
    gpu = the_gpu(asked, catalog, reader)
    if shape is None:
        return None
    stored = "gguf" if shape.weights_bytes is not None else shape.quant or "bf16"
    quant = the_quant(asked, stored, reader)
    reader.problems += impossible(measured, shape, catalog.gpus)
    if gpu is None or reader.problems:
        return None
    ask = SizeAsk(
        shape=shape,
        gpu=gpu,
        gpus=int(own.get("count", 1)),
        engine=asked.engine or "vllm",  # type: ignore[arg-type] # one of ENGINES
        quant=quant,  # type: ignore[arg-type] # one of QUANTS
        kv_bits=int(own.get("kv_bits", 16)),
        input_tokens=asked.input_tokens or USUAL_INPUT_TOKENS,
        output_tokens=asked.output_tokens or USUAL_OUTPUT_TOKENS,
        cached_share=asked.cached_share or 0.0,
        concurrency=int(own.get("concurrency", 1)),
    )
    slo = Slo(ttft_s=asked.slo_ttft_s, itl_s=asked.slo_itl_s)
    found = SizeInputs(
        ask=ask,
        slo=slo,
        concurrency_given="concurrency" in own,
        traffic=_traffic(ask, asked),
        spares=asked.spares or 0,
        measured=measured,
    )
    if asked.engine:
        return found
    plan, by = FleetTarget(slo=slo, measured=measured), partial(sized_as_asked, found, catalog)
    advice = advised(ask, by, plan=plan, catalog=catalog, wish=wish)
    return replace(found, ask=replace(ask, engine=advice.engine), advice=advice)


def sized_as_asked(asked: SizeInputs, catalog: Catalog, ask: SizeAsk) -> Sized:
    """Return a deployment sized at the concurrency that was given, else at the SLO."""
    if asked.concurrency_given:
        return size(ask, catalog.calibrations, catalog.corrections)
    return at_slo(ask, asked.slo, calibrations=catalog.calibrations, corrections=catalog.corrections)


def _shape(asked: PlanAsk, catalog: Catalog, reader: FlagReader) -> ModelShape | None:
    if not asked.model and asked.model_config is None:
        hint = "an id of the catalog, a .gguf file, or --model-config config.json"
        reader.wrong("--model", "is missing", hint)
        return None
    found = find_shape(asked.model, asked.model_config, catalog)
    if isinstance(found, ModelShape):
        return found
    reader.problems += found
    return None


def _traffic(ask: SizeAsk, asked: PlanAsk) -> Traffic | None:
    if asked.tokens_per_month is None:
        return None
    share = ask.input_tokens / (ask.input_tokens + ask.output_tokens)
    return Traffic(
        input_tokens_per_month=asked.tokens_per_month * share,
        output_tokens_per_month=asked.tokens_per_month * (1 - share),
        cached_share=ask.cached_share,
        input_tokens_per_request=ask.input_tokens,
        output_tokens_per_request=ask.output_tokens,
        peak_over_mean=asked.peak or USUAL_PEAK,
    )
