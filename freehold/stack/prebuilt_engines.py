"""Folders of prebuilt TensorRT engines, checked against this node before anything starts: a mismatch is a problem, not a crash.

The rules are `engines.tensorrt_record`; here are the files that they read, and where in freehold.yaml a mistake stands. A
folder that is not such a build is ignored, and an unknown fact rejects nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from freehold.core.errors import Permanent
from freehold.core.problems import Problem
from freehold.engines.base import NodeFacts, Value
from freehold.engines.shared.tensorrt_record import (
    CONFIG,
    RECORD_END,
    EngineRecord,
    fits,
    is_engine_folder,
    note,
    read_record,
    unknowns,
)
from freehold.spec.model import ModelSpec
from freehold.stack.config import Config
from freehold.stack.node_facts import read_node_facts
from freehold.weights.source import FileFolder, FileSource, parse_source

ENGINE = "tensorrt-llm"
_CONFIG_BYTES_MAX = 4 * 1024 * 1024
"""Longest config.json that is read; real ones have some kilobytes."""
Facts = Callable[[Mapping[str, Value]], NodeFacts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One model's folder of engines and this node."""

    model: str
    problems: tuple[Problem, ...]
    unknown: tuple[str, ...]


def node_facts(options: Mapping[str, Value]) -> NodeFacts:
    """Return this node's facts for TensorRT-LLM."""
    return read_node_facts(options, program="trtllm-serve", distribution="tensorrt_llm")


def engine_fits(config: Config, folders: Mapping[str, Path], *, facts: Facts = node_facts) -> Iterator[Fit]:
    """Give a Fit for every model of this engine whose weights, by model name, are a folder of built engines."""
    for index, model in enumerate(config.spec.models):
        folder = folders.get(model.name)
        record = read_folder(folder) if model.engine == ENGINE and folder else None
        if record is None:
            continue
        here = facts(model.engine_options)
        place = config.where(("models", index, "source"))
        found = [
            Problem(where=place, message=problem.message, hint=problem.hint)
            for problem in fits(record, here, options=model.engine_options)
        ]
        if model.engine_options.get("backend") != "tensorrt":
            hint = "write engine_options: {backend: tensorrt}"
            found.append(Problem(where=place, message=f"{model.name}: a folder of built engines", hint=hint))
        yield Fit(model=model.name, problems=tuple(found), unknown=tuple(unknowns(record, here)))


def local_folders(config: Config) -> dict[str, Path]:
    """Return the existing folders that `file://` sources name, by model name."""
    found = ((model.name, _local(model, config.base_dir)) for model in config.spec.models)
    return {name: path for name, path in found if path is not None}


def _local(model: ModelSpec, base_dir: Path) -> Path | None:
    source = parse_source(model.source) if model.source else None
    path = base_dir / Path(source.path).expanduser() if isinstance(source, FileSource | FileFolder) else None
    return path if path is not None and path.is_dir() else None


def read_folder(folder: Path) -> EngineRecord | None:
    """Return what a folder of built engines was built for; None: it is not such a folder, or cannot be read."""
    config = _read(folder / CONFIG)
    return read_record(config, _read(record_path(folder))) if is_engine_folder(config) else None


def built_for_gpus(folder: Path | None) -> int:
    """Return how many GPUs a folder of prebuilt engines was built for; 0: it is not one, or does not record it."""
    record = read_folder(folder) if folder is not None and folder.is_dir() else None
    return record.gpus if record is not None else 0


def record_path(folder: Path) -> Path:
    """Return the path of a folder's record, which lies beside it."""
    return folder.with_name(folder.name + RECORD_END)


def write_record(folder: Path, facts: NodeFacts) -> Path:
    """Record this node's facts beside a folder of built engines and return the path; raises Permanent for any other folder."""
    config = _read(folder / CONFIG)
    if not is_engine_folder(config):
        raise Permanent(
            f"{folder} is not a folder of built TensorRT engines", hint=f"its {CONFIG} has no build_config"
        )
    if not facts.architectures:
        raise Permanent(
            "nvidia-smi reported no GPU", hint="run this on the node that the engines were built on"
        )
    path = record_path(folder)
    try:
        path.write_text(note(config, facts), encoding="utf-8")
    except OSError as exc:
        raise Permanent(f"cannot write {path}: {exc.strerror}") from exc
    return path


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_CONFIG_BYTES_MAX)
    except OSError:
        return b""
