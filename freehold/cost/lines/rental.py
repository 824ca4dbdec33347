"""What a provider asks for the GPUs, around the clock: a server that people wait for is not turned off at night.

It does not foresee that prices move within the term.
"""

import numpy as np

from freehold.cost.model.case import CostCase
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Vector
from freehold.sizing.fleet.traffic import HOURS_PER_MONTH


def price(case: CostCase) -> Vector:
    """Return USD per month; 0 where no price is known, and then the option is incomplete."""
    hourly = case.offer.rental_usd_per_gpu_hour
    if hourly is None:
        return np.zeros(1, dtype=np.float32)
    return case.counts.gpus * HOURS_PER_MONTH * case.draws.take(case.offer.price_name, hourly)


LINE = CostLine(
    kinds=frozenset({"rent"}),
    price=price,
    source="GPUs x 730 h x USD per GPU-hour; 8,760 h a year / 12",
    of_offer=True,
)
