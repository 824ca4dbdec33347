"""What `freehold review` is asked, put together: the measured period, the machines as they stand, and the API to go back to.

It shares most flags with `freehold plan`. What was not measured is sized, and nothing is priced here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from freehold.catalog import look
from freehold.catalog.facts import ApiPrice, Catalog, GpuFacts
from freehold.core.problems import Problem
from freehold.core.spread import Spread
from freehold.core.units import parse_time_us
from freehold.cost.intake.api_choice import request_of
from freehold.cost.intake.flags import Flag, FlagReader, flags_in, own_flags
from freehold.cost.intake.measured_period import MeasuredFiles, MeasuredPeriod, measured_period
from freehold.cost.intake.model_shape import find_shape
from freehold.cost.intake.plan_flags import PlanAsk, chosen_model, read_plan_flags
from freehold.cost.intake.plan_inputs import assumptions
from freehold.cost.intake.size_inputs import the_gpu, the_quant
from freehold.cost.review.review import ReviewInputs
from freehold.ledger.journal import JOURNAL_NAME
from freehold.sizing.fleet.choose import usual_quants
from freehold.sizing.fleet.fleet import SECONDS_PER_MONTH, FleetTarget, capacity, fleet
from freehold.sizing.fleet.traffic import Traffic
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.replica.answer import SizeAsk, SizedFleet, Slo

_PLAN_FLAGS = (
    *("--model", "--model-config", "--slo-ttft-p95", "--slo-itl", "--gpu", "--quant", "--engine"),
    *("--api", "--prices", "--region", "--site"),
)
_FOUND = {"--gpu", "--api"}
"""Flags that go on to `freehold plan` as they were found, not as they were written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReviewAsk:
    """What was asked, and where problems go."""

    ask: PlanAsk
    own: Mapping[str, Any]
    """The flags of [review], by their fields."""
    catalog: Catalog
    reader: FlagReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Whose month is reviewed."""

    state_path: Path
    models: frozenset[str]
    """Those that its configuration names."""


def review_flags() -> dict[str, Flag]:
    """Return the flags of `freehold review` that say what runs and what it cost."""
    flags, own = flags_in("plan", "review", "assumptions"), _own_flags()
    others = flags_in("plan").keys() - _PLAN_FLAGS - own.keys()
    return {name: flag for name, flag in flags.items() if name not in others}


def flags_for_plan() -> dict[str, Flag]:
    """Return those of them that mean the same to `freehold plan`."""
    others = {*_own_flags(), *_FOUND}
    return {name: flag for name, flag in review_flags().items() if name not in others}


def _own_flags() -> dict[str, Flag]:
    return own_flags("review", without=_PLAN_FLAGS)


def review_inputs(
    given: Mapping[str, Any],
    period: MeasuredPeriod | None,
    *,
    stack: Stack,
    catalog: Catalog,
    reader: FlagReader,
) -> ReviewInputs | None:
    """Return everything that a review needs; None: problems are in the reader."""
    own = reader.fields(_own_flags(), given)
    ask = read_plan_flags(given, reader, without=_own_flags())
    shape = find_shape(chosen_model(ask), ask.model_config, catalog)
    reader.problems += () if isinstance(shape, ModelShape) else shape
    gpu = the_gpu(ask, catalog, reader)
    owning, renting = assumptions(ask, catalog, reader)
    if (
        reader.problems
        or not isinstance(shape, ModelShape)
        or gpu is None
        or period is None
        or period.traffic is None
    ):
        return None
    asked = _ReviewAsk(ask=ask, own=own, catalog=catalog, reader=reader)
    machines = _fleet(asked, _deployment(asked, shape, gpu), period.traffic)
    api = _api(asked, period.traffic, shape)
    kind = _kind(asked)
    if reader.problems or machines is None or owning is None or renting is None:
        return None
    ledger = stack.state_path / JOURNAL_NAME
    return ReviewInputs(
        days=period.days,
        traffic=period.traffic,
        fleet=machines,
        kind=kind,
        rental_usd_per_gpu_hour=own.get("rental_usd"),
        gpu_usd=own.get("gpu_usd"),
        node_usd=own.get("node_usd"),
        own=owning,
        rent=renting,
        own_site=ask.site,
        ledger=str(ledger) if ledger.is_file() else "",
        mean_w=period.watts.mean_w if period.watts else None,
        down_node_hours=period.down_node_hours,
        incidents=None if period.incidents is None else len(period.incidents),
        api=api,
        today=catalog.today,
    )


def period_of(
    given: Mapping[str, Any], stack: Stack, *, now_s: float, reader: FlagReader
) -> MeasuredPeriod | None:
    """Return the period of `--since` and `--until` as the stack's ledger and the named files have it; None: problems."""
    times = {"--since": parse_time_us(given["since"], now_s), "--until": int(now_s * 1e6)}
    if given["until"]:
        times["--until"] = parse_time_us(given["until"], now_s)
    for flag, value in times.items():
        if value is None or value < 0:
            hint = "for example 2026-11-24, 2026-11-24T10:00Z or 30d"
            reader.wrong(flag, f"{given[flag[2:]]!r} is not a time", hint)
    since_us, until_us = times["--since"], times["--until"]
    if since_us is not None and until_us is not None and 0 <= until_us <= since_us:
        message = f"{given['until'] or 'now'} is not after --since {given['since']}"
        reader.wrong("--until" if given["until"] else "--since", message, "the earlier time is --since")
    if reader.problems or since_us is None or until_us is None:
        return None
    files = MeasuredFiles(watts=given["watts"], incidents=given["incidents"], models=stack.models)
    found = measured_period(
        stack.state_path, files, since_s=since_us / 1e6, until_s=until_us / 1e6, now_s=now_s
    )
    reader.problems += found.problems
    if found.traffic is None and not found.problems:
        hint = (
            "another --since, or --config or --state-dir of the stack; freehold usage shows what was recorded"
        )
        reader.wrong("--since", f"the ledger in {stack.state_path} has no tokens in that time", hint)
    return found


