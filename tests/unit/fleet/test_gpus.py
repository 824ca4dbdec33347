"""GPUs on paper: who gets which, that nobody gets another's, that what stays keeps its own, and what is refused."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from freehold.core.events import GpuId
from freehold.core.events import ReplicaState as State
from freehold.engines import all_engines
from freehold.fleet.decisions.plan import ReplicaPlan
from freehold.fleet.decisions.rollout import HeldReplica
from freehold.fleet.gpus.assign import GpuAssignment, assign, choose, visible_env
from freehold.fleet.gpus.pools import NodeGpu, NodeGpus, Want, visible_to_user

ENGINE = all_engines()["vllm"]


def gpu(index: int, kind: str = "H100") -> NodeGpu:
    return NodeGpu(id=GpuId(index=index, uuid=f"GPU-{index:04d}"), kind=kind)


def slice_of(index: int, number: int) -> NodeGpu:
    uuid = f"MIG-{index}{number}00"
    return NodeGpu(id=GpuId(index=index, uuid=uuid), kind="1g.10gb", whole=f"GPU-{index:04d}")


def node(count: int) -> NodeGpus:
    return NodeGpus(gpus=tuple(map(gpu, range(count))))


def wants(model: str, replicas: int, count: int | None, **more: object) -> list[Want]:
    """Return what the replicas of a model want; `n` makes a plan of other options."""
    options = {"seed": more.pop("n", 0)}
    return [
        Want(
            plan=ReplicaPlan(id=f"{model}-{i}", model=model, engine=ENGINE, options=options),  # type: ignore[arg-type]
            count=count,
            **more,  # type: ignore[arg-type]
        )
        for i in range(replicas)
    ]


def held(given: GpuAssignment, **more: object) -> list[HeldReplica]:
    return [HeldReplica(plan=plan, state=State.READY, has_process=True, **more) for plan in given.plans]  # type: ignore[arg-type]


def numbers(given: GpuAssignment) -> list[list[int] | None]:
    assert not given.problems, given.problems
    return [None if plan.gpus is None else [each.index for each in plan.gpus] for plan in given.plans]


def test_two_replicas_of_two_have_two_neighbours_each() -> None:
    assert numbers(assign(wants("m", 2, 2), node(8))) == [[0, 1], [2, 3]]


def test_the_greatest_are_placed_first_so_that_they_have_neighbours() -> None:
    assert numbers(assign([*wants("a", 1, 1), *wants("b", 1, 2), *wants("c", 1, 4)], node(8))) == [
        [6],
        [4, 5],
        [0, 1, 2, 3],
    ]


def test_who_takes_none_sees_none_and_who_takes_any_gets_an_even_share_of_the_rest() -> None:
    asked = [*wants("cpu", 1, 0), *wants("any", 2, None), *wants("m", 1, 2)]
    assert numbers(assign(asked, node(8))) == [[], [2, 3, 4], [5, 6, 7], [0, 1]]
    assert [plan.gpus_shared for plan in assign(asked, node(8)).plans] == [False, True, True, False]


def test_more_that_share_than_gpus_take_turns_and_none_is_left_where_others_have_all() -> None:
    assert numbers(assign(wants("any", 3, None), node(2))) == [[0], [1], [0]]
    assert numbers(assign([*wants("any", 2, None), *wants("m", 1, 2)], node(2))) == [[], [], [0, 1]]


def test_a_list_is_its_models_own() -> None:
    asked = [*wants("b", 2, 1), *wants("a", 2, 2, named=(0, 1, "GPU-0003", 5))]
    assert numbers(assign(asked, node(6))) == [[2], [4], [0, 1], [3, 5]]


def test_a_list_that_is_shared_holds_several_replicas_on_one_gpu() -> None:
    one = wants("a", 2, 1, named=(1,), shared=True)
    other = wants("b", 1, 2, named=(0, 1), shared=True)
    assert numbers(assign([*one, *other, *wants("c", 1, 1)], node(3))) == [[1], [1], [0, 1], [2]]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            [*wants("a", 3, 2), *wants("b", 1, 1)],
            [
                "a: too few GPUs: a: 3 replicas take 2 GPUs each; b: 1 replica takes 1 GPU; that is 7 in all, and 4 available"
            ],
        ),
        (
            [*wants("a", 1, 1, named=(9, 0)), *wants("b", 2, 1, named=(0,)), *wants("c", 3, 2)],
            [
                "a: a: gpus names 9: this node does not have it",
                "b: a and b both name the GPUs 0",
                "b: b: 2 replicas take 1 GPU each, and gpus names 1 that can be used so",
                "c: too few GPUs: c: 3 replicas take 2 GPUs each; that is 6 in all, and 3 available (1 are in other models' lists)",
            ],
        ),
        (
            [*wants("a", 1, 1, named=(0,), shared=True), *wants("b", 1, 1, named=(0,))],
            ["b: a and b both name the GPUs 0"],
        ),
        ([*wants("a", 1, 3, named=(0, 1), shared=True)], ["a: a: 1 replica takes 3 GPUs, and gpus names 2"]),
    ],
)
def test_all_that_cannot_be_is_said_at_once(asked: list[Want], said: list[str]) -> None:
    given = assign(asked, node(4))
    found = [f"{each.where}: {each.message}" for each in given.problems]
    assert len(found) == len(said), found
    assert all(line.startswith(words) for line, words in zip(found, said, strict=True)), found
    assert all(each.hint for each in given.problems)
    assert given.plans == tuple(want.plan for want in asked)


def test_where_nobody_knows_the_gpus_nothing_is_given_and_nothing_refused() -> None:
    given = assign(wants("m", 9, 9), NodeGpus(why="there is no nvidia-smi"))
    assert numbers(given) == [None] * 9
    assert visible_env(None, uuids=True) == {}


def test_divided_gpus_are_given_one_instance_at_a_time() -> None:
    divided = NodeGpus(gpus=(slice_of(0, 1), slice_of(0, 2), gpu(1), gpu(2)))
    given = assign([*wants("one", 2, 1), *wants("two", 1, 2)], divided)
    assert [[each.uuid for each in plan.gpus or ()] for plan in given.plans] == [
        ["MIG-0100"],
        ["MIG-0200"],
        ["GPU-0001", "GPU-0002"],
    ]
    (problem,) = assign(wants("two", 2, 2), divided).problems
    assert "2 of the 4 are whole GPUs" in problem.message
    (plan,) = assign(wants("any", 1, None), NodeGpus(gpus=(slice_of(0, 1), slice_of(0, 2)))).plans
    assert [each.uuid for each in plan.gpus or ()] == ["MIG-0100"]


def test_gpus_of_one_kind_go_before_neighbours() -> None:
    mixed = [gpu(0, "A"), gpu(1, "B"), gpu(2, "B"), gpu(3, "A")]
    assert [each.index for each in choose(mixed, 2) or ()] == [1, 2]
    assert choose(mixed, 5) is None
    assert choose([], 0) == ()


def test_what_stays_keeps_its_gpus_and_what_comes_gets_free_ones() -> None:
    before = assign([*wants("a", 1, 2), *wants("b", 2, 2)], node(8))
    assert numbers(before) == [[0, 1], [2, 3], [4, 5]]
    after = assign([*wants("b", 2, 2), *wants("c", 1, 1)], node(8), held(before))
    assert numbers(after) == [[2, 3], [4, 5], [6]]


def test_a_replacement_takes_free_gpus_else_those_of_the_replaced() -> None:
    before = assign(wants("m", 1, 2), node(4))
    assert numbers(assign(wants("m", 1, 2, n=1), node(4), held(before))) == [[2, 3]]
    full = assign([*wants("m", 2, 2)], node(4))
    assert numbers(assign(wants("m", 2, 2, n=1), node(4), held(full))) == [[0, 1], [2, 3]]
    both = assign([*wants("a", 1, 1), *wants("m", 1, 1)], node(2))
    assert numbers(assign([*wants("a", 1, 1, n=1), *wants("m", 1, 1, n=1)], node(2), held(both))) == [
        [0],
        [1],
    ]


def test_who_leaves_still_has_its_gpus() -> None:
    before = assign(wants("m", 1, 2), node(4))
    assert numbers(assign(wants("n", 1, 2), node(4), held(before, leaving=True))) == [[2, 3]]


def test_a_gpu_that_is_gone_is_left_and_one_that_shares_gives_way() -> None:
    before = assign(wants("m", 1, 2), node(4))
    fewer = NodeGpus(gpus=tuple(map(gpu, (1, 2, 3))))
    assert numbers(assign(wants("m", 1, 2), fewer, held(before))) == [[2, 3]]
    shared = assign(wants("any", 1, None), node(4))
    after = assign([*wants("any", 1, None), *wants("m", 1, 2)], node(4), held(shared))
    assert numbers(after) == [[2, 3], [0, 1]]


def test_one_that_takes_none_is_not_started_anew_when_gpus_become_known() -> None:
    before = assign(wants("cpu", 1, 0), NodeGpus())
    after = assign([*wants("cpu", 1, 0), *wants("m", 1, 1)], node(2), held(before))
    assert numbers(after) == [None, [0]]


def scene(rng: random.Random) -> list[Want]:
    counts = (0, 1, 1, 2, 2, 4, None)
    return [
        want
        for name in "abcd"[: rng.randint(1, 4)]
        for want in wants(name, rng.randint(1, 3), rng.choice(counts), n=rng.randint(0, 1))
    ]


def check(asked: list[Want], given: GpuAssignment, supply: int) -> None:
    need = sum(want.count or 0 for want in asked)
    assert bool(given.problems) == (need > supply)
    if given.problems:
        return
    own: list[GpuId] = []
    for want, plan in zip(asked, given.plans, strict=True):
        assert plan.gpus is not None
        assert plan.id == want.plan.id
        assert len(set(plan.gpus)) == len(plan.gpus)
        assert all(one.index < other.index for one, other in pairwise(plan.gpus))
        if want.count is not None:
            assert len(plan.gpus) == want.count
            own += plan.gpus
    assert len(set(own)) == len(own), "no GPU twice"
    shared = {each for plan in given.plans if plan.gpus_shared for each in plan.gpus or ()}
    assert not shared.intersection(own)
    if any(want.count is None for want in asked):
        assert bool(shared) == (need < supply)


def test_counts_hold_no_gpu_is_given_twice_and_a_second_look_changes_nothing() -> None:
    rng, met = random.Random(7), 0
    for _ in range(400):
        asked, there = scene(rng), node(8)
        given = assign(asked, there)
        check(asked, given, 8)
        assert given == assign(asked, there)
        if given.problems:
            continue
        met += 1
        assert assign(asked, there, held(given)).plans == given.plans
        other = scene(rng)
        after = assign(other, there, held(given))
        check(other, after, 8)
        kept = [want for want in other if want.count]
        if after.problems:
            continue
        before = [replace(plan, id="", gpus=None) for plan in given.plans]
        for want in kept:
            like = replace(want.plan, id="")
            stay = before.count(like)
            same = sum(
                replace(plan, id="") in [replace(p, id="") for p in given.plans]
                and replace(plan, id="", gpus=None) == like
                for plan in after.plans
            )
            wished = sum(replace(each.plan, id="") == like for each in other)
            counts = {each.count for each in asked if replace(each.plan, id="") == like}
            if counts == {want.count}:
                assert same >= min(stay, wished), "who stays keeps"
    assert met > 100


@pytest.mark.parametrize(
    ("variable", "seen", "hidden"),
    [
        (None, [0, 1, 2, 3], []),
        ("", [], [0, 1, 2, 3]),
        ("-1", [], [0, 1, 2, 3]),
        ("2,1", [1, 2], [0, 3]),
        ("0,2,-1,1", [0, 2], [1, 3]),
        ("GPU-0003, 0", [0, 3], [1, 2]),
        ("GPU-0", [], [0, 1, 2, 3]),
        ("1,1", [1], [0, 2, 3]),
        ("nonsense", [], [0, 1, 2, 3]),
    ],
)
def test_the_users_own_variable_is_respected(
    variable: str | None, seen: list[int], hidden: list[int]
) -> None:
    found = visible_to_user([gpu(index) for index in range(4)], variable)
    assert [each.id.index for each in found.gpus or ()] == seen
    assert [each.index for each in found.hidden] == hidden


def test_instances_in_the_users_variable() -> None:
    there = [slice_of(0, 1), slice_of(0, 2), gpu(1)]
    for variable, uuids in (
        ("MIG-0200", ["MIG-0200"]),
        ("0", ["MIG-0100", "MIG-0200"]),
        ("GPU-0000", ["MIG-0100", "MIG-0200"]),
    ):
        assert [each.id.uuid for each in visible_to_user(there, variable).gpus or ()] == uuids


def test_what_is_hidden_is_told_where_it_is_named_or_missing() -> None:
    few = visible_to_user([gpu(index) for index in range(4)], "0")
    (problem,) = assign(wants("m", 1, 2), few).problems
    assert "1 available (CUDA_VISIBLE_DEVICES hides 3)" in problem.message
    problems = assign(wants("m", 1, 1, named=(3, 0)), few).problems
    assert [each.message for each in problems] == ["m: gpus names 3: CUDA_VISIBLE_DEVICES hides it"]


def test_gpus_are_shown_by_uuid_or_by_number() -> None:
    def shown(*gpus: GpuId, uuids: bool = True) -> str:
        env = visible_env(gpus, uuids=uuids)
        assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        return env["CUDA_VISIBLE_DEVICES"]

    one, other = GpuId(index=1, uuid="GPU-b"), GpuId(index=0, uuid="GPU-a")
    assert shown(one, other) == "GPU-b,GPU-a"
    assert shown(one, other, uuids=False) == "1,0"
    assert shown(GpuId(index=1), other) == "1,0"  # the driver does not tell one of them
    assert shown(GpuId(index=3, uuid="MIG-c"), uuids=False) == "MIG-c"  # it has no number
    assert shown() == ""


def test_who_reads_numbers_gets_numbers() -> None:
    # SGLang ends on a UUID there; of TensorRT-LLM nobody knows.
    known = {name: engine.gpu_uuids for name, engine in all_engines().items() if engine.managed}
    assert known["vllm"]
    assert known["llama-cpp"]
    assert known["transformers"]
    assert not known["sglang"]
    assert not known["tensorrt-llm"]
