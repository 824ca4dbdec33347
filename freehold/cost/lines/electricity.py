"""Energy for bought machines: mean draw x PUE x hours x price. Never where the rent of the space includes it.

GPUs that no serving replica stands on idle, spare ones too; without a figure for that they count like the others. Cooling is in the PUE, once, and nowhere else.
"""

import numpy as np

from freehold.cost.model.case import CostCase
from freehold.cost.model.cost_line import CostLine
from freehold.cost.model.draw import Vector
from freehold.sizing.fleet.traffic import HOURS_PER_MONTH


def it_kw(case: CostCase) -> Vector:
    """Return the machines' mean draw in kW: measured, or GPUs at their part of TDP plus hosts."""
    if case.setting.measured_it_w is not None:
        return case.draws.take("it_w", case.setting.measured_it_w) / 1000
    gpu, counts = case.fleet.sized.ask.gpu, case.counts
    busy_w = gpu.tdp_w * case.take(case.setting.own.gpu_power_fraction)
    idle_w = gpu.idle_w if gpu.idle_w is not None else busy_w
    busy = np.minimum(counts.replicas * case.fleet.sized.ask.gpus, counts.gpus - counts.spare_gpus)
    gpus_w = busy * busy_w + (counts.gpus - busy) * idle_w
    hosts_kw = counts.full_nodes * case.take(case.setting.own.host_kw)
    return np.asarray(gpus_w / 1000 + hosts_kw)


def price(case: CostCase) -> Vector:
    """Return USD per month."""
    own = case.setting.own
    per_kw = case.draws.keep(
        ("energy", own.pue_ratio.name, own.power_usd_per_kwh.name),
        lambda: case.take(own.pue_ratio) * case.take(own.power_usd_per_kwh) * HOURS_PER_MONTH,
    )
    return it_kw(case) * per_kw


LINE = CostLine(
    kinds=frozenset({"buy"}),
    price=price,
    source="kW x PUE x 730 h x USD per kWh; GPUs serve at 43 to 86 % of TDP (ML.ENERGY v3 measurements on H100)",
    when=lambda case: not case.setting.power_included,
)
