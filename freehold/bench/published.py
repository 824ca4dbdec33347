"""Published shapes of traffic by name: quantiles of token counts with their source (published.json).

It holds no prompts and no traces: what is restated are the numbers that a paper prints.
"""

from functools import cache
from importlib.resources import files

import msgspec

from freehold.bench.sizes import Given, Quantiles


class Published(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One shape."""

    name: str
    """What `--shape` is given."""
    summary: str
    source: str
    as_of: str
    prompt: tuple[tuple[float, float], ...]
    """Share of requests and the tokens that their prompts have at most, ascending from the median."""
    answer: tuple[tuple[float, float], ...]

    def sizes(self) -> Given:
        """Return it as requests draw from it."""
        return Given(
            prompt=Quantiles(self.prompt), answer=Quantiles(self.answer), name=f"{self.name} ({self.source})"
        )


@cache
def published() -> dict[str, Published]:
    """Return every published shape by its name."""
    text = (files(__package__) / "published.json").read_bytes()
    return {each.name: each for each in msgspec.json.decode(text, type=tuple[Published, ...])}
