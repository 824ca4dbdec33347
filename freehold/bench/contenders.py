"""Who is benched: the models of freehold.yaml on their own engine or on others, and grids of settings.

One replica of each is measured, with the whole machine for itself. Options that freehold.yaml has for an engine are that
engine's; another engine starts with its defaults. Wrong engines, options, grids and weights are reported all at once; nothing is
fetched or started here.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from freehold.bench.analysis.results import Candidate, Scalar
from freehold.bench.measure.run import Contender
from freehold.core.problems import Problem, nearest_hint
from freehold.cost.intake.flags import FlagReader
from freehold.engines import all_engines
from freehold.engines.base import Engine, Format, Option
from freehold.engines.shared.option_check import check_options
from freehold.fleet.decisions.plan import ReplicaPlan
from freehold.fleet.gpus.assign import GpuAssignment, assign
from freehold.fleet.gpus.pools import UNKNOWN, NodeGpus
from freehold.spec.model import ModelSpec
from freehold.stack.config import Config
from freehold.stack.decide.gpu_allocation import want_of
from freehold.stack.engine_environment import environment_of, environment_problems
from freehold.stack.prebuilt_engines import built_for_gpus

CONTENDERS_MAX = 64
"""Most candidates of one bench. Source: our own bound: with four loads of 35 s and three runs they take 7.5 hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchEntry:
    """One candidate before its weights are here."""

    model: ModelSpec
    engine: Engine
    options: Mapping[str, Scalar]
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What an engine is given of a model."""

    path: Path
    sha256: str = ""
    """Empty: not known."""
    source: str = ""
    """What freehold.yaml must say, with the hash, for a stack to serve them; empty: what it says already brings them."""


def models_of(config: Config, names: Sequence[str], reader: FlagReader) -> list[ModelSpec]:
    """Return the models of these names, or without names every one that Freehold starts; problems are in the reader."""
    managed = {model.name: model for model in config.spec.models if model.managed}
    for name in names:
        if name not in managed:
            known = name in {model.name for model in config.spec.models}
            external = f"{name!r} is an external server: bench cannot start it"
            hint = nearest_hint(name, managed) if managed else "bench starts what it measures"
            reader.wrong("--model", external if known else f"there is no model {name!r}", hint)
    if not managed:
        reader.wrong(
            config.name, "has no model that Freehold starts", "bench starts each engine alone: add a model"
        )
    return [model for name, model in managed.items() if not names or name in names]


def entries_of(
    models: Sequence[ModelSpec], reader: FlagReader, *, on: Iterable[str] = (), settings: Iterable[str] = ()
) -> list[BenchEntry]:
    """Return every candidate, in the order of the models, engines and settings; problems are in the reader.

    `on` names engines; empty: each model's own. A setting is `ENGINE.OPTION=VALUE,VALUE`.
    """
    engines = all_engines()
    named = [name for name in on if _known(name, engines, reader)]
    grids = _grids(settings, engines, reader)
    meant = named or [model.engine for model in models]
    for name in grids.keys() - set(meant):
        reader.wrong("--set", f"{name} is not benched", f"--engines {','.join([*named, name])}")
    entries = [
        BenchEntry(
            model=model,
            engine=engines[name],
            options=options,
            label=_label(name, {key: value for key, value in varied.items() if len(grids[name][key]) > 1}),
        )
        for model in models
        for name in (named or [model.engine])
        for varied in _combined(grids.get(name, {}))
        for options in [{**(model.engine_options if name == model.engine else {}), **varied}]
    ]
    for entry in entries:
        reader.problems += check_options(entry.engine, entry.options, _place)
    for entry in {entry.engine.name: entry for entry in entries}.values():
        reader.problems += environment_problems(entry.engine, entry.options, place="--engines", where=_place)
    if len(entries) > CONTENDERS_MAX:
        reader.wrong("--set", f"{len(entries)} candidates are more than {CONTENDERS_MAX}", "a smaller grid")
    if len(models) == 1:
        return entries
    return [replace(each, label=f"{each.model.name} {each.label}") for each in entries]


def _place(option: str) -> str:
    return f"--set {option}"


def _known(name: str, engines: Mapping[str, Engine], reader: FlagReader) -> bool:
    engine = engines.get(name)
    if engine is None:
        reader.wrong("--engines", f"there is no engine {name!r}", nearest_hint(name, engines))
    elif not engine.managed:
        reader.wrong(
            "--engines", f"{name} is external: bench cannot start it", "bench starts what it measures"
        )
    return engine is not None and engine.managed


def _combined(grid: Mapping[str, Sequence[Scalar]]) -> Iterator[dict[str, Scalar]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _label(engine: str, varied: Mapping[str, Scalar]) -> str:
    return " ".join([engine, *(f"{name}={_text(value)}" for name, value in varied.items())])


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _grids(
    settings: Iterable[str], engines: Mapping[str, Engine], reader: FlagReader
) -> dict[str, dict[str, list[Scalar]]]:
    grids: dict[str, dict[str, list[Scalar]]] = {}
    for text in settings:
        way, equals, values = text.partition("=")
        name, dot, option_name = way.strip().partition(".")
        if not (equals and dot and values):
            hint = "for example llama-cpp.n_parallel=2,4,8"
            reader.wrong("--set", f"{text!r} is not ENGINE.OPTION=VALUE,VALUE", hint)
            continue
        engine = engines.get(name)
        if engine is None:
            reader.wrong("--set", f"there is no engine {name!r}", nearest_hint(name, engines))
            continue
        option = next((each for each in engine.options if each.name == option_name), None)
        if option is None:
            known = [each.name for each in engine.options]
            hint = nearest_hint(option_name, known)
            reader.wrong("--set", f"engine {name} has no option {option_name!r}", hint)
            continue
        read = [read_value(option, value.strip()) for value in values.split(",")]
        reader.problems += [each for each in read if isinstance(each, Problem)]
        grids.setdefault(name, {})[option_name] = [each for each in read if not isinstance(each, Problem)]
    return grids


def read_value(option: Option, text: str) -> Scalar | Problem:
    """Return a value of an option's type; whether the option allows it, `check_options` says."""
    try:
        if option.type == "bool":
            return {"true": True, "false": False}[text.lower()]
        if option.type == "int":
            return int(text)
        return float(text) if option.type == "float" else text
    except (KeyError, ValueError):
        return Problem(
            where="--set",
            message=f"{option.name} must be of type {option.type}, not {text!r}",
            hint=option.help,
        )


