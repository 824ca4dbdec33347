"""From a freehold.yaml to the blueprint of a stack: read, checked against this machine, decided once.

Every problem is a value, and all are returned. Weights that are not here yet are fetched by `fetch`, which completes the
blueprint with what only the weights show. Nothing is started here.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from freehold.core.errors import Permanent
from freehold.core.problems import Problem
from freehold.engines import all_engines
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan
from freehold.fleet.decisions.rollout import HeldReplica
from freehold.fleet.gpus.pools import NodeGpus
from freehold.gateway.settings import Settings, TlsSettings, settings_from, with_fallbacks
from freehold.gateway.storage.tls_files import server_context
from freehold.ledger.spool import spool_folder
from freehold.spec.model import ModelSpec
from freehold.stack.blueprint import Blueprint, read_blueprint
from freehold.stack.config import Config, read_config, with_keys
from freehold.stack.decide.gpu_allocation import allocate, may_take, unseen
from freehold.stack.decide.replicas import InstalledEngine, LocalAdapter, LocalModel
from freehold.stack.engine_environment import environment_for
from freehold.stack.fetch import ShowProgress, fetch_weights, without_progress
from freehold.stack.health_settings import health_settings
from freehold.stack.key_file import keys_path_for
from freehold.stack.node_gpus import node_gpus
from freehold.stack.prebuilt_engines import built_for_gpus, engine_fits, local_folders
from freehold.weights.adapter import recognise_adapter

ACCESS_LOG = "access.log"
"""The access log's name among the logs."""
HEALTH_LOG = "health.log"
"""The agent's log's name among the logs."""
NO_REPLICA = NodeGpus(why="no replica takes one")
"""The GPUs of a node that were not listed, since no replica takes any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A blueprint, and what stays out of it."""

    blueprint: Blueprint
    config: Config
    """The same configuration with its API keys and with the places of its keys."""

    @property
    def replicas(self) -> list[ReplicaPlan]:
        """Return every replica with its GPUs and its API key."""
        return self.blueprint.replicas(self.config.api_keys)

    @property
    def gateway(self) -> Settings:
        """Return the settings for a gateway process, with the API keys of fallbacks and the generation."""
        keys, settings = self.config.fallback_keys, self.blueprint.gateway
        fallbacks = (
            msgspec.structs.replace(each, api_key=keys.get(each.name, "")) for each in settings.fallbacks
        )
        return msgspec.structs.replace(
            settings, fallbacks=tuple(fallbacks), generation=self.blueprint.generation
        )


def resolve(
    path: Path | None,
    state: StateDir,
    *,
    overrides: Mapping[str, object],
    parent: Resolved | None = None,
) -> Resolved | list[Problem]:
    """Return the blueprint for a file (None: the built-in example), or every problem there is.

    `parent` is the blueprint in force: its verified weights are taken over where the file still names the same.
    """
    known = parent.config.by_variable if parent else {}
    config = read_config(path, overrides=overrides, known=known)
    return resolve_config(config, state, parent=parent) if isinstance(config, Config) else config


def resolve_config(
    config: Config, state: StateDir, *, parent: Resolved | None = None
) -> Resolved | list[Problem]:
    """Return the blueprint for a configuration that has been read already, or why this node cannot give its GPUs or TLS files."""
    return tls_problems(config) or resolve_gpus(config, state, parent=parent)


def resolve_gpus(
    config: Config, state: StateDir, *, parent: Resolved | None = None
) -> Resolved | list[Problem]:
    """Return the same without a look at TLS files: only GPUs can be a problem."""
    known = _known_weights(config, parent) if parent else {}
    models = _local_models(config, known)
    node = _node_gpus(config, models, parent)
    spec = config.spec
    blueprint = Blueprint(
        generation=parent.blueprint.generation + 1 if parent else 1,
        parent=parent.blueprint.id if parent else "",
        config=config.path,
        overrides=dict(config.overrides),
        spec=spec,
        cores=len(os.sched_getaffinity(0)),
        models=models,
        node=node,
        gpus={},
        fleet=FleetSettings(
            log_dir=state.logs,
            ready_timeout_s=spec.fleet.ready_timeout,
            stop_grace_s=spec.fleet.stop_grace,
            drain_s=spec.gateway.drain_grace,
        ),
        gateway=_gateway_settings(config, state),
        agent=health_settings(config, state_path=state.path, log_path=state.logs / HEALTH_LOG),
        rounds=parent.blueprint.rounds if parent else {},
        notes=unseen(spec, node),
    )
    return with_gpus(Resolved(blueprint=blueprint, config=config))


def restore(state: StateDir) -> Resolved | list[Problem]:
    """Return the blueprint that lies in a state folder, with its API keys read again, or what is wrong with these."""
    blueprint = read_blueprint(state.path)
    bare = Config(spec=blueprint.spec, path=blueprint.config, api_keys={}, overrides=blueprint.overrides)
    config = with_keys(bare)
    return Resolved(blueprint=blueprint, config=config) if isinstance(config, Config) else config


