"""Looking up in the catalog by the names that people type; what is not there is a `Problem` that names the nearest.

Nothing is read from disk here, and the database of API prices is asked only where the catalog does not say.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import date
from typing import TypeVar

from freehold.catalog import ask_genai_prices, facts
from freehold.catalog.ask_genai_prices import RequestSize
from freehold.catalog.facts import ApiPrice, Catalog, Verified
from freehold.core.problems import Problem, nearest_hint

Found = TypeVar("Found")
_KIND_ORDER = ("commercial", "non-household", "industrial")


_UNMEASURED = ("gaudi", "tpu", "trainium", "trn", "inferentia", "inf2", "vr200", "rubin", "mi400", "mi455x")
"""How accelerators begin that are sold or announced and that no engine was measured on here."""


def gpu(catalog: Catalog, name: str, *, where: str = "--gpu") -> facts.GpuFacts | Problem:
    """Return the GPU with that id; `where` is the flag or place that a problem names, here and below."""
    if name.lower().startswith(_UNMEASURED) and name.lower() not in catalog.gpus:
        message = f"no published measurement of {name!r} is known here, so it is not sized"
        hint = "add it with --prices (docs/prices.md) and give your own figures with --measured"
        return Problem(where=where, message=message, hint=hint)
    return _one(catalog.gpus, name, where, "GPU")


def model(catalog: Catalog, name: str, *, where: str = "--model") -> facts.ModelFacts | Problem:
    """Return the model with that id or Hugging Face name, in any case of letters."""
    by_name = {each.hf.lower(): each for each in catalog.models.values()}
    found = by_name.get(name.lower())
    return found if found is not None else _one(catalog.models, name, where, "model")


def link(catalog: Catalog, name: str, *, where: str = "--network") -> facts.Link | Problem:
    """Return the link with that id."""
    return _one(catalog.links, name, where, "link")


def storage(catalog: Catalog, name: str, *, where: str = "--storage") -> facts.Storage | Problem:
    """Return the storage class with that id."""
    return _one(catalog.storage, name, where, "storage")


def _one(rows: Mapping[str, Found], name: str, where: str, what: str) -> Found | Problem:
    found = rows.get(name) or rows.get(name.lower())
    return found or Problem(where=where, message=f"there is no {what} {name!r}", hint=_nearest(name, rows))


def _nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint: those that begin like this (`H100` is three cards), else the nearest, else all."""
    begun = sorted(each for each in known if name and each.startswith(name.lower()))
    return f"did you mean {' or '.join(map(repr, begun))}?" if begun else nearest_hint(name.lower(), known)


def rentals_for(catalog: Catalog, gpu_id: str) -> tuple[facts.RentalPrice, ...]:
    """Return the offers for a GPU, cheapest first: of each provider, kind and term the newest, which replaces the others."""
    newest: dict[tuple[str, facts.RentalKind, int], facts.RentalPrice] = {}
    for offer in catalog.rentals:
        key = (offer.provider, offer.kind, offer.term_months)
        if offer.gpu == gpu_id and (key not in newest or offer.as_of > newest[key].as_of):
            newest[key] = offer
    return tuple(sorted(newest.values(), key=lambda offer: (offer.usd_per_gpu_hour, offer.provider)))


def electricity_for(catalog: Catalog, region: str, *, where: str = "--region") -> facts.PowerPrice | Problem:
    """Return the price for a region, `US-OH` or `FI`: a user's, else commercial, else what there is."""
    offers = [each for each in catalog.electricity if each.region.upper() == region.upper()]
    if offers:
        return min(offers, key=_preference)
    known = {each.region for each in catalog.electricity}
    return Problem(
        where=where, message=f"there is no region {region!r}", hint=nearest_hint(region.upper(), known)
    )


def _preference(price: facts.PowerPrice) -> tuple[bool, int]:
    kinds = [index for index, kind in enumerate(_KIND_ORDER) if price.kind.startswith(kind)]
    return price.verified is not Verified.USER, min(kinds, default=len(_KIND_ORDER))


def default(catalog: Catalog, name: str) -> facts.Default:
    """Return the assumption with that name; a name that does not exist is our own mistake."""
    assert name in catalog.defaults, name
    return catalog.defaults[name]


def same_model_apis(catalog: Catalog, model_id: str) -> tuple[ApiPrice, ...]:
    """Return the APIs that serve that open model, cheapest at three input tokens to one of output first."""
    served = [price for price in catalog.apis if price.same_as == model_id]
    return tuple(sorted(served, key=lambda price: 3 * price.input_usd_per_m + price.output_usd_per_m))


def api(
    catalog: Catalog, name: str, *, request: RequestSize | None = None, where: str = "--api"
) -> ApiPrice | Problem:
    """Return an API's price, by `provider/model` or by the model alone: the catalog's, else the database's.

    With `request`, a price that depends on a request's size or on the hour is the one that requests of that size pay
    over a day; a user's own price stands as given. A model alone that several providers serve is a problem that names them.
    """
    rows = [row for row in catalog.apis if name.lower() in _names(row)]
    if len(rows) > 1:
        offered = ", ".join(f"{row.provider}/{row.model}" for row in rows)
        return Problem(where=where, message=f"{name!r} is served by several", hint=f"name one: {offered}")
    if rows:
        return _at_size(rows[0], request, catalog.today)
    provider, _, rest = name.partition("/") if "/" in name else ("", "", name)
    asked = request or RequestSize(input_tokens=1000, output_tokens=250)
    found = ask_genai_prices.api_price(provider, rest, request=asked, today=catalog.today) if rest else None
    return found or _unknown_api(catalog, name, where)


def _names(row: ApiPrice) -> set[str]:
    full = f"{row.provider}/{row.model}"
    asked = f"{row.provider}/{row.ask_as or row.model}"
    return {each.lower() for each in (full, row.model, row.model.rpartition("/")[2], asked)}


def _at_size(row: ApiPrice, request: RequestSize | None, today: date) -> ApiPrice:
    flat = (
        row.flat_to_input_tokens is None
        or request is None
        or request.input_tokens <= row.flat_to_input_tokens
    )
    if request is None or row.verified is Verified.USER or (flat and not row.by_hour):
        return row
    asked = row.ask_as or row.model
    found = ask_genai_prices.api_price(row.provider, asked, request=request, today=today)
    if found is None:
        return dataclasses.replace(
            row, note=f"{row.note}; dearer requests are not in this price".lstrip("; ")
        )
    return dataclasses.replace(
        found,
        provider=row.provider,
        model=row.model,
        open_weights=row.open_weights,
        same_as=row.same_as,
        two_sources_agree=row.two_sources_agree,
        ttft_p95_s=row.ttft_p95_s,
        tokens_per_s=row.tokens_per_s,
        speed_source=row.speed_source,
        speed_as_of=row.speed_as_of,
    )


def _unknown_api(catalog: Catalog, name: str, where: str) -> Problem:
    ours = [f"{row.provider}/{row.model}" for row in catalog.apis]
    known = [*ours, *ask_genai_prices.known_names()]
    near = [each for each in known if each.rpartition("/")[2] == name.rpartition("/")[2]]
    if near:
        hint = f"did you mean {' or '.join(repr(each) for each in near[:3])}?"
    else:
        hint = nearest_hint(name, known) if len(name) < 200 else ""
        hint = hint if hint.startswith("did") else nearest_hint(name, ours)
    return Problem(where=where, message=f"no price is known of the API {name!r}", hint=hint)
