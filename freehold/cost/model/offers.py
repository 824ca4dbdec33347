"""The options of a plan, not yet priced: every API, every rental price per fleet, every fleet bought.

What has no price is listed and named as incomplete: it is never left out, and it never wins. Spot machines and
consumer cards are listed and do not win either. Here facts get the width that their age and origin ask for.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import date

from freehold.catalog.age import doubtful, priced
from freehold.catalog.facts import ApiPrice, Fact, RentalKind, RentalPrice, Verified
from freehold.core.spread import Spread
from freehold.cost.model.api_price import BATCH_READ, listed_usd
from freehold.cost.model.case import ApiOffer, CostSetting, Offer
from freehold.cost.model.inputs import PlanInputs
from freehold.cost.model.rounding import amount
from freehold.sizing.fleet.fleet import round_gpus
from freehold.sizing.replica.answer import SizedFleet

RENTAL_QUOTE = "rental_usd_per_gpu_hour"
"""The key of `PlanInputs.quotes` for a rental; `:GPU` after it says for which GPU."""
ANOTHER_MODEL = "another model than"
"""How the warning of an API of another model begins."""
BILL_TOLERANCE = 0.1
"""How far a bill may be from the price list before it stands for it. Source: rounding and tiers move a bill by a few percent."""
QUOTED = "quote"
"""The provider of a rental that the user was quoted."""
SLO_DOUBTS = ("SLO unknown", "misses the SLO")
"""How the warning of an API begins that is not known to keep the SLO."""
NODE_QUOTE = "node_usd"
"""The key of `PlanInputs.quotes` for a whole server."""


def setting_of(inputs: PlanInputs) -> CostSetting:
    """Return what all options share."""
    fallback = _fallback(inputs) if inputs.fallback_api else None
    quote = inputs.quotes.get(NODE_QUOTE)
    return CostSetting(
        traffic=inputs.traffic,
        own=inputs.own,
        rent=inputs.rent,
        site=inputs.own_site,
        fallback=_priced_api(fallback, inputs) if fallback else None,
        node_usd=quote,
    )


def offers_of(inputs: PlanInputs) -> tuple[Offer, ...]:
    """Return all options, each id once; the API in use first."""
    apis = sorted(inputs.apis, key=lambda api: api_id(api) != inputs.paid_today)
    found = [
        *(_api(api, inputs) for api in apis),
        *(offer for fleet in inputs.fleets for offer in _rented(fleet, inputs)),
        *(bought_offer(as_sold(_as_quoted(fleet, inputs)), inputs) for fleet in inputs.fleets),
    ]
    return tuple(_each_once(found))


def api_id(api: ApiPrice) -> str:
    """Return `provider/model`, as `paid_today` says it."""
    return f"{api.provider}/{api.model}"


def api_offer(api: ApiPrice, today: date) -> ApiOffer:
    """Return an API's prices with how sure they are."""
    listed = max(api.input_usd_per_m, api.output_usd_per_m)
    ratio = priced(api, listed, today).times(1 / listed) if listed > 0 else Spread.exactly(1.0)
    return ApiOffer(fact=api, price_ratio=ratio)


def is_same_model(api: ApiPrice, model: str) -> bool:
    """Return whether an API serves the open model of that name."""
    return bool(model) and model.lower() in {api.same_as.lower(), api.model.lower()}


def serves(offer: Offer, model: str) -> bool:
    """Return whether an offer is an API of the open model of that name."""
    return offer.api is not None and is_same_model(offer.api.fact, model)


def asked_model(inputs: PlanInputs) -> str:
    """Return the model that would be run; empty where there is neither a fleet nor a name."""
    return inputs.fleets[0].sized.ask.shape.name if inputs.fleets else inputs.model


def cited(what: str, fact: Fact) -> str:
    """Return a source as options list it."""
    return f"{what}: {fact.source} ({fact.as_of.isoformat()}, {fact.verified})"


def doubts_of(what: str, facts: Iterable[Fact], today: date) -> tuple[str, ...]:
    """Return a sentence per fact that is old or was not read at its source."""
    found = (doubtful(fact, today) for fact in facts)
    return tuple(f"{what}: {doubt}" for doubt in found if doubt)


