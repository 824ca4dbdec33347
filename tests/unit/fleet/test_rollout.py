"""Roll-outs on paper: what is started and drained when, and that never fewer serve than before."""

from dataclasses import dataclass, replace
from itertools import product

import pytest

from freehold.core.events import GpuId
from freehold.core.events import ReplicaState as State
from freehold.engines import all_engines
from freehold.fleet.decisions.events import Add, Forget, Move
from freehold.fleet.decisions.plan import ReplicaPlan
from freehold.fleet.decisions.rollout import HeldReplica, done, moves, same

ENGINE = all_engines()["llama-cpp"]


def plans(count: int, *, model: str = "m", **options: int) -> list[ReplicaPlan]:
    return [ReplicaPlan(id=f"{model}-{i}", model=model, engine=ENGINE, options=options) for i in range(count)]


def held(wanted: list[ReplicaPlan], state: State = State.READY) -> list[HeldReplica]:
    return [HeldReplica(plan=plan, state=state, has_process=state is State.READY) for plan in wanted]


def told(found: list[Move]) -> list[tuple[str, str]]:
    return [(type(move).__name__, move.id) for move in found]


@dataclass
class World:
    """A fleet that does what it is told: what starts becomes ready, or fails, what leaves ends, one tick later."""

    replicas: list[HeldReplica]
    fails: bool = False

    def tick(self, wanted: list[ReplicaPlan]) -> list[tuple[str, str]]:
        found = moves(self.replicas, wanted)
        for move in found:
            if isinstance(move, Add):
                self.replicas.append(HeldReplica(plan=move.plan, state=State.STARTING, has_process=True))
            elif isinstance(move, Forget):
                self.replicas = [each for each in self.replicas if each.plan.id != move.id]
            else:
                self.replicas = [
                    replace(each, leaving=True) if each.plan.id == move.id else each for each in self.replicas
                ]
        if not found:
            self.replicas = [self._after(each) for each in self.replicas]
        return told(found)

    def _after(self, each: HeldReplica) -> HeldReplica:
        if each.leaving:
            return replace(each, state=State.STOPPED, has_process=False)
        if each.state is State.STARTING:
            return replace(each, state=State.CRASH_LOOP if self.fails else State.READY)
        return each

    @property
    def serving(self) -> int:
        return sum(each.state is State.READY and not each.leaving for each in self.replicas)

    def settle(self, wanted: list[ReplicaPlan]) -> list[tuple[str, str]]:
        said: list[tuple[str, str]] = []
        for _ in range(50):
            said += self.tick(wanted)
        return said


def test_what_is_as_wanted_is_left_alone_whatever_its_share_of_the_cores() -> None:
    assert moves(held(plans(2)), [replace(plan, threads=7) for plan in plans(2)]) == []
    assert done(held(plans(2)), plans(2))


def test_more_are_started_at_once_and_fewer_leave_at_once() -> None:
    assert told(moves(held(plans(1)), plans(3))) == [("Add", "m-1"), ("Add", "m-2")]
    assert told(moves(held(plans(3)), plans(1))) == [("Leave", "m-1"), ("Leave", "m-2")]


def test_those_that_serve_are_kept_before_those_that_do_not() -> None:
    mixed = [*held(plans(2)[:1], State.BACKOFF), *held(plans(2)[1:])]
    assert told(moves(mixed, plans(1))) == [("Leave", "m-0")]


def test_other_options_replace_one_after_the_other_and_ids_come_again() -> None:
    world = World(held(plans(2)))
    assert world.settle(plans(2, n_ctx=64)) == [
        ("Add", "m-2"),
        ("Leave", "m-0"),
        ("Forget", "m-0"),
        ("Add", "m-0"),
        ("Leave", "m-1"),
        ("Forget", "m-1"),
    ]
    assert all(each.plan.options == {"n_ctx": 64} for each in world.replicas)


def test_a_replacement_that_fails_stops_the_roll_out() -> None:
    world = World(held(plans(2)), fails=True)
    assert world.settle(plans(2, n_ctx=64)) == [("Add", "m-2")]
    assert world.serving == 2
    assert not done(world.replicas, plans(2, n_ctx=64))
    assert world.settle(plans(2)) == [("Leave", "m-2"), ("Forget", "m-2")]


def test_a_replica_that_sleeps_is_neither_waited_for_nor_missed() -> None:
    new = plans(3, n_ctx=64)
    asleep = HeldReplica(plan=new[0], state=State.ASLEEP, has_process=True)
    old = replace(held(plans(1))[0], plan=replace(plans(1)[0], id="m-9"))
    assert told(moves([asleep, old], new)) == [("Add", "m-1")]
    assert done([asleep], new[:1])


