"""One option in one set of draws: what a cost line is asked about.

A `CostSetting` holds what all options share, an `Offer` what distinguishes one option, a `CostCase` both with the
draws and the scale of the traffic. Here is no price of anything: see lines/.
"""

from dataclasses import dataclass

from freehold.catalog.facts import ApiPrice, Colocation
from freehold.core.spread import Spread
from freehold.cost.model.draw import Sampler, Vector
from freehold.cost.model.fleet_counts import Counts, counts_as_they_stand, counts_of
from freehold.cost.model.inputs import Assumption, OwnAssumptions, RentAssumptions
from freehold.cost.model.result import Kind
from freehold.sizing.fleet.traffic import Traffic
from freehold.sizing.replica.answer import SizedFleet


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiOffer:
    """A cloud API's prices and how sure they are: its prices move together, by one factor."""

    fact: ApiPrice
    price_ratio: Spread
    """What is asked over what is listed; exactly 1 for a list price that is fresh and was read, and the bill's where there is one."""

    @property
    def name(self) -> str:
        """Return the name of the input that its price is."""
        return f"{self.fact.provider}/{self.fact.model}:api_price_ratio"

    @property
    def cached_usd_per_m(self) -> float:
        """Return the price of cached input; where none is known it costs like any input."""
        cached = self.fact.cached_input_usd_per_m
        return self.fact.input_usd_per_m if cached is None else cached


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSetting:
    """What all options of a plan, or the one of a review, share."""

    traffic: Traffic
    own: OwnAssumptions
    rent: RentAssumptions
    site: str = "colocation"
    fallback: ApiOffer | None = None
    """The API that answers while owned hardware is down; None: none does, and what is missed has no price."""
    spare_node: bool = False
    """Whether a cold node stands beside the fleet: for what if. A plan's spares are its fleets' own."""
    node_usd: Spread | None = None
    """A quote for a whole server with its GPUs, memory and disks."""
    measured_it_w: Spread | None = None
    """Mean draw of all machines, measured; None: worked out from their ratings."""
    machines_stand: bool = False
    """The machines are those that stand there, however fast they turn out: a review's. Else a slow GPU gets company."""
    missed_fraction: float | None = None
    """Of the period's tokens that machines that were down did not serve, measured; None: from failure rates."""

    @property
    def power_included(self) -> bool:
        """Return whether the rent of the space pays for the electricity and the cooling as well."""
        fact = self.own.colo_usd_per_kw_month.fact
        return self.site == "colocation" and isinstance(fact, Colocation) and fact.power_included


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One way to serve the traffic, before it is priced."""

    id: str
    kind: Kind
    provider: str
    fleet: SizedFleet | None = None
    api: ApiOffer | None = None
    rental_usd_per_gpu_hour: Spread | None = None
    gpu_usd: Spread | None = None
    """Of one GPU as bought; None: not bought, or not known: then the option is incomplete."""
    model: str = ""
    terms: str = ""
    paid_today: bool = False
    eligible: bool = True
    """Whether it may be the verdict: spot machines and consumer cards are only listed."""
    reserved: bool = False
    """A rental that is paid for whether it is used or not."""
    overridden: bool = False
    """A rental that could win but for the user's own quote for its GPU: it is shown as the market, and not judged."""
    incomplete: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def gpu(self) -> str:
        """Return the catalog id of its GPU, empty for an API."""
        return self.fleet.sized.ask.gpu.id if self.fleet else ""

    @property
    def price_name(self) -> str:
        """Return the name of the input that its price is."""
        if self.api:
            return self.api.name
        rented = f"{self.provider} {self.terms} {self.gpu}:rental_usd_per_gpu_hour"
        return rented if self.kind == "rent" else f"{self.gpu}:gpu_usd"

    @property
    def complete(self) -> bool:
        """Return whether every part of it has a price."""
        return not self.incomplete


@dataclass(frozen=True, slots=True, kw_only=True)
class CostCase:
    """An offer in a setting, under draws. What draws keep for lines is of one setting: another one needs other draws."""

    setting: CostSetting
    offer: Offer
    draws: Sampler
    tokens_scale: float = 1.0
    """Of the setting's traffic: what is served."""
    fleet_scale: float = 1.0
    """Of the setting's traffic: what the fleet is sized for. It differs from the other where a fleet stays as it is."""

    def __post_init__(self) -> None:
        assert self.draws.keep("setting", lambda: self.setting) is self.setting

    @property
    def kind(self) -> Kind:
        """Return api, rent or buy."""
        return self.offer.kind

    @property
    def fleet(self) -> SizedFleet:
        """Return the machines; an API has none, and no line that asks applies to it."""
        assert self.offer.fleet is not None
        return self.offer.fleet

    @property
    def counts(self) -> Counts:
        """Return how many GPUs and nodes that is."""
        if self.setting.machines_stand:
            return self.draws.keep(("counts", id(self.offer.fleet)), lambda: counts_as_they_stand(self.fleet))
        cold, bought = self.kind == "buy" and self.setting.spare_node, self.kind == "buy"
        key = ("counts", id(self.offer.fleet), cold, bought, self.fleet_scale)
        return self.draws.keep(
            key,
            lambda: counts_of(self.fleet, self.draws, scale=self.fleet_scale, cold_spare=cold, bought=bought),
        )

    @property
    def tokens_per_month(self) -> float:
        """Return input and output tokens together, as scaled."""
        return self.setting.traffic.tokens_per_month * self.tokens_scale

    def take(self, assumption: Assumption) -> Vector:
        """Return the values of an assumption."""
        return self.draws.take(assumption.name, assumption.value)
