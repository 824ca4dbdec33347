"""The contract of a cost line: what every file of freehold/cost/lines keeps, whatever it prices.

`check_cost_line(LINE, cases)` reports all that is wrong at once. Whether the formula is right it cannot know.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from freehold.cost import lines
from freehold.cost.model.case import CostCase
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Draws, Vector

DRAWS = 500
"""Of each case: enough to meet both tails. Our own choice."""


def check_cost_line(line: CostLine, cases: Sequence[CostCase]) -> list[str]:
    """Return what breaks the contract, as sentences; empty: nothing. Draws of the cases are made anew."""
    applying = [case for case in cases if line.applies(case)]
    return [
        *_check_words(line),
        *_check_kinds(line, applying),
        *(wrong for case in applying for wrong in _check(line, case)),
    ]


def _check_words(line: CostLine) -> Iterator[str]:
    if not hasattr(lines, line.name):
        yield f"{line.name}: the name is not that of its file"
    if not line.source.strip():
        yield f"{line.name}: the formula has no source"
    if not line.kinds:
        yield f"{line.name}: it is of no kind of option"


def _check_kinds(line: CostLine, applying: Sequence[CostCase]) -> Iterator[str]:
    for kind in sorted(line.kinds - {case.kind for case in applying}):
        yield f"{line.name}: it says that it is for {kind}, but applies to no such case"


def _check(line: CostLine, case: CostCase) -> Iterator[str]:
    draws = Draws(DRAWS, seed=1)
    usd = line.price(replace(case, draws=draws))
    where = f"{line.name} of {case.offer.id}"
    yield from (f"{where}: {what}" for what in _check_vector(usd))
    if not np.array_equal(usd, line.price(replace(case, draws=Draws(DRAWS, seed=1)))):
        yield f"{where}: the same seed gives other values"


def _check_vector(usd: Vector) -> Iterator[str]:
    if usd.shape not in {(1,), (DRAWS,)}:
        yield f"a vector of {usd.shape} where one value per draw, or one for all, is due"
    if not np.all(np.isfinite(usd)):
        yield "some values are not finite"
    elif np.any(usd < 0):
        yield "some values are negative"