def test_a_model_that_is_gone_leaves_and_another_comes() -> None:
    world = World(held(plans(2)))
    other = plans(1, model="n")
    assert told(moves(world.replicas, other)) == [("Add", "n-0"), ("Leave", "m-0"), ("Leave", "m-1")]
    world.settle(other)
    assert [each.plan.id for each in world.replicas] == ["n-0"]


def test_an_id_is_not_given_again_before_its_process_has_gone() -> None:
    stuck = HeldReplica(plan=plans(1)[0], state=State.STOPPED, leaving=True, has_process=True)
    assert told(moves([stuck], plans(1))) == [("Add", "m-1")]


def test_a_replacement_by_request_is_another_plan() -> None:
    assert not same(plans(1)[0], replace(plans(1)[0], round=1))
    assert not same(plans(1)[0], replace(plans(1)[0], environment_mark="made anew"))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("before", range(4))
def test_never_fewer_serve_than_were_and_are_wanted_and_it_comes_to_an_end(
    *, fails: bool, before: int
) -> None:
    for after, sound, options in product(range(4), range(before + 1), ({}, {"n_ctx": 1})):
        world = World(held(plans(before)[:sound]) + held(plans(before)[sound:], State.BACKOFF), fails=fails)
        wanted = plans(after, **options)
        floor, last = min(world.serving, after), None
        while last != world.replicas:
            last = list(world.replicas)
            for _ in range(2):  # one of two ticks in a row changes something, or nothing ever will
                world.tick(wanted)
                assert world.serving >= floor
                assert sum(each.has_process for each in world.replicas) <= max(before, after) + 1
        assert moves(world.replicas, wanted) == []
        ids = [each.plan.id for each in world.replicas]
        assert len(set(ids)) == len(ids)
        if not fails:
            assert done(world.replicas, wanted)
            assert len(ids) == after


def on(plans_of: list[ReplicaPlan], *gpus: int, shared: bool = False) -> list[ReplicaPlan]:
    """Return the plans, each on a GPU of its own."""
    return [
        replace(plan, gpus=(GpuId(index=index),), gpus_shared=shared)
        for plan, index in zip(plans_of, gpus, strict=True)
    ]


def test_on_the_same_gpu_the_old_one_goes_first_one_at_a_time() -> None:
    world = World(held(on(plans(2), 0, 1)))
    assert world.settle(on(plans(2, n_ctx=64), 0, 1)) == [
        ("Leave", "m-0"),
        ("Forget", "m-0"),
        ("Add", "m-0"),
        ("Leave", "m-1"),
        ("Forget", "m-1"),
        ("Add", "m-1"),
    ]
    assert [each.plan.gpus for each in world.replicas] == [(GpuId(index=0),), (GpuId(index=1),)]


def test_on_another_gpu_the_new_one_comes_first() -> None:
    world = World(held(on(plans(1), 0)))
    assert world.settle(on(plans(1, n_ctx=64), 1)) == [("Add", "m-1"), ("Leave", "m-0"), ("Forget", "m-0")]


def test_those_that_share_are_not_in_each_others_way() -> None:
    world = World(held(on(plans(1), 0, shared=True)))
    assert world.settle(on(plans(1, n_ctx=64), 0, shared=True))[0] == ("Add", "m-1")
    world = World(held(on(plans(1), 0, shared=True)))
    assert world.settle(on(plans(1, n_ctx=64), 0))[0] == ("Leave", "m-0")


def test_a_replacement_on_the_same_gpu_that_fails_stops_the_roll_out() -> None:
    world = World(held(on(plans(2), 0, 1)), fails=True)
    world.settle(on(plans(2, n_ctx=64), 0, 1))
    assert world.serving == 1


def test_models_that_change_gpus_with_each_other_come_to_an_end() -> None:
    world = World(held(on(plans(1), 0)) + held(on(plans(1, model="n"), 1)))
    wanted = [*on(plans(1, n_ctx=64), 1), *on(plans(1, model="n", n_ctx=64), 0)]
    world.settle(wanted)
    assert done(world.replicas, wanted)
    assert world.serving == 2


def test_another_model_waits_until_a_gpu_is_free() -> None:
    world = World(held(on(plans(1), 0)))
    wanted = on(plans(1, model="n"), 0)
    assert world.settle(wanted) == [("Leave", "m-0"), ("Forget", "m-0"), ("Add", "n-0")]
