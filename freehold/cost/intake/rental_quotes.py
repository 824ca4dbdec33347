"""What the team was quoted for a GPU-hour, read: for one GPU or for several. A price always says what it is for.

A number alone is a quote for the one GPU of `--gpu`; `h100-sxm=2.10,l40s=0.95` says it by itself. Which GPUs there are only
the catalog knows, so their names are checked where it is there.
"""

from collections.abc import Mapping

from freehold.core.problems import Problem
from freehold.core.spread import Spread
from freehold.cost.intake.numbers import spread

RENTAL_FLAG = "--rental-usd-per-gpu-hour"
FORM = "h100-sxm=2.10, or several: h100-sxm=2.10,l40s=0.80..0.95"
"""How a rental quote says what it is for."""
_BOUNDS = (0.01, 200.0)
"""USD. Source: the rental catalog spans 0.2 to 15; twenty times less or more is another unit (a node, a month, a cent)."""

Rentals = Mapping[str, Spread]
"""USD per GPU-hour by the GPU's name as it was said; empty: for the one GPU of `--gpu`."""


def read_rentals(flag: str, text: str) -> Rentals | Problem:
    """Return the quotes of `2.10`, `1.80..2.60`, `h100-sxm=2.10` or `h100-sxm=2.10,l40s=0.95`, each within bounds."""
    read = spread(_BOUNDS)
    if "=" not in text:
        found = read(flag, text)
        return found if isinstance(found, Problem) else {"": found}
    quotes: dict[str, Spread] = {}
    for part in text.split(","):
        gpu, equals, number = (each.strip() for each in part.partition("="))
        if not gpu or not equals:
            return Problem(where=flag, message=f"{part.strip()!r} does not name its GPU", hint=FORM)
        if gpu.casefold() in map(str.casefold, quotes):
            return Problem(where=flag, message=f"{gpu} is quoted twice", hint="a range is low..high")
        found = read(flag, number)
        if isinstance(found, Problem):
            return found
        quotes[gpu] = found
    return quotes
