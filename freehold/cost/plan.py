"""A whole plan: options priced and ranked, break-evens, influences, rules of thumb, one verdict.

Everything is worked out from the inputs and the seed; nothing is read, asked or rounded here.
"""

from collections.abc import Iterator, Sequence

from freehold.core.spread import Spread
from freehold.cost.model.capex import MONTHS_PER_YEAR, capex_of
from freehold.cost.model.draw import Vector
from freehold.cost.model.inputs import PlanInputs
from freehold.cost.model.offers import NODE_QUOTE, RENTAL_QUOTE, asked_model, bill_ratio, paid_utilisation
from freehold.cost.model.percentiles import range_of, scaled
from freehold.cost.model.result import BreakEven, Influence, Percentiles, PlanOption, PlanResult
from freehold.cost.model.rounding import tokens
from freehold.cost.model.unusable_rows import rows_left_out
from freehold.cost.pricing.break_even import break_even
from freehold.cost.pricing.curves import sensitivity, traffic_curves
from freehold.cost.pricing.influence import tornado
from freehold.cost.pricing.ranking import Ranked, Ranking, assumptions_of, given_names, ranking_of
from freehold.cost.rules.all_rules import rules_of
from freehold.cost.verdict.verdict import verdict_of

MODELS_SHOWN = 5
"""Of a usage file's models, by their tokens. Our own choice: who pays for more than five knows the first."""
VERSION = 1
"""Of the shape of a plan's JSON; it grows when a field changes its meaning. Source: our own count."""


def plan(inputs: PlanInputs) -> PlanResult:
    """Return the plan for these inputs; the same inputs and seed give the same plan."""
    ranking = ranking_of(inputs)
    influences = influences_of(ranking)
    mine, other = _tornado_of(ranking)
    return PlanResult(
        version=VERSION,
        today=inputs.today.isoformat(),
        summary=_summary(ranking),
        options=tuple(_options(ranking)),
        break_even=tuple(_break_evens(ranking)),
        tornado=influences,
        sensitivity=sensitivity(ranking),
        curves=traffic_curves(ranking),
        rules=rules_of(ranking),
        verdict=verdict_of(ranking, influences),
        assumptions=tuple(_assumptions(ranking)),
        notes=tuple(_notes(ranking)),
        tornado_option=mine.offer.id if mine else "",
        tornado_against=other.offer.id if other else "",
    )


def influences_of(ranking: Ranking) -> tuple[Influence, ...]:
    """Return the tornado of the best machines against the API, or of an API's cost where there are no machines."""
    mine, other = _tornado_of(ranking)
    if mine is None:
        return ()
    return tornado(
        mine.offer,
        other.offer if other else None,
        setting=ranking.setting,
        spans=_market_span(mine, ranking),
        given=given_names(ranking.inputs),
    )


def _tornado_of(ranking: Ranking) -> tuple[Ranked | None, Ranked | None]:
    """Return the option that the tornado is of, and the API that it is held against."""
    mine, other = ranking.machines or ranking.yardstick, ranking.yardstick
    return mine, other if other is not mine else None


def _market_span(mine: Ranked, ranking: Ranking) -> dict[str, Spread]:
    """Return the range of a rental price that was not quoted: what others ask for the same GPU."""
    if mine.offer.kind != "rent" or mine.offer.price_name in given_names(ranking.inputs):
        return {}
    market, own = ranking.market(mine.offer.gpu), mine.offer.rental_usd_per_gpu_hour
    if market is None or own is None:
        return {}
    span = Spread(min(market.low, own.low), own.mid, max(market.high, own.high))
    return {mine.offer.price_name: span}


def _break_evens(ranking: Ranking) -> Iterator[BreakEven]:
    """Yield the best rental and purchase against the APIs in use, of the same model and cheapest, and, bought, a rental."""
    if ranking.setting.traffic.tokens_per_month <= 0:
        return  # no token has no price
    rented, bought = ranking.best("rent"), ranking.best("buy")
    shown = (ranking.in_use, ranking.same_model, ranking.best("api"))
    apis = {each.offer.id: each for each in shown if each}
    for mine in (rented, bought):
        for other in (*apis.values(), *([rented] if mine is bought else [])):
            if mine and other:
                yield break_even(mine.priced, other.priced, growth_per_month=ranking.inputs.growth_per_month)


def _options(ranking: Ranking) -> Iterator[PlanOption]:
    ranges: dict[int, Percentiles] = {}

    def ranged(values: Vector) -> Percentiles:
        """Return the range; options of one fleet share most lines, so each is put in order once."""
        if id(values) not in ranges:
            ranges[id(values)] = range_of(values)
        return ranges[id(values)]

    served = ranking.setting.traffic.tokens_per_month
    for ranked in ranking.options:
        lines = {name: ranged(values) for name, values in ranked.priced.lines.items()}
        yield _option(ranked, lines, served)


