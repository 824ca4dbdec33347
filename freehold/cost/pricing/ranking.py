"""A plan's options, priced under the same draws and put in order: what verdict, break-evens and rules look at.

Nothing is judged here but which option of a kind is the cheapest, by the middle of its draws.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import date

from freehold.catalog.age import priced as priced_today
from freehold.core.spread import Spread
from freehold.cost.model.case import CostSetting, Offer
from freehold.cost.model.draw import Draws
from freehold.cost.model.inputs import Assumption, OwnAssumptions, PlanInputs, RentAssumptions
from freehold.cost.model.offers import (
    RENTAL_QUOTE,
    asked_model,
    is_given,
    is_lasting,
    offers_of,
    quoted_names,
    serves,
    setting_of,
)
from freehold.cost.model.percentiles import range_of
from freehold.cost.model.result import Kind, Percentiles
from freehold.cost.pricing.price import Priced, price
from freehold.cost.pricing.reference_node import reference_node


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A priced option with its range."""

    priced: Priced
    usd_per_month: Percentiles

    @property
    def offer(self) -> Offer:
        """Return what was priced."""
        return self.priced.offer

    @property
    def may_win(self) -> bool:
        """Return whether it can be the verdict: complete, and nothing that is only listed."""
        return self.offer.complete and self.offer.eligible


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """All options of a plan, cheapest first, the incomplete ones last."""

    inputs: PlanInputs
    setting: CostSetting
    draws: Draws
    options: tuple[Ranked, ...]
    node: Priced | None = None
    """The node that guides speak of, eight H100 as bought: the same in every plan. None: the catalog has no such card."""

    def best(self, kind: Kind) -> Ranked | None:
        """Return the cheapest of a kind that may win."""
        return self._first(lambda each: each.offer.kind == kind and each.may_win)

    @property
    def in_use(self) -> Ranked | None:
        """Return the API that is paid today, where it was given."""
        return self._first(lambda each: each.offer.paid_today)

    @property
    def same_model(self) -> Ranked | None:
        """Return the cheapest API of the model that would be run."""
        return self._first(lambda each: serves(each.offer, asked_model(self.inputs)))

    @property
    def yardstick(self) -> Ranked | None:
        """Return the API that owning and renting are measured by: the one in use, of the same model, or any."""
        return self.in_use or self.same_model or self.best("api")

    @property
    def machines(self) -> Ranked | None:
        """Return the cheapest of all rented and bought options that may win."""
        return self._first(lambda each: each.offer.kind != "api" and each.may_win)

    @property
    def same_gpu(self) -> tuple[Ranked | None, Ranked | None]:
        """Return the cheapest purchase and rental of one fleet, of the first that has both; rather not a reservation."""
        for bought in (each for each in self.options if each.offer.kind == "buy" and each.may_win):
            rented = [
                each
                for each in self.options
                if each.offer.kind == "rent" and each.may_win and _replica(each) == _replica(bought)
            ]
            if rented:
                return bought, min(rented, key=lambda each: each.offer.reserved)
        return None, None

    def market(self, gpu: str) -> Spread | None:
        """Return what a GPU-hour is rented for: the least, middle and most of the lasting offers, a quote among them."""
        listed = {
            each.offer.rental_usd_per_gpu_hour.mid
            for each in self.options
            if each.offer.gpu == gpu
            and (each.offer.eligible or each.offer.overridden)
            and each.offer.rental_usd_per_gpu_hour
        }
        if listed:
            listed |= {
                each.usd_per_gpu_hour for each in self.inputs.rentals if each.gpu == gpu and is_lasting(each)
            }
        ordered = sorted(listed)
        return Spread(ordered[0], ordered[len(ordered) // 2], ordered[-1]) if ordered else None

    def _first(self, holds: Callable[[Ranked], bool]) -> Ranked | None:
        return next((each for each in self.options if holds(each)), None)


def _replica(ranked: Ranked) -> tuple[object, ...]:
    """Return the replica that it runs, and how many: machines that are rented and bought differ in how many come together."""
    if ranked.offer.fleet is None:
        return ()
    fleet = ranked.offer.fleet
    ask = fleet.sized.ask
    return (ask.shape.name, ask.gpu.id, ask.gpus, ask.engine, ask.quant, ask.concurrency, fleet.replicas)


def ranking_of(inputs: PlanInputs) -> Ranking:
    """Return the options priced under the plan's draws."""
    widened, draws = with_ages(inputs), Draws(inputs.draws, inputs.seed)
    setting = setting_of(widened)
    priced = [price(offer, setting, draws=draws) for offer in offers_of(widened)]
    ranked = [Ranked(priced=each, usd_per_month=range_of(each.total)) for each in priced]
    ranked.sort(key=lambda each: (not each.offer.complete, each.usd_per_month.p50))
    return Ranking(
        inputs=widened,
        setting=setting,
        draws=draws,
        options=tuple(ranked),
        node=reference_node(widened, setting),
    )


def given_names(inputs: PlanInputs) -> frozenset[str]:
    """Return the inputs that the user said, by the names that draws have for them."""
    said = {each.name for each in assumptions_of(inputs) if each.asked or is_given(each.fact)}
    return frozenset(
        said
        | quoted_names(inputs)
        | ({RENTAL_QUOTE} if any(key.startswith(RENTAL_QUOTE) for key in inputs.quotes) else set())
    )


def assumptions_of(inputs: PlanInputs) -> tuple[Assumption, ...]:
    """Return every assumption, those of owning first."""
    return tuple(getattr(each, part.name) for each in (inputs.own, inputs.rent) for part in fields(each))


def with_ages(inputs: PlanInputs) -> PlanInputs:
    """Return the inputs with every price that the user did not say as wide as its age and origin ask for."""
    own, rent = aged(inputs.own, inputs.rent, inputs.today)
    return replace(inputs, own=own, rent=rent)


def aged(
    owning: OwnAssumptions, renting: RentAssumptions, today: date
) -> tuple[OwnAssumptions, RentAssumptions]:
    """Return the assumptions, each price that the user did not say as wide as its age and origin ask for."""
    own = {part.name: _aged(getattr(owning, part.name), today) for part in fields(owning)}
    rent = {
        part.name: _alike(_aged(getattr(renting, part.name), today), own.get(part.name))
        for part in fields(renting)
    }
    return OwnAssumptions(**own), RentAssumptions(**rent)


def _alike(rented: Assumption, owned: Assumption | None) -> Assumption:
    """Return the assumption of renting; where it says what the one of owning says, it is that one, with its draws."""
    if owned and (rented.value, rented.fact) == (owned.value, owned.fact):
        return owned
    return rented


def _aged(assumption: Assumption, today: date) -> Assumption:
    if assumption.asked or "usd" not in assumption.name:
        return assumption
    return replace(assumption, value=priced_today(assumption.fact, assumption.value, today))
