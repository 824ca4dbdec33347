"""How many GPUs each replica takes, by its model's `gpus`, its engine and its weights, and which GPUs it is given. Pure.

`fleet.gpus` assigns them and `stack.node_gpus` lists the GPUs of a node; no program is asked here.
"""

from collections.abc import Iterable, Mapping, Sequence

from freehold.core.problems import Problem
from freehold.engines import all_engines
from freehold.fleet.decisions.plan import ReplicaPlan
from freehold.fleet.decisions.rollout import HeldReplica
from freehold.fleet.gpus.assign import assign
from freehold.fleet.gpus.pools import NodeGpus, Want
from freehold.spec.model import ModelSpec, Spec
from freehold.stack.decide.replicas import GivenGpus, LocalModel

Allocation = dict[str, GivenGpus]
"""By replica id."""


def may_take(model: ModelSpec, facts: LocalModel) -> bool:
    """Return whether a replica of a model may take a GPU, as far as is known before its weights are here."""
    if not model.managed or model.gpus == 0:
        return False
    environment = facts.environment.path if facts.environment else None
    count = all_engines()[model.engine].gpus_of(model.engine_options, environment)
    return isinstance(model.gpus, int | tuple) or count != 0


def want_of(plan: ReplicaPlan, model: ModelSpec, built_for_gpus: int = 0) -> Want:
    """Return what a replica wants: the model's `gpus` goes before its engine's count, which goes before the weights'."""
    count = plan.engine.gpus_of(plan.options, plan.environment)
    if count is None:
        count = built_for_gpus or None
    if isinstance(model.gpus, int):
        return Want(plan=plan, count=model.gpus)
    if isinstance(model.gpus, tuple):
        return Want(plan=plan, count=count, named=model.gpus, shared=model.gpus_shared)
    return Want(plan=plan, count=count)


def allocate(
    spec: Spec,
    plans: Sequence[ReplicaPlan],
    *,
    facts: Mapping[str, LocalModel],
    node: NodeGpus,
    held: Sequence[HeldReplica] = (),
) -> Allocation | list[Problem]:
    """Return the GPUs of every managed replica, or why this node cannot give them; `where` is a model's name.

    `held` are the replicas that run: they keep their GPUs where possible.
    """
    models = {model.name: model for model in spec.models}
    wants = [
        want_of(plan, models[plan.model], facts.get(plan.model, LocalModel()).built_for_gpus)
        for plan in plans
        if plan.engine.managed
    ]
    given = assign(wants, node, held)
    if given.problems:
        return list(given.problems)
    return {plan.id: GivenGpus(gpus=plan.gpus, shared=plan.gpus_shared) for plan in given.plans}


def unseen(spec: Spec, node: NodeGpus) -> tuple[str, ...]:
    """Return a sentence for each model whose `gpus` asks for GPUs while the GPUs of this node are unknown."""
    if node.gpus is not None:
        return ()
    return tuple(
        f"{model.name} asks for {_requested(model.gpus)} (gpus), but no GPU is visible here: {node.why}"
        for model in spec.models
        if model.managed and model.gpus not in ("auto", 0)
    )


def _requested(gpus: int | str | tuple[int | str, ...]) -> str:
    return f"GPU {', '.join(map(str, gpus))}" if isinstance(gpus, tuple) else f"{gpus} GPUs"


def allocation_text(plans: Iterable[ReplicaPlan]) -> str:
    """Return the GPUs of each replica in a line: `m-0: 0, 1; m-1: none`."""
    return "; ".join(
        f"{plan.id}: {', '.join(map(str, plan.gpus)) or 'none'}" for plan in plans if plan.gpus is not None
    )
