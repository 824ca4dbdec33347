"""What bought machines cost once, by part, and what that comes to per month: straight line, and the price of capital.

Straight line and capital add up to the annuity that a lender would ask for: (C - S / (1 + r)^n) x r / (1 - (1 + r)^-n),
with S what the machines fetch after n months. Rented machines have none of this.
"""

from dataclasses import dataclass

import numpy as np

from freehold.cost.model.case import CostCase
from freehold.cost.model.draw import Vector
from freehold.sizing.fleet.traffic import HOURS_PER_MONTH

MONTHS_PER_YEAR = 12  # the calendar's
HOURS_PER_YEAR = HOURS_PER_MONTH * MONTHS_PER_YEAR
"""Source: 8,760."""
DISK_TB_MIN = 1.92
"""Least local storage of a bought node. Source: the smallest capacity data-centre NVMe drives commonly come in."""
WEIGHT_COPIES = 2
"""Of the weights on local disks: the running one and the next. Source: an upgrade that can be rolled back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capex:
    """USD for everything bought, spares included."""

    hardware: Vector
    """GPUs and chassis, or whole servers where a quote was given."""
    host_ram: Vector
    network: Vector
    storage: Vector

    @property
    def total(self) -> Vector:
        """Return the sum."""
        return self.hardware + self.host_ram + self.network + self.storage


def capex_of(case: CostCase) -> Capex:
    """Return what the case's machines cost. A GPU without a price counts 0 here: its option is incomplete."""
    return case.draws.keep(("capex", case.offer.id, case.fleet_scale), lambda: _capex(case))


def _capex(case: CostCase) -> Capex:
    own, counts = case.setting.own, case.counts
    network = counts.full_nodes * case.take(own.network_usd_per_node)
    if case.setting.node_usd is not None:
        nothing = np.zeros(1, dtype=np.float32)
        quoted = counts.nodes * case.draws.take("node_usd", case.setting.node_usd)
        return Capex(hardware=quoted, host_ram=nothing, network=network, storage=nothing)
    gpu = (
        case.draws.take(case.offer.price_name, case.offer.gpu_usd)
        if case.offer.gpu_usd
        else np.zeros(1, dtype=np.float32)
    )
    return Capex(
        hardware=counts.gpus * (gpu + case.take(own.chassis_usd_per_gpu)),
        host_ram=counts.nodes * case.fleet.host_ram_gb * case.take(own.host_ram_usd_per_gb),
        network=network,
        storage=counts.nodes * disk_tb(case) * case.take(own.storage_usd_per_tb),
    )


def disk_tb(case: CostCase) -> float:
    """Return the local storage per node, TB."""
    weights_tb = WEIGHT_COPIES * case.fleet.sized.weights_bytes / 1e12
    return max(DISK_TB_MIN, weights_tb) if case.kind == "buy" else weights_tb


def straight_line(case: CostCase, usd: Vector) -> Vector:
    """Return what is written off per month: the price less what it fetches at the end (a credit), over its life."""
    own = case.setting.own
    part = case.draws.keep(
        ("straight line", own.residual_fraction.name, own.life_months.name),
        lambda: (1 - residual(case)) / life(case),
    )
    return usd * part


def life(case: CostCase) -> Vector:
    """Return the months over which machines are written off, above 0."""
    months = case.take(case.setting.own.life_months)
    assert float(months.min()) > 0, "machines that last no time have no cost a month"
    return months


def residual(case: CostCase) -> Vector:
    """Return what is left of the price at the end, 0 to 1: nothing is sold for more than it cost."""
    left = case.take(case.setting.own.residual_fraction)
    return np.asarray(np.where(left > 1, 1, np.where(left < 0, 0, left)))


def serving(case: CostCase, usd: Vector) -> Vector:
    """Return the part of the serving machines; the rest stands in the line `spares`."""
    return np.asarray(usd * (1 - case.counts.spare_part))


def annuity_part(case: CostCase) -> Vector:
    """Return the monthly annuity over the price at a twelfth of the nominal rate a month, in double precision: differences of powers near 1 need it."""
    own = case.setting.own
    rate = np.asarray(case.take(own.capital_rate_per_year), dtype=np.float64) / MONTHS_PER_YEAR
    months = np.asarray(life(case), dtype=np.float64)
    left = np.asarray(residual(case), dtype=np.float64)
    fade = np.exp(-months * np.log1p(rate))
    return np.where(rate > 0, (1 - left * fade) * rate / np.where(rate > 0, 1 - fade, 1), (1 - left) / months)
