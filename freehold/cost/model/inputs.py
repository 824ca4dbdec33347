"""What the cost model is given: traffic, fleets that carry it, and what things cost, each with its range and source.

`plan` fills it from a forecast and the catalog, `review` from a measured month: one model, two inputs. Nothing is
computed here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from freehold.catalog.facts import ApiPrice, Catalog, Fact, RentalPrice
from freehold.core.spread import Spread
from freehold.sizing.fleet.traffic import Traffic
from freehold.sizing.model.words import Engine
from freehold.sizing.replica.answer import SizedFleet


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumption:
    """One uncertain input: a range in the unit that its name ends with, and where it comes from."""

    name: str
    """As flags and the tornado call it, unit last: `price_usd_per_kwh`."""
    value: Spread
    """As the fact has it: a plan widens what the user did not give for age and origin, and nothing widens it before."""
    fact: Fact
    asked: bool = False
    """True: the user said it; false: the catalog or a default did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnAssumptions:
    """What owning costs besides the fleet: the fields are the uncertain inputs of freehold/cost/lines."""

    chassis_usd_per_gpu: Assumption
    """Chassis, CPUs, PSUs, NICs and the share of the switch."""
    host_ram_usd_per_gb: Assumption
    storage_usd_per_tb: Assumption
    network_usd_per_node: Assumption
    power_usd_per_kwh: Assumption
    pue_ratio: Assumption
    host_kw: Assumption
    gpu_power_fraction: Assumption
    """Mean draw over TDP while serving."""
    colo_usd_per_kw_month: Assumption
    residual_fraction: Assumption
    capital_rate_per_year: Assumption
    life_months: Assumption
    maintenance_fraction_per_year: Assumption
    insurance_fraction_per_year: Assumption
    staff_fte: Assumption
    """Engineers for the whole fleet, on-call included."""
    staff_usd_per_year: Assumption
    gpu_failures_per_gpu_year: Assumption
    repair_days: Assumption
    egress_usd_per_gb: Assumption


@dataclass(frozen=True, slots=True, kw_only=True)
class RentAssumptions:
    """What renting costs besides the hourly price."""

    staff_fte: Assumption
    staff_usd_per_year: Assumption
    storage_usd_per_tb_month: Assumption
    egress_usd_per_gb: Assumption


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInputs:
    """Everything that a plan is worked out from."""

    traffic: Traffic
    fleets: tuple[SizedFleet, ...]
    """The best few per GPU; each is priced as rented and as bought."""
    apis: tuple[ApiPrice, ...]
    """Those worth comparing; the one in use first."""
    rentals: tuple[RentalPrice, ...]
    own: OwnAssumptions
    rent: RentAssumptions
    catalog: Catalog
    today: date
    paid_today: str = ""
    """`provider/model` of the API in use; empty: not given."""
    own_site: str = "colocation"
    """Where bought machines stand: `colocation` or `on-premises`. Colocation that includes power is not charged PUE again."""
    growth_per_month: float = 0.0
    """Of the traffic, a fraction."""
    draws: int = 100_000
    seed: int = 1
    fallback_api: bool = True
    """Whether an API answers while owned hardware is down, and is paid for it; else the fleets' spares do, exactly so many."""
    said: tuple[str, ...] = ()
    """The flags that were given, each with its value, for the next command; empty: they are made from the rest."""
    only_listed: tuple[str, ...] = ()
    """`provider/model` of APIs that are shown for comparison and cannot win: models that were not asked for."""
    doubts: tuple[str, ...] = ()
    """What else the verdict rests on without anybody having said it: a model that was not chosen."""
    slo_ttft_s: float | None = None
    """For the report's head, as is the next."""
    slo_itl_s: float | None = None
    by_engine: Mapping[Engine, Sequence[SizedFleet]] = field(default_factory=dict)
    """By engine, the fleets if it ran everywhere: whether the verdict rests on a choice that nobody measured."""
    quotes: dict[str, Spread] = field(default_factory=dict)
    """What the user was quoted, by what: `rental_usd_per_gpu_hour` (for one GPU: `rental_usd_per_gpu_hour:h100-sxm`), `node_usd`."""
    model: str = ""
    """The open model that would be run, where there is no fleet of it."""
    asked_gpus: tuple[str, ...] = ()
    """GPUs that were named: a report shows what they cost, whatever it is; empty: none was named."""
    notes: tuple[str, ...] = ()
    """What the report has to say first of what was asked: why no machine can do it."""
