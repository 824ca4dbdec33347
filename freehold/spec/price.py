"""What tokens cost, as the user writes it for a model or a fallback. It looks nothing up."""

from typing import Annotated

from pydantic import Field

from freehold.spec.fields import Usd
from freehold.spec.section import Section


class PriceSpec(Section):
    """Prices per token. Nothing is looked up: a price list changes without telling anybody."""

    input_usd_per_million_tokens: Annotated[float, Usd(most=1000)] = Field(examples=[0.15])
    """US dollars for a million tokens of prompts, 0 to 1000, at most six places. No default: a cost with a guessed
    price is worse than none."""
    output_usd_per_million_tokens: Annotated[float, Usd(most=1000)] = Field(examples=[0.6])
    """The same for a million tokens of answers. No default."""
    cached_input_usd_per_million_tokens: Annotated[float, Usd(most=1000)] | None = Field(
        default=None, examples=[0.075]
    )
    """The same for those tokens of prompts that came from a cache. Default: the price of the others."""
