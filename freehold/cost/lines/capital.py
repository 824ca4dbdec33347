"""What the money in the machines costs: the annuity less the straight line. Not risk, not inflation.

The rate is nominal and compounded monthly, as a loan's is: a twelfth of it is charged each month, so that 10 % a year
comes to 10.47 % effective.

All machines count, spares included: their money is bound as well.
"""

import numpy as np

from freehold.cost.model.capex import annuity_part, capex_of, life, residual
from freehold.cost.model.case import CostCase
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Vector


def price(case: CostCase) -> Vector:
    """Return USD per month; 0 where capital costs nothing."""
    part = case.draws.keep("capital part", lambda: _part(case))
    return capex_of(case).total * part


def _part(case: CostCase) -> Vector:
    straight = (1 - residual(case)) / life(case)
    return np.maximum(annuity_part(case) - straight, 0).astype(np.float32)


LINE = CostLine(
    kinds=frozenset({"buy"}),
    price=price,
    source="annuity at the cost of capital (nominal, r is a twelfth a month), residual value discounted: (C - S/(1+r)^n) r / (1 - (1+r)^-n), less straight line",
)
