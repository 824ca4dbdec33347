"""The weights of a configuration, fetched, verified and as their engines load them. It prints nothing: the caller shows progress."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from freehold.core.errors import FreeholdError, Permanent
from freehold.spec.model import AdapterSpec, ModelSpec
from freehold.stack.config import Config
from freehold.stack.weights_check import fitted, fitted_adapter, refuse_early
from freehold.weights.store import Store, store_root
from freehold.weights.transfer import OnProgress

ShowProgress = Callable[[str], OnProgress]
"""From the name of a model or adapter to the callback that receives its progress."""


def without_progress(name: str) -> OnProgress:
    """Return a callback that shows nothing."""
    del name
    return lambda _: None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsWanted:
    """One weights file or folder to fetch."""

    name: str
    """Its name on the screen."""
    source: str
    sha256: str
    base_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """The outcome of one fetch: a verified path, or an error."""

    wanted: WeightsWanted
    path: Path | None = None
    error: FreeholdError | None = None


def pull_all(store: Store, wanted: Iterable[WeightsWanted], show: ShowProgress) -> list[Pulled]:
    """Fetch one after the other and return every outcome; a failure does not stop the others."""
    return [_pull(store, each, show(each.name)) for each in wanted]


def fetch_weights(
    config: Config,
    show: ShowProgress = without_progress,
    *,
    known: Mapping[str, Path] = MappingProxyType({}),
) -> dict[str, Path]:
    """Return the verified weights by the names of models and adapters, in the format that their engines load.

    Raises Permanent that names each one that is missing, or of a format that its engine does not load. Those that are
    `known` are not checked again.
    """
    models = [model for model in config.spec.models if model.managed]
    store = Store(store_root(os.environ))
    wanted: list[tuple[ModelSpec, ModelSpec | AdapterSpec]] = [(model, model) for model in models]
    wanted += [(model, adapter) for model in models for adapter in model.adapters]
    pulled = [
        _pull_fitted(store, model, each, base_dir=config.base_dir, on_progress=show(each.name))
        for model, each in wanted
        if each.name not in known
    ]
    failed = [each for each in pulled if each.error is not None]
    if failed:
        said = "; ".join(f"{each.wanted.name}: {each.error}" for each in failed)
        raise Permanent(f"no weights for {said}", hint=next((e.error.hint for e in failed if e.error), ""))
    return {**known, **{each.wanted.name: each.path for each in pulled if each.path is not None}}


def _pull(store: Store, wanted: WeightsWanted, on_progress: OnProgress) -> Pulled:
    try:
        path = store.fetch(wanted.source, wanted.sha256, on_progress=on_progress, base_dir=wanted.base_dir)
    except FreeholdError as error:
        return Pulled(wanted=wanted, error=error)
    return Pulled(wanted=wanted, path=path)


def _pull_fitted(
    store: Store, model: ModelSpec, each: ModelSpec | AdapterSpec, *, base_dir: Path, on_progress: OnProgress
) -> Pulled:
    """Fetch `each`, the model itself or an adapter of it, and check that the model's engine loads it."""
    wanted = WeightsWanted(name=each.name, source=each.source, sha256=each.sha256, base_dir=base_dir)
    try:
        if each is model:
            refuse_early(model)
        pulled = _pull(store, wanted, on_progress)
        if pulled.path is None:
            return pulled
        if each is model:
            return replace(pulled, path=fitted(model, pulled.path, store=store, on_progress=on_progress))
        fitted_adapter(model, pulled.path)
    except FreeholdError as error:
        return Pulled(wanted=wanted, error=error)
    return pulled
