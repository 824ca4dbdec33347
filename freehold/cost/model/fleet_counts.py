"""How many GPUs and nodes a fleet comes to in each draw: a GPU that turns out slower than hoped needs more company.

The performance of a kind of GPU is one draw for all its options. A fleet that turns out faster than planned is not
sent back: it stays as planned. What anything costs is not known here.
"""

import math
from dataclasses import dataclass

import numpy as np

from freehold.cost.model.draw import Sampler, Vector
from freehold.sizing.fleet.fleet import gpu_step, round_gpus
from freehold.sizing.replica.answer import SizedFleet

LEAST_NODE = 0.2
"""Of a full node: the host and cabling of one with a single card. Source: our estimate, 0.4 kW of a full host's 2."""
ROUNDING = 1e-4
"""A replica more is not bought for less than this part of one. Source: above single precision's error, below any margin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Whole numbers, one per draw. `gpus` and `nodes` include the spare ones."""

    replicas: Vector
    gpus: Vector
    spare_gpus: Vector
    nodes: Vector
    serving_nodes: Vector
    full_nodes: Vector
    """Nodes, one with fewer GPUs than fit counting for less: what is known per node is known of full ones."""

    @property
    def spare_part(self) -> Vector:
        """Return the spare GPUs' part of all, 0 to below 1."""
        return self.spare_gpus / self.gpus


def counts_of(
    fleet: SizedFleet, draws: Sampler, *, scale: float = 1.0, cold_spare: bool = False, bought: bool = False
) -> Counts:
    """Return the counts at `scale` times the traffic that the fleet was sized for.

    `cold_spare` adds a node if the fleet has no spare. What is `bought` comes in the boards or racks that are sold.
    """
    if fleet.replicas == 0:
        return counts_as_they_stand(fleet)  # what does not run is not grown either; its option is incomplete
    ask = fleet.sized.ask
    replicas = replicas_of(fleet, draws, scale=scale)
    spare_gpus = fleet.spare_replicas * ask.gpus
    gpus, nodes = _to_be_had(replicas * ask.gpus + spare_gpus, fleet, bought=bought)
    if scale >= 1:
        gpus, nodes = np.maximum(gpus, fleet.gpus), np.maximum(nodes, fleet.nodes)
    cold = cold_spare and fleet.spare_replicas == 0
    cold_gpus = -(-fleet.gpus // fleet.nodes) if cold else 0
    return Counts(
        replicas=replicas,
        gpus=gpus + cold_gpus,
        spare_gpus=_one(spare_gpus + cold_gpus),
        nodes=nodes + cold,
        serving_nodes=nodes,
        full_nodes=_full(gpus + cold_gpus, nodes + cold, fleet),
    )


def _to_be_had(needed: Vector, fleet: SizedFleet, *, bought: bool) -> tuple[Vector, Vector]:
    """Return the GPUs that one can buy or rent that are at least so many, and their nodes."""
    ask = fleet.sized.ask
    step = gpu_step(ask.gpu, ask.gpus_per_node, bought=bought)
    gpus = np.ceil(needed / step) * step
    if needed.min() <= ask.gpus_per_node:
        table = [
            round_gpus(count, gpu=ask.gpu, per_node=ask.gpus_per_node, bought=bought)[0]
            for count in range(ask.gpus_per_node + 1)
        ]
        few = np.array(table)[np.minimum(needed, ask.gpus_per_node).astype(np.int64)]
        gpus = np.where(needed <= ask.gpus_per_node, few, gpus)
    nodes = np.ceil(gpus / ask.gpus_per_node)
    return gpus.astype(np.float32), nodes.astype(np.float32)


def counts_as_they_stand(fleet: SizedFleet) -> Counts:
    """Return the counts of machines that are there already, whatever they turn out to do."""
    nodes, gpus = _one(fleet.nodes), _one(fleet.gpus)
    return Counts(
        replicas=_one(fleet.replicas),
        gpus=gpus,
        spare_gpus=_one(fleet.spare_replicas * fleet.sized.ask.gpus),
        nodes=nodes,
        serving_nodes=nodes,
        full_nodes=_full(gpus, nodes, fleet),
    )


def _full(gpus: Vector, nodes: Vector, fleet: SizedFleet) -> Vector:
    return np.maximum(gpus / fleet.sized.ask.gpus_per_node, nodes * LEAST_NODE)


def _one(count: int) -> Vector:
    return np.array([count], dtype=np.float32)


def replicas_of(fleet: SizedFleet, draws: Sampler, *, scale: float = 1.0) -> Vector:
    """Return the serving replicas: those planned, or as many as the peak takes at the performance drawn."""
    capacity = draws.take(f"{fleet.sized.ask.gpu.id}:tokens_per_s", fleet.capacity_tokens_per_s)
    each = capacity / fleet.replicas
    needed = np.ceil(fleet.peak_tokens_per_s * scale / each - ROUNDING)
    return np.maximum(needed, _planned(fleet, scale))


def _planned(fleet: SizedFleet, scale: float) -> int:
    """Return the replicas that would be planned for the traffic so scaled, at the middle of what one carries."""
    if scale == 1:
        return fleet.replicas
    each = fleet.capacity_tokens_per_s.mid / fleet.replicas
    planned = max(1, math.ceil(fleet.peak_tokens_per_s * scale / each - ROUNDING))
    return max(planned, fleet.replicas) if scale > 1 else min(planned, fleet.replicas)
