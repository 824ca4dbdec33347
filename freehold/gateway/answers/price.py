"""What tokens cost: a price per token and the cost of one request, in whole pico-dollars. Pure.

A cost is made from the usage that an engine reported and from nothing else: without it a cost is unknown, never 0.
"""

import msgspec

from freehold.gateway.answers.usage import Usage
from freehold.ledger.records.money import picousd, usd_text
from freehold.spec.price import PriceSpec

_TOKENS_PER_PRICE = 10**6
"""Prices are quoted per million tokens. Source: the price lists of OpenAI, Anthropic, Google and Mistral."""


class Price(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Prices per token, pico-dollars; per million tokens these are millionths of a dollar."""

    input_picousd: int
    cached_picousd: int
    output_picousd: int

    def cost_picousd(self, usage: Usage | None) -> int | None:
        """Return what a request cost; None: its usage is not known whole.

        An answer without a count of cached tokens had none: a provider with a cache discount reports the count.
        """
        if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
            return None
        cached = min(usage.cached_tokens or 0, usage.prompt_tokens)
        return self.of(usage.prompt_tokens - cached, usage.completion_tokens) + cached * self.cached_picousd

    def cost_usd(self, usage: Usage | None, *, nothing: bool) -> str:
        """Return a request's cost as the ledger has it; empty: it is not known, unless there was `nothing` to charge."""
        cost_picousd = self.cost_picousd(usage)
        if cost_picousd is None:
            return usd_text(0) if nothing else ""
        return usd_text(cost_picousd)

    def of(self, input_tokens: int, output_tokens: int) -> int:
        """Return what that many tokens cost, none of them cached."""
        return input_tokens * self.input_picousd + output_tokens * self.output_picousd


def price_from(spec: PriceSpec) -> Price:
    """Return the prices that freehold.yaml gives; without one for cached tokens they cost what others do."""
    cached = spec.cached_input_usd_per_million_tokens
    whole = spec.input_usd_per_million_tokens
    return Price(
        input_picousd=picousd(whole) // _TOKENS_PER_PRICE,
        cached_picousd=picousd(whole if cached is None else cached) // _TOKENS_PER_PRICE,
        output_picousd=picousd(spec.output_usd_per_million_tokens) // _TOKENS_PER_PRICE,
    )
