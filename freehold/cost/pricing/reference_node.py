"""The node that guides speak of: eight H100 on one board, the same one in every plan, whatever the plan would run.

It carries no traffic of anybody's: what an API would answer while it is down is not in its cost. It is priced with the
plan's assumptions, and where the catalog has no H100 there is none.
"""

from dataclasses import replace

from freehold.core.spread import Spread
from freehold.cost.model.case import CostSetting
from freehold.cost.model.draw import Draws
from freehold.cost.model.inputs import PlanInputs
from freehold.cost.model.offers import bought_offer
from freehold.cost.pricing.price import Priced, price
from freehold.sizing.replica.answer import SizedFleet

GUIDES_GPU = "h100-sxm"
NODE_GPUS = 8
"""Source: HGX and DGX nodes have eight."""
HOST_RAM_GB = 1000.0
"""Source: what the catalog's own_defaults reckons its server of 8 H100 with."""
DISK_BYTES = 7_500_000_000_000
"""Half of the disks, which hold two copies of this. Source: the same server has 15 TB of NVMe."""
DRAWS_MOST = 20_000
"""Source: rules show two digits, which so many draws give."""


def reference_node(inputs: PlanInputs, setting: CostSetting) -> Priced | None:
    """Return the node priced as bought, or None without an H100 in the catalog or a fleet to take the shape from."""
    fleet = _fleet(inputs)
    if fleet is None:
        return None
    if GUIDES_GPU not in {
        each.sized.ask.gpu.id for each in inputs.fleets
    }:  # a quote is for the plan's own GPU
        inputs, setting = replace(inputs, quotes={}), replace(setting, node_usd=None)
    draws = Draws(min(inputs.draws, DRAWS_MOST), inputs.seed)
    return price(bought_offer(fleet, inputs), replace(setting, fallback=None), draws=draws)


def _fleet(inputs: PlanInputs) -> SizedFleet | None:
    cards = {each.sized.ask.gpu.id: each.sized.ask.gpu for each in inputs.fleets}
    card = cards.get(GUIDES_GPU) or inputs.catalog.gpus.get(GUIDES_GPU)
    if card is None or not inputs.fleets:
        return None
    first = inputs.fleets[0]
    ask = replace(first.sized.ask, gpu=card, gpus=1)
    sized = replace(first.sized, ask=ask, fits=True, why_not="", weights_bytes=DISK_BYTES)
    return replace(
        first,
        sized=sized,
        replicas=NODE_GPUS,
        spare_replicas=0,
        gpus=NODE_GPUS,
        nodes=1,
        capacity_tokens_per_s=Spread.exactly(1.0),
        peak_tokens_per_s=0.0,
        host_ram_gb=HOST_RAM_GB,
    )
