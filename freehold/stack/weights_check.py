"""Which weights an engine is given: the fetched ones, converted ones, or an error that says why neither fits.

What the text of the configuration shows is checked before anything is fetched. The rest is checked when the weights are
here, before an engine starts. This module knows formats, and no engine by name.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from freehold.core.errors import Permanent
from freehold.core.formats import Format
from freehold.core.problems import Problem
from freehold.engines import all_engines
from freehold.engines.base import Engine
from freehold.fleet.environments.lookup import engines_root, environments_in, find_for
from freehold.spec.load import Loaded
from freehold.spec.model import ModelSpec
from freehold.weights.adapter import recognise_adapter
from freehold.weights.recognise import recognise
from freehold.weights.source import (
    FolderLike,
    GgufParts,
    HubFolder,
    Source,
    allows_pickles,
    parse_source,
)
from freehold.weights.store import Store
from freehold.weights.transfer import OnProgress, disk_errors

TO_GGUF = "python llama.cpp/convert_hf_to_gguf.py FOLDER --outfile model.gguf"
"""What a user runs to convert back. Source: llama.cpp's own documentation; no package of llama.cpp installs it."""

_NEEDED = ("transformers", "gguf")  # packages that a conversion needs


def converter_python(env: Mapping[str, str], engine: Engine | None = None) -> Path | None:
    """Return the interpreter of an environment that can convert, the engine's own first, or None without one."""
    root = engines_root(env)
    own = find_for(engine, root) if engine is not None else None
    for environment in (*([own] if own else []), *environments_in(root)):
        if _can_convert(environment.path):
            return environment.python
    return None


def _can_convert(folder: Path) -> bool:
    places = folder.glob("lib/python3*/site-packages")
    return any(all((place / name).is_dir() for name in _NEEDED) for place in places)


def source_problems(loaded: Loaded) -> list[Problem]:
    """Return a problem for each model whose source shows by its text that its engine cannot load it."""
    problems: list[Problem] = []
    for index, model in enumerate(loaded.models):
        engine, text = all_engines().get(str(model.get("engine"))), model.get("source")
        source = parse_source(text) if isinstance(text, str) else None
        if engine is None or not engine.managed or source is None or isinstance(source, Problem):
            continue
        message, hint = _misfit(engine, source)
        if message:
            where = loaded.where(("models", index, "source"))
            problems.append(Problem(where=where, message=message, hint=hint))
    return problems


def adapter_problems(loaded: Loaded) -> list[Problem]:
    """Return a problem for each model with adapters whose engine does not take them from Freehold."""
    supporting = ", ".join(sorted(name for name, engine in all_engines().items() if engine.ask_adapter))
    return [
        Problem(
            where=loaded.where(("models", index, "adapters")),
            message=f"engine {engine.name} takes no adapters from Freehold",
            hint=f"engines that do: {supporting}",
        )
        for index, model in enumerate(loaded.models)
        if model.get("adapters")
        and (engine := all_engines().get(str(model.get("engine")))) is not None
        and engine.ask_adapter is None
    ]


def _misfit(engine: Engine, source: Source) -> tuple[str, str]:
    """Return why an engine cannot load a source and what to do, or empty texts if it can."""
    if _is_gguf(source) and Format.GGUF not in engine.formats:
        if isinstance(source, GgufParts):
            return f"{engine.name} loads no GGUF, and a GGUF in parts is not converted", _MERGE
        return ("", "") if Format.SAFETENSORS in engine.formats else _unconvertible(engine)
    if engine.formats == (Format.GGUF,) and isinstance(source, HubFolder) and not source.include:
        hint = f"name the file: {source}/FILE.gguf; if there is none, make one: {TO_GGUF}"
        return f"{engine.name} loads one GGUF file, and this is a whole repository", hint
    return "", ""


def refuse_early(model: ModelSpec) -> None:
    """Raise `Permanent` before the fetch if the weights need a conversion that is not possible here."""
    engine, source = all_engines()[model.engine], parse_source(model.source)
    if isinstance(source, Problem) or not _is_gguf(source) or Format.GGUF in engine.formats:
        return
    message, hint = _unconvertible(engine)
    if message:
        raise Permanent(message, hint=hint)


