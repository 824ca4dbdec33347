"""A measured month put back into the cost model: what a million tokens really cost, and whether owning is still worth it.

The lines are those of a plan; traffic, watts and downtime are measured where they were. What was not measured is
estimated as a plan would, with its range, and shown as estimated: never zero. Money that is already in bought machines
does not come back by going back to an API, so what they cost to run is compared too. Nothing is read here.
"""

import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import date
from typing import Literal

import numpy as np

from freehold.catalog.facts import ApiPrice
from freehold.core.spread import Spread
from freehold.cost.lines.electricity import it_kw
from freehold.cost.model.case import CostSetting, Offer
from freehold.cost.model.draw import Draws, Vector
from freehold.cost.model.inputs import OwnAssumptions, RentAssumptions
from freehold.cost.model.offers import api_offer, doubts_of
from freehold.cost.model.percentiles import range_of, scaled, share
from freehold.cost.model.result import Percentiles
from freehold.cost.model.unusable_rows import rows_left_out
from freehold.cost.pricing.break_even import capacity_tokens
from freehold.cost.pricing.influence import inputs_of
from freehold.cost.pricing.price import Priced, price
from freehold.cost.pricing.ranking import aged
from freehold.cost.review.answer import MeasuredMonth, Word, answer_of, break_even_as_it_stands, finite
from freehold.cost.review.trend import Period, Trend, periods_of, trend_of
from freehold.sizing.fleet.traffic import Traffic
from freehold.sizing.replica.answer import SizedFleet

VERSION = 1
"""Of the shape of a review's JSON. Source: our own count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewInputs:
    """A measured period of one fleet."""

    days: float
    """How long it was, above 0."""
    traffic: Traffic
    """Measured, as month sums: the period's tokens x 730 h / its hours; `hours` is what the trend is made of."""
    fleet: SizedFleet
    """As it stands; its capacity measured or sized."""
    kind: Literal["rent", "buy"]
    rental_usd_per_gpu_hour: float | None = None
    """What is paid for a rented GPU; None: not given."""
    gpu_usd: float | None = None
    """What was paid for one bought GPU; None: not given."""
    node_usd: float | None = None
    """What was paid for a whole server with GPUs, memory and disks; it stands for `gpu_usd`."""
    own: OwnAssumptions
    rent: RentAssumptions
    own_site: str = "colocation"
    ledger: str = ""
    """Path of the file that the period was read from, for the next command; empty: not given."""
    said: tuple[str, ...] = ()
    """Flags that `freehold plan` has as well, each with its value, for the next command."""
    mean_w: float | None = None
    """Of all machines together, over the period; None: not measured."""
    down_node_hours: float | None = None
    """Hours that nodes were out, summed over the nodes; None: not measured. 0 is a measured 0."""
    incidents: int | None = None
    api: ApiPrice | None = None
    """What going back would mean."""
    today: date
    draws: int = 20_000
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewResult:
    """What the period says. Money is USD; these are the shapes of `freehold review --json`."""

    version: int
    today: str
    days: float
    usd_per_month: Percentiles
    running_usd_per_month: Percentiles
    """Without what was paid for machines at the start."""
    usd_per_million_tokens: Percentiles | None
    """Really paid, by tokens served; None: none were served."""
    lines: dict[str, Percentiles]
    tokens_per_month: float
    capacity_tokens_per_month: Percentiles
    utilisation: Percentiles
    """Served over capacity at SLO."""
    api: str
    """`provider/model` of the alternative; empty: none."""
    api_usd_per_month: Percentiles | None
    break_even_tokens_per_month: Percentiles | None
    """Traffic at which these machines cost what the API would; None: no API, or at no traffic."""
    position: Literal["above", "below", "unknown"]
    """Of the traffic to the break-even."""
    chance_api_cheaper: float | None
    trend: Trend
    word: Word
    headline: str
    text: str
    estimated: tuple[str, ...]
    """What was not measured, and what stands for it."""
    incomplete: tuple[str, ...]
    """What has no price: then the costs are least figures, and no verdict is given."""
    confidence: float | None = None
    """Share of the draws in which the answer holds; None: there is nothing to compare."""
    confidence_word: Literal["high", "medium", "low"] = "low"
    confidence_reason: str = ""
    """Why it is that, in a sentence."""
    next_command: str = ""
    """A line to paste: the plan for the measured traffic, with what is known of these machines."""


def review(inputs: ReviewInputs) -> ReviewResult:
    """Return the review of the period; the same inputs and seed give the same review."""
    draws, setting = Draws(inputs.draws, inputs.seed), _setting(inputs)
    mine = price(_machines(inputs), setting, draws=draws)
    api = price(_back(inputs, setting), setting, draws=draws) if setting.fallback else None
    total, tokens = range_of(mine.total), inputs.traffic.tokens_per_month
    capacity = capacity_tokens(mine)
    even = break_even_as_it_stands(mine, api) if api else None
    answer = answer_of(MeasuredMonth(mine=mine, api=api, days=inputs.days, incidents=inputs.incidents))
    return ReviewResult(
        version=VERSION,
        today=inputs.today.isoformat(),
        days=inputs.days,
        usd_per_month=total,
        running_usd_per_month=range_of(mine.running),
        usd_per_million_tokens=scaled(total, 1e6 / tokens) if tokens > 0 else None,
        lines={name: range_of(values) for name, values in mine.lines.items()},
        tokens_per_month=tokens,
        capacity_tokens_per_month=range_of(capacity),
        utilisation=range_of(tokens / capacity),
        api=_api_name(inputs),
        api_usd_per_month=range_of(api.total) if api else None,
        break_even_tokens_per_month=finite(even),
        position=_position(even, tokens),
        chance_api_cheaper=share(np.asarray(api.total < mine.total)) if api else None,
        trend=trend_of(_periods(inputs, mine, api)),
        estimated=tuple(_estimated(inputs, mine)),
        incomplete=mine.offer.incomplete,
        next_command=_next_command(inputs),
        **asdict(answer),
    )


