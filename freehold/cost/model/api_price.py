"""What a cloud API charges for a traffic: input, cached input and output, and half price for what can wait a day.

Long-context tiers are not applied: a price list's standard tier is per request below some 200,000 input tokens.
"""

from freehold.cost.model.case import ApiOffer
from freehold.cost.model.draw import Sampler, Vector
from freehold.sizing.fleet.traffic import Traffic

BATCH_DISCOUNT = 0.5
"""Source: the batch pages of OpenAI and Anthropic, both 50 % off input and output within 24 h (read 2026-11)."""
BATCH_READ = frozenset({"openai", "anthropic"})
"""Providers whose discount was read. Others ask for less or more (Kimi: 40 % off) or have none: a plan warns."""


def monthly_usd(api: ApiOffer, traffic: Traffic, draws: Sampler) -> Vector:
    """Return USD per month for all of the traffic."""
    return listed_usd(api, traffic) * draws.take(api.name, api.price_ratio)


def listed_usd(api: ApiOffer, traffic: Traffic) -> float:
    """Return USD per month at the prices as they are listed."""
    cached = traffic.input_tokens_per_month * traffic.cached_share
    fresh = traffic.input_tokens_per_month - cached
    usd = (
        fresh * api.fact.input_usd_per_m
        + cached * api.cached_usd_per_m
        + traffic.output_tokens_per_month * api.fact.output_usd_per_m
    ) / 1e6
    return usd * (1 - BATCH_DISCOUNT * traffic.batch_share)
