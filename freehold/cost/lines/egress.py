"""Answers that leave the provider's network, by the GB. What comes in is not charged."""

from freehold.cost.model.case import CostCase
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Vector
from freehold.sizing.fleet.links import MBIT_PER_TOKEN_S

BYTES_PER_OUTPUT_TOKEN = MBIT_PER_TOKEN_S * 1e6 / 8
"""Source: what sizing gives a balancer's link; 200 bytes, a streamed chunk of about one token."""


def price(case: CostCase) -> Vector:
    """Return USD per month."""
    output_tokens = case.setting.traffic.output_tokens_per_month * case.tokens_scale
    per_gb = case.setting.own.egress_usd_per_gb if case.kind == "buy" else case.setting.rent.egress_usd_per_gb
    return output_tokens * BYTES_PER_OUTPUT_TOKEN / 1e9 * case.take(per_gb)


LINE = CostLine(
    kinds=frozenset({"rent", "buy"}),
    price=price,
    source="output tokens x bytes of a streamed token x USD per GB",
)
