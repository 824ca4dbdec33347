"""What a plan is worked out from, put together: the traffic, the fleets that carry it, prices and assumptions.

Names that the catalog does not know are problems, all of them at once. Nothing is priced here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace

from freehold.catalog import look
from freehold.catalog.facts import Catalog, Fact, GpuFacts, Verified
from freehold.core.problems import Problem, nearest_hint
from freehold.core.spread import Spread
from freehold.cost.intake.api_choice import apis_of, only_listed, with_api_of_files
from freehold.cost.intake.flags import FlagReader
from freehold.cost.intake.plan_flags import PlanAsk
from freehold.cost.intake.rental_quotes import FORM, RENTAL_FLAG
from freehold.cost.model.inputs import Assumption, OwnAssumptions, PlanInputs, RentAssumptions
from freehold.cost.model.offers import NODE_QUOTE, RENTAL_QUOTE, api_id
from freehold.sizing.fleet.advise import NO_WISH
from freehold.sizing.fleet.choose import Among, considered, why_none
from freehold.sizing.fleet.fleet import FleetTarget
from freehold.sizing.fleet.traffic import Traffic
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.replica.answer import Slo

_LOST = 0.01
"""Of a usage file's rows: more that cannot be used are warned of. Our own choice: logs of months have a few broken lines."""


def plan_inputs(
    ask: PlanAsk, traffic: Traffic | None, *, shape: ModelShape | None, catalog: Catalog, reader: FlagReader
) -> PlanInputs | None:
    """Return everything that a plan needs, or None where problems are in the reader.

    Without a traffic or a shape only names are checked, so that all problems come at once.
    """
    gpus = _gpus(ask, catalog, reader)
    ask, on_api = with_api_of_files(ask, traffic, catalog)
    apis = apis_of(ask, traffic, shape=shape, catalog=catalog, reader=reader)
    own, rent = assumptions(ask, catalog, reader)
    quotes = _quotes(ask, gpus=gpus, catalog=catalog, reader=reader)
    if reader.problems or traffic is None or shape is None or own is None or rent is None:
        return None
    slo = Slo(ttft_s=ask.slo_ttft_s, itl_s=ask.slo_itl_s)
    sizing, among = FleetTarget(slo=slo, spares=ask.spares or 0, measured=ask.measured), _among(ask, gpus)
    tried = considered(shape, traffic, plan=sizing, catalog=catalog, among=among)
    fleets = tried.fleets
    used = {fleet.sized.ask.gpu.id for fleet in fleets}
    rented = used.union(each.sized.ask.gpu.id for some in tried.by_engine.values() for each in some)
    unfit = tuple(gpu for gpu in gpus if gpu not in used) if ask.gpus or not used else ()
    others = replace(among, gpus=unfit)
    reasons = why_none(shape, traffic, plan=sizing, catalog=catalog, among=others) if unfit else []
    paid_today = api_id(apis[0]) if ask.api and apis else ""
    return PlanInputs(
        traffic=traffic,
        fleets=tuple(fleets),
        by_engine=dict(tried.by_engine),
        apis=apis,
        rentals=tuple(offer for gpu in sorted(rented) for offer in look.rentals_for(catalog, gpu)),
        own=own,
        rent=rent,
        catalog=catalog,
        today=catalog.today,
        paid_today=paid_today,
        only_listed=only_listed(ask, apis, shape),
        doubts=(*_unchosen(ask, shape, paid_today), *_mostly_lost(traffic)),
        slo_ttft_s=ask.slo_ttft_s,
        slo_itl_s=ask.slo_itl_s,
        own_site=ask.site,
        growth_per_month=ask.growth,
        fallback_api=ask.spares is None,
        quotes=quotes,
        model=shape.name,
        asked_gpus=gpus if ask.gpus else (),
        notes=(
            *_no_fleet(shape.name, reasons, some=bool(fleets)),
            *_lost(traffic),
            *on_api,
            *_unused(quotes, gpus),
        ),
    )


def _gpus(ask: PlanAsk, catalog: Catalog, reader: FlagReader) -> tuple[str, ...]:
    if not ask.gpus:
        rented = {offer.gpu for offer in catalog.rentals} | {*ask.rentals}
        return tuple(name for name, gpu in catalog.gpus.items() if gpu.price or name in rented)
    found = [look.gpu(catalog, name) for name in ask.gpus]
    reader.problems += [each for each in found if isinstance(each, Problem)]
    return tuple(each.id for each in found if isinstance(each, GpuFacts))


def _unused(quotes: Mapping[str, Spread], gpus: tuple[str, ...]) -> Iterator[str]:
    """Yield which GPUs are quoted and not looked at."""
    quoted = {key.partition(":")[2] for key in quotes}
    for gpu in sorted(quoted - {"", *gpus}):
        yield f"the quote for {gpu} is not used: it is not among --gpu"


def _lost(traffic: Traffic) -> Iterator[str]:
    """Yield a warning where more rows of the usage files could not be used than a file that is whole has."""
    if traffic.bad_rows_total > _LOST * traffic.rows_total:
        part = traffic.bad_rows_total / traffic.rows_total
        yield f"WARNING: {part:.0%} of the usage's rows could not be used: the traffic lacks what they hold"


