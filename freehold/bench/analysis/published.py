"""Published shapes of traffic by name: quantiles of token counts with their source (published.json).

It holds no prompts and no traces. What is restated are quantiles that were computed from rows of published data, or that a publication
prints, each with its address. How prompt and answer go together is not restated.
"""

from functools import cache
from importlib.resources import files

import msgspec

from freehold.bench.analysis.sizes import Given, Quantiles


class Published(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One shape."""

    name: str
    """What `--shape` is given."""
    summary: str
    source: str
    """Where it is published, with its address."""
    rows: str
    """From how many of its rows the quantiles were computed."""
    as_of: str
    """When it was recorded."""
    prompt: tuple[tuple[float, float], ...]
    """Share of requests and the tokens that their prompts have at most, ascending, the median among them."""
    answer: tuple[tuple[float, float], ...]

    def sizes(self) -> Given:
        """Return it as requests draw from it."""
        name = f"{self.name} ({self.source}; {self.rows})"
        return Given(prompt=Quantiles(self.prompt), answer=Quantiles(self.answer), name=name)


@cache
def published() -> dict[str, Published]:
    """Return every published shape by its name."""
    text = (files(__package__) / "published.json").read_bytes()
    return {each.name: each for each in msgspec.json.decode(text, type=tuple[Published, ...])}
