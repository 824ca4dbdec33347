"""From the present replicas to the wanted ones, step by step, never with fewer that serve than before. Pure.

A replica is never changed in place: where its plan differs, a new one is started beside it under a free id, and the old
one is drained only when the new one is ready. One at a time, so that a machine needs room for just one more. A
new replica that cannot be started stops the roll-out where it is: the old ones keep serving. A replica that does not serve
is ended at once. If a new replica is to have GPUs that an old one holds, the old one is ended first, one of a
model at a time: two cannot use them at once. How a replica is drained and ended is `decide`'s part.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from freehold.core.events import ReplicaState as State
from freehold.fleet.decisions.events import Add, Forget, Leave, Move
from freehold.fleet.decisions.plan import ReplicaPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldReplica:
    """A present replica, as far as a roll-out considers it."""

    plan: ReplicaPlan
    state: State
    leaving: bool = False
    has_process: bool = False


@dataclass(frozen=True, slots=True)
class Sorted:
    """One model's replicas, compared with the wanted ones."""

    wanted: tuple[ReplicaPlan, ...]
    matched: tuple[HeldReplica, ...]
    """Present and wanted."""
    surplus: tuple[HeldReplica, ...]
    missing: tuple[ReplicaPlan, ...]
    leaving: bool
    """Some are being ended, and still hold their memory."""

    @property
    def serving(self) -> int:
        """Return how many serve requests."""
        return sum(each.state is State.READY for each in (*self.matched, *self.surplus))


def moves(held: Sequence[HeldReplica], wanted: Sequence[ReplicaPlan]) -> list[Move]:
    """Return the moves that are possible now; empty: none, or an event has to happen first."""
    gone = [each for each in held if each.leaving and each.state is State.STOPPED and not each.has_process]
    taken = {each.plan.id for each in held if each not in gone}
    found: list[Move] = [Forget(id=each.plan.id) for each in gone]
    names = dict.fromkeys([*(plan.model for plan in wanted), *(each.plan.model for each in held)])
    groups = [sort(name, held, wanted) for name in names]
    missing = [plan for group in groups for plan in group.missing]
    there = [each.plan for each in held if each not in gone]
    for group in groups:
        free = replace(group, missing=tuple(p for p in group.missing if not in_the_way(p, there)))
        leavers = list(_leavers(group)) or ([] if free.missing else _giving_way(group, missing))
        found += (Leave(id=each.plan.id) for each in leavers)
        for plan in _newcomers(free, leaving=group.leaving or any(each.has_process for each in leavers)):
            fresh = replace(plan, id=free_id(plan.id, taken))
            taken.add(fresh.id)
            found.append(Add(id=fresh.id, plan=fresh))
    return found


def sort(model: str, held: Sequence[HeldReplica], wanted: Sequence[ReplicaPlan]) -> Sorted:
    """Sort a model's replicas by whether they match a wanted one; of several that do, those that serve are kept."""
    mine = [each for each in held if each.plan.model == model and not each.leaving]
    missing = [plan for plan in wanted if plan.model == model]
    goal = tuple(missing)
    matched, surplus = [], []
    for each in sorted(mine, key=lambda each: each.state is not State.READY):
        like = next((plan for plan in missing if same(plan, each.plan)), None)
        if like is None:
            surplus.append(each)
        else:
            matched.append(each)
            missing.remove(like)
    leaving = any(each.plan.model == model and each.leaving and each.has_process for each in held)
    return Sorted(goal, tuple(matched), tuple(surplus), tuple(missing), leaving)


def in_the_way(plan: ReplicaPlan, others: Iterable[ReplicaPlan]) -> bool:
    """Return whether one of the others uses a GPU of the plan, unless both share."""
    mine = set(plan.gpus or ())
    return any(
        mine.intersection(other.gpus or ()) and not (plan.gpus_shared and other.gpus_shared)
        for other in others
    )


def same(one: ReplicaPlan, other: ReplicaPlan) -> bool:
    """Return whether replicas of the two plans are interchangeable.

    Its share of the cores is not worth a new process: it changes with the number of all replicas. How the gateway
    treats it (`stall_s`, `affinity`, `resume`, `media_urls`, `allow_keys`) does not concern the process.
    """
    return process_of(one) == process_of(other)


def process_of(plan: ReplicaPlan) -> ReplicaPlan:
    """Return a plan with only the fields that concern the process."""
    plan = replace(plan, id="", threads=0, stall_s=0.0, affinity=True, resume="auto")
    return replace(plan, media_urls=False, allow_keys=())


def done(held: Sequence[HeldReplica], wanted: Sequence[ReplicaPlan]) -> bool:
    """Return whether the present replicas are the wanted ones, whether or not they serve."""
    models = {plan.model for plan in wanted} | {each.plan.model for each in held}
    groups = [sort(model, held, wanted) for model in models]
    return not any(each.leaving for each in held) and not any(g.missing or g.surplus for g in groups)


def _leavers(group: Sorted) -> Iterator[HeldReplica]:
    """Yield the replicas to end now: one that serves only if enough others serve."""
    serving = group.serving
    for each in group.surplus:
        if each.state is not State.READY:
            yield each
        elif serving > len(group.wanted):
            serving -= 1
            yield each


def _giving_way(group: Sorted, missing: Sequence[ReplicaPlan]) -> list[HeldReplica]:
    """Return the serving replica to end before its successor is ready, since it uses the GPUs of a missing one; [] for none.

    None is returned while another is being ended or is not ready yet, so that a model loses one replica at a time.
    """
    if group.leaving or any(each.state not in {State.READY, State.ASLEEP} for each in group.matched):
        return []
    return [
        each
        for each in group.surplus
        if each.state is State.READY and any(in_the_way(plan, [each.plan]) for plan in missing)
    ][:1]


def _newcomers(group: Sorted, *, leaving: bool) -> Sequence[ReplicaPlan]:
    """Return the replicas to start now: all, unless they replace others that serve; then one at a time.

    While some still serve, it waits for the memory of those being ended.
    """
    if group.serving and leaving:
        return ()
    if not any(each.state is State.READY for each in group.surplus):
        return group.missing
    waited_for = any(each.state not in {State.READY, State.ASLEEP} for each in group.matched)
    return () if waited_for else group.missing[:1]


def free_id(like: str, taken: Collection[str]) -> str:
    """Return the lowest free id of `like`'s kind: ids are few and come again, since they are labels of metrics."""
    stem = like.rpartition("-")[0]
    return next(name for number in count() if (name := f"{stem}-{number}") not in taken)
