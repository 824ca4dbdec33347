"""Which replica gets which GPUs: one with a count gets its own, one that stays keeps them, the others share the rest. Pure.

Several GPUs of one replica are neighbours by number where possible, which on boards with links in pairs or fours are
those that are linked; the links themselves are not queried. The memory that a model needs is not considered: that is
`freehold size`. If the node's GPUs are not known, none is assigned and nothing is rejected.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from freehold.core.events import GpuId
from freehold.core.problems import Problem
from freehold.fleet.decisions.plan import ReplicaPlan
from freehold.fleet.decisions.rollout import HeldReplica, process_of
from freehold.fleet.gpus.pools import NodeGpu, NodeGpus, Want, pool_problems, pools_of

Ids = tuple[GpuId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuAssignment:
    """The plans with their GPUs, or why that is impossible."""

    plans: tuple[ReplicaPlan, ...]
    """In the order of the wants; unchanged if there are problems or the GPUs are not known."""
    problems: tuple[Problem, ...] = ()
    """`where` is the model's name."""


def assign(wants: Sequence[Want], node: NodeGpus, held: Sequence[HeldReplica] = ()) -> GpuAssignment:
    """Return every plan with its GPUs; `held` are the present replicas, which keep their GPUs where possible.

    A replica that is to be replaced keeps its GPUs until it has ended: its successor gets free ones if there are enough,
    else those (`rollout` then ends the old one first).
    """
    bare = tuple(want.plan for want in wants)
    if node.gpus is None:
        return GpuAssignment(plans=bare)
    problems = tuple(pool_problems(wants, node))
    if problems:
        return GpuAssignment(plans=bare, problems=problems)
    found = _Hand(wants, pools_of(wants, node.gpus), held).deal()
    plans = (
        replace(want.plan, gpus=found[number], gpus_shared=want.shares) for number, want in enumerate(wants)
    )
    return GpuAssignment(plans=tuple(plans))