def fetch(resolved: Resolved, show: ShowProgress = without_progress) -> Resolved | list[Problem]:
    """Return the blueprint with all weights, or the problems that only they show; raise Permanent if they cannot be fetched."""
    config, blueprint = resolved.config, resolved.blueprint
    weights = fetch_weights(config, show, known=blueprint.weights)
    problems = [problem for fit in engine_fits(config, weights) for problem in fit.problems]
    if problems:
        return problems
    agent = health_settings(
        config, state_path=Path(blueprint.agent.state_dir), log_path=Path(blueprint.agent.log_path)
    )  # again: the weight store that it watches may be here only now
    complete = msgspec.structs.replace(blueprint, models=_local_models(config, weights), agent=agent)
    return with_gpus(replace(resolved, blueprint=complete))


def with_gpus(resolved: Resolved, held: Sequence[HeldReplica] = ()) -> Resolved | list[Problem]:
    """Return the blueprint with the GPUs of each replica, or why this node cannot give them, at their places in the file.

    `held` are the replicas that run, which keep theirs where possible.
    """
    blueprint, config = resolved.blueprint, resolved.config
    found = allocate(config.spec, resolved.replicas, facts=blueprint.models, node=blueprint.node, held=held)
    if isinstance(found, list):
        return [replace(each, where=_place(config, each.where)) for each in found]
    return replace(resolved, blueprint=msgspec.structs.replace(blueprint, gpus=found))


def _place(config: Config, name: str) -> str:
    for index, model in enumerate(config.spec.models):
        if model.name == name:
            key = "engine" if model.gpus == "auto" else "gpus"
            return config.where(("models", index, key))
    return config.name


def _known_weights(config: Config, parent: Resolved) -> dict[str, Path]:
    """Return the parent's verified weights of models and adapters that are to have the same."""
    before = set(_sources(parent.config))
    same = {wanted[0] for wanted in _sources(config) if wanted in before}
    return {name: path for name, path in parent.blueprint.weights.items() if name in same}


def _sources(config: Config) -> list[tuple[str, str, str, str]]:
    """Return the name of each model and adapter with its source, its hash and the engine that loads it."""
    return [
        (each.name, each.source, each.sha256, model.engine)
        for model in config.spec.models
        for each in model.named
    ]


def _local_models(config: Config, weights: Mapping[str, Path]) -> dict[str, LocalModel]:
    """Return what this machine has for each managed model; a folder that is not verified yet counts for its GPUs alone."""
    folders = local_folders(config)
    return {
        model.name: _local_model(model, weights, weights.get(model.name) or folders.get(model.name))
        for model in config.spec.models
        if model.managed
    }


def _local_model(model: ModelSpec, weights: Mapping[str, Path], folder: Path | None) -> LocalModel:
    return LocalModel(
        weights=weights.get(model.name),
        adapters={
            each.name: LocalAdapter(path=path, rank=recognise_adapter(path).rank)
            for each in model.adapters
            if (path := weights.get(each.name)) is not None
        },
        environment=installed_engine(model),
        built_for_gpus=built_for_gpus(folder),
    )


def installed_engine(model: ModelSpec) -> InstalledEngine | None:
    """Return the environment that a model's engine runs in; None: it has none of Freehold's."""
    found = environment_for(all_engines()[model.engine], model.engine_options)
    if found is None:
        return None
    return InstalledEngine(path=found.path, mark=found.mark, made_at=found.manifest.made_at)


def _node_gpus(config: Config, models: Mapping[str, LocalModel], parent: Resolved | None) -> NodeGpus:
    """Return this node's GPUs, unless they are unknown now or were at the start.

    So replicas are not started again because nvidia-smi answers one time and fails another. It is not run where no replica
    takes a GPU.
    """
    taking = any(model.name in models and may_take(model, models[model.name]) for model in config.spec.models)
    now = node_gpus(os.environ) if taking else NO_REPLICA
    if parent is None:
        return now
    before = parent.blueprint.node
    unknown = before.gpus is None and before != NO_REPLICA
    return before if unknown or now.gpus is None else now


def _gateway_settings(config: Config, state: StateDir) -> Settings:
    """Return the gateway's settings without the API keys of fallbacks."""
    settings = settings_from(
        config.spec.gateway,
        spool_path=str(spool_folder(state.path)),
        log_path=str(state.logs / "gateway.log"),
        access_path=str(state.logs / ACCESS_LOG),
    )
    settings = msgspec.structs.replace(settings, tls=tls_settings(config))
    settings = with_fallbacks(
        settings, config.spec, api_keys={}, spent_path=str(state.path / "fallback.json")
    )
    if config.spec.gateway.auth == "none":
        return settings
    keys_path, budgets_path = str(keys_path_for(config)), str(state.path / "budgets.json")
    return msgspec.structs.replace(settings, keys_path=keys_path, budgets_path=budgets_path)


def tls_settings(config: Config) -> TlsSettings | None:
    """Return the listener's TLS with the paths of its files; None: plain HTTP."""
    tls = config.spec.gateway.tls
    if tls is None:
        return None
    paths = {
        name: str(config.base_dir / Path(path).expanduser()) if path else ""
        for name, path in tls.model_dump().items()
    }
    return TlsSettings(**paths)


def tls_problems(config: Config) -> list[Problem]:
    """Return what is wrong with the files of the listener's TLS."""
    tls = tls_settings(config)
    try:
        if tls is not None:
            server_context(tls)
    except Permanent as exc:
        return [Problem(where=config.where(("gateway", "tls")), message=exc.message, hint=exc.hint)]
    return []