def _mostly_lost(traffic: Traffic) -> Iterator[str]:
    """Yield a doubt where what is left of the usage files is less than what was lost."""
    if traffic.bad_rows_total * 2 > traffic.rows_total:
        yield f"{traffic.bad_rows_total:,} of {traffic.rows_total:,} rows of the usage could not be used"


def _unchosen(ask: PlanAsk, shape: ModelShape, paid_today: str) -> tuple[str, ...]:
    if ask.model or ask.model_config:
        return ()
    instead = f" can stand for {paid_today}" if paid_today else " will do"
    return (f"the model was not chosen: whether {shape.name}{instead} must be tested (--model)",)


def _among(ask: PlanAsk, gpus: tuple[str, ...]) -> Among:
    return Among(
        gpus=gpus,
        quants=ask.quants,  # type: ignore[arg-type] # checked against QUANTS
        wish=ask.wish or NO_WISH,
        engines=(ask.engine,) if ask.engine else (),  # type: ignore[arg-type] # checked against ENGINES
    )


def _no_fleet(model: str, reasons: list[tuple[str, str]], *, some: bool) -> Iterator[str]:
    """Yield why these GPUs cannot do it, the closest one first; `some`: others can."""
    if not reasons:
        return
    (gpu, why), *others = reasons
    if some:
        yield from (f"{model} does not run within the SLO on {gpu}: {why}" for gpu, why in reasons)
    elif not others:
        yield f"{model} does not run within the SLO on {gpu}: {why}"
    else:
        yield f"{model} runs within the SLO on none of {len(reasons)} GPUs; the closest is {gpu}: {why}"
        yield "; ".join(f"{gpu}: {why}" for gpu, why in others)


def _quotes(
    ask: PlanAsk, *, gpus: tuple[str, ...], catalog: Catalog, reader: FlagReader
) -> dict[str, Spread]:
    """Return the quotes by the keys of cost.inputs; a price always says what it is for."""
    named = tuple(dict.fromkeys(gpus)) if ask.gpus else ()
    found: dict[str, Spread] = {}
    for said, usd in ask.rentals.items():
        gpu = _quoted_gpu(said, named, catalog, reader)
        if gpu:
            found[f"{RENTAL_QUOTE}:{gpu}"] = usd
    if ask.node is not None:
        found[NODE_QUOTE] = ask.node
        if len(named) != 1:
            hint = "name the one GPU that it holds: --gpu h100-sxm"
            reader.wrong("--node-usd", "a server is quoted, and not with which GPU", hint)
    return found


def _quoted_gpu(said: str, named: tuple[str, ...], catalog: Catalog, reader: FlagReader) -> str:
    """Return the GPU that a quote is for; empty: a problem is in the reader."""
    if not said:
        if len(named) == 1:
            return named[0]
        message = "a GPU-hour is quoted, and not of which GPU"
        reader.wrong(RENTAL_FLAG, message, f"name one with --gpu, or write {FORM}")
        return ""
    found = look.gpu(catalog, said, where=RENTAL_FLAG)
    if isinstance(found, Problem):
        reader.problems.append(found)
        return ""
    return found.id


def assumptions(
    ask: PlanAsk, catalog: Catalog, reader: FlagReader
) -> tuple[OwnAssumptions | None, RentAssumptions | None]:
    """Return what flags and the catalog say of owning and renting; None where problems are in the reader."""
    own_names = [field.name for field in fields(OwnAssumptions)]
    rent_names = [field.name for field in fields(RentAssumptions)]
    known = {*own_names, *(f"rent_{name}" for name in rent_names)}
    for name in ask.assumptions:
        if name not in known:
            reader.wrong(f"--set {name}", "there is no such assumption", nearest_hint(name, known))
    power = look.electricity_for(catalog, ask.region)
    if isinstance(power, Problem):
        reader.problems.append(power)
        return None, None
    own = {name: _assumption(name, name, ask, catalog) for name in own_names}
    if "power_usd_per_kwh" not in ask.assumptions:
        value = Spread.exactly(power.usd_per_kwh)  # its age is the cost model's to add
        own["power_usd_per_kwh"] = Assumption(name="power_usd_per_kwh", value=value, fact=power)
    rent = {name: _assumption(name, f"rent_{name}", ask, catalog) for name in rent_names}
    return OwnAssumptions(**own), RentAssumptions(**rent)


def _assumption(name: str, key: str, ask: PlanAsk, catalog: Catalog) -> Assumption:
    """Return what was said, for renting under its own name or else what was said of people, or the catalog's default.

    People that were said are those of the fleet, rented or bought: one input, with one name.
    """
    said = ask.assumptions.get(key)
    if said is None and name.startswith("staff_") and name in ask.assumptions:
        said, key = ask.assumptions[name], name
    if said is not None:
        fact = Fact(source=f"flag for {key}", as_of=catalog.today, verified=Verified.USER)
        return Assumption(name=key, value=said, fact=fact, asked=True)
    default = look.default(catalog, key if key in catalog.defaults else name)
    return Assumption(name=key, value=default.value, fact=default)