def _is_gguf(source: Source) -> bool:
    if isinstance(source, FolderLike):
        include: tuple[str, ...] = getattr(source, "include", ())
        return isinstance(source, GgufParts) or (
            bool(include) and all(each.endswith(".gguf") for each in include)
        )
    return source.filename.endswith(".gguf")


def _unconvertible(engine: Engine) -> tuple[str, str]:
    """Return why a GGUF file cannot be converted for this engine and what to do, or empty texts if it can."""
    said = f"{engine.name} loads {' or '.join(engine.formats)}, and this is a GGUF file"
    if Format.SAFETENSORS not in engine.formats:
        return said, "build what it loads from the model's safetensors"
    if converter_python(os.environ, engine) is None:
        install = (
            f"`freehold engine install {engine.recipes[0].name}`"
            if engine.recipes
            else "an engine's environment"
        )
        hint = f"to convert it, install an environment that can: {install}; or use safetensors, hf://OWNER/NAME@REVISION"
        return said, hint
    return "", ""


_MERGE = "merge the parts first: llama-gguf-split --merge FIRST_PART OUT.gguf"


def fitted(model: ModelSpec, path: Path, *, store: Store, on_progress: OnProgress | None = None) -> Path:
    """Return the path that the model's engine loads: its verified weights, converted if necessary.

    Raises `Permanent` with what is wrong and what to do.
    """
    engine, source = all_engines()[model.engine], parse_source(model.source)
    allowed = not isinstance(source, Problem) and allows_pickles(source)
    with disk_errors(path):
        found = recognise(path, pickles_allowed=allowed)
    if found.problems:
        first, *more = found.problems
        said = "; ".join(f"{each.where} {each.message}" for each in (first, *more))
        raise Permanent(said, hint=first.hint)
    if found.format is None or found.format in engine.formats:
        return found.path
    if found.format is Format.GGUF:
        return _from_gguf(engine, model, found.path, store=store, on_progress=on_progress)
    hint = TO_GGUF + ", then source: file:///…/model.gguf" if Format.GGUF in engine.formats else ""
    raise Permanent(
        f"{engine.name} loads {' or '.join(engine.formats)}, and this is {found.format}", hint=hint
    )


def fitted_adapter(model: ModelSpec, path: Path) -> None:
    """Raise `Permanent` with the reason if the model's engine cannot load this verified adapter."""
    engine = all_engines()[model.engine]
    with disk_errors(path):
        found = recognise_adapter(path)
    if found.problems:
        said = "; ".join(f"{each.where} {each.message}" for each in found.problems)
        raise Permanent(said, hint=found.problems[0].hint)
    if found.format not in engine.adapter_formats:
        kinds = " or ".join(_ADAPTER_KINDS[kind] for kind in engine.adapter_formats)
        assert found.format is not None, "an adapter without a format has a problem"
        raise Permanent(
            f"{engine.name} loads adapters as {kinds}, and this is {_ADAPTER_KINDS[found.format]}",
            hint=TO_GGUF_ADAPTER
            if Format.GGUF in engine.adapter_formats
            else "use the PEFT folder that it was converted from",
        )


_ADAPTER_KINDS = {Format.GGUF: "a GGUF file", Format.SAFETENSORS: "a PEFT folder"}
TO_GGUF_ADAPTER = "python llama.cpp/convert_lora_to_gguf.py FOLDER --base MODEL_FOLDER --outfile adapter.gguf"
"""What a user runs to convert an adapter. Source: llama.cpp's own documentation."""


def _from_gguf(
    engine: Engine, model: ModelSpec, path: Path, *, store: Store, on_progress: OnProgress | None
) -> Path:
    message, hint = _unconvertible(engine)
    python = converter_python(os.environ, engine)
    if message or python is None:
        raise Permanent(message, hint=hint)
    from freehold.weights.convert import to_safetensors  # noqa: PLC0415 - slow to import, rarely needed

    sha256 = (
        "" if isinstance(parse_source(model.source), FolderLike) else model.sha256
    )  # a folder has a tree hash
    return to_safetensors(store, path, python=python, sha256=sha256, on_progress=on_progress).path
