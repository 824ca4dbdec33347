"""What a cost line is: a name, what it prices, for which kinds of options, and where its formula comes from.

The lines themselves are the files of lines/; nothing here knows one.
"""

from collections.abc import Callable
from dataclasses import dataclass

from freehold.cost.model.case import CostCase
from freehold.cost.model.draw import Vector
from freehold.cost.model.result import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """One file of lines/. `price` gives USD per month, one value per draw or one for all; never negative."""

    kinds: frozenset[Kind]
    price: Callable[[CostCase], Vector]
    source: str
    """Of the formula."""
    when: Callable[[CostCase], bool] = lambda _: True
    of_offer: bool = False
    """Whether it depends on the provider's price: if not, options of one fleet share it."""

    @property
    def name(self) -> str:
        """Return the name of its file."""
        return self.price.__module__.rpartition(".")[2]

    def applies(self, case: CostCase) -> bool:
        """Return whether the option has this cost."""
        return case.kind in self.kinds and self.when(case)
