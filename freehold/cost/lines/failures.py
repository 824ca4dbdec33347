"""What broken machines cost in answers: the tokens that they miss, at the price of the API that answers instead.

A failure takes a node out until it is repaired, or until a spare has loaded the weights. With no API to fall back
on, missed tokens have no price here: that is what spare replicas are for, and the plan says so. Parts are in
maintenance.
"""

import numpy as np

from freehold.cost.model.api_price import monthly_usd
from freehold.cost.model.capex import HOURS_PER_YEAR
from freehold.cost.model.case import CostCase
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Vector

SECONDS_PER_DAY = 86_400
"""The calendar's."""


def down_hours_per_node_year(case: CostCase) -> Vector:
    """Return the hours in a year in which a serving node is out."""
    own, counts = case.setting.own, case.counts
    gpus_per_node = (counts.gpus - counts.spare_gpus) / counts.serving_nodes
    failures = gpus_per_node * case.take(own.gpu_failures_per_gpu_year)
    return failures * _days_out(case) * 24


def missed_part(case: CostCase) -> Vector:
    """Return the part of the tokens that is not served, 0 to 1: measured, or from how often nodes are out."""
    if case.setting.missed_fraction is not None:
        return np.array([case.setting.missed_fraction], dtype=np.float32)
    return np.minimum(down_hours_per_node_year(case) / HOURS_PER_YEAR, 1)


def price(case: CostCase) -> Vector:
    """Return USD per month."""
    fallback = case.setting.fallback
    if fallback is None:
        return np.zeros(1, dtype=np.float32)
    tokens_usd = monthly_usd(fallback, case.setting.traffic, case.draws) * case.tokens_scale
    return missed_part(case) * tokens_usd


def _days_out(case: CostCase) -> Vector:
    if bool(np.any(case.counts.spare_gpus > 0)):
        return case.draws.take(f"{case.offer.gpu}:load_time_s", case.fleet.load_time_s) / SECONDS_PER_DAY
    return case.take(case.setting.own.repair_days)


LINE = CostLine(
    kinds=frozenset({"buy"}),
    price=price,
    source="GPUs of a node x failures per GPU-year x days out; 3 to 5 days to replace a part (nonuniform tensor parallelism paper)",
)
