"""Disks for two copies of the weights on every node: bought and written off, or rented by the month. Not logs."""

from freehold.cost.model.capex import capex_of, disk_tb, serving, straight_line
from freehold.cost.model.case import CostCase
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Vector


def price(case: CostCase) -> Vector:
    """Return USD per month."""
    if case.kind == "buy":
        return serving(case, straight_line(case, capex_of(case).storage))
    return case.counts.nodes * disk_tb(case) * case.take(case.setting.rent.storage_usd_per_tb_month)


LINE = CostLine(
    kinds=frozenset({"rent", "buy"}),
    price=price,
    source="nodes x TB x price; weights twice, so that an upgrade can be rolled back",
)