def _fallback(inputs: PlanInputs) -> ApiPrice | None:
    """Return the API that would answer while machines are down: one of the same model, else the one in use."""
    same = [api for api in inputs.apis if is_same_model(api, asked_model(inputs))]
    return next(iter((*same, *inputs.apis)), None)


def _api(api: ApiPrice, inputs: PlanInputs) -> Offer:
    what, paid_today = f"price of {api_id(api)}", api_id(api) == inputs.paid_today
    billed = bill_ratio(api, inputs) if paid_today else None
    return Offer(
        id=f"api-{api.provider}-{api.model}".replace("/", "-"),
        kind="api",
        provider=api.provider,
        api=_priced_api(api, inputs),
        model=api.model,
        terms="list price" if billed is None else "as billed",
        paid_today=paid_today,
        eligible=api_id(api) not in inputs.only_listed and (paid_today or not _too_slow(api, inputs)),
        sources=(cited(what, api),),
        warnings=(*_api_warnings(api, inputs), *([] if billed is None else [_billed(api, inputs)])),
        doubts=doubts_of(what, [api], inputs.today) if billed is None else (),
    )


def _priced_api(api: ApiPrice, inputs: PlanInputs) -> ApiOffer:
    """Return an API's prices, those of the one in use as they are billed: the same wherever it answers."""
    offer, billed = api_offer(api, inputs.today), bill_ratio(api, inputs)
    if billed is None or api_id(api) != inputs.paid_today:
        return offer
    return replace(offer, price_ratio=Spread.exactly(billed))


def bill_ratio(api: ApiPrice, inputs: PlanInputs) -> float | None:
    """Return what the usage file says was paid over what this list comes to; None: it does not say, or they agree."""
    paid, listed = inputs.traffic.paid_usd_per_month, _listed(api, inputs)
    if paid is None or paid <= 0 or listed <= 0 or abs(paid - listed) <= BILL_TOLERANCE * listed:
        return None
    return paid / listed


def _listed(api: ApiPrice, inputs: PlanInputs) -> float:
    return listed_usd(ApiOffer(fact=api, price_ratio=Spread.exactly(1.0)), inputs.traffic)


def _billed(api: ApiPrice, inputs: PlanInputs) -> str:
    paid = inputs.traffic.paid_usd_per_month or 0.0
    return (
        f"the usage file reports that {amount(paid)} USD a month were paid, the price list comes to "
        f"{amount(_listed(api, inputs))}: the plan counts with the bill"
    )


def _api_warnings(api: ApiPrice, inputs: PlanInputs) -> Iterator[str]:
    model = asked_model(inputs)
    if against_slo(api, inputs):
        yield against_slo(api, inputs)
    if model and not is_same_model(api, model) and api_id(api) != inputs.paid_today:
        yield f"{ANOTHER_MODEL} {model}: its answers must be tested first"
    if inputs.traffic.batch_share and api.provider not in BATCH_READ:
        yield f"half price for batches is assumed; it was not read on {api.provider}'s price list"
    if inputs.traffic.cached_share and api.cached_input_usd_per_m is None:
        yield "no price of cached input is known: it counts as input"
    if api.two_sources_agree is False:
        yield "two sources do not agree on this price"


def against_slo(api: ApiPrice, inputs: PlanInputs) -> str:
    """Return why an API is not known to keep the SLO of the plan, beginning as `SLO_DOUBTS` do; empty: it keeps it, or none is set."""
    first, gap = inputs.slo_ttft_s, inputs.slo_itl_s
    if first is None or gap is None:
        return ""
    if api.ttft_p95_s is None or api.tokens_per_s is None:
        return f"{SLO_DOUBTS[0]}: no figure is known of how fast it answers, so try it on your prompts"
    missed = [f"95 of 100 first tokens in {api.ttft_p95_s:.3g} s, {first:g} s asked"] * (
        api.ttft_p95_s > first
    )
    missed += [f"{api.tokens_per_s:.3g} tokens/s, {1 / gap:.3g} asked"] * (api.tokens_per_s * gap < 1)
    return (
        f"{SLO_DOUBTS[1]}: {' and '.join(missed)} ({api.speed_source}, {api.speed_as_of})" if missed else ""
    )


