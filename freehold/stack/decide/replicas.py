"""The replicas of a configuration, from what the file asks for and what this machine has for each model. Pure.

GPUs are not allocated here (`gpu_allocation`), and no file is read: `stack.resolve` collects the facts.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from freehold.core.events import GpuId
from freehold.engines import all_engines
from freehold.engines.base import Adapter
from freehold.fleet.decisions.plan import ReplicaPlan
from freehold.spec.model import ModelSpec, Spec


class InstalledEngine(msgspec.Struct, frozen=True, kw_only=True):
    """The environment that holds an engine's program."""

    path: Path
    mark: str
    """Identifies the installation: the same version installed again has another mark."""
    made_at: str

    def __str__(self) -> str:
        """Return name, date and mark, as a change of configuration shows them."""
        return f"{self.path.name} of {self.made_at} ({self.mark})"


class LocalAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """A verified adapter on this machine."""

    path: Path
    rank: int


class LocalModel(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine has for one model that Freehold runs."""

    weights: Path | None = None
    """Verified weights as the engine loads them, absolute; None: not fetched yet."""
    adapters: dict[str, LocalAdapter] = {}
    """By name; those that are fetched."""
    environment: InstalledEngine | None = None
    """None: the program is in Freehold's own environment, in PATH, or named by an option."""
    built_for_gpus: int = 0
    """GPUs that a folder of prebuilt engines was built for; 0: any other weights, or unknown."""


class GivenGpus(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs of one replica."""

    gpus: tuple[GpuId, ...] | None = None
    """None: unknown which GPUs there are, so the replica sees all."""
    shared: bool = False
    """True: other replicas may have the same GPUs."""


def planned_replicas(
    spec: Spec, facts: Mapping[str, LocalModel], *, cores: int, api_keys: Mapping[str, str]
) -> list[ReplicaPlan]:
    """Return every replica without GPUs; managed replicas share the cores evenly. `api_keys` are by model."""
    managed = sum(model.replicas for model in spec.models if model.managed)
    threads = max(1, cores // max(1, managed))
    apart = spec.gateway.auth == "keys" and spec.gateway.share_cache == "key"
    plans: list[ReplicaPlan] = []
    for model in spec.models:
        if model.managed:
            found = facts.get(model.name, LocalModel())
            plans += [
                managed_replica(model, index, facts=found, threads=threads, apart=apart)
                for index in range(model.replicas)
            ]
        else:
            plans += _external_replicas(model, api_keys.get(model.name, ""))
    return plans


def managed_replica(
    model: ModelSpec, index: int, *, facts: LocalModel, threads: int, apart: bool
) -> ReplicaPlan:
    """Return one replica that Freehold starts, without GPUs; `apart`: each key has a prefix cache of its own."""
    engine, environment = all_engines()[model.engine], facts.environment
    may_fetch = engine.fetches is None or engine.fetches(model.engine_options)
    adapters = (
        Adapter(name=each.name, path=facts.adapters[each.name].path, rank=facts.adapters[each.name].rank)
        for each in model.adapters
        if each.name in facts.adapters
    )
    return ReplicaPlan(
        id=f"{model.name}-{index}",
        model=model.name,
        engine=engine,
        weights=facts.weights,
        options={**(engine.apart_options if apart else {}), **model.engine_options},
        reuse_on_ask=apart and not model.adapters and engine.reuse_on_ask(model.engine_options),
        threads=threads,
        adapters=tuple(adapters),
        environment=environment.path if environment else None,
        environment_mark=environment.mark if environment else "",
        stall_s=model.stall or 0.0,
        affinity=model.affinity == "prefix",
        media_urls=model.fetches_media or not may_fetch,
        allow_keys=model.allow_keys,
        resume=model.resume,
    )


def _external_replicas(model: ModelSpec, api_key: str) -> list[ReplicaPlan]:
    return [
        ReplicaPlan(
            id=f"{model.name}-ext-{index}",
            model=model.name,
            engine=all_engines()[model.engine],
            upstream_model=model.upstream_model,
            options=model.engine_options,
            adapters=tuple(Adapter(name=a.name, upstream_name=a.upstream_name) for a in model.adapters),
            resume=model.resume,
            url=url.rstrip("/"),
            api_key=api_key,
            stall_s=model.stall or 0.0,
            affinity=model.affinity == "prefix",
            media_urls=model.fetches_media,
            allow_keys=model.allow_keys,
        )
        for index, url in enumerate(model.endpoints)
    ]
