"""The weights of every candidate as its engine loads them: fetched, verified, converted where that is what it takes.

What `--weights` names goes before and is taken as it is. Nothing is started here.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from freehold.cli.bench_contenders import Entry
from freehold.cli.fetching import showing
from freehold.cli.weights_fit import fitted, refuse_early
from freehold.core.errors import FreeholdError, Permanent
from freehold.weights.store import Store, store_root

_SHA256 = re.compile(r"[0-9a-f]{64}")
Key = tuple[str, str]
"""Names of a model and an engine."""


def weights_of(
    entries: Sequence[Entry], named: Mapping[str, Path], *, base_dir: Path, quiet: bool
) -> dict[Key, Path]:
    """Return where the weights of each model are for each engine; raises Permanent that names all that are missing."""
    store, found, failed = Store(store_root(os.environ)), dict[Key, Path](), list[FreeholdError]()
    with showing(quiet=quiet) as show:
        for entry in entries:
            key = (entry.model.name, entry.engine.name)
            if key in found:
                continue
            if entry.engine.name in named:
                found[key] = named[entry.engine.name]
                continue
            model = entry.model.model_copy(update={"engine": entry.engine.name})
            report = show(f"{model.name} for {model.engine}")
            try:
                refuse_early(model)
                path = store.fetch(model.source, model.sha256, on_progress=report, base_dir=base_dir)
                found[key] = fitted(model, path, store=store, on_progress=report)
            except FreeholdError as error:
                failed.append(error)
    if failed:
        said = "; ".join(dict.fromkeys(error.message for error in failed))
        raise Permanent(said, hint=next((error.hint for error in failed if error.hint), ""))
    return found


def sha256_of(path: Path) -> str:
    """Return the hash by which the store keeps weights, which is in their path; empty: they are not of the store."""
    return next((part for part in reversed(path.parts) if _SHA256.fullmatch(part)), "")