def _too_slow(api: ApiPrice, inputs: PlanInputs) -> bool:
    """Return whether an API misses an SLO that was asked for; one that nobody named only lowers the confidence."""
    asked = any(flag.startswith("--slo") for flag in inputs.said[::2])
    return asked and against_slo(api, inputs).startswith(SLO_DOUBTS[1])


def _rented(fleet: SizedFleet, inputs: PlanInputs) -> Iterator[Offer]:
    gpu = fleet.sized.ask.gpu.id
    quote = rental_quote(inputs, gpu)
    prices = list(_worth_pricing(price for price in inputs.rentals if price.gpu == gpu))
    if quote is not None:
        yield _machine_offer("rent", QUOTED, fleet, terms="quote", rental_usd_per_gpu_hour=quote)
    for price in prices:
        listed = _rental(price, fleet, inputs)
        yield listed if quote is None else _overridden(listed)
    if quote is None and not prices:
        yield _machine_offer("rent", "nobody", fleet, terms="", incomplete=(f"rental of {gpu}",))


def _worth_pricing(offers: Iterable[RentalPrice]) -> Iterator[RentalPrice]:
    """Yield a user's prices, and of each kind and term the cheapest; of on-demand prices two, their middle and the dearest.

    At any traffic the cheapest of a kind stays the cheapest, and a cloud's twenty others cost time and memory.
    """
    groups: dict[tuple[RentalKind, int], list[RentalPrice]] = {}
    for price in offers:
        if is_given(price):
            yield price
        else:
            groups.setdefault((price.kind, price.term_months), []).append(price)
    for (kind, _), found in groups.items():
        found.sort(key=lambda price: price.usd_per_gpu_hour)
        last = len(found) - 1
        places = sorted({0, min(1, last), last // 2, last}) if kind is RentalKind.ON_DEMAND else [0]
        yield from (found[place] for place in places)


def is_lasting(price: RentalPrice) -> bool:
    """Return whether a rental can be kept at its price: not a spot machine, nor a starting price without its term."""
    open_term = price.kind is RentalKind.RESERVED and not price.term_months and not is_given(price)
    return price.kind is not RentalKind.SPOT and not open_term


def rental_quote(inputs: PlanInputs, gpu: str) -> Spread | None:
    """Return what the user was quoted for an hour of this GPU, USD; None: nothing."""
    return inputs.quotes.get(f"{RENTAL_QUOTE}:{gpu}", inputs.quotes.get(RENTAL_QUOTE))


def quoted_names(inputs: PlanInputs) -> frozenset[str]:
    """Return the prices that the user was quoted, by the names that draws have for them."""
    names = {
        offer.price_name
        for fleet in inputs.fleets
        for offer in _rented(fleet, inputs)
        if offer.provider == QUOTED
    }
    return frozenset(names | ({NODE_QUOTE} & set(inputs.quotes)))


def _overridden(listed: Offer) -> Offer:
    """Return a listed rental beside a quote for the same GPU: who has a quote pays that."""
    warning = "listed for comparison: your quote for this GPU stands"
    return replace(listed, eligible=False, overridden=listed.eligible, warnings=(*listed.warnings, warning))


def _rental(price: RentalPrice, fleet: SizedFleet, inputs: PlanInputs) -> Offer:
    what = f"{price.gpu} per GPU-hour at {price.provider}"
    spot, reserved = price.kind is RentalKind.SPOT, price.kind is RentalKind.RESERVED
    offer = _machine_offer(
        "rent",
        price.provider,
        fleet,
        terms=f"reserved {price.term_months} months" if price.term_months else price.terms or str(price.kind),
        rental_usd_per_gpu_hour=priced(price, price.usd_per_gpu_hour, inputs.today),
        sources=(cited(what, price),),
        doubts=doubts_of(what, [price], inputs.today),
    )
    warnings = ["can be taken back at any moment: it is listed and never the verdict"] if spot else []
    if price.kind is RentalKind.MARKETPLACE:
        warnings.append("a marketplace: hosts differ in reliability, and the price is what is listed today")
    if reserved and not is_lasting(price):
        warnings.append("a starting price without its term, not an offer: it is listed and never the verdict")
    return replace(
        offer,
        reserved=reserved,
        eligible=offer.eligible and is_lasting(price),
        warnings=(*offer.warnings, *warnings),
    )


def _as_quoted(fleet: SizedFleet, inputs: PlanInputs) -> SizedFleet:
    """Return the fleet of cards that come by the whole server where a quote is for one: all its GPUs are paid for."""
    ask = fleet.sized.ask
    if NODE_QUOTE not in inputs.quotes or ask.gpu.sold_in >= ask.gpus_per_node:
        return fleet
    whole = replace(ask, gpu=replace(ask.gpu, sold_in=ask.gpus_per_node))
    return replace(fleet, sized=replace(fleet.sized, ask=whole))


def as_sold(fleet: SizedFleet) -> SizedFleet:
    """Return the fleet with as many GPUs as one has to buy for it: whole boards and racks."""
    ask = fleet.sized.ask
    gpus, nodes = round_gpus(fleet.gpus, gpu=ask.gpu, per_node=ask.gpus_per_node, bought=True)
    if gpus <= fleet.gpus:
        return fleet
    return replace(fleet, gpus=gpus, nodes=max(nodes, fleet.nodes))


def paid_utilisation(fleet: SizedFleet) -> float:
    """Return what is served, over the clock, of what all GPUs that are paid for would carry: idle ones and spares too."""
    each = fleet.sized.ask.gpus
    could = max(fleet.gpus // each, fleet.replicas)
    return fleet.utilisation * fleet.replicas / could if could else 0.0


def bought_offer(fleet: SizedFleet, inputs: PlanInputs) -> Offer:
    """Return the purchase of these machines as they are."""
    gpu, quoted = fleet.sized.ask.gpu, NODE_QUOTE in inputs.quotes
    known = gpu.price_new_usd is not None or quoted
    fact = gpu.price or gpu
    usd = priced(fact, gpu.price_new_usd, inputs.today) if gpu.price_new_usd is not None else None
    return _machine_offer(
        "buy",
        inputs.own_site,
        fleet,
        terms=inputs.own_site + (", quoted server" if quoted else ""),
        gpu_usd=usd,
        incomplete=() if known else (f"{gpu.id} as bought",),
        sources=(cited(f"{gpu.id} as bought", fact),) if known and not quoted else (),
        doubts=doubts_of(f"{gpu.id} as bought", [fact], inputs.today) if known and not quoted else (),
    )


def _machine_offer(kind: str, provider: str, fleet: SizedFleet, **more: object) -> Offer:
    """Return an offer of machines with what is true of the fleet, however it is paid for."""
    ask, sized = fleet.sized.ask, fleet.sized
    unfit = () if sized.fits and fleet.replicas else (f"{ask.shape.name} on {ask.gpu.id}: {sized.why_not}",)
    card = (f"{ask.gpu.id} is a consumer card: its driver's licence restricts data-centre use",)
    make: Callable[..., Offer] = Offer
    incomplete = more.pop("incomplete", ())
    assert isinstance(incomplete, tuple)
    return make(
        id=f"{kind}-{provider}-{ask.gpu.id}-{fleet.gpus}",
        kind=kind,
        provider=provider,
        fleet=fleet,
        model=ask.shape.name,
        eligible=not ask.gpu.consumer,
        incomplete=(*unfit, *incomplete),
        warnings=card if ask.gpu.consumer else (),
        **more,
    )


def _each_once(offers: Iterable[Offer]) -> Iterator[Offer]:
    """Yield the offers with ids that differ: by terms or engine where needed, else by a number."""
    taken: set[str] = set()
    for offer in offers:
        for name in _names(offer):
            if name not in taken:
                taken.add(name)
                yield replace(offer, id=name)
                break


def _names(offer: Offer) -> Iterator[str]:
    yield offer.id
    if offer.fleet:
        ask = offer.fleet.sized.ask
        yield f"{offer.id}-{ask.engine}-{ask.quant}"
    terms = "-".join(offer.terms.lower().split())
    yield f"{offer.id}-{terms}"
    number = 2
    while True:
        yield f"{offer.id}-{number}"
        number += 1


def is_given(fact: Fact) -> bool:
    """Return whether the user said it."""
    return fact.verified is Verified.USER
