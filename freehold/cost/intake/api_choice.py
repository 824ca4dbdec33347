"""Which APIs a plan compares: the one in use, those of the same model, those that were named, and a few others.

Where the API in use is not named and the usage files leave no doubt about it, it is taken from there, and that is said.
"""

from dataclasses import replace

from freehold.catalog import look
from freehold.catalog.ask_genai_prices import RequestSize
from freehold.catalog.facts import ApiPrice, Catalog
from freehold.core.problems import Problem
from freehold.cost.intake.flags import FlagReader
from freehold.cost.intake.plan_flags import PlanAsk
from freehold.cost.model.offers import api_id
from freehold.ledger.files.own_ledger import NAME as OWN_LEDGER
from freehold.sizing.fleet.traffic import Traffic
from freehold.sizing.model.shape import ModelShape

_COMPARED = 3
"""APIs of other models that are compared where none was named, one a price class. Source: our own choice."""
_NEARLY_ALL = 0.9
"""Of a file's tokens: from here on its one model is taken for what is paid today. Our own choice: the rest is a rounding."""


def with_api_of_files(
    ask: PlanAsk, traffic: Traffic | None, catalog: Catalog
) -> tuple[PlanAsk, tuple[str, ...]]:
    """Return what was asked with the API in use as the usage files name it, where no flag does, and a sentence on it.

    A model that is not nearly all of the tokens is only asked about; a ledger of Freehold's own names one's own models.
    """
    if ask.api or traffic is None or not traffic.by_model or f"({OWN_LEDGER})" in traffic.source:
        return ask, ()
    name, tokens = traffic.by_model[0]
    share = tokens / max(1.0, sum(each for _, each in traffic.by_model))
    found = look.api(catalog, name, request=request_of(traffic)) if name else None
    if not isinstance(found, ApiPrice):
        return ask, ()
    if share <= _NEARLY_ALL:
        note = f"the usage names {name} for {share:.0%} of its tokens: if it is paid today, add --api {api_id(found)}"
        return ask, (note,)
    note = f"{share:.0%} of the tokens are {name}'s: {api_id(found)} is taken as the API in use (--api names another)"
    return replace(ask, api=api_id(found)), (note,)


def apis_of(
    ask: PlanAsk, traffic: Traffic | None, *, shape: ModelShape | None, catalog: Catalog, reader: FlagReader
) -> tuple[ApiPrice, ...]:
    """Return the API in use, those that serve the same model, those that were named, and a few others."""
    request = request_of(traffic) if traffic else None
    names = [("--api", ask.api)] * bool(ask.api) + [("--compare", name) for name in ask.compare]
    named = [look.api(catalog, name, request=request, where=flag) for flag, name in names]
    reader.problems += [each for each in named if isinstance(each, Problem)]
    found = [each for each in named if isinstance(each, ApiPrice)]
    found += look.same_model_apis(catalog, shape.name) if shape else ()
    found += [] if ask.compare else _spread_out(catalog)
    once = {api_id(each): each for each in reversed(found)}
    return tuple(dict.fromkeys(once[api_id(each)] for each in found))


def only_listed(ask: PlanAsk, apis: tuple[ApiPrice, ...], shape: ModelShape) -> tuple[str, ...]:
    """Return the APIs that were not named and that serve another model: shown, so that their price is known."""
    named = {name.casefold() for name in (ask.api, *ask.compare)}
    return tuple(
        api_id(each)
        for each in apis
        if each.same_as != shape.name and not {api_id(each).casefold(), each.model.casefold()} & named
    )


def request_of(traffic: Traffic) -> RequestSize:
    """Return the mean request, whose size decides what some APIs ask."""
    return RequestSize(
        input_tokens=round(traffic.input_tokens_per_request),
        output_tokens=round(traffic.output_tokens_per_request),
        cached_tokens=round(traffic.input_tokens_per_request * traffic.cached_share),
    )


def _spread_out(catalog: Catalog) -> list[ApiPrice]:
    """Return a few closed models' APIs, from the cheapest to the dearest."""
    closed = sorted(
        (each for each in catalog.apis if each.open_weights is False),
        key=lambda each: 3 * each.input_usd_per_m + each.output_usd_per_m,
    )
    step = max(1, (len(closed) - 1) // (_COMPARED - 1)) if closed else 1
    return closed[::step][:_COMPARED]