def _deployment(asked: _ReviewAsk, shape: ModelShape, gpu: GpuFacts) -> SizeAsk:
    """Return what runs on one replica; the lengths are the traffic's, later."""
    stored = shape.weights_bytes is not None
    return SizeAsk(
        shape=shape,
        gpu=gpu,
        gpus=int(asked.own.get("gpus_per_replica", 1)),
        engine=asked.ask.engine or ("llama-cpp" if stored else "vllm"),  # type: ignore[arg-type] # one of ENGINES
        quant=the_quant(asked.ask, usual_quants(shape, gpu)[0], asked.reader),  # type: ignore[arg-type] # one of QUANTS
        input_tokens=1.0,
        output_tokens=1.0,
        concurrency=1,
    )


def _kind(asked: _ReviewAsk) -> Literal["rent", "buy"]:
    """Return whether the machines are rented or bought; a problem where the flags say both, or neither."""
    bought = "gpu_usd" in asked.own or "node_usd" in asked.own
    rented = "rental_usd" in asked.own
    if bought and rented:
        message = "the machines are given as bought and as rented"
        asked.reader.wrong("--rental-usd-per-gpu-hour", message, "give one of the two")
    if not bought and not rented:
        hint = "--gpu-usd, --node-usd, or --rental-usd-per-gpu-hour"
        asked.reader.wrong("--gpu-usd", "the cost of the machines is not given", hint)
    return "rent" if rented else "buy"


def _fleet(asked: _ReviewAsk, deployment: SizeAsk, traffic: Traffic) -> SizedFleet | None:
    """Return the fleet as it stands, whatever the traffic would need; None: a problem is in the reader."""
    count, each = int(asked.own.get("count", deployment.gpus)), deployment.gpus
    if count % each:
        asked.reader.wrong("--count", f"{count} GPUs are not a whole number of replicas of {each}")
        return None
    slo = Slo(ttft_s=asked.ask.slo_ttft_s, itl_s=asked.ask.slo_itl_s)
    found = fleet(deployment, traffic, plan=FleetTarget(slo=slo), catalog=asked.catalog)
    measured = asked.own.get("capacity_tokens_per_s")
    if not found.replicas and measured is None:
        asked.reader.wrong("--gpu", found.sized.why_not, "or give what you measured: --capacity-tokens-per-s")
        return None
    carries = Spread.exactly(measured) if measured else capacity(found.sized).times(count // each)
    return replace(
        found,
        replicas=count // each,
        spare_replicas=0,
        gpus=count,
        nodes=math.ceil(count / deployment.gpus_per_node),
        capacity_tokens_per_s=carries,
        utilisation=traffic.tokens_per_month / (carries.mid * SECONDS_PER_MONTH),
    )


def _api(asked: _ReviewAsk, traffic: Traffic, shape: ModelShape) -> ApiPrice | None:
    """Return what going back would mean: the API that was named, or the cheapest that serves the same model."""
    if not asked.ask.api:
        same = look.same_model_apis(asked.catalog, shape.name)
        return same[0] if same else None
    found = look.api(asked.catalog, asked.ask.api, request=request_of(traffic))
    if isinstance(found, Problem):
        asked.reader.problems.append(found)
        return None
    return found
