"""An option's price: the sum of its cost lines, draw by draw.

Which lines there are is the folder lines/'s business. Nothing is compared here.
"""

from dataclasses import dataclass

import numpy as np

from freehold.cost.lines import all_lines
from freehold.cost.model.case import CostCase, CostSetting, Offer
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Middle, Sampler, Vector

WRITTEN_OFF = frozenset({"hardware", "host_ram", "network", "storage", "spares", "capital"})
"""The lines of a bought option that spread what was paid at the start: not paid again, month by month."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """USD per month, by line and in sum; each a value per draw or one for all."""

    case: CostCase
    lines: dict[str, Vector]
    total: Vector

    @property
    def offer(self) -> Offer:
        """Return what was priced."""
        return self.case.offer

    @property
    def running(self) -> Vector:
        """Return the total without what was paid at the start."""
        paid = (values for name, values in self.lines.items() if name not in WRITTEN_OFF)
        return sum(paid, start=np.zeros(1, dtype=np.float32))


def price(
    offer: Offer, setting: CostSetting, *, draws: Sampler, tokens_scale: float = 1.0, fleet_scale: float = 1.0
) -> Priced:
    """Return the option priced. The total of an incomplete one is a least figure."""
    case = CostCase(
        setting=setting, offer=offer, draws=draws, tokens_scale=tokens_scale, fleet_scale=fleet_scale
    )
    lines = {line.name: _priced(line, case) for line in all_lines() if line.applies(case)}
    return Priced(case=case, lines=lines, total=sum(lines.values(), start=np.zeros(1, dtype=np.float32)))


def middle_usd(
    offer: Offer,
    setting: CostSetting,
    *,
    held: Middle | None = None,
    tokens_scale: float = 1.0,
    fleet_scale: float = 1.0,
) -> float:
    """Return USD per month at middle values, or with some inputs held elsewhere."""
    draws = held or Middle()
    return float(
        price(offer, setting, draws=draws, tokens_scale=tokens_scale, fleet_scale=fleet_scale).total[0]
    )


def _priced(line: CostLine, case: CostCase) -> Vector:
    if line.of_offer:
        return line.price(case)
    key = ("line", line.name, case.kind, id(case.offer.fleet), case.tokens_scale, case.fleet_scale)
    return case.draws.keep(key, lambda: line.price(case))