@dataclass(slots=True)
class _Hand:
    """One assignment under way."""

    wants: Sequence[Want]
    pools: Mapping[str, Sequence[NodeGpu]]
    """The GPUs that each model may use, in order."""
    held: Sequence[HeldReplica]
    taken: set[GpuId] = field(default_factory=set)
    """GPUs of replicas that do not share."""
    given: dict[int, Ids | None] = field(default_factory=dict)
    """By the want's place."""

    def deal(self) -> Mapping[int, Ids | None]:
        """Return the GPUs of each want: first those that keep theirs, then those with a count, the largest first, then those that share."""
        kept, rest = self._matched()
        for number, before in kept.items():
            if before is None:  # it takes none, and was started before the GPUs were known
                self.given[number] = None
            elif not self.wants[number].shares and self._fits(number, before):
                self._give(number, before)
        in_use = {gpu for each in self.held for gpu in each.plan.gpus or ()}
        counted = [number for number, want in enumerate(self.wants) if not want.shares]
        for number in sorted(counted, key=lambda number: -(self.wants[number].count or 0)):
            if number not in self.given:
                self._give(number, self._own(number, in_use, rest))
        for number, want in enumerate(self.wants):
            if want.shares:
                before = kept.get(number)
                keeps = before is not None and self._fits(number, before)
                self.given[number] = before if before is not None and keeps else self._share(number)
        return self.given

    def _give(self, number: int, gpus: Ids) -> None:
        self.given[number] = gpus
        self.taken.update(gpus)

    def _matched(self) -> tuple[dict[int, Ids | None], list[ReplicaPlan]]:
        """Return the GPUs that a matching replica of each want has already, and the plans that match no want: those are to be ended."""
        left = [each.plan for each in self.held if not each.leaving]
        kept: dict[int, Ids | None] = {}
        for number, want in enumerate(self.wants):
            like = next((plan for plan in left if _alike(plan, want)), None)
            if like is not None:
                left.remove(like)
                kept[number] = like.gpus
        return kept, left

    def _pool(self, number: int) -> list[NodeGpu]:
        return [gpu for gpu in self.pools[self.wants[number].plan.model] if gpu.id not in self.taken]

    def _fits(self, number: int, gpus: Ids) -> bool:
        """Return whether a want may keep these: the right number, present, and not taken."""
        want, pool = self.wants[number], {gpu.id for gpu in self._pool(number)}
        enough = len(gpus) == want.count if want.count is not None else bool(gpus) or not pool
        return enough and pool.issuperset(gpus)

    def _own(self, number: int, in_use: set[GpuId], going: list[ReplicaPlan]) -> Ids:
        """Return GPUs for one replica alone: free ones, else those of a replica of its model that is to be ended, else any of its pool."""
        count, pool = self.wants[number].count or 0, self._pool(number)
        free = choose([gpu for gpu in pool if gpu.id not in in_use], count)
        if free is not None:
            return free
        ids = {gpu.id for gpu in pool}
        for plan in going:
            mine = plan.gpus or ()
            if plan.model == self.wants[number].plan.model and len(mine) == count and ids.issuperset(mine):
                return mine
        found = choose(pool, count)
        assert found is not None, "pool_problems has counted"
        return found

    def _share(self, number: int) -> Ids:
        """Return the even share of one of those that share a pool, or its block of a shared list."""
        want, pool = self.wants[number], self._pool(number)
        if not pool:
            return ()
        mates = list(self._sharers(want))
        place = mates.index(number)
        if want.count is not None or want.shared:
            count = want.count if want.count is not None else len(pool)
            return _seen(
                tuple(pool[(place * count + k) % len(pool)].id for k in range(min(count, len(pool))))
            )
        if len(mates) > len(pool):
            return (pool[place % len(pool)].id,)
        first, last = (len(pool) * at // len(mates) for at in (place, place + 1))
        return _seen(tuple(gpu.id for gpu in pool[first:last]))

    def _sharers(self, want: Want) -> Iterator[int]:
        """Yield the places of the wants that share with this one: those of its list, or all without a list."""
        for number, other in enumerate(self.wants):
            same_list = want.named is not None and other.plan.model == want.plan.model
            if other.shares and (same_list or (want.named is None and other.named is None)):
                yield number


def _alike(plan: ReplicaPlan, want: Want) -> bool:
    """Return whether a replica differs from a wanted one in its GPUs at most."""
    known = plan.gpus is not None or want.count == 0
    return known and _without_gpus(plan) == _without_gpus(want.plan)


def _without_gpus(plan: ReplicaPlan) -> ReplicaPlan:
    return replace(process_of(plan), gpus=None, gpus_shared=False)


def _seen(gpus: Ids) -> Ids:
    """Return which of these a process would see: whole GPUs, or one instance of a divided one."""
    whole = tuple(gpu for gpu in gpus if not gpu.divided)
    return whole or gpus[:1]


def choose(free: Iterable[NodeGpu], count: int) -> Ids | None:
    """Return `count` of the free GPUs: alike, next to each other, beginning at a multiple of `count`, as far as possible.

    None: there are too few. Instances of divided GPUs are given one at a time only, since a process sees one of them.
    """
    usable = [gpu for gpu in free if count == 1 or not gpu.id.divided]
    if len(usable) < count:
        return None
    rows = [usable[at : at + count] for at in range(len(usable) - count + 1)]
    best = min(rows, key=_drawbacks) if count else []
    return tuple(gpu.id for gpu in best)


def _drawbacks(row: Sequence[NodeGpu]) -> tuple[int, int, int]:
    first, last = row[0].id.index, row[-1].id.index
    return len({gpu.kind for gpu in row}), last - first, first % len(row)


def visible_names(gpus: Iterable[GpuId], *, uuids: bool) -> tuple[str, ...]:
    """Return the names of these GPUs for CUDA: UUIDs, which do not change, or numbers for a program that accepts no others.

    Instances of divided GPUs have no numbers; if the driver reports no UUID, numbers are all there is.
    """
    known = tuple(gpus)
    by_uuid = all(gpu.uuid for gpu in known) and (uuids or any(gpu.divided for gpu in known))
    return tuple(gpu.uuid if by_uuid else str(gpu.index) for gpu in known)


def visible_env(gpus: Iterable[GpuId] | None, *, uuids: bool) -> dict[str, str]:
    """Return the variables that limit a process to these GPUs; {}: the GPUs are not known, so it sees all.

    Source: CUDA programming guide, environment variables: by default numbers go by speed, nvidia-smi's by PCI address.
    """
    if gpus is None:
        return {}
    names = ",".join(visible_names(gpus, uuids=uuids))
    return {"CUDA_VISIBLE_DEVICES": names, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
