"""Which model is meant: an id of the catalog, a Hugging Face `config.json`, or a GGUF file; its shape either way.

It reads one file at most, and no weights.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from freehold.catalog.facts import Catalog
from freehold.core.problems import Problem, nearest_hint
from freehold.sizing.model.from_catalog import shape_of
from freehold.sizing.model.from_config import shape_from_config
from freehold.sizing.model.shape import ModelShape

_ROUNDED = 0.03
"""How far a file's count of parameters may be from the catalog's, which is of the published digits. Our own choice."""
_CONFIG_BYTES_MAX = 4 * 1024 * 1024  # Our own bound, some hundred times the longest config.json.


def find_shape(model: str, config: Path | None, catalog: Catalog) -> ModelShape | tuple[Problem, ...]:
    """Return the shape of `--model`, or of the file of `--model-config`, whose name is its own unless `model` says another.

    A `--model-config` or `--model` that ends in `.gguf` is read as one. A model of the catalog that the file is not is a problem.
    """
    if config is not None:
        return _named(_from_file(config), model, config, catalog)
    if model.endswith(".gguf"):
        return _from_file(Path(model))
    known = _known(model, catalog)
    if known is not None:
        return known
    hint = nearest_hint(model.casefold(), catalog.models)
    hint += "; or its shape: --model-config config.json of Hugging Face, or a .gguf file"
    return (Problem(where="--model", message=f"the catalog does not know {model!r}", hint=hint),)


def _known(model: str, catalog: Catalog) -> ModelShape | None:
    wanted = model.casefold()
    for facts in catalog.models.values():
        if wanted in {facts.id.casefold(), facts.hf.casefold(), facts.hf.rpartition("/")[2].casefold()}:
            return shape_of(facts)
    return None


def _named(
    found: ModelShape | tuple[Problem, ...], model: str, path: Path, catalog: Catalog
) -> ModelShape | tuple[Problem, ...]:
    """Return the file's shape under the name that was said, which may not be another model's."""
    if not model or not isinstance(found, ModelShape):
        return found
    known = _known(model, catalog)
    if known is None:
        return replace(found, name=model)
    if not _alike(found, known):
        message = (
            f"the catalog knows {known.name} as {_dimensions(known)}, and {path} has {_dimensions(found)}"
        )
        hint = "leave out --model or --model-config: each names the model by itself"
        return (Problem(where="--model", message=message, hint=hint),)
    return replace(found, name=known.name)


def _alike(one: ModelShape, other: ModelShape) -> bool:
    same = (one.layers, one.hidden, one.heads) == (other.layers, other.hidden, other.heads)
    return same and abs(one.params_total - other.params_total) <= _ROUNDED * other.params_total


def _dimensions(shape: ModelShape) -> str:
    billions = f"{shape.params_total / 1e9:.3g}B parameters"
    return f"{billions}, {shape.layers} layers of width {shape.hidden} and {shape.heads} heads"


def _from_file(path: Path) -> ModelShape | tuple[Problem, ...]:
    if path.suffix == ".gguf":
        from freehold.weights.gguf_header import shape_from_gguf  # noqa: PLC0415 - slow to import, seldom needed

        return shape_from_gguf(path)
    try:
        with path.open("rb") as file:
            text = file.read(_CONFIG_BYTES_MAX + 1)
    except OSError as exc:
        return (Problem(where=str(path), message=f"cannot be read: {exc.strerror}", hint="name a file"),)
    return _from_text(text, path)


def _from_text(text: bytes, path: Path) -> ModelShape | tuple[Problem, ...]:
    hint = "the config.json of a model on Hugging Face"
    if not text.strip():
        return (Problem(where=str(path), message="is empty", hint=hint),)
    if len(text) > _CONFIG_BYTES_MAX:
        return (Problem(where=str(path), message="is too large for a config.json", hint=hint),)
    try:
        config = json.loads(text)
    except json.JSONDecodeError as exc:
        return (
            Problem(where=f"{path}:{exc.lineno}:{exc.colno}", message=f"is not JSON: {exc.msg}", hint=hint),
        )
    except (UnicodeDecodeError, RecursionError) as exc:
        return (Problem(where=str(path), message=f"is not JSON: {exc}", hint=hint),)
    if not isinstance(config, dict):
        return (Problem(where=str(path), message="is not a JSON object", hint=hint),)
    return shape_from_config(config, name=_own_name(config, path), where=str(path))


def _own_name(config: dict[str, Any], path: Path) -> str:
    """Return what a config calls its model, else the file's name, else (of a `config.json`) its folder's."""
    said = config.get("_name_or_path")
    name = said.rstrip("/").rpartition("/")[2] if isinstance(said, str) else ""
    if name.strip(". "):
        return name
    stem = path.stem
    return stem if stem != "config" else path.absolute().parent.name or stem
