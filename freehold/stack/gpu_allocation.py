"""How many GPUs the replicas of a freehold.yaml take, by their engines and by the user's word, and what they are given.

Who gets which is `fleet.gpus`, which GPUs there are `cli.node_gpus`. nvidia-smi is asked only where a replica may take a GPU.
"""

import os
from collections.abc import Iterable, Mapping, Sequence

from freehold.core.problems import Problem
from freehold.engines import all_engines
from freehold.fleet.decisions.plan import ReplicaPlan
from freehold.fleet.decisions.rollout import Held
from freehold.fleet.gpus.assign import assign
from freehold.fleet.gpus.pools import NodeGpus, Want
from freehold.spec.model import ModelSpec
from freehold.stack.config import Config
from freehold.stack.engine_environment import environment_of
from freehold.stack.node_gpus import node_gpus
from freehold.stack.prebuilt_engines import read_folder

NOBODY = NodeGpus(why="no replica takes one")
"""Nobody was asked."""


def gpus_for(config: Config, env: Mapping[str, str] = os.environ) -> NodeGpus:
    """Return this node's GPUs for a configuration; unknown, and nobody is asked, where no replica takes any."""
    return node_gpus(env) if any(map(_may_take, config.spec.models)) else NOBODY


def _may_take(model: ModelSpec) -> bool:
    if not model.managed or model.gpus == 0:
        return False
    engine = all_engines()[model.engine]
    environment = environment_of(engine)
    count = engine.gpus_of(model.engine_options, environment.path if environment else None)
    return isinstance(model.gpus, int | tuple) or count != 0


def want_of(plan: ReplicaPlan, model: ModelSpec) -> Want:
    """Return what a replica wants: the model's own word goes before its engine's, which goes before the weights'."""
    count = plan.engine.gpus_of(plan.options, plan.environment)
    if count is None:
        count = _built_for(plan)
    if isinstance(model.gpus, int):
        return Want(plan=plan, count=model.gpus)
    if isinstance(model.gpus, tuple):
        return Want(plan=plan, count=count, named=model.gpus, shared=model.gpus_shared)
    return Want(plan=plan, count=count)


def _built_for(plan: ReplicaPlan) -> int | None:
    """Return how many GPUs a folder of prebuilt engines was built for; None: it is none, or does not say."""
    record = read_folder(plan.weights) if plan.weights is not None and plan.weights.is_dir() else None
    return record.gpus or None if record is not None else None


def _wants(config: Config, plans: Iterable[ReplicaPlan]) -> list[Want]:
    models = {model.name: model for model in config.spec.models}
    return [want_of(plan, models[plan.model]) for plan in plans if plan.engine.managed]


def given_gpus(
    config: Config, plans: Sequence[ReplicaPlan], *, node: NodeGpus, held: Sequence[Held] = ()
) -> list[ReplicaPlan]:
    """Return the plans with their GPUs; `gpu_problems` has found none."""
    given = {plan.id: plan for plan in assign(_wants(config, plans), node, held).plans}
    return [given.get(plan.id, plan) for plan in plans]


def gpu_problems(config: Config, plans: Sequence[ReplicaPlan], node: NodeGpus) -> list[Problem]:
    """Return why this node cannot give the replicas their GPUs, at their places in the file."""
    found = assign(_wants(config, plans), node).problems
    return [Problem(where=_place(config, each.where), message=each.message, hint=each.hint) for each in found]


def _place(config: Config, name: str) -> str:
    for index, model in enumerate(config.spec.models):
        if model.name == name:
            key = "gpus" if "gpus" in model.model_fields_set else "engine"
            return config.where(("models", index, key))
    return config.name


def unseen(config: Config, node: NodeGpus) -> list[str]:
    """Return a sentence for each model that asks for GPUs by `gpus` where nobody can see which there are."""
    if node.gpus is not None:
        return []
    return [
        f"{model.name} asks for {_asked(model.gpus)} (gpus), and none can be seen here: {node.why}"
        for model in config.spec.models
        if model.managed and model.gpus not in ("auto", 0)
    ]


def _asked(gpus: int | str | tuple[int | str, ...]) -> str:
    return f"GPU {', '.join(map(str, gpus))}" if isinstance(gpus, tuple) else f"{gpus} GPUs"


def words_of(plans: Iterable[ReplicaPlan]) -> str:
    """Return who has which GPUs in a line: `m-0: 0, 1; m-1: none`."""
    return "; ".join(
        f"{plan.id}: {', '.join(map(str, plan.gpus)) or 'none'}" for plan in plans if plan.gpus is not None
    )
