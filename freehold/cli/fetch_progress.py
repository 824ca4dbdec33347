"""Fetching weights with something to look at: bars on a terminal, one plain line per stage elsewhere.

`model pull` and `up` share it. It shows on stderr only, so that stdout stays what the command answers.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import click
import rich.console
import rich.progress

from freehold.cli.config import Config
from freehold.stack.weights_check import fitted, fitted_adapter, refuse_early
from freehold.core.errors import FreeholdError, Permanent
from freehold.spec.model import AdapterSpec, ModelSpec
from freehold.weights.store import Store, store_root
from freehold.weights.transfer import OnProgress, Progress, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One weights file that is to be on this machine."""

    name: str
    """What to call it on the screen."""
    source: str
    sha256: str
    base_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What came of it: a verified path, or why not."""

    wanted: Wanted
    path: Path | None = None
    error: FreeholdError | None = None


def pull_all(store: Store, wanted: Iterable[Wanted], *, quiet: bool = False) -> list[Pulled]:
    """Fetch one after the other and return what came of each; a failure does not keep the others from coming."""
    with showing(quiet=quiet) as show:
        return [_pull(store, each, show(each.name)) for each in wanted]


def fetch_weights(
    config: Config, *, quiet: bool, known: Mapping[str, Path] = MappingProxyType({}), only: str = ""
) -> dict[str, Path]:
    """Return the verified weights of a configuration by model name, as their engines load them, and adapters by theirs.

    Raises Permanent that names each one missing, or of another kind than its engine loads. Those that are `known` are not
    looked at again. `only` is the one model that is wanted; empty: all.
    """
    models = [model for model in config.spec.models if model.managed and only in ("", model.name)]
    store = Store(store_root(os.environ))
    with showing(quiet=quiet) as show:
        pulled = [
            _pull_fitted(store, model, config.base_dir, show(model.name))
            for model in models
            if model.name not in known
        ]
        pulled += [
            _pull_adapter(store, model, adapter, base_dir=config.base_dir, on_progress=show(adapter.name))
            for model in models
            for adapter in model.adapters
            if adapter.name not in known
        ]
    failed = [each for each in pulled if each.error is not None]
    if failed:
        said = "; ".join(f"{each.wanted.name}: {each.error}" for each in failed)
        raise Permanent(f"no weights for {said}", hint=next((e.error.hint for e in failed if e.error), ""))
    return {**known, **{each.wanted.name: each.path for each in pulled if each.path is not None}}


def _pull(store: Store, wanted: Wanted, on_progress: OnProgress) -> Pulled:
    try:
        path = store.fetch(wanted.source, wanted.sha256, on_progress=on_progress, base_dir=wanted.base_dir)
    except FreeholdError as error:
        return Pulled(wanted=wanted, error=error)
    return Pulled(wanted=wanted, path=path)


def _pull_fitted(store: Store, model: ModelSpec, base_dir: Path, on_progress: OnProgress) -> Pulled:
    wanted = Wanted(name=model.name, source=model.source, sha256=model.sha256, base_dir=base_dir)
    try:
        refuse_early(model)
        pulled = _pull(store, wanted, on_progress)
        if pulled.path is None:
            return pulled
        return replace(pulled, path=fitted(model, pulled.path, store=store, on_progress=on_progress))
    except FreeholdError as error:
        return Pulled(wanted=wanted, error=error)


def _pull_adapter(
    store: Store, model: ModelSpec, adapter: AdapterSpec, *, base_dir: Path, on_progress: OnProgress
) -> Pulled:
    wanted = Wanted(name=adapter.name, source=adapter.source, sha256=adapter.sha256, base_dir=base_dir)
    pulled = _pull(store, wanted, on_progress)
    try:
        if pulled.path is not None:
            fitted_adapter(model, pulled.path)
    except FreeholdError as error:
        return Pulled(wanted=wanted, error=error)
    return pulled


@contextmanager
def showing(*, quiet: bool) -> Iterator[Callable[[str], OnProgress]]:
    """Give a function from a name to the callback that shows its progress, until the block ends."""
    if quiet:
        yield lambda _name: _silent
    elif not sys.stderr.isatty():
        yield _lines
    else:
        with rich.progress.Progress(
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(),
            rich.progress.DownloadColumn(),
            rich.progress.TransferSpeedColumn(),
            rich.progress.TimeRemainingColumn(),
            console=rich.console.Console(stderr=True),
        ) as bars:
            yield lambda name: _bar(bars, name)


def _silent(progress: Progress) -> None:
    del progress


def _lines(name: str) -> OnProgress:
    """Say each stage once, and each reason to try again once."""
    said: set[tuple[Stage, str]] = set()

    def show(progress: Progress) -> None:
        reason = progress.detail.partition("; in ")[0]  # without the seconds that are left
        if (progress.stage, reason) not in said:
            said.add((progress.stage, reason))
            click.echo(f"{name}: {progress.stage}" + (f" ({reason})" if reason else ""), err=True)

    return show


def _bar(bars: rich.progress.Progress, name: str) -> OnProgress:
    """Show one bar for what is going on now; a new stage begins it anew."""
    shown: list[tuple[Stage, rich.progress.TaskID]] = []

    def show(progress: Progress) -> None:
        words = f"{name}  {progress.stage}" + (f" ({progress.detail})" if progress.detail else "")
        if not shown or shown[0][0] is not progress.stage:
            for _, task in shown:
                bars.remove_task(task)
            shown[:] = [(progress.stage, bars.add_task(words, total=progress.total_bytes))]
        bars.update(shown[0][1], description=words, completed=progress.done_bytes, total=progress.total_bytes)

    return show
