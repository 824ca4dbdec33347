"""The rent of space and power in a rented data centre, by the kW that is contracted: what the machines may draw.

On the team's own premises there is no such line, and the room is not priced.
"""

from freehold.cost.model.case import CostCase
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Vector


def contracted_kw(case: CostCase) -> Vector:
    """Return kW: every GPU at its TDP and every host at the most that it is thought to draw."""
    gpu_kw = case.fleet.sized.ask.gpu.tdp_w / 1000
    return case.counts.gpus * gpu_kw + case.counts.full_nodes * case.setting.own.host_kw.value.high


def price(case: CostCase) -> Vector:
    """Return USD per month."""
    return contracted_kw(case) * case.take(case.setting.own.colo_usd_per_kw_month)


LINE = CostLine(
    kinds=frozenset({"buy"}),
    price=price,
    source="contracted kW x USD per kW and month; contracts are for the most that can be drawn, not the mean",
    when=lambda case: case.setting.site == "colocation",
)