def _option(ranked: Ranked, lines: dict[str, Percentiles], served: float) -> PlanOption:
    offer, fleet = ranked.offer, ranked.offer.fleet
    nothing = Percentiles(p10=0.0, p50=0.0, p90=0.0)
    return PlanOption(
        id=offer.id,
        kind=offer.kind,
        provider=offer.provider,
        gpu=offer.gpu,
        count=fleet.gpus if fleet else 0,
        model=offer.model,
        engine=fleet.sized.ask.engine if fleet else "",
        quant=fleet.sized.ask.quant if fleet else "",
        replicas=fleet.replicas if fleet else 0,
        usd_per_month=ranked.usd_per_month,
        usd_per_million_tokens=scaled(ranked.usd_per_month, 1e6 / served) if served else nothing,
        lines=lines,
        utilisation=paid_utilisation(fleet) if fleet else None,
        capital_usd=range_of(capex_of(ranked.priced.case).total) if offer.kind == "buy" else None,
        incomplete=offer.incomplete,
        terms=offer.terms,
        paid_today=offer.paid_today,
        sources=offer.sources,
        warnings=offer.warnings,
        can_win=ranked.may_win,
    )


def _summary(ranking: Ranking) -> dict[str, str | float | int]:
    inputs, traffic = ranking.inputs, ranking.setting.traffic
    found: dict[str, str | float | int] = {
        "model": asked_model(inputs),
        "tokens_per_month": traffic.tokens_per_month,
        "input_tokens_per_month": traffic.input_tokens_per_month,
        "output_tokens_per_month": traffic.output_tokens_per_month,
        "cached_share": traffic.cached_share,
        "batch_share": traffic.batch_share,
        "peak_over_mean": traffic.peak_over_mean,
        "traffic_source": traffic.source,
        "rows_total": traffic.rows_total,
        "bad_rows_total": traffic.bad_rows_total,
        "paid_today": inputs.paid_today,
        "asked_gpus": ", ".join(inputs.asked_gpus),
        "own_site": inputs.own_site,
        "growth_per_month": inputs.growth_per_month,
        "draws": inputs.draws,
        "seed": inputs.seed,
    }
    slo = {"slo_ttft_s": inputs.slo_ttft_s, "slo_itl_s": inputs.slo_itl_s}
    if traffic.by_model:
        found["by_model"] = _by_model(traffic.by_model)
    return found | {name: value for name, value in slo.items() if value is not None}


def _by_model(models: Sequence[tuple[str, float]]) -> str:
    """Return the models of a history with their part of its tokens, the first few by name."""
    everything = sum(count for _, count in models)
    if everything <= 0:
        return ""
    shown = [f"{name} {count / everything:.0%}" for name, count in models[:MODELS_SHOWN]]
    more = len(models) - len(shown)
    return ", ".join([*shown, *([f"{more} more"] if more else [])])


def _assumptions(ranking: Ranking) -> Iterator[dict[str, str | float | bool]]:
    for each in {each.name: each for each in assumptions_of(ranking.inputs)}.values():
        yield {
            "name": each.name,
            "low": each.value.low,
            "mid": each.value.mid,
            "high": each.value.high,
            "asked": each.asked,
            "source": each.fact.source,
            "as_of": each.fact.as_of.isoformat(),
            "verified": str(each.fact.verified),
        }


def _notes(ranking: Ranking) -> Iterator[str]:
    inputs = ranking.inputs
    yield from inputs.notes
    yield from rows_left_out(inputs.traffic)
    yield from inputs.traffic.assumed
    if not inputs.paid_today:
        yield "the API in use today is not given: any API counts as staying with one"
    elif ranking.in_use is None:
        yield f"{inputs.paid_today} is given as the API in use, but has no price here"
    yield from _bill(ranking)
    if NODE_QUOTE in inputs.quotes:
        yield "the quote for a server stands for its GPUs, chassis, memory and disks; the network is added"
    yield from _answers_while_down(inputs)
    yield from _growth(inputs)
    gpus = sorted({fleet.sized.ask.gpu.id for fleet in inputs.fleets})
    if RENTAL_QUOTE in inputs.quotes and len(gpus) > 1:
        yield f"the rental quote is taken for each of {', '.join(gpus)}: name the one that it is for"
    if inputs.own_site != "colocation" and inputs.fleets:
        yield "on the team's own premises the room and its cooling plant are not priced"
    yield from (doubt.message for doubt in inputs.catalog.doubts if doubt.dropped)


def _growth(inputs: PlanInputs) -> Iterator[str]:
    """Yield what growth does and what it does not: who reads a month's cost must know which month's."""
    if inputs.growth_per_month:
        later = inputs.traffic.tokens_per_month * (1 + inputs.growth_per_month) ** MONTHS_PER_YEAR
        yield (
            f"costs, fleets and the verdict are of today's traffic; growth moves only the month in which a purchase has paid for "
            f"itself: in a year it would be {tokens(later)} tokens a month, so plan that as well (--tokens-per-month)"
        )


def _answers_while_down(inputs: PlanInputs) -> Iterator[str]:
    """Yield what is not priced: tokens that machines miss where neither an API nor a spare answers."""
    if inputs.fleets and not (inputs.fallback_api and inputs.apis):
        spares = max(fleet.spare_replicas for fleet in inputs.fleets)
        who = (
            f"{spares} spare replica{'s' * (spares != 1)} and no API answer"
            if spares
            else "neither an API nor a spare answers"
        )
        yield f"{who} while a bought machine is down: what is missed then is not priced"


def _bill(ranking: Ranking) -> Iterator[str]:
    """Yield a note where the bill is not what the price list comes to: then staying costs what is billed."""
    used = ranking.in_use
    if used and used.offer.api and bill_ratio(used.offer.api.fact, ranking.inputs) is not None:
        yield used.offer.warnings[-1]
