"""The weights of every candidate as its engine loads them: fetched, verified, converted where that is what it takes.

What `--weights` names goes before: it is looked at, hashed, and measured where it lies, and what freehold.yaml would have to say for it
is found out. Nothing is started here, and nothing is copied into the store.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from freehold.bench.contenders import BenchEntry, Weights
from freehold.core.errors import FreeholdError, Permanent
from freehold.core.problems import Problem, nearest_hint
from freehold.cost.intake.flags import FlagReader
from freehold.engines import all_engines
from freehold.engines.base import Engine
from freehold.spec.model import ModelSpec
from freehold.stack.fetch import ShowProgress
from freehold.stack.weights_check import fitted, refuse_early
from freehold.weights.recognise import recognise
from freehold.weights.source import GgufParts, parse_source
from freehold.weights.store import Store, store_root
from freehold.weights.transfer import OnProgress, Reporter, disk_errors, hash_file
from freehold.weights.tree import hash_folder, tree_hash

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PORTABLE = ("pypi://", "hf://", "https://")  # sources that mean the same on every machine
Key = tuple[str, str]
"""Names of a model and an engine."""


def named_weights(texts: Iterable[str], entries: Sequence[BenchEntry], reader: FlagReader) -> dict[str, Path]:
    """Return what each engine is to be given, by its name; problems are in the reader. `texts` are `ENGINE=PATH`."""
    benched = {entry.engine.name: entry.engine for entry in entries}
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not path:
            reader.wrong("--weights", f"{text!r} is not ENGINE=PATH", _EXAMPLE)
        elif name not in all_engines():
            reader.wrong("--weights", f"there is no engine {name!r}", nearest_hint(name, all_engines()))
        elif name not in benched:
            reader.wrong("--weights", f"{name} is not benched", f"--engines {','.join([*benched, name])}")
        elif name in found:
            reader.wrong("--weights", f"names weights of {name} twice", "one PATH for each engine")
        elif (seen := _seen(benched[name], Path(path).expanduser().absolute(), reader)) is not None:
            found[name] = seen
    return found


_EXAMPLE = "for example vllm=/models/smollm2"


def _seen(engine: Engine, path: Path, reader: FlagReader) -> Path | None:
    """Return what an engine is given of a file or folder; None: it cannot be, and the reader has why."""
    if not path.exists():
        reader.wrong("--weights", f"there is nothing at {path}", _EXAMPLE)
        return None
    meant = parse_source(source_of(path), where="--weights")
    if isinstance(meant, Problem):
        reader.problems.append(meant)
        return None
    try:
        found = recognise(path)
    except OSError as exc:
        reader.wrong("--weights", f"{path} cannot be read: {exc.strerror or exc}", _EXAMPLE)
        return None
    except Permanent:  # a folder with links, as a hub's cache: it can be measured where it lies, and not be served from there
        return path
    for each in found.problems:
        reader.wrong("--weights", f"{each.where} {each.message}", each.hint)
    if not found.problems and found.format is not None and found.format not in engine.formats:
        said = f"{path} is {found.format}, and {engine.name} loads {' or '.join(engine.formats)}"
        reader.wrong("--weights", said, "freehold model convert makes one of the other")
    return found.path


def weights_of(
    entries: Sequence[BenchEntry], named: Mapping[str, Path], *, base_dir: Path, show: ShowProgress
) -> dict[Key, Weights]:
    """Return the weights of each model for each engine; raises Permanent that names all that are missing."""
    store, found, failed = Store(store_root(os.environ)), dict[Key, Weights](), list[FreeholdError]()
    hashes: dict[Path, str] = {}
    for entry in entries:
        key = (entry.model.name, entry.engine.name)
        if key in found:
            continue
        report = show(f"{entry.model.name} for {entry.engine.name}")
        if path := named.get(entry.engine.name):
            if path not in hashes:
                hashes[path] = hashed(path, report)
            found[key] = with_source(path, hashes[path], model=entry.model, store=store)
            continue
        try:
            path = _fetched(entry, store, base_dir, report)
            found[key] = Weights(path=path, sha256=sha256_of(path))
        except FreeholdError as error:
            failed.append(error)
    if failed:
        said = "; ".join(dict.fromkeys(error.message for error in failed))
        raise Permanent(said, hint=next((error.hint for error in failed if error.hint), ""))
    return found


def _fetched(entry: BenchEntry, store: Store, base_dir: Path, report: OnProgress) -> Path:
    model = entry.model.model_copy(update={"engine": entry.engine.name})
    refuse_early(model)
    path = store.fetch(model.source, model.sha256, on_progress=report, base_dir=base_dir)
    return fitted(model, path, store=store, on_progress=report)


def with_source(path: Path, sha256: str, *, model: ModelSpec, store: Store) -> Weights:
    """Return weights that a user named, with what freehold.yaml would have to say for a stack to serve them.

    That is nothing where the model's own source brings them: they are the same, or what Freehold makes of it by itself.
    """
    record = store.record(sha256) if sha256 else None
    made_of = {origin.source_sha256 for origin in record.made} if record is not None else set()
    if not sha256 or model.sha256 in {sha256, *made_of}:
        return Weights(path=path, sha256=sha256)
    portable = record is not None and record.source.startswith(_PORTABLE) and "?" not in record.source
    source = record.source if record is not None and portable and not made_of else source_of(path)
    return Weights(path=path, sha256=sha256, source=source)


def source_of(path: Path) -> str:
    """Return how a file or folder is written as a source; parse_source takes `%` and `?` for something else, so these are escaped."""
    plain = str(path).replace("%", "%25").replace("?", "%3F")
    return f"file://{plain}{'/' if path.is_dir() else ''}"


def hashed(path: Path, report: OnProgress | None = None) -> str:
    """Return the hash that the store would know a file, all parts of one, or a folder by; empty: it would refuse it, or it cannot be read."""
    meant = parse_source(source_of(path))
    try:
        with disk_errors(path):
            if path.is_dir():
                return tree_hash(hash_folder(path, Reporter(report)))
            if isinstance(meant, GgufParts):
                parts = {name: path.parent / Path(str(part)).name for name, part in meant.parts().items()}
                return tree_hash({name: hash_file(each, Reporter(report)) for name, each in parts.items()})
            return hash_file(path, Reporter(report))
    except FreeholdError:
        return ""


def sha256_of(path: Path) -> str:
    """Return the hash by which the store keeps weights, which is in their path; empty: they are not of the store."""
    return next((part for part in reversed(path.parts) if _SHA256.fullmatch(part)), "")
