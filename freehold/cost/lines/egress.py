"""Answers that leave the provider's network, by the GB. What comes in is not charged."""

from freehold.cost.case import Case
from freehold.cost.draw import Vector
from freehold.cost.line import Line

BYTES_PER_OUTPUT_TOKEN = 200
"""Source: a streamed chunk of the OpenAI protocol carries about one token; 16 Mbit/s per 10,000 tokens/s."""


def price(case: Case) -> Vector:
    """Return USD per month."""
    output_tokens = case.setting.traffic.output_tokens_per_month * case.tokens_scale
    per_gb = case.setting.own.egress_usd_per_gb if case.kind == "buy" else case.setting.rent.egress_usd_per_gb
    return output_tokens * BYTES_PER_OUTPUT_TOKEN / 1e9 * case.take(per_gb)


LINE = Line(
    name="egress",
    kinds=frozenset({"rent", "buy"}),
    price=price,
    source="output tokens x bytes of a streamed token x USD per GB",
)
