"""Which model is meant: an id of the catalog, a Hugging Face `config.json`, or a GGUF file; its shape either way.

It reads one file at most, and no weights.
"""

import json
from pathlib import Path

from freehold.catalog.facts import Catalog
from freehold.core.problems import Problem, nearest_hint
from freehold.sizing.from_catalog import shape_of
from freehold.sizing.from_config import shape_from_config
from freehold.sizing.shape import ModelShape

_CONFIG_BYTES_MAX = 4 * 1024 * 1024  # Our own bound, some hundred times the longest config.json.


def find_shape(model: str, config: Path | None, catalog: Catalog) -> ModelShape | tuple[Problem, ...]:
    """Return the shape of `--model`, or of the file of `--config` (then `model` is only its name).

    A `--config` or `--model` that ends in `.gguf` is read as one.
    """
    if config is not None:
        return _from_file(config, model)
    if model.endswith(".gguf"):
        return _from_file(Path(model), Path(model).stem)
    wanted = model.casefold()
    for facts in catalog.models.values():
        if wanted in {facts.id.casefold(), facts.hf.casefold(), facts.hf.rpartition("/")[2].casefold()}:
            return shape_of(facts)
    hint = nearest_hint(model, catalog.models)
    hint += "; or its shape: --config config.json of Hugging Face, or a .gguf file"
    return (Problem(where="--model", message=f"the catalog does not know {model!r}", hint=hint),)


def _from_file(path: Path, name: str) -> ModelShape | tuple[Problem, ...]:
    if path.suffix == ".gguf":
        from freehold.weights.gguf_header import shape_from_gguf  # noqa: PLC0415 - slow to import, seldom needed

        return shape_from_gguf(path)
    try:
        with path.open("rb") as file:
            text = file.read(_CONFIG_BYTES_MAX + 1)
    except OSError as exc:
        return (Problem(where=str(path), message=f"cannot be read: {exc.strerror}", hint="name a file"),)
    return _from_text(text, path, name)


def _from_text(text: bytes, path: Path, name: str) -> ModelShape | tuple[Problem, ...]:
    hint = "the config.json of a model on Hugging Face"
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
        return (Problem(where=str(path), message="is no JSON object", hint=hint),)
    return shape_from_config(config, name=name, where=str(path))