def format_of(path: Path) -> str:
    """Return what weights are, by their names: gguf, safetensors, or empty."""
    if path.is_dir():
        return Format.SAFETENSORS if any(path.glob("*.safetensors")) else ""
    return Format.GGUF if path.suffix == ".gguf" else ""


def contenders_of(
    entries: Sequence[BenchEntry], weights: Mapping[tuple[str, str], Weights], *, node: NodeGpus = UNKNOWN
) -> list[Contender]:
    """Return what the fleet can start; `weights` by names of model and engine.

    `node` are the GPUs of this machine; unknown ones are assigned to no candidate, and all candidates see them.
    """
    made = []
    for number, entry in enumerate(entries):
        found = weights[entry.model.name, entry.engine.name]
        plan = gpus_of(entry, _plan(entry, found.path, number), node).plans[0]
        candidate = Candidate(
            id=entry.label,
            model=entry.model.name,
            engine=entry.engine.name,
            options=dict(entry.options),
            weights=found.path.name,
            weights_sha256=found.sha256,
            weights_source=found.source,
            weights_format=format_of(found.path),
            versions=_version(entry.engine),
            gpus=plan.gpus,
        )
        made.append(Contender(candidate=candidate, plan=plan))
    return made


def gpus_of(entry: BenchEntry, plan: ReplicaPlan, node: NodeGpus) -> GpuAssignment:
    """Return the plan of a candidate with the GPUs that it would have as the only replica of this node, or why it cannot have them.

    A number in the model's `gpus` is meant for the model's own engine; a list is so for all.
    """
    model = entry.model
    if isinstance(model.gpus, int) and entry.engine.name != model.engine:
        model = model.model_copy(update={"gpus": "auto"})
    return assign([want_of(plan, model, built_for_gpus(plan.weights))], node)


def gpu_mistakes(entries: Sequence[BenchEntry], node: NodeGpus) -> list[Problem]:
    """Return which candidates want more GPUs than this node has, or others."""
    return [
        Problem(where=entry.label, message=each.message, hint=each.hint)
        for number, entry in enumerate(entries)
        for each in gpus_of(entry, _plan(entry, None, number), node).problems
    ]


def _version(engine: Engine) -> dict[str, str]:
    """Return the version of an engine that is a distribution of Freehold's own environment; others report theirs when they run."""
    try:
        return {engine.distribution: version(engine.distribution)} if engine.distribution else {}
    except PackageNotFoundError:
        return {}


def _plan(entry: BenchEntry, weights: Path | None, number: int) -> ReplicaPlan:
    environment = environment_of(entry.engine)
    return ReplicaPlan(
        id=f"{entry.model.name}-bench-{number}",
        model=entry.model.name,
        engine=entry.engine,
        weights=weights,
        options=entry.options,
        threads=len(os.sched_getaffinity(0)),
        environment=environment.path if environment is not None else None,
        stall_s=entry.model.stall or 0.0,
        affinity=entry.model.affinity == "prefix",
        resume="off",
    )


def context_of(entries: Iterable[BenchEntry]) -> int:
    """Return the longest prompt and answer that all of them can take, tokens; 0: of none it is known."""
    found = [entry.engine.max_context_tokens(entry.options) for entry in entries]
    return min((tokens for tokens in found if tokens), default=0)