def _next_command(inputs: ReviewInputs) -> str:
    """Return the plan for what was measured: the ledger's traffic where its path is known, else the month's tokens."""
    ask = inputs.fleet.sized.ask
    words = (
        ["--usage", inputs.ledger]
        if inputs.ledger
        else ["--tokens-per-month", f"{inputs.traffic.tokens_per_month:.0f}"]
    )
    own = {"--model": ask.shape.name, "--gpu": ask.gpu.id, "--api": _api_name(inputs)}
    if inputs.kind == "rent" and inputs.rental_usd_per_gpu_hour is not None:
        own["--rental-usd-per-gpu-hour"] = f"{inputs.rental_usd_per_gpu_hour:g}"
    if inputs.node_usd is not None:
        own["--node-usd"] = f"{inputs.node_usd:.0f}"
    words += [
        word for flag, value in own.items() if value and flag not in inputs.said for word in (flag, value)
    ]
    return shlex.join(["freehold", "plan", *words, *inputs.said])


def _api_name(inputs: ReviewInputs) -> str:
    return f"{inputs.api.provider}/{inputs.api.model}" if inputs.api else ""


def _setting(inputs: ReviewInputs) -> CostSetting:
    hours, nodes = inputs.days * 24, max(inputs.fleet.nodes, 1)
    down, watts = inputs.down_node_hours, inputs.mean_w
    own, rent = aged(inputs.own, inputs.rent, inputs.today)
    return CostSetting(
        traffic=inputs.traffic,
        own=own,
        rent=rent,
        site=inputs.own_site,
        fallback=api_offer(inputs.api, inputs.today) if inputs.api else None,
        node_usd=Spread.exactly(inputs.node_usd) if inputs.node_usd is not None else None,
        measured_it_w=Spread.exactly(watts) if watts is not None and watts > 0 else None,
        missed_fraction=min(1.0, down / (hours * nodes)) if down is not None else None,
        machines_stand=True,
    )


def _machines(inputs: ReviewInputs) -> Offer:
    hourly, paid = inputs.rental_usd_per_gpu_hour, inputs.gpu_usd
    rented = inputs.kind == "rent"
    known = hourly is not None if rented else paid is not None or inputs.node_usd is not None
    gpu = inputs.fleet.sized.ask.gpu.id
    return Offer(
        id=f"{inputs.kind}-{gpu}-{inputs.fleet.gpus}",
        kind=inputs.kind,
        provider=inputs.own_site if not rented else "",
        fleet=inputs.fleet,
        rental_usd_per_gpu_hour=Spread.exactly(hourly) if hourly is not None else None,
        gpu_usd=Spread.exactly(paid) if paid is not None else None,
        model=inputs.fleet.sized.ask.shape.name,
        incomplete=() if known else (f"what is paid for {gpu}",),
    )


def _back(inputs: ReviewInputs, setting: CostSetting) -> Offer:
    assert inputs.api is not None
    return Offer(
        id=f"api-{inputs.api.provider}-{inputs.api.model}",
        kind="api",
        provider=inputs.api.provider,
        api=setting.fallback,
        model=inputs.api.model,
    )


def _position(even: Vector | None, tokens: float) -> Literal["above", "below", "unknown"]:
    if even is None:
        return "unknown"
    return "above" if tokens > range_of(even).p50 else "below"


def _estimated(inputs: ReviewInputs, mine: Priced) -> Iterator[str]:
    if inputs.kind == "buy" and mine.case.setting.measured_it_w is None:
        kw = range_of(it_kw(mine.case))
        yield f"watts were not measured: {kw.p50:,.1f} kW ({kw.p10:,.1f}-{kw.p90:,.1f}) are estimated from the ratings"
    if inputs.kind == "rent" and inputs.mean_w:
        yield f"{inputs.mean_w / 1000:,.1f} kW were measured and are not charged: the rent of the machines includes the power"
    if inputs.kind == "buy" and inputs.down_node_hours is None:
        yield "downtime was not measured: missed tokens are estimated from failure rates"
    if mine.case.fleet.capacity_tokens_per_s.low != mine.case.fleet.capacity_tokens_per_s.high:
        yield "the capacity is a range, so the utilisation is one too"
    yield from _doubted(inputs, mine)
    yield from rows_left_out(inputs.traffic)
    yield from inputs.traffic.assumed


def _doubted(inputs: ReviewInputs, mine: Priced) -> Iterator[str]:
    """Yield a sentence per assumption of these machines that was not given and whose source is old or unread, and the API's."""
    used = inputs_of(mine.case.setting, mine.offer)
    parts = (getattr(each, part.name) for each in (inputs.own, inputs.rent) for part in fields(each))
    for name, fact in {
        part.name: part.fact for part in parts if not part.asked and part.name in used
    }.items():
        yield from doubts_of(name, [fact], inputs.today)
    if inputs.api:
        yield from doubts_of(f"price of {_api_name(inputs)}", [inputs.api], inputs.today)


def _periods(inputs: ReviewInputs, mine: Priced, api: Priced | None) -> list[Period]:
    tokens = mine.case.tokens_per_month
    return periods_of(
        inputs.traffic.hours,
        usd_per_month=range_of(mine.total).p50,
        capacity_tokens_per_month=range_of(capacity_tokens(mine)).p50,
        api_usd_per_m=range_of(api.total).p50 / tokens * 1e6 if api and tokens > 0 else None,
    )
